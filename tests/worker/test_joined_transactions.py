"""Calls that join the caller's transaction, on connections of psycopg, SQLAlchemy, Django.

(E7) (C25) [P1]
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import django
import psycopg
import pytest
import sqlalchemy
import sqlalchemy.ext.asyncio as sqlalchemy_async
import sqlalchemy.orm
from django.conf import settings as django_settings
from django.db import connections, transaction
from django.db.utils import ConnectionHandler
from psycopg.rows import dict_row

import perdure
from perdure.clients.caller_connection import joined_connection

T = "40 s"

INSERT = "insert into orders (what) values ('tea')"


def url_of(dsn: str) -> sqlalchemy.URL:
    """Write a connection string as SQLAlchemy wants it."""
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    names = {"user": "username", "password": "password", "dbname": "database"}
    given = {name: parts[key] for key, name in names.items() if parts.get(key)}
    query = {key: str(parts[key]) for key in ("host", "port") if parts.get(key)}
    return sqlalchemy.URL.create("postgresql+psycopg", **given, query=query)  # type: ignore[arg-type]


class Caller:
    """A caller with a transaction: what it hands to perdure, and how it says what it wants."""

    def __init__(self, connection: Any, run: Callable[[str], Any], end: Callable[[str], Any]):
        self.connection = connection
        self.run = run
        self._end = end

    def commit(self) -> None:
        self._end("commit")

    def rollback(self) -> None:
        self._end("rollback")


def ends(connection: Any) -> Callable[[str], Any]:
    """Commit or roll back by the methods of these names."""
    return lambda end: getattr(connection, end)()


@contextmanager
def of_psycopg(dsn: str) -> Iterator[Caller]:
    with psycopg.connect(dsn, row_factory=dict_row) as mine:
        yield Caller(mine, mine.execute, ends(mine))


@contextmanager
def of_a_block(dsn: str) -> Iterator[Caller]:
    """Inside connection.transaction(), on a connection that would commit each statement."""
    with psycopg.connect(dsn, autocommit=True) as mine:
        mine.execute("begin")
        yield Caller(mine, mine.execute, lambda end: mine.execute(f"{end} and chain"))


@contextmanager
def of_sqlalchemy(dsn: str) -> Iterator[Caller]:
    engine = sqlalchemy.create_engine(url_of(dsn), json_deserializer=lambda text: f"not {text}")
    with engine.connect() as mine:
        yield Caller(mine, mine.exec_driver_sql, ends(mine))
    engine.dispose()


@contextmanager
def of_a_session(dsn: str) -> Iterator[Caller]:
    engine = sqlalchemy.create_engine(url_of(dsn))
    with sqlalchemy.orm.Session(engine) as mine:
        yield Caller(mine, lambda text: mine.execute(sqlalchemy.text(text)), ends(mine))
    engine.dispose()


@contextmanager
def of_django(dsn: str) -> Iterator[Caller]:
    if not django_settings.configured:
        django_settings.configure(USE_TZ=True)
        django.setup()
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    names = {
        "dbname": "NAME",
        "user": "USER",
        "password": "PASSWORD",
        "host": "HOST",
        "port": "PORT",
    }
    given = {name: str(parts[key]) for key, name in names.items() if parts.get(key)}
    databases = {"default": {}, "mine": {"ENGINE": "django.db.backends.postgresql"} | given}
    mine = connections["mine"] = ConnectionHandler(databases)["mine"]
    mine.set_autocommit(False)

    def run(text: str) -> None:
        with mine.cursor() as cursor:
            cursor.execute(text)

    yield Caller(mine, run, ends(mine))
    mine.close()
    del connections["mine"]


KINDS = (of_psycopg, of_a_block, of_sqlalchemy, of_a_session, of_django)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__.removeprefix("of_"))
def caller(request: pytest.FixtureRequest, dsn: str, orders: Any) -> Iterator[Caller]:
    """Give callers of each kind."""
    with request.param(dsn) as caller:
        yield caller


@pytest.fixture
def orders(dsn: str) -> Iterator[Callable[[], int]]:
    """Make a table of the caller's; gives a function that counts its rows."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create table orders (what text)")

        def count() -> int:
            row = connection.execute("select count(*) from orders").fetchone()
            return 0 if row is None else row[0]

        yield count


@pytest.fixture
def echo(app: perdure.App) -> Any:
    @app.coordinator(entity="echo")
    async def echo(memory: perdure.AsyncEntity, what: Any = None) -> Any:
        return what

    return echo


