"""A wait with a limit ends in time although the server is silent, as at a lock or a full disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import perdure
from perdure.clients.waiting import GRACE

LIMIT = 0.3
IN_TIME = LIMIT + GRACE + 3.0
"""Seconds within which a wait with a limit ends, also on a busy machine."""


@contextmanager
def hanging(dsn: str) -> Iterator[None]:
    """Lock the table of jobs meanwhile; the wait inside must fail in time."""
    with psycopg.connect(dsn) as lock:
        lock.execute("lock table perdure.jobs")
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="did not answer in time"):
            yield
        assert time.monotonic() - began < IN_TIME


@pytest.mark.parametrize(
    "wait",
    [
        lambda handle: handle.result(LIMIT),
        lambda handle: handle.memory.until("$.n > 0", timeout=LIMIT),
        lambda handle: list(handle.stream("words", timeout=LIMIT)),
        lambda handle: list(handle.memory.watch(timeout=LIMIT)),
    ],
    ids=["result", "until", "stream", "watch"],
)
def test_plain_wait_ends_in_time(
    client: perdure.Client, dsn: str, wait: Callable[[perdure.Handle[Any]], Any]
) -> None:
    """The client itself ends a wait that the server does not, and can be used again afterwards."""
    handle = client.start("nobody's", queue="nobody")
    with hanging(dsn):
        wait(handle)
    assert handle.memory.set(1, "n") == 1
    assert handle.memory.until("$.n > 0", timeout=IN_TIME) > 0  # on a connection of its own


def test_async_wait_ends_in_time(dsn: str) -> None:
    async def main() -> None:
        async with await perdure.connect_async(dsn) as client:
            handle = await client.start("nobody's", queue="nobody")
            with hanging(dsn):
                await handle.result(LIMIT)
            assert await handle.memory.set(1, "n") == 1

    asyncio.run(main())
