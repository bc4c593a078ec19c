"""Programs in which parents, children and hooks are cancelled, shielded, left behind or limited in
time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import perdure

if TYPE_CHECKING:
    from tests.engine.programs import Parts

Memory = perdure.AsyncEntity
PlainMemory = perdure.Entity

DAY = "1 day"
QUICK = perdure.Retry(attempts=3, delay=0.002, jitter=0)


def shelters(app: perdure.App, parts: Parts) -> None:
    """Define programs whose shielded work is finished, whenever the cancel comes."""

    @app.coordinator
    async def sheltered(memory: Memory) -> Any:
        async def pay() -> None:
            await memory.set(True, "ready")
            paid = [await parts.double(2), await parts.page(memory, 5)]
            await memory.set([*paid, await perdure.child("small", 2)], "paid")

        try:
            await perdure.shielded(pay())
            await perdure.sleep(DAY)
        finally:
            await perdure.sleep(0.003)
            clean = [
                await parts.plus(1),
                await parts.page(memory, 3),
                await perdure.child("small", 4),
            ]
            await memory.set(clean, "clean")

    @app.hook
    async def sheltering(memory: Memory) -> Any:
        async def pay() -> None:
            await memory.set(True, "ready")
            await memory.set([await parts.double(2), await parts.page(memory, 5)], "paid")

        try:
            await perdure.shielded(pay())
            await perdure.wait_for("never")
        finally:
            await memory.set(await parts.plus(3), "clean")
            await memory.signal("clean")

    @app.coordinator
    async def sheltered_hook(memory: Memory) -> Any:
        try:
            await sheltering(memory)
        finally:
            await perdure.wait_for("clean")


def plain_shelters(app: perdure.App, parts: Parts) -> None:
    """Define the same programs in plain code."""

    @app.coordinator
    def plain_sheltered(memory: PlainMemory) -> Any:
        def pay() -> None:
            memory.set(True, "ready")
            paid = [parts.double(2), parts.page(memory, 5)]
            memory.set([*paid, perdure.child("small", 2)], "paid")

        try:
            perdure.shielded(pay)
            perdure.sleep(DAY)
        finally:
            perdure.sleep(0.003)
            memory.set([parts.plus(1), parts.page(memory, 3), perdure.child("small", 4)], "clean")

    @app.hook
    def plain_sheltering(memory: PlainMemory) -> Any:
        def pay() -> None:
            memory.set(True, "ready")
            memory.set([parts.double(2), parts.page(memory, 5)], "paid")

        try:
            perdure.shielded(pay)
            perdure.wait_for("never")
        finally:
            memory.set(parts.plus(3), "clean")
            memory.signal("clean")

    @app.coordinator
    def plain_sheltered_hook(memory: PlainMemory) -> Any:
        try:
            plain_sheltering(memory)
        finally:
            perdure.wait_for("clean")


def left_behind(app: perdure.App, parts: Parts) -> None:
    """Define programs whose children are started, awaited, cancelled, and left when the parent
    ends."""

    @app.coordinator
    async def for_ever(memory: Memory) -> Any:
        try:
            await perdure.wait_for("never")
        finally:
            await memory.set([await parts.plus(1), await parts.page(memory, 1)], "clean")

    @app.hook
    async def leaves(memory: Memory) -> str:
        for_ever.start()
        return "left"

    @app.coordinator
    async def started(memory: Memory) -> Any:
        begun = [perdure.start_child("small", x) for x in (1, 2)]
        lost = perdure.start_child(for_ever)
        for_ever.start()
        perdure.child("small", 4, detached=True)
        told = [await leaves(memory), *[await each for each in reversed(begun)]]
        lost.cancel()
        return told

    @app.coordinator
    def plainly_started(memory: perdure.Entity) -> Any:
        begun = [perdure.start_child("small", x) for x in (1, 2)]
        lost = for_ever.start()
        told = [each.result() for each in reversed(begun)]
        lost.cancel()
        return told


def limits(app: perdure.App, parts: Parts) -> None:
    """Define programs whose work has time limits and keeps them."""

    @app.activity(retry=QUICK, timeout="1 min", within="1 h")
    async def patient(x: int) -> int:
        told: int = await parts.shaky.function(x)
        return told

    @app.hook(retry=QUICK, timeout="1 h", within="2 h")
    async def patiently(memory: Memory, x: int) -> int:
        told = await patient(x)
        if perdure.info().attempt < 1:
            raise ConnectionError("not yet")
        return told

    @app.coordinator
    async def limited(memory: Memory) -> Any:
        return [await patient(1), await patiently(memory, 2)]
