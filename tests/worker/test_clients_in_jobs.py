"""Code that a worker runs reaches the worker's own app by `connect()` without arguments."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import perdure
from perdure.codecs import AesGcm
from perdure.database.source import Source

T = "40 s"
CODEC = AesGcm(keys={"k": b"0" * 32}, current="k")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the variables name an app that does not exist."""
    monkeypatch.setenv("PERDURE_DATABASE_URL", "postgresql://nobody@localhost:1/nothing")
    monkeypatch.setenv("PERDURE_SCHEMA", "nothing")


@pytest.fixture
def mine(database: str, app: perdure.App, elsewhere: None) -> Iterator[perdure.Client]:
    """A client of an app with a name and a codec; its worker runs already."""
    app.codec = CODEC

    @app.activity
    def in_a_thread(job: str) -> Any:
        with perdure.connect() as client:
            return client.schema, client.entity(job).get("secret")

    @app.activity
    async def beside_the_loop(job: str) -> Any:
        return await asyncio.to_thread(in_a_thread.function, job)

    @app.activity
    async def on_the_loop(job: str) -> Any:
        async with perdure.connect_async() as client:
            return client.schema, await client.entity(job).get("secret")

    @app.hook
    async def in_a_hook(memory: perdure.AsyncEntity) -> Any:
        async with perdure.connect_async() as client:
            return client.schema, await client.entity(memory.id).get("secret")

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        await memory.set("text", "secret")
        calls = [in_a_thread, beside_the_loop, on_the_loop]
        return [await call(memory.id) for call in calls] + [await in_a_hook(memory)]

    @app.coordinator
    async def connects(memory: perdure.AsyncEntity) -> None:
        perdure.connect()

    with (
        perdure.connect(database, "my_app", codec=CODEC) as client,
        perdure.Worker(app, dsn=database, schema="my_app"),
    ):
        yield client


def test_client_in_an_activity_or_hook_is_of_the_app_of_its_worker(mine: perdure.Client) -> None:
    """Neither the variables nor another codec count."""
    assert mine.start("asks").result(T) == [["my_app", "text"]] * 4


def test_client_in_a_coordinator_is_refused(mine: perdure.Client) -> None:
    with pytest.raises(perdure.JobFailed, match="a coordinator cannot use a client"):
        mine.start("connects").result(T)


def test_client_in_an_activity_that_names_an_app_is_of_that_app(
    database: str, app: perdure.App, elsewhere: None
) -> None:
    @app.activity
    def names(dsn: str, schema: str) -> Any:
        with perdure.connect(dsn, schema) as other:
            return other.schema, other.create_entity("there", "note").is_new

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await names(database, "other")

    with (
        perdure.connect(database, "my_app") as client,
        perdure.Worker(app, dsn=database, schema="my_app"),
    ):
        assert client.start(asks).result(T) == ["other", True]


def test_client_in_an_activity_installs_nothing(
    mine: perdure.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The role of a worker need not be allowed to."""
    monkeypatch.delattr(Source, "provision")
    assert mine.start("asks").result(T) == [["my_app", "text"]] * 4
