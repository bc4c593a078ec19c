"""Hints bring a worker the messages to tasks that it holds at once, without polling. [P5] [P11]"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure.database.call import Call
from perdure.database.connections import AsyncLink
from perdure.workers import coordinators, waits
from perdure.workers.hooks import HookTurn

pytestmark = pytest.mark.direct("it is about hints")

T = 30
NEVER = 3600.0


@pytest.fixture(autouse=True)
def without_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep waiting tasks in memory, and let no task poll its inbox."""
    for name in ("FIRST_TICK", "LONGEST_TICK", "GRACE"):
        monkeypatch.setattr(waits, name, NEVER)
    for name in ("FIRST_POLL", "FIRST_POLL_ALONE", "LONGEST_POLL"):
        monkeypatch.setattr(coordinators, name, NEVER)


@pytest.fixture
def wait_until_held(client: perdure.Client, connection: Any) -> Callable[[perdure.Handle], None]:
    """Give a function that waits until a worker holds a task of the job and listens for it."""

    def wait(handle: perdure.Handle) -> None:
        held = (
            "select exists (select from perdure.tasks as t"
            " join perdure.listeners as l on l.topic = '$messages/' || t.worker"
            " where t.job_id = %s and t.token is not null)"
        )
        while connection.execute(held, [handle.id]).fetchone() != (True,):
            time.sleep(0.005)

    return wait


@pytest.fixture
def listening(
    app: perdure.App, client: perdure.Client, work: Any, wait_until_held: Any
) -> perdure.Handle[Any]:
    """Give a job whose hook waits for a signal, in the memory of a worker."""
    begun = threading.Event()

    @app.hook
    async def listens(memory: perdure.AsyncEntity) -> Any:
        begun.set()
        return await perdure.wait_for("go")

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await listens(memory)

    work(poll=NEVER)
    handle = client.start(asks)
    assert begun.wait(T)
    wait_until_held(handle)
    return handle


def test_hint_brings_a_signal_to_a_waiting_hook(listening: perdure.Handle[Any]) -> None:
    listening.signal("go", 1)
    assert listening.result(T) == 1


def test_nested_hooks_answer_without_polling(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.hook
    async def goes_down(memory: perdure.AsyncEntity, levels: int) -> int:
        return 1 + await goes_down(memory, levels - 1) if levels else 0

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> int:
        return await goes_down(memory, 5)

    work(poll=NEVER)
    assert client.start(asks).result(T) == 5


def test_hint_brings_a_signal_to_a_coordinator_beside_an_activity(
    app: perdure.App, client: perdure.Client, work: Any, wait_until_held: Any
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    @app.activity
    def works() -> None:
        begun.set()
        assert may_end.wait(T)

    @app.coordinator
    async def does_both(memory: perdure.AsyncEntity) -> Any:
        work = asyncio.ensure_future(works())
        await memory.set(await perdure.wait_for("go"), "heard")
        await work

    work(poll=NEVER)
    handle = client.start(does_both)
    assert begun.wait(T)
    wait_until_held(handle)
    handle.signal("go", 1)
    assert client.entity(handle.id).until("$.heard == 1", timeout=T) is not None
    may_end.set()
    handle.result(T)


def test_hint_brings_a_cancel_to_a_working_hook(
    app: perdure.App, client: perdure.Client, work: Any, wait_until_held: Any
) -> None:
    begun, heard = threading.Event(), threading.Event()

    @app.hook
    async def works(memory: perdure.AsyncEntity) -> None:
        begun.set()
        try:
            await asyncio.sleep(NEVER)
        finally:
            heard.set()

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> None:
        await works(memory)

    work(poll=NEVER, lease=NEVER)  # a heartbeat would deliver the cancel, too
    handle = client.start(asks)
    assert begun.wait(T)
    wait_until_held(handle)
    handle.cancel()
    assert heard.wait(T)


def test_hint_brings_a_cancel_to_a_dispatched_activity(
    app: perdure.App, client: perdure.Client, work: Any, wait_until_held: Any
) -> None:
    begun, heard = threading.Event(), threading.Event()

    @app.activity(queue="elsewhere")
    async def works() -> None:
        begun.set()
        try:
            await asyncio.sleep(NEVER)
        finally:
            heard.set()

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> None:
        await works()

    work(queues=["default", "elsewhere"], poll=NEVER, lease=NEVER)
    handle = client.start(asks)
    assert begun.wait(T)
    wait_until_held(handle)
    handle.cancel()
    assert heard.wait(T)


def test_hint_during_a_call_makes_the_hook_look_again(
    listening: perdure.Handle[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call has read the inbox, and its answer is on its way, when the signal is sent."""
    hinted = asyncio.Event()
    holds = False
    call_of, take_hint_of = AsyncLink.call, HookTurn.take_hint

    async def call(link: AsyncLink, call: Call) -> Any:
        nonlocal holds
        answer = await call_of(link, call)
        if holds and call.function == "advance":
            holds = False
            listening.signal("go", 1)
            await hinted.wait()
        return answer

    def take_hint(turn: HookTurn) -> None:
        take_hint_of(turn)
        if turn.in_flight:
            hinted.set()

    monkeypatch.setattr(AsyncLink, "call", call)
    monkeypatch.setattr(HookTurn, "take_hint", take_hint)

    holds = True
    listening.signal("something else")
    assert listening.result(T) == 1
    assert hinted.is_set()
