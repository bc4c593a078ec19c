"""Calls that join the caller's transaction, on connections of psycopg, SQLAlchemy and Django.

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
    """Convert a connection string to a URL of SQLAlchemy."""
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    names = {"user": "username", "password": "password", "dbname": "database"}
    given = {name: parts[key] for key, name in names.items() if parts.get(key)}
    query = {key: str(parts[key]) for key in ("host", "port") if parts.get(key)}
    return sqlalchemy.URL.create("postgresql+psycopg", **given, query=query)  # type: ignore[arg-type]


class Caller:
    """A caller with a transaction: the connection that it lends, and how it runs statements."""

    def __init__(self, connection: Any, run: Callable[[str], Any], end: Callable[[str], Any]):
        self.connection = connection
        self.run = run
        self._end = end

    def commit(self) -> None:
        self._end("commit")

    def rollback(self) -> None:
        self._end("rollback")


def ends(connection: Any) -> Callable[[str], Any]:
    """Return a function that calls the method commit or rollback, by its name."""
    return lambda end: getattr(connection, end)()


@contextmanager
def of_psycopg(dsn: str) -> Iterator[Caller]:
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        yield Caller(connection, connection.execute, ends(connection))


@contextmanager
def of_block(dsn: str) -> Iterator[Caller]:
    """An explicit transaction, on a connection that would otherwise commit each statement."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("begin")
        yield Caller(
            connection, connection.execute, lambda end: connection.execute(f"{end} and chain")
        )


@contextmanager
def of_sqlalchemy(dsn: str) -> Iterator[Caller]:
    engine = sqlalchemy.create_engine(url_of(dsn), json_deserializer=lambda text: f"not {text}")
    with engine.connect() as connection:
        yield Caller(connection, connection.exec_driver_sql, ends(connection))
    engine.dispose()


@contextmanager
def of_session(dsn: str) -> Iterator[Caller]:
    engine = sqlalchemy.create_engine(url_of(dsn))
    with sqlalchemy.orm.Session(engine) as session:
        yield Caller(session, lambda text: session.execute(sqlalchemy.text(text)), ends(session))
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
    connection = connections["mine"] = ConnectionHandler(databases)["mine"]
    connection.set_autocommit(False)

    def run(text: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(text)

    yield Caller(connection, run, ends(connection))
    connection.close()
    del connections["mine"]


KINDS = (of_psycopg, of_block, of_sqlalchemy, of_session, of_django)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__.removeprefix("of_"))
def caller(request: pytest.FixtureRequest, dsn: str, orders: Any) -> Iterator[Caller]:
    """A caller of each kind."""
    with request.param(dsn) as caller:
        yield caller


@pytest.fixture
def orders(dsn: str) -> Iterator[Callable[[], int]]:
    """Create a table of the caller; return a function that counts its rows."""
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


def all_calls(client: perdure.Client, connection: Any) -> None:
    """Make every call that can join a transaction."""
    client.start("echo", 1, id="a", connection=connection)
    client.start_many("echo", [{"id": "b"}, {"id": "c"}, {"id": "d"}], connection=connection)
    memory = client.create_entity("e", "note", {"n": 1}, connection=connection)
    assert memory.increment("n") == 2
    assert memory.get() == {"n": 2}, "JSON is read as JSON"
    assert client.handle("a").signal("go", {"x": [1]}, connection=connection)
    assert client.handle("e").hook("h", connection=connection, key="k") == "$hook/k"
    assert client.handle("b").cancel("no", connection=connection)
    assert client.handle("e").cancel_hook("$hook/k", connection=connection)
    assert client.handle("c").terminate(connection=connection)
    assert client.handle("d").resume(connection=connection) == 0


JOBS = ("a", "b", "c", "d", "e")


