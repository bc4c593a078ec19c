"""Clients that watch a memory, or wait for a condition, get every change once and in order. [P3]
[P11]"""

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

QUIET = 0.6  # seconds; the slow writer below pauses for half of it
SOON = 20.0  # seconds: a hint comes in milliseconds; the machine may be busy


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
    """Wait until there are as many listeners."""
    until = time.monotonic() + SOON
    while len(listeners(dsn)) < count and time.monotonic() < until:
        time.sleep(0.01)


@contextmanager
def meanwhile(work: Callable[..., Any], *args: Any) -> Iterator[Future[Any]]:
    """Run something in another thread while the block runs."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work, *args)
        yield future
        future.result(60)


@contextmanager
def without_polling(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let waiting clients learn of changes by notifications only: they poll too rarely to count."""
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
    """Write in every way, on a separate connection."""
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
    """Watch until there are as many changes, or until none comes any more."""
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


# Every change arrives once and in order.


@pytest.mark.steady("a listener whose removal fails is removed later")
@pytest.mark.parametrize("hints", ["heard", "lost"])
def test_watch_yields_every_change_once_and_in_order(
    client: perdure.Client, memory: Any, dsn: str, hints: str
) -> None:
    """[P3] [P11] Several writers work at the same time; a change that is rolled back is not
    seen."""
    if hints == "lost":
        lose_all_hints(dsn)
    with meanwhile(write_all, dsn):
        changes = watched(client, VERSIONS)

    assert [change.version for change in changes] == list(range(1, VERSIONS + 1))
    assert changes == memory.history()
    assert listeners(dsn) == []


@pytest.mark.steady("a listener whose removal fails is removed later")
@pytest.mark.parametrize("hints", ["heard", "lost"])
def test_every_async_watcher_gets_every_change(memory: Any, dsn: str, hints: str) -> None:
    """[P3] [P11] Three watchers begin at different versions; each gets all that follow, in
    order."""
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


def test_watch_continues_after_a_version(client: perdure.Client, memory: Any) -> None:
    for n in range(3):
        memory.set(n, "n")
    first = next(iter(memory.watch()))
    rest = list(memory.watch(after=first.version, timeout=0))
    assert [first.argument, *(change.argument for change in rest)] == [0, 1, 2]
    assert list(memory.watch(after=3, timeout=0)) == []
    assert next(iter(memory.watch(after=2))).argument == 2


def test_watch_reads_a_long_history_in_pages(client: perdure.Client, memory: Any) -> None:
    """The history has more changes than one page holds."""
    many = [{"op": "increment", "path": "n", "value": 1}] * 1000
    memory.apply(many)
    memory.apply(many[:5])
    changes = list(memory.watch(timeout=0))
    assert [change.version for change in changes] == list(range(1, 1006))


@pytest.mark.steady("a listener whose removal fails is removed later")
def test_watch_ends_when_nothing_changes_within_the_timeout(
    client: perdure.Client, memory: Any, dsn: str
) -> None:
    """The timeout counts from the last change."""

    def write_slowly() -> None:
        for n in range(4):
            time.sleep(QUIET / 2)
            run(dsn, f"select entity_set('m', '{n}', 'n')")

    with meanwhile(write_slowly):
        assert len(list(memory.watch(timeout=2 * QUIET))) == 4
    assert listeners(dsn) == []


def test_watch_of_a_path_ignores_changes_elsewhere(
    client: perdure.Client, memory: Any, dsn: str
) -> None:
    """Changes above the path, at it and below it are seen."""
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


def test_watch_of_a_path_reads_each_change_elsewhere_only_once(
    client: perdure.Client, memory: Any
) -> None:
    """Each look begins after the last version seen at the look before, and never after an unseen
    change."""
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
    assert seen == [[], [], [5], [5]]  # after yielding version 5, watch() starts a new look there
    assert begins == [0, 1, 2, 2]


# Hints.


