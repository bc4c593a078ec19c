"""Waits of clients end when they are cancelled, leave nothing behind, and survive upgrades."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import psycopg
import pytest

import perdure
from perdure.clients import waiting
from perdure.clients.waiting import AsyncListener
from perdure.database.call import Call
from tests.worker.test_until import run, wait_for

TOPIC = "$memory/order"
IN_TIME = 20.0
LONG = 60.0


async def settled(is_so: Callable[[], object]) -> None:
    """Let the loop run until a condition holds; fail after IN_TIME."""
    for _ in range(int(IN_TIME / 0.02)):
        if is_so():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it has not settled")


@asynccontextmanager
async def waits(
    dsn: str, is_ready: Callable[[set[asyncio.Event]], bool]
) -> AsyncIterator[tuple[AsyncListener, asyncio.Task[int]]]:
    """Start a task that waits for a memory, and continue when its wakeups are as wanted."""
    async with await perdure.connect_async(dsn) as client:
        order = await client.create_entity("order", "thing", {"n": 0})
        task = asyncio.create_task(order.until("$.n > 0"))
        await settled(lambda: is_ready(client._listener._wakeups.get(TOPIC, set())))
        yield client._listener, task
        task.cancel()
        await asyncio.wait([task], timeout=IN_TIME)


@pytest.mark.direct("it waits for a notification")
@pytest.mark.parametrize("steps", range(5))
def test_cancel_that_coincides_with_a_hint_is_not_lost(
    dsn: str, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """The cancel comes some steps of the event loop after the hint. `asyncio.wait_for` of Python
    3.11 would prefer the result, and the wait would go on for ever."""
    monkeypatch.setattr(waiting, "LADDER", (LONG,))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with waits(dsn, lambda wakeups: any(each._waiters for each in wakeups)) as (
            listener,
            task,
        ):
            (wakeup,) = listener._wakeups[TOPIC]

            def cancel_in(left: int) -> None:
                if left:
                    loop.call_soon(cancel_in, left - 1)
                else:
                    task.cancel()

            wakeup.set()  # as a notification does
            cancel_in(steps)
            await asyncio.wait([task], timeout=3)
            assert task.cancelled()

    asyncio.run(main())


@pytest.mark.direct("it waits for a notification")
def test_hint_without_a_change_costs_one_look(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LADDER", (LONG,))
    monkeypatch.setattr(waiting, "FIRST_POLL", LONG)
    looks: list[str] = []
    call = AsyncListener._call

    async def counted(listener: AsyncListener, asked: Call, until: float | None) -> object:
        looks.append(asked.function)
        return await call(listener, asked, until)

    async def main() -> None:
        async with waits(dsn, lambda wakeups: any(each._waiters for each in wakeups)) as (
            listener,
            _,
        ):
            monkeypatch.setattr(AsyncListener, "_call", counted)
            (wakeup,) = listener._wakeups[TOPIC]
            wakeup.set()  # as a notification does
            # Until it waits again, or looks without end.
            await settled(lambda: looks and (wakeup._waiters or len(looks) > 1))
            assert looks == ["entity_meets"]
            monkeypatch.undo()

    asyncio.run(main())


@pytest.mark.direct("it waits for a notification")
def test_wait_cancelled_before_it_listens_leaves_no_wakeup(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never_listens(listener: AsyncListener) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(waiting, "FIRST_POLL", LONG)
    monkeypatch.setattr(AsyncListener, "_run", never_listens)

    async def main() -> None:
        async with waits(dsn, bool) as (listener, task):
            task.cancel()
            await asyncio.wait([task], timeout=IN_TIME)
            assert task.cancelled()
            assert not listener._wakeups

    asyncio.run(main())


@pytest.mark.direct("it waits for a notification")
def test_wait_cancelled_again_and_again_is_unregistered(dsn: str) -> None:
    """anyio cancels a task until it has ended. This must not break off the call that unregisters
    the wait, nor the connection that all waits of the client share."""

    async def main() -> None:
        async with waits(dsn, lambda wakeups: any(each._waiters for each in wakeups)) as (
            listener,
            task,
        ):
            backend = listener._link.backend
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
            assert task.cancelled()
            await settled(lambda: not listener._waiting)
            assert listener._link.backend == backend is not None
            assert await listeners(dsn) == 0

    asyncio.run(main())


async def listeners(dsn: str) -> int:
    """Count the registered listeners."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        answer = await connection.execute("select count(*) from perdure.listeners")
        ((count,),) = await answer.fetchall()
    return int(count)


REPLACED = """
    drop function perdure.result(text);
    create function perdure.result(id text, out status text, out result jsonb, out error json)
        language sql security definer set search_path = pg_catalog, perdure
        as 'select j.status, j.result, j.error::json from perdure.jobs as j where j.id = result.id'
"""


@pytest.mark.direct("it waits for a notification")
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_wait_survives_an_upgrade(
    app: perdure.App, client: perdure.Client, dsn: str, kind: str
) -> None:
    """[P13] The new function returns another type of row than the connection has prepared."""

    @app.coordinator
    async def never(memory: perdure.AsyncEntity) -> None: ...

    job = client.start(never)

    async def awaited() -> None:
        async with await perdure.connect_async(dsn) as waits:
            await waits.handle(job.id).result(IN_TIME)

    def waited() -> None:
        asyncio.run(awaited()) if kind == "async" else job.result(IN_TIME)

    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(waited)
        wait_for(dsn, "select exists (select from perdure.listeners)")
        run(dsn, REPLACED)
        threading.Event().wait(0.5)  # a few polls, as it may have prepared nothing before
        job.terminate("enough")
        with pytest.raises(perdure.JobCancelled):
            future.result(IN_TIME)
