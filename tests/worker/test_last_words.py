"""Whatever exception user code raises, it fails that code, and the worker goes on. [P10]"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import perdure

T = 20

Fails = Callable[[], Any]


class Own(BaseException):
    """An exception of the user's, outside of the known classes."""


@pytest.fixture(
    params=[SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, Own],
    ids=lambda kind: kind.__name__,
)
def exception(request: pytest.FixtureRequest) -> type[BaseException]:
    """Give the type of the exception."""
    kind: type[BaseException] = request.param
    return kind


def failing_coordinators(app: perdure.App, fails: Fails) -> list[str]:
    """Register coordinators that fail; give their names."""

    async def later() -> None:
        fails()

    @app.coordinator
    async def fails_at_once(memory: perdure.AsyncEntity) -> None:
        fails()

    @app.coordinator
    async def fails_after_a_wait(memory: perdure.AsyncEntity) -> None:
        await memory.set({})
        fails()

    @app.coordinator
    async def fails_by_a_task(memory: perdure.AsyncEntity) -> None:
        await asyncio.gather(later(), asyncio.sleep(3600))

    @app.coordinator
    def fails_plainly(memory: perdure.Entity) -> None:
        memory.set({})
        fails()

    return [fails_at_once.name, fails_after_a_wait.name, fails_by_a_task.name, fails_plainly.name]


def calling_coordinators(app: perdure.App, fails: Fails) -> list[str]:
    """Register coordinators that call failing hooks and activities; give their names."""

    async def later() -> None:
        fails()

    def plain(*_: Any) -> None:
        fails()

    async def at_once(*_: Any) -> None:
        fails()

    async def by_a_task(*_: Any) -> None:
        await asyncio.gather(later(), asyncio.sleep(60))

    made: list[str] = []
    for function in (plain, at_once, by_a_task):
        works: list[Any] = [
            app.activity(name=f"{function.__name__} activity")(function),
            app.activity(name=f"{function.__name__} elsewhere", queue="elsewhere")(function),
            app.hook(name=f"{function.__name__} hook")(function),
        ]
        for work in works:

            async def asks(memory: perdure.AsyncEntity, work: Any = work) -> Any:
                return await (work(memory) if work.kind == "hook" else work())

            made.append(app.coordinator(name=f"asks for {work.name}")(asks).name)
    return made


def test_any_exception_fails_the_job_and_not_the_worker(
    app: perdure.App, client: perdure.Client, work: Any, exception: type[BaseException]
) -> None:
    """Coordinators, hooks and activities raise it, some of them in an asyncio task or a thread."""

    def fails() -> None:
        raise exception

    @app.coordinator
    async def goes_on(memory: perdure.AsyncEntity) -> str:
        return "still here"

    names = failing_coordinators(app, fails) + calling_coordinators(app, fails)
    worker = work()
    jobs = {name: client.start(name) for name in names}
    for job in jobs.values():
        with pytest.raises(perdure.JobFailed, match=exception.__name__):
            job.result(T)
    assert client.start(goes_on).result(T) == "still here"
    worker.stop()
