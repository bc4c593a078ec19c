"""A connection whose calls end in time, also where the server is there and says nothing: a stopped
process, a disk that hangs. An asynchronous call is ended by its loop; a plain one has to look."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from psycopg.rows import TupleRow

T = TypeVar("T")


class HastyConnection(psycopg.Connection[TupleRow]):
    """A plain connection that gives a call up at `until` (monotonic seconds), and itself with it.

    Raises psycopg.OperationalError then: what comes later would be taken for another answer.
    """

    until: float | None = None

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
        """Consume a generator of the driver's, which is told several times a second how late it
        is: nothing is ready."""
        if self.until is not None:
            gen = self._in_time(gen, self.until)
        return super().wait(gen, *args, **options)

    def _in_time(self, gen: Generator[Any, Any, T], until: float) -> Generator[Any, Any, T]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > until:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the database did not answer in time")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result
