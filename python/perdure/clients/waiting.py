"""Waiting for what `polling.py` names: NOTIFY is the quick way, looking now and then the sure one.

Through a pooler only the second works: a session that listens would next be somebody else's. The
same holds at a standby, and for a role that may read but may not register as waiting. [P11]

Time is up for a look that begins at that moment: what an earlier one has not seen may have come
since.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.errors import InsufficientPrivilege

from perdure.basics.forks import note_resettable
from perdure.basics.loop_affinity import LoopAffinity
from perdure.database.call import Call
from perdure.database.calls import Calls
from perdure.database.connections import (
    REFUSALS,
    AsyncLink,
    Link,
    can_be_repeated,
    is_standby,
    may_be_stale,
)
from perdure.database.sending import send, send_async, send_together
from perdure.database.source import Source

from .polling import Poll

LADDER = (0.005, 0.025, 0.125)
"""Seconds between the first looks: whoever ends a job may have looked for listeners just before
this one registered, and have committed just after it had looked."""

FIRST_POLL, LONGEST_POLL = 0.25, 2.0

GRACE = 2.0
"""Seconds after the end of a wait that the database still has for its answer."""


def delays() -> Iterator[float]:
    """Yield the seconds between looks that need no notification."""
    yield from LADDER
    delay = FIRST_POLL
    while True:
        yield delay
        delay = min(2 * delay, LONGEST_POLL)


class Listener:
    """A connection that receives notifications, for one thread at a time.

    It listens only while somebody waits: notifications that nobody reads would fill the queue of
    the server, which all its databases share.
    """

    def __init__(self, source: Source, calls: Calls):
        self._source = source
        self._calls = calls
        self._link = Link(source, "perdure result")
        self._channel: str | None = None
        self.reset()
        note_resettable(self)

    def reset(self) -> None:
        """Listen under a new name: that of a parent process is not for this one."""
        self._name = uuid.uuid4().hex
        self._is_listening = False
        self._may_listen = True

    def wait(self, poll: Poll) -> Any:
        """Return what was looked for, or None if time is up first."""
        self._is_listening = False
        self._may_listen = not self._source.is_pooled
        try:
            return self._wait(poll)
        except REFUSALS:
            raise
        except BaseException:  # raised by a signal handler: the answer may still be on its way
            self._link.break_off()
            self._is_listening = False
            raise
        finally:
            if self._is_listening and self._link.is_connected():
                self._stop_listening()

    def _wait(self, poll: Poll) -> Any:
        is_renewed = False
        for delay in delays():
            try:
                connection, is_last = self._link.connection(), poll.is_over()
                connection.until = None if poll.until is None else poll.until + GRACE
                seen = self._poll(connection, poll)
                is_renewed = False
                if poll.is_seen(seen) or is_last:
                    return poll.found(seen)
                self._await_notification(connection, poll.topic, poll.pause(delay))
            except psycopg.Error as error:
                if not is_renewed and may_be_stale(error):
                    is_renewed = True
                elif not can_be_repeated(error, self._link.is_connected()):
                    raise
                self._link.close()
                time.sleep(min(delay, FIRST_POLL))
                if poll.until is not None and time.monotonic() > poll.until + GRACE:
                    raise
        raise AssertionError("delays never end")

    def _poll(self, connection: psycopg.Connection[Any], poll: Poll) -> Any:
        """Look, and wait no more, since a notification is most likely right.

        A look that sees nothing, and has time, registers as waiting and looks once more.
        """
        if self._is_listening:
            seen = send_together(connection, poll.call(), *self._stop())[0]
            self._is_listening = False
        else:
            seen = send(connection, poll.first())
        if poll.is_seen(seen) or poll.is_over():
            return seen
        if not self._may_listen or is_standby(connection):
            return seen
        try:
            self._listen(connection, poll)
        except InsufficientPrivilege:  # a reader: nothing was begun, and looking is enough
            self._is_listening = self._may_listen = False
            return seen
        return send(connection, poll.call())

    def _listen(self, connection: psycopg.Connection[Any], poll: Poll) -> None:
        if self._channel is None:
            self._channel = send(connection, self._calls.channel())
        self._is_listening = True
        send_together(connection, self._calls.listen(self._channel), poll.register(self._name))

    def _stop(self) -> tuple[Call, Call]:
        return self._calls.unlisten(), self._calls.stop_listening(self._name)

    def _stop_listening(self) -> None:
        """Leave no row behind.

        If that is not possible now, the database deletes the row in time.
        """
        try:
            send_together(self._link.connection(), *self._stop())
        except psycopg.Error:
            self._link.close()

    def _await_notification(
        self, connection: psycopg.Connection[Any], topic: str, seconds: float
    ) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for notice in connection.notifies(timeout=left, stop_after=1):
                if notice.payload == topic:
                    return

    def close(self) -> None:
        """Close the connection."""
        self._link.close()


class AsyncListener:
    """The connection of an async client that receives notifications, for all its waits."""

    def __init__(self, source: Source, calls: Calls):
        self._source = source
        self._calls = calls
        self._link = AsyncLink(source, "perdure result")
        self._affinity = LoopAffinity()
        self._unregistrations: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.reset()
        note_resettable(self)

    def reset(self) -> None:
        """Receive nothing: what a parent process receives is not for this one."""
        self._name = uuid.uuid4().hex
        self._waiting = 0
        self._wakeups: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self._is_listening = asyncio.Event()

    async def wait(self, poll: Poll) -> Any:
        """Return what was looked for, or None if time is up first.

        It continues if the client is closed meanwhile; the last wait to end closes the connection.
        """
        self.bind_loop()
        self._waiting += 1
        try:
            return await self._seen(poll)
        finally:
            await self._end()

    async def _end(self) -> None:
        self._waiting -= 1
        if self._is_closed and not self._waiting:
            await self._link.close()

    def bind_loop(self) -> None:
        """Abandon the connections of a loop that has ended.

        Raises InvalidArgument in another loop.
        """
        if self._affinity.rebind():
            self._link.break_off()
            self._link.reset()
            self.reset()

    async def _seen(self, poll: Poll) -> Any:
        is_alone = self._waiting == 1  # otherwise others would wait for the connection
        is_last = poll.is_over()
        seen = await self._call(poll.first() if is_alone else poll.call(), poll.until)
        if poll.is_seen(seen) or is_last:
            return poll.found(seen)
        may_listen = not (self._source.is_pooled or self._link.is_to_standby)
        if not may_listen or self._is_closed or poll.is_over():
            return await self._wait(poll, asyncio.Event())
        wakeup = asyncio.Event()
        topic = poll.topic
        name = f"{self._name}:{uuid.uuid4().hex}"
        self._wakeups[topic].add(wakeup)
        if self._task is None or self._task.done():
            self._is_listening = asyncio.Event()
            self._task = asyncio.create_task(self._run())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_POLL):
                    await self._is_listening.wait()
            return await self._wait(poll, wakeup, poll.register(name))
        finally:
            self._wakeups[topic].discard(wakeup)
            if not self._wakeups[topic]:
                del self._wakeups[topic]
            self._waiting += 1
            unregistration = asyncio.create_task(self._unregister(name))
            self._unregistrations.add(unregistration)
            unregistration.add_done_callback(self._unregistrations.discard)
            await asyncio.shield(unregistration)

    async def _unregister(self, name: str) -> None:
        """Leave no row behind. Runs in a task of its own.

        A task that anyio cancels, as for a web client that has gone, is cancelled again at every
        await until it has ended.
        """
        try:
            with suppress(psycopg.Error):  # the database forgets it in time anyway
                await self._call(self._calls.stop_listening(name), time.monotonic())
        finally:
            await self._end()

    async def _call(self, call: Call, until: float | None) -> Any:
        """Send a call, again and again until time is up and a little longer.

        Raises psycopg.OperationalError then: a silent database must not hold up anybody.
        """
        left = None if until is None else max(until - time.monotonic(), 0) + GRACE
        try:
            async with asyncio.timeout(left):
                return await self._link.call(call)
        except TimeoutError as error:
            raise psycopg.OperationalError("the database did not answer in time") from error

    async def _wait(self, poll: Poll, wakeup: asyncio.Event, register: Call | None = None) -> Any:
        for delay in delays():
            is_last = poll.is_over()
            if register is not None and not (is_last or wakeup.is_set()):
                try:
                    await self._call(register, poll.until)
                except InsufficientPrivilege:  # a reader: looking is enough
                    register = None
            wakeup.clear()
            seen = await self._call(poll.call(), poll.until)
            if poll.is_seen(seen) or is_last:
                return poll.found(seen)
            with suppress(TimeoutError):
                async with asyncio.timeout(poll.pause(delay)):
                    await wakeup.wait()
        raise AssertionError("delays never end")

    async def _run(self) -> None:
        """Receive notifications and wake the waits that they are for."""
        while True:
            try:
                await self._listen()
            except InsufficientPrivilege:  # the caller is not held up, and the next one asks again
                return
            except psycopg.Error:
                pass
            self._is_listening.clear()
            await asyncio.sleep(FIRST_POLL)

    async def _listen(self) -> None:
        connection = await self._source.connect_async("perdure listens")
        async with connection:
            cursor = connection.cursor()
            channel = await send_async(cursor, self._calls.channel())
            await send_async(cursor, self._calls.listen(channel))
            self._is_listening.set()
            async for notice in connection.notifies():
                for wakeup in self._wakeups.get(notice.payload, ()):
                    wakeup.set()

    async def close(self) -> None:
        """Close the connections."""
        self.bind_loop()
        self._is_closed = True
        task, self._task = self._task, None
        try:
            if task is not None and not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        finally:
            await self._link.close()
