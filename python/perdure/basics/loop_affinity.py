"""The event loop that an async client belongs to: the loop of its first use, until that is closed.

A connection is read by the loop that opened it, and a task that waits for an asyncio lock is woken
in its own loop. Used from two loops at once, both would wait for ever.
"""

from __future__ import annotations

import asyncio
import threading

from perdure.errors import InvalidArgument

from .forks import note_resettable


class LoopAffinity:
    """Something that may be used in one event loop at a time."""

    def __init__(self) -> None:
        self.reset()
        note_resettable(self)

    def reset(self) -> None:
        """Belong to no loop of the parent process."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def rebind(self) -> bool:
        """Tell whether the loop of earlier calls is closed; the running loop then takes its place.

        Raises InvalidArgument if it is not closed and another loop runs.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return False
        with self._lock:  # two threads may make their first calls at the same time
            earlier = self._loop
            if earlier is not None and not earlier.is_closed():
                raise InvalidArgument(
                    "this client belongs to another event loop",
                    detail="It belongs to the loop of its first call until that loop is closed.",
                    hint="Connect in each loop, or let all threads share one perdure.connect().",
                )
            self._loop = loop
            return earlier is not None
