"""A worker that still makes or upgrades its app can be told to stop."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import perdure
from perdure.errors import AppNotFound, InvalidSchema
from tests.patience import wait_until
from tests.worker.processes import worker_process

pytestmark = pytest.mark.direct("a session of another holds a lock")

IN_TIME = 20.0

LOCK = "select pg_advisory_lock(hashtextextended('perdure install fresh', 0))"
WAITING = """
select l.pid from pg_locks as l
 where l.locktype = 'advisory'
   and not l.granted
   and l.database = (select d.oid from pg_database as d where d.datname = current_database())
"""
WAITS = f"select exists ({WAITING})"
MADE = "select to_regnamespace('fresh') is not null"


@pytest.fixture
def held(dsn: str) -> Iterator[psycopg.Connection]:
    """Let somebody else install the app `fresh`, and never come to an end."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(LOCK)
        yield connection


def told(connection: psycopg.Connection, question: str) -> bool:
    """Ask something that is true or false."""
    row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return bool(row[0])


def test_it_stops_and_makes_nothing(
    app: perdure.App, dsn: str, held: psycopg.Connection, connection: psycopg.Connection
) -> None:
    """`stop()` waited for the installation, and then for ever: nobody told the loop to end."""
    worker = perdure.Worker(app, ["here"], dsn=dsn, schema="fresh")
    starting = threading.Thread(target=worker.start, daemon=True)
    starting.start()
    wait_until(lambda: told(connection, WAITS))
    stopping = threading.Thread(target=worker.stop, daemon=True)
    stopping.start()
    stopping.join(IN_TIME)
    starting.join(IN_TIME)
    assert not stopping.is_alive()
    assert not starting.is_alive()
    held.close()
    assert not told(connection, WAITS)
    assert not told(connection, MADE)


def test_a_process_that_is_told_to_end_does_so_orderly(
    dsn: str, held: psycopg.Connection, connection: psycopg.Connection
) -> None:
    """SIGTERM killed it amid its transaction, or was not heard where it is process 1."""
    with worker_process(dsn, "here", WORKER='{"schema": "fresh"}') as process:
        wait_until(lambda: told(connection, WAITS))
        process.send_signal(signal.SIGTERM)
        assert process.wait(IN_TIME) == 0
    assert not told(connection, WAITS)


def test_a_task_that_is_cancelled_while_it_enters_goes_on(
    app: perdure.App, dsn: str, held: psycopg.Connection, connection: psycopg.Connection
) -> None:
    """`async with worker:` under a timeout of its own was held by the installation."""

    async def test() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), perdure.Worker(app, ["here"], dsn=dsn, schema="fresh"):
                raise AssertionError("it has no app")

    testing = threading.Thread(target=asyncio.run, args=[test()], daemon=True)
    testing.start()
    testing.join(IN_TIME)
    assert not testing.is_alive()
    assert not told(connection, WAITS)


def test_a_task_that_was_cancelled_before_it_enters_goes_on(
    app: perdure.App, dsn: str, held: psycopg.Connection
) -> None:
    """Its start, in a thread, forgot what it had been told."""

    async def enter() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        async with perdure.Worker(app, ["here"], dsn=dsn, schema="fresh"):
            raise AssertionError("it has no app")

    def enters() -> None:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(enter())

    testing = threading.Thread(target=enters, daemon=True)
    testing.start()
    testing.join(IN_TIME)
    assert not testing.is_alive()


def test_who_is_cancelled_hears_of_that_and_not_of_the_start(app: perdure.App, dsn: str) -> None:
    async def enter() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        async with perdure.Worker(app, ["here"], dsn=dsn, schema="pg_mine"):
            raise AssertionError("it has no app")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(enter())