def test_commit_keeps_joined_calls(
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


def test_rollback_undoes_joined_calls(
    caller: Caller, client: perdure.Client, orders: Callable[[], int]
) -> None:
    all_calls(client, caller.connection)
    caller.run(INSERT)
    caller.rollback()
    assert orders() == 0
    for job in JOBS:
        with pytest.raises(perdure.JobNotFound):
            client.handle(job).status()


def test_joined_call_can_begin_the_transaction(caller: Caller, client: perdure.Client) -> None:
    """SQLAlchemy commits only a transaction that it has begun itself."""
    client.start("echo", id="first", connection=caller.connection)
    caller.commit()
    assert client.handle("first").status().status == "running"


def test_rollback_to_a_savepoint_undoes_later_joined_calls(
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


def test_commit_of_a_joined_start_wakes_an_idle_worker(
    caller: Caller, client: perdure.Client, work: Any, echo: Any
) -> None:
    """[P11] The commit sends the hint, long before the worker would poll."""
    work(poll=600)
    while not client.send(client.calls.statement("select true from perdure.listeners")):
        time.sleep(0.005)
    handle = client.start(echo, 7, connection=caller.connection)
    caller.commit()
    assert handle.result(T) == 7


def test_failed_transaction_is_not_joined(caller: Caller, client: perdure.Client) -> None:
    with pytest.raises(perdure.JobNotFound):
        client.handle("nobody").signal("go", connection=caller.connection)
    with pytest.raises(perdure.InvalidArgument, match="has failed"):
        client.start("echo", connection=caller.connection)
    caller.rollback()
    client.start("echo", id="better", connection=caller.connection)
    caller.commit()
    assert client.handle("better").status().status == "running"


def settings_of(connection: Any) -> list[Any]:
    """Return how a connection handles statements and values."""
    handling = [connection.row_factory, connection.cursor_factory, connection.prepare_threshold]
    oids = [psycopg.adapters.types[name].oid for name in ("json", "jsonb", "timestamptz")]
    loaders = [connection.adapters.get_loader(oid, psycopg.pq.Format.TEXT) for oid in oids]
    return [*handling, connection.autocommit, *loaders]


def test_settings_of_the_connection_are_kept(caller: Caller, client: perdure.Client) -> None:
    client.start("echo", connection=caller.connection)
    driver = joined_connection(caller.connection)
    before = settings_of(driver)
    all_calls(client, caller.connection)
    assert settings_of(driver) == before


def test_transaction_blocks_of_psycopg_and_django_are_joined(
    dsn: str, client: perdure.Client
) -> None:
    """Outside of these blocks, both connections commit each statement."""
    with of_django(dsn) as caller, psycopg.connect(dsn, autocommit=True) as connection:
        caller.connection.set_autocommit(True)
        with connection.transaction():
            client.start("echo", id="of psycopg", connection=connection)
        with transaction.atomic("mine"):
            client.start("echo", id="of Django", connection=connections["mine"])
            with transaction.atomic("mine"):
                client.start("echo", id="undone", connection=connections["mine"])
                transaction.set_rollback(True, "mine")
    for job in ("of psycopg", "of Django"):
        assert client.handle(job).status().status == "running"
    with pytest.raises(perdure.JobNotFound):
        client.handle("undone").status()


# Connections that cannot be joined.


def autocommitting(dsn: str) -> AbstractContextManager[Any]:
    return psycopg.connect(dsn, autocommit=True)


@contextmanager
def autocommitting_sqlalchemy(dsn: str) -> Iterator[Any]:
    engine = sqlalchemy.create_engine(url_of(dsn), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@contextmanager
def autocommitting_django(dsn: str) -> Iterator[Any]:
    with of_django(dsn) as caller:
        caller.connection.set_autocommit(True)
        yield caller.connection


@pytest.mark.parametrize(
    "opened", [autocommitting, autocommitting_sqlalchemy, autocommitting_django]
)
def test_connection_without_a_transaction_is_rejected(
    dsn: str, client: perdure.Client, opened: Any
) -> None:
    """A call that joined it would commit at once."""
    with (
        opened(dsn) as connection,
        pytest.raises(perdure.InvalidArgument, match="no transaction to join"),
    ):
        client.start("echo", id="no", connection=connection)
    with pytest.raises(perdure.JobNotFound):
        client.handle("no").status()


def test_connections_of_other_kinds_are_rejected(dsn: str, client: perdure.Client) -> None:
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


# Async connections.


@asynccontextmanager
async def of_async_psycopg(dsn: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row) as connection:
        yield connection


@asynccontextmanager
async def of_async_sqlalchemy(dsn: str) -> AsyncIterator[Any]:
    engine = sqlalchemy_async.create_async_engine(url_of(dsn))
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


@asynccontextmanager
async def of_async_session(dsn: str) -> AsyncIterator[Any]:
    engine = sqlalchemy_async.create_async_engine(url_of(dsn))
    async with sqlalchemy_async.AsyncSession(engine) as session:
        yield session
    await engine.dispose()


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("opened", [of_async_psycopg, of_async_sqlalchemy, of_async_session])
def test_async_client_joins_async_connections(
    dsn: str, client: perdure.Client, opened: Any, end: str
) -> None:
    async def run() -> None:
        async with await perdure.connect_async(dsn) as own, opened(dsn) as connection:
            await own.start("echo", 1, id="a", connection=connection)
            await own.start_many(
                "echo", [{"id": "b"}, {"id": "c"}, {"id": "d"}], connection=connection
            )
            memory = await own.create_entity("e", "note", {"n": 1}, connection=connection)
            assert await memory.increment("n") == 2
            assert await own.handle("a").signal("go", connection=connection)
            assert await own.handle("e").hook("h", connection=connection, key="k") == "$hook/k"
            assert await own.handle("b").cancel("no", connection=connection)
            assert await own.handle("e").cancel_hook("$hook/k", connection=connection)
            assert await own.handle("c").terminate(connection=connection)
            assert await own.handle("d").resume(connection=connection) == 0
            await getattr(connection, end)()

    asyncio.run(run())
    for job in JOBS:
        if end == "commit":
            client.handle(job).status()
        else:
            with pytest.raises(perdure.JobNotFound):
                client.handle(job).status()


def test_async_client_rejects_connections_that_it_cannot_join(dsn: str) -> None:
    async def run() -> None:
        async with await perdure.connect_async(dsn) as client:
            engine = sqlalchemy.create_engine(url_of(dsn))
            with psycopg.connect(dsn) as plain, engine.connect() as of_engine:
                for stranger in (plain, of_engine, sqlalchemy.orm.Session(engine), dsn):
                    with pytest.raises(
                        perdure.InvalidArgument, match=r"a psycopg\.AsyncConnection is needed"
                    ):
                        await client.start("echo", connection=stranger)
            engine.dispose()
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
                with pytest.raises(perdure.InvalidArgument, match="no transaction to join"):
                    await client.start("echo", connection=connection)

    asyncio.run(run())
