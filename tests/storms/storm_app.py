"""The app of the storms: that of the recovery tests, and what it lacks.

Each workflow has one right outcome, whatever happens to those who work on it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import perdure
from tests.worker.kill_app import app, step

__all__ = ["app"]

NAP = 0.15  # seconds


@app.coordinator
async def mailbox(memory: perdure.AsyncEntity, letters: int) -> Any:
    """Hear so many letters, in the order in which they were accepted."""
    heard = []
    for number in range(letters):
        heard.append(await perdure.wait_for("letter"))
        if number % 3 == 0:
            await memory.append("heard", heard[-1])
    return heard


@app.coordinator
async def naps(memory: perdure.AsyncEntity) -> Any:
    """Sleep; gives the seconds that went by."""
    began = perdure.now()
    await perdure.sleep(NAP)
    slept = perdure.now()
    await step("awake")
    return (slept - began).total_seconds()


@app.hook
async def tidies(memory: perdure.AsyncEntity) -> None:
    """Wait for ever; clean up when that is cancelled."""
    await memory.increment("begun")
    try:
        await perdure.wait_for("never")
    finally:
        await memory.increment("cleaned")


@app.coordinator
async def patient(memory: perdure.AsyncEntity) -> None:
    """Wait until somebody cancels."""
    await tidies(memory)


@app.coordinator
async def counts_on(memory: perdure.AsyncEntity, target: int) -> Any:
    """Wait for the memory to be counted up from outside."""
    await memory.until(f"$.n >= {target}")
    return await step("counted")


@app.coordinator
async def sums(memory: perdure.AsyncEntity, numbers: list[int]) -> Any:
    """Let children do it, and tell one's own mailbox."""
    children = [perdure.start_child("trivial", number) for number in numbers]
    await memory.signal("letter", "begun")
    total = sum(await asyncio.gather(*children))
    return [await perdure.wait_for("letter"), total]
