"""Fixtures of the races: sessions on one database that all these tests share, which is faster.

After each test the invariants must hold; then the tables are emptied. Connections are reused, with
their plans cached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import psycopg
import pytest
from psycopg import sql
from psycopg.pq import TransactionStatus

from tests.databases import HOME, PLAIN, SCHEMA, find_app, keep_settings
from tests.races.points import put_points
from tests.races.sessions import TABLES, Connection, Session, Stage, limits
from tests.races.theatre import PATIENCE, Theatre
from tests.servers import AnyServer, database_of

_tests = count(1)


class Pool:
    """Connections to one database, which tests use one after the other."""

    def __init__(self, dsn: str, schema: str) -> None:
        self._dsn = dsn
        self._schema = schema
        self._idle: list[Connection] = []
        self._taken: list[Connection] = []

    def take(self) -> Connection:
        """Give a connection that is not in use."""
        connection = self._idle.pop() if self._idle else self._open()
        self._taken.append(connection)
        return connection

    def take_back(self) -> None:
        """Roll back open transactions of a test; close connections that are still busy."""
        for connection in self._taken:
            if connection.info.transaction_status == TransactionStatus.ACTIVE:
                connection.cancel_safe()
                connection.close()
                continue
            connection.execute("rollback")
            self._idle.append(connection)
        self._taken.clear()

    def close(self) -> None:
        """Close all connections."""
        for connection in self._idle:
            connection.close()

    def _open(self) -> Connection:
        connection = psycopg.connect(self._dsn, autocommit=True, client_encoding="utf8", **PLAIN)
        find_app(connection, self._schema)
        connection.execute("set client_min_messages = error")
        return connection


@pytest.fixture(scope="session")
def pool(server: AnyServer, entrance: AnyServer, template: str) -> Iterator[Pool]:
    """Give connections to one database for all races."""
    with database_of(server, "races", template) as name:
        keep_settings(server.url(name), search_path=HOME, client_min_messages="error", **limits())
        connections = Pool(entrance.url(name), "perdure")
        yield connections
        connections.close()


@pytest.fixture
def connect(pool: Pool) -> Iterator[Callable[[], Connection]]:
    """Give a function that opens one more connection; afterwards the invariants must hold."""
    yield pool.take
    pool.take_back()
    connection = pool.take()
    broken = connection.execute("select * from assert_invariants()").fetchall()
    broken += connection.execute("select * from assert_histories()").fetchall()
    for table in (*TABLES, "workers", "listeners"):
        connection.execute(sql.SQL("delete from {}").format(sql.Identifier(table)))
    connection.execute("select setval(pg_get_serial_sequence('inbox', 'id'), 1, false)")
    if next(_tests) % 20 == 0:
        connection.execute("vacuum jobs, tasks, journal, inbox")
    pool.take_back()
    assert broken == []


@pytest.fixture
def theatre(dsn: str, own_database: str, server: AnyServer, schema: str) -> Iterator[Theatre]:
    """Give a database of the test's own, whose engine it may change."""
    keep_settings(server.url(own_database), **limits(PATIENCE))
    theatre = Theatre(dsn, schema)
    yield theatre
    theatre.close()


@pytest.fixture(scope="module")
def stepped(server: AnyServer, template: str) -> Iterator[tuple[Theatre, list[str]]]:
    """Give a theatre whose engine has points for stopping calls, and their descriptions."""
    with database_of(server, "steps", template) as name:
        theatre = Theatre(server.url(name), SCHEMA)
        yield theatre, put_points(theatre)
        theatre.close()


@pytest.fixture
def stage(connect: Callable[[], Connection]) -> Stage:
    """Give a stage on which sessions are opened."""
    return Stage(connect)


@pytest.fixture
def a(stage: Stage) -> Session:
    """Give the first session."""
    return stage.session("a")


@pytest.fixture
def b(stage: Stage) -> Session:
    """Give the second session."""
    return stage.session("b")


@pytest.fixture
def c(stage: Stage) -> Session:
    """Give the third session."""
    return stage.session("c")
