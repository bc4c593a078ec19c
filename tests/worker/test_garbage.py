"""Finished work leaves the memory of a worker at once.

It makes no reference cycles for the garbage collector, which comes late where much is alive, and
then stops everything else.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import perdure

EACH = 5

programs = perdure.App()


@contextmanager
def collected() -> Iterator[Counter[str]]:
    """Count, by type, the objects of the package that only the collector finds afterwards."""
    counts: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield counts
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = map(type, gc.garbage)
        counts.update(kind.__name__ for kind in kinds if kind.__module__.startswith("perdure"))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@programs.activity
async def double(number: int) -> int:
    return 2 * number


@programs.activity(timeout=5)
def triple(number: int) -> int:
    return 3 * number


@programs.activity(queue="default")
async def sent(number: int) -> int:
    return number


@programs.transaction
async def booked(connection: Any, number: int) -> int:
    await connection.execute("select 1")
    return number


@programs.hook
async def add(memory: perdure.AsyncEntity, number: int) -> int:
    await memory.increment("sum", await double(number))
    await perdure.sleep(0.001)
    return number


@programs.hook
def plain_add(memory: perdure.Entity, number: int) -> int:
    memory.increment("sum", triple(number))
    return number


@programs.coordinator
async def quick(memory: perdure.AsyncEntity) -> int:
    return 1


@programs.coordinator
async def steps(memory: perdure.AsyncEntity) -> int:
    return sum([await double(1), await triple(2), await memory.increment("sum", 1)])


@programs.coordinator
async def others(memory: perdure.AsyncEntity) -> int:
    return await sent(1) + await booked(2)


@programs.coordinator
async def parks(memory: perdure.AsyncEntity) -> Any:
    async with asyncio.timeout(60):
        return await asyncio.gather(add(memory, 1), plain_add(memory, 2), perdure.sleep(0.01))


@programs.coordinator
async def cleans_up(memory: perdure.AsyncEntity) -> int:
    async with asyncio.TaskGroup() as group:
        late = group.create_task(perdure.wait_for("never", timeout=60))
        await double(1)
        late.cancel()
    return 1


@programs.coordinator
def plain(memory: perdure.Entity) -> int:
    memory.set({"a": triple(1)})
    started = plain_add.start(4)
    perdure.sleep(0.01)
    return int(started.result())


@programs.coordinator
async def fails(memory: perdure.AsyncEntity) -> None:
    await double(1)
    raise ValueError("as it should")


@programs.activity
async def breaks() -> None:
    raise ValueError("as it should")


@programs.coordinator
async def copes(memory: perdure.AsyncEntity) -> None:
    """Catch one failure, and overlook another, and a wait."""
    overlooked = breaks()
    perdure.sleep(60)
    with suppress(perdure.ActivityFailed):
        await breaks()
    await double(1)
    assert overlooked.done()


COORDINATORS = [quick, steps, others, parks, cleans_up, plain, fails, copes]


@pytest.mark.parametrize("cache", [0, 1000], ids=["replayed", "kept"])
def test_finished_work_leaves_nothing_to_the_garbage_collector(
    client: perdure.Client,
    work: Callable[..., perdure.Worker],
    cache: int,
) -> None:
    def run_all() -> None:
        started = [client.start(each) for each in COORDINATORS for _ in range(EACH)]
        for handle in started:
            if handle.status().workflow == fails.name:
                with pytest.raises(perdure.JobFailed):
                    handle.result(timeout=20)
            else:
                handle.result(timeout=20)

    work(programs, cache=cache)
    run_all()  # makes the objects that are made only once
    with collected() as counts:
        run_all()
    assert counts == Counter()
