"""`memory.get(path, default)` returns the default instead of null, and only then."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any, TypedDict

import pytest

import perdure
from perdure.testing import Lab

MEMORY = {
    "null": None,
    "zero": 0,
    "no": False,
    "text": "",
    "user": {"name": None, "tags": [None, "a"]},
    "1": {"1": None},
}
FOUND = {
    "zero": 0,
    "no": False,
    "text": "",
    "user.tags.1": "a",
    "items": ["first"],
}
NULL = ["null", "user.name", "user.tags.0", "user.tags.-2", "1.1"]
ABSENT = ["nothing", "user.age", "a.b.c", "user.tags.2", "user.tags.-3", "user.tags.x", "text.0"]
EXPECTED: dict[str, Any] = FOUND | dict.fromkeys(NULL + ABSENT, "default")

app = perdure.App()


class State(TypedDict):
    zero: int


async def read(memory: perdure.AsyncEntity) -> dict[str, Any]:
    assert (await memory.get("", "default"))["zero"] == 0
    assert await memory.typed(State).get("nothing", "default") == "default"
    return {path: await memory.get(path, "default") for path in EXPECTED}


def read_plain(memory: perdure.Entity) -> dict[str, Any]:
    assert memory.get("", "default")["zero"] == 0
    assert memory.typed(State).get("nothing", "default") == "default"
    return {path: memory.get(path, default="default") for path in EXPECTED}


@app.hook
async def async_hook(memory: perdure.AsyncEntity) -> dict[str, Any]:
    return await read(memory)


@app.hook
def plain_hook(memory: perdure.Entity) -> dict[str, Any]:
    return read_plain(memory)


@app.coordinator
async def async_job(memory: perdure.AsyncEntity) -> list[dict[str, Any]]:
    await memory.log("items", "first")
    together = asyncio.gather(
        memory.get("nothing", 1), memory.get("null", 2), memory.get("zero", 3)
    )
    assert await together == [1, 2, 0]
    return [await read(memory), *await asyncio.gather(async_hook(memory), plain_hook(memory))]


@app.coordinator
def plain_job(memory: perdure.Entity) -> list[dict[str, Any]]:
    memory.log("items", "first")
    return [read_plain(memory), async_hook(memory), plain_hook(memory)]


@pytest.mark.parametrize("job", [async_job, plain_job], ids=lambda job: job.name)
def test_coordinators_and_hooks_get_the_default(job: Any, dsn: str) -> None:
    """And replay tells them the same."""
    with Lab(app, dsn=dsn) as lab:
        assert lab.run(job, context=MEMORY) == [EXPECTED] * 3
        lab.check()


def test_clients_get_the_default(dsn: str) -> None:
    with perdure.connect(dsn) as client:
        memory = client.create_entity("j", "thing", MEMORY)
        memory.log("items", "first")
        assert read_plain(memory) == EXPECTED
        with pytest.raises(perdure.JobNotFound):
            client.entity("nobody").get("n", 0)

    async def reads() -> dict[str, Any]:
        async with perdure.connect_async(dsn) as client:
            return await read(client.entity("j"))

    assert asyncio.run(reads()) == EXPECTED


def test_forgotten_await_is_named_by_the_warning(dsn: str) -> None:
    async def forgets() -> None:
        async with perdure.connect_async(dsn) as client:
            client.entity("j").get("n", 0)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asyncio.run(forgets())
        messages = [str(each.message) for each in told]
        told.clear()  # a warning holds the coroutine, and that the one within
    assert any("coroutine 'memory.get' was never awaited" in each for each in messages)


def test_default_need_not_be_json(dsn: str) -> None:
    """It is not stored."""
    with perdure.connect(dsn) as client:
        nothing = object()
        assert client.create_entity("j", "thing").get("n", nothing) is nothing
