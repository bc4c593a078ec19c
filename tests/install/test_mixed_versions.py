"""Packages, functions and tables of different versions meet while jobs run. [P13] (T19)

Each call works or fails with a clear reason, nothing is corrupted, and the jobs continue when all
versions agree again. A package takes its own version from its `sql/`; `releases.py` makes newer
ones.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from load import Load, T
from psycopg.conninfo import make_conninfo
from releases import LATER, NOW

import perdure
from perdure import errors
from perdure.database.calls import Calls
from perdure.database.connections import Link
from perdure.database.source import Source
from perdure.errors import ExtensionOutdated, NewerSchema, NotMigrated, PerdureError
from perdure.installation.install import install
from perdure.workers.side_connections import BusyConnections
from tests.databases import PLAIN, Connection, value

Trees = dict[str, Path]

LAST = LATER[-1]


@contextmanager
def package(source: Path) -> Iterator[None]:
    """Act as the package that has this `sql/`."""
    with patch("perdure.installation.script.source", lambda: source):
        yield


def problems(connection: Connection, schema: str) -> list[Any]:
    """List broken invariants, memories that are not the sum of their commands, stuck tasks and
    failed attempts."""
    queries = (
        f"select i::text from {schema}.assert_invariants() as i",
        f"select h::text from {schema}.assert_histories('') as h",
        f"select t.task || ' is stuck' from {schema}.tasks as t where t.stuck_reason is not null",
        f"select j.key || j.value::text from {schema}.journal as j where not j.ok",
    )
    return connection.execute(" union all ".join(queries).encode()).fetchall()


def only_table_version_is_wrong(connection: Connection, schema: str) -> bool:
    """Check that the only problem is that the tables are of another version."""
    return [row[0][:4] for row in problems(connection, schema)] == ["(I22"]


def error_of_ended(worker: perdure.Worker) -> PerdureError:
    """Wait until a worker has ended by itself, and return its error."""
    thread = worker._thread
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(PerdureError) as reason:
        worker.stop()
    return reason.value


async def connect_async(load: Load) -> None:
    async with await perdure.connect_async(load.dsn, schema=load.schema):
        pass


def refusals_to_provision(load: Load) -> list[PerdureError]:
    """Connect as a worker and as clients that provision; return the error of each."""
    reasons = []
    for connect in (
        lambda: load.worker(provision=True).start(),
        lambda: perdure.connect(load.dsn, schema=load.schema),
        lambda: asyncio.run(connect_async(load)),
    ):
        with pytest.raises(PerdureError) as reason:
            connect()
        reasons.append(reason.value)
    return reasons


@pytest.fixture
def app(dsn: str) -> Iterator[Connection]:
    """Give a connection to the test's database."""
    with psycopg.connect(dsn, autocommit=True, **PLAIN) as connection:
        yield connection


def test_older_package_uses_a_newer_schema_unless_it_provisions(
    dsn: str, app: Connection, trees: Trees
) -> None:
    """A newer worker upgrades the schema while older ones work; those that provision are
    refused."""
    load = Load(dsn)
    with load.clients():
        with load.worker():
            time.sleep(0.2)
            with package(trees[LAST]), load.worker(provision=True):
                assert value(app, "select perdure.tables_version()") == LAST
            for reason in refusals_to_provision(load):
                assert isinstance(reason, NewerSchema)
                assert reason.hint == f"Install version {LAST} of the package."
        with load.worker():
            time.sleep(0.2)
        assert problems(app, "perdure") == []
    with load.worker():
        load.check()
    assert set(load.done.values()) == {1}


def test_newer_package_uses_an_older_schema_without_provisioning(
    dsn: str, app: Connection, trees: Trees
) -> None:
    """A new function fails until the schema is upgraded, which may happen meanwhile."""
    load = Load(dsn)
    link = Link(Source(dsn, "perdure"), "perdure client", patience=5)
    paint = Calls("perdure")._call("paint", id="0", colour="blue")
    with load.worker(), load.clients():
        with package(trees[LAST]), load.worker(), load.client() as client:
            client.start(load.book, -1, id="newer").signal("go", 1)
            assert client.handle("newer").result(T) == 0
            with pytest.raises(psycopg.errors.UndefinedFunction):
                link.call(paint)
            assert value(app, "select perdure.tables_version()") == NOW
            with perdure.connect(dsn):  # which provisions
                assert value(app, "select perdure.tables_version()") == LAST
            link.call(paint)
        assert problems(app, "perdure") == []
    link.close()
    assert value(app, "select colour from perdure.jobs where id = '0'") == "blue"
    load.started.insert(0, -1)
    with load.worker():
        assert load.done.pop(-1) == 1
        load.started.remove(-1)
        load.check()
    assert set(load.done.values()) == {1}


