"""Dumps, restores and clones keep all data, and a copy executes nothing until it is adopted. [P13]
(T20)"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fingerprint import fingerprint
from load import Load, T
from psycopg.conninfo import make_conninfo
from releases import LATER, NOW

from perdure.embedded import binaries
from perdure.embedded.server import Server
from perdure.errors import InstanceNotAdopted, JobFinished, NotMigrated, translated
from perdure.installation.install import install
from tests.databases import value

Connection = psycopg.Connection[Any]
Trees = dict[str, Path]

LAST = LATER[-1]
UPGRADING = Path(__file__).parents[2] / "sql" / "upgrading.md"
PG_15 = Path("/usr/lib/postgresql/15/bin")
ROLE = f"reader_{os.getpid()}"
GRANTS_BY_HAND = f"""
grant usage on schema my_app to {ROLE};
grant select on my_app.jobs, my_app.history to {ROLE};
grant execute on function my_app.start, my_app.signal to {ROLE}
"""


class Database:
    """A database, in which the app `my_app` may be installed."""

    def __init__(self, server: Server, name: str):
        self.server = server
        self.name = name
        self.user = "postgres"
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute(f"create database {name}")

    @property
    def url(self) -> str:
        """Return the connection string."""
        return make_conninfo(self.server.url(self.name), user=self.user)

    def connect(self) -> Connection:
        """Open an autocommit connection."""
        return psycopg.connect(self.url, autocommit=True)

    def dumped(self, *options: str, programs: Path | None = None) -> str:
        """Dump the database as SQL."""
        command = [(programs or self.server.bindir) / "pg_dump", *options, self.url]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def restore(self, dump: str, *, strict: bool = True) -> None:
        """Restore a dump; if `strict`, no statement may fail."""
        stop = f"ON_ERROR_STOP={int(strict)}"
        command = [self.server.bindir / "psql", "-Xq", "-v", stop, self.url]
        subprocess.run(command, input=dump, check=True, capture_output=True, text=True)


@pytest.fixture
def databases(extended: Server, request: pytest.FixtureRequest) -> Iterator[list[Database]]:
    """Give two new databases: the first to fill, the second to restore in."""
    stem = f"d{abs(hash(request.node.name)) % 10**9}"
    with psycopg.connect(extended.url(), autocommit=True) as admin:
        admin.execute(f"drop role if exists {ROLE}; create role {ROLE}")
    yield [Database(extended, f"{stem}_{place}") for place in ("here", "there")]
    with psycopg.connect(extended.url(), autocommit=True) as admin:
        for place in ("here", "there"):
            admin.execute(f"drop database {stem}_{place} with (force)")
        admin.execute(f"drop role {ROLE}")


def install_app(database: Database, route: str) -> None:
    """Install the app by a route, with grants and with indexes of the user."""
    with database.connect() as connection:
        if route == "extension":
            connection.execute("create schema my_app; create extension perdure schema my_app")
        install(connection, "my_app")
        connection.execute(f"""
            {GRANTS_BY_HAND};
            select my_app.create_index('load', 'n', 'number');
            create index plainly on my_app.jobs (id) where context @> '{{"n": 1}}';
        """)


def assert_executes_nothing(connection: Connection, schema: str = "my_app") -> None:
    """Check that nothing is executed, neither by workers nor by the database itself."""
    for call in (f"select {schema}.claim('{{q}}', 'ada')", f"call {schema}.run_sql_hooks()"):
        with (
            pytest.raises(InstanceNotAdopted, match="a copy that nobody has adopted"),
            translated(),
        ):
            connection.execute(call.encode())


def is_sound(connection: Connection, schema: str = "my_app") -> bool:
    """Check that all invariants hold, and that each memory is the sum of its commands."""
    broken = f"select count(*) from {schema}.assert_invariants()"
    histories = f"select count(*) from {schema}.assert_histories('')"
    return bool(value(connection, broken) == value(connection, histories) == 0)


def assert_jobs_complete(load: Load, connection: Connection) -> None:
    """Check that the jobs of a copy complete as those of the original do."""
    jobs = "select id from my_app.jobs where workflow = 'book'"
    numbers = [int(row[0]) for row in connection.execute(jobs)]
    assert numbers
    with load.client() as client:
        for number in numbers:
            with suppress(JobFinished):  # the dump may lack the signal of the load
                client.handle(str(number)).signal("go", 1)
            assert client.handle(str(number)).result(T) == number + 1


@pytest.mark.parametrize("route", ["plain", "extension"])
def test_dump_taken_under_load_is_complete_and_runs_once_adopted(
    databases: list[Database], route: str
) -> None:
    here, there = databases
    install_app(here, route)
    load = Load(here.url, "my_app")
    with load.worker(), load.clients():
        time.sleep(0.3)
        dump = here.dumped()
    there.restore(dump)
    copied = Load(there.url, "my_app")
    with here.connect() as original, there.connect() as copy:
        assert fingerprint(copy, "my_app") == fingerprint(original, "my_app")
        assert value(copy, "select state from my_app.indexes") == "valid"
        assert is_sound(copy)
        assert_executes_nothing(copy)
        with pytest.raises(InstanceNotAdopted, match="perdure adopt"):
            copied.worker().start()
        assert value(copy, "select max(attempt) from my_app.tasks") in (0, None)
        copy.execute("select my_app.adopt_instance()")
        with copied.worker():
            assert_jobs_complete(copied, copy)
        assert is_sound(copy)
    with load.worker():
        load.check()


def test_dump_can_be_restored_where_the_extension_is_newer(
    databases: list[Database], trees: Trees
) -> None:
    here, there = databases
    install_app(here, "extension")
    dump, times = re.subn(
        r"(create extension .*);", rf"\1 version '{LAST}';", here.dumped(), flags=re.IGNORECASE
    )
    assert times == 1
    there.restore(dump)
    with here.connect() as original, there.connect() as copy:
        with (
            pytest.raises(NotMigrated, match=f"version {NOW}, the functions of {LAST}"),
            translated(),
        ):
            copy.execute("select my_app.claim('{q}', 'ada')")
        assert install(copy, "my_app", source=trees[LAST]) == LAST
        assert_executes_nothing(copy)
        with original.transaction():
            original.execute(f"alter extension perdure update to '{LAST}'")
            original.execute("select my_app.migrate()")
        assert fingerprint(copy, "my_app") == fingerprint(original, "my_app")
        assert is_sound(copy)


@pytest.mark.parametrize(("first", "index"), [("the extension", "valid"), ("the dump", "missing")])
def test_dump_of_one_schema_is_repaired_by_migrate(
    databases: list[Database], first: str, index: str
) -> None:
    """[P13] (I25) Such a dump lacks the extension, so grants, triggers and perhaps indexes are
    missing. migrate() restores them; a missing index on memories must be created again."""
    here, there = databases
    install_app(here, "extension")
    with here.connect() as original, there.connect() as copy:
        original.execute(f"""
            select my_app.grant_access('{ROLE}', 'reader');
            select my_app.entity_create('kept', 'load', '{{"n": 1}}');
            select my_app.start('book', '[1]', id => '1', entity => 'load', queue => 'q');
        """)
        steps = [
            lambda: copy.execute(
                "create schema if not exists my_app; create extension perdure schema my_app"
            ),
            lambda: there.restore(here.dumped("--schema=my_app"), strict=False),
        ]
        for step in steps if first == "the extension" else reversed(steps):
            step()
        assert value(copy, "select distinct code from my_app.assert_invariants()") == "I25"
        copy.execute("select my_app.migrate()")
        assert is_sound(copy)
        assert_executes_nothing(copy)
        copy.execute("update my_app.jobs set context = '{\"n\": 2}' where id = 'kept'")
        assert value(copy, "select version from my_app.history where value = '2'") == 2
        assert value(copy, "select state from my_app.indexes") == index
        copy.execute("select my_app.create_index('load', 'n', 'number')")
        assert value(copy, "select state from my_app.indexes") == "valid"
        copy.execute(f"set role {ROLE}".encode())
        assert value(copy, "select my_app.entity_get('kept', 'n')") == 2


def test_access_left_out_of_a_dump_can_be_granted_again(databases: list[Database]) -> None:
    """An install takes all functions from PUBLIC again, but grants nothing: a role may only share
    the name of the one that had access. `sql/upgrading.md` says how to grant the access again."""
    page = UPGRADING.read_text("utf-8")
    here, there = databases
    install_app(here, "plain")
    with here.connect() as original:
        original.execute(f"select my_app.grant_access('{ROLE}', 'worker', '{{q}}')")
        original.execute(f"select my_app.grant_access('{ROLE}', 'reader')")
    there.restore(here.dumped("--no-privileges"))
    with here.connect() as original, there.connect() as copy:
        assert value(copy, "select code from my_app.assert_invariants()") == "I25"
        install(copy, "my_app")
        assert is_sound(copy)
        assert value(copy, f"select has_schema_privilege('{ROLE}', 'my_app', 'usage')") is False
        [again] = re.findall(r"-c \"(select my_app\.grant_access.*?)\"", page, re.DOTALL)
        copy.execute(again.encode())
        copy.execute(GRANTS_BY_HAND.encode())
        assert fingerprint(copy, "my_app") == fingerprint(original, "my_app")
        had = "select array_agg((role, kind, queues)::text order by kind) from my_app.access"
        assert value(copy, had) == value(original, had)


@pytest.fixture
def owners(extended: Server) -> Iterator[tuple[str, str]]:
    """Give two roles with no rights beyond those that `sql/upgrading.md` says an owner needs."""
    names = f"owner_{os.getpid()}", f"heir_{os.getpid()}"
    with psycopg.connect(extended.url(), autocommit=True) as admin:
        for name in names:
            admin.execute(f"create role {name} login")
        yield names
        for name in names:
            admin.execute(f"drop role {name}")


@pytest.mark.parametrize("options", [(), ("--no-privileges",), ("--schema=my_app",)])
def test_dump_by_an_ordinary_owner_is_restored_by_another(
    owners: tuple[str, str], databases: list[Database], options: tuple[str, ...]
) -> None:
    """Neither reads or writes files of the server, or needs a superuser."""
    here, there = databases
    for database, owner in zip(databases, owners, strict=True):
        with database.connect() as admin:
            admin.execute(f"grant create on database {database.name} to {owner}")
        database.user = owner
    with here.connect() as original:
        install(original, "my_app")
        original.execute(f"""
            select my_app.grant_access('{ROLE}', 'reader');
            select my_app.create_index('load', 'n', 'number');
            select my_app.start('book', '[1]', id => '1', entity => 'load', queue => 'q');
            select my_app.signal('1', 'go', '1');
        """)
    there.restore(here.dumped("--no-owner", *options))
    copied = Load(there.url, "my_app")
    with there.connect() as copy:
        install(copy, "my_app")
        assert is_sound(copy)
        assert_executes_nothing(copy)
        copy.execute("select my_app.adopt_instance()")
        with copied.worker():
            assert_jobs_complete(copied, copy)
        assert value(copy, "select state from my_app.indexes") == "valid"
        has_access = f"select has_function_privilege('{ROLE}', 'my_app.status(text)', 'execute')"
        assert value(copy, has_access) is ("--no-privileges" not in options)
        assert is_sound(copy)


def test_dump_of_an_app_can_be_restored_beside_it_under_another_name(
    databases: list[Database],
) -> None:
    """The dump is restored in another database, where the schema is renamed and dumped again."""
    here, there = databases
    install_app(here, "plain")
    with here.connect() as original:
        original.execute(
            "select my_app.start('book', '[1]', id => '1', entity => 'load', queue => 'q')"
        )
    there.restore(here.dumped("--schema=my_app"))
    with there.connect() as copy:
        copy.execute("alter schema my_app rename to staging")
        install(copy, "staging")
    here.restore(there.dumped("--schema=staging"))
    with here.connect() as both:
        assert fingerprint(both, "staging") == fingerprint(both, "my_app")
        assert_executes_nothing(both, "staging")
        both.execute("select staging.adopt_instance(); select staging.signal('1', 'go', '1')")
        load = Load(here.url, "staging")
        with load.worker(), load.client() as client:
            assert client.handle("1").result(T) == 2
        assert is_sound(both, "staging")
        assert value(both, "select my_app.claim('{q}', 'ada') -> 'tasks' ->> 0") is not None


@pytest.mark.skipif(not PG_15.exists(), reason="there is no PostgreSQL 15 here")
def test_dump_of_postgresql_15_can_be_restored_in_a_newer_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PERDURE_PG_BINDIR", os.fspath(PG_15))
    with Server() as older:
        monkeypatch.delenv("PERDURE_PG_BINDIR")
        with Server() as newer:
            for server in (older, newer):
                with psycopg.connect(server.url(), autocommit=True) as admin:
                    admin.execute(f"create role {ROLE}")
            here, there = Database(older, "here"), Database(newer, "there")
            install_app(here, "plain")
            load = Load(here.url, "my_app")
            with load.worker(), load.clients():
                time.sleep(0.3)
                dump = here.dumped(programs=newer.bindir)
            there.restore(dump)
            with there.connect() as copy:
                assert copy.info.server_version // 10000 > 15
                assert is_sound(copy)
                assert_executes_nothing(copy)
                copied = Load(there.url, "my_app")
                install(copy, "my_app")
                copy.execute("select my_app.adopt_instance()")
                with copied.worker():
                    assert_jobs_complete(copied, copy)
                assert is_sound(copy)


@pytest.mark.skipif(not PG_15.exists(), reason="there is no PostgreSQL 15 here")
def test_pg_upgrade_from_postgresql_15_keeps_the_app(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new cluster has another identity, so the app in it is a copy that must be adopted."""
    monkeypatch.setenv("PERDURE_PG_BINDIR", os.fspath(PG_15))
    with Server(shelf / "older", {"fsync": "off"}) as older:
        here = Database(older, "here")
        with here.connect() as connection:
            connection.execute(f"create role {ROLE}")
        install_app(here, "plain")
        load = Load(here.url, "my_app")
        with load.worker(), load.clients():
            time.sleep(0.3)
        older.stop()
    monkeypatch.delenv("PERDURE_PG_BINDIR")
    with Server(shelf / "newer", {"fsync": "off"}) as newer:
        newer.stop()
        upgrade(shelf, newer.bindir)
        newer.start()
        there = Load(newer.url("here"), "my_app")
        with psycopg.connect(there.dsn, autocommit=True) as copy:
            assert copy.info.server_version // 10000 > 15
            assert install(copy, "my_app") == NOW
            assert value(copy, "select state from my_app.indexes") == "valid"
            assert is_sound(copy)
            assert_executes_nothing(copy)
            copy.execute("select my_app.adopt_instance()")
            with there.worker():
                assert_jobs_complete(there, copy)
            assert is_sound(copy)


