"""The installer: the core as plain SQL, in one transaction, safe from many processes at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import errors, sql

from . import script
from .errors import (
    ExtensionOutdated,
    InvalidSchema,
    NewerSchema,
    SchemaOccupied,
)
from .statements import split

Connection = psycopg.Connection[Any]
IDLE = psycopg.pq.TransactionStatus.IDLE

MAX_NAME = 63  # bytes

_CREATE = re.compile(r"\A((?:\s|--[^\n]*\n)*)create (?=(?:function|procedure)\b)")

_VERSION = "select {schema}.perdure_version(), true"
_VERSIONS = """
select code.version,
       exists (select
                 from {schema}.migrations as m
                where m.version = code.version)
  from {schema}.perdure_version() as code (version)
"""
_NOT_THERE = (errors.InvalidSchemaName, errors.UndefinedFunction, errors.UndefinedTable)

_LOCK = "select pg_advisory_xact_lock(hashtextextended(%s, 0))"

_STATE = """
select quote_ident(wanted.name),
       found.oid,
       (select e.extversion
          from pg_extension as e
         where e.extname = 'perdure'
           and e.extnamespace = found.oid),
       exists (select
                 from pg_proc as p
                where p.pronamespace = found.oid
                  and p.proname = 'perdure_version'
                  and p.pronargs = 0)
  from (values (%s::text)) as wanted (name)
  left join pg_namespace as found on found.nspname = wanted.name
"""

_OCCUPANTS = """
select pg_describe_object(d.classid, d.objid, d.objsubid)
  from pg_depend as d
 where d.refclassid = 'pg_namespace'::regclass
   and d.refobjid = %s
 order by 1
 limit 4
"""

_FUNCTIONS = """
select p.oid, p.xmin::text, p.oid::regprocedure::text
  from pg_proc as p
  join pg_namespace as n on n.oid = p.pronamespace
 where n.nspname = %s
"""


class _State(NamedTuple):
    """What the database says of a schema."""

    quoted: str
    oid: int | None
    extension: str | None  # its version, where perdure is installed there as an extension
    installed: bool


def install(connection: Connection, schema: str, *, source: Traversable | None = None) -> str:
    """Create or upgrade the app in a schema and return its version; do nothing when it is current.

    Joins the connection's open transaction, else makes its own. `source` is another `sql/` tree;
    its `upgrades/` holds the scripts `perdure--A--B.sql` that lead from one version to the next.

    Raises InvalidSchema, SchemaOccupied, NewerSchema, ExtensionOutdated or NoUpgradePath.

    `install(connection, "my_app")`
    """
    check_name(schema)
    root = script.source() if source is None else source
    wanted = script.default_version(root)
    if _is_current(connection, schema, wanted):
        return wanted
    with _installing(connection, schema):
        state = _look(connection, schema)
        if state.extension is not None:
            _accept_extension(schema, state.extension, wanted)
        elif state.installed:
            _upgrade(connection, state, wanted, root / "upgrades")
        else:
            _create(connection, schema, state, root)
        connection.execute(_trusted(f"select {state.quoted}.migrate()"))
    return wanted


def reload_functions(
    connection: Connection, schema: str, *, source: Traversable | None = None
) -> int:
    """Replace the functions and views of an app in place and return their number, for development.

    Tables and rows stay; a function that is no longer in the source is dropped.

    `reload_functions(connection, "my_app")`
    """
    replaced = 0
    with _installing(connection, schema):
        state = _look(connection, schema)
        before = {row[:2]: row[2] for row in connection.execute(_FUNCTIONS, [schema])}
        for part in script.code(source):
            for statement in split(part.text):
                text = _CREATE.sub(r"\1create or replace ", statement.text)
                replaced += text != statement.text
                _run(connection, text, state.quoted, f"{part.file}, line {statement.line}")
        after = {row[:2] for row in connection.execute(_FUNCTIONS, [schema])}
        for untouched in sorted(before[row] for row in before.keys() & after):
            connection.execute(_trusted(f"drop routine {untouched}"))
        _run_all(connection, script.grants(source), state.quoted)
        connection.execute(_trusted(f"select {state.quoted}.migrate()"))
    return replaced


def check_name(schema: str) -> None:
    """Refuse a schema's name that `create extension` would refuse, or that PostgreSQL would cut.

    Raises InvalidSchema.
    """
    if not schema or re.search(r"[\"$'\\\0]", schema):
        fault = "it is empty" if not schema else "it holds a quote, a dollar or a backslash"
    elif len(schema.encode("utf-8", "surrogatepass")) > MAX_NAME:
        fault = f"it is longer than {MAX_NAME} bytes"
    elif schema.startswith("pg_") or schema == "information_schema":
        fault = "PostgreSQL keeps this name for itself"
    else:
        return
    raise InvalidSchema(
        f"schema name {schema!r} is not allowed",
        detail=f"{fault[0].upper()}{fault[1:]}.",
        hint='Take a plain word such as "my_app".',
    )


def _is_current(connection: Connection, schema: str, wanted: str) -> bool:
    """Ask with one query, and without a lock, whether functions and tables are of this version."""
    try:
        version, is_migrated = _ask(connection, _VERSIONS, schema)
    except _NOT_THERE:
        return False
    except errors.InsufficientPrivilege:  # a client's role, which could change nothing anyway
        version, is_migrated = _ask(connection, _VERSION, schema)
    if _numbers(version) > _numbers(wanted):
        raise NewerSchema(
            f"schema {schema!r} holds version {version}, which is newer than this package",
            detail=f"The package is version {wanted}.",
            hint=f"Install version {version} of the package.",
        )
    return bool(is_migrated) and version == wanted


def _ask(connection: Connection, query: LiteralString, schema: str) -> tuple[str, bool]:
    with _undone_if_it_fails(connection):
        asked = connection.execute(sql.SQL(query).format(schema=sql.Identifier(schema)))
        version, is_migrated = asked.fetchone() or ("", False)
    return version, is_migrated


@contextmanager
def _undone_if_it_fails(connection: Connection) -> Iterator[None]:
    """Guard the caller's transaction with a savepoint; outside of one there is nothing to guard."""
    if connection.autocommit and connection.info.transaction_status == IDLE:
        yield
    else:
        with connection.transaction():
            yield


