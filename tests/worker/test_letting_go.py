"""Hooks whose code catches what is to end it, and calls again, for ever."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

import perdure
from perdure.workers import waits
from perdure.workers.hooks import HookTurn

T = "40 s"


@pytest.fixture
def stubborn(app: perdure.App, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give an async and a plain coordinator of a hook that leaves memory at its first wait."""
    monkeypatch.setattr(waits, "GRACE", 0.0)

    @app.hook
    async def waits_on(memory: perdure.AsyncEntity) -> str:
        while True:
            try:
                return str(await perdure.wait_for("go"))
            except BaseException:  # noqa: BLE001 - code that never dies
                pass

    @app.hook
    def waits_on_in_a_thread(memory: perdure.Entity) -> str:
        while True:
            try:
                return str(perdure.wait_for("go"))
            except BaseException:  # noqa: BLE001 - code that never dies
                pass

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> str:
        return await waits_on(memory)

    @app.coordinator
    async def asks_a_thread(memory: perdure.AsyncEntity) -> Any:
        return await waits_on_in_a_thread(memory)

    return {"async": asks, "plain": asks_a_thread}


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the states in which hooks were to leave memory, as the database answered."""
    states: list[str] = []
    answered = HookTurn.answered

    def noted(turn: HookTurn, answer: dict[str, Any]) -> None:
        if turn._sent_plan["state"] == "park":
            states.append(answer["state"])
        answered(turn, answer)

    monkeypatch.setattr(HookTurn, "answered", noted)
    return states


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_hook_that_does_not_let_go_holds_up_nobody(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    stubborn: dict[str, Any],
    left: list[str],
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    """[P8]: its calls raised at once, and the loop, or the job, came to nothing else."""

    @app.coordinator
    async def other(memory: perdure.AsyncEntity) -> str:
        return "other"

    work()
    handle = client.start(stubborn[kind])
    with caplog.at_level(logging.ERROR, "perdure.worker"):
        while not left and handle.status().finished_at is None:
            assert client.start(other).result(T) == "other"
        handle.signal("go", "at last")
        assert handle.result(T) == "at last"
    assert left[0] == "parked"
    assert "does not end: its code catches" in caplog.text


def test_what_comes_as_it_is_left_behind_is_heard(
    client: perdure.Client,
    work: Any,
    stubborn: dict[str, Any],
    left: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """[P8]: it begins anew beside the old thread, whose calls have no effect any more."""
    park = HookTurn._park_abandoned

    def hears(turn: HookTurn) -> None:
        client.handle(turn.job).signal("go", "just now")
        park(turn)

    monkeypatch.setattr(HookTurn, "_park_abandoned", hears)
    work()
    handle = client.start(stubborn["plain"])
    assert handle.result(T) == "just now"
    assert left[0] == "keep"


def test_a_thread_that_is_left_behind_takes_no_place(
    app: perdure.App, client: perdure.Client, work: Any, stubborn: dict[str, Any], left: list[str]
) -> None:
    """[P8]: all threads were taken in the end, and whatever needed one waited with its lease."""

    @app.hook
    def harmless(memory: perdure.Entity) -> str:
        return "done"

    work(slots=1)
    handle = client.start(stubborn["plain"])
    while not left:
        time.sleep(0.01)
    assert client.handle(client.create_entity("e", "thing").id).run_hook(harmless, timeout=T)
    handle.signal("go", "at last")
    assert handle.result(T) == "at last"
