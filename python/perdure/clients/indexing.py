"""Create and drop indexes on memories while others write.

PostgreSQL builds such an index in several transactions. So the statements run one by one in a
session of their own, which a pooler cannot provide. How long a build takes depends on the table, so
a limit for the statements of others does not apply to it. A build that is interrupted leaves an
invalid index; the next call finds it, drops it and builds again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors

from perdure.basics.durations import Duration, seconds
from perdure.basics.faults import crash_point
from perdure.basics.paths import Path, parse_path, write_path
from perdure.database.call import Call
from perdure.database.calls import Calls
from perdure.database.connections import pauses
from perdure.database.sending import send
from perdure.database.source import Source
from perdure.errors import InvalidArgument

from .past import rows_of

TRIES = 4
"""How often a build is started: two builds that start together may interfere."""

LOCK_TIMEOUT = "1 min"
"""How long a build waits for a transaction that began before it."""

MAX_LOCK_TIMEOUT = (2**31 - 1) / 1000
"""Seconds; PostgreSQL counts milliseconds in 32 bits."""

_GOT_IN_THE_WAY = (errors.LockNotAvailable, errors.DeadlockDetected)


@dataclass(frozen=True, slots=True)
class Index:
    """An index on the memories of an entity; `state` is valid, building, invalid or missing."""

    entity: str
    path: str
    kind: str
    state: str
    bytes: int
    scans: int
    name: str


def create_index(
    source: Source, calls: Calls, entity: str, path: Path, kind: str, lock_timeout: Duration
) -> Index:
    """Create an index and wait until it is valid. An existing index is left as it is.

    Raises InvalidName, InvalidPath, InvalidArgument, TooManyIndexes, and
    psycopg.errors.LockNotAvailable if a transaction stays open longer than `lock_timeout`.
    """
    keys = parse_path(path)
    wanted = calls.statements_to_create_index(entity, write_path(keys), kind)
    with _connected(source, calls, lock_timeout) as connection:
        name = send(connection, calls.index_name(entity, keys, kind))
        while True:
            _run(connection, calls, wanted)
            indexes: list[Index] = send(connection, calls.indexes().reading(rows_of(Index)))
            for index in indexes:
                if (index.name, index.state) == (name, "valid"):
                    return index


def drop_index(
    source: Source, calls: Calls, entity: str, path: Path, kind: str, lock_timeout: Duration
) -> bool:
    """Drop an index; return False if there is none."""
    unwanted = calls.statements_to_drop_index(entity, write_path(parse_path(path)), kind)
    with _connected(source, calls, lock_timeout) as connection:
        return _run(connection, calls, unwanted)


def _connected(source: Source, calls: Calls, lock_timeout: Duration) -> psycopg.Connection[Any]:
    patience = seconds(lock_timeout)
    if patience > MAX_LOCK_TIMEOUT:
        raise InvalidArgument(
            f"lock_timeout={lock_timeout!r} is longer than PostgreSQL can wait"[:500],
            hint="Give 24 days at most.",
        )
    connection = source.connect("perdure index")
    if source.is_pooled:
        connection.close()
        raise InvalidArgument(
            "an index cannot be created through a pooler",
            detail="Its lock timeout is a setting of the session.",
            hint="Connect this client to the server itself.",
        )
    connection.prepare_threshold = None
    send(connection, calls.lock_timeout(patience))
    send(connection, calls.take_your_time())
    return connection


def _run(connection: psycopg.Connection[Any], calls: Calls, ask: Call) -> bool:
    """Run the statements that the server answers, when no other session is at it.

    Tells whether there were any. Two that begin together can still get in each other's way.
    """
    has_run, failures = False, 0
    for pause in pauses():
        if not send(connection, calls.index_work_is_running()):
            try:
                for (statement,) in send(connection, ask):
                    has_run = True
                    crash_point("index: before statement")
                    send(connection, calls.statement(statement))
            except _GOT_IN_THE_WAY:
                failures += 1
                if failures == TRIES:
                    raise
            else:
                break
        time.sleep(pause)
    return has_run
