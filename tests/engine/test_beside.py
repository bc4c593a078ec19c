"""A worker beside the event loop of another program, such as a web server."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import pairwise

import pytest

import perdure


def test_event_loop_runs_while_its_worker_stops(app: perdure.App, dsn: str) -> None:
    """The loop keeps ticking while the worker waits for an activity during its grace."""
    begun = threading.Event()
    ticks: list[float] = []

    @app.activity
    async def slow() -> None:
        begun.set()
        await asyncio.sleep(3600)

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await slow()

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.02)

    async def serve() -> None:
        async with perdure.connect_async(dsn) as client, perdure.Worker(app, dsn=dsn, grace=1):
            await client.start(waits)
            assert await asyncio.to_thread(begun.wait, 20)
            beside.append(asyncio.create_task(tick()))

    beside: list[asyncio.Task[None]] = []
    asyncio.run(serve())
    assert ticks[-1] - ticks[0] > 0.8
    assert max(later - earlier for earlier, later in pairwise(ticks)) < 0.6


def test_cancel_during_the_stop_of_a_worker_is_raised(app: perdure.App, dsn: str) -> None:
    """A task that is cancelled while its worker stops raises CancelledError, and the worker
    stops."""
    worker = perdure.Worker(app, dsn=dsn)

    async def serve() -> None:
        async with worker:
            asyncio.get_running_loop().call_soon(serving.cancel)

    async def main() -> None:
        nonlocal serving
        serving = asyncio.create_task(serve())
        with pytest.raises(asyncio.CancelledError):
            await serving

    serving: asyncio.Task[None]
    asyncio.run(main())
    assert worker._thread is None


def test_worker_that_cannot_connect_raises_the_error(app: perdure.App) -> None:
    async def serve() -> None:
        async with perdure.Worker(app, dsn="host=/nowhere dbname=x"):
            pass

    with pytest.raises(Exception, match="nowhere"):
        asyncio.run(serve())
