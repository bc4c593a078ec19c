"""Apps for workers in processes of their own."""

from __future__ import annotations

import asyncio
import ctypes
import os
from typing import Any

import perdure
from tests.engine.ledger import Paper
from tests.engine.programs import app_of

programs = app_of(Paper(os.environ.get("LEDGER", os.devnull)))

app = perdure.App()

NAMES = (
    "Ada", "Barbara", "Edsger", "Grace", "Hedy", "Ida", "Jean", "Karen", "Leslie", "Margaret",
    "Niklaus", "Radia", "Sophie", "Tony",
)  # fmt: skip


@app.activity
async def greet(name: str) -> str:
    return f"hello {name}"


@app.coordinator
async def greets(memory: perdure.AsyncEntity) -> Any:
    """Iterate over a set of strings, and move to another process before the end."""
    names = set(NAMES)
    out = []
    for name in names:
        out.append(await greet(name))
        if len(out) == len(names) // 2:
            await memory.set(out, "first half")
            await perdure.wait_for("go")
    return out


def starve() -> None:
    """Hold the interpreter's lock, as C code may, until a pipe is opened: no other thread of this
    process runs, not even the one that keeps its leases."""
    if pipe := os.environ.get("STARVE"):
        ctypes.PyDLL(None).open(os.fsencode(pipe), os.O_RDONLY)


@app.hook
async def slow(memory: perdure.AsyncEntity) -> Any:
    """Work for a while, write, and wait."""
    me = os.environ["NAME"]
    await memory.append("log", "begun")
    await memory.append("workers", me)
    starve()
    await asyncio.sleep(float(os.environ["SLOW"]))
    await memory.append("log", "done")
    await memory.signal("worked", me)
    await perdure.wait_for("go")
    await memory.append("log", "gone")
    return me


@app.coordinator
async def one_slow(memory: perdure.AsyncEntity) -> Any:
    return [await slow(memory), await memory.get("log")]
