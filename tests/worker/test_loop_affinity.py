"""An async client works in several event loops, one after the other, but not at the same time."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

import perdure
from perdure.basics.loop_affinity import LoopAffinity
from perdure.clients.pools import KEPT

T = "20 s"


async def counts(client: perdure.AsyncClient, many: int = 1) -> None:
    """Make this many calls at once, and then as many waits."""
    memory = client.entity("e1")
    reached = max(await asyncio.gather(*(memory.increment("n") for _ in range(many))))
    waits = (memory.until(f"$.n >= {reached}", timeout=T) for _ in range(many))
    await asyncio.gather(*waits)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[perdure.AsyncClient]:
    """Give a client that has been used in this loop."""
    async with perdure.connect_async(dsn) as client:
        await client.create_entity("e1", "thing", {"n": 0})
        await counts(client)
        yield client


def test_client_rejects_calls_from_another_running_loop(dsn: str) -> None:
    """Two loops that read from the same connections would take each other's answers."""

    def elsewhere(client: perdure.AsyncClient) -> None:
        for use in (counts(client), client.handle("e1").result(timeout=0), client.close()):
            with pytest.raises(perdure.InvalidArgument, match="belongs to another event loop"):
                asyncio.run(use)

    async def main() -> None:
        async with connected(dsn) as client:
            await asyncio.gather(
                *(asyncio.to_thread(elsewhere, client) for _ in range(5)),
                *(counts(client, 2 * KEPT) for _ in range(5)),
            )
            assert await client.entity("e1").get("n") == 1 + 5 * 2 * KEPT

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.filterwarnings("error")
def test_client_works_in_a_new_loop_when_its_loop_has_ended(dsn: str) -> None:
    """Nothing of the client may stay bound to the first loop."""

    async def first() -> perdure.AsyncClient:
        client = await perdure.connect_async(dsn)
        await client.create_entity("e1", "thing", {"n": 0})
        await counts(client, 2 * KEPT)
        return client

    async def last(client: perdure.AsyncClient) -> None:
        await counts(client, 2 * KEPT)
        assert await client.entity("e1").get("n") == 6 * KEPT
        await client.close()

    client = asyncio.run(first())
    asyncio.run(counts(client, 2 * KEPT))
    asyncio.run(last(client))
    gc.collect()  # an open connection would warn here


@pytest.mark.filterwarnings("error")
def test_client_can_be_closed_in_another_loop_than_its_own(dsn: str) -> None:
    async def first() -> perdure.AsyncClient:
        client = await perdure.connect_async(dsn)
        await client.jobs()
        return client

    client = asyncio.run(first())
    asyncio.run(client.close())
    with pytest.raises(perdure.InvalidArgument, match="closed"):
        asyncio.run(client.handle("j").signal("go"))
    gc.collect()


def test_one_of_two_simultaneous_first_calls_is_rejected() -> None:
    """Both threads see that the client has no loop yet, and only one of them may bind it."""
    both = threading.Barrier(2)

    class Watched(LoopAffinity):
        seen: Any = None

        @property
        def _loop(self) -> Any:  # type: ignore[override]
            seen = self.seen
            with suppress(threading.BrokenBarrierError):
                both.wait(0.5)
            return seen

        @_loop.setter
        def _loop(self, loop: Any) -> None:
            self.seen = loop

    shared, done = Watched(), threading.Barrier(2)

    async def used() -> bool:
        try:
            shared.rebind()
        except perdure.InvalidArgument:
            return False
        finally:
            done.wait()  # neither loop is closed before both have answered
        return True

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: asyncio.run(used()), range(2)))
    assert sorted(answers) == [False, True]
