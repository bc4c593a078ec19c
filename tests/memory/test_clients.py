"""Clients and what callers hand to them: connections, options, times, values."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import perdure
from perdure.clients.polling import Steps
from perdure.database.calls import Calls


@pytest.fixture
def memory(dsn: str) -> Any:
    """Give the memory of an entity."""
    with perdure.connect(dsn) as client:
        yield client.create_entity("m", "note", {"n": 1})


KINDS = {
    "rows that are dicts": {"row_factory": dict_row},
    "parameters in the text": {"cursor_factory": psycopg.ClientCursor},
    "parameters like $1": {"cursor_factory": psycopg.RawCursor},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_of_the_caller_may_be_of_any_kind(dsn: str, memory: Any, kind: str) -> None:
    with psycopg.connect(dsn, **KINDS[kind]) as connection:
        inside = memory._client.entity("m", connection=connection)
        assert inside.increment("n") == 2
        assert [change.version for change in inside.history()] == [1, 2]
        assert memory.get("n") == 1, "nothing is committed yet"


ASYNC_KINDS: dict[str, dict[str, Any]] = {
    "rows that are dicts": {"row_factory": dict_row},
    "parameters like $1": {"cursor_factory": psycopg.AsyncRawCursor},
}


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_an_async_connection_of_the_caller_too(dsn: str, kind: str) -> None:
    async def run() -> None:
        async with await perdure.connect_async(dsn) as client:
            await client.create_entity("m", "note", {"n": 1})
            async with await psycopg.AsyncConnection.connect(dsn, **ASYNC_KINDS[kind]) as other:
                inside = client.entity("m", connection=other)
                assert await inside.increment("n") == 2
                assert [change.version for change in await inside.history()] == [1, 2]
                assert await client.entity("m").get("n") == 1

    asyncio.run(run())


# What joins the caller's transaction, and what cannot.


def test_what_is_made_joins_the_callers_transaction(dsn: str) -> None:
    with perdure.connect(dsn) as client, psycopg.connect(dsn) as mine:
        made = client.create_entity("made", "note", {"n": 1}, connection=mine)
        assert made.increment("n") == 2, "the handle goes on inside"
        client.start_many("w", [{"id": "one"}, {"id": "two"}], connection=mine)
        client.handle("one").hook("h", connection=mine)
        mine.rollback()
        for job in ("made", "one", "two"):
            with pytest.raises(perdure.JobNotFound):
                client.handle(job).status()


def test_nobody_waits_inside_a_transaction(dsn: str, memory: Any) -> None:
    """It would be for what neither side can see."""
    with psycopg.connect(dsn) as mine:
        inside = memory._client.entity("m", connection=mine)
        with pytest.raises(perdure.InvalidArgument, match="Commit first"):
            inside.until("$.n == 1")
        with pytest.raises(perdure.InvalidArgument, match="Commit first"):
            next(inside.watch())


# What is refused before it is sent, in words.


def test_a_key_of_none_is_drawn(memory: Any) -> None:
    """A call without a key would be done twice when its reply is lost. [P12]"""
    memory.increment("n", key=None, expected_version=None)
    memory.apply([{"op": "increment", "path": "n", "value": 1}], key=None)
    memory.restore(1, key=None)
    assert all(change.key for change in memory.history(after=1))


UNKNOWN: dict[str, Callable[[Any], object]] = {
    "set": lambda memory: memory.set(1, "n", expected_versoin=1),
    "append": lambda memory: memory.append("l", 1, ky="a"),
    "restore": lambda memory: memory.restore(1, version=1),
    "apply": lambda memory: memory.apply([], keys="a"),
    "typed": lambda memory: memory.typed(dict).set({}, expected="a"),
}


@pytest.mark.parametrize("verb", UNKNOWN)
def test_an_option_that_no_command_has_is_a_type_error(memory: Any, verb: str) -> None:
    with pytest.raises(TypeError):
        UNKNOWN[verb](memory)
    assert memory.get() == {"n": 1}


WRONG: dict[str, Callable[[perdure.Client, Any], object]] = {
    "a time without a zone": lambda _, memory: memory.at(time=datetime(2030, 1, 1)),  # noqa: DTZ001
    "one command": lambda _, memory: memory.apply({"op": "toggle", "path": "a"}),
    "a word for a command": lambda _, memory: memory.apply(["toggle"]),
    "a text that is added": lambda _, memory: memory.increment("n", "3"),
    "a boolean that is added": lambda _, memory: memory.increment("n", True),
    "an array for a memory": lambda client, _: client.create_entity("b", "note", []),
    "a NUL in a condition": lambda client, _: client.find("note", {"n": "\0"}),
    "half a character": lambda client, _: client.count("note", {"n": {"$in": ["\ud800"]}}),
    "a path in parts": lambda client, _: client.find("note", {("n", "a"): 1}),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_told_with_a_hint(memory: Any, mistake: str) -> None:
    with pytest.raises((perdure.InvalidArgument, perdure.InvalidValue)) as raised:
        WRONG[mistake](memory._client, memory)
    assert raised.value.hint
    assert memory.get() == {"n": 1}


def test_an_async_client_tells_a_mistake_where_it_is_made(dsn: str) -> None:
    """Nothing has to be awaited for it."""

    async def run() -> None:
        async with await perdure.connect_async(dsn) as client:
            with pytest.raises(perdure.InvalidValue):
                client.start("w", "\0")  # type: ignore[unused-coroutine]

    asyncio.run(run())


# Both kinds of clients.

KINDS_OF = [
    (perdure.Client, perdure.AsyncClient),
    (perdure.Handle, perdure.AsyncHandle),
    (perdure.Memory, perdure.AsyncMemory),
]


@pytest.mark.parametrize(("plain", "asynchronous"), KINDS_OF)
def test_both_kinds_have_the_same_verbs(plain: type, asynchronous: type) -> None:
    assert verbs_of(plain) == verbs_of(asynchronous)


def verbs_of(kind: type) -> dict[str, list[inspect.Parameter]]:
    """Read which verbs there are, and what they take."""
    return {
        name: list(inspect.signature(verb).parameters.values())
        for name, verb in inspect.getmembers(kind, callable)
        if not name.startswith("_")
    }


def test_a_refusal_is_raised_in_the_steps_that_have_met_it(dsn: str) -> None:
    """They may go on from there, as reseal() does when somebody else has written."""

    def steps(calls: Calls) -> Steps[list[str]]:
        try:
            yield calls.status("nobody")
        except perdure.JobNotFound:
            return [(yield calls.status("m"))[0]]
        raise AssertionError("there is somebody")

    async def run() -> None:
        async with await perdure.connect_async(dsn) as client:
            await client.create_entity("m", "note")
            assert await client.follow(steps(client.calls)) == ["m"]

    asyncio.run(run())
    with perdure.connect(dsn) as client:
        assert client.follow(steps(client.calls)) == ["m"]
