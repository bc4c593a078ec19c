"""By either route, an upgrade gives the same schema as an install and keeps the data. [P13] (T19)

There are no later releases yet; `releases.py` makes two, with every kind of change.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fingerprint import fingerprint
from load import die_upgrading, statements_to_upgrade
from psycopg import errors
from releases import LATER, NOW

from perdure.embedded.server import Server
from perdure.errors import ExtensionOutdated, NewerSchema, NotMigrated, translated
from perdure.installation import install as installer
from perdure.installation.install import install
from tests.amount import amount
from tests.databases import value
from tests.servers import AnyServer, database_of

Connection = psycopg.Connection[Any]
Trees = dict[str, Path]

NEXT, LAST = LATER
WAYS = [[NOW, LAST], [NOW, NEXT, LAST]]
GRANTED = """
grant usage on schema my_app to {role};
grant select on my_app.jobs, my_app.history to {role};
grant execute on function my_app.notify_listeners, my_app.allow_asynchronous_commit to {role};
grant execute on function my_app.claim to {role};
grant execute on function my_app.check_protocol to {role} with grant option;
"""


@pytest.fixture(scope="module")
def populated(server: AnyServer, role: str, trees: Trees) -> Iterator[str]:
    """Name a database with an app of this version that has data and a job at work."""
    with database_of(server, "lived") as name:
        with psycopg.connect(server.url(name), autocommit=True) as connection:
            install(connection, "my_app")
            populate(connection, role)
        yield name


@pytest.fixture
def dsn(server: AnyServer, populated: str) -> Iterator[str]:
    """Give the connection string of a copy of that database."""
    with database_of(server, "upgraded", populated, "my_app") as name:
        yield server.url(name)


@pytest.fixture
def app(dsn: str) -> Iterator[Connection]:
    """Give a connection to the copy."""
    with psycopg.connect(dsn, autocommit=True, client_encoding="utf8") as connection:
        yield connection


def populate(connection: Connection, role: str) -> None:
    """Give an app what an upgrade must keep: memories, an index, a job at work and grants."""
    connection.execute(GRANTED.format(role=role).encode())
    for call in (
        """entity_create('note', 'note', '{"n": 1}')""",
        "entity_increment('note', 'n')",
        "start('w', id => 'job', queue => 'q')",
        "signal('job', 'go')",
        "create_index('note', 'n', 'number')",
        "claim('{q}', 'ada')",
    ):
        connection.execute(f"select my_app.{call}".encode())


def rows(connection: Connection) -> list[Any]:
    """Read the rows that an upgrade must keep."""
    tables = ("jobs", "tasks", "journal", "inbox", "wanted_indexes")
    known = "array_agg(to_jsonb(t) - 'colour' - 'shade' order by t::text)"
    return [value(connection, f"select {known} from my_app.{table} as t") for table in tables]


@pytest.fixture(scope="module")
def fresh(server: AnyServer, role: str, trees: Trees) -> list[str]:
    """Give the fingerprint of a populated install of the last version."""
    with (
        database_of(server, "fresh") as name,
        psycopg.connect(server.url(name), autocommit=True) as connection,
    ):
        install(connection, "my_app", source=trees[LAST])
        populate(connection, role)
        return fingerprint(connection, "my_app")


@pytest.mark.parametrize("way", WAYS, ids=" → ".join)
def test_upgrade_gives_the_same_schema_as_an_install(
    app: Connection, trees: Trees, fresh: list[str], way: list[str]
) -> None:
    """Order of columns, types, signatures, comments, owners and grants are all the same."""
    kept = rows(app)
    for version in way[1:]:
        assert install(app, "my_app", source=trees[version]) == version
        assert rows(app) == kept
    assert fingerprint(app, "my_app") == fresh
    assert value(app, "select count(*) from my_app.assert_invariants()") == 0
    assert value(app, "select array_agg(version order by applied_at) from my_app.migrations") == way


def test_upgraded_extension_has_the_schema_of_a_plain_install(
    extension: Connection, extended: Server, server: AnyServer, fresh: list[str], role: str
) -> None:
    extension.execute(f"create extension perdure schema my_app version '{NOW}'")
    extension.execute(f"select my_app.migrate(); create role {role}_2")
    populate(extension, f"{role}_2")
    kept = rows(extension)
    with extension.transaction():
        extension.execute(f"alter extension perdure update to '{LAST}'")
        extension.execute("select my_app.migrate()")
    assert rows(extension) == kept
    assert [line.replace(f"{role}_2", role) for line in fingerprint(extension, "my_app")] == fresh
    assert misplaced_objects(extension) == []


def misplaced_objects(connection: Connection) -> list[Any]:
    """List functions that do not belong to the extension, and tables, views and sequences that
    do."""
    return connection.execute("""
        select o.what, o.name
          from (select 'function' as what, p.proname as name, 'pg_proc'::regclass as class, p.oid
                  from pg_proc as p
                 where p.pronamespace = 'my_app'::regnamespace
                union all
                select c.relkind::text, c.relname, 'pg_class'::regclass, c.oid
                  from pg_class as c
                 where c.relnamespace = 'my_app'::regnamespace
                   and c.relkind in ('r', 'v', 'S')) as o
         where (o.what = 'function') <> exists (
            select from pg_depend as d
             where d.classid = o.class and d.objid = o.oid and d.deptype = 'e')
    """).fetchall()


def test_no_task_is_delivered_between_extension_update_and_migrate(extension: Connection) -> None:
    """Every claim fails with an error that says that migrate() is missing."""
    extension.execute(f"create extension perdure schema my_app version '{NOW}'")
    extension.execute("select my_app.migrate(); select my_app.start('w', queue => 'q')")
    extension.execute(f"alter extension perdure update to '{LAST}'")
    for call in ("register_worker('ada', '{q}')", "claim('{q}', 'ada')", "advance('[]')"):
        with pytest.raises(NotMigrated, match=f"version {NOW}, the functions of {LAST}"):
            ask(extension, call)
    assert value(extension, "select deliveries from my_app.tasks") == 0
    extension.execute("select my_app.migrate()")
    ask(extension, "claim('{q}', 'ada')")
    assert value(extension, "select deliveries from my_app.tasks") == 1


def ask(connection: Connection, call: str) -> None:
    """Call a function, and raise its error as an error of the package."""
    with translated():
        connection.execute(f"select my_app.{call}".encode())


def test_extension_cannot_be_downgraded(extension: Connection, trees: Trees) -> None:
    extension.execute(f"create extension perdure schema my_app version '{LAST}'")
    with pytest.raises(errors.InvalidParameterValue, match="no update path"):
        extension.execute(f"alter extension perdure update to '{NOW}'")
    with pytest.raises(NewerSchema, match=f"extension of version {LAST}"):
        install(extension, "my_app")
    extension.execute("drop extension perdure")
    extension.execute(f"create extension perdure schema my_app version '{NOW}'")
    with pytest.raises(ExtensionOutdated) as refused:
        install(extension, "my_app", source=trees[LAST])
    assert f"update to '{LAST}'; select my_app.migrate()" in str(refused.value)


def test_older_functions_reject_newer_tables(app: Connection) -> None:
    """This happens when a dump is restored on a server with an older version of the extension."""
    app.execute(f"insert into my_app.migrations values ('{NEXT}', now())")
    app.execute("update my_app.settings set value = '{}' where name = 'build'")
    with pytest.raises(NewerSchema, match=f"version {NEXT}, newer than its functions"):
        ask(app, "migrate()")
    with pytest.raises(NotMigrated):
        ask(app, "claim('{q}', 'ada')")
    with pytest.raises(NewerSchema, match=f"tables of version {NEXT}"):
        install(app, "my_app")


def test_upgrade_cannot_be_undone_and_keeps_functions_of_the_user(
    app: Connection, trees: Trees
) -> None:
    """Only retired functions of perdure are dropped, each by its name."""
    app.execute("create function my_app.own(text, jsonb) returns jsonb language sql return $2")
    install(app, "my_app", source=trees[NEXT])
    before = fingerprint(app, "my_app")
    with pytest.raises(NewerSchema, match=r"no way back") as refused:
        install(app, "my_app")
    assert refused.value.hint == f"Install version {NEXT} of the package."
    assert fingerprint(app, "my_app") == before
    assert value(app, "select to_regproc('my_app.passing') is not null")
    install(app, "my_app", source=trees[LAST])
    assert value(app, "select to_regproc('my_app.own') is not null")
    assert value(app, "select to_regproc('my_app.passing') is null")


def test_upgrade_that_renames_an_attribute_of_a_type_fails(
    app: Connection, trees: Trees, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(trees[LAST], tmp_path / "sql"))
    types = root / "types" / "jobs.sql"
    types.write_text(re.sub(r"\bis_new ", "novel ", types.read_text()))
    with pytest.raises(errors.FeatureNotSupported, match="started cannot be changed"):
        install(app, "my_app", source=root)
    assert value(app, "select my_app.perdure_version()") == NOW


def test_objects_keep_their_owner_when_a_superuser_upgrades(
    app: Connection, role: str, trees: Trees
) -> None:
    app.execute(f"alter schema my_app owner to {role}")
    app.execute(f"grant create on database {app.info.dbname} to {role}")
    for (owned,) in app.execute(OWNED).fetchall():
        app.execute(f"alter {owned} owner to {role}".encode())
    with app.transaction():
        install(app, "my_app", source=trees[LAST])
        assert value(app, "show role") == "none"
    owners = {row[0] for row in app.execute(OWNERS)}
    app.execute(f"drop owned by {role} cascade")
    assert owners == {role}


OWNED = """
select 'routine ' || p.oid::regprocedure from pg_proc as p
 where p.pronamespace = 'my_app'::regnamespace
