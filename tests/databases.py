"""Connections as tests have them, and what they look at in an app when a test has ended."""

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
"""Whether a pooler stands between tests and server."""
SILENT = bool(os.environ.get("PERDURE_TEST_SILENCE"))
"""Whether nobody is ever notified."""
UNHINTED: dict[str, Any] = {"poll": 0.1} if POOLED or SILENT else {}
"""How a worker of a test looks for work: nothing else wakes it then."""
PLAIN: dict[str, Any] = {"prepare_threshold": None} if POOLED else {}
"""How a test connects: what one session of the server prepares, the next one does not know."""
HOME = ("public", SCHEMA)
"""Where each session looks behind a pooler."""


def keep_settings(dsn: str, **settings: str | tuple[str, ...]) -> None:
    """Let each session of a database begin with these settings, where a pooler stands between: what
    a test sets for a session is gone with the next transaction."""
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
    """Put an app into the search path; behind a pooler all sessions have it there, and what one of
    them sets is found by others."""
    if POOLED and connection.info.backend_pid != backend_of(connection):
        return
    path = sql.SQL("set search_path = pg_catalog, {}, public")
    connection.execute(path.format(sql.Identifier(schema)))


def backend_of(connection: Connection) -> int:
    """Ask for the process that answers; a pooler names another one."""
    (number,) = connection.execute("select pg_backend_pid()").fetchone() or (0,)
    return int(number)


def broken_invariants(dsn: str) -> list[tuple[Any, ...]]:
    """List what is wrong in the app of a database."""
    with connected(dsn) as connection:
        laws = connection.execute("select * from assert_invariants()").fetchall()
        return laws + broken_histories(connection)


def broken_histories(connection: Connection) -> list[tuple[Any, ...]]:
    """List the memories of an app that are not the sum of their commands."""
    page = "select id from jobs where id > %s order by id limit 1000"
    broken: list[tuple[Any, ...]] = []
    last = ""
    while ids := connection.execute(page, [last]).fetchall():
        broken += connection.execute("select * from assert_histories(%s)", [last]).fetchall()
        last = ids[-1][0]
    return broken
