"""Progress: how far running code says it is.

Heartbeats carry it, so that it is known if the worker is lost. By the same call, the code is told
that nobody wants it any more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from perdure.errors import ValueTooLarge

from .operations import size_of, stored
from .publishing import Publisher, Room

if TYPE_CHECKING:
    from perdure.workers.turns import Turn

MAX_BYTES = 10_000
"""The size of a task's progress as JSON; the SQL functions have the same limit."""


MAX_SEALED = 7_000
"""The same for an encrypted one, which is larger."""


class Progress:
    """How far a task is; except for a dispatched activity, by the keys of what runs in it.

    The code notes it from any thread; heartbeats and releases send it.
    """

    __slots__ = ("_known", "_lock", "_max_bytes", "_noted", "_offered", "_sent", "_value")

    def __init__(self, known: Any, max_bytes: int):
        self._lock = threading.Lock()
        self._max_bytes = max_bytes
        self._value = self._known = self._offered = known
        self._noted = self._sent = 0

    def of(self, key: str | None) -> Any:
        """Return the progress of something."""
        return self._value if key is None else self._parts().get(key)

    def note(self, key: str | None, value: Any) -> None:
        """Note the progress of something. Raises what a value may be refused for."""
        value = self._small(value)
        with self._lock:
            self._value = value if key is None else self._parts() | {key: value}
            self._noted += 1

    def _small(self, value: Any) -> Any:
        """Return a typed value as the database stores it. Raises ValueTooLarge and others."""
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
        """Note that something has ended."""
        with self._lock:
            parts = self._parts()
            if key in parts:
                self._value = {name: parts[name] for name in parts if name != key}
                self._noted += 1

    def _parts(self) -> dict[str, Any]:
        """Return the progress by keys; another language may have written another form."""
        return self._value if isinstance(self._value, dict) else {}

    def unsent(self) -> tuple[int, dict[str, Any]]:
        """Return what was not sent yet, as a field of a lease, and its number for `note_sent()`."""
        with self._lock:
            is_new = self._noted != self._sent
            self._offered = self._value
            return self._noted, {"progress": self._value} if is_new else {}

    def note_sent(self, number: int) -> None:
        """Note that the database knows it."""
        self._sent, self._known = number, self._offered

    def take_stored(self, known: Any) -> None:
        """Take the stored progress of a task that is taken up again, if others wrote it."""
        with self._lock:
            if known != self._known:
                self._value = self._known = known
                self._sent = self._noted


_beginning = threading.Lock()
"""Held for a moment by an attempt that publishes for the first time."""


class AttemptReporter:
    """What heartbeat() and publish() use during an attempt of an activity."""

    __slots__ = ("_is_over", "_key", "_turn", "publisher")

    def __init__(self, turn: Turn, key: str | None):
        self._turn = turn
        self._key = key
        self._is_over = False
        self.publisher: Publisher | None = None

    def heartbeat(self, progress: Any) -> None:
        """Note the progress. Raises CancelledError if nobody waits for the attempt any more."""
        self._check()
        if progress is not None:
            self._turn.progress.note(self._key, progress)

    def publish(self, path: list[str], items: Sequence[Any]) -> Room | None:
        """Add items to a stream. Plain code waits here for room, async code awaits it.

        Raises CancelledError if nobody waits for the attempt any more.
        """
        self._check()
        room = (self.publisher or self._begun()).put(path, items)
        if is_in_loop():
            return Room(room)
        return None if room is None else room.result()

    def _begun(self) -> Publisher:
        """Return the publisher; several threads of the attempt may ask for it first."""
        with _beginning:
            if self.publisher is None:
                source = self._turn.task if self._key is None else f"{self._turn.task}/{self._key}"
                self.publisher = Publisher(self._turn, source)
            return self.publisher

    def close(self) -> None:
        """Refuse all further calls: nobody waits for the attempt any more."""
        self._is_over = True

    def forget(self) -> None:
        """Drop the progress of what will not be tried again."""
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


reporter: ContextVar[AttemptReporter | None] = ContextVar("perdure reporter", default=None)
"""The reporter of the attempt that runs here."""
