"""Connections that a worker lends to the functions of transactions, one to each.

A function may leave what it likes in a session, so a connection is reset when it comes back, and
closed if that fails. A few unused ones are kept for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from perdure.database.sending import plain_cursor, send, send_async
from perdure.workflow.work import Isolation

if TYPE_CHECKING:
    from .engine import Engine


Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]
C = TypeVar("C", Connection, AsyncConnection)

logger = logging.getLogger("perdure.worker")

NAME = "perdure transaction"
MAX_OPEN = 10
"""Number of transactions that a worker has open at a time; others wait for a connection."""
CROWDED_AFTER = 5.0
"""Seconds that a transaction waits for a connection before the log reports it, once."""
IDLE_FOR = 10.0
"""Seconds after which an unused connection is closed: others may need its place."""


class LentConnections:
    """Lends connections of the app's database, a few at a time."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._places = asyncio.Semaphore(MAX_OPEN)
        self._is_closed = self._is_watching = self._is_told_of_crowd = False
        self._idle: dict[Connection, float] = {}  # since when
        self._idle_async: dict[AsyncConnection, float] = {}

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait until it may have a connection."""
        alarm: asyncio.TimerHandle | None = None
        if self._places.locked() and not self._is_told_of_crowd:
            alarm = self._engine.call_later(CROWDED_AFTER, self._tell_of_crowd)
        try:
            await self._places.acquire()
        finally:
            if alarm is not None:
                alarm.cancel()
        try:
            yield
        finally:
            self._places.release()

    def _tell_of_crowd(self) -> None:
        if not self._is_told_of_crowd:
            self._is_told_of_crowd = True
            logger.warning(
                "a transaction has waited %g s for a connection: this worker has %d open, and may"
                " not have more; run more workers, or let each transaction take less time",
                CROWDED_AFTER,
                MAX_OPEN,
            )

    @asynccontextmanager
    async def lent_async(self, isolation: Isolation | None) -> AsyncIterator[AsyncConnection]:
        """Lend a connection to a coroutine."""
        idle = self._idle_async
        connection = _taken(idle, self._idle) or await self._engine.source.connect_async(
            NAME, is_lent=True
        )
        try:
            await connection.set_isolation_level(_level(isolation))
            yield connection
        except psycopg.OperationalError:
            self._suspect_others(connection)
            raise
        finally:
            was_reset = False
            try:
                if _is_clean(connection):
                    with suppress(psycopg.Error):
                        await send_async(plain_cursor(connection), self._engine.calls.reset())
                        was_reset = True
            finally:
                connection.row_factory = tuple_row
                connection.cursor_factory = psycopg.AsyncCursor
                self._keep(idle, connection, was_reset)

    @contextmanager
    def lent(self, isolation: Isolation | None) -> Iterator[Connection]:
        """Lend a connection to a thread."""
        idle = self._idle
        connection = _taken(idle, self._idle_async) or self._engine.source.connect(
            NAME, is_lent=True
        )
        try:
            connection.isolation_level = _level(isolation)
            yield connection
        except psycopg.OperationalError:
            self._suspect_others(connection)
            raise
        finally:
            was_reset = False
            try:
                if _is_clean(connection):
                    with suppress(psycopg.Error):
                        send(connection, self._engine.calls.reset())
                        was_reset = True
            finally:
                connection.row_factory = tuple_row
                connection.cursor_factory = psycopg.Cursor
                self._keep(idle, connection, was_reset)

    def _keep(
        self, idle: dict[Any, float], connection: Connection | AsyncConnection, was_reset: bool
    ) -> None:
        """Keep a connection for the next one for a while, if its state is known."""
        loop = self._engine.loop
        if was_reset and not self._is_closed:
            idle[connection] = loop.time()
            if not self._is_watching:
                loop.call_soon_threadsafe(self._watch)
        else:
            connection.pgconn.finish()

    def _watch(self) -> None:
        if not self._is_watching:
            self._is_watching = True
            self._engine.loop.call_later(IDLE_FOR, self._close_unused)

    def _close_unused(self) -> None:
        self._is_watching = False  # first: a thread that keeps one now starts its own watch
        until = self._engine.loop.time() - IDLE_FOR
        both: list[dict[Any, float]] = [self._idle, self._idle_async]
        for idle in both:
            for connection, since in list(idle.items()):
                if since <= until and idle.pop(connection, None) is not None:
                    connection.pgconn.finish()
        if self._idle or self._idle_async:
            self._watch()

    def _suspect_others(self, lost: Connection | AsyncConnection) -> None:
        """Give up unused connections when one was lost.

        What ended it has often ended all: a server, or a pooler. Each transaction would find them
        out one by one, with a growing pause after each.
        """
        if lost.closed:
            self._close_idle()

    def _close_idle(self) -> None:
        both: list[dict[Any, float]] = [self._idle, self._idle_async]
        for idle in both:
            with suppress(KeyError):
                while True:
                    connection, _ = idle.popitem()
                    connection.pgconn.finish()

    def close(self) -> None:
        """Close what is not lent; the others are closed when they come back."""
        self._is_closed = True
        self._close_idle()


def _taken(idle: dict[C, float], others: dict[Any, float]) -> C | None:
    """Take an idle connection; if there is none, another one makes room for a new one."""
    with suppress(KeyError):
        return idle.popitem()[0]
    with suppress(KeyError):
        connection, _ = others.popitem()
        connection.pgconn.finish()
    return None


def _level(isolation: Isolation | None) -> psycopg.IsolationLevel | None:
    return isolation and psycopg.IsolationLevel[isolation.replace(" ", "_").upper()]


def _is_clean(connection: Connection | AsyncConnection) -> bool:
    return connection.info.transaction_status == TransactionStatus.IDLE
