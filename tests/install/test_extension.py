"""Installed as an extension, perdure's code belongs to the extension; migrate() makes the tables.
[P13]"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fingerprint import fingerprint

from perdure.embedded.server import Server
from perdure.errors import ExtensionOutdated
from perdure.installation import script
from perdure.installation.install import install

Connection = psycopg.Connection[Any]


@pytest.fixture
def connection(extended: Server, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """Give a connection to a database with the extension in the schema my_app."""
    name = f"d{abs(hash(request.node.name))}"
    with psycopg.connect(extended.url(), autocommit=True) as admin:
        admin.execute(f"create database {name}")
    with psycopg.connect(extended.url(name), autocommit=True) as connection:
        connection.execute("create schema my_app")
        connection.execute("create extension perdure schema my_app")
        yield connection


def test_the_extension_and_the_plain_install_give_the_same_schema(connection: Connection) -> None:
    assert install(connection, "my_app") == script.default_version()
    install(connection, "plain_app")
    assert fingerprint(connection, "my_app") == fingerprint(connection, "plain_app")


def test_extension_belongs_to_the_role_that_creates_it(
    extended: Server, connection: Connection
) -> None:
    """(S12) (S14) The role needs no superuser. A trusted extension would belong to a superuser. It
    is not relocatable, as its functions contain the name of the schema."""
    asked = """select relocatable, superuser, trusted
                 from pg_available_extension_versions where name = 'perdure' and version = %s"""
    properties = connection.execute(asked, [script.default_version()]).fetchone()
    assert properties == (False, False, False)
    connection.execute("drop extension perdure; drop role if exists modest; create role modest")
    connection.execute("create schema authorization modest; set role modest")
    connection.execute("create extension perdure schema modest; select modest.migrate()")
    connection.execute("reset role")
    owners = """
        select distinct p.proowner::regrole::text from pg_proc as p
         where p.pronamespace = 'modest'::regnamespace
        union
        select c.relowner::regrole::text from pg_class as c
         where c.relnamespace = 'modest'::regnamespace"""
    assert connection.execute(owners).fetchall() == [("modest",)]
    connection.execute("drop owned by modest cascade; drop role modest")


def test_the_extension_owns_no_table(connection: Connection) -> None:
    connection.execute("select my_app.migrate()")
    owned = connection.execute("""
        select c.relname
          from pg_depend as d
          join pg_class as c on c.oid = d.objid and d.classid = 'pg_class'::regclass
         where d.deptype = 'e' and d.refclassid = 'pg_extension'::regclass and c.relkind <> 'c'
           and c.relnamespace = 'my_app'::regnamespace
    """).fetchall()
    assert owned == []
    row = connection.execute("select count(*) from my_app.assert_invariants()").fetchone()
    assert row == (0,)


def test_a_dump_keeps_the_data_and_can_be_restored(
    connection: Connection, extended: Server
) -> None:
    install(connection, "my_app")
    connection.execute("select my_app.entity_create('kept', 'note', '{\"n\": 1}')")
    connection.execute("select my_app.entity_increment('kept', 'n')")
    connection.execute("select my_app.start('w', id => 'job')")
    url = extended.url(connection.info.dbname)
    dumped = subprocess.run(
        [extended.bindir / "pg_dump", url], capture_output=True, text=True, check=True
    )
    before = fingerprint(connection, "my_app")
    connection.execute("create database restored_data")
    command = [
        extended.bindir / "psql",
        "-Xq",
        "-v",
        "ON_ERROR_STOP=1",
        extended.url("restored_data"),
    ]
    subprocess.run(command, input=dumped.stdout, text=True, check=True, capture_output=True)
    with psycopg.connect(extended.url("restored_data"), autocommit=True) as restored:
        assert install(restored, "my_app") == script.default_version()
        assert fingerprint(restored, "my_app") == before
        row = restored.execute("select my_app.entity_increment('kept', 'n')").fetchone()
        assert row == (3,)
        assert restored.execute("select * from my_app.assert_invariants()").fetchall() == []
        row = restored.execute("select count(*) from my_app.tasks").fetchone()
        assert row == (1,)


@pytest.fixture
def reader(connection: Connection) -> Iterator[str]:
    """Give a role that is granted the access of a reader in a test."""
    role = f"beholder_{os.getpid()}"
    connection.execute(f"create role {role}".encode())
    yield role
    connection.execute(f"drop owned by {role}; drop role {role}".encode())


@pytest.mark.parametrize("route", ["migrate", "install", "again"])
def test_extension_dropped_with_cascade_can_be_created_again(
    connection: Connection, reader: str, route: str
) -> None:
    """[P13] (I25) The tables stay; triggers, contracts and grants are restored by each route."""
    install(connection, "my_app")
    connection.execute("select my_app.grant_access(%s, 'reader')", [reader])
    connection.execute("select my_app.entity_create('kept', 'note', '{\"n\": 1}')")
    connection.execute("select my_app.define_contract('note', '{\"required\": [\"n\"]}')")
    before = fingerprint(connection, "my_app")
    connection.execute("drop extension perdure cascade")
    connection.execute("create extension perdure schema my_app")
    broken = "select distinct code from my_app.assert_invariants()"
    assert connection.execute(broken).fetchall() == [("I25",)]
    if route == "again":
        for version in (script.again(script.default_version()), script.default_version()):
            connection.execute(f"alter extension perdure update to '{version}'".encode())
    if route == "install":
        install(connection, "my_app")
    else:
        connection.execute("select my_app.migrate()")
    assert fingerprint(connection, "my_app") == before
    assert connection.execute(broken).fetchall() == []
    connection.execute("update my_app.jobs set context = '{\"n\": 2}' where id = 'kept'")
    row = connection.execute("select version from my_app.jobs where id = 'kept'").fetchone()
    assert row == (2,)
    with pytest.raises(psycopg.DatabaseError, match="contract"):
        connection.execute("update my_app.jobs set context = '{}' where id = 'kept'")
    connection.execute(f"set role {reader}".encode())
    row = connection.execute("select my_app.entity_get('kept', 'n')").fetchone()
    assert row == (2,)
    connection.execute("reset role")


def test_writes_made_without_triggers_are_found_and_repaired(
    connection: Connection,
) -> None:
    """[P3] (I1) (I25) assert_histories() lists them, and `sql/upgrading.md` says how to repair
    them."""
    install(connection, "my_app")
    connection.execute("select my_app.entity_create(id, 'note') from unnest('{a,b}'::text[]) as id")
    connection.execute("drop extension perdure cascade")
    connection.execute("update my_app.jobs set context = '{\"n\": 1}' where id = 'a'")
    connection.execute("insert into my_app.jobs (id, context) values ('c', '{\"n\": 2}')")
    connection.execute("create extension perdure schema my_app")
    install(connection, "my_app")
    broken = "select code, job from my_app.assert_histories()"
    assert connection.execute(broken).fetchall() == [("I1", "a"), ("I1", "c")]
    for job in "ac":
        connection.execute(
            """
            select my_app.entity_set(%(id)s, (select context from my_app.jobs where id = %(id)s))
        """,
            {"id": job},
        )
    assert connection.execute(broken).fetchall() == []
    row = connection.execute("select my_app.entity_at('a', version => 1)").fetchone()
    assert row == ({"n": 1},)


def test_extension_of_another_version_needs_alter_extension(
    connection: Connection, tmp_path: Path
) -> None:
    source = shutil.copytree(str(script.source()), tmp_path / "sql")
    control = source / "perdure.control"
    control.write_text(control.read_text().replace(script.default_version(), "9.0"))
    with pytest.raises(ExtensionOutdated) as refused:
        install(connection, "my_app", source=source)
    assert "alter extension perdure update" in (refused.value.hint or "")


def test_extension_is_not_created_over_a_planted_function(extended: Server) -> None:
    with psycopg.connect(extended.url(), autocommit=True) as connection:
        connection.execute("create schema planted")
        connection.execute(
            "create function planted.clock() returns timestamptz language sql return now()"
        )
        with pytest.raises(psycopg.errors.DuplicateFunction):
            connection.execute("create extension perdure schema planted")


def test_clock_of_an_extension_can_be_moved_and_reset(connection: Connection) -> None:
    """Its owner replaces a function, which stays a member of the extension."""
    members = "select count(*) from pg_depend where refclassid = 'pg_extension'::regclass"
    connection.execute("select my_app.migrate()")
    before = connection.execute(members).fetchone()
    for move in ("move_clock('1 day')", "reset_clock()"):
        connection.execute(f"select my_app.{move}")
        assert connection.execute(members).fetchone() == before
    connection.execute("select my_app.create_test_helpers()")
    assert connection.execute(members).fetchone() == before