def all_calls(client: perdure.Client, mine: Any) -> None:
    """Join with every call that can."""
    client.start("echo", 1, id="a", connection=mine)
    client.start_many("echo", [{"id": "b"}, {"id": "c"}, {"id": "d"}], connection=mine)
    memory = client.create_entity("e", "note", {"n": 1}, connection=mine)
    assert memory.increment("n") == 2
    assert memory.get() == {"n": 2}, "JSON is read as JSON"
    assert client.handle("a").signal("go", {"x": [1]}, connection=mine)
    assert client.handle("e").hook("h", connection=mine, key="k") == "$hook/k"
    assert client.handle("b").cancel("no", connection=mine)
    assert client.handle("e").cancel_hook("$hook/k", connection=mine)
    assert client.handle("c").terminate(connection=mine)
    assert client.handle("d").resume(connection=mine) == 0


JOBS = ("a", "b", "c", "d", "e")


def test_a_commit_keeps_what_joined(
    caller: Caller, client: perdure.Client, orders: Callable[[], int]
) -> None:
    caller.run(INSERT)
    all_calls(client, caller.connection)
    with pytest.raises(perdure.JobNotFound):
        client.handle("a").status()
    caller.commit()
    assert orders() == 1
    assert [client.handle(job).status().status for job in JOBS] == [
        "running", "running", "cancelled", "running", None,
    ]  # fmt: skip
    assert client.entity("e").get() == {"n": 2}


def test_a_rollback_keeps_nothing(
    caller: Caller, client: perdure.Client, orders: Callable[[], int]
) -> None:
    all_calls(client, caller.connection)
    caller.run(INSERT)
    caller.rollback()
    assert orders() == 0
    for job in JOBS:
        with pytest.raises(perdure.JobNotFound):
            client.handle(job).status()


def test_what_joins_first_begins_the_transaction(caller: Caller, client: perdure.Client) -> None:
    """SQLAlchemy commits only what it knows to have begun."""
    client.start("echo", id="first", connection=caller.connection)
    caller.commit()
    assert client.handle("first").status().status == "running"


def test_a_savepoint_takes_back_what_joined_after_it(
    caller: Caller, client: perdure.Client
) -> None:
    client.start("echo", id="before", connection=caller.connection)
    caller.run("savepoint here")
    client.start("echo", id="after", connection=caller.connection)
    caller.run("rollback to savepoint here")
    caller.commit()
    assert client.handle("before").status().status == "running"
    with pytest.raises(perdure.JobNotFound):
        client.handle("after").status()


def test_a_commit_wakes_an_idle_worker(
    caller: Caller, client: perdure.Client, work: Any, echo: Any
) -> None:
    """[P11]: long before it would look by itself."""
    work(poll=600)
    while not client.send(client.calls.statement("select true from perdure.listeners")):
        time.sleep(0.005)
    handle = client.start(echo, 7, connection=caller.connection)
    caller.commit()
    assert handle.result(T) == 7


def test_a_transaction_that_has_failed_is_refused(caller: Caller, client: perdure.Client) -> None:
    with pytest.raises(perdure.JobNotFound):
        client.handle("nobody").signal("go", connection=caller.connection)
    with pytest.raises(perdure.InvalidArgument, match="has failed"):
        client.start("echo", connection=caller.connection)
    caller.rollback()
    client.start("echo", id="better", connection=caller.connection)
    caller.commit()
    assert client.handle("better").status().status == "running"


def settings_of(connection: Any) -> list[Any]:
    """Tell what a connection makes of statements and values."""
    known = [connection.row_factory, connection.cursor_factory, connection.prepare_threshold]
    oids = [psycopg.adapters.types[name].oid for name in ("json", "jsonb", "timestamptz")]
    loaders = [connection.adapters.get_loader(oid, psycopg.pq.Format.TEXT) for oid in oids]
    return [*known, connection.autocommit, *loaders]


def test_nothing_of_the_connection_is_changed(caller: Caller, client: perdure.Client) -> None:
    client.start("echo", connection=caller.connection)
    driver = joined_connection(caller.connection)
    before = settings_of(driver)
    all_calls(client, caller.connection)
    assert settings_of(driver) == before


def test_blocks_are_transactions(dsn: str, client: perdure.Client) -> None:
    """Of Django and psycopg, which commit each statement outside of them."""
    with of_django(dsn) as caller, psycopg.connect(dsn, autocommit=True) as mine:
        caller.connection.set_autocommit(True)
        with mine.transaction():
            client.start("echo", id="of psycopg", connection=mine)
        with transaction.atomic("mine"):
            client.start("echo", id="of Django", connection=connections["mine"])
            with transaction.atomic("mine"):
                client.start("echo", id="undone", connection=connections["mine"])
                transaction.set_rollback(True, "mine")
    for job in ("of psycopg", "of Django"):
        assert client.handle(job).status().status == "running"
    with pytest.raises(perdure.JobNotFound):
        client.handle("undone").status()


