"""PL/pgSQL is read late, line by line as it runs; these tests read all of it at once."""

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

# A function with several composite OUT parameters is meant so; the checker would rather have one.
# These run statements that other functions have written, in which all that a caller gave is quoted:
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
"""What became text by itself before PostgreSQL 8.3, and in databases that never gave that up."""


@pytest.mark.parametrize("casts", [(), CASTS], ids=["plain", "with implicit casts"])
def test_every_statement_of_every_function_is_right(
    connection: Connection, schema: str, casts: tuple[str, ...]
) -> None:
    """Columns exist, types match, no operator is ambiguous, no variable is unused or assigned in
    vain."""
    try:
        connection.execute("create extension plpgsql_check")
    except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported):
        pytest.skip("this server has no plpgsql_check (Debian: postgresql-15-plpgsql-check)")
    for cast in casts:
        connection.execute(f"create cast ({cast} as text) with inout as implicit")
    assert connection.execute(FINDINGS, [schema]).fetchall() == []
