"""Connections as tests have them, and what they look at in an app when a test has ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

SCHEMA = "perdure"


@contextmanager
def connected(dsn: str) -> Iterator[Connection]:
    """Connect as tests do: autocommit, UTF-8, the app in the search path."""
    with psycopg.connect(dsn, autocommit=True, client_encoding="utf8") as connection:
        connection.execute(f"set search_path = pg_catalog, {SCHEMA}, public")
        yield connection


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