@pytest.mark.direct("clients must be notified: they do not poll")
@pytest.mark.steady("a hint may be lost")
def test_notification_wakes_a_watching_client(
    client: perdure.Client, memory: Any, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P11] No client polls in this test, and no change is missed."""

    def write_when_heard() -> None:
        wait_for_listeners(dsn)
        time.sleep(0.2)
        run(dsn, "update jobs set context = '{\"n\": 1}' where id = 'm'")

    began = time.monotonic()
    with without_polling(monkeypatch), meanwhile(write_when_heard):
        assert [change.version for change in watched(client, 1)] == [1]
        assert time.monotonic() - began < SOON
    assert listeners(dsn) == []


@pytest.mark.direct("clients must be notified: they do not poll")
@pytest.mark.steady("a hint may be lost")
def test_notification_wakes_a_waiting_async_client(
    memory: Any, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P11] No client polls in this test."""

    async def watch() -> int:
        async with await perdure.connect_async(dsn) as client:
            first = asyncio.create_task(client.entity("m").until("$.n == 1", timeout=SOON))
            await asyncio.to_thread(wait_for_listeners, dsn)
            await asyncio.sleep(0.2)
            await client.entity("m").set(1, "n")
            return await first

    began = time.monotonic()
    with without_polling(monkeypatch):
        assert asyncio.run(watch()) == 1
    assert time.monotonic() - began < SOON
    assert listeners(dsn) == []


def test_watch_continues_after_a_crash_of_the_server(own_server: Server) -> None:
    """[P11] The unlogged table of listeners is empty after a crash; the client registers again."""
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
        run(url, "checkpoint")  # so that the crash keeps what was written
        own_server.crash()
        for n in (2, 3, 4):
            other.entity("m").set(n, "n")
        watching.join(SOON)
        assert seen == [1, 2, 3, 4]
        assert memory.until("$.n == 4", timeout=0) == 4
        assert listeners(url) == []
        other.entity("m").set(5, "n")
        assert run(url, "select watched from jobs") == [(False,)]


def test_async_watch_continues_after_a_restart_of_the_server(own_server: Server) -> None:
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


# Listeners are removed.


@pytest.mark.steady("a listener whose removal fails is removed later")
def test_abandoned_watch_leaves_no_listener(client: perdure.Client, memory: Any, dsn: str) -> None:
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
def test_cancelled_wait_leaves_no_listener(memory: Any, dsn: str) -> None:
    async def give_up() -> None:
        async with await perdure.connect_async(dsn) as client:
            entity = client.entity("m")
            tasks = [asyncio.create_task(entity.until(f"$.n == {n}")) for n in range(5)]
            await asyncio.to_thread(wait_for_listeners, dsn, 5)
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            assert await asyncio.to_thread(listeners, dsn) == []

    asyncio.run(give_up())


@pytest.mark.steady("a listener whose removal fails is removed later")
@pytest.mark.parametrize(
    ("job", "condition", "error"),
    [("m", "$.n >", perdure.InvalidCondition), ("m", "$.n > $limit", perdure.InvalidCondition),
     ("nobody", "$.n > 1", perdure.JobNotFound)],
)  # fmt: skip
def test_invalid_condition_or_unknown_job_is_rejected(
    client: perdure.Client,
    memory: Any,
    dsn: str,
    job: str,
    condition: str,
    error: type[perdure.PerdureError],
) -> None:
    """No listener is left."""
    with pytest.raises(error):
        client.entity(job).until(condition, timeout=SOON)

    async def refused() -> None:
        async with await perdure.connect_async(dsn) as other:
            with pytest.raises(error):
                await other.entity(job).until(condition, timeout=SOON)

    asyncio.run(refused())
    assert listeners(dsn) == []


@pytest.mark.steady("a listener whose removal fails is removed later")
def test_watch_of_an_unknown_job_raises(client: perdure.Client, dsn: str) -> None:
    with pytest.raises(perdure.JobNotFound):
        next(iter(client.entity("nobody").watch()))
    assert listeners(dsn) == []


# Until.


def test_condition_that_holds_returns_at_once(
    client: perdure.Client, memory: Any, dsn: str
) -> None:
    """Nothing is written for it: the job is not marked as watched."""
    memory.set(1, "n")
    assert memory.until("$.n == 1") == 1
    assert memory.until("$.n == 1", timeout=0) == 1
    assert [change.version for change in watched(client, 1)] == [1]
    assert asyncio.run(watched_async(dsn, 1)) == list(memory.watch(timeout=0))
    assert run(dsn, "select watched from jobs where id = 'm'") == [(False,)]


