"""A typed memory reads and writes values of the user's type, in jobs and in clients (C37)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pytest
from pydantic import BaseModel, Field, ValidationError

import perdure
from perdure.values.wire import decoder, to_json

T = "40 s"
ROOT = Path(__file__).resolve().parents[2]
WHEN = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Finding(BaseModel):
    text: str
    at: datetime


class Model(BaseModel):
    query: str
    status: Literal["open", "done"] = "open"
    findings: list[Finding] = []
    verdict: Finding | None = None
    page_size: int = Field(default=10, alias="pageSize")


@dataclass
class Page:
    number: int
    seen_at: datetime | None = None


@dataclass
class Data:
    query: str
    status: Literal["open", "done"] = "open"
    pages: list[Page] = field(default_factory=list)
    by_name: dict[str, Page] = field(default_factory=dict)


class Inner(TypedDict):
    page: Page
    at: NotRequired[datetime]


class Typed(TypedDict, total=False):
    query: str
    status: str
    inner: Inner | None


STATES: list[Any] = [
    Model(query="q", findings=[Finding(text="t", at=WHEN)], pageSize=20),
    Data("q", pages=[Page(1), Page(2, WHEN)], by_name={"a": Page(3)}),
    Typed(query="q", status="open", inner={"page": Page(1, WHEN), "at": WHEN}),
]
KINDS: list[Any] = [Model, Data, Typed]
EACH = pytest.mark.parametrize(("kind", "state"), [*zip(KINDS, STATES, strict=True)])


@EACH
def test_state_is_read_back_as_its_type(kind: Any, state: Any) -> None:
    assert decoder(kind)(to_json(state)) == state


@EACH
def test_client_reads_the_state_that_it_wrote(
    client: perdure.Client, kind: Any, state: Any
) -> None:
    memory = client.create_entity("one", "thing").typed(kind)
    assert memory.kind is kind
    assert memory.set(state) == 1
    assert memory.get() == state
    assert memory.merge({"status": "done"}) == 2
    assert memory.get("status") == "done"
    assert memory.append("log", "a", "b") == 2  # other commands are untyped
    assert client.entity("one").get("log") == ["a", "b"]
    assert repr(memory) == "<TypedEntity of one>"


@EACH
def test_async_client_reads_the_state_that_it_wrote(dsn: str, kind: Any, state: Any) -> None:
    async def use() -> None:
        async with await perdure.connect_async(dsn) as client:
            memory = (await client.create_entity("one", "thing")).typed(kind)
            assert await memory.set(state) == 1
            assert await memory.get() == state
            assert await memory.merge({"status": "done"}, expected_version=1) == 2
            assert await memory.get("status") == "done"

    asyncio.run(use())


@EACH
def test_async_and_plain_coordinators_and_hooks_use_typed_memories(
    client: perdure.Client, dsn: str, kind: Any, state: Any
) -> None:
    app, seen = perdure.App(), []

    @app.hook
    async def asynchronous(memory: perdure.AsyncEntity) -> None:
        typed = memory.typed(kind)
        seen.append(await typed.get())
        await typed.merge({"status": "done"})

    @app.hook
    def in_plain_code(memory: perdure.Entity) -> None:
        typed = memory.typed(kind)
        seen.append(typed.get())
        typed.set(state)

    @app.coordinator
    async def orchestrate(memory: perdure.AsyncEntity) -> Any:
        typed = memory.typed(kind)
        await typed.set(state)
        first, status = await asyncio.gather(typed.get(), typed.get("status"))
        await asynchronous(memory)
        await in_plain_code(memory)
        await perdure.sleep(0.01)
        return [type(first) is type(state), first == state == await typed.get(), status]

    @app.coordinator
    def plain(memory: perdure.Entity) -> Any:
        typed = memory.typed(kind)
        typed.set(state)
        perdure.sleep(0.01)
        return typed.get() == state

    with perdure.Worker(app, dsn=dsn):
        assert client.start(orchestrate).result(T) == [True, True, "open"]
        assert client.start(plain).result(T) is True
    assert seen[0] == state
    assert field_of(seen[1], "status") == "done"


def test_merge_of_a_model_writes_only_the_fields_that_were_set(client: perdure.Client) -> None:
    memory = client.create_entity("one", "thing", {"query": "q", "pageSize": 5}).typed(Model)
    memory.merge(Model.model_construct(status="done"))
    assert client.entity("one").get() == {"query": "q", "pageSize": 5, "status": "done"}
    memory.merge(Model(query="r"))
    assert memory.get() == Model(query="r", status="done", pageSize=5)


def test_memory_that_does_not_fit_its_type_raises_when_read(client: perdure.Client) -> None:
    memory = client.create_entity("one", "thing", {"query": 5})
    with pytest.raises(ValidationError):
        memory.typed(Model).get()
    with pytest.raises(TypeError):
        client.create_entity("two", "thing", {}).typed(Data).get()


def test_mypy_checks_user_code_with_typed_memories() -> None:
    """mypy --strict confirms each assert_type() of typed_user_code.py and finds each marked
    mistake."""
    pytest.importorskip("mypy")
    file = Path(__file__).with_name("typed_user_code.py")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, str(file)]
    environment = dict(os.environ, MYPYPATH=str(ROOT / "python"))
    checked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert checked.stdout.startswith("Success"), checked.stdout + checked.stderr


def field_of(state: Any, name: str) -> Any:
    return state[name] if isinstance(state, dict) else getattr(state, name)
