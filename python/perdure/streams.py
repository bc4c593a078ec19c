"""Streams, as clients follow them: items of a log, with the place at which one can go on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from .calls import Calls
from .looks import Look
from .past import rows_of

END = 0
"""The place of what ends a stream."""


@dataclass(frozen=True, slots=True)
class StreamItem:
    """An item of a stream; `(version, place)` is where one goes on behind it.

    `source` is who published it. `attempt` differs between the attempts of an activity: when it
    changes for a source, what that source published before is void.
    """

    version: int
    place: int
    item: Any
    at: datetime
    source: str
    attempt: str | None


After = int | tuple[int, int] | StreamItem
"""A version, a version and a place in it, or the last item that one has seen."""


def place_of(after: After) -> tuple[int, int | None]:
    """Give a version and the place in it behind which to read."""
    if isinstance(after, StreamItem):
        return after.version, after.place
    return (after, None) if isinstance(after, int) else after


def items_behind(calls: Calls, job: str, stream: str, after: tuple[int, int | None]) -> Look:
    """Look for items of a stream behind a place; the last one may say that it ends."""
    call = calls.stream_items(job, stream, *after).reading(rows_of(StreamItem))
    return Look(f"$memory/{job}", partial(calls.watch, job), lambda: call, bool)