@pytest.mark.steady("a listener whose removal fails is removed later")
@pytest.mark.parametrize("hints", ["heard", "lost"])
def test_until_returns_when_the_condition_becomes_true(memory: Any, dsn: str, hints: str) -> None:
    """[P11] It returns the version that met the condition, even if all notifications are lost."""
    if hints == "lost":
        lose_all_hints(dsn)

    def write_later() -> None:
        time.sleep(0.2)
        run(dsn, "select entity_set('m', '1', 'other')")
        run(dsn, "select entity_set('m', '1', 'n')")

    with meanwhile(write_later):
        assert memory.until("$.n == 1", timeout=SOON) == 2
    assert listeners(dsn) == []


@pytest.mark.steady("a listener whose removal fails is removed later")
def test_until_times_out_when_the_condition_stays_false(memory: Any, dsn: str) -> None:
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


@pytest.mark.steady("a listener whose removal fails is removed later")
def test_open_transaction_does_not_delay_waiting_clients(
    client: perdure.Client, memory: Any, dsn: str
) -> None:
    """A wait times out as usual, and sees the change of the transaction only after its commit."""
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


@pytest.mark.steady("a listener whose removal fails is removed later")
def test_threads_share_a_client(client: perdure.Client, memory: Any, dsn: str) -> None:
    def wait(n: int) -> int:
        return client.entity("m").until(f"$.n == {n}", timeout=SOON)

    with ThreadPoolExecutor(6) as pool:
        waits = [pool.submit(wait, 3) for _ in range(5)]
        pool.submit(write_three, dsn)
        assert [outcome.result(SOON) for outcome in waits] == [3] * 5
    assert listeners(dsn) == []


def write_three(dsn: str) -> None:
    for n in (1, 2, 3):
        run(dsn, f"select entity_set('m', '{n}', 'n')")


@pytest.mark.steady("a listener whose removal fails is removed later")
def test_polling_finds_changes_when_a_pooler_hides_notifications(memory: Any, dsn: str) -> None:
    """[P11] LISTEN has no effect through a pooler; polling still works."""

    class Deaf(waiting.Listener):
        def _hear(self, connection: Any, topic: str, seconds: float) -> None:
            time.sleep(min(seconds, 0.5))

    with perdure.connect(dsn, prepare_threshold=None) as client:
        client._listeners.append(Deaf(client._source, client.calls))
        with meanwhile(write_three, dsn):
            assert client.entity("m").until("$.n == 3", timeout=SOON) == 3
    assert listeners(dsn) == []


def test_idle_client_listens_to_no_channel(client: perdure.Client, memory: Any) -> None:
    """Unread notifications would fill the server's queue."""
    with pytest.raises(TimeoutError):
        memory.until("$.n == 1", timeout=0.3)
    (listener,) = client._listeners
    heard = listener._link.connection().execute("select pg_listening_channels()").fetchall()
    assert heard == []


def test_wait_survives_a_race_for_the_last_idle_listener(
    client: perdure.Client, memory: Any
) -> None:
    class Emptied(list[waiting.Listener]):
        def __bool__(self) -> bool:
            return True  # as if another thread took the last listener just now

    client._listeners = Emptied()
    with pytest.raises(TimeoutError):
        memory.until("$.n == 1", timeout=0)


@pytest.mark.direct("it waits for listeners")
def test_client_closed_during_a_wait_keeps_no_connection(dsn: str, memory: Any) -> None:
    client = perdure.connect(dsn)
    with meanwhile(client.entity("m").until, "$.n == 1", SOON):
        wait_for_listeners(dsn)
        client.close()
        memory.set(1, "n")
    assert client._listeners == []


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
def test_stopped_server_does_not_block_an_async_wait(
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


@pytest.mark.direct("clients must be notified: they do not poll")
@pytest.mark.steady("a hint may be lost")
def test_async_client_replaces_a_listener_that_died(
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
            with without_polling(monkeypatch):
                await hear(client, 2)
            return time.monotonic() - began

    assert asyncio.run(run()) < SOON
