"""Errors that cannot be described as usual fail the work that raises them, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import perdure

T = 30


class ExitsWhenShown(Exception):
    """An error whose text cannot be read, because `str()` raises SystemExit."""

    def __str__(self) -> str:
        raise SystemExit("not this one")


class IsNeither(Exception):
    """An error that has no truth value."""

    def __bool__(self) -> bool:
        raise RuntimeError("neither")


class IsFalse(Exception):
    """An error that is false, as an empty collection of errors may be."""

    def __len__(self) -> int:
        return 0


class HasNoCause(Exception):
    """An error whose cause cannot be read."""

    @property
    def __cause__(self) -> Any:
        raise RuntimeError("no cause")


class Own(perdure.JobFailed):
    """A failure that does not set what its base class sets."""

    def __init__(self, reason: str):
        self.reason = reason


def caused(cause: Exception) -> Exception:
    """Give an error with a cause."""
    error = ValueError("outer")
    error.__cause__ = cause
    return error


def noted() -> Exception:
    """Give an error with a note."""
    error = ValueError("noted")
    error.add_note("row 17 of the file")
    return error


ODD: dict[str, tuple[Callable[[], Exception], str]] = {
    "exits": (lambda: ExitsWhenShown("x"), "ExitsWhenShown: <ExitsWhenShown without a readable"),
    "neither": (lambda: caused(IsNeither("x")), "ValueError: outer"),
    "no cause": (lambda: HasNoCause("x"), "HasNoCause: <HasNoCause without a readable"),
    "number": (lambda: perdure.InvalidArgument(5), "InvalidArgument: 5"),  # type: ignore[arg-type]
    "text": (lambda: perdure.ActivityFailed("no such page"), "Exception: no such page"),
    "objects": (lambda: perdure.HookFailed({"message": "m", "x": {1}}), "HookFailed: m"),
    "half": (lambda: perdure.HookFailed({"message": "\ud800"}), r"HookFailed: \?"),
    "nul": (lambda: perdure.HookFailed({"message": "\0"}), "HookFailed: \ufffd"),
    "own": (lambda: Own("late"), "Own"),
}


def raising(app: perdure.App) -> dict[str, Any]:
    """Give coordinators that raise such an error, by the place where it is raised."""

    def fail(odd: str) -> None:
        error = ODD[odd][0]()
        raise error

    @app.activity
    async def activity(odd: str) -> None:
        fail(odd)

    @app.hook
    async def hook(memory: perdure.AsyncEntity, odd: str) -> None:
        fail(odd)

    @app.hook
    async def group(memory: perdure.AsyncEntity, odd: str) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.to_thread(fail, odd))

    @app.coordinator
    async def itself(memory: perdure.AsyncEntity, odd: str) -> None:
        fail(odd)

    @app.coordinator
    async def elsewhere(memory: perdure.AsyncEntity, odd: str, place: str) -> None:
        await {"hook": hook, "group": group}[place](memory, odd)

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity, odd: str) -> None:
        await activity(odd)

    return {"coordinator": itself, "activity": asks, "hook": elsewhere, "group": elsewhere}


@pytest.mark.parametrize("odd", ODD)
def test_odd_error_fails_the_job_with_a_type_and_a_message(
    app: perdure.App, client: perdure.Client, work: Any, odd: str
) -> None:
    """The error must neither end the worker nor leave the job stuck."""
    started = raising(app)
    work()
    message = ODD[odd][1]
    for place, workflow in started.items():
        args = (odd, place) if place in ("hook", "group") else (odd,)
        with pytest.raises(perdure.JobFailed, match=f"(?s){message}") as raised:
            client.start(workflow, *args).result(T)
        assert raised.value.type == (
            "ExceptionGroup" if place == "group" else message.split(":")[0]
        )


@pytest.mark.parametrize(
    ("error", "text"),
    [(noted, "\nValueError: noted\nrow 17 of the file\n"), (IsFalse, "\nIsFalse: \n")],
)
def test_traceback_contains_notes_and_causes_that_are_false(
    app: perdure.App, client: perdure.Client, work: Any, error: Callable[[], Exception], text: str
) -> None:
    @app.coordinator
    async def fails(memory: perdure.AsyncEntity) -> None:
        raise ValueError("outer") from error()

    work()
    with pytest.raises(perdure.JobFailed) as raised:
        client.start(fails).result(T)
    assert text in str(raised.value.traceback)
