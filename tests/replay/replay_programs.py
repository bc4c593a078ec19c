"""Coordinators that use asyncio in all usual ways; the replay tests run them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from replay_driver import StepFailed, command, hook, now, patched, runtime, signal, step


def double(x: int) -> int:
    """An activity."""
    return x * 2


def plus(x: int) -> int:
    """Another activity."""
    return x + 1


def picky(x: int) -> int:
    """An activity that may fail."""
    if x % 3 == 0:
        raise ValueError(f"bad {x}")
    return x


async def gathered() -> Any:
    async def first() -> Any:
        return await step(plus, await step(double, 1))

    async def second() -> Any:
        return await step(double, await step(plus, 5))

    return await asyncio.gather(first(), second())


async def first_three() -> Any:
    pending = {asyncio.ensure_future(step(double, i)) for i in range(5)}
    out: list[int] = []
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        out += [task.result() for task in done]
        if len(out) >= 3:
            for task in pending:
                task.cancel()
            break
    return [*out, await step(plus, out[0])]


async def completed() -> Any:
    return [
        await step(plus, await answer)
        for answer in asyncio.as_completed([step(double, i) for i in range(6)])
    ]


async def completed_tasks() -> Any:
    async def two(i: int) -> Any:
        return await step(plus, await step(double, i))

    out = []
    for answer in asyncio.as_completed([asyncio.ensure_future(two(i)) for i in range(8)]):
        out.append(await answer)
        if len(out) == 3:
            out.append(await step(double, 99))
    return out


async def completed_named() -> Any:
    async def two(i: int) -> Any:
        await asyncio.sleep(i % 3)
        return await step(plus, await step(double, i))

    tasks = [asyncio.create_task(two(i), name=f"two {i % 4}") for i in range(6)]
    return [await answer for answer in asyncio.as_completed(tasks)]


async def tools() -> Any:
    async def call(i: int) -> Any:
        return await step(plus, await step(double, i))

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(call(i), name="search" if i % 2 else "fetch") for i in range(6)]
    out, pending = [], set(tasks)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        out += [(tasks.index(task), task.get_name(), task.result()) for task in done]
    return out


async def timeouts() -> Any:
    out = []
    for _ in range(4):
        try:
            out.append(await asyncio.wait_for(signal("ok"), 10))
        except TimeoutError:
            out.append(f"late at {now():.6f}")
            await asyncio.sleep(3)
    return out


async def race() -> Any:
    approve, reject = asyncio.ensure_future(signal("approve")), asyncio.ensure_future(signal("no"))
    patience = asyncio.ensure_future(asyncio.sleep(50))
    done, pending = await asyncio.wait(
        {approve, reject, patience}, return_when=asyncio.FIRST_COMPLETED
    )
    for task in pending:
        task.cancel()
    return [approve in done, reject in done, patience in done, await step(double, 3)]


async def queue() -> Any:
    items: asyncio.Queue[int | None] = asyncio.Queue(maxsize=2)
    few = asyncio.Semaphore(2)
    out = []

    async def produce(i: int) -> None:
        async with few:
            await items.put(await step(double, i))

    async def consume() -> None:
        while (item := await items.get()) is not None:
            out.append(await step(plus, item))

    consumer = asyncio.ensure_future(consume())
    await asyncio.gather(*(produce(i) for i in range(5)))
    await items.put(None)
    await consumer
    return out


async def group() -> Any:
    out: list[Any] = []

    async def work(i: int) -> None:
        x = await step(picky, i)
        await asyncio.sleep(i)
        out.append(x)

    try:
        async with asyncio.TaskGroup() as works:
            for i in range(1, 6):
                works.create_task(work(i))
    except* StepFailed as errors:
        out.append([str(error) for error in errors.exceptions])
    async with asyncio.TaskGroup() as steps:
        tasks = [steps.create_task(step(double, i)) for i in range(3)]
        steps.create_task(step(plus, 9), name="nine")
    out += [task.result() for task in tasks]
    durable = step(double, 50)
    out += [await durable, await durable]
    try:
        async with asyncio.timeout(7):
            out.append(await signal("ok"))
            out.append(await step(plus, 1))
    except TimeoutError:
        out.append("timeout")
    return out


async def nested_groups() -> Any:
    out: list[Any] = []

    async def leaf(i: int) -> None:
        out.append(await step(plus, i))

    async def branch(i: int) -> None:
        try:
            async with asyncio.TaskGroup() as leaves:
                for j in range(3):
                    leaves.create_task(leaf(10 * i + j), name=f"leaf{j}")
                out.append(await step(picky, i))
        except* StepFailed:
            out.append(("failed", i))
            await step(double, i)
        finally:
            out.append(("left", i, await step(plus, -i)))

    async with asyncio.TaskGroup() as branches:
        for i in range(4):
            branches.create_task(branch(i))
    return out


async def shielded() -> Any:
    async def careful() -> Any:
        return [await hook(double, 1), await step(double, 2)]

    inner = asyncio.create_task(careful())
    out: list[Any] = []
    while not inner.done():
        try:
            out.append(await asyncio.wait_for(asyncio.shield(inner), 2))
        except TimeoutError:
            out.append("patience")
    shielded = asyncio.shield(step(plus, 7))
    return [*out, await inner, await shielded]


async def hooks() -> Any:
    """Take the first two answers; the others arrive late."""
    running = {hook(double, i) for i in range(6)}
    out: list[Any] = []
    while len(out) < 2:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        out += [answer.result() for answer in done]
    for answer in running:
        answer.cancel()
    await asyncio.sleep(20)
    return [*out, await hook(plus, out[0])]


async def commands() -> Any:
    """Send commands together, cancel some, and continue."""
    out: list[Any] = [await command("set", {"a": 1})]
    out += await asyncio.gather(*(command("append", i) for i in range(4)))
    done, pending = await asyncio.wait(
        [command("increment", i) for i in range(4)], return_when=asyncio.FIRST_COMPLETED
    )
    for answer in pending:
        answer.cancel()
    out += sorted(answer.result() for answer in done)
    await asyncio.gather(step(plus, 1), command("merge", {"b": 2}))
    command("forget")
    return out


async def left_open() -> Any:
    """Return before all commands that were sent together are answered."""
    done, _ = await asyncio.wait(
        [command("append", i) for i in range(4)], return_when=asyncio.FIRST_COMPLETED
    )
    return sorted(answer.result() for answer in done)


async def cleaning() -> Any:
    """Clean up durably, also after a cancellation."""
    out: list[Any] = []
    try:
        async with asyncio.TaskGroup() as works:
            for i in range(3):
                works.create_task(_careful(i, out))
            await asyncio.sleep(4)
            out.append(await signal("go"))
    except asyncio.CancelledError:
        out.append(("cancelled", await step(plus, 100)))
        await asyncio.sleep(1)
    finally:
        out.append(await command("set", "clean"))
    out.append(await step(double, 5))
    return out


async def _careful(i: int, out: list[Any]) -> None:
    try:
        out.append(await hook(double, i))
        await asyncio.sleep(10)
    finally:
        out.append(await step(plus, i))


async def stubborn() -> Any:
    """Swallow every cancellation."""
    out: list[Any] = []
    for i in range(6):
        try:
            out.append(await step(double, i))
            await asyncio.sleep(2)
        except asyncio.CancelledError as error:
            out.append(("no", str(error)))
    return out


async def locks() -> Any:
    """Use the synchronization primitives of asyncio."""
    lock, event, condition = asyncio.Lock(), asyncio.Event(), asyncio.Condition()
    barrier = asyncio.Barrier(3)
    out: list[Any] = []

    async def turn(i: int) -> None:
        await barrier.wait()
        async with lock:
            out.append(await step(plus, i))
        async with condition:
            await condition.wait_for(event.is_set)
        out.append((i, await step(double, i)))

    tasks = [asyncio.create_task(turn(i)) for i in range(3)]
    await asyncio.sleep(5)
    event.set()
    async with condition:
        condition.notify_all()
    await asyncio.gather(*tasks)
    for _ in range(3):
        await asyncio.sleep(0)
    return out


async def generators() -> Any:
    """Leave async generators midway, closed or not."""
    out: list[Any] = []

    async def steps() -> AsyncIterator[Any]:
        try:
            for i in range(5):
                yield await step(plus, i)
        finally:
            out.append(("left", await step(double, 7)))

    async for x in steps():
        out.append(x)
        if x == 2:
            break
    async with contextlib.aclosing(steps()) as closing:
        async for x in closing:
            out.append(x)
            break
    out.append(await step(plus, 50))
    await asyncio.sleep(1)
    return out


async def deadlines() -> Any:
    """Nest and move deadlines."""
    loop = asyncio.get_running_loop()
    out: list[Any] = []
    for i in range(3):
        try:
            async with asyncio.timeout(20) as outer:
                try:
                    async with asyncio.timeout_at(loop.time() + 4):
                        out.append(await hook(double, i))
                except TimeoutError:
                    out.append("inner")
                    outer.reschedule(loop.time() + 2)
                out.append(await hook(plus, i))
        except TimeoutError:
            out.append(f"outer at {now():.6f}")
    return out


async def patient() -> Any:
    """Give coroutines to wait_for, which wraps them in tasks only in some versions of Python."""

    async def two(i: int) -> Any:
        return await step(plus, await hook(double, i))

    out: list[Any] = []
    for i in range(3):
        try:
            out.append(await asyncio.wait_for(two(i), 6))
        except TimeoutError:
            out.append(await step(plus, -i))
    both = (asyncio.wait_for(two(i), 5) for i in range(3))
    return [*out, *(repr(each) for each in await asyncio.gather(*both, return_exceptions=True))]


async def callbacks() -> Any:
    """Do work in callbacks, outside of any task."""
    out: list[Any] = []
    done = asyncio.get_running_loop().create_future()

    def more(task: asyncio.Future[Any]) -> None:
        out.append(task.result())
        answer = step(plus, task.result())
        answer.add_done_callback(lambda f: (out.append(f.result()), _count(out, done)))

    for i in range(3):
        asyncio.ensure_future(step(double, i)).add_done_callback(more)
    asyncio.get_running_loop().call_later(3, out.append, "later")
    await done
    return out


def _count(out: list[Any], done: asyncio.Future[None]) -> None:
    if len([x for x in out if x != "later"]) == 6 and not done.done():
        done.set_result(None)


async def chance() -> Any:
    """Draw random numbers and ids in several tasks."""
    run = runtime().run

    async def draw(i: int) -> Any:
        first = run.random().random()
        await step(plus, i)
        return first, run.random().randrange(1000), str(run.uuid())

    return [*await asyncio.gather(*(draw(i) for i in range(4))), str(run.uuid())]


async def patches() -> Any:
    """Ask for patches in a loop and in branches."""
    out: list[Any] = []
    for i in range(3):
        out.append(await step(plus, i))
        if patched("double"):
            out.append(await step(double, i))
        await asyncio.sleep(1)

    async def branch(i: int) -> Any:
        await step(plus, i)
        return await (hook(double, i) if patched("hook") else step(double, i))

    return [*out, *await asyncio.gather(*(branch(i) for i in range(3)))]


async def orphans() -> Any:
    """Leave failing and waiting tasks behind."""
    tasks = [asyncio.create_task(_orphan(i)) for i in range(3)]
    await asyncio.sleep(2)
    return [len(tasks), await step(plus, 1)]


async def _orphan(i: int) -> None:
    try:
        await step(picky, i)
        await signal("never")
    finally:
        await step(double, i)


def plain() -> Any:
    """Run one thing after another in a plain function."""
    out: list[Any] = [step(double, 4)]
    try:
        out.append(signal("go"))
        out.append(step(picky, 3))
    except Exception as error:  # noqa: BLE001
        out.append(str(error))
    return [*out, command("set", 1), step(plus, 1)]


def plain_parallel() -> Any:
    """Start several things in a plain function, then wait for them."""
    run = runtime().run

    def start(i: int) -> Any:
        return run.request("answer", "double", (double, (i,)), fingerprint=str(i))

    pending = [start(i) for i in range(5)]
    run.request("timer", "$timer", None, deadline=run.journal.now + 3_000_000).result()
    out = [each.result() for each in reversed(pending)]
    dropped = start(7)
    step(plus, 1)
    dropped.cancel()
    if patched("more"):
        out.append(step(plus, 3))
    return [*out, run.random().random(), str(run.uuid()), run.journal.now]


def plain_cleaning() -> Any:
    """Clean up in a plain function, also when it is cancelled or suspended."""
    out: list[Any] = []
    try:
        out.append(step(plus, 1))
        out.append(signal("go"))
    except asyncio.CancelledError:
        out.append(("cancelled", step(plus, 2)))
    finally:
        out.append(command("set", "clean"))
    return [*out, step(double, 1)]


def plain_swallowing() -> Any:
    """Catch everything in a plain function, even exceptions meant for the runtime."""
    out: list[Any] = []
    for i in range(4):
        try:
            out.append(step(picky, i))
        except BaseException as error:  # noqa: BLE001
            out.append(repr(error))
        finally:
            step(double, i)
    return out


ASYNC = [
    gathered, first_three, completed, completed_tasks, completed_named, tools, timeouts, race,
    queue, group, nested_groups, shielded, hooks, commands, left_open, locks, generators,
    deadlines, patient, callbacks, chance, patches, orphans,
]  # fmt: skip
CANCELLED = [cleaning, stubborn, group, nested_groups, shielded, deadlines, queue, hooks, patient]
PLAIN = [plain, plain_parallel, plain_cleaning, plain_swallowing]
PLAIN_CANCELLED = [plain_cleaning, plain_swallowing]
