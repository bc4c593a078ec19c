"""The event loop that an async client belongs to: that of its first use, until it is closed.

A connection is read by the loop that has opened it, and who waits for a lock of asyncio is woken in
his own loop: from two loops at once both would wait for ever.
"""

from __future__ import annotations

import asyncio
import threading

from perdure.errors import InvalidArgument

from .forks import note_holder


class Belonging:
    """What may be used in one event loop at a time."""

    def __init__(self) -> None:
        self.begin_anew()
        note_holder(self)

    def begin_anew(self) -> None:
        """Belong to no loop of the parent process."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def has_ended(self) -> bool:
        """Tell whether the loop of earlier calls is closed; this one takes its place.

        Raises InvalidArgument where it is not, and another one runs.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return False
        with self._lock:  # the first calls of two threads may be one
            earlier = self._loop
            if earlier is not None and not earlier.is_closed():
                raise InvalidArgument(
                    "this client belongs to another event loop",
                    detail="It belongs to the loop of its first call until that loop is closed.",
                    hint="Connect in each loop, or let all threads share one perdure.connect().",
                )
            self._loop = loop
            return earlier is not None
