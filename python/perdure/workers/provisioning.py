"""Provisioning that can be broken off: it may wait long for others who install or use tables."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import psycopg
from psycopg.pq.abc import PGcancel
from psycopg.rows import TupleRow

from perdure.basics.threads import in_thread
from perdure.database.source import Source

logger = logging.getLogger("perdure.worker")

BROKEN_OFF_WITHIN = 5.0
"""Seconds for the server to notice. A thread that is still connecting then does nothing."""

PAUSE = 0.1
"""Seconds between two tries: one that falls between two statements has no effect."""


class Provisioning:
    """The installation or upgrade of an app, in a thread of its own.

    `makes` is False for a worker that serves a known instance: if there is no app, a restore may be
    about to bring it.
    """

    def __init__(self, source: Source, *, makes: bool):
        self._schema = source.schema
        self._makes = makes
        self._is_broken_off = False
        self._cancelling: PGcancel | None = None
        self.running = in_thread(lambda: source.provision(self._begin))

    def _begin(self, connection: psycopg.Connection[TupleRow]) -> None:
        from perdure.installation.install import check_app

        self._cancelling = connection.pgconn.get_cancel()
        if self._is_broken_off:
            raise psycopg.errors.QueryCanceled("the worker is asked to stop")
        if not self._makes:
            check_app(connection, self._schema)

    async def break_off(self) -> None:
        """Let the server roll back what was begun, and wait for that."""
        self._is_broken_off = True
        with suppress(TimeoutError):
            async with asyncio.timeout(BROKEN_OFF_WITHIN):
                while not self.running.done():
                    await in_thread(self._cancel)
                    await asyncio.wait([self.running], timeout=PAUSE)
        self.running.cancel()
        for failure in await asyncio.gather(self.running, return_exceptions=True):
            if failure is not None:
                logger.info("the app was not installed or upgraded: %r", failure)

    def _cancel(self) -> None:
        if self._cancelling is not None:
            with suppress(psycopg.Error):
                self._cancelling.cancel()
