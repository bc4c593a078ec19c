"""Programs that ask people; the outside world resolves the items in a fixed order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import perdure

if TYPE_CHECKING:
    from tests.engine.programs import Parts

Memory = perdure.AsyncEntity
PlainMemory = perdure.Entity

DAY = "1 day"


def people(app: perdure.App, parts: Parts) -> None:
    """Define coordinators and hooks that ask in sequence, in parallel, and without an answer."""
    _hooks(app, parts)
    _coordinators(app, parts)


def _hooks(app: perdure.App, parts: Parts) -> None:
    @app.hook
    async def inquires(memory: Memory, name: str) -> Any:
        out = [await perdure.ask_people(name, {"by": "hook"}, timeout=DAY), await parts.plus(1)]
        try:
            await perdure.ask_people("never", timeout=0.004)
        except TimeoutError:
            out.append(await memory.increment("late"))
        return out

    @app.hook
    def plain_inquires(memory: PlainMemory, name: str) -> Any:
        return [parts.plus(2), perdure.ask_people(name), memory.increment("plain")]


def _coordinators(app: perdure.App, parts: Parts) -> None:
    @app.coordinator
    async def asks_people(memory: Memory) -> Any:
        out: list[Any] = [await perdure.ask_people("one", await parts.double(1), timeout=DAY)]
        try:
            await perdure.ask_people("never", timeout=0.005)
        except TimeoutError:
            out.append(await parts.plus(len(out)))
        two, three = await asyncio.gather(
            perdure.exec_hook("inquires", "two"), perdure.exec_hook("plain_inquires", "three")
        )
        votes = [asyncio.ensure_future(perdure.ask_people("four", priority=n)) for n in (1, 2)]
        done, left = await asyncio.wait(votes, return_when=asyncio.FIRST_COMPLETED)
        for vote in left:
            vote.cancel()
        return [*out, two, three, [vote.result() for vote in done], await memory.get()]

    @app.coordinator
    def plain_asks_people(memory: PlainMemory) -> Any:
        out = [perdure.ask_people("one", timeout=DAY), parts.double(1)]
        try:
            perdure.ask_people("never", timeout=0.004)
        except TimeoutError:
            out.append(memory.increment("late"))
        return [*out, perdure.ask_people("two")]

    @app.coordinator
    async def asks_in_vain(memory: Memory) -> Any:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(perdure.ask_people("one"))
                group.create_task(perdure.ask_people("two", timeout=DAY))
                await memory.set(True, "ready")
        finally:
            await memory.set(await perdure.ask_people("clean up"), "clean")
