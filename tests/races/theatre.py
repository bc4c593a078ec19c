"""A database whose engine a test may change: break it, or put a gate into it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from perdure import PerdureError
from tests.databases import PLAIN, find_app
from tests.races.sessions import TABLES, Connection, Session, Stage

PATIENCE = 5.0  # seconds; short, since a broken engine may wait where it should not
FAILURES = (AssertionError, psycopg.Error, PerdureError, ValueError)  # ValueError: too few rows
NO_SQL = re.compile(r"\b42(601|[78]\d\d|P\d\d)\b")
"""The codes of statements that cannot be run: class 42 without insufficient privilege (42501)."""

GATE = 4711


class Players(NamedTuple):
    """The sessions of a test."""

    a: Session
    b: Session
    c: Session
    stage: Stage

    @property
    def dsn(self) -> str:
        """The connection string of the database, for workers and clients."""
        info = self.a.connection.info
        return make_conninfo(info.dsn, password=info.password)


class Theatre:
    """A database of the test's own, whose engine may be changed."""

    def __init__(self, dsn: str, schema: str) -> None:
        self._dsn = dsn
        self._schema = schema
        self._owner = self._connect()

    def close(self) -> None:
        """Close the connection to the database."""
        self._owner.close()

    def change(self, function: str, place: str, change: str) -> None:
        """Replace a pattern in the text of a function; a space stands for any white space."""
        query = """select pg_get_functiondef(oid) from pg_proc
                    where pronamespace = %s::regnamespace and proname = %s"""
        (row,) = self._owner.execute(query, [self._schema, function]).fetchall()
        changed, places = re.subn(place.replace(" ", r"\s+"), change, row[0], flags=re.DOTALL)
        assert places > 0, f"{function}() does not match {place}"
        self._owner.execute(changed.encode())

    def rewrite(self, change: Callable[[str, str], str]) -> None:
        """Rewrite all PL/pgSQL functions of the engine; `change` gets the name and body of each."""
        query = """
            select proname, prosrc, pg_get_functiondef(p.oid)
              from pg_proc as p
              join pg_language as l on l.oid = p.prolang
             where pronamespace = %s::regnamespace and lanname = 'plpgsql'"""
        for name, body, definition in self._owner.execute(query, [self._schema]).fetchall():
            if (changed := change(name, body)) != body:
                self._owner.execute(definition.replace(body, changed).encode())

    def run(self, statement: str) -> None:
        """Run a statement as the owner."""
        self._owner.execute(statement.encode())

    def put_gate(self, function: str, place: str) -> None:
        """Put a gate before a place in a function: calls wait there while it is shut."""
        gate = f"perform pg_advisory_xact_lock_shared({GATE});"
        self.change(function, f"({place})", rf"{gate} \1")

    @contextmanager
    def players(self) -> Iterator[Players]:
        """Open sessions; afterwards end them, and delete all rows."""
        with ExitStack() as stack:
            stage = Stage(lambda: stack.enter_context(closing(self._connect())), PATIENCE)
            a, b, c = (stage.session(name) for name in "abc")
            try:
                yield Players(a, b, c, stage)
            finally:
                self._empty()

    def passes(self, test: Callable[[Players], Any]) -> bool:
        """Run a test; tell whether it passes and leaves no broken invariant."""
        with self.players() as players:
            try:
                test(players)
                return players.a.broken() == []
            except FAILURES as error:
                if is_no_sql(error):
                    raise
                print(f"{type(error).__name__}: {error}")
                return False

    def _connect(self) -> Connection:
        connection: Connection = psycopg.connect(
            self._dsn, autocommit=True, client_encoding="utf8", **PLAIN
        )
        find_app(connection, self._schema)
        return connection

    def _empty(self) -> None:
        others = """
            select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid()"""
        while self._owner.execute(others).fetchall():
            time.sleep(0.002)  # the server's own wait polls only every 100 ms
        for table in TABLES:
            self._owner.execute(sql.SQL("delete from {}").format(sql.Identifier(table)))
        self._owner.execute("select setval(pg_get_serial_sequence('inbox', 'id'), 1, false)")


def is_no_sql(error: BaseException | None) -> bool:
    """Tell whether an error comes from a statement that cannot be run.

    Any test would fail on such a mutant, so it proves nothing. The error may be raised, be a cause,
    or be quoted in a failed assertion.
    """
    while error is not None:
        is_reported = isinstance(error, AssertionError) and NO_SQL.search(str(error))
        if is_reported or str(getattr(error, "sqlstate", "")).startswith("42"):
            return True
        error = error.__cause__ or error.__context__
    return False


def shut(session: Session) -> None:
    """Shut the gate in a transaction of the session, until that ends."""
    session.begin()
    session.run(f"select pg_advisory_xact_lock({GATE})")
