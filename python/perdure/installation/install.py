"""The installer: the core as plain SQL, in one transaction, safe from many processes at once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources.abc import Traversable
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import errors, sql

from perdure.errors import (
    AppNotFound,
    ExtensionOutdated,
    InvalidArgument,
    InvalidSchema,
    NewerSchema,
    OtherBuild,
    SchemaOccupied,
    translated,
)

from . import script
from .statements import split

Connection = psycopg.Connection[Any]
IDLE = psycopg.pq.TransactionStatus.IDLE

MAX_NAME = 63  # bytes

PATIENCE = 60.0
"""Seconds for which a migration is tried again while somebody has the tables in use."""

PAUSE = 1.0
"""Seconds between two tries: longer than a migration keeps others waiting."""

_VERSION = "select {schema}.perdure_version(), {schema}.perdure_version(), null, true"

# Installed functions find their names by the name of the schema, and lose them when it is renamed.
# What they were given is compared without quotes: which names the server quotes is a setting.
# This is asked with the search path of the session, where others may have planted what fits the
# types better than the server's own functions and operators. So all of them are qualified.
_VERSIONS = """
select {schema}.perdure_version(),
       (select m.version
          from {schema}.migrations as m
         order by pg_catalog.string_to_array(m.version, '.')::pg_catalog.int4[] desc
         limit 1),
       array[{schema}.perdure_build(),
             (select s.value
                from {schema}.settings as s
               where s.name operator(pg_catalog.=) 'build')],
       pg_catalog.cardinality({schema}.missing_parts()) operator(pg_catalog.=) 0
       and (select pg_catalog.replace(pg_catalog.array_to_string(p.proconfig, ';'), '"', '')
                   operator(pg_catalog.=)
                   pg_catalog.concat('search_path=pg_catalog, ', {name}, ', pg_temp')
              from pg_catalog.pg_proc as p
             where p.oid operator(pg_catalog.=) pg_catalog.to_regproc(pg_catalog.concat(
                   pg_catalog.quote_ident({name}), '.perdure_version'))::pg_catalog.oid)
"""
_NOT_REPLACED = (
    errors.FeatureNotSupported,  # a type
    errors.InvalidTableDefinition,  # a view
    errors.DependentObjectsStillExist,  # a function beneath an index or a trigger
)
_NOT_THERE = (errors.InvalidSchemaName, errors.UndefinedFunction, errors.UndefinedTable)

_APPS = """
select n.nspname
  from pg_catalog.pg_proc as p
  join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
 where p.proname = 'perdure_version'
 order by n.nspname
 limit 10
"""

_LOCK = "select pg_advisory_xact_lock(hashtextextended(%s, 0))"

_SETTINGS = """
select s.name, pg_catalog.current_setting(s.name)
  from (values ('role'), ('search_path'), ('check_function_bodies'), ('client_min_messages'))
    as s (name)
"""

_NO_LIMIT = """
select set_config(s.name, '0', true) from pg_settings as s where s.name = 'transaction_timeout'
"""

_STATEMENT_TIMEOUT = """
select extract(epoch from pg_catalog.current_setting('statement_timeout')::interval)::float
"""

_STATE = """
select quote_ident(wanted.name),
       found.oid,
       (select e.extversion
          from pg_extension as e
         where e.extname = 'perdure'
           and e.extnamespace = found.oid),
       (select substring(p.prosrc from 'return ''([^'']+)')
          from pg_proc as p
         where p.pronamespace = found.oid
           and p.proname = 'perdure_version'
           and p.pronargs = 0),
       coalesce((select p.prosrc
                   from pg_proc as p
                  where p.pronamespace = found.oid
                    and p.proname = 'perdure_build'
                    and p.pronargs = 0), ''),
       (select quote_ident(p.proowner::regrole::name)
          from pg_proc as p
         where p.pronamespace = found.oid
           and p.proname = 'perdure_version'
           and p.pronargs = 0
           and p.proowner <> current_user::regrole),
       (select replace(array_to_string(p.proconfig, ';'), '"', '')
               = 'search_path=pg_catalog, ' || wanted.name || ', pg_temp'
          from pg_proc as p
         where p.pronamespace = found.oid
           and p.proname = 'perdure_version'
           and p.pronargs = 0)
  from (values (%s::text)) as wanted (name)
  left join pg_namespace as found on found.nspname = wanted.name
