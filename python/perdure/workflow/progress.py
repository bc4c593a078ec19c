"""Progress: how far running code says it is. Heartbeats carry it, so that a lost worker's is known;
by the same call the code hears that nobody wants it any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from perdure.errors import ValueTooLarge

from .asks import size_of, stored
from .publishing import Publisher, Room

if TYPE_CHECKING:
    from perdure.workers.turns import Turn

MAX_BYTES = 10_000
"""The size of a task's progress as JSON; the SQL functions have the same limit."""


MAX_SEALED = 7_000
"""The same of one that is encrypted, which makes it larger."""


class Progress:
    """How far a task is; other than for a dispatched activity, by the keys of what runs in it.

    The code notes it from any thread; heartbeats and releases say it.
    """

    __slots__ = ("_known", "_lock", "_max_bytes", "_noted", "_offered", "_said", "_value")

    def __init__(self, known: Any, max_bytes: int):
        self._lock = threading.Lock()
        self._max_bytes = max_bytes
        self._value = self._known = self._offered = known
        self._noted = self._said = 0

    def of(self, key: str | None) -> Any:
        """Tell how far something was."""
        return self._value if key is None else self._parts().get(key)

    def note(self, key: str | None, value: Any) -> None:
        """Take note of how far something is. Raises what a value may be refused for."""
        value = self._small(value)
        with self._lock:
            self._value = value if key is None else self._parts() | {key: value}
            self._noted += 1

    def _small(self, value: Any) -> Any:
        """Give a typed value as the database keeps it. Raises ValueTooLarge and others."""
        value = stored(value)
        size = size_of(value)
        if size > self._max_bytes:
            raise ValueTooLarge(
                "the progress is too large",
                detail=f"It has {size} bytes as JSON; at most {self._max_bytes} are allowed.",
                hint="Report a place to continue from, and keep results in the memory.",
            )
        return value

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
            self._offered = self._value
            return self._noted, {"progress": self._value} if is_new else {}

    def said(self, number: int) -> None:
        """Take note that the database knows it."""
        self._said, self._known = number, self._offered

    def found(self, known: Any) -> None:
        """Take what the database knows of a task that is taken up again, where others told it."""
        with self._lock:
            if known != self._known:
                self._value = self._known = known
                self._said = self._noted


class Pulse:
    """What heartbeat() and publish() ask: about an attempt of an activity, while it is made."""

    __slots__ = ("_is_over", "_key", "_turn", "publisher")

    def __init__(self, turn: Turn, key: str | None):
        self._turn = turn
        self._key = key
        self._is_over = False
        self.publisher: Publisher | None = None

    def beat(self, progress: Any) -> None:
        """Note the progress. Raises CancelledError where the attempt is over for the others."""
        self._check()
        if progress is not None:
            self._turn.progress.note(self._key, progress)

    def publish(self, path: list[str], items: Sequence[Any]) -> Room | None:
        """Add items to a stream; plain code waits here for room, async code awaits it.

        Raises CancelledError where the attempt is over for the others.
        """
        self._check()
        if self.publisher is None:
            source = self._turn.task if self._key is None else f"{self._turn.task}/{self._key}"
            self.publisher = Publisher(self._turn, source)
        room = self.publisher.put(path, items)
        if is_in_loop():
            return Room(room)
        return None if room is None else room.result()

    def close(self) -> None:
        """Let nothing more be told: the attempt is over for the others."""
        self._is_over = True

    def forget(self) -> None:
        """Let go of the progress of what will not be tried again."""
        if self._key is not None:
            self._turn.progress.forget(self._key)

    def _check(self) -> None:
        if self._is_over:
            raise asyncio.CancelledError("nobody waits for this attempt any more")


def is_in_loop() -> bool:
    """Tell whether the code that runs here must not wait, but await."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


pulse: ContextVar[Pulse | None] = ContextVar("perdure pulse", default=None)
"""That of the attempt which runs here."""
