"""The connections of a client: no call holds up another, few are kept, and they end with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import perdure
from perdure.clients.pools import KEPT

IN_TIME = 20.0


@pytest.fixture
def entities(client: perdure.Client) -> perdure.Client:
    """Give a client of an app with two memories."""
    for name in ("order", "customer"):
        client.create_entity(name, "thing", {"n": 0})
    return client


def sessions(dsn: str, waiting: bool = False) -> int:
    """Count the sessions of clients, or those of them that wait for a lock."""
    with psycopg.connect(dsn, application_name="looks") as connection:
        row = connection.execute(
            "select count(*) from pg_stat_activity"
            " where application_name in ('perdure client', 'perdure result')"
            "   and datname = current_database()"
            "   and (wait_event_type = 'Lock' or not %s)",
            [waiting],
        ).fetchone()
    assert row is not None
    count: int = row[0]
    return count


def ends_with(dsn: str, at_most: int) -> bool:
    """Wait until there are no more sessions of clients than these."""
    pause = threading.Event()
    for _ in range(int(IN_TIME / 0.02)):
        if sessions(dsn) <= at_most:
            return True
        pause.wait(0.02)
    return False


async def begun(dsn: str, waits: int) -> bool:
    """Wait until so many wait."""
    async with await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, application_name="looks"
    ) as connection:
        for _ in range(int(IN_TIME / 0.02)):
            cursor = await connection.execute("select count(*) from perdure.listeners")
            if await cursor.fetchone() == (waits,):
                return True
            await asyncio.sleep(0.02)
    return False


@contextmanager
def locked(client: perdure.Client, dsn: str) -> Any:
    """Hold the lock of a memory, in a transaction as a user's."""
    with psycopg.connect(dsn, application_name="locks") as mine:
        client.entity("order", connection=mine).set("paid", "state")
        yield


def until_waiting(dsn: str, count: int) -> None:
    """Wait until so many calls of clients wait for a lock."""
    pause = threading.Event()
    for _ in range(int(IN_TIME / 0.02)):
        if sessions(dsn, waiting=True) >= count:
            return
        pause.wait(0.02)
    raise AssertionError("nobody waits")


@pytest.mark.parametrize("count", [1, KEPT + 2])
def test_a_call_that_waits_for_a_lock_holds_up_no_other(
    entities: perdure.Client, dsn: str, count: int
) -> None:
    """Not even those for which it waits, however many such calls there are: both waited for ever,
    and the server saw no deadlock."""
    with ThreadPoolExecutor(count + 1) as threads:
        with locked(entities, dsn):
            views = [
                threads.submit(entities.entity("order").increment, "views") for _ in range(count)
            ]
            until_waiting(dsn, count)
            read = threads.submit(entities.entity("customer").get)
            assert read.result(IN_TIME) == {"n": 0}
        assert sorted(view.result(IN_TIME) for view in views) == list(range(1, count + 1))


@pytest.mark.direct("it counts sessions")
@pytest.mark.parametrize("count", [1, KEPT + 2])
def test_a_task_that_waits_for_a_lock_holds_up_no_other(
    entities: perdure.Client, dsn: str, count: int
) -> None:
    async def main() -> None:
        async with await perdure.connect_async(dsn) as client:
            with locked(entities, dsn):
                order = client.entity("order")
                views = [asyncio.create_task(order.increment("views")) for _ in range(count)]
                await asyncio.to_thread(until_waiting, dsn, count)
                async with asyncio.timeout(IN_TIME):
                    assert await client.entity("customer").get() == {"n": 0}
            async with asyncio.timeout(IN_TIME):
                assert sorted(await asyncio.gather(*views)) == list(range(1, count + 1))
            assert ends_with(dsn, 1 + KEPT)  # one is of the client that made the memories

    asyncio.run(main())


