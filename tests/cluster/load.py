"""A load of clients with a record of what was acknowledged: none of it may be lost or done
twice."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

import perdure
from tests.cluster.machines import wait_for
from tests.storms.figures import Figures

T = "60 s"
PAGES = 2
BOOK = [list(range(2 * PAGES)), list(range(PAGES)), 2 * PAGES]
"""The result of the workflow `book` of `kill_app` for so many pages."""


class Load:
    """Clients that count, each on its own memory, and start jobs in between: `with Load(dsn)`."""

    def __init__(self, dsn: str, clients: int = 2, **options: Any):
        self._dsn = dsn
        self._options = options
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._guarded, args=[n], daemon=True) for n in range(clients)
        ]
        self.counted: dict[str, list[int]] = {f"counter {n}": [] for n in range(clients)}
        self.started: list[str] = []
        self.errors: list[Exception] = []
        self.slowest = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""
        self.stop()

    def stop(self) -> None:
        """Stop after each client has the answer to its last call."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive()

    def go_on(self, calls: int) -> None:
        """Wait until so many more calls were acknowledged."""
        enough = self.acknowledged() + calls
        wait_for(lambda: self.errors or self.acknowledged() >= enough)
        assert self.errors == []

    def tell(self, row: Figures) -> None:
        """Add the acknowledged calls to a row of figures."""
        row.operations += self.acknowledged()
        row.jobs += len(self.started)

    def acknowledged(self) -> int:
        """Return the number of acknowledged calls."""
        return sum(map(len, self.counted.values())) + len(self.started)

    def _guarded(self, number: int) -> None:
        try:
            self._run(number)
        except Exception as error:  # noqa: BLE001 - the test reports any error
            self.errors.append(error)

    def _run(self, number: int) -> None:
        name = f"counter {number}"
        with perdure.connect(self._dsn, provision=False, **self._options) as client:
            client.create_entity(name, "counter", {"n": 0})
            counter, counted = client.entity(name), self.counted[name]
            while not self._stopped.is_set():
                began = time.monotonic()
                counted.append(int(counter.increment("n")))
                if len(counted) % 10 == 1:
                    job = f"book {number}.{len(counted)}"
                    client.start("book", PAGES, id=job)
                    self.started.append(job)
                self.slowest = max(self.slowest, time.monotonic() - began)

    def check(self, client: perdure.Client) -> None:
        """Check that each acknowledged call was done once, and that every job ends right."""
        assert self.errors == []
        for name, counted in self.counted.items():
            assert counted == list(range(1, len(counted) + 1))
            assert client.entity(name).get("n") == len(counted)
        for job in self.started:
            assert client.handle(job).result(T) == BOOK, job
