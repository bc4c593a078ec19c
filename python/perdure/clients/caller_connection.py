"""The caller's connection: what psycopg has beneath a connection of SQLAlchemy or Django.

Neither is imported: they are recognized by their attributes. Nothing of the connection is changed.
"""

from __future__ import annotations

import inspect
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from perdure.errors import InvalidArgument

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]


def joined_connection(connection: Any) -> Connection:
    """Return the psycopg connection whose transaction a call is to join.

    It may be of psycopg or Django, or a Connection or Session of SQLAlchemy. Raises InvalidArgument
    for anything else, and if no transaction can be joined.
    """
    given = connection
    opens = getattr(type(given), "connection", None)
    if hasattr(given, "ensure_connection"):  # of Django
        given.ensure_connection()
        given = given.connection
    elif inspect.isfunction(opens) and not inspect.iscoroutinefunction(opens):  # a Session
        given = given.connection()
    given = _driver_connection(given)
    if not isinstance(given, psycopg.Connection):
        raise _is_no_connection(connection, "psycopg.Connection")
    _check_transaction(given)
    return given


async def joined_async_connection(connection: Any) -> AsyncConnection:
    """Return the asynchronous psycopg connection whose transaction a call is to join.

    It may be of psycopg, or an AsyncConnection or AsyncSession of SQLAlchemy. Raises
    InvalidArgument.
    """
    given = connection
    if inspect.iscoroutinefunction(getattr(type(given), "connection", None)):  # an AsyncSession
        given = await given.connection()
    given = _driver_connection(getattr(given, "sync_connection", given))
    if not isinstance(given, psycopg.AsyncConnection):
        raise _is_no_connection(connection, "psycopg.AsyncConnection")
    _check_transaction(given)
    return given


def check_outside(verb: str, connection: Any) -> None:
    """Refuse to wait inside the caller's transaction. Raises InvalidArgument."""
    if connection is not None:
        raise InvalidArgument(
            f"{verb}() cannot wait inside a transaction of yours",
            detail="It would not see what others do, and they would not see what it has done.",
            hint=f"Commit first, and call {verb}() on client.entity(id) without a connection.",
        )


def _driver_connection(connection: Any) -> Any:
    """Return what a Connection of SQLAlchemy holds; anything else unchanged.

    Its transaction begins here, as with its own statements. Otherwise its commit() would not know
    that there is anything to commit.
    """
    holds = isinstance(getattr(type(connection), "connection", None), property)
    if not (holds and hasattr(connection, "in_transaction")) or hasattr(connection, "sync_engine"):
        return connection
    if not connection.in_transaction():
        connection.begin()
    return connection.connection.driver_connection


def _check_transaction(connection: Connection | AsyncConnection) -> None:
    """Refuse a connection whose transaction cannot be joined. Raises InvalidArgument."""
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise InvalidArgument(
            "the transaction of this connection has failed",
            detail="It accepts no statement until it is rolled back.",
            hint="Roll back, completely or to a savepoint, and call again.",
        )
    if status == TransactionStatus.IDLE and connection.autocommit:
        raise InvalidArgument(
            "this connection commits each statement by itself: there is no transaction to join",
            hint="Begin a transaction, or leave `connection` out.",
        )


def _is_no_connection(given: Any, wanted: str) -> InvalidArgument:
    kind = type(given)
    return InvalidArgument(
        f"a {kind.__module__}.{kind.__qualname__} cannot be joined: a {wanted} is needed",
        detail="A connection of SQLAlchemy or Django that uses psycopg 3 can be joined, too.",
        hint="Let them use psycopg 3: postgresql+psycopg://… for SQLAlchemy, `psycopg` installed"
        " and no psycopg2 for Django. Async clients need asynchronous connections.",
    )
