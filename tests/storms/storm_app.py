"""The app of the storms: that of the recovery tests, with additional workflows.

Each workflow has one right outcome, whatever happens to its workers.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import psycopg

import perdure
from tests.worker.kill_app import PATIENT, app, step

__all__ = ["app"]

NAP = 0.15  # seconds
TIDY = 4  # hooks of a job that wait side by side


@app.coordinator
async def mailbox(memory: perdure.AsyncEntity, letters: int) -> Any:
    """Receive so many letters, in the order in which they were accepted."""
    heard = []
    for number in range(letters):
        heard.append(await perdure.wait_for("letter"))
        if number % 3 == 0:
            await memory.append("heard", heard[-1])
    return heard


@app.coordinator
async def naps(memory: perdure.AsyncEntity) -> Any:
    """Sleep; return the seconds that passed."""
    began = perdure.now()
    await perdure.sleep(NAP)
    slept = perdure.now()
    await step("awake")
    return (slept - began).total_seconds()


@app.hook
async def tidies(memory: perdure.AsyncEntity) -> None:
    """Wait without end; clean up when cancelled."""
    await memory.increment("begun")
    try:
        await perdure.wait_for("never")
    finally:
        await memory.increment("cleaned")


@app.coordinator
async def patient(memory: perdure.AsyncEntity) -> None:
    """Wait until the job is cancelled."""
    await asyncio.gather(*(tidies(memory) for _ in range(TIDY)))


@app.coordinator
async def counts_on(memory: perdure.AsyncEntity, target: int) -> Any:
    """Wait until the memory is counted up from outside."""
    await memory.until(f"$.n >= {target}")
    return await step("counted")


@app.coordinator
async def sums(memory: perdure.AsyncEntity, numbers: list[int]) -> Any:
    """Let children compute, and signal the own job."""
    children = [perdure.start_child("trivial", number) for number in numbers]
    await memory.signal("letter", "begun")
    total = sum(await asyncio.gather(*children))
    return [await perdure.wait_for("letter"), total]


# Timers: each inserts a row of the user's own, once for each time that it fires.


@app.transaction(retry=PATIENT)
async def fire(connection: psycopg.AsyncConnection[Any], due_at: str) -> None:
    """Record the due time, and the time by the database's clock."""
    query = "insert into fired values (%s, %s, clock_timestamp())"
    await connection.execute(query, [perdure.info().job, due_at])


@app.coordinator
async def sleeps(memory: perdure.AsyncEntity, length: float) -> None:
    """Sleep for so many seconds."""
    due_at = perdure.now() + timedelta(seconds=length)
    await perdure.sleep(length)
    await fire(due_at.isoformat())


@app.coordinator
async def waits_in_vain(memory: perdure.AsyncEntity, length: float) -> None:
    """Wait for so many seconds for a signal that never comes."""
    due_at = perdure.now() + timedelta(seconds=length)
    with suppress(TimeoutError):
        await perdure.wait_for("never", timeout=length)
    await fire(due_at.isoformat())


@app.coordinator
async def sleeps_until(memory: perdure.AsyncEntity, due_at: str) -> None:
    """Sleep until an instant."""
    await perdure.sleep_until(datetime.fromisoformat(due_at))
    await fire(due_at)


@app.coordinator
async def begins_later(memory: perdure.AsyncEntity, due_at: str) -> None:
    """Fire at once; the start itself is due later."""
    await fire(due_at)


@app.hook
async def rings(memory: perdure.AsyncEntity, due_at: str) -> None:
    """Fire at once; the hook itself is due later."""
    await fire(due_at)
