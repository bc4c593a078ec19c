"""Connections that open again, and when a call is sent again.

A call that meets a broken connection, a server that shuts down or a conflict is repeated unchanged:
every call of the package can be. [P12]
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from perdure.basics.forks import note_resettable
from perdure.basics.timed_connection import TimedConnection
from perdure.errors import (
    InstanceNotAdopted,
    NotMigrated,
    OtherBuild,
    PerdureError,
    ProtocolNotSupported,
)

from .call import Call
from .sending import plain_cursor, send, send_async
from .source import AnyConnection, Source

logger = logging.getLogger("perdure.worker")

_AGAIN_CLASSES = frozenset({"08", "40", "53", "57", "58"})
_AGAIN = frozenset({"55P03", "25006"})
_ELSEWHERE = frozenset({"25006"})
"""SQLSTATEs of a server that has become a standby: the call belongs to another one."""

_STALE_CLASSES = frozenset({"0A", "42", "XX"})
_NEVER_STALE = frozenset({"42501"})
"""SQLSTATE classes of a call whose functions are being replaced, or were replaced after its
connection had prepared it: another result type, no such function, or none under its old number.
Missing rights (42501) have another cause."""

REFUSALS = (PerdureError, psycopg.Error)
"""What a call may raise: errors of this package, and of psycopg."""

FATAL = (
    InstanceNotAdopted,
    NotMigrated,
    OtherBuild,
    ProtocolNotSupported,
    psycopg.errors.InvalidSchemaName,
)
"""Refusals of anything that a worker sends, for instance because its app is gone. The worker ends,
and its tasks are left to others: no turn is to blame, even if another one would be accepted a
moment later."""

PATIENCE = 60.0
"""Seconds for which a client repeats a call while the database does not answer."""

SILENT_FOR = 10.0
"""Seconds without an answer after which a worker says so."""

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 5.0

OnTrouble = Callable[[psycopg.Error], None]


def is_standby(connection: AnyConnection) -> bool:
    """Tell whether its server is a standby, where nobody can write or listen."""
    return connection.info.parameter_status("in_hot_standby") == "on"


def can_be_repeated(error: psycopg.Error, is_connected: bool) -> bool:
    """Tell whether the same call may succeed later: nothing is wrong with the call itself."""
    state = error.sqlstate or ""
    return not is_connected or state[:2] in _AGAIN_CLASSES or state in _AGAIN


def may_be_stale(error: psycopg.Error) -> bool:
    """Tell whether the call may succeed on a new connection, after an upgrade. [P13]"""
    state = error.sqlstate or ""
    return state[:2] in _STALE_CLASSES and state not in _NEVER_STALE


def is_conflict(error: psycopg.Error) -> bool:
    """Tell whether a call met another transaction; the same call may succeed at once."""
    return (error.sqlstate or "").startswith("40")


def message_of(error: Exception) -> str:
    """Return what an error says, without the statements that the server quotes."""
    told = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return told or "; ".join(line.strip() for line in str(error).strip().splitlines())


def pauses() -> Iterator[float]:
    """Yield the seconds to wait before each repetition: growing, with jitter."""
    pause = FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(2 * pause, LONGEST_PAUSE)


class Link:
    """A connection that reconnects: `link.call(...)` repeats a call until it is answered."""

    def __init__(self, source: Source, name: str, patience: float | None = None):
        self._source = source
        self._name = name
        self._patience = patience
        self._connection: TimedConnection | None = None
        note_resettable(self)

    def reset(self) -> None:
        """Leave the connection to the parent process: the next call opens another."""
        self._connection = None

    def connection(self) -> TimedConnection:
        """Return the connection, opened again if it was lost."""
        if self._connection is None or self._connection.closed:
            self._connection = self._source.connect(self._name)
        return self._connection

    def call(self, call: Call) -> Any:
        """Send a call and give its answer. Raises this package's errors, and psycopg's."""
        began = time.monotonic()
        is_renewed = False
        for pause in pauses():
            try:
                return send(self.connection(), call)
            except psycopg.Error as error:
                late = self._patience is not None and time.monotonic() - began > self._patience
                if not is_renewed and may_be_stale(error):
                    is_renewed = True
                    self.close()
                elif late or not can_be_repeated(error, self.is_connected()):
                    raise
                elif error.sqlstate in _ELSEWHERE:
                    self.close()
            except PerdureError:
                raise
            except BaseException:  # raised by a signal handler: the answer may still be on its way
                self.break_off()
                raise
            time.sleep(pause)
        raise AssertionError("pauses never end")

    def break_off(self) -> None:
        """Abandon a connection during a call, whose answer the next call would otherwise read."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()

    def is_connected(self) -> bool:
        """Tell whether there is a connection that has not broken."""
        return self._connection is not None and not self._connection.closed

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class AsyncLink:
    """A reconnecting connection of an event loop. It makes one call at a time; others wait.

    With `tells`, the log reports a call that has no answer for long.
    """

    def __init__(
        self,
        source: Source,
        name: str,
        patience: float | None = None,
        on_trouble: OnTrouble | None = None,
        *,
        tells: bool = False,
    ):
        self._source = source
        self._name = name
        self._patience = patience
        self._on_trouble = on_trouble
        self._tells = tells
        self._trouble: psycopg.Error | None = None
        self._cursor: psycopg.AsyncCursor[TupleRow] | None = None
        self._turn = asyncio.Lock()
        note_resettable(self)

    @property
    def backend(self) -> int | None:
        """Tell the process of the server that answers, while there is a connection."""
        return None if self._cursor is None else self._cursor.connection.info.backend_pid

    @property
    def is_to_standby(self) -> bool:
        """Tell whether there is a connection, and it leads to a standby."""
        return self._cursor is not None and is_standby(self._cursor.connection)

    def reset(self) -> None:
        """Leave the connection to the parent process: the next call opens another."""
        self._cursor = None
        self._turn = asyncio.Lock()

    async def call(self, call: Call) -> Any:
        """Send a call and give its answer. Raises this package's errors, and psycopg's."""
        async with self._turn:
            if not self._tells:
                return await self._answer(call)
            self._trouble = None
            loop = asyncio.get_running_loop()
            alarm = loop.call_later(SILENT_FOR, self._say_silence, call.function)
            try:
                return await self._answer(call)
            finally:
                alarm.cancel()

    async def _answer(self, call: Call) -> Any:
        began = time.monotonic()
        is_renewed = is_troubled = False
        for pause in pauses():
            try:
                answer = await send_async(self._cursor or await self._connected(), call)
            except psycopg.Error as error:
                if not is_renewed and may_be_stale(error):
                    is_renewed = True
                    self.break_off()
                else:
                    self._note(error, began)
                    is_troubled = is_troubled or not is_conflict(error)
            except BaseException:  # usually it is cancelled, and the driver has ended the call
                if self._is_amid_a_call():
                    self.break_off()
                raise
            else:
                if is_troubled and self._on_trouble is not None:  # which has told of it
                    logger.info(
                        "the database answers again, after %.1f s", time.monotonic() - began
                    )
                return answer
            call = call.again or call
            await asyncio.sleep(pause)
        raise AssertionError("pauses never end")

    def _say_silence(self, function: str) -> None:
        trouble = "it is busy, or an open transaction holds what this waits for"
        if self._trouble is not None:
            trouble = message_of(self._trouble)
        logger.warning(
            "the database has not answered %s() for %g s: %s",
            function,
            SILENT_FOR,
            trouble,
        )

    def _note(self, error: psycopg.Error, began: float) -> None:
        """Decide whether to continue after an error; raise it if not."""
        self._trouble = error
        is_connected = self._cursor is not None and not self._cursor.connection.closed
        late = self._patience is not None and time.monotonic() - began >= self._patience
        if not is_connected or error.sqlstate in _ELSEWHERE:
            self.break_off()
        if late or not can_be_repeated(error, is_connected):
            raise error
        if self._on_trouble is not None:
            self._on_trouble(error)

    def _is_amid_a_call(self) -> bool:
        if self._cursor is None:
            return False
        return self._cursor.connection.info.transaction_status != TransactionStatus.IDLE

    async def _connected(self) -> psycopg.AsyncCursor[TupleRow]:
        connection = await self._source.connect_async(self._name)
        self._cursor = plain_cursor(connection)
        return self._cursor

    def break_off(self) -> None:
        """Abandon a connection, whatever is under way on it; the next call opens another."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            cursor.connection.pgconn.finish()

    async def close(self) -> None:
        """Close the connection; the next call opens another."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            with suppress(psycopg.Error):
                await cursor.connection.close()
