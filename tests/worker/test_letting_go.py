"""Hooks that catch the exception that is to end them, and go on for ever."""

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
    """Give an async and a plain coordinator whose hook catches everything. Hooks leave memory at
    their first wait."""
    monkeypatch.setattr(waits, "GRACE", 0.0)

    @app.hook
    async def waits_on(memory: perdure.AsyncEntity) -> str:
        while True:
            try:
                return str(await perdure.wait_for("go"))
            except BaseException:  # noqa: BLE001 - the hook catches everything
                pass

    @app.hook
    def waits_on_in_a_thread(memory: perdure.Entity) -> str:
        while True:
            try:
                return str(perdure.wait_for("go"))
            except BaseException:  # noqa: BLE001 - the hook catches everything
                pass

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> str:
        return await waits_on(memory)

    @app.coordinator
    async def asks_a_thread(memory: perdure.AsyncEntity) -> Any:
        return await waits_on_in_a_thread(memory)

    return {"async": asks, "plain": asks_a_thread}


@pytest.fixture
def park_answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the states with which the database answered the requests to park a hook."""
    states: list[str] = []
    answered = HookTurn.answered

    def recorded(turn: HookTurn, answer: dict[str, Any]) -> None:
        if turn._sent_plan["state"] == "park":
            states.append(answer["state"])
        answered(turn, answer)

    monkeypatch.setattr(HookTurn, "answered", recorded)
    return states


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_hook_that_catches_everything_blocks_no_other_work(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    stubborn: dict[str, Any],
    park_answers: list[str],
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    """[P8] Other jobs complete meanwhile, the hook still receives its signal, and the worker logs
    what is wrong."""

    @app.coordinator
    async def other(memory: perdure.AsyncEntity) -> str:
        return "other"

    work()
    handle = client.start(stubborn[kind])
    with caplog.at_level(logging.ERROR, "perdure.worker"):
        while not park_answers and handle.status().finished_at is None:
            assert client.start(other).result(T) == "other"
        handle.signal("go", "at last")
        assert handle.result(T) == "at last"
    assert park_answers[0] == "parked"
    assert "does not end: its code catches" in caplog.text


def test_signal_that_arrives_as_a_hook_is_abandoned_is_received(
    client: perdure.Client,
    work: Any,
    stubborn: dict[str, Any],
    park_answers: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """[P8] The hook begins anew beside its old thread, whose calls have no effect any more."""
    park = HookTurn._park_abandoned

    def park_after_signal(turn: HookTurn) -> None:
        client.handle(turn.job).signal("go", "just now")
        park(turn)

    monkeypatch.setattr(HookTurn, "_park_abandoned", park_after_signal)
    work()
    handle = client.start(stubborn["plain"])
    assert handle.result(T) == "just now"
    assert park_answers[0] == "keep"


def test_abandoned_thread_occupies_no_slot(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    stubborn: dict[str, Any],
    park_answers: list[str],
) -> None:
    """[P8] Otherwise all threads would be taken in the end, and no other plain hook could run."""

    @app.hook
    def harmless(memory: perdure.Entity) -> str:
        return "done"

    work(slots=1)
    handle = client.start(stubborn["plain"])
    while not park_answers:
        time.sleep(0.01)
    assert client.handle(client.create_entity("e", "thing").id).run_hook(harmless, timeout=T)
    handle.signal("go", "at last")
    assert handle.result(T) == "at last"
