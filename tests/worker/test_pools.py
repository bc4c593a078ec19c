"""The connections of a client: no call blocks another, few are kept, and all end with it."""

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
from perdure.clients.pools import KEPT, Pool
from perdure.database.source import Source

IN_TIME = 20.0


@pytest.fixture
def entities(client: perdure.Client) -> perdure.Client:
    """Give a client of an app with two memories."""
    for name in ("order", "customer"):
        client.create_entity(name, "thing", {"n": 0})
    return client


def sessions(dsn: str, waiting: bool = False) -> int:
    """Count the sessions of clients, or only those that wait for a lock."""
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


def sessions_fall_to(dsn: str, at_most: int) -> bool:
    """Wait until at most this many sessions of clients are open; tell whether that was in time."""
    pause = threading.Event()
    for _ in range(int(IN_TIME / 0.02)):
        if sessions(dsn) <= at_most:
            return True
        pause.wait(0.02)
    return False


async def waits_are_registered(dsn: str, waits: int) -> bool:
    """Wait until this many waits are registered; tell whether that was in time."""
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
    """Hold the lock of a memory, in a transaction of the user's."""
    with psycopg.connect(dsn, application_name="locks") as connection:
        client.entity("order", connection=connection).set("paid", "state")
        yield


def wait_until_blocked(dsn: str, count: int) -> None:
    """Wait until this many calls of clients wait for a lock."""
    pause = threading.Event()
    for _ in range(int(IN_TIME / 0.02)):
        if sessions(dsn, waiting=True) >= count:
            return
        pause.wait(0.02)
    raise AssertionError("too few calls wait for a lock")


@pytest.mark.parametrize("count", [1, KEPT + 2])
def test_call_that_waits_for_a_lock_blocks_no_other_call(
    entities: perdure.Client, dsn: str, count: int
) -> None:
    """Any number of such calls must leave a connection for others. Otherwise they would block even
    the calls for which they wait, and the server would see no deadlock."""
    with ThreadPoolExecutor(count + 1) as threads:
        with locked(entities, dsn):
            views = [
                threads.submit(entities.entity("order").increment, "views") for _ in range(count)
            ]
            wait_until_blocked(dsn, count)
            read = threads.submit(entities.entity("customer").get)
            assert read.result(IN_TIME) == {"n": 0}
        assert sorted(view.result(IN_TIME) for view in views) == list(range(1, count + 1))


@pytest.mark.direct("it counts sessions")
@pytest.mark.parametrize("count", [1, KEPT + 2])
def test_async_call_that_waits_for_a_lock_blocks_no_other_call(
    entities: perdure.Client, dsn: str, count: int
) -> None:
    async def main() -> None:
        async with await perdure.connect_async(dsn) as client:
            with locked(entities, dsn):
                order = client.entity("order")
                views = [asyncio.create_task(order.increment("views")) for _ in range(count)]
                await asyncio.to_thread(wait_until_blocked, dsn, count)
                async with asyncio.timeout(IN_TIME):
                    assert await client.entity("customer").get() == {"n": 0}
            async with asyncio.timeout(IN_TIME):
                assert sorted(await asyncio.gather(*views)) == list(range(1, count + 1))
            assert sessions_fall_to(dsn, 1 + KEPT)  # one belongs to the client of the fixture

    asyncio.run(main())


@pytest.mark.direct("it counts sessions")
def test_client_opens_connections_for_concurrent_calls_and_keeps_few(
    entities: perdure.Client, dsn: str
) -> None:
    for _ in range(20):
        entities.entity("order").get()
    assert sessions(dsn) == 1
    with ThreadPoolExecutor(3 * KEPT) as threads:
        for _ in range(300):
            threads.submit(entities.entity("order").increment, "n")
    assert entities.entity("order").get("n") == 300
    assert sessions_fall_to(dsn, KEPT)


def test_closed_client_rejects_calls_and_opens_no_connection(dsn: str) -> None:
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
    assert sessions_fall_to(dsn, 0)
    client.close()


def test_closed_async_client_rejects_calls_and_opens_no_connection(dsn: str) -> None:
    async def main() -> None:
        async with await perdure.connect_async(dsn) as client:
            memory = await client.create_entity("order", "thing", {"n": 0})
        for use in (memory.get, lambda: memory.until("$.n > 0", timeout=1)):
            with pytest.raises(perdure.InvalidArgument, match="this client is closed"):
                await use()
        assert sessions_fall_to(dsn, 0)
        await client.close()

    asyncio.run(main())


@pytest.mark.direct("it counts sessions")
def test_wait_that_outlives_its_async_client_leaves_no_session(dsn: str) -> None:
    """The wait goes on, on a connection that is opened for it and closed after it."""

    async def main() -> None:
        async with perdure.connect_async(dsn) as client:
            memory = await client.create_entity("order", "thing", {"n": 0})
            waits = [asyncio.create_task(memory.until(f"$.n == {n}")) for n in (1, 2)]
            assert await waits_are_registered(dsn, len(waits))
        async with perdure.connect_async(dsn) as other:
            await other.entity("order").set(1, "n")
        assert await waits[0] > 1
        waits[1].cancel()
        await asyncio.wait(waits)
        assert await asyncio.to_thread(sessions_fall_to, dsn, 0)

    asyncio.run(main())


@pytest.mark.direct("it counts sessions")
def test_wait_that_ends_as_its_client_is_closed_leaves_no_session(dsn: str) -> None:
    """It gives its connection back just after the client has closed all others."""
    client = perdure.connect(dsn)

    class Emptied(list[Any]):
        def append(self, listener: Any) -> None:
            client.close()
            super().append(listener)

    client._listeners = Emptied()
    memory = client.create_entity("order", "thing", {"n": 0})
    assert memory.until("$.n == 0", timeout=5) == 1
    assert sessions_fall_to(dsn, 0)


def test_connect_async_can_be_awaited_or_entered(dsn: str) -> None:
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
                pytest.fail("there is no server")
        assert sessions_fall_to(dsn, 0)

    asyncio.run(main())


def test_call_in_progress_is_answered_when_its_client_is_closed(
    entities: perdure.Client, dsn: str
) -> None:
    client = perdure.connect(dsn)
    with ThreadPoolExecutor(1) as threads:
        with locked(entities, dsn):
            view = threads.submit(client.entity("order").increment, "views")
            wait_until_blocked(dsn, 1)
            client.close()
        assert view.result(IN_TIME) == 1
    assert sessions_fall_to(dsn, 1)  # that of the other client


def test_blocked_calls_open_connections_one_at_a_time() -> None:
    """Otherwise all calls that wait for one lock would open one each."""
    pool = Pool(Source("host=nowhere", None))
    assert [pool._is_blocked() for _ in range(3)] == [True, False, False]
