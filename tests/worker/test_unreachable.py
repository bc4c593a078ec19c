"""A worker whose database does not answer yet logs that, and can be stopped."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

import perdure
from perdure.database import connections
from perdure.database.call import Call
from perdure.database.calls import Calls
from perdure.database.connections import AsyncLink
from perdure.database.source import Source
from perdure.workers import heartbeats
from perdure.workers.committer import log_trouble
from tests.patience import wait_until

NOWHERE = "postgresql://postgres@127.0.0.1:1/nowhere"
IN_TIME = 20.0


def test_worker_that_cannot_register_yet_logs_it_and_can_be_stopped(
    app: perdure.App, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stop()` does not wait until the database answers."""
    has_warned = threading.Event()
    warn = logging.getLogger("perdure.worker").warning

    def warning(text: str, *args: object) -> None:
        warn(text, *args)
        has_warned.set()

    monkeypatch.setattr(logging.getLogger("perdure.worker"), "warning", warning)
    worker = perdure.Worker(app, dsn=NOWHERE, provision=False)
    starting = threading.Thread(target=worker.start, daemon=True)
    starting.start()
    assert has_warned.wait(IN_TIME)
    stopping = threading.Thread(target=worker.stop, daemon=True)
    stopping.start()
    stopping.join(IN_TIME)
    starting.join(IN_TIME)
    assert not stopping.is_alive()
    assert not starting.is_alive()
    assert "the database does not answer" in caplog.text


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_worker_that_could_not_start_can_be_started_again(app: perdure.App, kind: str) -> None:
    """A service may try again until its database is there."""
    worker = perdure.Worker(app, dsn=NOWHERE)

    async def enter() -> None:
        async with worker:
            pass

    for _ in range(2):
        with pytest.raises(psycopg.OperationalError):
            asyncio.run(enter()) if kind == "async" else worker.start()
    with pytest.raises(psycopg.OperationalError):  # nobody has told it to stop
        worker.run()


def test_other_troubles_are_not_logged_as_an_unreachable_database(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Otherwise people would look for a fault of the network."""
    log_trouble(psycopg.errors.SerializationFailure("could not serialize access"))
    assert "a call met another one, trying again: could not serialize access" in caplog.text
    log_trouble(psycopg.errors.DiskFull("could not extend file"))
    assert "the database is out of resources, trying again: could not extend file" in caplog.text
    log_trouble(psycopg.errors.AdminShutdown("terminating connection"))
    assert "the database does not answer, trying again: terminating connection" in caplog.text


def test_database_that_holds_up_a_heartbeat_is_not_logged_as_a_blocked_loop(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise people would look for a fault of their code, whenever the server is down."""
    now = [100.0]
    asked: list[Callable[[], None]] = []
    monkeypatch.setattr(heartbeats, "time", SimpleNamespace(monotonic=lambda: now[0]))
    loop = SimpleNamespace(call_soon_threadsafe=asked.append)
    engine: Any = SimpleNamespace(lease_for=30, source=None, running=None, loop=loop)
    heartbeat = heartbeats.Heartbeat(engine)
    for _ in range(2):
        heartbeat._watch()
        asked.pop()()  # the loop is alive
        now[0] += 10  # a renewal waits for the database
    assert not caplog.messages
    for _ in range(2):
        heartbeat._watch()
        now[0] += 3
    assert "the worker's loop has been blocked for 3.0 s" in caplog.text


def test_loop_may_answer_while_the_heartbeat_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two are threads. An error here would leave out a renewal."""
    asked: list[Callable[[], None]] = []

    def answers_first() -> float:
        if asked:
            asked.pop()()
        return 100.0

    monkeypatch.setattr(heartbeats, "time", SimpleNamespace(monotonic=answers_first))
    loop = SimpleNamespace(call_soon_threadsafe=asked.append)
    engine: Any = SimpleNamespace(lease_for=30, source=None, running=None, loop=loop)
    heartbeat = heartbeats.Heartbeat(engine)
    heartbeat._watch()
    heartbeat._watch()
    assert not asked


def test_log_of_a_trouble_leaves_out_the_statements_of_the_server(
    connection: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk would fill the log with the bodies of functions, every few seconds."""
    with pytest.raises(psycopg.errors.DiskFull) as full:
        connection.execute(
            "do $$ begin raise 'no space' using errcode = '53100', hint = 'Free some.'; end $$"
        )
    assert "PL/pgSQL" in str(full.value)
    log_trouble(full.value)
    assert caplog.messages == ["the database is out of resources, trying again: no space"]


@pytest.mark.direct("it ends the sessions of a worker")
def test_worker_logs_that_the_database_answers_again(
    app: perdure.App,
    client: perdure.Client,
    connection: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
    work: Any,
) -> None:
    """Otherwise the last line says for hours that it does not."""

    @app.coordinator
    async def nothing(memory: perdure.AsyncEntity) -> None:
        pass

    caplog.set_level(logging.INFO, "perdure.worker")
    work()
    client.start(nothing).result("20 s")
    assert "answers again" not in caplog.text
    connection.execute(
        """select pg_terminate_backend(pid, 10000) from pg_stat_activity
            where datname = current_database() and application_name = 'perdure worker'"""
    )
    client.start(nothing).result("20 s")
    wait_until(lambda: "the database answers again, after " in caplog.text)


def test_answered_call_is_not_logged_as_unanswered_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(link: AsyncLink, call: Call) -> None: ...

    async def main() -> None:
        await AsyncLink(Source(NOWHERE, None), "test", tells=True).call(Calls.backend())
        await asyncio.sleep(0.05)

    monkeypatch.setattr(connections, "SILENT_FOR", 0.01)
    monkeypatch.setattr(AsyncLink, "_answer", answer)
    asyncio.run(main())
    assert caplog.text == ""


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_look_for_a_warning_ends_no_wait_for_a_result(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """[P12] A database may be away for as long as the caller waits, also when `result()` would look
    whether the job is stuck."""
    monkeypatch.setattr("perdure.clients.handles.WARN_AFTER", 0.1)
    monkeypatch.setattr("perdure.clients.waiting.GRACE", 0.1)

    async def waits() -> None:
        async with perdure.connect_async(NOWHERE, provision=False) as client:
            await client.handle("j").result(1.5)

    def wait() -> None:
        if kind == "plain":
            perdure.connect(NOWHERE, provision=False).handle("j").result(1.5)
        else:
            asyncio.run(waits())

    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError):
        wait()
    assert time.monotonic() - began >= 1.5
