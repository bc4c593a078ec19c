"""What a client does with queues: set limits, pause, count tasks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Generic, TypeVar

from .base_client import BaseClient
from .past import rows_of

_None = TypeVar("_None")
_Bool = TypeVar("_Bool")
_Depths = TypeVar("_Depths")


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many tasks a queue has, and its limits (None: not limited).

    - `ready`: could be claimed now. `held_back`: due, but a limit or a pause keeps them from
      workers.
    - `leased`: held by workers. `waiting`: wait for a message. `delayed`: wait for their time.
    - `stuck`: wait for other code or for somebody to resume them. `paused_tasks`: belong to paused
      jobs.
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
    rate_per_key: Decimal | None
    burst_per_key: Decimal | None


class Queues(BaseClient, Generic[_None, _Bool, _Depths]):
    """The methods of a client that concern queues."""

    def set_queue(
        self,
        queue: str,
        *,
        max_running: int | None = None,
        max_per_key: int | None = None,
        rate_per_second: float | Decimal | None = None,
        burst: float | Decimal | None = None,
        rate_per_key: float | Decimal | None = None,
        burst_per_key: float | Decimal | None = None,
    ) -> _None:
        """Limit a queue: `client.set_queue("llm", max_running=10, rate_per_second=5)`.

        - `max_running`: how many of its tasks run at a time. `max_per_key`: the same for each
          `limit_key`.
        - `rate_per_second`: how many turns begin each second. `burst`: how many may begin at once.
          `rate_per_key` and `burst_per_key`: the same for each `limit_key`.

        A limit that you leave out is removed. Raises InvalidArgument and InvalidName.
        """
        limits = {"max_running": max_running, "max_per_key": max_per_key}
        rates = {"rate_per_second": rate_per_second, "burst": burst}
        rates |= {"rate_per_key": rate_per_key, "burst_per_key": burst_per_key}
        return self.give(self.calls.set_queue(queue, rates, **limits))

    def pause_queue(self, queue: str) -> _Bool:
        """Keep the tasks of a queue from workers. What runs now continues.

        Returns False if it was paused before.
        """
        return self.give(self.calls.pause_queue(queue))

    def resume_queue(self, queue: str) -> _Bool:
        """Give the tasks of a queue to workers again; return False if it was not paused."""
        return self.give(self.calls.resume_queue(queue))

    def queue_depths(self, queue: str | None = None) -> _Depths:
        """Count the tasks of each queue, or of one queue; return a list of QueueDepth."""
        return self.give(self.calls.queue_depths(queue).reading(rows_of(QueueDepth)))
