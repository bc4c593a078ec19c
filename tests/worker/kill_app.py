"""An app for workers that are killed: every outside effect is written down where it happens."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import perdure

app = perdure.App()


def write_down(what: str) -> None:
    """Note an effect in the ledger, a file outside of the database."""
    ledger = os.environ.get("LEDGER")
    if ledger:
        with Path(ledger).open("a") as file:
            file.write(f"{what}\n")


@app.activity
async def step(name: str) -> str:
    write_down(f"step {name}")
    await asyncio.sleep(0.01)
    return name


@app.activity
def plain_step(name: str) -> str:
    write_down(f"plain_step {name}")
    time.sleep(0.01)
    return name


@app.hook
async def page(memory: perdure.AsyncEntity, number: int) -> int:
    await memory.append("pages", number)
    await step(f"page {number}")
    await memory.increment("done")
    await perdure.sleep(0.01)
    await memory.signal("progress", number)
    return number


@app.hook
def plain_page(memory: perdure.Entity, number: int) -> int:
    memory.append("pages", number)
    plain_step(f"page {number}")
    memory.increment("done")
    return number


@app.coordinator
async def book(memory: perdure.AsyncEntity, pages: int) -> Any:
    await memory.set({"pages": [], "done": 0})
    await step("first")
    told = await asyncio.gather(
        *(page(memory, n) for n in range(pages)),
        *(plain_page(memory, n) for n in range(pages, 2 * pages)),
    )
    heard = [await perdure.wait_for("progress") for _ in range(pages)]
    await perdure.sleep(0.02)
    await step("last")
    await memory.set(True, "complete")
    return [told, sorted(heard), await memory.get("done")]


@app.hook
async def slow_hook(memory: perdure.AsyncEntity) -> str:
    await memory.append("log", "begun")
    await step("before")
    write_down("unrecorded")
    await asyncio.sleep(float(os.environ.get("SLOW", "0")))
    await memory.append("log", "done")
    return "slow"


@app.coordinator
async def one_slow(memory: perdure.AsyncEntity) -> str:
    await memory.set({"log": []})
    return await slow_hook(memory)


@app.coordinator(retries=1)
async def laps(memory: perdure.AsyncEntity, lap: int, laps: int) -> Any:
    await step(f"lap {lap}.{perdure.info().attempt}")
    await memory.increment("laps")
    if lap == 2 and not perdure.info().attempt:
        raise OSError("this lap is run again")
    if lap < laps:
        perdure.continue_as_new(lap + 1, laps)
    return await memory.get("laps")


@app.coordinator
async def trivial(memory: perdure.AsyncEntity, number: int) -> int:
    return number
