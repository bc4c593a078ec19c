"""The installer: the core as plain SQL, in one transaction, safe from many processes at once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from typing import NamedTuple

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
from .catalogue import (
    IDLE,
    Connection,
    State,
    apps_of,
    in_the_catalogue,
    intruders,
    occupants,
    state_of,
    statement_timeout,
    strangers,
    versions,
)
from .statements import split

MAX_NAME = 63  # bytes

PATIENCE = 60.0
"""Seconds for which a migration is tried again while somebody has the tables in use."""

PAUSE = 1.0
"""Seconds between two tries: longer than a migration keeps others waiting."""

_NOT_REPLACED = (
    errors.FeatureNotSupported,  # a type
    errors.InvalidTableDefinition,  # a view
    errors.DependentObjectsStillExist,  # a function beneath an index or a trigger
)
_LOCK = "select pg_advisory_xact_lock(hashtextextended(%s, 0))"

_NO_LIMIT = """
select set_config(s.name, '0', true) from pg_settings as s where s.name = 'transaction_timeout'
"""


class _Wanted(NamedTuple):
    """What the package would install."""

    version: str
    build: dict[str, str]


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
        limit = statement_timeout(connection)
        if not limit or time.monotonic() - began < limit:
            raise
        raise InvalidArgument(
            f"the statement_timeout of {limit:g} s is too short for the app in schema {schema!r}",
            detail=f"Checking or installing it takes longer: {error.diag.message_primary}.",
            hint="Allow more, for example with options='-c statement_timeout=1min' in the DSN.",
        ) from None  # its context would be a page of SQL


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
        state = state_of(connection, schema)
        if state.extension is not None:
            _accept_extension(schema, state, wanted)
        with _refusing_other_builds(schema, state, wanted):
            if state.version is None:
                _create(connection, schema, state, root)
            elif state.extension is None or not state.is_at_home:
                _replace(connection, state, root)
            connection.execute(_trusted(f"select {state.quoted}.migrate()"))


@contextmanager
def _refusing_other_builds(schema: str, state: State, wanted: _Wanted) -> Iterator[None]:
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
        state = state_of(connection, schema)
        _replace(connection, state, root)
        wanted = script.routines(root)
        for gone in strangers(connection, schema, list(wanted)):
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


def check_app(connection: Connection, schema: str) -> None:
    """Refuse a schema without an app. Raises AppNotFound."""
    with in_the_catalogue(connection):
        if state_of(connection, schema).version is not None:
            return
        apps = apps_of(connection)
    raise AppNotFound(
        f"there is no app in schema {schema!r}",
        detail=f"Apps of this database: {', '.join(apps) or 'none'}.",
        hint="Check the name (--schema, $PERDURE_SCHEMA) and the database;"
        " `perdure install` and workers create an app.",
    )


def _is_current(connection: Connection, schema: str, wanted: _Wanted) -> bool:
    """Check with two queries, without a lock, whether nothing has to be done.

    That is so if functions and tables are of this version and build, and nothing that belongs to
    the tables is missing.
    """
    found = versions(connection, schema)
    if found is None:
        return False
    code, tables, builds, is_whole = found
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


@contextmanager
def _installing(connection: Connection, schema: str) -> Iterator[None]:
    """Hold the install lock of the schema for one transaction.

    It lasts as long as it must, unless it is the caller's.
    """
    is_own = connection.info.transaction_status == IDLE
    with in_the_catalogue(connection):
        if is_own:
            connection.execute(_NO_LIMIT)
        connection.execute(_LOCK, [f"perdure install {schema}"])
        connection.execute("set local check_function_bodies = off")
        connection.execute("set local client_min_messages = warning")
        yield


def _create(connection: Connection, schema: str, state: State, root: Traversable) -> None:
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
    if found := occupants(connection, oid):
        raise SchemaOccupied(
            f"schema {schema!r} holds something that is not perdure's",
            detail=f"Found: {found}.",
            hint="Use another schema: an app needs a schema of its own.",
        )
    if found := intruders(connection, oid):
        raise SchemaOccupied(
            f"in schema {schema!r} others may create functions, which would run as you",
            detail=f"They are: {found}.",
            hint="Install as the owner of the schema, or own it, and revoke create from others.",
        )


def _replace(connection: Connection, state: State, root: Traversable) -> None:
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


def _accept_extension(schema: str, state: State, wanted: _Wanted) -> None:
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
