"""The database's clock, as a worker knows it between two replies: never ahead of the true one."""

from __future__ import annotations

import time

from perdure.basics.durations import from_iso

_PACE = 0.9995e6
"""Microseconds counted for a second: a little less, so that a fast clock here is never ahead."""


class Clock:
    """The time of the database: the last one known, plus what has passed since."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known = (0, 0.0)

    def synchronize(self, instant: str) -> None:
        """Take the time that a reply tells."""
        self._known = from_iso(instant), time.monotonic()  # in one step: threads of hooks read it

    def now(self) -> int:
        """Return the time in microseconds since 1970."""
        instant, known_at = self._known
        return instant + int((time.monotonic() - known_at) * _PACE)

    def seconds_until(self, instant: int) -> float:
        """Return the seconds until an instant; 0 if it has passed."""
        return max(0.0, (instant - self.now()) / _PACE)