def upgrade(shelf: Path, bindir: Path) -> None:
    """Run pg_upgrade from the older to the newer cluster, both stopped. Checksums are switched off,
    because only newer servers have them by default."""
    older, newer = (shelf / place / "data" for place in ("older", "newer"))
    places = ["-b", PG_15, "-B", bindir, "-d", older, "-D", newer]
    for command in (
        ["pg_checksums", "--no-sync", "--disable", newer],
        ["pg_upgrade", "--no-sync", "--username=postgres", *places],
    ):
        done = subprocess.run(
            [bindir / command[0], *command[1:]],
            cwd=shelf, user=binaries.account(newer), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def shelf() -> Iterator[Path]:
    """Give a folder that the account of the server can enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_physical_copy_is_noticed_only_by_workers_with_an_instance(
    shelf: Path,
) -> None:
    """A clone has all marks of the original, as a standby that takes over must have."""
    with Server(shelf / "original") as original:
        with psycopg.connect(original.url(), autocommit=True) as connection:
            install(connection, "my_app")
        original.stop()
        subprocess.run(["cp", "-a", shelf / "original", shelf / "clone"], check=True)
    with Server(shelf / "clone") as clone, psycopg.connect(clone.url(), autocommit=True) as copy:
        load = Load(clone.url(), "my_app")
        before = value(copy, "select value #>> '{}' from my_app.settings where name = 'instance'")
        with load.worker(instance=before):
            pass
        copy.execute("select my_app.adopt_instance()")
        with pytest.raises(InstanceNotAdopted, match="not the instance"):
            load.worker(instance=before).start()
        with load.worker():
            pass
