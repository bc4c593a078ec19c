"""A connection whose calls end in time, even if the server is there and says nothing.

Such a server is a stopped process, or has a disk that hangs. An event loop can end an asynchronous
call; a plain call has to check by itself.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from psycopg.rows import TupleRow

T = TypeVar("T")


class TimedConnection(psycopg.Connection[TupleRow]):
    """A plain connection that gives up a call at `until` (monotonic seconds), and closes then.

    Raises psycopg.OperationalError: what arrives later would be read as another answer.
    """

    until: float | None = None

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
        """Consume a generator of the driver, and check the time several times a second."""
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
