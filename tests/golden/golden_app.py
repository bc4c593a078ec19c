"""Coordinators whose journals together contain every kind of fact and every way to wait.

A real worker of each release made their journals, which are kept beside this file. `test_golden.py`
must notice a change of these coordinators: add others instead.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import perdure

app = perdure.App(version="golden")

SOON = 0.05
LARGE = "x" * 3000


@dataclass
class Point:
    x: int
    y: float


# Activities, hooks and children that the coordinators use.


@app.activity
async def double(n: int) -> int:
    return 2 * n


@app.activity
def move(point: Point, by: int) -> Point:
    return Point(point.x + by, point.y + by / 4)


@app.activity(retry=perdure.Retry(attempts=3, delay=0.01))
async def third_time(what: str) -> str:
    if perdure.info().attempt < 2:
        raise ValueError(f"not yet: {what}")
    return what


@app.activity
async def broken(what: str) -> None:
    raise ValueError(f"broken: {what}")


@app.activity(queue="elsewhere")
async def dispatched(n: int) -> int:
    return n + 1


@app.hook
async def returns(memory: perdure.AsyncEntity, what: str) -> list[str]:
    await memory.append("hooks", what)
    return [what]


@app.hook
def signals(memory: perdure.Entity, what: str) -> None:
    memory.signal("early", {"what": what})


@app.hook
async def fails(memory: perdure.AsyncEntity) -> None:
    raise ValueError("a hook failed")


@app.hook
async def lingers(memory: perdure.AsyncEntity) -> None:
    await perdure.wait_for("never")


@app.coordinator
async def grandson(memory: perdure.AsyncEntity, n: int) -> int:
    return n * n


@app.coordinator
async def black_sheep(memory: perdure.AsyncEntity) -> None:
    raise ValueError("a child failed")


# Coordinators whose journals are recorded.


@app.coordinator
async def commands(memory: perdure.AsyncEntity) -> list[Any]:
    version = await memory.set({"n": 1, "list": [1], "flag": False, "gone": 0})
    results = [
        version,
        await memory.set(2, "n"),
        await memory.merge({"a": {"b": 1}}),
        await memory.append("list", 2, "three"),
        await memory.prepend("list", 0),
        await memory.remove("list", -1),
        await memory.increment("n", 5),
        await memory.increment("half", 0.5),
        await memory.toggle("flag"),
        await memory.set_if_not_exists("n", 9),
        await memory.delete("gone"),
        await memory.log("events", {"e": 1}, {"e": 2}),
    ]
    try:
        await memory.append("n", 1)
    except perdure.WrongType as error:
        results.append(error.message)
    try:
        await memory.set(1, "n", expected_version=1)
    except perdure.VersionConflict:
        results.append("conflict")
    return results


@app.coordinator
async def reads(memory: perdure.AsyncEntity) -> list[Any]:
    await memory.set({"small": {"b": 1, "a": [1.5, None, "ü"]}, "large": [LARGE]})
    await memory.log("events", 1, 2)
    whole = await memory.get()
    return [
        await memory.get("small"),
        len((await memory.get("large"))[0]),
        len(whole["large"]),
        await memory.get("missing"),
        await memory.get("events"),
    ]


@app.coordinator
async def activities(memory: perdure.AsyncEntity, start: int) -> list[Any]:
    results: list[Any] = [await double(start), await third_time("now")]
    point = await move(Point(1, 0.5), by=3)
    results.append([point.x, point.y])
    try:
        await broken("cup")
    except perdure.ActivityFailed as error:
        results.append([error.type, error.message])
    return [*results, await dispatched(results[0])]


@app.coordinator
async def mail(memory: perdure.AsyncEntity) -> list[Any]:
    results: list[Any] = [await perdure.wait_for("go"), await perdure.wait_for("go", timeout="1 h")]
    try:
        await perdure.wait_for("go", timeout=SOON)
    except TimeoutError:
        results.append("too late")
    await memory.signal("self", {"n": 1})
    results.append(await perdure.wait_for("self"))
    await perdure.signal("running", "news", [1, 2])
    try:
        await perdure.signal("nobody", "news")
    except perdure.JobNotFound as error:
        results.append(type(error).__name__)
    return results


@app.coordinator
async def hooks(memory: perdure.AsyncEntity) -> list[Any]:
    results: list[Any] = [await returns(memory, "a"), await perdure.exec_hook("returns", "b")]
    results.append(await perdure.exec_hook(signals, "c", signal="early"))
    try:
        await fails(memory)
    except perdure.HookFailed as error:
        results.append(error.message)
    perdure.start_hook(returns, "detached")
    return results


@app.coordinator
async def children(memory: perdure.AsyncEntity) -> list[Any]:
    results: list[Any] = [
        await perdure.child(grandson, 3),
        await perdure.child("grandson", n=4, id="named child"),
    ]
    try:
        await perdure.child(black_sheep)
    except perdure.ChildFailed as error:
        results.append(error.message)
    perdure.child(grandson, 5, detached=True)
    return results


@app.coordinator
async def conditions(memory: perdure.AsyncEntity) -> list[Any]:
    await memory.set({"n": 1})
    results: list[Any] = [await memory.until("$.n == 1"), await memory.until("$.n == 2")]
    try:
        await memory.until("$.n == 3", timeout=SOON)
    except TimeoutError:
        results.append("too late")
    return results


@app.coordinator
async def timers(memory: perdure.AsyncEntity) -> list[Any]:
    began = perdure.now()
    await perdure.sleep(SOON)
    await perdure.sleep_until(began + timedelta(seconds=2 * SOON))
    await asyncio.sleep(SOON)
    results: list[Any] = [perdure.now() >= began + timedelta(seconds=3 * SOON)]
    try:
        async with asyncio.timeout(SOON):
            await perdure.wait_for("never")
    except TimeoutError:
        results.append("timeout")
    return results


@app.coordinator
async def together(memory: perdure.AsyncEntity) -> list[Any]:
    async def branch(n: int) -> int:
        await perdure.sleep(SOON / n)
        return int(await double(n))

    results: list[Any] = list(await asyncio.gather(branch(1), branch(2), double(7)))
    async with asyncio.TaskGroup() as group:
        one = group.create_task(branch(3), name="one")
        two = group.create_task(branch(4))
    results += [one.result(), two.result(), await asyncio.wait_for(branch(5), 60)]
    tasks = [asyncio.create_task(branch(n)) for n in (6, 7)]
    done, _ = await asyncio.wait(tasks)
    results.append(sorted(task.result() for task in done))
    for each in asyncio.as_completed([asyncio.create_task(branch(n)) for n in (8, 9)]):
        results.append(await each)
    return results


@app.coordinator
async def late_answers(memory: perdure.AsyncEntity) -> str:
    """Receive the answer of a hook that has already timed out."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SOON):
            await lingers(memory)
    await perdure.wait_for("go")
    return "went on"


