"""Clients are killed by `kill -9` in a call, and another client makes the same call. [P1] [P12]

(T5) The kill comes before the call is sent, while the server executes it, or when the answer has
arrived. With the same id or key nothing is done twice, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from tests.databases import connected
from tests.races.sessions import Session
from tests.storms.cluster import Cluster
from tests.storms.points import Fuse, Passages, burnt, client_points, pass_through
from tests.storms.test_replies_of_clients import ADD, left
from tests.storms.workers import prepared

Verb = Callable[[perdure.Client, str], Any]

# Each has an id or a key, so that another process can repeat it.
VERBS: dict[str, Verb] = {
    "start": lambda client, job: client.start("w", id=f"{job} new", key="k").id[len(job) :],
    "start_many": lambda client, job: len(
        client.start_many("w", [{"id": f"{job} {n}", "key": f"k{n}"} for n in range(3)])
    ),
    "signal": lambda client, job: (
        client.handle(job).signal("go", 1, key="k") in (True, False)  # whether it was new
    ),
    "signal_with_start": lambda client, job: client.signal_with_start(
        "w", f"{job} new", "go", 1, key="k"
    ).id[len(job) :],
    "hook": lambda client, job: client.handle(job).hook("h", key="k"),
    "fork": lambda client, job: client.fork(job, f"{job} fork", key="k").id[len(job) :],
    "create_entity": lambda client, job: client.create_entity(f"{job} e", "e", {"a": 1}).get(),
    "increment": lambda client, job: client.entity(job).increment("n", 5, key="k"),
    "apply": lambda client, job: client.entity(job).apply([ADD], key="k"),
}
MOMENTS = ("client: before call", "at the server", "client: after call")
NEVER = Fuse("")
"""A fuse that never burns."""

INDEX = "index: before statement"
LOCKS = "select count(*) from pg_locks where relation = 'jobs'::regclass"


@pytest.fixture(scope="module")
def dsn(cluster: Cluster, shared_database: str) -> str:
    """Provide its DSN."""
    return cluster.server.url(shared_database)


@pytest.fixture(scope="module")
def client(dsn: str) -> Iterator[perdure.Client]:
    """Provide the client that repeats."""
    with perdure.connect(dsn, provision=False) as client:
        yield client


@pytest.fixture
def look(cluster: Cluster, shared_database: str) -> Iterator[Session]:
    """Provide a session that observes and holds locks; afterwards the invariants must hold."""
    with connected(cluster.url(shared_database)) as connection:
        look = Session(connection, connection, "storm")
        yield look
        look.rollback()
        assert look.broken() == []


def call(dsn: str, folder: str, fuse: Fuse, verb: str, job: str) -> None:
    """Make a call as the client that dies."""
    pass_through(Passages(fuse, f"{folder}/points"))
    with perdure.connect(dsn, provision=False) as client:
        VERBS[verb](client, job)


def call_async(dsn: str, folder: str, fuse: Fuse, job: str) -> None:
    """Make a call as an asynchronous client that dies."""
    pass_through(Passages(fuse, f"{folder}/points"))

    async def start() -> None:
        async with await perdure.connect_async(dsn, provision=False) as client:
            await client.start("w", id=job, key="k")

    asyncio.run(start())


def index(dsn: str, folder: str, fuse: Fuse) -> None:
    """Create an index and drop it, until the fuse kills the client."""
    pass_through(Passages(fuse, f"{folder}/points"))
    with perdure.connect(dsn, provision=False) as client:
        client.create_index("note", "n", "number")
        client.drop_index("note", "n", "number")


def begin_in_a_transaction(dsn: str, job: str, end: str) -> None:
    """Start a job and write a row in one transaction, and die before or after its commit."""
    with psycopg.connect(dsn) as connection, perdure.connect(dsn, provision=False) as client:
        connection.execute("insert into public.orders values (%s)", [job])
        client.start("w", id=job, key="k", connection=connection)
        if end == "commit":
            connection.commit()
        os.kill(os.getpid(), signal.SIGKILL)


def process(target: Callable[..., None], *given: Any) -> BaseProcess:
    """Run a function in its own process."""
    made: BaseProcess = prepared().Process(target=target, args=given, daemon=True)
    made.start()
    return made


def is_killed(process: BaseProcess) -> bool:
    """Wait for the end of a process, and return whether it was killed."""
    process.join(30)
    return process.exitcode == -signal.SIGKILL


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    until = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("verb", VERBS)
def test_call_of_a_killed_client_can_be_repeated(
    verb: str, moment: str, dsn: str, client: perdure.Client, look: Session, tmp_path: Path
) -> None:
    """[P1] [P2] [P5] [P12] (T5) The call was executed once or not at all, and the same call of
    another client completes it."""
    whole, torn = (f"{how} {verb} {moment}" for how in ("whole", "torn"))
    for job in (whole, torn):
        client.start("w", id=job, context={"n": 1})
    before = left(look, torn)
    told = VERBS[verb](client, whole)
    dead = partial(process, call, dsn, str(tmp_path))
    if moment == "at the server":
        look.begin()
        look.run("lock table jobs")
        killed = dead(NEVER, verb, torn)
        wait_until(lambda: look.one(f"{LOCKS} and not granted") == 1)
        killed.kill()
        assert is_killed(killed)
        look.commit()
        wait_until(lambda: left(look, torn) != before)  # the server executes the call nevertheless
    else:
        assert is_killed(dead(Fuse(moment), verb, torn))
        assert (left(look, torn) == before) == (moment == "client: before call")
    assert VERBS[verb](client, torn) == told
    assert left(look, torn) == left(look, whole)


@pytest.mark.parametrize("end", ["rollback", "commit"])
def test_start_of_a_killed_client_commits_with_its_transaction(
    end: str, dsn: str, client: perdure.Client, look: Session
) -> None:
    """[P1] (T5) The process dies before or after its commit; row and job both exist, or neither."""
    job = f"order {end}"
    look.run("create table if not exists public.orders (job text primary key)")
    assert is_killed(process(begin_in_a_transaction, dsn, job, end))
    wait_until(lambda: look.one(LOCKS) == 0)  # the server has noticed the death
    orders = look.one("select count(*) from public.orders where job = %s", job)
    jobs = look.one("select count(*) from jobs where id = %s", job)
    assert orders == jobs == (end == "commit")
    with psycopg.connect(dsn) as connection:
        connection.execute("insert into public.orders values (%s) on conflict do nothing", [job])
        assert client.start("w", id=job, key="k", connection=connection).id == job
    assert look.one("select count(*) from tasks where job_id = %s", job) == 1


def test_index_of_a_killed_client_is_completed_by_another(
    dsn: str, client: perdure.Client, look: Session, tmp_path: Path
) -> None:
    """(T5) The client dies between any two statements of the index; another can create and drop
    it."""
    passage = 0
    while not passage or is_killed(process(index, dsn, str(tmp_path), Fuse(INDEX, passage))):
        passage += 1
        wait_until(lambda: look.one("select not index_work_is_running()") is True)
        made = client.create_index("note", "n", "number")
        assert made.state == "valid"
        assert [each.name for each in client.indexes()] == [made.name]
        assert client.drop_index("note", "n", "number")
        assert client.indexes() == []
    assert passage > 2


def test_clients_are_killed_at_every_crash_point(
    dsn: str, client: perdure.Client, look: Session, tmp_path: Path
) -> None:
    """[P1] [P12] (T5) Asynchronous clients die at their points here; the tests above cover the
    others."""
    points = {point for point in client_points() if point.startswith("async")}
    for point in points:
        assert is_killed(process(call_async, dsn, str(tmp_path), Fuse(point), point))
        assert look.one("select count(*) from jobs where id = %s", point) == point.endswith(
            "after call"
        )
        assert client.start("w", id=point, key="k").id == point
        assert look.one("select count(*) from tasks where job_id = %s", point) == 1
    assert {*burnt(tmp_path)} == points
    assert client_points() - points == {*MOMENTS, INDEX} - {"at the server"}