"""

_INTRUDERS = """
select quote_ident(r.rolname)
  from pg_roles as r
 where has_schema_privilege(r.oid, %s::oid, 'create')
   and not r.rolsuper
   and r.rolname !~ '^pg_'
   and not pg_has_role(r.oid, current_user, 'member')
 order by 1
 limit 4
"""

_OCCUPANTS = """
select pg_describe_object(d.classid, d.objid, d.objsubid)
  from pg_depend as d
 where d.refclassid = 'pg_namespace'::regclass
   and d.refobjid = %s
 order by 1
 limit 4
"""

_STRANGERS = """
select p.oid::regprocedure::text
  from pg_proc as p
  join pg_namespace as n on n.oid = p.pronamespace
 where n.nspname = %s
   and p.proname <> all(%s)
"""


class _Wanted(NamedTuple):
    """What the package would install."""

    version: str
    build: dict[str, str]


class _State(NamedTuple):
    """What the database says about a schema."""

    quoted: str
    oid: int | None
    extension: str | None  # its version, if perdure is installed there as an extension
    version: str | None  # of the existing functions
    code: str  # the build of these functions
    owner: str | None  # of the existing functions, if it is somebody else
    is_at_home: bool | None  # whether they know the schema by its present name


def install(connection: Connection, schema: str, *, source: Traversable | None = None) -> str:
    """Install or upgrade the app in a schema and return its version; do nothing if it is current.

    It joins the open transaction of the connection. Without one it makes its own, and tries again
    for a minute if a table is in use. `source` is another `sql/` tree.

    For another build of the same unreleased version, the functions are replaced; if tables or types
    differ, it is refused.

    Raises InvalidSchema, SchemaOccupied, NewerSchema, OtherBuild, ExtensionOutdated, or
    InvalidArgument if the session's `statement_timeout` is too short.

    `install(connection, "my_app")`
    """
    check_name(schema)
    root = script.source() if source is None else source
    wanted = _Wanted(script.default_version(root), script.build(root))
    with _refusing_short_limits(connection, schema):
        if not _is_current(connection, schema, wanted):
            _install_patiently(connection, schema, root, wanted)
    return wanted.version


@contextmanager
def _refusing_short_limits(connection: Connection, schema: str) -> Iterator[None]:
    """Report a cancelled statement as a statement_timeout that is too short, if it is one."""
    began = time.monotonic()
    try:
        yield
    except errors.QueryCanceled as error:
        limit = _statement_timeout(connection)
        if not limit or time.monotonic() - began < limit:
            raise
        raise InvalidArgument(
            f"the statement_timeout of {limit:g} s is too short for the app in schema {schema!r}",
            detail=f"Checking or installing it takes longer: {error.diag.message_primary}.",
            hint="Allow more, for example with options='-c statement_timeout=1min' in the DSN.",
        ) from None  # its context would be a page of SQL


def _statement_timeout(connection: Connection) -> float | None:
    """Return how many seconds a statement of the session may take, as far as that is known."""
    with suppress(psycopg.Error):
        row = connection.execute(_STATEMENT_TIMEOUT).fetchone()
        return row[0] if row is not None else None
    return None


def _install_patiently(
    connection: Connection, schema: str, root: Traversable, wanted: _Wanted
) -> None:
    began = time.monotonic()
    is_own = connection.info.transaction_status == IDLE
    while True:
        try:
            return _install(connection, schema, root, wanted)
        except (errors.LockNotAvailable, errors.DeadlockDetected):
            if not is_own or time.monotonic() - began > PATIENCE:
                raise
        time.sleep(PAUSE)


def _install(connection: Connection, schema: str, root: Traversable, wanted: _Wanted) -> None:
    with _installing(connection, schema), translated():
        if _is_current(connection, schema, wanted):
            return  # somebody else was faster
        state = _look(connection, schema)
        if state.extension is not None:
            _accept_extension(schema, state, wanted)
        with _refusing_other_builds(schema, state, wanted):
            if state.version is None:
                _create(connection, schema, state, root)
            elif state.extension is None or not state.is_at_home:
                _replace(connection, state, root)
            connection.execute(_trusted(f"select {state.quoted}.migrate()"))


@contextmanager
def _refusing_other_builds(schema: str, state: _State, wanted: _Wanted) -> Iterator[None]:
    """Report what cannot be replaced as the work of another build.

    Between two versions there is no such case.
    """
    try:
        yield
    except _NOT_REPLACED as error:
        if state.version != wanted.version:
            raise
        raise OtherBuild(
            f"schema {schema!r} holds another build of version {wanted.version}",
            detail=f"It differs in more than functions: {error.diag.message_primary}.",
            hint="Use the build that made it; or delete the app (drop its schema) and reinstall.",
        ) from error


def reload_functions(
    connection: Connection, schema: str, *, source: Traversable | None = None
) -> int:
    """Replace the functions and views of an app in place and return their number, for development.

    Tables and rows stay; a function that is no longer in the source is dropped.

    `reload_functions(connection, "my_app")`
    """
    root = script.source() if source is None else source
    with _installing(connection, schema), translated():
        state = _look(connection, schema)
        _replace(connection, state, root)
        wanted = script.routines(root)
        for (gone,) in connection.execute(_STRANGERS, [schema, list(wanted)]).fetchall():
            connection.execute(_trusted(f"drop routine {gone}"))
        connection.execute(_trusted(f"select {state.quoted}.create_views()"))
        connection.execute(_trusted(f"select {state.quoted}.migrate()"))
    return len(wanted)


def check_name(schema: str) -> None:
    """Refuse a schema name that `create extension` would refuse, or that PostgreSQL would cut.

    Raises InvalidSchema.
    """
    if not schema or re.search(r"[\"$'\\\0]", schema):
        fault = "it is empty" if not schema else "it holds a quote, a dollar or a backslash"
        fault = "it holds a NUL character" if "\0" in schema else fault
    elif len(schema.encode("utf-8", "surrogatepass")) > MAX_NAME:
        fault = f"it is longer than {MAX_NAME} bytes"
    elif schema.startswith("pg_") or schema == "information_schema":
        fault = "PostgreSQL keeps this name for itself"
    else:
        return
    raise InvalidSchema(
        f"schema name {schema!r} is not allowed",
        detail=f"{fault[0].upper()}{fault[1:]}.",
        hint='Use a plain word such as "my_app".',
    )


def _apps(connection: Connection) -> list[str]:
    """Name some schemas that contain an app."""
    return [name for (name,) in connection.execute(_APPS)]


def check_app(connection: Connection, schema: str) -> None:
    """Refuse a schema without an app. Raises AppNotFound."""
    with _in_the_catalog(connection):
        if _look(connection, schema).version is not None:
            return
        apps = _apps(connection)
    raise AppNotFound(
        f"there is no app in schema {schema!r}",
        detail=f"Apps of this database: {', '.join(apps) or 'none'}.",
        hint="Check the name (--schema, $PERDURE_SCHEMA) and the database;"
        " `perdure install` and workers create an app.",
    )


def _is_current(connection: Connection, schema: str, wanted: _Wanted) -> bool:
    """Check with one query, without a lock, whether nothing has to be done.

    That is so if functions and tables are of this version and build, and nothing that belongs to
    the tables is missing.
    """
    try:
        code, tables, builds, is_whole = _ask(connection, _VERSIONS, schema)
    except _NOT_THERE:
        return False
    except errors.InsufficientPrivilege:  # a client's role, which could change nothing anyway
        code, tables, builds, is_whole = _ask(connection, _VERSION, schema)
    for what, version in (("functions", code), ("tables", tables)):
        if _numbers(version) > _numbers(wanted.version):
            raise _newer(schema, what, version, wanted)
    is_of_this_build = builds in (None, [wanted.build] * 2)
    return bool(is_whole) and code == tables == wanted.version and is_of_this_build


def _newer(schema: str, what: str, version: str, wanted: _Wanted) -> NewerSchema:
    return NewerSchema(
        f"schema {schema!r} holds {what} of version {version}, newer than this package",
        detail=f"The package is version {wanted.version}; there is no way back.",
        hint=f"Install version {version} of the package.",
    )


def _ask(
    connection: Connection, query: LiteralString, schema: str
) -> tuple[str, str, list[Any] | None, bool | None]:
    names = {"schema": sql.Identifier(schema), "name": sql.Literal(schema)}
    with _undone_if_it_fails(connection):
        asked = connection.execute(sql.SQL(query).format(**names))
        code, tables, builds, is_whole = asked.fetchone() or ("", "", None, False)
    return code, tables or "", builds, is_whole


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
    """Hold the install lock of the schema for one transaction.

    It lasts as long as it must, unless it is the caller's.
    """
    is_own = connection.info.transaction_status == IDLE
    with _in_the_catalog(connection):
        if is_own:
            connection.execute(_NO_LIMIT)
        connection.execute(_LOCK, [f"perdure install {schema}"])
        connection.execute("set local check_function_bodies = off")
        connection.execute("set local client_min_messages = warning")
        yield


@contextmanager
def _in_the_catalog(connection: Connection) -> Iterator[None]:
    """Find the server's own objects, and no others, by their names, for one transaction.

    Settings that a caller has made for his own transaction are restored.
    """
    with connection.transaction():
        before = connection.execute(_SETTINGS).fetchall()
        connection.execute("set local search_path = pg_catalog, pg_temp")
        yield
        for name, value in before:
            connection.execute("select pg_catalog.set_config(%s, %s, true)", [name, value])


def _look(connection: Connection, schema: str) -> _State:
    row = connection.execute(_STATE, [schema]).fetchone()
    assert row is not None  # the query begins with one row of values
    return _State(*row)


def _create(connection: Connection, schema: str, state: _State, root: Traversable) -> None:
    if state.oid is None:
        connection.execute(_trusted(f"create schema {state.quoted}"))
    else:
        _check_empty(connection, schema, state.oid)
    for part in script.parts(root):
        _run_all(connection, part, state.quoted)


def _check_empty(connection: Connection, schema: str, oid: int) -> None:
    """Refuse an existing schema that is not empty, or in which others may create objects.

    The functions would find such objects, and run them with the rights of their owner.
    """
    if found := _some(connection, _OCCUPANTS, oid):
        raise SchemaOccupied(
            f"schema {schema!r} holds something that is not perdure's",
            detail=f"Found: {found}.",
            hint="Use another schema: an app needs a schema of its own.",
        )
    if found := _some(connection, _INTRUDERS, oid):
        raise SchemaOccupied(
            f"in schema {schema!r} others may create functions, which would run as you",
            detail=f"They are: {found}.",
            hint="Install as the owner of the schema, or own it, and revoke create from others.",
        )


def _some(connection: Connection, query: LiteralString, oid: int) -> str:
    found = [row[0] for row in connection.execute(query, [oid])]
    return ", ".join(found[:3]) + (", …" if len(found) > 3 else "")


def _replace(connection: Connection, state: _State, root: Traversable) -> None:
    """Replace the existing code by that of this version, as its owner."""
    if state.owner is not None:
        try:
            connection.execute(_trusted(f"set local role {state.owner}"))
        except errors.InsufficientPrivilege as error:
            error.add_note(
                f"schema {state.quoted} holds version {state.version}, and not what this package"
                f" brings: run `perdure install` as {state.owner}, or connect with provision=False"
            )
            raise
    for part in script.upgrade(root):
        _run_all(connection, part, state.quoted)


def _accept_extension(schema: str, state: _State, wanted: _Wanted) -> None:
    found, version = state.extension or "", wanted.version
    if _numbers(found) > _numbers(version):
        raise _newer(schema, "the extension", found, wanted)
    update = f"alter extension perdure update to '{version}'; select {schema}.migrate()"
    if found != version:
        raise ExtensionOutdated(
            f"schema {schema!r} holds the extension perdure in version {found}",
            detail=f"The package is version {version}.",
            hint=f"Run: {update}",
        )
    if state.is_at_home and wanted.build["code"] not in state.code:
        raise ExtensionOutdated(
            f"schema {schema!r} holds another build of the extension perdure {version}",
            detail=f"The package is build {wanted.build['code']}.",
            hint="Install the files of this build on the server (make install-extension), then"
            f" run: alter extension perdure update to '{script.again(version)}'; {update}",
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
    """Let psycopg accept a text that is no literal: our script, or a name the server quoted."""
    return sql.SQL(text)


def _numbers(version: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", version)]