@pytest.mark.direct("it connects as a separate role")
def test_newer_package_without_rights_names_the_role_that_may_upgrade(
    dsn: str, app: Connection, trees: Trees
) -> None:
    """Without provisioning, the role of a worker can use the newer package."""
    role = f"worker_{os.getpid()}"
    app.execute(f"create role {role} login".encode())
    app.execute("select perdure.grant_access(%s, 'worker')", [role])
    load = Load(make_conninfo(dsn, user=role))
    try:
        with package(trees[LAST]):
            for connect in (load.worker(provision=True).start, lambda: perdure.connect(load.dsn)):
                with pytest.raises(psycopg.errors.InsufficientPrivilege) as refusals_to_provision:
                    connect()
                (note,) = refusals_to_provision.value.__notes__
                assert f"version {NOW}" in note
                assert "as postgres" in note
            with load.worker():
                pass
        with load.worker(provision=True), perdure.connect(load.dsn):  # of its own version
            pass
    finally:
        app.execute(f"drop owned by {role}; drop role {role}".encode())


def test_newer_package_rejects_an_older_extension_until_it_is_updated(
    extension: Connection, trees: Trees
) -> None:
    """Running workers continue meanwhile; after the update, the older package is rejected."""
    extension.execute(f"create extension perdure schema my_app version '{NOW}'")
    extension.execute("select my_app.migrate()")
    load = Load(extension.info.dsn, "my_app")
    with load.worker(), load.clients():
        with package(trees[LAST]):
            for reason in refusals_to_provision(load):
                assert isinstance(reason, ExtensionOutdated)
                assert f"alter extension perdure update to '{LAST}'" in (reason.hint or "")
            assert value(extension, "select my_app.perdure_version()") == NOW
            with extension.transaction():
                extension.execute(f"alter extension perdure update to '{LAST}'")
                extension.execute("select my_app.migrate()")
            with load.worker(provision=True):
                time.sleep(0.1)
        assert {type(reason) for reason in refusals_to_provision(load)} == {NewerSchema}
        assert problems(extension, "my_app") == []
    with load.worker():
        load.check()
    assert set(load.done.values()) == {1}


def test_newer_functions_on_older_tables_stop_workers_until_migrate(
    extension: Connection, trees: Trees
) -> None:
    """If migrate() is forgotten after an update of the extension, clients still work, no task is
    delivered, and no attempt fails."""
    extension.execute(f"create extension perdure schema my_app version '{NOW}'")
    extension.execute("select my_app.migrate()")
    load = Load(extension.info.dsn, "my_app")
    workers = [load.worker().start() for _ in range(2)]
    with load.clients():
        time.sleep(0.2)
        extension.execute(f"alter extension perdure update to '{LAST}'")
        reasons = [error_of_ended(worker) for worker in workers]
        with pytest.raises(NotMigrated) as at_start:
            load.worker().start()
        for reason in (*reasons, at_start.value):
            assert isinstance(reason, NotMigrated)
            assert "Call migrate() as the owner" in (reason.hint or "")
        delivered = "select sum(deliveries) from my_app.tasks"
        began = value(extension, delivered), len(load.started)
        time.sleep(0.3)
        assert len(load.started) > began[1]
        assert value(extension, delivered) == began[0]
        assert only_table_version_is_wrong(extension, "my_app")
        with package(trees[LAST]), load.worker(provision=True):  # its start migrates
            time.sleep(0.3)
        assert value(extension, "select my_app.tables_version()") == LAST
        assert problems(extension, "my_app") == []
    with load.worker():
        load.check()
    assert problems(extension, "my_app") == []


def test_older_functions_on_newer_tables_stop_workers_until_upgraded(
    dsn: str, app: Connection, trees: Trees
) -> None:
    """This happens when a dump is restored where the files of the extension are older."""
    older = [
        value(app, f"select pg_get_functiondef('perdure.{name}'::regproc)")
        for name in ("perdure_version", "perdure_build")
    ]
    load = Load(dsn)
    worker = load.worker().start()
    with load.clients():
        install(app, "perdure", source=trees[LAST])
        for definition in older:
            app.execute(definition)
        assert isinstance(error_of_ended(worker), NotMigrated)
        with pytest.raises(NotMigrated, match="of another version than its functions"):
            load.worker().start()
        for reason in refusals_to_provision(load):
            assert isinstance(reason, NewerSchema)
            assert f"tables of version {LAST}" in str(reason)
        time.sleep(0.2)
        assert only_table_version_is_wrong(app, "perdure")
        with package(trees[LAST]), load.worker(provision=True):
            time.sleep(0.2)
        assert value(app, "select perdure.perdure_version()") == LAST
    with load.worker():
        load.check()
    assert problems(app, "perdure") == []


