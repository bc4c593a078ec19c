"""The plain install is one call, which may be repeated and made by many processes at once
(C7-C10)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest
import releases
from fingerprint import fingerprint

import perdure.installation.install
from perdure.errors import InvalidSchema, NewerSchema, SchemaOccupied
from perdure.installation import script
from perdure.installation.install import install, reload_functions
from tests.databases import find_app, value

Connection = psycopg.Connection[Any]
VERSION = script.default_version()

INSTALLER = """
import sys, psycopg
from perdure.installation.install import install
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    sys.stdin.readline()
    print(install(connection, "my_app"))
"""


@pytest.fixture
def empty(database: str) -> Iterator[Connection]:
    """Give a connection to an empty database."""
    with psycopg.connect(database, autocommit=True, client_encoding="utf8") as connection:
        yield connection


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Give a copy of `sql/` that a test may change."""
    return shutil.copytree(str(script.source()), tmp_path / "sql")


def jobs(connection: Connection, schema: str) -> Any:
    """Count the jobs of an app."""
    return value(connection, f'select count(*) from "{schema}".jobs')


def test_one_call_installs_an_app_in_an_empty_database(empty: Connection) -> None:
    assert install(empty, "my_app") == VERSION
    assert value(empty, "select my_app.perdure_version()") == VERSION
    assert value(empty, "select count(*) from my_app.assert_invariants()") == 0


def test_second_install_changes_nothing(empty: Connection) -> None:
    install(empty, "my_app")
    once = fingerprint(empty, "my_app")
    empty.execute("select my_app.entity_create('kept', 'note')")
    assert install(empty, "my_app") == VERSION
    assert fingerprint(empty, "my_app") == once
    assert jobs(empty, "my_app") == 1


def test_a_current_app_is_found_with_two_queries_and_no_lock(
    empty: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(empty, "my_app")
    monkeypatch.setattr(perdure.installation.install, "_installing", None)
    asked = []
    execute = empty.execute
    monkeypatch.setattr(empty, "execute", lambda query: asked.append(query) or execute(query))
    assert install(empty, "my_app") == VERSION
    assert len(asked) == 2


@pytest.mark.parametrize("at_install", ["on", "off"])
def test_app_is_current_whether_or_not_the_server_quotes_all_names(
    empty: Connection, monkeypatch: pytest.MonkeyPatch, at_install: str
) -> None:
    empty.execute(f"set quote_all_identifiers = {at_install}")
    install(empty, "my_app")
    monkeypatch.setattr(perdure.installation.install, "_installing", None)
    for now in ("on", "off"):
        empty.execute(f"set quote_all_identifiers = {now}")
        assert install(empty, "my_app") == VERSION


def test_transaction_timeout_does_not_end_an_upgrade(empty: Connection, source: Path) -> None:
    """An upgrade is one transaction of many statements. The limit is for those of others."""
    if empty.execute("select from pg_settings where name = 'transaction_timeout'").rowcount == 0:
        pytest.skip("this server has no transaction_timeout")
    install(empty, "my_app")
    changed = source / "functions" / "clock.sql"
    changed.write_text(changed.read_text("utf-8") + "-- Another build.\n", "utf-8")
    empty.execute("set transaction_timeout = '100 ms'")
    assert install(empty, "my_app", source=source) == VERSION
    assert value(empty, "show transaction_timeout") == "100ms"


def test_client_without_the_owners_rights_accepts_a_current_app(
    empty: Connection,
) -> None:
    install(empty, "my_app")
    role = f"client_{empty.info.backend_pid}"
    empty.execute(f"create role {role}")
    empty.execute(f"grant usage on schema my_app to {role}")
    empty.execute(f"grant execute on function my_app.perdure_version() to {role}")
    empty.execute(f"set role {role}")
    assert install(empty, "my_app") == VERSION
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        install(empty, "another_app")
    empty.execute(f"reset role; drop owned by {role}; drop role {role}")


def test_ten_processes_can_install_at_once(database: str) -> None:
    command = [sys.executable, "-c", INSTALLER, database]
    python = os.fspath(Path(perdure.installation.install.__file__).parents[2])
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "env": os.environ | {"PYTHONPATH": python},
    }
    processes = [subprocess.Popen(command, **pipes) for _ in range(10)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0].strip() for process in processes] == [VERSION] * 10