union all
select 'table ' || c.oid::regclass from pg_class as c
 where c.relnamespace = 'my_app'::regnamespace and c.relkind = 'r'
union all
select 'view ' || c.oid::regclass from pg_class as c
 where c.relnamespace = 'my_app'::regnamespace and c.relkind = 'v'
union all
select 'type ' || c.oid::regclass from pg_class as c
 where c.relnamespace = 'my_app'::regnamespace and c.relkind = 'c'
union all
select 'domain ' || t.oid::regtype from pg_type as t
 where t.typnamespace = 'my_app'::regnamespace and t.typtype = 'd'
"""
OWNERS = """
select proowner::regrole::text from pg_proc where pronamespace = 'my_app'::regnamespace
union
select relowner::regrole::text from pg_class where relnamespace = 'my_app'::regnamespace
union
select typowner::regrole::text from pg_type where typnamespace = 'my_app'::regnamespace
"""


def test_upgrade_that_dies_at_any_statement_has_changed_nothing(
    dsn: str, app: Connection, trees: Trees
) -> None:
    """PERDURE_TEST_AMOUNT=400 lets it die at every statement."""
    before, kept = fingerprint(app, "my_app"), rows(app)
    statements = len(statements_to_upgrade(trees[LAST]))
    for place in range(statements - 1, -1, -max(1, statements // amount(4))):
        die_upgrading(dsn, "my_app", trees[LAST], place)
        assert fingerprint(app, "my_app") == before
        assert rows(app) == kept


def test_upgrade_is_one_transaction(
    dsn: str, app: Connection, trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So an upgrade that dies has changed nothing, and other sessions never see a part of it."""
    before = value(app, CODE)
    transactions: list[Any] = []
    run = installer._run

    def note(connection: Connection, *statement: str) -> None:
        run(connection, *statement)
        transactions.append(value(connection, "select pg_current_xact_id_if_assigned()::text"))
        if len(transactions) % 50 == 0:
            assert value(app, CODE) == before

    monkeypatch.setattr(installer, "_run", note)
    with psycopg.connect(dsn, autocommit=True) as migrator:
        install(migrator, "my_app", source=trees[LAST])
    changed = transactions[transactions.index(next(filter(None, transactions))) :]
    assert len(transactions) == len(statements_to_upgrade(trees[LAST]))
    assert len(set(changed)) == 1
    assert value(app, CODE) != before


