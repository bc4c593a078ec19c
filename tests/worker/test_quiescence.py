"""When a hook may leave memory: not while it waits for something that is not recorded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import perdure
from perdure.workers import waits
from perdure.workers.quiescence import DurableWait, is_quiescent
from perdure.workers.waits import Waits
from tests.worker.test_until import wait_for

T = "40 s"


async def event() -> None:
    await asyncio.Event().wait()


async def lock() -> None:
    held = asyncio.Lock()
    await held.acquire()
    async with held:
        pass


async def semaphore() -> None:
    async with asyncio.Semaphore(0):
        pass


async def queue() -> None:
    await asyncio.Queue().get()


async def condition() -> None:
    changed = asyncio.Condition()
    async with changed:
        await changed.wait()


async def future() -> None:
    await asyncio.get_running_loop().create_future()


async def durable() -> None:
    await DurableWait()


async def gathered() -> None:
    await asyncio.gather(durable(), DurableWait())


async def waited() -> None:
    await asyncio.wait([DurableWait(), DurableWait()])


async def grouped() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(durable())
        await durable()


@pytest.mark.parametrize(
    ("code", "want"),
    [
        *((code, False) for code in (event, lock, semaphore, queue, condition, future)),
        *((code, True) for code in (durable, gathered, waited, grouped)),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_only_durable_waits_are_quiescent(code: Callable[[], Awaitable[None]], want: bool) -> None:
    """Somebody outside of the hook may hold the lock, fill the queue or set the event."""

    async def main() -> None:
        own = asyncio.current_task()
        root = asyncio.ensure_future(code())
        for _ in range(5):
            await asyncio.sleep(0)
        family = asyncio.all_tasks() - {own}
        assert is_quiescent(family, []) is want
        for task in family:
            task.cancel()
        await asyncio.gather(root, return_exceptions=True)

    asyncio.run(main())


def test_hook_that_waits_for_an_event_stays_in_memory(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P8] It also waits for a signal, but nobody could bring it back when the event is set."""
    answers: list[bool] = []
    has_asked = threading.Event()
    may_leave = Waits._may_leave
    woken: list[Callable[[], Any]] = []

    def recorded(waits: Waits) -> bool:
        answers.append(may_leave(waits))
        if len(answers) == 3:
            has_asked.set()
        return answers[-1]

    monkeypatch.setattr(waits, "GRACE", 0.0)
    monkeypatch.setattr(waits, "LONGEST_TICK", 0.05)
    monkeypatch.setattr(Waits, "_may_leave", recorded)

    @app.hook
    async def listens(memory: perdure.AsyncEntity) -> None:
        came, loop = asyncio.Event(), asyncio.get_running_loop()
        woken.append(lambda: loop.call_soon_threadsafe(came.set))

        async def hears() -> None:
            await came.wait()
            await memory.set(True, "heard")

        await asyncio.gather(hears(), perdure.wait_for("stop"))

    @app.coordinator
    async def begins(memory: perdure.AsyncEntity) -> None:
        await listens(memory)

    work()
    handle = client.start(begins)
    assert has_asked.wait(20)
    handle.signal("stop")  # first, or the hook might leave once the event is set
    woken[0]()
    handle.result(T)
    assert handle.memory.get("heard")
    assert (len(woken), any(answers[:3])) == (1, False)


def test_timer_that_has_fired_or_was_cancelled_keeps_no_hook_in_memory(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "GRACE", 0.0)

    @app.hook
    async def listens(memory: perdure.AsyncEntity) -> Any:
        async with asyncio.timeout(60):
            fired = asyncio.Event()
            asyncio.get_running_loop().call_later(0.01, fired.set)
            await fired.wait()
        return await perdure.wait_for("go")

    work()
    client.create_entity("shop", "shop")
    handle = client.handle("shop")
    task = handle.hook(listens)
    wait_for(dsn, "select 'go' = any(awaits) and token is null from perdure.tasks")
    handle.signal("go", 1)
    assert handle.hook_result(task, listens, timeout=T) == 1
