"""Unusual settings of a database or role do not change what the package writes and reads."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import perdure

pytestmark = pytest.mark.direct("a pooler passes no options on")

IN_TIME = "20 s"
STYLES = ("German", "SQL, DMY", "Postgres", "ISO, MDY")


def odd(dsn: str, **settings: str) -> str:
    """Give a connection string whose sessions have these settings."""
    options = [f"-c {name}={value}".replace(", ", r",\ ") for name, value in settings.items()]
    return make_conninfo(dsn, options=" ".join(options))


@pytest.mark.parametrize("style", STYLES)
def test_times_are_read_whatever_the_datestyle(dsn: str, style: str) -> None:
    """psycopg itself reads no style but ISO."""
    german = odd(dsn, datestyle=style, timezone="Asia/Kathmandu")

    async def main() -> datetime:
        async with await perdure.connect_async(german) as client:
            [change] = [c async for c in client.entity("order").watch(timeout="0.1 s")]
            return change.at

    with perdure.connect(german) as client:
        client.create_entity("order", "thing", {"n": 1})
        created_at = client.handle("order").status().created_at
        [change] = client.entity("order").history()
    assert change.at == asyncio.run(main()) == created_at
    with psycopg.connect(dsn) as plain:
        [stored] = plain.execute("select created_at from perdure.jobs where id = 'order'")
    assert stored == (created_at,)


def test_work_has_no_conflicts_where_serializable_is_the_default(
    app: perdure.App, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A conflict would delay the work and log a warning. Only a transaction of the user's keeps the
    default of the database."""

    @app.transaction
    async def levels(connection: psycopg.AsyncConnection[Any]) -> Any:
        cursor = await connection.execute("show transaction_isolation")
        return await cursor.fetchone()

    @app.hook
    async def counts(memory: perdure.AsyncEntity) -> None:
        await memory.increment("n")

    @app.coordinator
    async def flow(memory: perdure.AsyncEntity) -> Any:
        await asyncio.gather(*(counts(memory) for _ in range(10)))
        return await levels()

    strict = odd(dsn, default_transaction_isolation="serializable")
    with (
        caplog.at_level(logging.WARNING, "perdure.worker"),
        perdure.connect(strict) as client,
        perdure.Worker(app, dsn=strict),
        perdure.Worker(app, dsn=strict),
    ):
        jobs = [client.start(flow) for _ in range(20)]
        assert [job.result(IN_TIME) for job in jobs] == [["serializable"]] * 20
        assert [job.memory.get("n") for job in jobs] == [10] * 20
    assert "could not serialize" not in caplog.text


def test_implicit_casts_of_numbers_to_text_do_no_harm(app: perdure.App, dsn: str) -> None:
    """Databases from before PostgreSQL 8.3 may have them. They make `run || '/main'` ambiguous."""
    with psycopg.connect(dsn) as admin:
        for kind in ("integer", "bigint", "numeric", "interval"):
            admin.execute(f"create cast ({kind} as text) with inout as implicit")

    @app.hook
    async def counts(memory: perdure.AsyncEntity) -> None:
        await memory.increment("n")

    @app.coordinator
    async def child(memory: perdure.AsyncEntity) -> str:
        return memory.id

    @app.coordinator(entity="odd")
    async def flow(memory: perdure.AsyncEntity) -> str:
        await counts(memory)
        return await child.start()

    with perdure.connect(dsn) as client:
        with perdure.Worker(app, dsn=dsn):
            job = client.start(flow, timeout="1 min")
            assert job.result(IN_TIME) == f"{job.id}/child#1"
            fork = client.fork(job.id, "fork")
            assert fork.result(IN_TIME)
        assert job.status().status == "completed"
        found = client.find("odd", {"n": 1}, order_by=["$created_at"])
        assert [memory.id for memory in found] == [job.id, "fork"]
        assert client.start(flow).cancel()
