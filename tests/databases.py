"""Connections of the tests, and the check of invariants after each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]

SCHEMA = "perdure"

POOLED = bool(os.environ.get("PERDURE_TEST_POOLER"))
"""Whether tests connect through a pooler."""
SILENT = bool(os.environ.get("PERDURE_TEST_SILENCE"))
"""Whether no notification is ever sent."""
UNHINTED: dict[str, Any] = {"poll": 0.1} if POOLED or SILENT else {}
"""Options of workers in tests that must poll often, because no notification reaches them."""
PLAIN: dict[str, Any] = {"prepare_threshold": None} if POOLED else {}
"""Options of connections: behind a pooler, the next session lacks what was prepared."""
HOME = ("public", SCHEMA)
"""The search path of each session behind a pooler."""


def keep_settings(dsn: str, **settings: str | tuple[str, ...]) -> None:
    """Store settings for all sessions of a database, if tests connect through a pooler: what a
    session sets there is lost with the next transaction."""
    if not POOLED:
        return
    with psycopg.connect(dsn, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        for name, value in settings.items():
            values = [value] if isinstance(value, str) else value
            connection.execute(
                sql.SQL("alter database {} set {} = {}").format(
                    database, sql.Identifier(name), sql.SQL(", ").join(map(sql.Literal, values))
                )
            )


@contextmanager
def connected(dsn: str) -> Iterator[Connection]:
    """Connect as tests do: autocommit, UTF-8, the app in the search path."""
    with psycopg.connect(dsn, autocommit=True, client_encoding="utf8", **PLAIN) as connection:
        find_app(connection)
        yield connection


def find_app(connection: Connection, schema: str = SCHEMA) -> None:
    """Put an app into the search path. Behind a pooler every session has it already, and a setting
    of one test would affect others."""
    if POOLED and connection.info.backend_pid != backend_of(connection):
        return
    path = sql.SQL("set search_path = pg_catalog, {}, public")
    connection.execute(path.format(sql.Identifier(schema)))


def backend_of(connection: Connection) -> int:
    """Return the process id of the server process that answers; a pooler reports another one."""
    (number,) = connection.execute("select pg_backend_pid()").fetchone() or (0,)
    return int(number)


def value(connection: Connection, query: str) -> Any:
    """Return the one value that a query selects."""
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def broken_invariants(dsn: str) -> list[tuple[Any, ...]]:
    """List violated invariants and broken histories in the app of a database."""
    with connected(dsn) as connection:
        laws = connection.execute("select * from assert_invariants()").fetchall()
        return laws + broken_histories(connection)


def broken_histories(connection: Connection) -> list[tuple[Any, ...]]:
    """List the memories of an app that are not the result of their commands."""
    page = "select id from jobs where id > %s order by id limit 1000"
    broken: list[tuple[Any, ...]] = []
    last = ""
    while ids := connection.execute(page, [last]).fetchall():
        broken += connection.execute("select * from assert_histories(%s)", [last]).fetchall()
        last = ids[-1][0]
    return broken
