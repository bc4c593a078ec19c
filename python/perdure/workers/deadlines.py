"""Deadlines: what is due at some time, the earliest first."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")

SPARE = 64
"""How many more entries than twice those that count a heap may have."""


class Deadlines(Generic[T]):
    """Things with a key and a time (µs). Of those due at the same time, the first added is first.

    A heap. Like a loop's timers, what is removed stays in it until it comes to the top, or until
    there is more of it than of what counts.
    """

    __slots__ = ("_added", "_entries", "_heap")

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, int, str, T]] = {}
        self._heap: list[tuple[int, int, str, T]] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, key: str, at: int, thing: T) -> None:
        """Add a thing that is due at a time; its key is new."""
        self._added += 1
        entry = self._entries[key] = (at, self._added, key, thing)
        heappush(self._heap, entry)

    def discard(self, key: str) -> None:
        """Remove a thing, if it is there."""
        if self._entries.pop(key, None) is None:
            return
        if len(self._heap) > 2 * len(self._entries) + SPARE:
            self._heap = sorted(self._entries.values())

    def clear(self) -> None:
        """Remove all."""
        self._entries.clear()
        self._heap.clear()

    def earliest(self) -> int | None:
        """Return the earliest time."""
        first = self._top()
        return None if first is None else first[0]

    def first(self) -> T | None:
        """Return what is due at the earliest time."""
        first = self._top()
        return None if first is None else first[3]

    def take_due(self, now: int) -> list[T]:
        """Remove and return what is due, the earliest first."""
        due: list[T] = []
        while (first := self._top()) is not None and first[0] <= now:
            self.discard(first[2])
            due.append(first[3])
        return due

    def _top(self) -> tuple[int, int, str, T] | None:
        heap = self._heap
        while heap and self._entries.get(heap[0][2]) is not heap[0]:
            heappop(heap)
        return heap[0] if heap else None
