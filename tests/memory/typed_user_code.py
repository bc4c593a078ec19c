"""What a user writes with typed memories; mypy reads it, nobody runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict, assert_type

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
    assert_type(await state.merge({"confidence": 0.5}), int)
    assert_type(await state.merge(Model(query=query)), int)
    assert_type(await state.increment("confidence", 0.25), float)
    assert_type(await state.append("findings", "a"), int)
    await state.set("text", "query")
    await state.set(Data(query))  # type: ignore[call-overload]
    await state.merge(5)  # type: ignore[call-overload]
    return found.nothing if found.confidence else found.query  # type: ignore[attr-defined]


@app.hook
def note(memory: perdure.Entity) -> None:
    state = memory.typed(Data)
    assert_type(state, perdure.TypedEntity[Data])
    assert_type(state.get(), Data)
    state.set(Data("q"), expected_version=1)
    state.set({"query": "q"})  # type: ignore[call-overload]
    handle: perdure.Entity = state
    handle.toggle("seen")


def outside(client: perdure.Client) -> str:
    client.define_contract("research-agent", Model)
    client.define_contract("note", Data)
    client.define_contract("thing", Typed)
    client.define_contract("free", {"type": "object"})
    client.define_contract("wrong", 5)  # type: ignore[arg-type]
    assert_type(client.drop_contract("note"), bool)
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
