"""What a client waits for: the end of a job, changes of a memory, a condition on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .calls import Call, Calls
from .past import PAGE, Change, rows_of


@dataclass(frozen=True, slots=True)
class Look:
    """What a client waits for: where a hint comes from, how to ask for one, and how to look.

    `is_seen` tells by the answer of a call whether waiting has an end.
    """

    topic: str
    register: Callable[[str], Call]
    call: Callable[[], Call]
    is_seen: Callable[[Any], bool]


def end_of(calls: Calls, job: str) -> Look:
    """Look for the end of a job: (status, result, error)."""
    topic = f"$job/{job}"
    return Look(topic, partial(calls.listen_for, topic), lambda: calls.result(job), is_finished)


def change_of(calls: Calls, job: str, path: str, after: int) -> Look:
    """Look for changes of a memory after a version."""
    trail = Trail(calls, job, path, after)
    return Look(f"$memory/{job}", trail.register, trail.call, bool)


class Trail:
    """How far the changes of a memory have been read: those at other places are read once."""

    def __init__(self, calls: Calls, job: str, path: str, after: int):
        self._calls = calls
        self._job = job
        self._path = path
        self._after = after
        self._version = after

    def register(self, listener: str) -> Call:
        """Ask for hints, and be told the version that a look afterwards sees at least."""
        return self._calls.watch(self._job, listener).reading(self._note)

    def call(self) -> Call:
        """Read what is new."""
        return self._calls.changes(self._job, self._path, self._after, PAGE).reading(self._read)

    def _note(self, version: int | None) -> None:
        self._version = max(self._version, version or 0)

    def _read(self, rows: Any) -> list[Change]:
        changes: list[Change] = rows_of(Change)(rows)
        if not changes:
            self._after = self._version
        return changes


def condition_on(calls: Calls, job: str, condition: str) -> Look:
    """Look whether a memory fulfils a condition: the version that does."""
    call = calls.meets(job, condition)
    return Look(f"$memory/{job}", partial(calls.watch, job), lambda: call, is_something)


def is_something(answer: Any) -> bool:
    """Tell whether there is an answer."""
    return answer is not None


def is_finished(row: Any) -> bool:
    """Tell whether waiting has an end, by (status, result, error)."""
    return row is not None and row[0] != "running"
