"""Heartbeats: a thread with its own connection renews the leases of a worker, and watches its loop.

Code that blocks the loop is reported, and not protected for ever.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from perdure.basics.faults import crash_point
from perdure.database.connections import REFUSALS, Link, message_of

if TYPE_CHECKING:
    from .engine import Engine
    from .turns import Turn

logger = logging.getLogger("perdure.worker")

TICK = 0.5
"""Seconds between two looks at the loop."""
BLOCKED_AFTER = 2.0
"""Seconds without a sign of life from the loop after which it is reported."""
HUNG_AFTER = 60.0
"""Seconds without a sign of life after which leases are not renewed any more; two leases if that is
longer."""
MAX_TASKS = 1000
"""Number of leases renewed by one statement."""


class Heartbeat:
    """Renew the leases of an engine: `start()` and `stop()` in its loop."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._every = engine.lease_for / 3
        self._hung_after = max(HUNG_AFTER, 2 * engine.lease_for)
        self._link = Link(engine.source, "perdure heartbeat", patience=self._every)
        self._stopped = threading.Event()
        self._loop_thread = threading.get_ident()
        self._seen_at = time.monotonic()
        self._asked_at: float | None = None
        self._is_reported = False
        self._thread = threading.Thread(target=self._run, name="perdure-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin, in the loop."""
        self._sign()  # it may have waited long for the database before
        self._thread.start()

    def stop(self) -> None:
        """Stop, even if it has not begun. Leases are not renewed any more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        due_at = time.monotonic() + self._every
        while not self._stopped.wait(min(TICK, self._every / 2)):
            try:
                self._watch()
                if time.monotonic() >= due_at or self._engine.wants_heartbeat:
                    self._engine.wants_heartbeat = False
                    due_at = time.monotonic() + self._every
                    self._beat()
            except Exception:  # leases must be renewed as long as possible
                logger.exception("a heartbeat has failed")
        self._link.close()

    @property
    def leases_end_after(self) -> float:
        """Seconds without a sign of life from the loop after which no lease is left."""
        return self._hung_after + self._engine.lease_for

    # The loop.

    def _watch(self) -> None:
        """Ask the loop for a sign of life, and report code that blocks it.

        It is silent since it was asked: while the database holds up a heartbeat, nobody asks.
        """
        asked_at = self._asked_at  # read once: the loop may answer at any moment
        if asked_at is not None:
            silent_for = time.monotonic() - asked_at
            if silent_for > BLOCKED_AFTER and not self._is_reported:
                self._is_reported = True
                self._report(silent_for)
            return
        self._asked_at = time.monotonic()
        try:
            self._engine.loop.call_soon_threadsafe(self._sign)
        except RuntimeError:  # the loop has ended
            self._stopped.set()

    def _sign(self) -> None:
        self._seen_at = time.monotonic()
        self._is_reported = False
        self._asked_at = None

    def _report(self, silent_for: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "unknown"
        logger.warning(
            "the worker's loop has been blocked for %.1f s by %r; blocking work belongs in a plain"
            " `def` activity or hook:\n%s",
            silent_for,
            self._engine.running or "a hook or activity",
            stack,
        )

    # The leases.

    def _beat(self) -> None:
        if time.monotonic() - self._seen_at > self._hung_after:
            logger.error("the worker's loop hangs: its leases are not renewed any more")
            return
        turns = list(self._engine.held.values())
        for start in range(0, len(turns), MAX_TASKS):
            self._extend(turns[start : start + MAX_TASKS])

    def _extend(self, turns: list[Turn]) -> None:
        crash_point("heartbeat: before send")
        unsent = [turn.progress.unsent() for turn in turns]
        tasks = [turn.lease() | told for turn, (_, told) in zip(turns, unsent, strict=True)]
        try:
            answers = self._link.call(self._engine.calls.extend(tasks, self._engine.lease_for))
        except REFUSALS as error:
            logger.warning("leases could not be renewed this time: %s", message_of(error))
            return
        for turn, (number, _), task, answer in zip(turns, unsent, tasks, answers, strict=True):
            if answer["state"] == "held":
                turn.progress.note_sent(number)
            if "error" in answer:
                logger.warning("the progress of %r is not stored: %s", turn, answer["error"])
            if answer["state"] == "lost" or answer["cancel"]:
                self._engine.loop.call_soon_threadsafe(
                    self._engine.heartbeat_answered, task, answer["state"], answer["cancel"]
                )
