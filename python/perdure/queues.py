"""What a client does with queues: limits, pauses, depths; once for both kinds of clients."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Generic, TypeVar

from .past import rows_of
from .requests import BaseClient

_None = TypeVar("_None")
_Bool = TypeVar("_Bool")
_Depths = TypeVar("_Depths")


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How much work a queue has, and its limits (None: not limited).

    `ready` tasks could be claimed now; `held_back` ones are due, too, but limits or a pause keep
    them from workers. `leased` tasks take the slots; `waiting` ones wait for mail, `delayed` ones
    for their time, `stuck` ones and `paused_tasks` (of paused jobs) for somebody to resume them,
    or for other code.
    """

    queue: str
    paused: bool
    ready: int
    held_back: int
    leased: int
    waiting: int
    delayed: int
    stuck: int
    paused_tasks: int
    oldest_due_at: datetime | None
    max_running: int | None
    max_per_key: int | None
    rate_per_second: Decimal | None
    burst: Decimal | None


class Queues(BaseClient, Generic[_None, _Bool, _Depths]):
    """The verbs of a client that concern queues."""

    def set_queue(
        self,
        queue: str,
        *,
        max_running: int | None = None,
        max_per_key: int | None = None,
        rate_per_second: float | Decimal | None = None,
        burst: float | Decimal | None = None,
    ) -> _None:
        """Limit a queue: `client.set_queue("llm", max_running=10, rate_per_second=5)`.

        At most `max_running` of its tasks run at a time, and `max_per_key` of those with the same
        `limit_key`; at most `rate_per_second` begin a turn each second, and `burst` at once. What
        is left out is not limited, also where it was before. Raises InvalidArgument, InvalidName.
        """
        limits = {"max_running": max_running, "max_per_key": max_per_key}
        return self._give(self.calls.set_queue(queue, rate_per_second, burst, **limits))

    def pause_queue(self, queue: str) -> _Bool:
        """Keep a queue from workers; what is held goes on. False where it was paused before."""
        return self._give(self.calls.pause_queue(queue))

    def resume_queue(self, queue: str) -> _Bool:
        """Give a queue to workers again; false where it was not paused."""
        return self._give(self.calls.resume_queue(queue))

    def queue_depths(self, queue: str | None = None) -> _Depths:
        """Count the tasks of each queue, or of one: see QueueDepth."""
        return self._give(self.calls.queue_depths(queue).reading(rows_of(QueueDepth)))
