"""Clients and what callers hand to them: connections, options, times, values."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import perdure


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
