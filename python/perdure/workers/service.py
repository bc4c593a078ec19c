"""The service of a worker: from when it registers until it has given back what it holds."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from perdure.basics.faults import crash_point
from perdure.database.connections import REFUSALS, AsyncLink, message_of, pauses
from perdure.database.sending import send_async

from .committer import log_trouble
from .engine import Engine
from .heartbeats import Heartbeat
from .watchdog import Watchdog

logger = logging.getLogger("perdure.worker")

GOODBYE_WITHIN = 5.0
"""Seconds for giving leases back at the end."""


class Service:
    """Let an engine serve its queues until it is `stopping`; running work then has a `grace`."""

    def __init__(
        self,
        engine: Engine,
        stopping: asyncio.Event,
        *,
        version: str | None,
        instance: str | None,
        grace: float,
    ):
        self._engine = engine
        self._stopping = stopping
        self._version = version
        self._instance = instance
        self._grace = grace
        self._link = AsyncLink(engine.source, "perdure worker", on_trouble=log_trouble, tells=True)

    async def run(self, *, on_ready: Callable[[], None], is_watched: bool) -> None:
        """Serve, and close the engine. The process ends if its loop hangs, if it `is_watched`."""
        heartbeat = Heartbeat(self._engine)
        watchdog = Watchdog(self._engine.loop, heartbeat.leases_end_after)
        try:
            if await self._is_registered():
                heartbeat.start()
                if is_watched:
                    watchdog.start()
                await self._work(on_ready)
        finally:
            heartbeat.stop()
            await self._link.close()
            await self._engine.close()  # runs code of parked coordinators
            watchdog.stop()

    async def _is_registered(self) -> bool:
        """Register, however long the database does not answer; return False if asked to stop."""
        registering = asyncio.create_task(self._register())
        try:
            return await ends_before(self._stopping, registering)
        finally:
            registering.cancel()
            await asyncio.gather(registering, return_exceptions=True)

    async def _register(self) -> None:
        engine = self._engine
        details = {
            "python": sys.version.split()[0],
            "loop": type(engine.loop).__name__,
            "pid": os.getpid(),
            "slots": engine.slots,
        }
        call = engine.calls.register_worker(
            engine.name,
            details,
            queues=engine.queues,
            version=self._version,
            functions=engine.app.functions(),
            instance=self._instance,
        )
        hello = await self._link.call(call)
        engine.clock.synchronize(hello["at"])
        engine.queues = hello["queues"]
        engine.instance = hello["instance"]
        logger.info("worker %s serves %s", engine.name, ", ".join(engine.queues))

    async def _work(self, on_ready: Callable[[], None]) -> None:
        """Work until asked to stop, or until a loop that must not end has ended."""
        loops: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._engine.committer.run()),
            asyncio.create_task(self._listen()),
        ]
        stopping = asyncio.create_task(self._stopping.wait())
        on_ready()
        try:
            await asyncio.wait([*loops, stopping], return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                await self._drain(loops[0])
            for task in loops:
                if task.done():
                    task.result()
        finally:
            for task in (*loops, stopping):
                task.cancel()
            await asyncio.gather(*loops, stopping, return_exceptions=True)

    async def _drain(self, committing: asyncio.Task[None]) -> None:
        """Claim nothing more, let work end while its end can be sent, give the rest back."""
        engine = self._engine
        engine.begin_stopping()
        await engine.committer.claimed()
        emptied = asyncio.create_task(engine.emptied())
        ends = [emptied, committing]
        await asyncio.wait(ends, timeout=self._grace, return_when=asyncio.FIRST_COMPLETED)
        emptied.cancel()
        crash_point("worker: before release")
        given_back = await engine.end_turns()
        with suppress(TimeoutError, *REFUSALS):  # the leases end by themselves
            async with asyncio.timeout(GOODBYE_WITHIN):
                if given_back:
                    await self._link.call(engine.calls.release(given_back))
                crash_point("worker: after release")
                await self._link.call(engine.calls.forget_worker(engine.name))

    async def _listen(self) -> None:
        """Listen for work, and for messages to held tasks; without it the worker polls."""
        engine, waiting = self._engine, pauses()
        messages = f"$messages/{engine.name}"
        while True:
            try:
                async with await engine.source.connect_async("perdure listens") as connection:
                    if engine.source.is_pooled:
                        logger.info("a pooler hides notifications: the worker polls for work")
                        break
                    cursor = connection.cursor()
                    channel = await send_async(cursor, engine.calls.channel())
                    await send_async(cursor, engine.calls.listen(channel))
                    waiting = pauses()
                    engine.committer.claim_in(0)
                    async for notice in connection.notifies():
                        if notice.payload in engine.queues:
                            engine.committer.notified(notice.pid)
                        elif notice.payload == messages:
                            engine.messages_arrived()
            except REFUSALS as error:
                logger.info("listening again: %s", message_of(error))
            await asyncio.sleep(next(waiting))
        await self._stopping.wait()


async def ends_before(stopping: asyncio.Event, running: asyncio.Future[Any]) -> bool:
    """Wait for what runs; return False if asked to stop before it has ended."""
    asked = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([running, asked], return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
    if running.done():
        running.result()
    return running.done()
