"""The search mark: where a claim begins to search its queues.

An old snapshot anywhere in the cluster keeps dead entries at the head of the index, and a search
from the beginning walks through all of them. So a claim returns a mark, from which the next one
searches. Only a search from the beginning sees tasks that became visible late, and returns when the
next task is due, so it must come again and again: this says when.
"""

from __future__ import annotations

import time

SEARCH_AGAIN = 1.0
"""Seconds after a full answer in which claims search from its mark, unless they find nothing."""

SLOW_SEARCH, SHARE, LONGEST = 0.02, 10, 10.0
"""A search from the beginning that takes longer than SLOW_SEARCH seconds may take one part in SHARE
of the time, and comes again after LONGEST seconds at most."""


class SearchMark:
    """Remember the mark of the last claim, and when to search from the beginning again."""

    def __init__(self) -> None:
        self._mark: str | None = None
        self._began_at = self._rested_at = self._next_at = 0.0

    @property
    def is_at_start(self) -> bool:
        """Tell whether the claim under way searches from the beginning."""
        return self._mark is None

    def since(self) -> str | None:
        """Return from where the next claim searches; None for the beginning."""
        now = time.monotonic()
        if self._mark is not None and now < self._next_at:
            return self._mark
        self._mark, self._began_at = None, now
        return None

    def move(self, mark: str | None, *, found: bool, is_full: bool) -> None:
        """Note what a claim has returned: its mark, whether it found tasks, and all it wanted."""
        if self._mark is None:
            took = time.monotonic() - self._began_at
            rest = min(took * SHARE, LONGEST) if took > SLOW_SEARCH else 0.0
            self._rested_at = self._began_at + rest
            least = SEARCH_AGAIN if is_full else 0.0
            self._next_at = self._began_at + max(rest, least)
        elif not found:
            self._next_at = self._rested_at
        self._mark = mark or self._mark

    def seconds_left(self) -> float:
        """Return the seconds until a claim may search from the beginning."""
        return max(0.0, self._next_at - time.monotonic())
