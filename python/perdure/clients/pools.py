"""The connections of a client: as many as its calls need at a time, of which some are kept.

A call may have to wait for a lock as long as somebody's transaction is open. If other calls waited
for its connection, one of them might be the one that would release the lock, and no server detects
that deadlock.
"""

from __future__ import annotations

import asyncio
import queue
import time
from typing import Any

from perdure.basics.forks import note_resettable
from perdure.basics.loop_affinity import LoopAffinity
from perdure.database.call import Call
from perdure.database.connections import PATIENCE, AsyncLink, Link
from perdure.database.source import Source
from perdure.errors import InvalidArgument

NAME = "perdure client"

KEPT = 10
"""Number of connections that a client opens as needed, and keeps."""

BLOCKED_AFTER = 0.1
"""Seconds in which none of them was returned; a waiting call then opens another."""


class _Pool:
    """What the pools of both kinds of clients have in common."""

    def __init__(self, source: Source):
        self._source = source
        self._is_closed = False
        self._returned_at = 0.0
        self.reset()
        note_resettable(self)

    def reset(self) -> None:
        """Leave everything to the parent process and to its threads."""
        raise NotImplementedError

    def check_open(self) -> None:
        """Refuse to be used after close(). Raises InvalidArgument."""
        if self._is_closed:
            raise InvalidArgument(
                "this client is closed", hint="Use it before it is closed, or make another one."
            )

    def _is_blocked(self) -> bool:
        """Tell whether it is time for another connection; after a yes, not for a while."""
        now = time.monotonic()
        if now - self._returned_at < BLOCKED_AFTER:
            return False
        self._returned_at = now
        return True


class Pool(_Pool):
    """The connections of a plain client, for all its threads."""

    def reset(self) -> None:
        """Leave everything to the parent process and to its threads."""
        self._idle: queue.LifoQueue[Link] = queue.LifoQueue(KEPT)
        for _ in range(KEPT):
            self._idle.put(self._made())

    def call(self, call: Call) -> Any:
        """Send a call and give its answer. Raises this package's errors, and psycopg's."""
        link = self._taken()
        try:
            return link.call(call)
        finally:
            self._put_back(link)

    def _made(self) -> Link:
        return Link(self._source, NAME, PATIENCE)

    def _taken(self) -> Link:
        while True:
            self.check_open()
            try:
                return self._idle.get(timeout=BLOCKED_AFTER)
            except queue.Empty:
                if self._is_blocked():
                    return self._made()

    def _put_back(self, link: Link) -> None:
        self._returned_at = time.monotonic()
        try:
            self._idle.put_nowait(link)
        except queue.Full:
            link.close()
        if self._is_closed:
            self.close()

    def close(self) -> None:
        """Close the connections; those in use are closed when they come back."""
        self._is_closed = True
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return


class AsyncPool(_Pool):
    """The connections of an async client, for all its tasks."""

    def __init__(self, source: Source):
        super().__init__(source)
        self._affinity = LoopAffinity()

    def reset(self) -> None:
        """Leave everything to the parent process and to its tasks."""
        self._idle: asyncio.LifoQueue[AsyncLink] = asyncio.LifoQueue(KEPT)
        for _ in range(KEPT):
            self._idle.put_nowait(self._made())

    async def call(self, call: Call) -> Any:
        """Send a call and give its answer. Raises this package's errors, and psycopg's."""
        self.bind_loop()
        link = await self._taken()
        try:
            return await link.call(call)
        finally:
            await self._put_back(link)

    def bind_loop(self) -> None:
        """Abandon the connections of a loop that has ended.

        Raises InvalidArgument in another loop.
        """
        if self._affinity.rebind():
            while not self._idle.empty():
                self._idle.get_nowait().break_off()
            self.reset()

    def _made(self) -> AsyncLink:
        return AsyncLink(self._source, NAME, PATIENCE)

    async def _taken(self) -> AsyncLink:
        while True:
            self.check_open()
            if not self._idle.empty():
                return self._idle.get_nowait()
            try:
                async with asyncio.timeout(BLOCKED_AFTER):
                    return await self._idle.get()
            except TimeoutError:
                if self._is_blocked():
                    return self._made()

    async def _put_back(self, link: AsyncLink) -> None:
        self._returned_at = time.monotonic()
        try:
            self._idle.put_nowait(link)
        except asyncio.QueueFull:
            await link.close()
        if self._is_closed:
            await self.close()

    async def close(self) -> None:
        """Close the connections; those in use are closed when they come back."""
        self.bind_loop()
        self._is_closed = True
        while not self._idle.empty():
            await self._idle.get_nowait().close()
