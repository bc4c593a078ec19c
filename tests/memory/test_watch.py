"""Clients that watch a memory or wait for it: everything is heard, once and in order. [P3] [P11]"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import perdure
from perdure.clients import past, waiting
from perdure.embedded.server import Server

QUIET = 0.6  # seconds: longer than any pause in these tests' own writes
SOON = 20.0  # seconds: a hint comes in milliseconds; the machine may be busy


@pytest.fixture
def client(dsn: str) -> Iterator[perdure.Client]:
    """Give a client of the test's database."""
    with perdure.connect(dsn) as client:
        yield client


@pytest.fixture
def memory(client: perdure.Client) -> Any:
    """Give an empty memory."""
    return client.create_entity("m", "note")


def run(dsn: str, query: str, *params: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set search_path = perdure")
        cursor = connection.execute(query.encode(), params or None)
        return cursor.fetchall() if cursor.description else []


def listeners(dsn: str) -> list[Any]:
    return run(dsn, "select topic from listeners")


def wait_for_listeners(dsn: str, count: int = 1) -> None:
    """Wait until so many listen."""
    until = time.monotonic() + SOON
    while len(listeners(dsn)) < count and time.monotonic() < until:
        time.sleep(0.01)


@contextmanager
def meanwhile(work: Callable[..., Any], *args: Any) -> Iterator[Future[Any]]:
    """Do something on another thread while the block runs."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work, *args)
        yield future
        future.result(60)


@contextmanager
def without_looking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let waits hear of nothing but by a notification."""
    with monkeypatch.context() as patch:
        patch.setattr(waiting, "FIRST_POLL", 3 * SOON)
        patch.setattr(waiting, "LONGEST_POLL", 3 * SOON)
        yield


def lose_all_hints(dsn: str) -> None:
    """Let every NOTIFY be lost."""
    run(
        dsn,
        """create or replace function perdure.notify_listeners(topics text[]) returns void
           language plpgsql set search_path = pg_catalog, perdure, pg_temp as 'begin end'""",
    )


def write(dsn: str, rounds: int, name: str) -> None:
    """Write in all ways, on a connection of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for n in range(rounds):
            match n % 4:
                case 0:
                    connection.execute("select perdure.entity_append('m', 'log', %s)", [f"[{n}]"])
                case 1:
                    connection.execute(
                        "update perdure.jobs set context = context || %s::jsonb where id = 'm'",
                        [json.dumps({name: n})],
                    )
                case 2:
                    three = [{"op": "increment", "path": "n", "value": 1}] * 3
                    connection.execute("select perdure.entity_apply('m', %s)", [json.dumps(three)])
                case 3:
                    with connection.transaction(force_rollback=True):
                        connection.execute("select perdure.entity_increment('m', 'lost')")


ROUNDS, WRITERS = 20, 3
VERSIONS = WRITERS * (ROUNDS // 4) * 5


def write_all(dsn: str) -> None:
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda name: write(dsn, ROUNDS, name), "abc"))


def watched(client: perdure.Client, count: int, **options: Any) -> list[perdure.Change]:
    """Watch until so many changes have come, or nothing more comes."""
    changes = []
    for change in client.entity("m").watch(timeout=SOON, **options):
        changes.append(change)
        if len(changes) == count:
            break
    return changes


async def watched_async(dsn: str, count: int, **options: Any) -> list[perdure.Change]:
    changes = []
    async with await perdure.connect_async(dsn) as client:
        async for change in client.entity("m").watch(timeout=SOON, **options):
            changes.append(change)
            if len(changes) == count:
                break
    return changes


# Every change, once and in order.


@pytest.mark.steady("what is left of a hint goes later")
@pytest.mark.parametrize("hints", ["heard", "lost"])
def test_every_change_comes_once_and_in_order(
    client: perdure.Client, memory: Any, dsn: str, hints: str
) -> None:
    """[P3] [P11]: from writers at the same time; what is rolled back is not a change."""
    if hints == "lost":
        lose_all_hints(dsn)
    with meanwhile(write_all, dsn):
        changes = watched(client, VERSIONS)

    assert [change.version for change in changes] == list(range(1, VERSIONS + 1))
    assert changes == memory.history()
    assert listeners(dsn) == []


@pytest.mark.steady("what is left of a hint goes later")
@pytest.mark.parametrize("hints", ["heard", "lost"])
def test_every_change_comes_to_many_async_watchers(memory: Any, dsn: str, hints: str) -> None:
    """[P3] [P11]"""
    if hints == "lost":
        lose_all_hints(dsn)

    async def watch() -> list[list[perdure.Change]]:
        writing = asyncio.to_thread(write_all, dsn)
        *seen, _ = await asyncio.gather(
            *(watched_async(dsn, VERSIONS - after, after=after) for after in (0, 0, 10)), writing
        )
        return seen

    for after, changes in zip((0, 0, 10), asyncio.run(watch()), strict=True):
        assert [change.version for change in changes] == list(range(after + 1, VERSIONS + 1))
    assert listeners(dsn) == []


def test_a_watch_goes_on_where_the_last_one_ended(client: perdure.Client, memory: Any) -> None:
    for n in range(3):
        memory.set(n, "n")
    first = next(iter(memory.watch()))
    rest = list(memory.watch(after=first.version, timeout=0))
    assert [first.argument, *(change.argument for change in rest)] == [0, 1, 2]
    assert list(memory.watch(after=3, timeout=0)) == []
    assert next(iter(memory.watch(after=2))).argument == 2


def test_a_long_past_comes_in_pages(client: perdure.Client, memory: Any) -> None:
    """More changes than are read at a time."""
    many = [{"op": "increment", "path": "n", "value": 1}] * 1000
    memory.apply(many)
    memory.apply(many[:5])
    changes = list(memory.watch(timeout=0))
    assert [change.version for change in changes] == list(range(1, 1006))


@pytest.mark.steady("what is left of a hint goes later")
def test_a_watch_ends_when_nothing_changes_for_so_long(
    client: perdure.Client, memory: Any, dsn: str
) -> None:
    """The time counts from the last change."""

    def write_slowly() -> None:
        for n in range(4):
            time.sleep(QUIET / 2)
            run(dsn, f"select entity_set('m', '{n}', 'n')")

    with meanwhile(write_slowly):
        assert len(list(memory.watch(timeout=2 * QUIET))) == 4
    assert listeners(dsn) == []


def test_a_path_is_watched_alone(client: perdure.Client, memory: Any, dsn: str) -> None:
    """Above it, at it and beneath it."""
    memory.merge({"a": {"b": 1}, "c": 1})
    memory.set(2, "c")
    memory.set(2, "a.b")
    memory.merge({"a": {"d": 1}})
    memory.set({"a": {"b": 3}})
    assert [change.version for change in memory.watch("a.b", timeout=0)] == [1, 3, 5]

    def go_on() -> None:
        run(dsn, "select entity_set('m', '3', 'c')")
        run(dsn, "select entity_set('m', '4', 'a.b')")

    with meanwhile(go_on):
        assert next(iter(memory.watch("a.b", after=5, timeout=SOON))).version == 7


def test_what_happens_elsewhere_is_read_once(client: perdure.Client, memory: Any) -> None:
    """A watch of one place goes on from where it looked last, and never beyond what it has seen."""
    look = past.change_of(client.calls, "m", "here", 0)
    places = [["elsewhere"], ["elsewhere", "elsewhere"], ["elsewhere", "here"], ["elsewhere"]]
    seen, begins = [], []
    for before, *after in places:
        memory.set(1, before)
        client.send(look.register("a listener"))
        for place in after:
            memory.set(1, place)
        begins.append(look.call().params[2])
        seen.append([change.version for change in client.send(look.call())])
    assert seen == [[], [], [5], [5]]  # who is told of 5 makes another look from there on
    assert begins == [0, 1, 2, 2]


# Hints.


@pytest.mark.direct("nobody looks, all listen")
@pytest.mark.steady("a hint may be lost")
def test_a_change_is_heard_by_its_notification(
    client: perdure.Client, memory: Any, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P11]: nobody looks again in this test, and nothing is missed."""

    def write_when_heard() -> None:
        wait_for_listeners(dsn)
        time.sleep(0.2)
        run(dsn, "update jobs set context = '{\"n\": 1}' where id = 'm'")

    began = time.monotonic()
    with without_looking(monkeypatch), meanwhile(write_when_heard):
        assert [change.version for change in watched(client, 1)] == [1]
        assert time.monotonic() - began < SOON
    assert listeners(dsn) == []


@pytest.mark.direct("nobody looks, all listen")
@pytest.mark.steady("a hint may be lost")
def test_a_change_is_heard_by_async_clients_too(
    memory: Any, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P11]"""

    async def watch() -> int:
        async with await perdure.connect_async(dsn) as client:
            first = asyncio.create_task(client.entity("m").until("$.n == 1", timeout=SOON))
            await asyncio.to_thread(wait_for_listeners, dsn)
            await asyncio.sleep(0.2)
            await client.entity("m").set(1, "n")
            return await first

    began = time.monotonic()
    with without_looking(monkeypatch):
        assert asyncio.run(watch()) == 1
    assert time.monotonic() - began < SOON
    assert listeners(dsn) == []


def test_watching_goes_on_after_the_server_has_crashed(own_server: Server) -> None:
    """[P11]: who listened is forgotten (the table is unlogged), and asks again."""
    url = own_server.url()
    with perdure.connect(url) as client, perdure.connect(url) as other:
        memory = client.create_entity("m", "note")
        seen: list[int] = []

        def watch() -> None:
            seen.extend(change.version for change in watched(client, 4))

        watching = threading.Thread(target=watch)
        watching.start()
        other.entity("m").set(1, "n")
        wait_for_listeners(url)
        run(url, "checkpoint")  # a throwaway server is not as durable as others
        own_server.crash()
        for n in (2, 3, 4):
            other.entity("m").set(n, "n")
        watching.join(SOON)
        assert seen == [1, 2, 3, 4]
        assert memory.until("$.n == 4", timeout=0) == 4
        assert listeners(url) == []
        other.entity("m").set(5, "n")
        assert run(url, "select watched from jobs") == [(False,)]


def test_an_async_watch_goes_on_after_the_server_has_restarted(own_server: Server) -> None:
    url = own_server.url()
    with perdure.connect(url) as client:
        client.create_entity("m", "note")

    async def watch() -> list[int]:
        watching = asyncio.create_task(watched_async(url, 4))
        async with await perdure.connect_async(url) as other:
            await other.entity("m").set(1, "n")
            await asyncio.sleep(0.3)
            await asyncio.to_thread(own_server.restart)
            for n in (2, 3, 4):
                await other.entity("m").set(n, "n")
        return [change.version for change in await watching]

    assert asyncio.run(watch()) == [1, 2, 3, 4]
    assert listeners(url) == []


# What is left behind.


@pytest.mark.steady("what is left of a hint goes later")
def test_nobody_listens_after_a_watch_that_was_left(
    client: perdure.Client, memory: Any, dsn: str
) -> None:
    memory.set(1, "n")
    for _ in memory.watch():
        break
    watching = memory.watch()
    next(watching)
    watching.close()
    with pytest.raises(ZeroDivisionError):
        [1 / (change.version - 1) for change in memory.watch()]

    assert listeners(dsn) == []
    memory.set(2, "n")
    assert run(dsn, "select watched from jobs") == [(False,)]


@pytest.mark.direct("it waits for listeners")
def test_nobody_listens_after_a_wait_that_was_cancelled(memory: Any, dsn: str) -> None:
    async def give_up() -> None:
        async with await perdure.connect_async(dsn) as client:
            entity = client.entity("m")
            tasks = [asyncio.create_task(entity.until(f"$.n == {n}")) for n in range(5)]
            await asyncio.to_thread(wait_for_listeners, dsn, 5)
            for task in tasks:
                task.cancel()
            told = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in told)
            assert await asyncio.to_thread(listeners, dsn) == []

    asyncio.run(give_up())


@pytest.mark.steady("what is left of a hint goes later")
@pytest.mark.parametrize(
    ("job", "condition", "error"),
    [("m", "$.n >", perdure.InvalidCondition), ("m", "$.n > $limit", perdure.InvalidCondition),
     ("nobody", "$.n > 1", perdure.JobNotFound)],
)  # fmt: skip
def test_what_cannot_be_awaited_is_refused(
    client: perdure.Client,
    memory: Any,
    dsn: str,
    job: str,
    condition: str,
    error: type[perdure.PerdureError],
) -> None:
    """And nobody goes on listening."""
    with pytest.raises(error):
        client.entity(job).until(condition, timeout=SOON)

    async def refused() -> None:
        async with await perdure.connect_async(dsn) as other:
            with pytest.raises(error):
                await other.entity(job).until(condition, timeout=SOON)

    asyncio.run(refused())
    assert listeners(dsn) == []


@pytest.mark.steady("what is left of a hint goes later")
def test_nobody_watches_what_is_not_there(client: perdure.Client, dsn: str) -> None:
    with pytest.raises(perdure.JobNotFound):
        next(iter(client.entity("nobody").watch()))
    assert listeners(dsn) == []


# Until.


def test_what_holds_is_told_at_once(client: perdure.Client, memory: Any, dsn: str) -> None:
    """Nothing is written for that."""
    memory.set(1, "n")
    assert memory.until("$.n == 1") == 1
    assert memory.until("$.n == 1", timeout=0) == 1
    assert [change.version for change in watched(client, 1)] == [1]
    assert asyncio.run(watched_async(dsn, 1)) == list(memory.watch(timeout=0))
    assert run(dsn, "select watched from jobs where id = 'm'") == [(False,)]


@pytest.mark.steady("what is left of a hint goes later")
@pytest.mark.parametrize("hints", ["heard", "lost"])
def test_what_becomes_true_is_told(memory: Any, dsn: str, hints: str) -> None:
    """[P11]"""
    if hints == "lost":
        lose_all_hints(dsn)

    def write_later() -> None:
        time.sleep(0.2)
        run(dsn, "select entity_set('m', '1', 'other')")
        run(dsn, "select entity_set('m', '1', 'n')")

    with meanwhile(write_later):
        assert memory.until("$.n == 1", timeout=SOON) == 2
    assert listeners(dsn) == []


@pytest.mark.steady("what is left of a hint goes later")
def test_time_is_up_when_it_does_not(memory: Any, dsn: str) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"did not fulfil \$\.n == 1 within 0\.3 s"):
        memory.until("$.n == 1", timeout=0.3)

    async def wait() -> None:
        async with await perdure.connect_async(dsn) as client:
            with pytest.raises(TimeoutError, match="within"):
                await client.entity("m").until("$.n == 1", timeout="300 ms")

    asyncio.run(wait())
    assert time.monotonic() - began >= 0.6
    assert listeners(dsn) == []


@pytest.mark.steady("what is left of a hint goes later")
def test_an_open_transaction_holds_up_nobody_who_waits(
    client: perdure.Client, memory: Any, dsn: str
) -> None:
    """Time is up all the same; and what the transaction has done is not there before its end."""
    client.create_entity("free", "note").set(1, "n")

    async def wait() -> int:
        async with await perdure.connect_async(dsn) as busy:
            locked = asyncio.create_task(busy.entity("m").until("$.n == 1", timeout=0.5))
            free = await busy.entity("free").until("$.n == 1", timeout=SOON)
            with pytest.raises(TimeoutError):
                await locked
            return free

    with psycopg.connect(dsn) as user:
        user.execute("select perdure.entity_set('m', '1', 'n')")
        with pytest.raises(TimeoutError):
            memory.until("$.n == 1", timeout=0.5)
        assert asyncio.run(wait()) == 1
    assert memory.until("$.n == 1", timeout=SOON) == 1
    assert listeners(dsn) == []


@pytest.mark.steady("what is left of a hint goes later")
def test_threads_share_a_client(client: perdure.Client, memory: Any, dsn: str) -> None:
    def wait(n: int) -> int:
        return client.entity("m").until(f"$.n == {n}", timeout=SOON)

    with ThreadPoolExecutor(6) as pool:
        waits = [pool.submit(wait, 3) for _ in range(5)]
        pool.submit(write_three, dsn)
        assert [one.result(SOON) for one in waits] == [3] * 5
    assert listeners(dsn) == []


def write_three(dsn: str) -> None:
    for n in (1, 2, 3):
        run(dsn, f"select entity_set('m', '{n}', 'n')")


@pytest.mark.steady("what is left of a hint goes later")
def test_a_pooler_that_hides_notifications_costs_only_time(memory: Any, dsn: str) -> None:
    """[P11]: LISTEN does not survive a pooled connection; looking does."""

    class Deaf(waiting.Listener):
        def _hear(self, connection: Any, topic: str, seconds: float) -> None:
            time.sleep(min(seconds, 0.5))

    with perdure.connect(dsn, prepare_threshold=None) as client:
        client._listeners.append(Deaf(client._source, client.calls))
        with meanwhile(write_three, dsn):
            assert client.entity("m").until("$.n == 3", timeout=SOON) == 3
    assert listeners(dsn) == []


def test_an_idle_client_listens_to_nothing(client: perdure.Client, memory: Any) -> None:
    """What nobody reads would fill the server's queue."""
    with pytest.raises(TimeoutError):
        memory.until("$.n == 1", timeout=0.3)
    (listener,) = client._listeners
    heard = listener._link.connection().execute("select pg_listening_channels()").fetchall()
    assert heard == []


def test_two_threads_do_not_take_the_same_ear(client: perdure.Client, memory: Any) -> None:
    class Emptied(list[waiting.Listener]):
        def __bool__(self) -> bool:
            return True  # as another thread found it a moment ago

    client._listeners = Emptied()
    with pytest.raises(TimeoutError):
        memory.until("$.n == 1", timeout=0)


@pytest.mark.direct("it waits for listeners")
def test_a_client_that_was_closed_meanwhile_keeps_no_connection(dsn: str, memory: Any) -> None:
    client = perdure.connect(dsn)
    with meanwhile(client.entity("m").until, "$.n == 1", SOON):
        wait_for_listeners(dsn)
        client.close()
        memory.set(1, "n")
    assert client._listeners == []


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
def test_a_silent_database_holds_up_no_async_wait(
    own_server: Server, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(waiting, "GRACE", 0.2)

    async def wait() -> None:
        async with await perdure.connect_async(own_server.url()) as client:
            memory = await client.create_entity("m", "note")
            limit = None if how == "cancelled" else 1.0
            waits = asyncio.create_task(memory.until("$.n == 1", timeout=limit))
            await asyncio.to_thread(wait_for_listeners, own_server.url())
            await asyncio.to_thread(own_server.stop)
            if how == "cancelled":
                waits.cancel()
            done, _ = await asyncio.wait([waits], timeout=SOON)
            assert done
            with pytest.raises(
                asyncio.CancelledError if how == "cancelled" else psycopg.OperationalError
            ):
                await waits

    asyncio.run(wait())


@pytest.mark.direct("nobody looks, all listen")
@pytest.mark.steady("a hint may be lost")
def test_an_async_client_hears_again_when_its_listener_has_died(
    memory: Any, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hear(client: perdure.AsyncClient, n: int) -> None:
        waits = asyncio.create_task(client.entity("m").until(f"$.n == {n}", timeout=SOON))
        await asyncio.to_thread(wait_for_listeners, dsn)
        await asyncio.to_thread(memory.set, n, "n")
        assert await waits == n

    async def run() -> float:
        async with await perdure.connect_async(dsn) as client:
            await hear(client, 1)
            listener = client._listener._task
            assert listener is not None
            listener.cancel()
            await asyncio.wait([listener])
            began = time.monotonic()
            with without_looking(monkeypatch):
                await hear(client, 2)
            return time.monotonic() - began

    assert asyncio.run(run()) < SOON