@pytest.fixture
def replace_functions(extension: Connection) -> Callable[[], None]:
    """Install the extension; give a function that replaces its functions but not its tables."""
    extension.execute(f"create extension perdure schema my_app version '{NOW}'")
    extension.execute("select my_app.migrate()")
    return lambda: extension.execute(f"alter extension perdure update to '{LAST}'") and None


def migrate_at_refusal(number: int, extension: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Call migrate() at the moment when the given number of turns has been refused."""
    refusals = itertools.count(1)
    from_database = errors.from_database

    def migrated(error: psycopg.Error) -> PerdureError | None:
        made = from_database(error)
        is_turn = "function advance(" in (error.diag.context or "")
        if isinstance(made, NotMigrated) and is_turn and next(refusals) == number:
            extension.execute("select my_app.migrate()")
        return made

    monkeypatch.setattr(errors, "from_database", migrated)


@pytest.mark.parametrize("way", ["at once", "on a side connection"])
def test_turn_refused_by_older_tables_does_not_become_stuck(
    extension: Connection,
    replace_functions: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """migrate() is called while the worker looks for the cause; the turn itself is valid."""
    load = Load(extension.info.dsn, "my_app")
    goes_on = threading.Event()

    @load.app.activity
    async def wait() -> int:
        await asyncio.to_thread(goes_on.wait)
        return 1

    @load.app.coordinator(queue="q")
    async def waits(memory: perdure.AsyncEntity) -> int:
        return await wait()

    worker = load.worker().start()
    with load.client() as client, psycopg.connect(load.dsn) as holder:
        handle = client.start(waits)
        while value(extension, "select count(*) from my_app.tasks where token is not null") != 1:
            time.sleep(0.01)
        if way == "at once":
            migrate_at_refusal(2, extension, monkeypatch)
            replace_functions()
        else:
            migrate_at_refusal(1, extension, monkeypatch)
            holder.execute("select from my_app.jobs for update")
            send_all = BusyConnections._send_all

            async def send_late(*given: Any) -> None:
                holder.rollback()
                await asyncio.to_thread(replace_functions)
                await send_all(*given)

            monkeypatch.setattr(BusyConnections, "_send_all", send_late)
        goes_on.set()
        time.sleep(1)
        assert value(extension, "select stuck_reason from my_app.tasks") is None
        with suppress(NotMigrated):
            worker.stop()
        extension.execute("select my_app.migrate()")
        with load.worker():
            assert handle.result(T) == 1
    assert problems(extension, "my_app") == []


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
def test_transaction_refused_by_older_tables_runs_again_as_attempt_0(
    extension: Connection,
    replace_functions: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Its rows are rolled back, and the refusal does not count as a failed attempt."""
    load = Load(extension.info.dsn, "my_app")
    attempts: list[int] = []
    extension.execute("create table counted ()")

    def count() -> int:
        attempts.append(perdure.info().attempt)
        if len(attempts) == 1:
            replace_functions()
        return len(attempts)

    @load.app.transaction
    async def count_async(connection: psycopg.AsyncConnection[Any]) -> int:
        await connection.execute("insert into counted default values")
        return await asyncio.to_thread(count)

    @load.app.transaction
    def count_plain(connection: psycopg.Connection[Any]) -> int:
        connection.execute("insert into counted default values")
        return count()

    @load.app.coordinator(queue="q")
    async def counts(memory: perdure.AsyncEntity) -> int:
        counting = count_async if kind == "coroutine" else count_plain
        counted: int = await counting()
        return counted

    migrate_at_refusal(1, extension, monkeypatch)
    worker = load.worker().start()
    with load.client() as client:
        handle = client.start(counts)
        while not attempts:
            time.sleep(0.01)
        time.sleep(1)
        with suppress(NotMigrated):  # if a claim was refused first
            worker.stop()
        extension.execute("select my_app.migrate()")
        with load.worker():
            assert handle.result(T) == 2
    assert attempts == [0, 0]
    assert value(extension, "select count(*) from counted") == 1
    assert problems(extension, "my_app") == []
