"""Progress: how far running code says it is. Heartbeats carry it, so that a lost worker's is known;
by the same call the code hears that nobody wants it any more."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .asks import size_of, stored
from .errors import ValueTooLarge

if TYPE_CHECKING:
    from .activities import Outcome
    from .turns import Turn

MAX_BYTES = 10_000
"""The size of a task's progress as JSON; the SQL functions have the same limit."""


class Progress:
    """How far a task is; other than for a dispatched activity, by the keys of what runs in it.

    The code notes it from any thread; heartbeats and releases say it.
    """

    __slots__ = ("_lock", "_noted", "_said", "_value")

    def __init__(self, known: Any):
        self._lock = threading.Lock()
        self._value = known
        self._noted = self._said = 0

    def of(self, key: str | None) -> Any:
        """Tell how far something was."""
        return self._value if key is None else self._parts().get(key)

    def note(self, key: str | None, value: Any) -> None:
        """Take note of how far something is. Raises what a value may be refused for."""
        value = small(value)
        with self._lock:
            self._value = value if key is None else self._parts() | {key: value}
            self._noted += 1

    def forget(self, key: str) -> None:
        """Take note that something has ended."""
        with self._lock:
            parts = self._parts()
            if key in parts:
                self._value = {name: parts[name] for name in parts if name != key}
                self._noted += 1

    def _parts(self) -> dict[str, Any]:
        """Give the progress by keys; a worker in another language may have told it otherwise."""
        return self._value if isinstance(self._value, dict) else {}

    def news(self) -> tuple[int, dict[str, Any]]:
        """Give what nobody was told yet, as a field of a lease, and its number for `said()`."""
        with self._lock:
            is_new = self._noted != self._said
            return self._noted, {"progress": self._value} if is_new else {}

    def said(self, number: int) -> None:
        """Take note that the database knows it."""
        self._said = number


class Pulse:
    """What heartbeat() asks: about an attempt of an activity, while it is made."""

    __slots__ = ("_is_over", "_key", "_turn")

    def __init__(self, turn: Turn, key: str | None):
        self._turn = turn
        self._key = key
        self._is_over = False

    def beat(self, progress: Any) -> None:
        """Note the progress. Raises CancelledError where the attempt is over for the others."""
        if self._is_over:
            raise asyncio.CancelledError("nobody waits for this attempt any more")
        if progress is not None:
            self._turn.progress.note(self._key, progress)

    def ended(self, attempt: asyncio.Task[Outcome]) -> None:
        """Let nothing more be noted; what will not be tried again needs no progress any more."""
        self._is_over = True
        if self._key is None or attempt.cancelled() or attempt.result().again_in is not None:
            return
        self._turn.progress.forget(self._key)


pulse: ContextVar[Pulse | None] = ContextVar("perdure pulse", default=None)
"""That of the attempt which runs here."""


def small(value: Any) -> Any:
    """Give a typed value as the database keeps it. Raises ValueTooLarge and others."""
    value = stored(value)
    size = size_of(value)
    if size > MAX_BYTES:
        raise ValueTooLarge(
            "the progress is too large",
            detail=f"It has {size} bytes as JSON; at most {MAX_BYTES} are allowed.",
            hint="Tell a place to go on from; keep what was made in the memory.",
        )
    return value
