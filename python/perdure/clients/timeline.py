"""Timelines, read by a client page by page: all that belongs to a job but its memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from perdure.database.calls import Calls

from .past import PAGE, rows_of
from .polling import Pages, Steps

BATCH = 10_000
"""Number of facts of old runs that are deleted in one call."""


@dataclass(frozen=True, slots=True)
class TimelineItem:
    """Something that belongs to a job: `kind` is job, fact, task, message or item.

    `body` is its row. The row of a fact has all that replay needs. The next page begins at `place`.
    """

    kind: str
    at: datetime | None
    task: str | None
    body: dict[str, Any]
    place: list[Any]


def timeline_pages(calls: Calls, job: str) -> Pages[TimelineItem]:
    """Read all that belongs to a job but its memory."""
    place: list[Any] | None = None
    while items := (yield calls.timeline(job, place, PAGE).reading(rows_of(TimelineItem))):
        yield items
        place = items[-1].place


def steps_to_forget(calls: Calls, job: str) -> Steps[int]:
    """Delete what the runs before the last one were told; return how many facts."""
    dropped = 0
    while some := (yield calls.forget_old_runs(job, BATCH)):
        dropped += some
    return dropped
