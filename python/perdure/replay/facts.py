"""Facts and open operations: what a task was told, and what its code asks for and waits for.

These are the words of replay without its rules, which are in `journal.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self

from perdure.values.items import Decode

SILENT = frozenset({"attempt", "dropped", "note", "patch"})
"""Kinds of facts that tell the code nothing: they only keep their place in the list and move
time."""

SENT_AHEAD = frozenset({"command", "read", "send"})
"""Kinds that the database may have applied before the code is told: only these may come late."""


class Evicted(BaseException):
    """The run is leaving memory: durable calls in its `finally` blocks end here, and do nothing."""

    def __str__(self) -> str:
        """Say it to code that has kept something of the run."""
        return "this run has left memory: its calls have no effect any more"


class Suspend(BaseException):
    """A plain function has to wait: it unwinds, and runs again from the top when there is more."""


class Fact(NamedTuple):
    """Something the code was told: one row of the journal. `at` is in µs since the epoch.

    `extra` is for the runtime (what else it has to send with the fact) and means nothing here.
    """

    kind: str
    key: str | None
    ok: bool
    value: Any
    at: int
    name: str | None = None
    fingerprint: str | None = None
    op: str | None = None
    path: tuple[str, ...] | None = None
    extra: Any = None


class Waiter(Protocol):
    """What wants to be told the answer of an operation."""

    def answer(self, operation: OpenOperation, fact: Fact, /) -> None:
        """Take the answer."""


class Request(Waiter, Protocol):
    """What code gets for a request. It has the answer when that comes."""

    def attach(self, operation: OpenOperation) -> Self:
        """Wait for this operation."""


@dataclass(slots=True, eq=False)
class OpenOperation:
    """Something the code asked for and has not been told yet. `deadline` is in µs (timers only).

    `kind` is the kind of the fact that answers it, `serial` counts what the task has asked for,
    `spec` belongs to the runtime.
    """

    key: str
    kind: str
    name: str
    fingerprint: str | None
    spec: Any
    decode: Decode
    failure: Callable[[Any], BaseException]
    deadline: int | None
    serial: int
    waiter: Waiter = field(repr=False)


def as_error(failure: Any) -> BaseException:
    """Make an error of a failure for which no class was given."""
    return RuntimeError(str(failure))
