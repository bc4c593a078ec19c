"""Waits of an async client end where they are cancelled, and leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import perdure
from perdure import waiting
from perdure.waiting import Ears

TOPIC = "$memory/order"
IN_TIME = 20.0
LONG = 60.0


@asynccontextmanager
async def waits(
    dsn: str, is_there: Callable[[set[asyncio.Event]], bool]
) -> AsyncIterator[tuple[Ears, asyncio.Task[int]]]:
    """Let a task wait for a memory until its bells are as wanted."""
    async with await perdure.connect_async(dsn) as client:
        order = await client.create_entity("order", "thing", {"n": 0})
        task = asyncio.create_task(order.until("$.n > 0"))
        for _ in range(int(IN_TIME / 0.02)):
            if is_there(client._ears._bells.get(TOPIC, set())):
                break
            await asyncio.sleep(0.02)
        yield client._ears, task
        task.cancel()
        await asyncio.wait([task], timeout=IN_TIME)


@pytest.mark.direct("it waits for a notification")
@pytest.mark.parametrize("steps", range(5))
def test_a_cancel_that_meets_a_hint_is_not_lost(
    dsn: str, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """However many steps of the event loop later it comes. Where they met, the wait went on for
    ever: `asyncio.wait_for` of Python 3.11 prefers the result."""
    monkeypatch.setattr(waiting, "LADDER", (LONG,))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with waits(dsn, lambda bells: any(bell._waiters for bell in bells)) as (ears, task):
            (bell,) = ears._bells[TOPIC]

            def cancel_in(left: int) -> None:
                if left:
                    loop.call_soon(cancel_in, left - 1)
                else:
                    task.cancel()

            bell.set()  # as a notification does
            cancel_in(steps)
            await asyncio.wait([task], timeout=3)
            assert task.cancelled()

    asyncio.run(main())


@pytest.mark.direct("it waits for a notification")
def test_a_wait_that_is_cancelled_before_it_listens_leaves_no_bell(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never_listens(ears: Ears) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(waiting, "FIRST_LOOK", LONG)
    monkeypatch.setattr(Ears, "_run", never_listens)

    async def main() -> None:
        async with waits(dsn, bool) as (ears, task):
            task.cancel()
            await asyncio.wait([task], timeout=IN_TIME)
            assert task.cancelled()
            assert not ears._bells

    asyncio.run(main())
