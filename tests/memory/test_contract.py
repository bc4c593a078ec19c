"""Contracts from end to end: a change that would break a contract is refused, whoever writes it.

Tasks see the same error live and on replay (C23).
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

import perdure
from perdure.clients.contracts import BrokenContract, schema_of
from tests.patience import wait_until

T = "15 s"


class Finding(BaseModel):
    text: str
    confidence: float = Field(ge=0, le=1)


class ResearchState(BaseModel):
    query: str
    status: Literal["researching", "completed"] = "researching"
    findings: list[Finding] = []
    verdict: Finding | None = None


@dataclass
class Draft:
    title: str
    pages: list[int] = field(default_factory=list)


class Order(TypedDict):
    number: int
    note: str | None


@pytest.mark.parametrize(
    ("shape", "fits", "broken", "path", "rule"),
    [
        ({"required": ["a"]}, {"a": 1}, {}, "a", "required"),
        (
            ResearchState,
            ResearchState(query="q", findings=[Finding(text="t", confidence=0.5)]),
            {"query": "q", "findings": [{"text": "t", "confidence": 2}]},
            "findings.0.confidence",
            "maximum",
        ),
        (Draft, Draft("t", [1]), {"title": "t", "pages": ["1"]}, "pages.0", "type"),
        (Order, Order(number=1, note=None), {"number": 1, "note": 5}, "note", "type"),
    ],
    ids=["a dict", "a pydantic model", "a dataclass", "a TypedDict"],
)
def test_a_client_defines_a_contract(
    client: perdure.Client, shape: Any, fits: Any, broken: Any, path: str, rule: str
) -> None:
    assert client.contract("thing") is None
    client.define_contract("thing", shape)
    assert client.contract("thing") == schema_of(shape)
    memory = client.create_entity("one", "thing", fits)
    with pytest.raises(perdure.ContractBroken) as raised:
        memory.set(broken)
    assert (raised.value.code, raised.value.path, raised.value.rule) == ("PD109", path, rule)
    assert raised.value.message.startswith(f"{path} is ")
    assert raised.value.detail
    assert raised.value.hint
    assert client.drop_contract("thing")
    assert not client.drop_contract("thing")
    assert memory.set(broken) == 2


def test_async_client_has_the_verbs_for_contracts(dsn: str) -> None:
    async def use() -> None:
        async with await perdure.connect_async(dsn) as client:
            memory = await client.create_entity("one", "draft", {"title": 1})
            await client.define_contract("draft", Draft)
            assert await client.contract("draft") == schema_of(Draft)
            (broken,) = await client.broken_contracts("draft")
            assert (broken.id, broken.path, broken.rule) == ("one", "title", "type")
            with pytest.raises(perdure.ContractBroken):
                await memory.append("pages", 1)
            assert await client.drop_contract("draft")

    asyncio.run(use())


def test_contract_can_be_checked_before_it_is_defined(client: perdure.Client) -> None:
    """broken_contracts() lists the memories that would break a proposed contract, page by page."""
    for number in range(5):
        client.create_entity(f"o-{number}", "order", {"number": number, "note": None})
    client.create_entity("o-x", "order", {"number": "x", "note": None})
    assert client.broken_contracts("order", Order) == [
        BrokenContract(
            "o-x",
            "number",
            "type",
            "number is a string of length 1, but the contract of order wants an integer",
        )
    ]
    required = {"required": ["city"]}
    assert [b.id for b in client.broken_contracts("order", required, max_rows=2)] == ["o-0", "o-1"]
    assert len(client.broken_contracts("order", required, after="o-1")) == 4


def test_invalid_contract_is_rejected_when_it_is_defined(client: perdure.Client) -> None:
    with pytest.raises(perdure.PerdureError, match=r"properties\.a\.typ is not a rule") as raised:
        client.define_contract("note", {"properties": {"a": {"typ": "string"}}})
    assert raised.value.code == "PD107"


def test_type_without_a_json_schema_is_rejected_with_a_hint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Odd:
        pass

    with pytest.raises(perdure.PerdureError, match="Odd has no JSON Schema") as raised:
        schema_of(Odd)
    assert raised.value.hint
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(perdure.PerdureError, match="needs pydantic") as raised:
        schema_of(Draft)
    assert "pip install" in (raised.value.hint or "")
    assert schema_of({"type": "object"}) == {"type": "object"}


def test_refused_command_raises_in_a_coordinator_live_and_on_replay(
    app: perdure.App, client: perdure.Client, work: Any, dsn: str
) -> None:
    seen: list[list[Any]] = []

    @app.coordinator(entity="research-agent")
    async def research(memory: perdure.AsyncEntity) -> Any:
        observed: list[Any] = []
        await memory.set(ResearchState(query="q"))
        try:
            await memory.append("findings", {"text": "t", "confidence": 1.5})
        except perdure.ContractBroken as error:
            observed.append([error.message, error.path, error.rule, error.code, error.detail])
        both = await asyncio.gather(
            memory.set("lost", "status"), memory.set("r", "query"), return_exceptions=True
        )
        observed.append([type(outcome).__name__ for outcome in both])
        seen.append(observed)
        await perdure.wait_for("go on")
        return [observed, await memory.get()]

    client.define_contract("research-agent", ResearchState)
    handle = client.start(research, id="r")
    with perdure.Worker(app, dsn=dsn):
        wait_until(lambda: seen and "signal" in (handle.status().waiting_for or ""))
    handle.signal("go on")
    work()
    observed, memory = handle.result(T)
    assert len(seen) == 2  # another worker ran it from the journal
    assert seen[0] == seen[1] == observed
    assert observed == [
        [
            "findings.0.confidence is a number, but the contract of research-agent wants at most 1",
            "findings.0.confidence",
            "maximum",
            "PD109",
            "The rule is maximum. The memory was not changed.",
        ],
        ["ContractBroken", "int"],
    ]
    assert memory["query"] == "r"
    assert memory["findings"] == []


def test_refused_command_raises_in_async_and_plain_hooks(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.hook
    async def asynchronous(memory: perdure.AsyncEntity) -> Any:
        try:
            await memory.merge({"pages": "none"})
        except perdure.ContractBroken as error:
            return [error.path, error.rule]

    @app.hook
    def plain(memory: perdure.Entity) -> None:
        memory.delete("title")

    @app.coordinator(entity="draft")
    async def write(memory: perdure.AsyncEntity) -> Any:
        await memory.set(Draft("t"))
        observed = await asynchronous(memory)
        try:
            await plain(memory)
        except perdure.HookFailed as error:
            return [observed, error.type, error.failure["code"], await memory.get()]

    client.define_contract("draft", Draft)
    work()
    expected = [["pages", "type"], "ContractBroken", "PD109", {"title": "t", "pages": []}]
    assert client.start(write).result(T) == expected


def test_first_memory_of_a_job_or_child_must_meet_the_contract(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator(entity="draft")
    async def write(memory: perdure.AsyncEntity) -> Any:
        return await memory.get()

    @app.coordinator
    async def publish(memory: perdure.AsyncEntity) -> Any:
        try:
            await perdure.child(write, id="broken", context={"title": 1})
        except perdure.ChildFailed as error:
            child = await perdure.child(write, context={"title": "t"})
            return [error.type, error.failure["path"], child]

    client.define_contract("draft", Draft)
    with pytest.raises(perdure.ContractBroken, match="title is missing"):
        client.start(write, id="none", context={"pages": []})
    with pytest.raises(perdure.JobNotFound):
        client.handle("none").status()
    work()
    assert client.start(publish).result(T) == ["ContractBroken", "title", {"title": "t"}]
    assert client.handle("broken").status().status == "failed"


def test_one_update_migrates_all_memories_to_a_new_contract(
    client: perdure.Client, dsn: str
) -> None:
    for number in range(4):
        client.create_entity(f"o-{number}", "order", {"number": number, "note": None})
    renamed = {"required": ["id"], "properties": {"number": False, "id": {"type": "integer"}}}
    assert len(client.broken_contracts("order", renamed)) == 4
    client.define_contract("order", renamed)
    with psycopg.connect(dsn, autocommit=True) as connection:
        moved = connection.execute(
            "update perdure.jobs"
            "   set context = (context - 'number') || jsonb_build_object('id', context -> 'number')"
            " where entity = 'order'"
        )
        assert moved.rowcount == 4
    assert client.broken_contracts("order") == []
    assert client.entity("o-2").get() == {"id": 2, "note": None}
