"""Code as users write it with hooks in SQL and labs. mypy checks it; nothing runs it."""

from __future__ import annotations

from typing import Any, assert_type
from unittest.mock import AsyncMock, Mock

import psycopg

import perdure
from perdure.testing import AsyncLab, Lab, Mocked

app = perdure.App()
recount = perdure.sql_hook("count reviews", int)
anything = perdure.sql_hook("anything")


@app.activity
async def search(query: str) -> list[str]:
    return [query]


@app.coordinator
async def research(memory: perdure.AsyncEntity, query: str) -> list[str]:
    assert_type(await recount(memory, {"add": 1}), int)
    assert_type(await recount(memory, add=1), int)
    assert_type(await anything(memory), Any)
    return await search(query)


@app.activity
def count(query: str) -> int:
    return len(query)


@app.hook
async def look(memory: perdure.AsyncEntity, query: str) -> bytes:
    found = search.start(query)
    assert_type(found, perdure.Pending[list[str]])
    assert_type(await found, list[str])
    assert_type(await count.start(query), int)
    return b""


@app.transaction
def keep(connection: psycopg.Connection[Any], query: str, *, often: int = 1) -> None:
    connection.execute("insert into queries values (%s, %s)", [query, often])


@app.coordinator
def plain(memory: perdure.Entity) -> int:
    assert_type(recount(memory), int)
    assert_type(recount.start().result(), int)
    assert_type(look.start("q").result(), bytes)
    assert_type(perdure.start_child(research, "q").result(), list[str])
    assert_type(perdure.start_child("research", "q").result(), Any)
    return recount(memory)


async def async_tests(lab: AsyncLab) -> None:
    assert_type(await lab.run(research, "subsidies"), list[str])
    assert_type(await lab.run("research", "subsidies"), Any)
    assert_type(await lab.run(plain), int)
    started = await lab.start(plain)
    assert_type(started, perdure.AsyncHandle[int])
    assert_type(await lab.result(started), int)
    assert_type(lab.memory("j"), perdure.AsyncMemory)


def tests(lab: Lab) -> None:
    assert_type(lab.run(research, "subsidies"), list[str])
    assert_type(lab.run("research", "subsidies"), Any)
    assert_type(lab.mock(search, lambda query: [query]), Mocked)
    assert_type(lab.run(plain), int)
    assert_type(lab.start(plain), perdure.Handle[int])
    assert_type(lab.result(lab.start(plain)), int)
    assert_type(lab.result("j"), Any)
    lab.client.handle("j").hook(recount, add=1)
    lab.client.register_sql_hook(recount, "public.recount", retry_in="1 min")
    perdure.sql_hook(5)  # type: ignore[call-overload]


async def found(query: str) -> list[str]:
    return [query]


def doubles(lab: Lab, async_lab: AsyncLab) -> None:
    assert_type(lab.mock(search, found), Mocked)
    assert_type(lab.mock(look, lambda memory, query: query.encode()), Mocked)
    assert_type(async_lab.mock(keep, lambda connection, query, *, often=1: None), Mocked)
    lab.mock(count, found)
    lab.mock(keep, Mock())
    lab.mock(look, AsyncMock(return_value=b""))
    lab.mock("search", found)
    lab.mock(search, ["found"])  # type: ignore[call-overload]
    lab.mock("search", None)  # type: ignore[call-overload]
    lab.mock(search, lambda: ["found"])  # type: ignore[arg-type, misc]
    async_lab.mock(look, lambda memory: b"")  # type: ignore[arg-type, misc]
    lab.mock(keep, lambda connection: None)  # type: ignore[arg-type, misc]
    lab.mock(research, print)  # type: ignore[call-overload]


async def asynchronous(client: perdure.AsyncClient) -> None:
    assert_type(await client.sql_hooks(), list[perdure.RegisteredSqlHook])
    assert_type(await client.drop_sql_hook(recount), bool)