def test_the_install_joins_the_callers_transaction(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("select 'the transaction begins'")
        install(connection, "my_app")
        connection.rollback()
        assert value(connection, "select to_regnamespace('my_app') is null")
        install(connection, "my_app")
        connection.execute("select my_app.entity_create('kept', 'note')")
        assert install(connection, "my_app") == VERSION
        connection.commit()
        assert jobs(connection, "my_app") == 1


def test_a_failed_install_leaves_nothing_and_names_the_place(
    empty: Connection, source: Path
) -> None:
    with (source / "grants.sql").open("a") as grants:
        grants.write("\nselect no_such_function();\n")
    with pytest.raises(psycopg.errors.UndefinedFunction) as failed:
        install(empty, "my_app", source=source)
    assert "in sql/grants.sql, line" in failed.value.__notes__[0]
    assert value(empty, "select to_regnamespace('my_app') is null")


@pytest.mark.parametrize("is_joined", [False, True], ids=["alone", "in a transaction"])
def test_install_leaves_the_callers_settings_alone(empty: Connection, is_joined: bool) -> None:
    empty.execute("set search_path = public; set check_function_bodies = on")
    with empty.transaction() if is_joined else nullcontext():
        install(empty, "my_app")
        assert value(empty, "show search_path") == "public"
        assert value(empty, "show check_function_bodies") == "on"
        assert value(empty, "show client_min_messages") == "notice"


ODD = ["My App", "ünïcode", "select", "a.b", "x" * 63, "100%", "a%sb", "{}", "-- "]


@pytest.mark.parametrize("name", ODD)
def test_app_works_in_a_schema_with_an_odd_name(empty: Connection, name: str) -> None:
    install(empty, name)
    assert install(empty, name) == VERSION
    quoted = psycopg.sql.Identifier(name).as_string()
    assert value(empty, f"select count(*) from {quoted}.assert_invariants()") == 0
    assert value(empty, f"select is_new from {quoted}.start('w', id => 'one')")
    assert jobs(empty, name) == 1


@pytest.mark.parametrize("name", ODD)
def test_generated_sql_works_in_a_schema_with_an_odd_name(
    empty: Connection, name: str, role: str, trees: dict[str, Path]
) -> None:
    """Granting access, finding and upgrading build SQL at run time; they must quote the name."""
    install(empty, name)
    find_app(empty, name)
    empty.execute("select entity_create('e', 'note', '{\"at\": \"2030-01-31T12:00:00\"}')")
    empty.execute("select create_index('note', 'at')")
    for wanted in ({"at": {"$gt": "2030"}}, {"at": {"$match": "$.datetime() != null"}}):
        assert value(empty, f"select count_found('note', '{json.dumps(wanted)}')") == 1
    empty.execute("select grant_access(%s, 'reader')", [role])

    assert install(empty, name, source=trees[releases.LATER[-1]]) == releases.LATER[-1]
    has = f"select has_schema_privilege('{role}', '{name}', 'usage')"
    assert value(empty, has) is True
    assert value(empty, f"select revoke_access('{role}')") is True
    assert value(empty, has) is False


@pytest.mark.parametrize(
    "name",
    ["", 'a"b', "a'b", "a$b", "a\\b", "a\0b", "pg_app", "information_schema", "x" * 64, "ü" * 32],
)
def test_invalid_schema_name_is_rejected_before_connecting(name: str) -> None:
    """(S12) So no name can end a quotation in the script."""
    with pytest.raises(InvalidSchema):
        install(None, name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "occupant",
    [
        "create table my_app.customers ()",
        "create function my_app.f() returns int language sql return 1",
        "create type my_app.colour as enum ('red')",
        "create sequence my_app.numbers",
    ],
)
def test_schema_with_objects_of_the_user_is_rejected(empty: Connection, occupant: str) -> None:
    empty.execute("create schema my_app")
    empty.execute(occupant.encode())
    with pytest.raises(SchemaOccupied) as refused:
        install(empty, "my_app")
    assert occupant.split()[2].split("(", maxsplit=1)[0] in (refused.value.detail or "")
    assert refused.value.hint


def test_empty_schema_is_used(empty: Connection) -> None:
    empty.execute("create schema my_app")
    assert install(empty, "my_app") == VERSION


def test_two_apps_in_one_database_do_not_touch_each_other(empty: Connection) -> None:
    install(empty, "first_app")
    install(empty, "second_app")
    empty.execute("select first_app.entity_create('kept', 'note')")
    assert (jobs(empty, "first_app"), jobs(empty, "second_app")) == (1, 0)
    assert fingerprint(empty, "first_app") == fingerprint(empty, "second_app")
    empty.execute("set client_min_messages = warning; drop schema second_app cascade")
    assert jobs(empty, "first_app") == 1
    assert value(empty, "select count(*) from first_app.assert_invariants()") == 0


def test_schema_newer_than_the_package_is_rejected(empty: Connection, source: Path) -> None:
    install(empty, "my_app")
    control = source / "perdure.control"
    control.write_text(control.read_text().replace(VERSION, "0.0.9"))
    with pytest.raises(NewerSchema, match=VERSION):
        install(empty, "my_app", source=source)


def test_reload_replaces_functions_and_keeps_data(empty: Connection, source: Path) -> None:
    install(empty, "my_app")
    fresh = fingerprint(empty, "my_app")
    empty.execute("select my_app.entity_create('kept', 'note')")
    clock = source / "functions" / "clock.sql"
    text = clock.read_text()
    clock.write_text(
        text.replace("return clock_timestamp();", "return '2030-01-01Z';")
        + """
create function @extschema@.extra() returns integer language sql return 1;

create procedure @extschema@.more() language plpgsql as 'begin end';
"""
    )
    for _ in range(2):
        assert reload_functions(empty, "my_app", source=source) > 20
    assert value(empty, "select my_app.clock() = '2030-01-01Z' and my_app.extra() = 1")
    empty.execute("call my_app.more()")
    reload_functions(empty, "my_app")
    assert fingerprint(empty, "my_app") == fresh
    assert jobs(empty, "my_app") == 1


def test_reload_resets_a_moved_clock(empty: Connection) -> None:
    install(empty, "my_app")
    fresh = fingerprint(empty, "my_app")
    empty.execute("select my_app.move_clock('1 day')")
    reload_functions(empty, "my_app")
    assert fingerprint(empty, "my_app") == fresh
    assert value(empty, "select my_app.clock() < clock_timestamp() + interval '1 hour'")
    assert value(empty, "select my_app.move_clock('0 s') > clock_timestamp() + interval '23 h'")


def test_only_the_owner_moves_the_clock(empty: Connection) -> None:
    install(empty, "my_app")
    role = f"worker_{empty.info.backend_pid}"
    empty.execute(f"create role {role}")
    empty.execute(f"grant usage on schema my_app to {role}")
    empty.execute(f"grant all on all tables in schema my_app to {role}")
    empty.execute(f"grant execute on all functions in schema my_app to {role}")
    empty.execute(f"set role {role}")
    for call in ("move_clock('1 day')", "reset_clock()"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            empty.execute(f"select my_app.{call}")
    empty.execute("reset role; select my_app.move_clock('1 day')")
    empty.execute(f"set role {role}")
    assert value(empty, "select my_app.clock() > clock_timestamp() + interval '1 hour'")
    empty.execute(f"reset role; drop owned by {role}; drop role {role}")
