"""The catalogue: what the installer asks the database about a schema before it changes anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import errors, sql

Connection = psycopg.Connection[Any]
IDLE = psycopg.pq.TransactionStatus.IDLE

Versions = tuple[str, str, list[Any] | None, bool | None]
"""Of the functions and of the tables; the builds of both; whether nothing is missing."""

# Asked first: a statement about what is missing or forbidden would be an error in the server's log.
# Null if there is no app; false for a client's role, which could change nothing anyway.
_MAY_ASK = """
select pg_catalog.has_function_privilege(
           pg_catalog.to_regproc(pg_catalog.concat(n.quoted, '.perdure_build'))::pg_catalog.oid,
           'execute')
       and pg_catalog.has_table_privilege(
           pg_catalog.to_regclass(pg_catalog.concat(n.quoted, '.migrations'))::pg_catalog.oid,
           'select')
  from (select pg_catalog.quote_ident({name})) as n (quoted)
"""

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
_NOT_THERE = (errors.InvalidSchemaName, errors.UndefinedFunction, errors.UndefinedTable)

_APPS = """
select n.nspname
  from pg_catalog.pg_proc as p
  join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
 where p.proname = 'perdure_version'
 order by n.nspname
 limit 10
"""

_SETTINGS = """
select s.name, pg_catalog.current_setting(s.name)
  from (values ('role'), ('search_path'), ('check_function_bodies'), ('client_min_messages'))
    as s (name)
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


class State(NamedTuple):
    """What the database says about a schema."""

    quoted: str
    oid: int | None
    extension: str | None  # its version, if perdure is installed there as an extension
    version: str | None  # of the existing functions
    code: str  # the build of these functions
    owner: str | None  # of the existing functions, if it is somebody else
    is_at_home: bool | None  # whether they know the schema by its present name


@contextmanager
def in_the_catalogue(connection: Connection) -> Iterator[None]:
    """Find the server's own objects, and no others, by their names, for one transaction.

    Settings that a caller has made for his own transaction are restored.
    """
    with connection.transaction():
        before = connection.execute(_SETTINGS).fetchall()
        connection.execute("set local search_path = pg_catalog, pg_temp")
        yield
        for name, value in before:
            connection.execute("select pg_catalog.set_config(%s, %s, true)", [name, value])


def versions(connection: Connection, schema: str) -> Versions | None:
    """Return what is installed, with two queries and without a lock; None if there is no app."""
    (may_ask,) = _ask(connection, _MAY_ASK, schema)
    if may_ask is None:
        return None
    try:
        code, tables, builds, is_whole = _ask(
            connection, _VERSIONS if may_ask else _VERSION, schema
        )
    except _NOT_THERE:  # dropped meanwhile, or by half
        return None
    return code, tables or "", builds, is_whole


def _ask(connection: Connection, query: LiteralString, schema: str) -> tuple[Any, ...]:
    names = {"schema": sql.Identifier(schema), "name": sql.Literal(schema)}
    with _undone_if_it_fails(connection):
        asked = connection.execute(sql.SQL(query).format(**names))
        answer: tuple[Any, ...] | None = asked.fetchone()
    assert answer is not None  # each query has one row
    return answer


@contextmanager
def _undone_if_it_fails(connection: Connection) -> Iterator[None]:
    """Guard the caller's transaction with a savepoint; outside of one there is nothing to guard."""
    if connection.autocommit and connection.info.transaction_status == IDLE:
        yield
    else:
        with connection.transaction():
            yield


def state_of(connection: Connection, schema: str) -> State:
    """Return what the database says about a schema, and the app in it."""
    row = connection.execute(_STATE, [schema]).fetchone()
    assert row is not None  # the query begins with one row of values
    return State(*row)


def apps_of(connection: Connection) -> list[str]:
    """Name some schemas that contain an app."""
    return [name for (name,) in connection.execute(_APPS)]


def strangers(connection: Connection, schema: str, ours: list[str]) -> list[str]:
    """Name the functions in a schema that are not among ours."""
    return [name for (name,) in connection.execute(_STRANGERS, [schema, ours])]


def occupants(connection: Connection, oid: int) -> str:
    """Name some objects of a schema."""
    return _some(connection, _OCCUPANTS, oid)


def intruders(connection: Connection, oid: int) -> str:
    """Name some roles that may create objects in a schema, and are not its owner."""
    return _some(connection, _INTRUDERS, oid)


def _some(connection: Connection, query: LiteralString, oid: int) -> str:
    found = [row[0] for row in connection.execute(query, [oid])]
    return ", ".join(found[:3]) + (", …" if len(found) > 3 else "")


def statement_timeout(connection: Connection) -> float | None:
    """Return how many seconds a statement of the session may take, as far as that is known."""
    with suppress(psycopg.Error):
        row = connection.execute(_STATEMENT_TIMEOUT).fetchone()
        return row[0] if row is not None else None
    return None
