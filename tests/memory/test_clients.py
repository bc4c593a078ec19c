"""What clients accept from callers: connections, options, times and values."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import perdure
from perdure.clients.past import Past
from perdure.clients.polling import Steps
from perdure.database.calls import Calls
from perdure.workflow.memory import OF_CLIENTS


@pytest.fixture
def memory(dsn: str) -> Any:
    """Give the memory of an entity."""
    with perdure.connect(dsn) as client:
        yield client.create_entity("m", "note", {"n": 1})


KINDS = {
    "dict rows": {"row_factory": dict_row},
    "client-side binding": {"cursor_factory": psycopg.ClientCursor},
    "raw parameters ($1)": {"cursor_factory": psycopg.RawCursor},
}


@pytest.mark.parametrize("kind", KINDS)
def test_connection_of_the_caller_may_have_any_row_or_cursor_factory(
    dsn: str, memory: Any, kind: str
) -> None:
    with psycopg.connect(dsn, **KINDS[kind]) as connection:
        inside = memory._client.entity("m", connection=connection)
        assert inside.increment("n") == 2
        assert [change.version for change in inside.history()] == [1, 2]
        assert memory.get("n") == 1, "nothing is committed yet"


ASYNC_KINDS: dict[str, dict[str, Any]] = {
    "dict rows": {"row_factory": dict_row},
    "raw parameters ($1)": {"cursor_factory": psycopg.AsyncRawCursor},
}


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_async_connection_of_the_caller_may_have_any_factory(dsn: str, kind: str) -> None:
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


def test_new_entities_jobs_and_hooks_join_the_callers_transaction(dsn: str) -> None:
    with perdure.connect(dsn) as client, psycopg.connect(dsn) as connection:
        made = client.create_entity("made", "note", {"n": 1}, connection=connection)
        assert made.increment("n") == 2, "the new handle uses the same transaction"
        client.start_many("w", [{"id": "one"}, {"id": "two"}], connection=connection)
        client.handle("one").hook("h", connection=connection)
        connection.rollback()
        for job in ("made", "one", "two"):
            with pytest.raises(perdure.JobNotFound):
                client.handle(job).status()


def test_waiting_inside_an_open_transaction_is_rejected(dsn: str, memory: Any) -> None:
    """An open transaction hides its own writes from others, so a wait inside it could never end."""
    with psycopg.connect(dsn) as connection:
        inside = memory._client.entity("m", connection=connection)
        with pytest.raises(perdure.InvalidArgument, match="Commit first"):
            inside.until("$.n == 1")
        with pytest.raises(perdure.InvalidArgument, match="Commit first"):
            next(inside.watch())


# Mistakes that are rejected before anything is sent.


def test_memory_has_no_attributes_to_assign_to(memory: Any) -> None:
    """`memory.n = 3` would look like a write, and be lost."""
    inside = perdure.AsyncEntity(memory._access, "m")
    for each in (memory, memory.typed(dict), inside, inside.typed(dict)):
        with pytest.raises(AttributeError, match="no attribute 'n'"):
            each.n = 3
        assert weakref.ref(each)() is each  # as of other objects
    assert (memory.get(), memory.is_new) == ({"n": 1}, True)
    assert memory._client.entity("m").is_new is None


def test_memory_of_a_job_says_who_reads_the_past(memory: Any) -> None:
    """A log is read page by page by a client, also when a hook wants the last messages of it."""
    assert {name for name in vars(Past) if not name.startswith("_")} == OF_CLIENTS
    for name in OF_CLIENTS:
        for each in (perdure.AsyncEntity(memory._access, "m"), memory.typed(dict)):
            with pytest.raises(AttributeError, match=rf"client\.entity\(id\)\.{name}\(\)"):
                getattr(each, name)
        assert callable(getattr(memory, name))


def test_command_with_key_none_gets_a_random_key(memory: Any) -> None:
    """[P12] Without a key, a command could be applied twice when its reply is lost."""
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
def test_unknown_option_of_a_command_raises_type_error(memory: Any, verb: str) -> None:
    with pytest.raises(TypeError):
        UNKNOWN[verb](memory)
    assert memory.get() == {"n": 1}


WRONG: dict[str, Callable[[perdure.Client, Any], object]] = {
    "a time without a zone": lambda _, memory: memory.at(time=datetime(2030, 1, 1)),  # noqa: DTZ001
    "a command outside a list": lambda _, memory: memory.apply({"op": "toggle", "path": "a"}),
    "a string instead of a command": lambda _, memory: memory.apply(["toggle"]),
    "an increment by a string": lambda _, memory: memory.increment("n", "3"),
    "an increment by a boolean": lambda _, memory: memory.increment("n", True),
    "an array as memory": lambda client, _: client.create_entity("b", "note", []),
    "a NUL in a condition": lambda client, _: client.find("note", {"n": "\0"}),
    "a lone surrogate": lambda client, _: client.count("note", {"n": {"$in": ["\ud800"]}}),
    "a path given as a tuple": lambda client, _: client.find("note", {("n", "a"): 1}),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("mistake", WRONG)
def test_invalid_argument_is_rejected_with_a_hint(memory: Any, mistake: str) -> None:
    with pytest.raises((perdure.InvalidArgument, perdure.InvalidValue)) as raised:
        WRONG[mistake](memory._client, memory)
    assert raised.value.hint
    assert memory.get() == {"n": 1}


def test_async_client_rejects_a_mistake_before_anything_is_awaited(dsn: str) -> None:
    async def run() -> None:
        async with await perdure.connect_async(dsn) as client:
            with pytest.raises(perdure.InvalidValue):
                client.start("w", "\0")  # type: ignore[unused-coroutine]

    asyncio.run(run())


# Sync and async clients.

KINDS_OF = [
    (perdure.Client, perdure.AsyncClient),
    (perdure.Handle, perdure.AsyncHandle),
    (perdure.Memory, perdure.AsyncMemory),
]


@pytest.mark.parametrize(("plain", "asynchronous"), KINDS_OF)
def test_sync_and_async_classes_have_the_same_verbs(plain: type, asynchronous: type) -> None:
    assert verbs_of(plain) == verbs_of(asynchronous)


def verbs_of(kind: type) -> dict[str, list[inspect.Parameter]]:
    """List the public methods of a class with their parameters."""
    return {
        name: list(inspect.signature(verb).parameters.values())
        for name, verb in inspect.getmembers(kind, callable)
        if not name.startswith("_")
    }


def test_error_of_a_call_is_raised_inside_the_steps_that_made_it(dsn: str) -> None:
    """The steps can catch the error and continue, as reseal() does after a conflicting write."""

    def steps(calls: Calls) -> Steps[list[str]]:
        try:
            yield calls.status("nobody")
        except perdure.JobNotFound:
            return [(yield calls.status("m"))[0]]
        raise AssertionError("a job called nobody exists")

    async def run() -> None:
        async with await perdure.connect_async(dsn) as client:
            await client.create_entity("m", "note")
            assert await client.follow(steps(client.calls)) == ["m"]

    asyncio.run(run())
    with perdure.connect(dsn) as client:
        assert client.follow(steps(client.calls)) == ["m"]


@pytest.mark.parametrize("swapped", [("set", "state", {"n": 1}), ("append", {"n": 1}, "items")])
def test_swapped_path_and_value_are_refused_with_their_order(
    dsn: str, swapped: tuple[Any, ...]
) -> None:
    """The hint explained how to write a path."""
    verb, *given = swapped
    with perdure.connect(dsn) as client:
        memory = client.create_entity("order", "note")
        with pytest.raises(perdure.InvalidPath) as refused:
            getattr(memory, verb)(*given)
    assert "set(value, path) and merge(patch, path) take the path last" in str(refused.value.hint)
    assert "not of type dict" in str(refused.value.detail)
