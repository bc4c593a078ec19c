"""Calls, sent: on a plain or asynchronous connection, alone or in one round trip."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.rows import TupleRow, tuple_row

from perdure.errors import translated
from perdure.values.envelopes import mark_envelopes

from .call import Call, Shape
from .unsealing import as_it_is


def _taken(cursor: Any, shape: Shape) -> Any:
    if cursor.description is None:
        return None
    if shape == "rows":
        return cursor.fetchall()
    row = cursor.fetchone()
    return row if shape == "row" or row is None else row[0]


_ADAPTERS = AdaptersMap(psycopg.adapters)
mark_envelopes(_ADAPTERS)


class PlainCursor(psycopg.Cursor[TupleRow]):
    """A cursor that reads and writes as this package does, whatever settings its connection has."""

    adapters = _ADAPTERS


class PlainAsyncCursor(psycopg.AsyncCursor[TupleRow]):
    """The same on an asynchronous connection."""

    adapters = _ADAPTERS


def send(connection: psycopg.Connection[Any], call: Call) -> Any:
    """Send a call and give its answer. Raises this package's errors for PDxxx.

    The connection may be the caller's, with rows, parameters and types of another kind.
    """
    cursor = PlainCursor(connection, row_factory=tuple_row)
    with translated():
        answer = _taken(cursor.execute(call.query, call.params or None), call.shape)
    return _unsealed(connection, call, answer)


def send_together(connection: psycopg.Connection[Any], *calls: Call) -> list[Any]:
    """Send calls in one round trip and one transaction, and return their answers.

    A connection that breaks meanwhile is closed, even if its driver still waits for answers.
    """
    cursors = [PlainCursor(connection, row_factory=tuple_row) for _ in calls]
    with translated():
        try:
            with connection.pipeline():
                for cursor, call in zip(cursors, calls, strict=True):
                    cursor.execute(call.query, call.params or None)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:
                connection.close()
            raise
        answers = [_taken(cursor, call.shape) for cursor, call in zip(cursors, calls, strict=True)]
    return [_unsealed(connection, *one) for one in zip(calls, answers, strict=True)]


def _unsealed(connection: psycopg.Connection[Any], call: Call, answer: Any) -> Any:
    if call.unseals is None:
        answer = as_it_is(answer)
    else:
        unseals, told = call.unseals(answer), None
        try:
            while True:
                told = send(connection, unseals.send(told))
        except StopIteration as end:
            answer = end.value
    return answer if call.read is None else call.read(answer)


def plain_cursor(connection: psycopg.AsyncConnection[Any]) -> psycopg.AsyncCursor[TupleRow]:
    """Return a cursor for `send_async`, whatever settings the caller's connection has."""
    return PlainAsyncCursor(connection, row_factory=tuple_row)


async def send_async(cursor: psycopg.AsyncCursor[TupleRow], call: Call) -> Any:
    """Send a call and give its answer. Raises this package's errors for PDxxx."""
    with translated():
        await cursor.execute(call.query, call.params or None)
        answer = await _taken_async(cursor, call.shape)
    if call.unseals is None:
        answer = as_it_is(answer)
    else:
        unseals, told = call.unseals(answer), None
        try:
            while True:
                told = await send_async(cursor, unseals.send(told))
        except StopIteration as end:
            answer = end.value
    return answer if call.read is None else call.read(answer)


async def _taken_async(cursor: psycopg.AsyncCursor[TupleRow], shape: Shape) -> Any:
    if cursor.description is None:
        return None
    if shape == "rows":
        return await cursor.fetchall()
    row = await cursor.fetchone()
    return row if shape == "row" or row is None else row[0]
