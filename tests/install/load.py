"""Workers and clients that work while a test does something to their database."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg

import perdure
from perdure.installation import install as installer
from perdure.installation import script
from perdure.installation.statements import split

T = "60 s"


def statements_to_upgrade(source: Path) -> list[str]:
    """List the statements that an upgrade runs before it changes the tables."""
    return [found.text for part in script.upgrade(source) for found in split(part.text)]


def die_upgrading(dsn: str, schema: str, source: Path, statements_left: int) -> None:
    """Upgrade an app, and lose the connection after a number of statements."""
    run = installer._run

    def cut(connection: psycopg.Connection[Any], *statement: str) -> None:
        nonlocal statements_left
        if statements_left == 0:
            connection.pgconn.finish()
        statements_left -= 1
        run(connection, *statement)

    with (
        psycopg.connect(dsn, autocommit=True) as victim,
        patch.object(installer, "_run", cut),
        suppress(psycopg.OperationalError),
    ):
        installer.install(victim, schema, source=source)
        raise AssertionError("the upgrade did not lose its connection")


class Load:
    """Clients that start and signal jobs, and workers that run them, during an upgrade."""

    def __init__(self, dsn: str, schema: str = "perdure"):
        self.dsn = dsn
        self.schema = schema
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
            signalled: int = await perdure.wait_for("go")
            return signalled + await page(memory, number)

        self.book = book

    def worker(self, **options: Any) -> perdure.Worker:
        """Return a worker that does not upgrade the schema."""
        place: dict[str, Any] = {"dsn": self.dsn, "schema": self.schema, "provision": False}
        return perdure.Worker(self.app, lease="2 s", **place | options)

    def client(self) -> perdure.Client:
        """Return a client that does not upgrade the schema."""
        return perdure.connect(self.dsn, schema=self.schema, provision=False)

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
        except Exception as error:  # noqa: BLE001 - raised when the load ends
            self._errors.append(error)

    @contextmanager
    def clients(self) -> Iterator[None]:
        """Start jobs until the block ends; an error of a client fails the test."""
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
        assert self._errors == [], self._errors

    def check(self) -> None:
        """Check that each job has completed once, with each step done."""
        with self.client() as client:
            ended = [client.handle(str(number)).result(T) for number in self.started]
            notes = [client.entity(f"note {first}").get("n") for first in (0, 100_000)]
        assert ended == [number + 1 for number in self.started]
        assert sum(notes) == len(self.started)
        assert sorted(self.done) == sorted(self.started)
        with psycopg.connect(self.dsn) as connection:
            odd = f"select id from {self.schema}.jobs where workflow = 'book' and context <> %s"
            assert connection.execute(odd.encode(), ['{"n": 1, "hooks": 1}']).fetchall() == []
