"""Timelines, seen by a client: all that belongs to a job but its memory, read page by page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .calls import Call, Calls
from .past import PAGE, rows_of

BATCH = 10_000
"""Facts of old runs that are dropped in one call."""


@dataclass(frozen=True, slots=True)
class TimelineItem:
    """Something that belongs to a job: `kind` is job, fact, task, message or item.

    `body` is its row; that of a fact has all that replay needs. The next page begins at `place`.
    """

    kind: str
    at: datetime | None
    task: str | None
    body: dict[str, Any]
    place: list[Any]


def page_of(calls: Calls, job: str, after: list[Any] | None) -> Call:
    """Give the call that reads the items after a place: a list, empty at the end."""
    return calls.timeline(job, after, PAGE).reading(rows_of(TimelineItem))
