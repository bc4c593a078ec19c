"""Waiting for jobs to end: NOTIFY is the quick way, to look now and then the sure one. [P11]"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg

from .calls import Call, Calls, send, send_async
from .connections import AsyncLink, Link, Source

FIRST_LOOK, LONGEST_LOOK = 0.25, 2.0


def looks() -> Iterator[float]:
    """Give the seconds between looks that need no notification."""
    delay = FIRST_LOOK
    while True:
        yield delay
        delay = min(2 * delay, LONGEST_LOOK)


def topic_of(job: str) -> str:
    """Name what is told when a job ends."""
    return f"$job/{job}"


class Ear:
    """A connection that hears notifications, for one thread at a time."""

    def __init__(self, source: Source, calls: Calls):
        self._calls = calls
        self._name = uuid.uuid4().hex
        self._link = Link(source, "perdure result")
        self._heard_by: Any = None

    def _listen(self) -> psycopg.Connection[Any]:
        connection = self._link.connection()
        if connection is not self._heard_by:
            channel = send(connection, self._calls.channel())
            send(connection, self._calls.listen(channel))
            self._heard_by = connection
        return connection

    def wait(self, job: str, until: float | None) -> Any:
        """Give how a job ended, or None when time (monotonic seconds) is up first."""
        for delay in looks():
            try:
                connection = self._listen()
                send(connection, self._calls.listen_for(topic_of(job), self._name))
                row = send(connection, self._calls.result(job))
                left = delay if until is None else min(delay, until - time.monotonic())
                if is_finished(row) or left <= 0:
                    send(connection, self._calls.stop_listening(self._name))
                    return row if is_finished(row) else None
                self._hear(connection, job, left)
            except psycopg.OperationalError:
                self._link.close()
                time.sleep(min(delay, FIRST_LOOK))
                if until is not None and time.monotonic() > until:
                    raise
        raise AssertionError("looks never end")

    def _hear(self, connection: psycopg.Connection[Any], job: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for notice in connection.notifies(timeout=left, stop_after=1):
                if notice.payload == topic_of(job):
                    return

    def close(self) -> None:
        """Close the connection."""
        self._link.close()


class Ears:
    """The connection of an asynchronous client that hears notifications, for all its waits."""

    def __init__(self, source: Source, calls: Calls):
        self._source = source
        self._calls = calls
        self._name = uuid.uuid4().hex
        self._link = AsyncLink(source, "perdure result")
        self._bells: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self._is_listening = asyncio.Event()

    async def wait(self, job: str, until: float | None) -> Any:
        """Give how a job ended, or None when time (monotonic seconds) is up first."""
        bell = asyncio.Event()
        topic = topic_of(job)
        listener = f"{self._name}:{uuid.uuid4().hex}"
        self._bells[topic].add(bell)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_listening.wait(), FIRST_LOOK)
        try:
            return await self._wait(job, until, bell, self._calls.listen_for(topic, listener))
        finally:
            self._bells[topic].discard(bell)
            if not self._bells[topic]:
                del self._bells[topic]
            await self._link.call(self._calls.stop_listening(listener))

    async def _wait(self, job: str, until: float | None, bell: asyncio.Event, listen: Call) -> Any:
        for delay in looks():
            bell.clear()
            await self._link.call(listen)
            row = await self._link.call(self._calls.result(job))
            left = delay if until is None else min(delay, until - time.monotonic())
            if is_finished(row) or left <= 0:
                return row if is_finished(row) else None
            with suppress(TimeoutError):
                await asyncio.wait_for(bell.wait(), left)
        raise AssertionError("looks never end")

    async def _run(self) -> None:
        """Hear notifications and ring the bells of whom they are for."""
        while True:
            with suppress(psycopg.OperationalError):
                connection = await self._source.connect_async("perdure listens")
                async with connection:
                    cursor = connection.cursor()
                    channel = await send_async(cursor, self._calls.channel())
                    await send_async(cursor, self._calls.listen(channel))
                    self._is_listening.set()
                    async for notice in connection.notifies():
                        for bell in self._bells.get(notice.payload, ()):
                            bell.set()
            self._is_listening.clear()
            await asyncio.sleep(FIRST_LOOK)

    async def close(self) -> None:
        """Close the connections."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._link.close()


def is_finished(row: Any) -> bool:
    """Tell whether waiting has an end, by (status, result, error)."""
    return row is not None and row[0] != "running"