CODE = """
select md5(string_agg(p.proname || p.prosrc, '' order by p.oid)) from pg_proc as p
 where p.pronamespace = 'my_app'::regnamespace"""
"""A hash of all functions; reading it needs no lock on them."""


@pytest.mark.parametrize("way", ["terminated", "kill -9"])
def test_backend_killed_while_it_changes_tables_has_changed_nothing(
    own_server: Server, trees: Trees, way: str
) -> None:
    """migrate() has changed the tables, and waits to insert its row into `migrations`."""
    dsn = own_server.url()
    with psycopg.connect(dsn, autocommit=True) as app:
        install(app, "my_app")
        app.execute("""select my_app.entity_create('note', 'note', '{"n": 1}')""")
        before, kept = fingerprint(app, "my_app"), rows(app)
    with psycopg.connect(dsn) as holder, psycopg.connect(dsn, autocommit=True) as migrator:
        holder.execute("insert into my_app.migrations values (%s, now())", [LAST])
        upgrade = threading.Thread(target=_upgrade_in_vain, args=[migrator, trees[LAST]])
        upgrade.start()
        pid = migrator.info.backend_pid
        while not value(holder, f"select cardinality(pg_blocking_pids({pid})) > 0"):
            assert upgrade.is_alive()
            time.sleep(0.01)
        if way == "terminated":
            holder.execute("select pg_terminate_backend(%s)", [pid])
            holder.rollback()
        else:
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(psycopg.OperationalError):  # the server ends all other sessions, too
                holder.execute("select pg_sleep(30)")
        upgrade.join()
    wait_for(own_server)
    with psycopg.connect(dsn, autocommit=True) as app:
        assert (fingerprint(app, "my_app"), rows(app)) == (before, kept)
        assert install(app, "my_app", source=trees[LAST]) == LAST
        assert rows(app) == kept


