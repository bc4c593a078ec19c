"""Streams, as clients follow them: items of a log, with the place at which to continue."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
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


class Reading:
    """How a stream is read after a place: to its end, or until nothing has come for a time."""

    def __init__(self, calls: Calls, job: str, name: Path, after: Place, timeout: Duration | None):
        self._calls = calls
        self._job = job
        self._name = name
        self._after = after
        self._timeout = timeout
        self.ended = False

    def pages(self) -> Pages[StreamItem]:
        """Read page after page."""
        stream, last = written(self._name), place_of("after", self._after)
        while items := (yield self._behind(stream, last)):
            end = next((n for n, item in enumerate(items) if item.place == END), None)
            yield items[:end]
            if end is not None:
                self.ended = True
                return
            last = items[-1].version, items[-1].place

    def _behind(self, stream: str, last: tuple[int, int | None]) -> Poll:
        """Look for items after a place; one may be the end."""
        calls, job, until = self._calls, self._job, until_of(self._timeout)[1]
        call = calls.stream_items(job, stream, *last).reading(rows_of(StreamItem))
        return Poll(f"$memory/{job}", partial(calls.watch, job), lambda: call, bool, until)


class Stream(Iterator[StreamItem]):
    """A stream that a plain client follows: `for item in handle.stream("tokens"): ...`."""

    def __init__(self, items: Iterator[StreamItem], reading: Reading):
        self._items = items
        self._reading = reading

    @property
    def ended(self) -> bool:
        """Whether the loop is over because nothing more comes; False if its `timeout` ended it."""
        return self._reading.ended

    def __next__(self) -> StreamItem:
        return next(self._items)


class AsyncStream(AsyncIterator[StreamItem]):
    """A stream that an async client follows: `async for item in handle.stream("tokens"): ...`."""

    def __init__(self, items: AsyncGenerator[StreamItem, None], reading: Reading):
        self._items = items
        self._reading = reading

    @property
    def ended(self) -> bool:
        """Whether the loop is over because nothing more comes; False if its `timeout` ended it."""
        return self._reading.ended

    def __anext__(self) -> Awaitable[StreamItem]:
        return self._items.__anext__()

    async def aclose(self) -> None:
        """End the loop, for `contextlib.aclosing()`."""
        await self._items.aclose()