# What cannot be joined.


def autocommitting(dsn: str) -> AbstractContextManager[Any]:
    return psycopg.connect(dsn, autocommit=True)


@contextmanager
def autocommitting_sqlalchemy(dsn: str) -> Iterator[Any]:
    engine = sqlalchemy.create_engine(url_of(dsn), isolation_level="AUTOCOMMIT")
    with engine.connect() as mine:
        yield mine
    engine.dispose()


@contextmanager
def autocommitting_django(dsn: str) -> Iterator[Any]:
    with of_django(dsn) as caller:
        caller.connection.set_autocommit(True)
        yield caller.connection


@pytest.mark.parametrize("lent", [autocommitting, autocommitting_sqlalchemy, autocommitting_django])
def test_a_connection_without_a_transaction_is_refused(
    dsn: str, client: perdure.Client, lent: Any
) -> None:
    """It would commit at once, which is not what one asks for."""
    with lent(dsn) as mine, pytest.raises(perdure.InvalidArgument, match="no transaction to join"):
        client.start("echo", id="no", connection=mine)
    with pytest.raises(perdure.JobNotFound):
        client.handle("no").status()


def test_what_is_no_connection_of_psycopg_is_refused(dsn: str, client: perdure.Client) -> None:
    sqlite = sqlalchemy.create_engine("sqlite://")
    engine = sqlalchemy_async.create_async_engine(url_of(dsn))
    with sqlite.connect() as of_sqlite, sqlite3.connect(":memory:") as plain:
        strangers = (
            of_sqlite, plain, engine.connect(), sqlalchemy_async.AsyncSession(engine), dsn, 1,
        )  # fmt: skip
        for stranger in strangers:
            with pytest.raises(perdure.InvalidArgument, match=r"a psycopg\.Connection is needed"):
                client.start("echo", connection=stranger)
    plain.close()
    sqlite.dispose()


# Asynchronous.


@asynccontextmanager
async def of_async_psycopg(dsn: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row) as mine:
        yield mine


@asynccontextmanager
async def of_async_sqlalchemy(dsn: str) -> AsyncIterator[Any]:
    engine = sqlalchemy_async.create_async_engine(url_of(dsn))
    async with engine.connect() as mine:
        yield mine
    await engine.dispose()


@asynccontextmanager
async def of_async_session(dsn: str) -> AsyncIterator[Any]:
    engine = sqlalchemy_async.create_async_engine(url_of(dsn))
    async with sqlalchemy_async.AsyncSession(engine) as mine:
        yield mine
    await engine.dispose()


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("lent", [of_async_psycopg, of_async_sqlalchemy, of_async_session])
def test_async_connections_are_joined_too(
    dsn: str, client: perdure.Client, lent: Any, end: str
) -> None:
    async def run() -> None:
        async with await perdure.connect_async(dsn) as own, lent(dsn) as mine:
            await own.start("echo", 1, id="a", connection=mine)
            await own.start_many("echo", [{"id": "b"}, {"id": "c"}, {"id": "d"}], connection=mine)
            memory = await own.create_entity("e", "note", {"n": 1}, connection=mine)
            assert await memory.increment("n") == 2
            assert await own.handle("a").signal("go", connection=mine)
            assert await own.handle("e").hook("h", connection=mine, key="k") == "$hook/k"
            assert await own.handle("b").cancel("no", connection=mine)
            assert await own.handle("e").cancel_hook("$hook/k", connection=mine)
            assert await own.handle("c").terminate(connection=mine)
            assert await own.handle("d").resume(connection=mine) == 0
            await getattr(mine, end)()

    asyncio.run(run())
    for job in JOBS:
        if end == "commit":
            client.handle(job).status()
        else:
            with pytest.raises(perdure.JobNotFound):
                client.handle(job).status()


def test_what_an_async_client_cannot_join_is_refused(dsn: str) -> None:
    async def run() -> None:
        async with await perdure.connect_async(dsn) as client:
            engine = sqlalchemy.create_engine(url_of(dsn))
            with psycopg.connect(dsn) as plain, engine.connect() as mine:
                for stranger in (plain, mine, sqlalchemy.orm.Session(engine), dsn):
                    with pytest.raises(
                        perdure.InvalidArgument, match=r"a psycopg\.AsyncConnection is needed"
                    ):
                        await client.start("echo", connection=stranger)
            engine.dispose()
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as mine_too:
                with pytest.raises(perdure.InvalidArgument, match="no transaction to join"):
                    await client.start("echo", connection=mine_too)

    asyncio.run(run())
