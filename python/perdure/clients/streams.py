"""Streams, as clients follow them: items of a log, with the place at which to continue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from perdure.basics.durations import Duration
from perdure.basics.paths import Path
from perdure.database.calls import Calls

from .past import Place, Placed, place_of, rows_of, written
from .polling import Pages, Poll, until_of

END = 0
"""The place of the end of a stream."""


@dataclass(frozen=True, slots=True)
class StreamItem(Placed):
    """An item of a stream. Give it as `after` to continue behind it, or its `(version, place)`.

    `source` is the task that published it. `attempt` differs between the attempts of an activity:
    when it changes for a source, ignore what that source published before.
    """

    item: Any
    at: datetime
    source: str
    attempt: str | None


def stream_pages(
    calls: Calls, job: str, name: Path, after: Place, timeout: Duration | None
) -> Pages[StreamItem]:
    """Read a stream after a place to its end, or until nothing has come for a time."""
    stream, last = written(name), place_of("after", after)
    while items := (yield items_behind(calls, job, stream, last, until_of(timeout)[1])):
        end = next((n for n, item in enumerate(items) if item.place == END), None)
        yield items[:end]
        if end is not None:
            return
        last = items[-1].version, items[-1].place


def items_behind(
    calls: Calls, job: str, stream: str, after: tuple[int, int | None], until: float | None
) -> Poll:
    """Look for items of a stream after a place; one may be the end."""
    call = calls.stream_items(job, stream, *after).reading(rows_of(StreamItem))
    return Poll(f"$memory/{job}", partial(calls.watch, job), lambda: call, bool, until)
