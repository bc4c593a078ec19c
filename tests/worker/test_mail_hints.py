"""Mail for what a worker holds is heard of at once, and not only when it looks. [P5] [P11]"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure.database.calls import Call
from perdure.database.connections import AsyncLink
from perdure.workers import coordinators, waits
from perdure.workers.hooks import HookTurn

pytestmark = pytest.mark.direct("it is about hints")

T = 30
NEVER = 3600.0


@pytest.fixture(autouse=True)
def without_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is held wait in memory, and never look into its inbox by itself."""
    for name in ("FIRST_TICK", "LONGEST_TICK", "GRACE"):
        monkeypatch.setattr(waits, name, NEVER)
    for name in ("FIRST_POLL", "FIRST_POLL_ALONE", "LONGEST_POLL"):
        monkeypatch.setattr(coordinators, name, NEVER)


@pytest.fixture
def waiting(client: perdure.Client, connection: Any) -> Callable[[perdure.Handle], None]:
    """Give a function that returns when a worker listens that holds a task of a job."""

    def wait(handle: perdure.Handle) -> None:
        held = (
            "select exists (select from perdure.tasks as t"
            " join perdure.listeners as l on l.topic = '$mail/' || t.worker"
            " where t.job_id = %s and t.token is not null)"
        )
        while connection.execute(held, [handle.id]).fetchone() != (True,):
            time.sleep(0.005)

    return wait


@pytest.fixture
def listening(
    app: perdure.App, client: perdure.Client, work: Any, waiting: Any
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
    waiting(handle)
    return handle


def test_a_hook_hears_a_signal_where_it_waits(listening: perdure.Handle[Any]) -> None:
    listening.signal("go", 1)
    assert listening.result(T) == 1


def test_hooks_of_hooks_answer_at_once(app: perdure.App, client: perdure.Client, work: Any) -> None:
    @app.hook
    async def goes_down(memory: perdure.AsyncEntity, levels: int) -> int:
        return 1 + await goes_down(memory, levels - 1) if levels else 0

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> int:
        return await goes_down(memory, 5)

    work(poll=NEVER)
    assert client.start(asks).result(T) == 5


def test_a_coordinator_hears_a_signal_beside_an_activity(
    app: perdure.App, client: perdure.Client, work: Any, waiting: Any
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
    waiting(handle)
    handle.signal("go", 1)
    assert client.entity(handle.id).until("$.heard == 1", timeout=T) is not None
    may_end.set()
    handle.result(T)


def test_a_hook_that_works_hears_a_request_to_cancel(
    app: perdure.App, client: perdure.Client, work: Any, waiting: Any
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

    work(poll=NEVER, lease=NEVER)  # its heartbeat would hear of it, too
    handle = client.start(asks)
    assert begun.wait(T)
    waiting(handle)
    handle.cancel()
    assert heard.wait(T)


def test_an_activity_elsewhere_hears_a_request_to_cancel(
    app: perdure.App, client: perdure.Client, work: Any, waiting: Any
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
    waiting(handle)
    handle.cancel()
    assert heard.wait(T)


def test_mail_that_comes_while_a_look_is_on_its_way_is_looked_for_again(
    listening: perdure.Handle[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look has read the inbox, its answer is on its way, and then the signal comes."""
    hinted = asyncio.Event()
    holds = False
    call_of, hear_of = AsyncLink.call, HookTurn.take_hint

    async def call(link: AsyncLink, call: Call) -> Any:
        nonlocal holds
        answer = await call_of(link, call)
        if holds and call.function == "advance":
            holds = False
            listening.signal("go", 1)
            await hinted.wait()
        return answer

    def hear(turn: HookTurn) -> None:
        hear_of(turn)
        if turn.in_flight:
            hinted.set()

    monkeypatch.setattr(AsyncLink, "call", call)
    monkeypatch.setattr(HookTurn, "take_hint", hear)

    holds = True
    listening.signal("something else")
    assert listening.result(T) == 1
    assert hinted.is_set()
