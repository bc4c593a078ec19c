"""All PL/pgSQL functions compile and are checked statement by statement.

PL/pgSQL itself reads a statement only when it first runs.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]

FUNCTIONS = """
select pg_get_functiondef(p.oid)
  from pg_proc as p
  join pg_language as l on l.oid = p.prolang
 where p.pronamespace = %s::regnamespace
   and l.lanname = 'plpgsql'
"""

# Several composite OUT parameters are intended; the checker would prefer one. The functions named
# below run statements that other functions build, with everything from callers quoted;
# tests/memory/test_find_injection.py shows it.
FINDINGS = """
select p.oid::regprocedure::text, found.lineno, found.message, found.query
  from pg_proc as p
  join pg_language as l on l.oid = p.prolang
 cross join lateral plpgsql_check_function_tb(
           p.oid,
           relid => case when p.prorettype = 'trigger'::regtype then 'jobs'::regclass else 0 end,
           oldtable => case when p.proname = 'refuse_delete' then 'deleted' end,
           performance_warnings => false,
           extra_warnings => true,
           security_warnings => true) as found
 where p.pronamespace = %s::regnamespace
   and l.lanname = 'plpgsql'
   and found.message not like 'composite OUT variable %% is not single argument'
   and not (found.message = 'text type variable is not sanitized'
            and p.proname in ('find', 'create_index', 'drop_index'))
"""


def test_every_function_compiles_without_a_warning(connection: Connection, schema: str) -> None:
    definitions = [row[0] for row in connection.execute(FUNCTIONS, [schema])]
    assert len(definitions) > 50
    connection.execute("set plpgsql.extra_errors = 'all'; set check_function_bodies = on")
    for definition in definitions:
        connection.execute(definition)


CASTS = ("integer", "bigint", "numeric", "interval", "timestamptz", "uuid", "jsonb")
"""Types that PostgreSQL cast to text implicitly before 8.3, as some databases still do."""


@pytest.mark.parametrize("casts", [(), CASTS], ids=["plain", "with implicit casts"])
def test_every_statement_of_every_function_passes_plpgsql_check(
    connection: Connection, schema: str, casts: tuple[str, ...]
) -> None:
    """Columns exist, types match, no operator is ambiguous, and no variable is unused."""
    try:
        connection.execute("create extension plpgsql_check")
    except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported):
        pytest.skip("this server has no plpgsql_check (Debian: postgresql-15-plpgsql-check)")
    for cast in casts:
        connection.execute(f"create cast ({cast} as text) with inout as implicit")
    assert connection.execute(FINDINGS, [schema]).fetchall() == []
