"""Installing another build of the same version replaces functions and leaves tables alone. [P13]

Before its release, a version changes from day to day under one number.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fingerprint import fingerprint
from releases import COLOUR, NOW, build
from test_upgrades import OWNED, OWNERS, ask, misplaced_objects

from perdure.embedded.server import Server
from perdure.errors import ExtensionOutdated, OtherBuild
from perdure.installation import script
from perdure.installation.install import install, reload_functions
from tests.databases import value
from tests.servers import AnyServer, database_of

Connection = psycopg.Connection[Any]

BEFORE_BUILDS_HAD_NAMES = """
delete from my_app.settings where name = 'build';
drop function my_app.perdure_build, my_app.check_build, my_app.record_build;
"""
OTHER_BUILD = """
create or replace function my_app.perdure_build() returns jsonb language plpgsql immutable
as $$ begin return '{{"code": "older", "tables": "{tables}"}}'; end $$;
create or replace function my_app.clock() returns timestamptz language sql as 'select now()';
update my_app.settings set value = my_app.perdure_build() where name = 'build';
"""


@pytest.fixture
def app(database: str) -> Iterator[Connection]:
    """Give a connection to an app of this build that has a memory."""
    with psycopg.connect(database, autocommit=True) as connection:
        install(connection, "my_app")
        connection.execute("select my_app.entity_create('kept', 'note')")
        yield connection


@pytest.fixture
def other_build(tmp_path: Path) -> Path:
    """Give the `sql/` of a build with other functions and with more attributes and columns."""
    return build(tmp_path)


def test_change_of_build_gives_the_same_schema_as_a_fresh_install(
    app: Connection, server: AnyServer, other_build: Path
) -> None:
    """It changes signatures of functions, and adds attributes to types and columns to views."""
    assert install(app, "my_app", source=other_build) == NOW
    with (
        database_of(server, "fresh") as name,
        psycopg.connect(server.url(name), autocommit=True) as fresh,
    ):
        install(fresh, "my_app", source=other_build)
        assert fingerprint(app, "my_app") == fingerprint(fresh, "my_app")
        assert recorded_build(app) == recorded_build(fresh) == script.build(other_build)
    assert value(app, "select count(*) from my_app.jobs") == 1
    assert value(app, "select count(*) from my_app.assert_invariants()") == 0


def recorded_build(connection: Connection) -> Any:
    """Return the build that made the tables and views."""
    return value(connection, "select value from my_app.settings where name = 'build'")


def test_builds_can_replace_each_other_in_both_directions(app: Connection, tmp_path: Path) -> None:
    """Builds have no order. Functions of the user stay, and so does a moved clock."""
    source = Path(shutil.copytree(str(script.source()), tmp_path / "sql"))
    with (source / "functions" / "jobs.sql").open("a") as opened:
        opened.write("-- One line more.\n")
    app.execute("create function my_app.own() returns integer language sql return 1")
    app.execute("revoke all on function my_app.own from public")
    app.execute("select my_app.move_clock('1 day')")
    before = fingerprint(app, "my_app")
    for root in (source, None) * 2:
        install(app, "my_app", source=root)
        assert recorded_build(app) == script.build(root)
        assert value(app, "select my_app.clock() > clock_timestamp() + interval '23 hours'")
    assert fingerprint(app, "my_app") == before


@pytest.mark.parametrize("route", [install, reload_functions])
@pytest.mark.parametrize("more", [COLOUR, "comment on table @extschema@.jobs is 'Jobs.';\n"])
def test_build_with_other_tables_is_rejected(
    app: Connection, tmp_path: Path, route: Any, more: str
) -> None:
    """Nothing is changed, and the hint says what to do."""
    before = fingerprint(app, "my_app")
    with pytest.raises(OtherBuild, match="another build of version") as refused:
        route(app, "my_app", source=build(tmp_path, tables=more))
    assert "drop its schema" in (refused.value.hint or "")
    assert fingerprint(app, "my_app") == before
    assert recorded_build(app) == script.build()


def test_comment_in_the_source_does_not_count_as_other_tables(
    app: Connection, tmp_path: Path
) -> None:
    remark = build(tmp_path, tables="\n-- Why there is no index on the colour.\n\n")
    assert install(app, "my_app", source=remark) == NOW


@pytest.mark.parametrize("what", ["type started cannot be changed", "drop columns from view"])
def test_build_with_fewer_attributes_or_columns_is_rejected(
    app: Connection, other_build: Path, tmp_path: Path, what: str
) -> None:
    """Types and views can gain attributes and columns, but not lose them."""
    install(app, "my_app", source=other_build)
    now = Path(shutil.copytree(str(script.source()), tmp_path / "now"))
    if "view" in what:
        shutil.copytree(other_build / "types", now / "types", dirs_exist_ok=True)
    before = fingerprint(app, "my_app")
    with pytest.raises(OtherBuild, match=what) as refused:
        install(app, "my_app", source=now)
    assert "drop its schema" in (refused.value.hint or "")
    assert fingerprint(app, "my_app") == before


def test_app_without_a_recorded_build_is_rejected(app: Connection) -> None:
    """Its tables may be anything."""
    app.execute(BEFORE_BUILDS_HAD_NAMES)
    with pytest.raises(OtherBuild, match="build unknown"):
        install(app, "my_app")


def test_client_without_the_owners_rights_accepts_any_build(
    app: Connection, other_build: Path
) -> None:
    role = f"client_{app.info.backend_pid}"
    app.execute(f"create role {role}")
    app.execute(f"select my_app.grant_access('{role}', 'client')")
    with app.transaction():
        app.execute(f"set local role {role}")
        assert install(app, "my_app", source=other_build) == NOW
    app.execute(f"drop owned by {role}; drop role {role}")


def test_objects_keep_their_owner_when_a_superuser_changes_the_build(
    app: Connection, other_build: Path
) -> None:
    role = f"owner_{app.info.backend_pid}"
    app.execute(f"create role {role}; alter schema my_app owner to {role}")
    app.execute(f"grant create on database {app.info.dbname} to {role}")
    for (owned,) in app.execute(OWNED).fetchall():
        app.execute(f"alter {owned} owner to {role}".encode())
    install(app, "my_app", source=other_build)
    owners = {row[0] for row in app.execute(OWNERS)}
    app.execute(f"drop owned by {role} cascade; drop role {role}")
    assert owners == {role}


def test_tasks_are_not_claimed_when_tables_are_of_another_build(app: Connection) -> None:
    """This happens when a dump is restored on a server whose extension is of another build."""
    app.execute("select my_app.start('w', queue => 'q')")
    app.execute(OTHER_BUILD.format(tables="others"))
    app.execute("update my_app.settings set value = '{}' where name = 'build'")
    for call in ("register_worker('ada', '{q}')", "claim('{q}', 'ada')", "migrate()"):
        with pytest.raises(OtherBuild, match="build unknown, the functions are made for others"):
            ask(app, call)
    assert value(app, "select deliveries from my_app.tasks") == 0


@pytest.fixture
def extension(extended: Server, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """Give a connection to an app of this version that was installed as an extension."""
    name = f"b{abs(hash(request.node.name))}"
    with psycopg.connect(extended.url(), autocommit=True) as admin:
        admin.execute(f"create database {name}")
    with psycopg.connect(extended.url(name), autocommit=True) as connection:
        connection.execute("create schema my_app; create extension perdure schema my_app")
        connection.execute("select my_app.migrate()")
        connection.execute("select my_app.entity_create('kept', 'note')")
        yield connection


def test_extension_of_another_build_needs_alter_extension(extension: Connection) -> None:
    """The statements in the hint bring the extension to this build."""
    before = fingerprint(extension, "my_app")
    extension.execute("alter extension perdure drop function my_app.reset_clock()")
    extension.execute("drop function my_app.reset_clock()")
    extension.execute(OTHER_BUILD.format(tables=script.build()["tables"]))
    with pytest.raises(ExtensionOutdated, match="another build") as refused:
        install(extension, "my_app")
    extension.execute((refused.value.hint or "").partition("run: ")[2].encode())
    assert fingerprint(extension, "my_app") == before
    assert misplaced_objects(extension) == []
    assert install(extension, "my_app") == NOW
    assert value(extension, "select count(*) from my_app.jobs") == 1


def test_dump_keeps_the_recorded_build(extension: Connection, extended: Server) -> None:
    """A restored copy counts as being of the same build, so an install accepts it."""
    dump = [extended.bindir / "pg_dump", extended.url(extension.info.dbname)]
    dumped = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    name = f"{extension.info.dbname}_copy"
    extension.execute(f"create database {name}")
    psql = [extended.bindir / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", extended.url(name)]
    subprocess.run(psql, input=dumped, text=True, check=True, capture_output=True)
    with psycopg.connect(extended.url(name), autocommit=True) as copy:
        assert (
            recorded_build(copy) == value(copy, "select my_app.perdure_build()") == script.build()
        )
        assert install(copy, "my_app") == NOW