def test_a_worker_can_be_used_again(
    app: perdure.App, dsn: str, client: perdure.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ready when it says so, and in another way: `run()` came back at once."""
    worker = perdure.Worker(app, ["here"], dsn=dsn)
    for _ in range(2):
        with worker:
            assert worker._loop is not None
            assert worker._loop.is_running()
        assert worker._loop.is_closed()
    running = threading.Thread(target=worker.run, daemon=True)
    running.start()
    wait_until(lambda: worker._loop is not None and worker._loop.is_running())
    worker.stop()
    running.join(IN_TIME)
    assert not running.is_alive()


def test_a_worker_is_stopped_before_it_has_a_loop(
    app: perdure.App, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told between its thread and its loop, it was told nothing."""
    begun, goes_on = threading.Event(), threading.Event()
    run = perdure.Worker._run

    def late(worker: perdure.Worker, *, handles_signals: bool) -> None:
        begun.set()
        assert goes_on.wait(IN_TIME)
        run(worker, handles_signals=handles_signals)

    monkeypatch.setattr(perdure.Worker, "_run", late)
    worker = perdure.Worker(app, ["here"], dsn=dsn)
    starting = threading.Thread(target=worker.start, daemon=True)
    starting.start()
    assert begun.wait(IN_TIME)
    stopping = threading.Thread(target=worker.stop, daemon=True)
    stopping.start()
    time.sleep(0.1)
    goes_on.set()
    stopping.join(IN_TIME)
    assert not stopping.is_alive()


def test_an_app_that_cannot_be_made_ends_its_worker(app: perdure.App, dsn: str) -> None:
    with pytest.raises(InvalidSchema):
        perdure.Worker(app, ["here"], dsn=dsn, schema="pg_mine").start()


def test_a_worker_of_one_instance_makes_no_other(
    app: perdure.App, connection: psycopg.Connection, dsn: str
) -> None:
    """It came while a dump was to be restored in place of the original, made an empty app there
    and refused that; the restore then met its tables."""
    known = perdure.Worker(app, ["here"], dsn=dsn, schema="fresh", instance=str(uuid.uuid4()))
    with pytest.raises(AppNotFound, match="no app in schema 'fresh'"):
        known.start()
    assert not told(connection, MADE)


def test_a_connection_that_breaks_meanwhile_is_made_once_more(
    held: psycopg.Connection, connection: psycopg.Connection, dsn: str
) -> None:
    """[P12]: psycopg's own error came, where any later call would have been repeated."""
    made: list[str] = []

    def connect() -> None:
        with perdure.connect(dsn, schema="fresh") as client:
            made.append(client.start("research").id)

    thread = threading.Thread(target=connect)
    thread.start()
    wait_until(lambda: told(connection, WAITS))
    assert told(connection, f"select bool_and(pg_terminate_backend(pid)) from ({WAITING}) as w")
    wait_until(lambda: told(connection, WAITS))
    held.close()
    thread.join(IN_TIME)
    assert len(made) == 1


def test_a_session_that_has_no_time_for_it_is_told_so(held: psycopg.Connection, dsn: str) -> None:
    """PostgreSQL told where it was cancelled, a screen of SQL."""
    hasty = make_conninfo(dsn, options="-c statement_timeout=200ms")
    with pytest.raises(perdure.InvalidArgument, match=r"timeout of 0\.2 s is too short") as refused:
        perdure.connect(hasty, schema="fresh")
    assert "statement_timeout=1min" in str(refused.value)


def test_who_was_cancelled_is_not_told_of_a_limit(
    held: psycopg.Connection, connection: psycopg.Connection, dsn: str
) -> None:
    patient = make_conninfo(dsn, options="-c statement_timeout=1min")
    with ThreadPoolExecutor(1) as threads:
        connecting = threads.submit(perdure.connect, patient, schema="fresh")
        wait_until(lambda: told(connection, WAITS))
        assert told(connection, f"select bool_and(pg_cancel_backend(pid)) from ({WAITING}) as w")
        with pytest.raises(psycopg.errors.QueryCanceled):
            connecting.result(IN_TIME)
