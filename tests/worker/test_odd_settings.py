"""Unusual settings of a database or role do not change what the package writes and reads."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql
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


ODD_SETTINGS: list[dict[str, str]] = [
    {"standard_conforming_strings": "off", "backslash_quote": "off"},
    {"quote_all_identifiers": "on", "array_nulls": "off"},
    {"transform_null_equals": "on", "row_security": "off"},
    {"extra_float_digits": "-15", "bytea_output": "escape", "intervalstyle": "iso_8601"},
    {"default_transaction_deferrable": "on", "default_transaction_isolation": "repeatable read"},
    {"plan_cache_mode": "force_custom_plan", "plpgsql.variable_conflict": "use_column"},
    {"lock_timeout": "50ms", "statement_timeout": "5s"},
    {"idle_session_timeout": "300ms", "idle_in_transaction_session_timeout": "1s"},
    {"search_path": "", "client_min_messages": "debug1", "synchronous_commit": "off"},
]


@pytest.mark.parametrize("settings", ODD_SETTINGS, ids=", ".join)
def test_app_works_whatever_the_role_has_set(
    app: perdure.App, database: str, settings: dict[str, str]
) -> None:
    """Providers and administrators set such defaults for roles and databases."""
    text = 'it\'s a \\ "quoted" text'

    @app.activity
    async def measure() -> dict[str, Any]:
        return {"x": 0.1234567890123456, "text": text}

    @app.transaction
    async def note(connection: psycopg.AsyncConnection[Any]) -> int:
        await connection.execute("select 1")
        return 1

    @app.hook
    async def counts(memory: perdure.AsyncEntity) -> None:
        await memory.increment("n")

    @app.coordinator(entity="odd")
    async def flow(memory: perdure.AsyncEntity) -> Any:
        await memory.set(await measure(), "measured")
        await counts(memory)
        await perdure.sleep("0.5 s")
        return [await note(), await perdure.wait_for("go")]

    with psycopg.connect(database, autocommit=True) as admin:
        for name, setting in settings.items():
            admin.execute(
                sql.SQL("alter database {} set {} = {}").format(
                    sql.Identifier(admin.info.dbname), sql.Identifier(*name.split(".")), setting
                )
            )
    with perdure.connect(database) as client, perdure.Worker(app, dsn=database):
        job = client.start(flow, timeout="1 min")
        job.signal("go", text)
        assert job.result(IN_TIME) == [1, text]
        assert client.create_index("odd", "n", "number").state == "valid"
        [found] = client.find("odd", {"n": 1, "measured.text": text}, order_by=["$created_at"])
        assert found.context == {"n": 1, "measured": {"x": 0.1234567890123456, "text": text}}
        assert client.fork(job.id, "fork").result(IN_TIME) == [1, text]
    with psycopg.connect(database) as connection:
        assert connection.execute("select * from perdure.assert_invariants()").fetchall() == []


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
