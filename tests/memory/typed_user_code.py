"""User code with typed memories and transactions; mypy checks it, and nothing runs it."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict, assert_type

import psycopg
from pydantic import BaseModel

import perdure


class Model(BaseModel):
    query: str
    confidence: float = 0.0


@dataclass
class Data:
    query: str


class Typed(TypedDict):
    query: str


app = perdure.App()


@app.coordinator(entity="research-agent")
async def research(memory: perdure.AsyncEntity, query: str) -> str:
    state = memory.typed(Model)
    assert_type(state, perdure.TypedAsyncEntity[Model])
    assert_type(await state.set(Model(query=query)), int)
    found = await state.get()
    assert_type(found, Model)
    assert_type(await state.get("confidence"), Any)
    assert_type(await state.get("confidence", 0.5), Any | float)
    assert_type(await memory.get("votes", default=0), Any | int)
    assert_type(await state.merge({"confidence": 0.5}), int)
    assert_type(await state.merge(Model(query=query)), int)
    assert_type(await state.increment("confidence", 0.25), float)
    assert_type(await state.append("findings", "a"), int)
    await state.set("text", "query")
    await state.set(Data(query))  # type: ignore[call-overload]
    await state.merge(5)  # type: ignore[call-overload]
    return found.nothing if found.confidence else found.query  # type: ignore[attr-defined]


@app.coordinator
async def families(memory: perdure.AsyncEntity) -> Any:
    started = perdure.start_child(research, "q", on_parent_end="terminate")
    assert_type(started, perdure.Pending[str])
    assert_type(research.start("q"), perdure.Pending[str])
    assert_type(await perdure.shielded(research(memory, "q")), str)
    research.start(5)  # type: ignore[arg-type]
    perdure.child(research, "q", on_parent_end="abandon")  # type: ignore[arg-type]
    started.cancel()
    assert_type(await started, str)
    return await started


@app.hook
def note(memory: perdure.Entity) -> None:
    state = memory.typed(Data)
    assert_type(state, perdure.TypedEntity[Data])
    assert_type(state.get(), Data)
    state.set(Data("q"), expected_version=1)
    state.set({"query": "q"})  # type: ignore[call-overload]
    assert_type(state.get("notes", [""]), Any | list[str])
    text: str = memory.get("votes", 0)  # type: ignore[arg-type]
    memory.set(text, "text")
    handle: perdure.Entity = state
    handle.toggle("seen")


def outside(client: perdure.Client) -> str:
    client.define_contract("research-agent", Model)
    client.define_contract("note", Data)
    client.define_contract("thing", Typed)
    client.define_contract("free", {"type": "object"})
    client.define_contract("wrong", 5)  # type: ignore[arg-type]
    assert_type(client.drop_contract("note"), bool)
    assert_type(client.entity("one").get("votes", 0), Any | int)
    state = client.entity("one").typed(Typed)
    assert_type(state.get(), Typed)
    state.set({"query": "q"})
    state.set({"other": "q"})  # type: ignore[call-overload]
    for broken in client.broken_contracts("thing", Typed):
        assert_type(broken.path, str)
    try:
        state.merge({"query": 5})
    except perdure.ContractBroken as error:
        assert_type(error.path, str | None)
    return state.get()["query"]


def past(memory: perdure.Memory) -> None:
    version = memory.until("$.votes >= 2", timeout="1 h")
    assert_type(version, int)
    memory.at(version)
    memory.at(time=datetime.now(UTC), path=["a", 0])
    memory.set(1, "x", expected_version=version, key=None)
    memory.set(1, "x", expected_versoin=version)  # type: ignore[call-arg]
    memory.append("x", 1, 2, key=5)  # type: ignore[arg-type]
    assert_type(memory.log("messages", {"a": 1}, {"b": 2}), int)
    assert_type(memory.items("messages"), list[perdure.LogItem])
    newest = memory.items("messages", last=20)
    memory.items("messages", last=20, before=newest[0])
    memory.items("messages", last=20, before=(version, 1))
    assert_type(memory.history("a", after=version), list[perdure.Change])
    assert_type(memory.diff(1), list[perdure.Difference])
    assert_type(memory.blame(), list[perdure.Authorship])
    assert_type(memory.restore(1, key="once"), int)
    for change in memory.watch("a", after=version, timeout=2.5):
        assert_type(change, perdure.Change)


def many(client: perdure.Client) -> list[perdure.BrokenContract]:
    page = client.find("note", {"n": {"$gt": 1}}, order_by=["-n", "$id"], limit=3)
    assert_type(page, list[perdure.Found])
    client.find("note", after=page[-1].place)
    assert_type(client.count("note"), int)
    assert_type(client.create_index("note", ["a", "b"], "number"), perdure.Index)
    return client.broken_contracts("note", Model)


async def outside_async(client: perdure.AsyncClient) -> None:
    memory = client.entity("one")
    assert_type(await memory.until("$.n == 1"), int)
    assert_type(await memory.typed(Model).get(), Model)
    assert_type(await memory.history(), list[perdure.Change])
    assert_type(await client.find("note"), list[perdure.Found])
    async with aclosing(memory.watch(after=2)) as changes:
        async for change in changes:
            assert_type(change, perdure.Change)


@app.transaction(retries=2, isolation="serializable")
async def book(connection: psycopg.AsyncConnection[Any], what: str) -> int:
    return len(what)


@app.transaction
def book_plainly(connection: psycopg.Connection[Any], what: str) -> int:
    return len(what)


@app.transaction  # type: ignore[arg-type]
def book_wrongly(connection: psycopg.AsyncConnection[Any], what: str) -> int:
    return len(what)


@app.coordinator
async def books(memory: perdure.AsyncEntity) -> None:
    assert_type(await book("tea"), int)
    await book_plainly("tea")
    await book(5)  # type: ignore[arg-type]
    await book()  # type: ignore[call-arg]
