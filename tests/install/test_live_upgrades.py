"""An upgrade while workers and clients run loses nothing, repeats nothing and fails no attempt.
[P13] (T19)"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from pathlib import Path

import psycopg
import pytest
from load import Load, die_upgrading, statements_to_upgrade
from releases import LATER, NOW, with_protocol

import perdure
from perdure.database import worker_calls
from perdure.errors import ProtocolNotSupported
from perdure.installation.install import install
from tests.amount import amount

Trees = dict[str, Path]

LAST = LATER[-1]


def test_workers_and_clients_continue_during_an_upgrade(dsn: str, trees: Trees) -> None:
    """Hot functions change their signatures and types. Some migrators die, and several run at
    once."""
    load = Load(dsn)

    def upgrade() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            install(connection, "perdure", source=trees[LAST])

    with load.worker(), load.worker():
        with load.clients():
            statements = len(statements_to_upgrade(trees[LAST]))
            for death in range(deaths := amount(2)):
                die_upgrading(dsn, "perdure", trees[LAST], (death + 1) * statements // deaths - 1)
            migrators = [threading.Thread(target=upgrade) for _ in range(3)]
            for migrator in migrators:
                migrator.start()
            for migrator in migrators:
                migrator.join()
            time.sleep(0.3)
        load.check()
    assert set(load.done.values()) == {1}
    assert len(load.started) > 10
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select perdure.perdure_version()").fetchone() == (LAST,)


def test_worker_with_another_protocol_ends_and_a_newer_one_takes_over(
    dsn: str, trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old worker on new schema and new worker on old schema both refuse with a reason."""
    source = with_protocol(Path(shutil.copytree(trees[LAST], tmp_path / "sql")), 2)
    load = Load(dsn)
    with monkeypatch.context() as newer:
        newer.setattr(worker_calls, "PROTOCOL", 2)
        with pytest.raises(ProtocolNotSupported, match="version 2") as refused:
            load.worker().start()
        assert "upgrade the schema" in (refused.value.hint or "")
    worker = load.worker().start()
    with load.clients():
        time.sleep(0.3)
        with psycopg.connect(dsn, autocommit=True) as connection:
            install(connection, "perdure", source=source)
        ends_by = time.monotonic() + 20
        while is_worker_running() and time.monotonic() < ends_by:
            time.sleep(0.01)
    with pytest.raises(ProtocolNotSupported, match="version 1"):
        worker.stop()
    with pytest.raises(ProtocolNotSupported):
        load.worker().start()
    monkeypatch.setattr(worker_calls, "PROTOCOL", 2)
    with load.worker():
        load.check()


def test_stopping_worker_does_not_wait_when_its_results_are_refused(
    dsn: str, trees: Trees, tmp_path: Path
) -> None:
    """The schema gets another protocol while the worker is stopping, with an hour of grace."""
    hook_started, may_end = threading.Event(), threading.Event()
    app = perdure.App()

    @app.hook
    async def works(memory: perdure.AsyncEntity) -> None:
        hook_started.set()
        while not may_end.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.01)

    def stop() -> None:
        with pytest.raises(ProtocolNotSupported):
            worker.stop()

    worker = perdure.Worker(app, dsn=dsn, provision=False, grace=3600).start()
    with perdure.connect(dsn, provision=False) as client:
        client.create_entity("e", "thing")
        client.handle("e").hook(works)
    assert hook_started.wait(20)
    stopping = threading.Thread(target=stop)
    stopping.start()
    source = with_protocol(Path(shutil.copytree(trees[LAST], tmp_path / "sql")), 2)
    with psycopg.connect(dsn, autocommit=True) as connection:
        install(connection, "perdure", source=source)
    may_end.set()
    stopping.join(20)
    assert not stopping.is_alive()


def is_worker_running() -> bool:
    """Check whether a worker runs in this process."""
    return any(thread.name == "perdure-worker" for thread in threading.enumerate())


def test_workers_that_provision_upgrade_the_schema_once(
    dsn: str, trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten workers start at once, as in a deployment, with a package newer than the schema."""
    monkeypatch.setattr("perdure.installation.script.source", lambda: trees[LAST])
    load = Load(dsn)
    workers = [perdure.Worker(load.app, dsn=dsn, lease="2 s") for _ in range(10)]
    threads = [threading.Thread(target=worker.start) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with load.clients():
        time.sleep(0.2)
    load.check()
    for worker in workers:
        worker.stop()
    with psycopg.connect(dsn) as connection:
        versions = "select array_agg(version order by applied_at) from perdure.migrations"
        assert connection.execute(versions).fetchone() == ([NOW, LAST],)