@app.coordinator
async def cancelled(memory: perdure.AsyncEntity) -> None:
    try:
        await perdure.wait_for("never")
    finally:
        await memory.set(await double(21), "cleaned")


@app.coordinator
async def patches(memory: perdure.AsyncEntity) -> list[Any]:
    results = [await double(1)]
    if perdure.patched("also two"):
        results.append(await double(2))
    return results


@app.coordinator
async def chance(memory: perdure.AsyncEntity) -> list[Any]:
    first, second = perdure.random(), perdure.random()
    drawn = [first.randrange(1000), first.randrange(1000), second.randrange(1000)]
    return [await double(n) for n in drawn] + [str(perdure.uuid()), perdure.info().job]


@app.coordinator
def plain(memory: perdure.Entity, start: int) -> list[Any]:
    memory.set({"n": start})
    started = double.start(start)
    hook = returns.start("plain")
    results: list[Any] = [memory.increment("n"), started.result(), hook.result()]
    results.append(perdure.wait_for("go"))
    with suppress(TimeoutError):
        perdure.wait_for("never", timeout=SOON)
    perdure.sleep(SOON)
    if perdure.patched("plainly"):
        results.append(memory.until("$.n > 1"))
    results.append(perdure.child(grandson, 6))
    return [*results, perdure.random().randrange(1000), memory.get("n")]


@app.coordinator
def plainly_cancelled(memory: perdure.Entity) -> None:
    try:
        perdure.wait_for("never")
    finally:
        memory.set("cleaned", "state")


@app.coordinator
async def running(memory: perdure.AsyncEntity) -> Any:
    """Wait for ever: its journal is that of a running job."""
    await memory.set({"n": await double(4)})
    news = await perdure.wait_for("news")
    waiting = asyncio.create_task(perdure.sleep("1 h"))
    await perdure.wait_for("go on")
    waiting.cancel()
    return news
