"""A worker that is still creating or upgrading its app can be stopped."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import perdure
from perdure.errors import AppNotFound, InvalidSchema
from perdure.workers.provisioning import Provisioning
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
    """Hold the lock of the installation of the app `fresh`, as another session would."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(LOCK)
        yield connection


def is_true(connection: psycopg.Connection, question: str) -> bool:
    """Ask the database a question that is true or false."""
    row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return bool(row[0])


def test_stop_during_the_installation_ends_the_worker_and_creates_no_app(
    app: perdure.App, dsn: str, held: psycopg.Connection, connection: psycopg.Connection
) -> None:
    worker = perdure.Worker(app, ["here"], dsn=dsn, schema="fresh")
    starting = threading.Thread(target=worker.start, daemon=True)
    starting.start()
    wait_until(lambda: is_true(connection, WAITS))
    stopping = threading.Thread(target=worker.stop, daemon=True)
    stopping.start()
    stopping.join(IN_TIME)
    starting.join(IN_TIME)
    assert not stopping.is_alive()
    assert not starting.is_alive()
    held.close()
    assert not is_true(connection, WAITS)
    assert not is_true(connection, MADE)


def test_installation_is_interrupted_again_if_it_goes_on() -> None:
    """A request that arrives between two statements has no effect."""
    begun, interrupted = threading.Event(), threading.Event()
    requests: list[str] = []

    def interrupt() -> None:
        requests.append("cancel")
        if len(requests) == 2:
            interrupted.set()

    def provision(begin: Any) -> None:
        cancelling = SimpleNamespace(cancel=interrupt)
        begin(SimpleNamespace(pgconn=SimpleNamespace(get_cancel=lambda: cancelling)))
        begun.set()
        interrupted.wait(IN_TIME)

    async def main() -> None:
        source: Any = SimpleNamespace(schema="fresh", provision=provision)
        provisioning = Provisioning(source, makes=True)
        assert begun.wait(IN_TIME)
        await provisioning.break_off()

    asyncio.run(main())
    assert requests == ["cancel", "cancel"]


def test_sigterm_during_the_installation_ends_the_process_orderly(
    dsn: str, held: psycopg.Connection, connection: psycopg.Connection
) -> None:
    """The process exits with 0 and leaves no session that waits for the lock."""
    with worker_process(dsn, "here", WORKER='{"schema": "fresh"}') as process:
        wait_until(lambda: is_true(connection, WAITS))
        process.send_signal(signal.SIGTERM)
        assert process.wait(IN_TIME) == 0
    assert not is_true(connection, WAITS)


def test_timeout_while_a_worker_is_entered_interrupts_the_installation(
    app: perdure.App, dsn: str, held: psycopg.Connection, connection: psycopg.Connection
) -> None:
    """A timeout of the user's around `async with worker:` does not wait for the installation."""

    async def test() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), perdure.Worker(app, ["here"], dsn=dsn, schema="fresh"):
                raise AssertionError("the worker has no app")

    testing = threading.Thread(target=asyncio.run, args=[test()], daemon=True)
    testing.start()
    testing.join(IN_TIME)
    assert not testing.is_alive()
    assert not is_true(connection, WAITS)


def test_cancel_before_a_worker_is_entered_interrupts_the_installation(
    app: perdure.App, dsn: str, held: psycopg.Connection
) -> None:
    """The start of the worker, in a thread, must not lose the request to stop."""

    async def enter() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        async with perdure.Worker(app, ["here"], dsn=dsn, schema="fresh"):
            raise AssertionError("the worker has no app")

    def enters() -> None:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(enter())

    testing = threading.Thread(target=enters, daemon=True)
    testing.start()
    testing.join(IN_TIME)
    assert not testing.is_alive()


def test_cancelled_task_gets_the_cancel_and_not_the_error_of_the_start(
    app: perdure.App, dsn: str
) -> None:
    """Afterwards the worker does not run, so it may be started again."""
    worker = perdure.Worker(app, ["here"], dsn=dsn, schema="pg_mine")

    async def enter() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        async with worker:
            raise AssertionError("the worker has no app")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(enter())
    with pytest.raises(InvalidSchema):
        worker.start()


def test_worker_can_be_entered_again_and_then_run(
    app: perdure.App, dsn: str, client: perdure.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside `with`, its event loop runs; `run()` returns only when it is stopped."""
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


def test_stop_before_the_worker_has_an_event_loop_ends_it(
    app: perdure.App, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request arrives after its thread has started, and before its loop exists."""
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


def test_start_raises_when_the_app_cannot_be_created(app: perdure.App, dsn: str) -> None:
    with pytest.raises(InvalidSchema):
        perdure.Worker(app, ["here"], dsn=dsn, schema="pg_mine").start()


def test_worker_that_expects_an_instance_creates_no_app(
    app: perdure.App, connection: psycopg.Connection, dsn: str
) -> None:
    """A dump may be about to be restored there, and would meet the tables of an empty app."""
    known = perdure.Worker(app, ["here"], dsn=dsn, schema="fresh", instance=str(uuid.uuid4()))
    with pytest.raises(AppNotFound, match="no app in schema 'fresh'"):
        known.start()
    assert not is_true(connection, MADE)


def test_connection_that_breaks_during_the_installation_is_reopened(
    held: psycopg.Connection, connection: psycopg.Connection, dsn: str
) -> None:
    """[P12] The client repeats the installation, as it repeats any later call."""
    made: list[str] = []

    def connect() -> None:
        with perdure.connect(dsn, schema="fresh") as client:
            made.append(client.start("research").id)

    thread = threading.Thread(target=connect)
    thread.start()
    wait_until(lambda: is_true(connection, WAITS))
    assert is_true(connection, f"select bool_and(pg_terminate_backend(pid)) from ({WAITING}) as w")
    wait_until(lambda: is_true(connection, WAITS))
    held.close()
    thread.join(IN_TIME)
    assert len(made) == 1


def test_error_explains_that_the_statement_timeout_is_too_short(
    held: psycopg.Connection, dsn: str
) -> None:
    """The error names the timeout, and suggests a longer one."""
    hasty = make_conninfo(dsn, options="-c statement_timeout=200ms")
    with pytest.raises(perdure.InvalidArgument, match=r"timeout of 0\.2 s is too short") as refused:
        perdure.connect(hasty, schema="fresh")
    assert "statement_timeout=1min" in str(refused.value)


def test_cancelled_installation_is_not_reported_as_a_timeout(
    held: psycopg.Connection, connection: psycopg.Connection, dsn: str
) -> None:
    patient = make_conninfo(dsn, options="-c statement_timeout=1min")
    with ThreadPoolExecutor(1) as threads:
        connecting = threads.submit(perdure.connect, patient, schema="fresh")
        wait_until(lambda: is_true(connection, WAITS))
        assert is_true(connection, f"select bool_and(pg_cancel_backend(pid)) from ({WAITING}) as w")
        with pytest.raises(psycopg.errors.QueryCanceled):
            connecting.result(IN_TIME)
