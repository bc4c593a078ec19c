"""An app for workers that are killed. It writes each outside effect to a ledger when it happens."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

import perdure

app = perdure.App()

PATIENT = perdure.Retry(attempts=1000, delay="10 ms", max_delay="0.2 s")
"""For transactions whose statements may be cancelled from outside."""


def write_down(what: str) -> None:
    """Append an effect to the ledger, a file outside of the database."""
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
    numbers = await asyncio.gather(
        *(page(memory, n) for n in range(pages)),
        *(plain_page(memory, n) for n in range(pages, 2 * pages)),
    )
    signals = [await perdure.wait_for("progress") for _ in range(pages)]
    await perdure.sleep(0.02)
    await step("last")
    await memory.set(True, "complete")
    return [numbers, sorted(signals), await memory.get("done")]


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


@app.coordinator
async def deadly(memory: perdure.AsyncEntity) -> None:
    """Kill the worker, with all tasks that it holds."""
    os._exit(9)


@app.activity
async def rest(seconds: float) -> None:
    await asyncio.sleep(seconds)


@app.coordinator
async def harmless(memory: perdure.AsyncEntity, seconds: float) -> str:
    await rest(seconds)
    return "alive"


def read_pages(pages: int) -> Iterator[None]:
    """Continue after the last page that an attempt reported, and stay at the page STOP_AT."""
    for n in range(1 + (perdure.info().progress or 0), pages + 1):
        write_down(f"page {n}")
        perdure.heartbeat(n)
        if os.environ.get("STOP_AT") == str(n):
            while True:
                yield


@app.activity
async def read(pages: int) -> int:
    for _ in read_pages(pages):
        await asyncio.sleep(0.01)
    return pages


@app.activity
def plain_read(pages: int) -> int:
    for _ in read_pages(pages):
        time.sleep(0.01)
    return pages


@app.activity(queue="far")
async def read_far(pages: int) -> int:
    for _ in read_pages(pages):
        await asyncio.sleep(0.01)
    await asyncio.sleep(float(os.environ.get("SLOW_FAR", "0")))
    return pages


@app.hook
async def read_in_hook(memory: perdure.AsyncEntity, pages: int) -> int:
    for _ in read_pages(pages):
        await asyncio.sleep(0.01)
    return pages


async def speak(count: int) -> int:
    for number in range(1, count + 1):
        await perdure.publish("words", number)
        await asyncio.sleep(0.002)
        if os.environ.get("STOP_AT") == str(number):
            await asyncio.sleep(60)
    return count


near = app.activity(name="near")(speak)
far = app.activity(name="far", queue="far")(speak)


@app.coordinator
async def speaks(memory: perdure.AsyncEntity, count: int) -> int:
    return await near(count)


@app.coordinator
async def speaks_far(memory: perdure.AsyncEntity, count: int) -> int:
    return await far(count)


@app.coordinator
async def reads(memory: perdure.AsyncEntity, pages: int) -> int:
    return await read(pages)


@app.coordinator
async def reads_in_thread(memory: perdure.AsyncEntity, pages: int) -> int:
    return await plain_read(pages)


@app.coordinator
async def reads_far(memory: perdure.AsyncEntity, pages: int) -> int:
    return await read_far(pages)


@app.coordinator
async def reads_in_hook(memory: perdure.AsyncEntity, pages: int) -> int:
    return await read_in_hook(memory, pages)


@app.transaction(retry=PATIENT)
async def withdraw(connection: psycopg.AsyncConnection[Any], account: int, amount: int) -> None:
    query = "update accounts set balance = balance - %s where id = %s"
    await connection.execute(query, [amount, account])


@app.transaction(retry=PATIENT)
def deposit(connection: psycopg.Connection[Any], account: int, amount: int) -> None:
    connection.execute(
        "update accounts set balance = balance + %s where id = %s", [amount, account]
    )


@app.transaction(retry=PATIENT)
async def close(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute("insert into transfers values (%s)", [perdure.info().job])


@app.hook
async def deposits(memory: perdure.AsyncEntity, account: int, amount: int) -> None:
    await deposit(account, amount)


@app.coordinator
async def transfer(memory: perdure.AsyncEntity, source: int, target: int, amount: int) -> None:
    await withdraw(source, amount)
    await deposits(memory, target, amount)
    await close()


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


@app.hook(queue="slots")
async def counted(memory: perdure.AsyncEntity, number: int) -> None:
    write_down(f"begin {os.getpid()} {number} {time.time()}")
    await asyncio.sleep(0.05)
    write_down(f"end {os.getpid()} {number} {time.time()}")
    await memory.increment("done")


@app.coordinator
async def count_many(memory: perdure.AsyncEntity, many: int) -> Any:
    await asyncio.gather(
        *(perdure.exec_hook(counted, n, limit_key=f"key {n % 3}") for n in range(many))
    )
    return await memory.get("done")