@pytest.mark.direct("it counts sessions")
def test_a_client_opens_connections_as_its_calls_meet(entities: perdure.Client, dsn: str) -> None:
    for _ in range(20):
        entities.entity("order").get()
    assert sessions(dsn) == 1
    with ThreadPoolExecutor(3 * KEPT) as threads:
        for _ in range(300):
            threads.submit(entities.entity("order").increment, "n")
    assert entities.entity("order").get("n") == 300
    assert ends_with(dsn, KEPT)


def test_a_closed_client_refuses_to_be_used(dsn: str) -> None:
    """It opened its connections again, and nobody closed these."""
    with perdure.connect(dsn) as client:
        memory = client.create_entity("order", "thing", {"n": 0})
    uses: list[Callable[[], Any]] = [
        memory.get,
        lambda: memory.until("$.n > 0", timeout=1),
        lambda: client.start("w"),
        lambda: client.handle("order").result(timeout=1),
        lambda: client.create_index("thing", "n"),
    ]
    for use in uses:
        with pytest.raises(perdure.InvalidArgument, match="this client is closed"):
            use()
    assert ends_with(dsn, 0)
    client.close()


def test_a_closed_async_client_refuses_to_be_used(dsn: str) -> None:
    async def main() -> None:
        async with await perdure.connect_async(dsn) as client:
            memory = await client.create_entity("order", "thing", {"n": 0})
        for use in (memory.get, lambda: memory.until("$.n > 0", timeout=1)):
            with pytest.raises(perdure.InvalidArgument, match="this client is closed"):
                await use()
        assert ends_with(dsn, 0)
        await client.close()

    asyncio.run(main())


@pytest.mark.direct("it counts sessions")
def test_what_is_under_way_when_an_async_client_is_closed_leaves_no_session(dsn: str) -> None:
    """A wait goes on, on a connection that was opened again, and that nobody closed."""

    async def main() -> None:
        async with perdure.connect_async(dsn) as client:
            memory = await client.create_entity("order", "thing", {"n": 0})
            waits = [asyncio.create_task(memory.until(f"$.n == {n}")) for n in (1, 2)]
            assert await begun(dsn, len(waits))
        async with perdure.connect_async(dsn) as other:
            await other.entity("order").set(1, "n")
        assert await waits[0] > 1
        waits[1].cancel()
        await asyncio.wait(waits)
        assert await asyncio.to_thread(ends_with, dsn, 0)

    asyncio.run(main())


@pytest.mark.direct("it counts sessions")
def test_a_wait_that_ends_while_a_client_is_closed_leaves_no_session(dsn: str) -> None:
    """It gave its connection back to what had just been emptied."""
    client = perdure.connect(dsn)

    class Emptied(list[Any]):
        def append(self, listener: Any) -> None:
            client.close()
            super().append(listener)

    client._listeners = Emptied()
    memory = client.create_entity("order", "thing", {"n": 0})
    assert memory.until("$.n == 0", timeout=5) == 1
    assert ends_with(dsn, 0)


def test_an_async_client_is_awaited_or_entered_at_once(dsn: str) -> None:
    async def main() -> None:
        async with perdure.connect_async(dsn) as client:
            assert await client.create_entity("order", "thing", {"n": 0})
        with pytest.raises(perdure.InvalidArgument, match="this client is closed"):
            await client.entity("order").get()
        one = await perdure.connect_async(dsn)
        two = await asyncio.create_task(perdure.connect_async(dsn))
        for each in (one, two):
            assert await each.entity("order").get("n") == 0
            await each.close()
        with pytest.raises(psycopg.OperationalError):
            async with perdure.connect_async("host=127.0.0.1 port=1"):
                pytest.fail("there is nobody")
        assert ends_with(dsn, 0)

    asyncio.run(main())


def test_a_call_that_is_under_way_at_the_close_is_answered(
    entities: perdure.Client, dsn: str
) -> None:
    client = perdure.connect(dsn)
    with ThreadPoolExecutor(1) as threads:
        with locked(entities, dsn):
            view = threads.submit(client.entity("order").increment, "views")
            until_waiting(dsn, 1)
            client.close()
        assert view.result(IN_TIME) == 1
    assert ends_with(dsn, 1)  # that of the other client
