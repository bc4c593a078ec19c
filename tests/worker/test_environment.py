"""What clients and workers take from the environment, as the command line does."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

import perdure


def schemas(dsn: str) -> set[str]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute("select nspname from pg_namespace").fetchall()
    return {name for (name,) in rows}


def test_environment_names_the_app(
    database: str, app: perdure.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script works on the same app as `perdure worker` in the same shell."""

    @app.coordinator
    async def ends(memory: perdure.AsyncEntity) -> str:
        return "done"

    async def asked() -> Any:
        async with perdure.connect_async(database) as client:
            return client.schema, await (await client.start(ends)).result(timeout=20)

    monkeypatch.setenv("PERDURE_SCHEMA", "my_app")
    with perdure.connect(database) as client, perdure.Worker(app, dsn=database):
        assert client.schema == "my_app"
        assert client.start(ends).result(timeout=20) == "done"
        assert asyncio.run(asked()) == ("my_app", "done")
    assert "perdure" not in schemas(database)


def test_given_schema_takes_precedence(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_SCHEMA", "my_app")
    with perdure.connect(database, schema="other") as client:
        assert client.schema == "other"
    with pytest.raises(perdure.PerdureError):
        perdure.connect(database, schema="")
    monkeypatch.setenv("PERDURE_SCHEMA", "")
    with perdure.connect(database, provision=False) as client:
        assert client.schema == "perdure"