@contextmanager
def _installing(connection: Connection, schema: str) -> Iterator[None]:
    """Hold the schema's install lock and safe settings for one transaction."""
    with connection.transaction():
        connection.execute("set local search_path = pg_catalog, pg_temp")
        connection.execute(_LOCK, [f"perdure install {schema}"])
        connection.execute("set local check_function_bodies = off")
        connection.execute("set local client_min_messages = warning")
        yield


def _look(connection: Connection, schema: str) -> _State:
    row = connection.execute(_STATE, [schema]).fetchone()
    assert row is not None  # the query begins with one row of values
    return _State(*row)


def _create(connection: Connection, schema: str, state: _State, root: Traversable) -> None:
    if state.oid is None:
        connection.execute(_trusted(f"create schema {state.quoted}"))
    elif found := [row[0] for row in connection.execute(_OCCUPANTS, [state.oid])]:
        more = ", …" if len(found) > 3 else ""
        raise SchemaOccupied(
            f"schema {schema!r} holds something that is not perdure's",
            detail=f"Found: {', '.join(found[:3])}{more}.",
            hint="Take another schema's name; an app has its schema for itself.",
        )
    for part in script.parts(root):
        _run_all(connection, part, state.quoted)


def _upgrade(connection: Connection, state: _State, wanted: str, folder: Traversable) -> None:
    row = connection.execute(_trusted(f"select {state.quoted}.perdure_version()")).fetchone()
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    for name in script.upgrade_path(names, row[0] if row else "", wanted):
        part = script.Part(f"upgrades/{name}", (folder / name).read_text("utf-8"))
        _run_all(connection, part, state.quoted)


def _accept_extension(schema: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise ExtensionOutdated(
            f"schema {schema!r} holds the extension perdure in version {found}",
            detail=f"The package is version {wanted}.",
            hint=f"Run: alter extension perdure update to '{wanted}'",
        )


def _run_all(connection: Connection, part: script.Part, quoted: str) -> None:
    for statement in split(part.text):
        _run(connection, statement.text, quoted, f"{part.file}, line {statement.line}")


def _run(connection: Connection, text: str, quoted: str, place: str) -> None:
    try:
        connection.execute(_trusted(text.replace(script.SCHEMA, quoted)))
    except psycopg.Error as error:
        error.add_note(f"in sql/{place}")
        raise


def _trusted(text: str) -> sql.SQL:
    """Let psycopg take a text that is no literal: our own script, a name quoted by the server."""
    return sql.SQL(text)


def _numbers(version: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", version)]