def _upgrade_in_vain(migrator: Connection, source: Path) -> None:
    with pytest.raises(psycopg.OperationalError):
        install(migrator, "my_app", source=source)


def wait_for(server: Server) -> None:
    """Wait until a server has recovered."""
    while True:
        try:
            psycopg.connect(server.url()).close()
        except psycopg.OperationalError:
            time.sleep(0.01)
        else:
            return


def test_ten_upgrades_can_run_at_once(
    dsn: str, app: Connection, trees: Trees, fresh: list[str]
) -> None:
    kept = rows(app)
    versions: list[Any] = []

    def upgrade() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            versions.append(install(connection, "my_app", source=trees[LAST]))

    threads = [threading.Thread(target=upgrade) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions == [LAST] * 10
    assert rows(app) == kept
    assert fingerprint(app, "my_app") == fresh


def test_upgrade_retries_instead_of_queueing_for_a_locked_table(
    dsn: str, app: Connection, trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump or report may hold a table for hours, and a queued upgrade would block all others. In
    a transaction of the caller, the upgrade fails at once."""
    with psycopg.connect(dsn) as reader:
        reader.execute("select count(*) from my_app.jobs")
        with app.transaction(), pytest.raises(errors.LockNotAvailable) as refused:
            install(app, "my_app", source=trees[NEXT])  # in an open transaction: fails at once
        assert str(reader.info.backend_pid) in (refused.value.diag.message_detail or "")
        assert refused.value.diag.message_hint
        assert value(app, "select my_app.perdure_version()") == NOW
        later = threading.Timer(1.0, reader.rollback)
        later.start()
        assert install(app, "my_app", source=trees[NEXT]) == NEXT
        later.join()


def test_repeated_migrate_needs_no_lock(dsn: str, app: Connection) -> None:
    with psycopg.connect(dsn) as reader:
        reader.execute("lock table my_app.jobs, my_app.history in access exclusive mode")
        app.execute("set statement_timeout = '5 s'")
        assert value(app, "select my_app.migrate()") == NOW


@pytest.mark.parametrize("name", ["An Other"])
def test_install_repairs_an_app_in_a_renamed_schema(app: Connection, name: str) -> None:
    """Functions contain the name of the schema, so they fail until the install."""
    quoted = psycopg.sql.Identifier(name).as_string()
    app.execute(f"alter schema my_app rename to {quoted}")
    with pytest.raises(errors.UndefinedFunction):
        app.execute(f"select {quoted}.entity_increment('note', 'n')")
    install(app, name)
    assert value(app, f"select {quoted}.entity_increment('note', 'n')") == 3
    assert value(app, f"select state from {quoted}.indexes") == "valid"
    assert value(app, f"select count(*) from {quoted}.assert_invariants()") == 0
    assert value(app, f"select count(*) from {quoted}.find('note', '{{\"n\": 3}}')") == 1
    assert value(app, f"select {quoted}.claim('{{q}}', 'bob')")


def test_install_repairs_an_extension_in_a_renamed_schema(
    extension: Connection,
) -> None:
    extension.execute("create extension perdure schema my_app")
    extension.execute("select my_app.migrate(); select my_app.entity_create('note', 'note')")
    extension.execute("alter schema my_app rename to another")
    install(extension, "another")
    assert value(extension, "select another.entity_increment('note', 'n')") == 1
    extension.execute("alter schema another rename to my_app")
    install(extension, "my_app")
    assert misplaced_objects(extension) == []
    assert value(extension, "select my_app.entity_increment('note', 'n')") == 2
