"""Another build of the same version: its functions are replaced, its tables are not touched. [P13]

A version that is not released changes from day to day under one number.
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
from test_upgrades import OWNED, OWNERS, ask, strangers, value

from perdure.embedded.server import Server
from perdure.errors import ExtensionOutdated, OtherBuild
from perdure.installation import script
from perdure.installation.install import install, reload_functions
from tests.servers import AnyServer, database_of

Connection = psycopg.Connection[Any]

BEFORE_BUILDS_HAD_NAMES = """
delete from my_app.settings where name = 'build';
drop function my_app.perdure_build, my_app.check_build, my_app.record_build;
"""
OLDER = """
create or replace function my_app.perdure_build() returns jsonb language plpgsql immutable
as $$ begin return '{{"code": "older", "tables": "{tables}"}}'; end $$;
create or replace function my_app.clock() returns timestamptz language sql as 'select now()';
update my_app.settings set value = my_app.perdure_build() where name = 'build';
"""


@pytest.fixture
def app(database: str) -> Iterator[Connection]:
    """Give an app of this build in which somebody has a memory."""
    with psycopg.connect(database, autocommit=True) as connection:
        install(connection, "my_app")
        connection.execute("select my_app.entity_create('kept', 'note')")
        yield connection


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """Give the `sql/` of a build with other functions, fewer attributes and columns."""
    return build(tmp_path)


def test_another_build_is_what_an_install_of_it_gives(
    app: Connection, server: AnyServer, older: Path
) -> None:
    """Functions with other signatures, types with more attributes, views with more columns."""
    assert install(app, "my_app", source=older) == NOW
    with (
        database_of(server, "fresh") as name,
        psycopg.connect(server.url(name), autocommit=True) as fresh,
    ):
        install(fresh, "my_app", source=older)
        assert fingerprint(app, "my_app") == fingerprint(fresh, "my_app")
        assert settled(app) == settled(fresh) == script.build(older)
    assert value(app, "select count(*) from my_app.jobs") == 1
    assert value(app, "select count(*) from my_app.assert_invariants()") == 0


def settled(connection: Connection) -> Any:
    """Tell by which build the tables and views were made."""
    return value(connection, "select value from my_app.settings where name = 'build'")


def test_two_builds_follow_each_other_as_they_come(app: Connection, tmp_path: Path) -> None:
    """Nobody knows which is older. What users have made stays, and so does a moved clock."""
    source = Path(shutil.copytree(str(script.source()), tmp_path / "sql"))
    with (source / "functions" / "jobs.sql").open("a") as opened:
        opened.write("-- One line more.\n")
    app.execute("create function my_app.own() returns integer language sql return 1")
    app.execute("revoke all on function my_app.own from public")
    app.execute("select my_app.move_clock('1 day')")
    before = fingerprint(app, "my_app")
    for root in (source, None) * 2:
        install(app, "my_app", source=root)
        assert settled(app) == script.build(root)
        assert value(app, "select my_app.clock() > clock_timestamp() + interval '23 hours'")
    assert fingerprint(app, "my_app") == before


@pytest.mark.parametrize("route", [install, reload_functions])
@pytest.mark.parametrize("more", [COLOUR, "comment on table @extschema@.jobs is 'Jobs.';\n"])
def test_a_build_with_other_tables_is_refused(
    app: Connection, tmp_path: Path, route: Any, more: str
) -> None:
    """Nothing is changed, and the error says what to do."""
    before = fingerprint(app, "my_app")
    with pytest.raises(OtherBuild, match="another build of version") as refused:
        route(app, "my_app", source=build(tmp_path, tables=more))
    assert "drop its schema" in (refused.value.hint or "")
    assert fingerprint(app, "my_app") == before
    assert settled(app) == script.build()


def test_a_remark_makes_no_other_tables(app: Connection, tmp_path: Path) -> None:
    remark = build(tmp_path, tables="\n-- Why there is no index on the colour.\n\n")
    assert install(app, "my_app", source=remark) == NOW


@pytest.mark.parametrize("what", ["type started cannot be changed", "drop columns from view"])
def test_a_build_that_has_lost_something_is_refused(
    app: Connection, older: Path, tmp_path: Path, what: str
) -> None:
    """Types and views gain, they do not lose: there is no way back from a build with more."""
    install(app, "my_app", source=older)
    now = Path(shutil.copytree(str(script.source()), tmp_path / "now"))
    if "view" in what:
        shutil.copytree(older / "types", now / "types", dirs_exist_ok=True)
    before = fingerprint(app, "my_app")
    with pytest.raises(OtherBuild, match=what) as refused:
        install(app, "my_app", source=now)
    assert "drop its schema" in (refused.value.hint or "")
    assert fingerprint(app, "my_app") == before


def test_an_app_from_before_builds_had_names_is_refused(app: Connection) -> None:
    """Nobody can tell what its tables are."""
    app.execute(BEFORE_BUILDS_HAD_NAMES)
    with pytest.raises(OtherBuild, match="build unknown"):
        install(app, "my_app")


def test_a_client_that_may_change_nothing_is_content_with_any_build(
    app: Connection, older: Path
) -> None:
    role = f"client_{app.info.backend_pid}"
    app.execute(f"create role {role}")
    app.execute(f"select my_app.grant_access('{role}', 'client')")
    with app.transaction():
        app.execute(f"set local role {role}")
        assert install(app, "my_app", source=older) == NOW
    app.execute(f"drop owned by {role}; drop role {role}")


def test_another_build_by_a_superuser_leaves_all_to_the_owner(app: Connection, older: Path) -> None:
    role = f"owner_{app.info.backend_pid}"
    app.execute(f"create role {role}; alter schema my_app owner to {role}")
    app.execute(f"grant create on database {app.info.dbname} to {role}")
    for (owned,) in app.execute(OWNED).fetchall():
        app.execute(f"alter {owned} owner to {role}".encode())
    install(app, "my_app", source=older)
    owners = {row[0] for row in app.execute(OWNERS)}
    app.execute(f"drop owned by {role} cascade; drop role {role}")
    assert owners == {role}


def test_nothing_is_executed_on_the_tables_of_another_build(app: Connection) -> None:
    """As where a dump is restored on a server with the extension of another build."""
    app.execute("select my_app.start('w', queue => 'q')")
    app.execute(OLDER.format(tables="others"))
    app.execute("update my_app.settings set value = '{}' where name = 'build'")
    for call in ("register_worker('ada', '{q}')", "claim('{q}', 'ada')", "migrate()"):
        with pytest.raises(OtherBuild, match="build unknown, the functions are made for others"):
            ask(app, call)
    assert value(app, "select deliveries from my_app.tasks") == 0


@pytest.fixture
def extension(extended: Server, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """Give an app of this version as an extension."""
    name = f"b{abs(hash(request.node.name))}"
    with psycopg.connect(extended.url(), autocommit=True) as admin:
        admin.execute(f"create database {name}")
    with psycopg.connect(extended.url(name), autocommit=True) as connection:
        connection.execute("create schema my_app; create extension perdure schema my_app")
        connection.execute("select my_app.migrate()")
        connection.execute("select my_app.entity_create('kept', 'note')")
        yield connection


def test_an_extension_of_another_build_is_left_to_alter_extension(extension: Connection) -> None:
    """What the error says is what brings it to this build."""
    before = fingerprint(extension, "my_app")
    extension.execute("alter extension perdure drop function my_app.reset_clock()")
    extension.execute("drop function my_app.reset_clock()")
    extension.execute(OLDER.format(tables=script.build()["tables"]))
    with pytest.raises(ExtensionOutdated, match="another build") as refused:
        install(extension, "my_app")
    extension.execute((refused.value.hint or "").partition("run: ")[2].encode())
    assert fingerprint(extension, "my_app") == before
    assert strangers(extension) == []
    assert install(extension, "my_app") == NOW
    assert value(extension, "select count(*) from my_app.jobs") == 1


def test_a_build_travels_with_a_dump(extension: Connection, extended: Server) -> None:
    """Of code and tables alike: a copy is as current as what it was copied from."""
    dump = [extended.bindir / "pg_dump", extended.url(extension.info.dbname)]
    dumped = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    name = f"{extension.info.dbname}_copy"
    extension.execute(f"create database {name}")
    psql = [extended.bindir / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", extended.url(name)]
    subprocess.run(psql, input=dumped, text=True, check=True, capture_output=True)
    with psycopg.connect(extended.url(name), autocommit=True) as copy:
        assert settled(copy) == value(copy, "select my_app.perdure_build()") == script.build()
        assert install(copy, "my_app") == NOW
