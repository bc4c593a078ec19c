"""Hooks in SQL: a worker claims their tasks as any other, and lets the database run them."""

from __future__ import annotations

import logging

import psycopg

from .errors import PerdureError
from .turns import Json, Turn

logger = logging.getLogger("perdure.worker")

SQL_QUEUE = "$sql"
"""Where tasks stand that run inside the database."""


class SqlHookTurn(Turn):
    """A task that the database runs: claim, commands and end are its own; nothing is sent."""

    kind = "hook"

    def begin(self) -> None:
        """Let the database run it."""
        self.engine.spawn(self._run(), self)

    async def _run(self) -> None:
        try:
            state = await self.engine.run_task(self.job, self.task, self.token)
            logger.debug("%r: %s", self, state)
        except (PerdureError, psycopg.Error) as error:
            logger.warning("%r is tried again when its lease has ended: %s", self, error)
        self.over()

    def build(self) -> Json:
        """Give nothing: the database knows what it did."""
        raise NotImplementedError

    def answered(self, answer: Json) -> None:
        """Take nothing: nothing was sent."""

    def nudge(self) -> None:
        """Go on: a function of the database is not interrupted."""

    def drop(self) -> None:
        """Let go; what the database does now takes effect only if the task is still held."""
        self.over()

    def drain(self) -> None:
        """Go on: it ends by itself."""
