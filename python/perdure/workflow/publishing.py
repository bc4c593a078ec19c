"""Publishing: what an attempt of an activity adds to streams while it works.

Items gather for a moment and are sent in one call, beside the facts of the task and fenced by its
token. The key of a call is the attempt and a number, so that a lost reply doubles nothing. [P2]
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from zlib import crc32

from perdure.basics.paths import write_path
from perdure.database.calls import Calls
from perdure.database.connections import REFUSALS, AsyncLink
from perdure.database.source import Source
from perdure.errors import TaskNotHeld, ValueTooLarge

from .operations import MAX_BYTES, size_of, stored

if TYPE_CHECKING:
    from perdure.workers.turns import Turn

logger = logging.getLogger("perdure.worker")

GATHER_FOR = 0.05
"""Seconds that an item may wait for others."""

ROOM = 262_144
"""Bytes that may wait to be sent; code with more to publish waits."""

LINKS = 4

Batch = tuple[str, list[Any]]
"""A stream, as a written path, and items to add; without items, the stream ends."""


class StreamLinks:
    """Connections for what activities publish. A locked job holds up only a few others."""

    def __init__(self, source: Source, calls: Calls):
        self._calls = calls
        self._links = [AsyncLink(source, "perdure streams", tells=True) for _ in range(LINKS)]

    async def publish(
        self, turn: Turn, stream: str, items: list[Any], key: str, source: str
    ) -> None:
        """Add to a stream, for a held task; calls for one job are made one after the other."""
        link = self._links[crc32(turn.job.encode()) % LINKS]
        await link.call(self._calls.publish(turn.lease(), stream, items, key, source))

    async def close(self) -> None:
        """Close them."""
        for link in self._links:
            await link.close()


class Room:
    """What async code awaits after it has published: others may run, and there is room again."""

    __slots__ = ("_room",)

    def __init__(self, room: Future[None] | None):
        self._room = room

    def __await__(self) -> Generator[Any, None, None]:
        if self._room is None:
            yield
        else:
            yield from asyncio.wrap_future(self._room)


class Publisher:
    """Sends what one attempt publishes, a call at a time, in its order."""

    def __init__(self, turn: Turn, source: str):
        self._turn = turn
        self._links = turn.engine.streams
        self._source = source
        self._attempt = uuid.uuid4().hex
        self._sent = 0
        self._lock = threading.Lock()
        self._batches: list[Batch] = []
        self._bytes = 0
        self._waiting: list[Future[None]] = []
        self._flushing: list[asyncio.Future[None]] = []
        self._hurry = asyncio.Event()
        self._is_sending = False
        self._error: Exception | None = None

    def put(self, path: list[str], items: Sequence[Any]) -> Future[None] | None:
        """Take items, from any thread; return what is done when there is room for more, if not now.

        Raises what an item may be refused for, and what has refused earlier ones.
        """
        values = [stored(item) for item in items]
        size = sum(size_of(value) + 2 for value in values)
        if size > MAX_BYTES:
            raise ValueTooLarge(
                "what is published at a time is too large",
                detail=f"It has {size} bytes as JSON; at most {MAX_BYTES} are allowed.",
                hint="Publish less at a time.",
            )
        room: Future[None] | None = None
        with self._lock:
            self._check()
            self._gather(write_path(path), values, size)
            must_begin, self._is_sending = not self._is_sending, True
            if self._bytes >= ROOM:
                room = Future()
                self._waiting.append(room)
        loop = self._turn.engine.loop
        if must_begin:
            loop.call_soon_threadsafe(self._begin)
        if room is not None:
            loop.call_soon_threadsafe(self._hurry.set)
        return room

    def _check(self) -> None:
        if isinstance(self._error, TaskNotHeld):
            raise asyncio.CancelledError("somebody else has the task") from self._error
        if self._error is not None:
            raise self._error

    def _gather(self, stream: str, values: list[Any], size: int) -> None:
        """Add to the last batch if both are items of one stream and fit into one call."""
        last = self._batches[-1] if self._batches else None
        fits = self._bytes + size <= MAX_BYTES
        if last is not None and last[0] == stream and last[1] and values and fits:
            last[1].extend(values)
        else:
            self._batches.append((stream, values))
        self._bytes += size

    # On the loop.

    async def flushed(self) -> None:
        """Wait until the database has everything. Raises the error that refused it.

        A lost lease is not raised: nobody takes the outcome of the attempt then.
        """
        if self._is_sending:
            ended: asyncio.Future[None] = self._turn.engine.loop.create_future()
            self._flushing.append(ended)
            self._hurry.set()
            await ended
        if isinstance(self._error, TaskNotHeld):
            logger.warning("%r could not publish: %s", self._turn, self._error)
        elif self._error is not None:
            raise self._error

    def _begin(self) -> None:
        self._turn.engine.spawn(self._send())

    async def _send(self) -> None:
        """Send what gathers, until nothing has come for a while."""
        try:
            while batches := await self._gathered():
                for stream, items in batches:
                    self._sent += 1
                    key = f"{self._attempt}/{self._sent}"
                    await self._links.publish(self._turn, stream, items, key, self._source)
        except Exception as error:
            self._error = error
            if not isinstance(error, REFUSALS):
                raise
        except asyncio.CancelledError:
            self._error = TaskNotHeld(
                "the worker stops", hint="Let it end: another worker makes the attempt again."
            )
            raise
        finally:
            if self._error is not None:
                self._take()
            for ended in self._flushing:
                if not ended.done():
                    ended.set_result(None)
            self._flushing = []

    async def _gathered(self) -> list[Batch]:
        """Return what has come within a moment."""
        if not self._flushing:
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER_FOR):
                    await self._hurry.wait()
        self._hurry.clear()
        return self._take()

    def _take(self) -> list[Batch]:
        """Take what has gathered, and wake those who wait for room."""
        with self._lock:
            batches, self._batches, self._bytes = self._batches, [], 0
            self._is_sending = bool(batches) and self._error is None
            waiting, self._waiting = self._waiting, []
        for room in waiting:
            if not room.done():  # async code may have stopped waiting
                room.set_result(None)
        return batches
