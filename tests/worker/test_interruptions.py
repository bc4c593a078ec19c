"""An error that a signal handler raises ends a call of a client, and affects no later call."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import perdure
from perdure.database import connections
from perdure.database.call import Call
from perdure.database.calls import Calls
from perdure.database.connections import AsyncLink, Link
from perdure.database.source import Source

IN_TIME = 20.0
LOCK_WAITS = (
    "select exists (select from pg_stat_activity"
    " where wait_event_type = 'Lock' and datname = current_database())"
)


class TimeIsUp(Exception):
    """An error as raised by a soft limit of celery, by pytest-timeout or by an alarm."""


@pytest.fixture
def alarmed() -> Iterator[None]:
    """Let SIGUSR1 raise an error in the main thread, wherever it is."""

    def handler(*_: Any) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGUSR1, handler)
    yield
    signal.signal(signal.SIGUSR1, before)


def interrupted(dsn: str, call: Callable[[], Any]) -> None:
    """Make a call, and send SIGUSR1 when it waits for a lock."""

    def send_signal() -> None:
        pause = threading.Event()
        with psycopg.connect(dsn, autocommit=True, application_name="looks") as looks:
            for _ in range(int(IN_TIME / 0.02)):
                if looks.execute(LOCK_WAITS).fetchone() == (True,):
                    break
                pause.wait(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=send_signal)
    thread.start()
    with pytest.raises(TimeIsUp):
        call()
    thread.join()


def test_interrupted_call_does_not_affect_later_calls(
    client: perdure.Client, dsn: str, alarmed: None
) -> None:
    """A connection that still waits for an answer does not serve another call."""
    order = client.create_entity("order", "thing", {"n": 0, "name": "desk"})
    with psycopg.connect(dsn) as lock:
        lock.execute("select from perdure.jobs where id = 'order' for update")
        interrupted(dsn, lambda: order.increment("n"))
    assert [order.get("name") for _ in range(3)] == ["desk"] * 3


def test_interrupted_wait_does_not_affect_later_waits(
    client: perdure.Client, dsn: str, alarmed: None
) -> None:
    order = client.create_entity("order", "thing", {"n": 0})
    with psycopg.connect(dsn) as lock:
        lock.execute("lock table perdure.jobs")
        interrupted(dsn, lambda: order.until("$.n > 0"))
    for _ in range(3):
        with pytest.raises(TimeoutError):
            order.until("$.n > 0", timeout=0.01)
    assert order.set(1, "n") == order.until("$.n > 0", timeout=IN_TIME)


def test_worker_whose_start_is_interrupted_does_not_run(
    app: perdure.App, client: perdure.Client, dsn: str, alarmed: None
) -> None:
    """Its thread ends by itself, since `with` does not stop a worker that it could not enter."""
    worker = perdure.Worker(app, ["default"], dsn=dsn)
    with psycopg.connect(dsn) as lock:
        lock.execute("lock table perdure.workers")
        interrupted(dsn, worker.__enter__)
        assert "perdure-worker" not in {thread.name for thread in threading.enumerate()}
    worker.start().stop()  # it can be started again


@pytest.mark.direct("it checks which session answers")
def test_async_call_that_is_interrupted_abandons_its_connection(
    client: perdure.Client, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psycopg, cancelled twice, leaves a query open on its connection."""

    async def leaves_query_open(cursor: psycopg.AsyncCursor[Any], call: Any) -> None:
        cursor.connection.pgconn.send_query(b"select 1")
        raise TimeIsUp

    async def main() -> None:
        link = AsyncLink(Source(dsn, "perdure"), "test")
        with monkeypatch.context() as patched:
            await link.call(Calls.backend())
            patched.setattr(connections, "send_async", leaves_query_open)
            with pytest.raises(TimeIsUp):
                await link.call(Calls.backend())
        assert (await link.call(Calls.backend()))[0] == link.backend
        await link.close()

    asyncio.run(main())


def test_call_of_a_missing_function_is_sent_twice_and_then_raises(dsn: str) -> None:
    """[P13] Once more on a new connection, in case functions were just replaced, and no more."""
    source = Source(dsn, "perdure")
    call = Call("missing", b"select missing_function()", ())

    async def main() -> None:
        link = AsyncLink(source, "test", patience=IN_TIME)
        with pytest.raises(psycopg.errors.UndefinedFunction):
            await link.call(call)
        await link.close()

    link = Link(source, "test", patience=IN_TIME)
    with pytest.raises(psycopg.errors.UndefinedFunction):
        link.call(call)
    link.close()
    asyncio.run(main())
