"""An upgrade while workers and clients are at work: nothing is lost, doubled, or tried in vain.
[P13] (T19)"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from releases import LATER, NOW, speaking

import perdure
from perdure import calls
from perdure.errors import ProtocolNotSupported
from perdure.install import install
from tests.amount import amount

Trees = dict[str, Path]

LAST = LATER[-1]
T = "60 s"


class Load:
    """Clients that start jobs and signal them, and workers that run them, through an upgrade."""

    def __init__(self, dsn: str):
        self.dsn = dsn
        self.done: Counter[int] = Counter()
        self.started: list[int] = []
        self.app = perdure.App()
        self._stopped = threading.Event()
        self._errors: list[BaseException] = []
        self._define()

    def _define(self) -> None:
        @self.app.activity
        async def step(number: int) -> int:
            self.done[number] += 1
            await asyncio.sleep(0.001)
            return number

        @self.app.hook(queue="q")
        async def page(memory: perdure.AsyncEntity, number: int) -> int:
            await memory.increment("hooks")
            return await step(number)

        @self.app.coordinator(queue="q", entity="load")
        async def book(memory: perdure.AsyncEntity, number: int) -> int:
            await memory.increment("n")
            told: int = await perdure.wait_for("go")
            return told + await page(memory, number)

        self.book = book

    def worker(self, **options: Any) -> perdure.Worker:
        """Give a worker that does not upgrade anything."""
        return perdure.Worker(self.app, dsn=self.dsn, provision=False, lease="2 s", **options)

    def client(self) -> perdure.Client:
        """Give a client that does not upgrade anything."""
        return perdure.connect(self.dsn, provision=False)

    def _drive(self, first: int) -> None:
        try:
            with self.client() as client:
                for number in range(first, first + 100_000):
                    if self._stopped.is_set():
                        return
                    handle = client.start(self.book, number, id=str(number))
                    self.started.append(number)
                    handle.signal("go", 1)
                    client.entity(f"note {first}").increment("n")
                    assert handle.status().status in ("running", "completed")
                    time.sleep(0.01)
        except Exception as error:  # noqa: BLE001 - it is told when the load ends
            self._errors.append(error)

    @contextmanager
    def clients(self) -> Iterator[None]:
        """Start jobs all the time; what a client is refused fails the test."""
        with self.client() as client:
            for first in (0, 100_000):
                client.create_entity(f"note {first}", "note")
        drivers = [threading.Thread(target=self._drive, args=(n,)) for n in (0, 100_000)]
        for driver in drivers:
            driver.start()
        try:
            yield
        finally:
            self._stopped.set()
            for driver in drivers:
                driver.join()
        assert self._errors == []

    def check(self) -> None:
        """See that each job has come to its end once, with each step done."""
        with self.client() as client:
            ended = [client.handle(str(number)).result(T) for number in self.started]
            notes = [client.entity(f"note {first}").get("n") for first in (0, 100_000)]
        assert ended == [number + 1 for number in self.started]
        assert sum(notes) == len(self.started)
        assert sorted(self.done) == sorted(self.started)
        with psycopg.connect(self.dsn) as connection:
            odd = "select id, context from perdure.jobs where workflow = 'book' and context <> %s"
            assert connection.execute(odd, ['{"n": 1, "hooks": 1}']).fetchall() == []


def test_workers_and_clients_go_on_through_an_upgrade(dsn: str, trees: Trees) -> None:
    """Hot functions change their signatures and types under them; no attempt is burned."""
    load = Load(dsn)
    with load.worker(), load.worker():
        with load.clients():
            time.sleep(0.3)
            for version in LATER[-amount(1) :]:
                with psycopg.connect(dsn, autocommit=True) as connection:
                    assert install(connection, "perdure", source=trees[version]) == version
                time.sleep(0.3)
        load.check()
    assert set(load.done.values()) == {1}
    assert len(load.started) > 10


def test_a_worker_of_another_protocol_ends_and_its_jobs_go_on_with_a_newer_one(
    dsn: str, trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one on the new schema, and the new one on the old schema, refuse with a reason."""
    source = speaking(Path(shutil.copytree(trees[LAST], tmp_path / "sql")), 2)
    load = Load(dsn)
    with monkeypatch.context() as newer:
        newer.setattr(calls, "PROTOCOL", 2)
        with pytest.raises(ProtocolNotSupported, match="version 2") as refused:
            load.worker().start()
        assert "upgrade the schema" in (refused.value.hint or "")
    worker = load.worker().start()
    with load.clients():
        time.sleep(0.3)
        with psycopg.connect(dsn, autocommit=True) as connection:
            install(connection, "perdure", source=source)
        time.sleep(0.1)
    with pytest.raises(ProtocolNotSupported, match="version 1"):
        worker.stop()
    with pytest.raises(ProtocolNotSupported):
        load.worker().start()
    monkeypatch.setattr(calls, "PROTOCOL", 2)
    with load.worker():
        load.check()


def test_a_worker_that_is_to_provision_brings_the_schema_to_its_version(
    dsn: str, trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten of them start at once, as in a deployment; the package is newer than the schema."""
    monkeypatch.setattr("perdure.script.source", lambda: trees[LAST])
    load = Load(dsn)
    workers = [perdure.Worker(load.app, dsn=dsn, lease="2 s") for _ in range(10)]
    threads = [threading.Thread(target=worker.start) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with load.clients():
        time.sleep(0.2)
    load.check()
    for worker in workers:
        worker.stop()
    with psycopg.connect(dsn) as connection:
        versions = "select array_agg(version order by applied_at) from perdure.migrations"
        assert connection.execute(versions).fetchone() == ([NOW, LAST],)
