"""(T29) No notification ever arrives: work, signals, ends and changes are found by polling."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

import perdure
from tests.amount import amount
from tests.cluster.load import T
from tests.cluster.suites import run_tests
from tests.servers import SILENCE

POLL = 0.2
LOOK = 2.0  # the most seconds between two polls of a client
SLACK = 3.0  # less than a worker's default poll


@pytest.fixture
def app(dsn: str) -> perdure.App:
    """Provide an app in a database that sends no notifications."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SILENCE.encode())
    app = perdure.App()

    @app.hook
    async def answer(memory: perdure.AsyncEntity) -> int:
        await memory.set(True, "answered")
        return 42

    @app.coordinator
    async def ask(memory: perdure.AsyncEntity) -> list[int]:
        heard: int = await perdure.wait_for("go")
        return [heard, await answer(memory)]

    return app


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + SLACK


def test_waits_without_notifications_end_within_their_polls(app: perdure.App, dsn: str) -> None:
    """[P11] Start, signal, condition and result each take no longer than the polls involved."""
    with perdure.connect(dsn) as client, perdure.Worker(app, dsn=dsn, poll=POLL):
        time.sleep(4 * POLL)  # the worker is idle
        with within(1.2 * POLL):
            handle = client.start("ask")
            while handle.status().waiting_for != "signal go":
                time.sleep(0.01)
        time.sleep(4 * POLL)
        with within(3 * 1.2 * POLL + LOOK):
            handle.signal("go", 1)
            assert handle.memory.until("$.answered == true", timeout=T) > 0
            assert handle.result(T) == [1, 42]
        with psycopg.connect(dsn) as connection:
            heard = connection.execute("select count(*) from pg_listening_channels()").fetchone()
    assert heard == (0,)


def test_worker_tests_pass_without_notifications() -> None:
    if amount(10) <= 10:
        pytest.skip("`make cluster` runs them")
    names = [f"tests/worker/test_{name}.py" for name in ("signals", "runs")]
    run_tests(*names, PERDURE_TEST_SILENCE="1")
