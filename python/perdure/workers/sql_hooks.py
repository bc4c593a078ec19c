"""Hooks in SQL: a worker claims their tasks as any other, and lets the database run them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING

import psycopg

from perdure.basics.names import is_own
from perdure.database.call import Call
from perdure.database.connections import REFUSALS, AsyncLink, pauses

from .side_connections import SideConnections
from .turns import Json, Turn

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("perdure.worker")

CONFLICT = "40"
"""The class of errors after which nothing was done, and the same call may succeed."""


class SqlHookTurn(Turn):
    """A task that the database runs: its commands and its end are one transaction there.

    The transaction takes effect only if the task is still held. Nobody interrupts it.
    """

    kind = "hook"

    def begin(self) -> None:
        """Let the database run it."""
        self.engine.sql_connections.run(self)

    def build(self) -> Json:
        """Return nothing: the database knows what it did."""
        raise NotImplementedError

    def answered(self, answer: Json) -> None:
        """Take nothing: nothing was sent."""


class SqlConnections(SideConnections):
    """Connections on which the database runs tasks.

    The tasks of one job run one after the other, since each locks its job.
    """

    def __init__(self, engine: Engine):
        super().__init__(engine)
        self._waiting: dict[str, deque[SqlHookTurn]] = {}
        self._at_work: set[str] = set()

    def run(self, turn: SqlHookTurn) -> None:
        """Run a task when a connection is free."""
        self._waiting.setdefault(turn.job, deque()).append(turn)
        if turn.job not in self._at_work:
            self._begin()

    def _made(self) -> AsyncLink:
        # Not repeated: the function itself may have broken the connection; the next claim decides.
        return AsyncLink(self._engine.source, "perdure hooks in SQL", patience=0)

    async def _work(self, link: AsyncLink) -> None:
        while (turn := self._next()) is not None:
            self._at_work.add(turn.job)
            try:
                await self._run_one(link, turn)
            finally:
                self._at_work.discard(turn.job)

    def _next(self) -> SqlHookTurn | None:
        """Return the next turn of a job that is not at work; the job then comes last."""
        job = next((job for job in self._waiting if job not in self._at_work), None)
        if job is None:
            return None
        turns = self._waiting.pop(job)
        turn = turns.popleft()
        if turns:
            self._waiting[job] = turns
        return turn

    async def _run_one(self, link: AsyncLink, turn: SqlHookTurn) -> None:
        if turn.is_over:
            return
        engine, place = self._engine, turn.place
        engine.threads[place] += 1  # while the database runs it, its lease is not given back
        span = None if is_own(turn.row["name"]) else engine.begin_span(turn.info, Context())
        state = "drop"
        try:
            state = await self._attempt(link, turn)
            logger.debug("%r: %s", turn, state)
        except REFUSALS as error:
            logger.warning("%r is tried again when its lease has ended: %s", turn, error)
        finally:
            engine.thread_ended(place)
            if span is not None:
                span.end(state)
        turn.over()
        engine.committer.claim_in(0)  # it may be due again soon

    async def _attempt(self, link: AsyncLink, turn: SqlHookTurn) -> str:
        """Let the database run a task, for as long as its hook may take."""
        calls, held = self._engine.calls, (turn.job, turn.task, turn.token)
        seconds = await link.call(calls.sql_hook_timeout(turn.row["name"]))
        limit = asyncio.timeout(None if seconds is None else float(seconds))
        try:
            async with limit:  # psycopg then cancels the statement
                return await _answer(link, calls.run_task(*held))
        except TimeoutError:
            if not limit.expired():
                raise
            return await _answer(link, calls.time_out_task(*held))


async def _answer(link: AsyncLink, call: Call) -> str:
    for pause in pauses():
        try:
            state: str = await link.call(call)
        except psycopg.Error as error:
            if not (error.sqlstate or "").startswith(CONFLICT):
                raise
        else:
            return state
        await asyncio.sleep(pause)
    raise AssertionError("pauses never end")
