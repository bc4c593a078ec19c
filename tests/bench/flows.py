"""The workflows of the benchmark: they do hardly any work, so that the engine is measured."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import perdure

app = perdure.App()

TOKENS = 10_000


@app.activity
async def echo(number: int) -> int:
    """Return the number."""
    return number


@app.coordinator(queue="bench")
async def trivial(memory: perdure.AsyncEntity) -> int:
    """Return at once."""
    return 1


@app.coordinator(queue="bench")
async def ten_activities(memory: perdure.AsyncEntity) -> int:
    """Run ten activities in a row; each result is recorded before the next one starts."""
    return sum([await echo(number) for number in range(10)])


@app.hook(queue="bench")
async def add(memory: perdure.AsyncEntity, number: int) -> None:
    """Add to the memory."""
    await memory.increment("sum", number)


@app.coordinator(queue="bench")
async def fan_out(memory: perdure.AsyncEntity) -> Any:
    """Run ten hooks that write one memory at the same time, and return the result."""
    await asyncio.gather(*(add(memory, number) for number in range(10)))
    return await memory.get("sum")


@app.coordinator(queue="bench")
async def fan_out_thousand(memory: perdure.AsyncEntity) -> Any:
    """Run a thousand hooks that write one memory."""
    await asyncio.gather(*(add(memory, number) for number in range(1000)))
    return await memory.get("sum")


@app.activity
async def instant() -> float:
    """Return the time."""
    return time.time()


@app.coordinator(queue="bench")
async def wake_up(memory: perdure.AsyncEntity, seconds: float) -> float:
    """Sleep, and return how many seconds too late the next activity began."""
    due = perdure.now().timestamp() + seconds
    await perdure.sleep(seconds)
    return await instant() - due


@app.activity
async def speak(tokens: int) -> None:
    """Publish tokens as fast as the database takes them."""
    for number in range(tokens):
        await perdure.publish("words", f"token {number}")


@app.coordinator(queue="bench")
async def stream(memory: perdure.AsyncEntity) -> None:
    """Stream ten thousand tokens."""
    await speak(TOKENS)


@app.coordinator(queue="bench")
async def wait_for_go(memory: perdure.AsyncEntity) -> float:
    """Wait for a signal, and return when the code continued, by a clock that all processes
    share."""
    await perdure.wait_for("go")
    return time.perf_counter()


@app.activity
async def wait_while(path: str) -> None:
    """Wait as long as a file exists."""
    while Path(path).exists():  # noqa: ASYNC110, ASYNC240 - a file has no event
        await asyncio.sleep(0.05)


@app.coordinator(queue="bench")
async def occupy(memory: perdure.AsyncEntity, path: str) -> None:
    """Take a slot of a worker as long as a file exists."""
    await wait_while(path)
