"""The committer: the only place from which turns are sent to the database.

It sends what all turns have accumulated in one call: at once if no call is under way, else together
with whatever has gathered when the call returns. New tasks are claimed in the same round trip, or
in one of their own: `ClaimPace` says when, and `SearchMark` from where a claim searches.

A turn that would have to wait for another session's lock is answered `busy`, and is sent again,
waiting, on a connection of its own, together with all others that need the same job.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from perdure.basics.durations import as_interval, from_iso
from perdure.basics.faults import crash_point
from perdure.database.call import Call
from perdure.database.connections import FATAL, REFUSALS, AsyncLink, is_conflict, message_of
from perdure.errors import ValueSealed

from .claim_pace import ClaimPace
from .search_mark import SearchMark
from .side_connections import BusyConnections, EncodedTurn
from .turns import Json, Turn

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("perdure.worker")

MAX_TURNS, MAX_BYTES = 500, 4_000_000
"""How many turns, and letters of their texts, are gathered before a call goes."""

SECOND_TRY = 0.05
"""Seconds before a batch that was refused as a whole is sent again."""

CLAIMED_WITHIN = 1.0
"""Seconds for which a worker that stops waits for the reply to a claim."""


class Committer:
    """Send turns and claim tasks."""

    def __init__(self, engine: Engine, poll: float):
        self._engine = engine
        self._calls = engine.calls
        self._link = AsyncLink(
            engine.source, "perdure worker", on_trouble=self._call_failed, tells=True
        )
        self._queue: deque[Turn] = deque()
        self._wakeup = asyncio.Event()
        self._busy_connections = BusyConnections(engine)
        self._pace = ClaimPace(poll)
        self._mark = SearchMark()
        self._has_claimed = asyncio.Event()
        self._has_claimed.set()

    # What others call.

    def submit(self, turn: Turn) -> None:
        """Send a turn as soon as possible; it is asked to `build()` when it goes."""
        if not turn.queued and not turn.in_flight:
            turn.queued = True
            self._queue.append(turn)
            self._wakeup.set()

    def wake(self) -> None:
        """Check whether there is anything to do: a slot has become free."""
        self._wakeup.set()

    def claim_in(self, delay: float) -> None:
        """Look for tasks after at most `delay` seconds."""
        if self._pace.claim_in(delay):
            self._wakeup.set()

    def notified(self, sender: int) -> None:
        """Look for tasks, since a session of the server has notified of some."""
        if self._pace.notified(by_others=sender != self._link.backend):
            self._wakeup.set()

    def yield_claims(self, seconds: float) -> None:
        """Let others claim first for so many seconds: they have missing functions."""
        self._pace.yield_claims(seconds)

    def _call_failed(self, error: psycopg.Error) -> None:
        log_trouble(error)
        self._pace.unregister()

    # The loop.

    async def run(self) -> None:
        """Send and claim until cancelled. Raises FATAL errors."""
        while True:
            await self._something_to_do()
            await self._round()

    async def claimed(self) -> None:
        """Wait a moment for the tasks of a claim that is under way.

        If they stayed unknown here, nobody would have them until their leases end.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(CLAIMED_WITHIN):
                await self._has_claimed.wait()

    async def close(self) -> None:
        """Close the connections."""
        await self._busy_connections.close()
        await self._link.close()

    async def _something_to_do(self) -> None:
        while not self._queue:
            self._wakeup.clear()
            alarm: asyncio.TimerHandle | None = None
            if not self._engine.is_stopping and self._engine.room() > 0:
                delay = self._pace.seconds_left()
                if delay <= 0:
                    return
                alarm = self._engine.call_later(delay, self._wakeup.set)
            await self._wakeup.wait()
            if alarm is not None:
                alarm.cancel()

    async def _round(self) -> None:
        batch = self._gather()
        room = self._engine.room() + sum(encoded.is_final for encoded in batch)
        claims = room if not self._engine.is_stopping and self._is_time_to_claim(batch) else 0
        if self._pace.needs_no_hints(room):
            self._pace.unregister()
            await self._link.call(self._calls.stop_listening(self._engine.name))
        if claims > 0:
            self._pace.begin()
        if batch:
            await self._advance(batch, claims)
        elif claims > 0:
            await self._claim(claims)
        if not self._engine.held:
            self._pace.rest()

    def _is_time_to_claim(self, batch: list[EncodedTurn]) -> bool:
        """Tell whether to look for tasks.

        A turn that is sent anyway takes a claim along, unless notifications would tell of any task
        and it makes none due.
        """
        if self._pace.seconds_left() <= 0:
            return True
        if not self._has_hints():
            return bool(batch)
        return any(encoded.makes_tasks_due() for encoded in batch)

    def _has_hints(self) -> bool:
        return self._pace.is_registered and not self._engine.source.is_pooled

    def _gather(self) -> list[EncodedTurn]:
        """Let the waiting turns say what they have, up to the size of a call."""
        batch: list[EncodedTurn] = []
        size = 0
        at = self._engine.clock.now()
        while self._queue and len(batch) < MAX_TURNS and size < MAX_BYTES:
            turn = self._queue.popleft()
            turn.queued = False
            if turn.is_over or turn.in_flight:
                continue
            turn.in_flight = True
            turn.asked_at = at
            try:
                encoded = EncodedTurn(turn, turn.build())
            except ValueSealed as error:  # the codec may work again in a while
                self._engine.seal(turn, error)
                continue
            except Exception as error:  # one turn must not stop the others
                logger.exception("%r cannot be sent", turn)
                encoded = EncodedTurn(turn, turn.error_body(error))
            batch.append(encoded)
            size += len(encoded.text)
        return batch

    # Claiming.

    async def _claim(self, room: int) -> None:
        """Claim tasks with a call of its own.

        A worker without notifications asks for them if it has nothing to do.
        """
        engine = self._engine
        began = time.monotonic()
        asks_for_hints = self._pace.asks_for_hints()
        call = self._calls.claim(
            **self._wanted(room), idle=asks_for_hints or None, instance=engine.instance
        )
        self._has_claimed.clear()
        try:
            reply = await self._link.call(call)
        finally:
            self._has_claimed.set()
        engine.clock.synchronize(reply["at"])
        if asks_for_hints:
            self._pace.register(began_at=began, found=bool(reply["tasks"]))
        self._take(reply, room)

    def _wanted(self, room: int) -> Json:
        """Return the arguments of the claim."""
        engine = self._engine
        return {
            "queues": engine.queues,
            "worker": engine.name,
            "claim_id": str(uuid.uuid4()),
            "max_tasks": room,
            "lease_for": as_interval(engine.lease_for),
            "since": self._mark.since(),
        }

    def _take(self, reply: Json, room: int) -> None:
        """Begin with the claimed tasks, and plan the next claim."""
        tasks = reply["tasks"]
        found, is_full = bool(tasks), len(tasks) >= room
        was_at_start = self._mark.is_at_start
        self._mark.move(reply["since"], found=found, is_full=is_full)
        self._pace.plan(
            found=found,
            is_full=is_full,
            due_in=self._seconds_until(reply["next_due_at"]),
            search_in=math.inf if was_at_start else self._mark.seconds_left(),
            has_hints=self._has_hints(),
        )
        if tasks:
            crash_point("committer: after claim")
        for row in tasks:
            row |= {"token": reply["token"], "at": reply["at"]}
            self._engine.admit(row)

    def _seconds_until(self, due_at: str | None) -> float:
        return math.inf if due_at is None else self._engine.clock.seconds_until(from_iso(due_at))

    # Sending.

    def advance_call(self, batch: list[EncodedTurn], room: int = 0, waiting: bool = False) -> Call:
        """Return the call that sends a batch."""
        return self._calls.advance(
            f"[{','.join([encoded.text for encoded in batch])}]",
            [encoded.body for encoded in batch],
            **(self._wanted(room) if room > 0 else {}),
            waiting=waiting or None,
            instance=self._engine.instance,
        )

    async def _advance(self, batch: list[EncodedTurn], room: int) -> None:
        crash_point("committer: before send")
        try:
            reply = await self._sent(batch, room)
        except FATAL:
            raise
        except REFUSALS as error:
            await self.isolate(batch, error)
            return
        self.distribute(batch, reply)
        if room > 0:
            self._take(reply, room)

    async def _sent(self, batch: list[EncodedTurn], room: int) -> Json:
        """Send a batch; once more on a new connection, in case functions were just replaced."""
        call = self.advance_call(batch, room)
        try:
            reply: Json = await self._link.call(call)
        except FATAL:
            raise
        except REFUSALS as error:
            logger.warning("a batch was refused, trying once more: %s", message_of(error))
            await self._link.close()
            await asyncio.sleep(SECOND_TRY)
            reply = await self._link.call(call.again or call)
        return reply

    def distribute(self, batch: list[EncodedTurn], reply: Json) -> None:
        """Give each turn its answer."""
        self._engine.clock.synchronize(reply["at"])
        for encoded, answer in zip(batch, reply["turns"], strict=True):
            if answer["state"] == "busy":
                self._busy_connections.send(encoded)
            else:
                self._engine.answer(encoded.turn, answer)

    async def isolate(self, batch: list[EncodedTurn], error: Exception) -> None:
        """Find the turn that spoils a batch by halving it; the others go through."""
        if isinstance(error, FATAL):  # on a side connection: the next claim ends the worker
            for encoded in batch:
                encoded.turn.give_up(error)
            return
        if len(batch) > 1:
            half = len(batch) // 2
            await self._advance(batch[:half], 0)
            await self._advance(batch[half:], 0)
            return
        turn = batch[0].turn
        logger.error("%r made its batch fail and is parked: %s", turn, error)
        encoded = EncodedTurn(turn, turn.error_body(error))
        try:
            reply = await self._link.call(self.advance_call([encoded]))
        except REFUSALS as refusal:
            turn.give_up(refusal)
            return
        self._engine.clock.synchronize(reply["at"])
        self._engine.answer(turn, reply["turns"][0] | {"state": "stuck"})


def log_trouble(error: psycopg.Error) -> None:
    """Log that a call takes longer than it should."""
    if is_conflict(error):
        what = "a call met another one"
    elif (error.sqlstate or "").startswith("53"):
        what = "the database is out of resources"
    else:
        what = "the database does not answer"
    logger.warning("%s, trying again: %s", what, message_of(error))
