"""Programs that wait for conditions on their memory; what makes the conditions true comes in a
fixed order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import perdure

if TYPE_CHECKING:
    from tests.engine.programs import Parts

Memory = perdure.AsyncEntity
PlainMemory = perdure.Entity

DAY = "1 day"
NEVER = "$.never == true"


def conditions(app: perdure.App, parts: Parts) -> None:
    """Define coordinators that wait for writes of hooks, of the outside world and of their own."""
    _hooks(app, parts)
    _coordinators(app, parts)
    _plain(app, parts)


def _hooks(app: perdure.App, parts: Parts) -> None:
    @app.hook
    async def counter(memory: Memory, limit: int) -> int:
        for _ in range(limit):
            await memory.increment("n")
        return limit

    @app.hook
    async def link(memory: Memory, x: int) -> Any:
        """Wait for the own turn, then let the next link have its turn."""
        out = [await memory.until(f"$.turn == {x}")]
        try:
            await memory.until(NEVER, timeout=0.004)
        except TimeoutError:
            out.append(await parts.plus(x))
        async with asyncio.TaskGroup() as group:
            both = [group.create_task(memory.until(f"$.turn >= {n}")) for n in (x, x - 1)]
            await parts.double(x)
        out += [each.result() for each in both]
        return [*out, await memory.increment("turn")]

    @app.hook
    def plain_link(memory: PlainMemory, x: int) -> Any:
        out = [memory.until(f"$.turn == {x}", timeout=DAY)]
        try:
            memory.until(NEVER, timeout=0.004)
        except TimeoutError:
            out.append(parts.plus(x))
        return [*out, memory.increment("turn")]

    @app.coordinator
    async def links(memory: Memory) -> Any:
        await memory.set({"turn": 0})
        waiting = [asyncio.create_task(one(memory, x)) for x, one in
                   enumerate((link, plain_link, plain_link, link), 1)]  # fmt: skip
        await memory.set(1, "turn")
        end = await memory.until("$.turn == 5", timeout=DAY)
        return [end, *[await one for one in waiting]]


def _coordinators(app: perdure.App, parts: Parts) -> None:
    @app.coordinator
    async def until_true(memory: Memory) -> Any:
        out: list[Any] = [await memory.set({"n": 0}), await memory.until("$.n == 0")]
        counting = asyncio.create_task(perdure.exec_hook("counter", 3))
        out.append(await memory.until("$.n >= 2"))
        out.append(await counting)
        try:
            await memory.until(NEVER, timeout=0.005)
        except TimeoutError:
            out.append(await parts.plus(1))
        try:
            async with asyncio.timeout(0.005):
                await memory.until(NEVER)
        except TimeoutError:
            out.append("late")
        return [*out, await memory.until("$.n == 3", timeout=DAY)]

    @app.coordinator
    async def until_together(memory: Memory) -> Any:
        await memory.set({"n": 0})
        counting = asyncio.create_task(perdure.exec_hook("counter", 4))
        first, second, third = await asyncio.gather(
            memory.until("$.n == 1"), memory.until("$.n == 2", timeout=DAY), memory.until("$.n < 9")
        )
        never = asyncio.ensure_future(memory.until(NEVER))
        last = asyncio.ensure_future(memory.until("$.n == 4"))
        await counting
        done, pending = await asyncio.wait((never, last), return_when=asyncio.FIRST_COMPLETED)
        assert (done, pending) == ({last}, {never})
        never.cancel()
        await memory.set(True, "never")
        await parts.double(1)
        again = await memory.until(NEVER)
        return [first, second, third, last.result(), never.cancelled(), again]

    @app.coordinator
    async def until_outside(memory: Memory) -> Any:
        await memory.set({"n": 0})
        await memory.set(True, "asking")
        out = [await memory.until("$.n == 100", timeout=DAY), await parts.plus(7)]
        await memory.set(True, "writing")
        return [*out, await memory.until('$.written == "by hand"'), await memory.get()]

    @app.coordinator
    async def until_cancelled(memory: Memory) -> Any:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(memory.until(NEVER))
                group.create_task(memory.until(NEVER, timeout=DAY))
                await memory.set(True, "ready")
        finally:
            await memory.set(await parts.plus(1), "clean")
            await memory.until("$.clean == 2")


def _plain(app: perdure.App, parts: Parts) -> None:
    @app.coordinator
    def plain_until(memory: PlainMemory) -> Any:
        out: list[Any] = [memory.set({"n": 0}), memory.until("$.n == 0")]
        counting = perdure.exec_hook("counter", 3)
        out += [counting, memory.until("$.n == 3", timeout=DAY)]
        for _ in range(2):
            try:
                memory.until(NEVER, timeout=0.004)
            except TimeoutError:
                out.append(parts.plus(len(out)))
        memory.set(True, "asking")
        return [*out, memory.until("$.n > 100"), memory.get("n")]
