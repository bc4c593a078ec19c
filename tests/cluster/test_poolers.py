"""(T14) PgBouncer in transaction mode: everything works, and nothing is left in its sessions."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

import perdure
from perdure.errors import InvalidArgument
from tests.amount import amount
from tests.cluster.load import Load, T
from tests.cluster.machines import Machine, program, wait_for
from tests.cluster.poolers import POOL, Pooler, pooler
from tests.cluster.suites import run_tests
from tests.storms.figures import Figures
from tests.worker.processes import worker_process

MANY = ["signals", "client", "hooks", "transactions"]

# Anything that an earlier user has left in a session of the server.
LEFT = """
select name from pg_settings where source = 'session'
   and name not in ('application_name', 'client_encoding', 'DateStyle', 'TimeZone',
                    'standard_conforming_strings', 'IntervalStyle')
 union all
select 'listens: ' || channel from pg_listening_channels() as l (channel)
 union all
select 'prepared: ' || statement from pg_prepared_statements
 union all
select 'holds: ' || locktype from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'
"""


@pytest.fixture
def pool(primary: Machine) -> Iterator[Pooler]:
    """Provide a pooler in front of the primary."""
    with pooler(primary.url()) as running:
        yield running


def left_in(pool: Pooler) -> list[Any]:
    """Return what is left in the sessions of a pool, all of which are taken at once."""
    left: list[Any] = []
    with ExitStack() as stack:
        for _ in range(POOL):
            connection = stack.enter_context(psycopg.connect(pool.url("postgres")))
            left += connection.execute(LEFT, prepare=False).fetchall()
    return left


@pytest.fixture
def client(pool: Pooler) -> Iterator[perdure.Client]:
    """Provide a client that goes through the pooler."""
    with perdure.connect(pool.url()) as client:
        yield client


def test_crash_of_the_server_behind_a_pooler_loses_nothing(
    client: perdure.Client, pool: Pooler, primary: Machine, figures: Callable[..., Figures]
) -> None:
    """[P1] [P2] [P11] [P12] (T34) Workers and clients share five sessions. The server is killed,
    and the pooler keeps running."""
    more, row = json.dumps({"poll": 0.1}), figures("T14 pooler")
    with ExitStack() as stack:
        workers = [
            stack.enter_context(worker_process(pool.url(), lease=1, WORKER=more)) for _ in range(2)
        ]
        primary.await_workers(2)
        with Load(pool.url(), clients=3) as load:
            for _ in range(amount(1)):
                load.go_on(100)
                primary.kill()
                primary.start()
                load.go_on(100)
                row.faults += 1
        load.check(client)
        load.tell(row)
        assert [worker.poll() for worker in workers] == [None, None]
        assert len(pool.show("servers")) <= POOL
    assert left_in(pool) == []


def test_waits_through_a_pooler_poll(client: perdure.Client, pool: Pooler) -> None:
    """[P11] watch() and until() see changes without LISTEN, because a pooled session may serve
    another client at the next moment."""
    memory = client.create_entity("m", "counter", {"n": 0})

    async def count() -> list[int]:
        seen = []
        async with await perdure.connect_async(pool.url(), provision=False) as other:
            async for change in other.entity("m").watch(after=1, timeout="5 s"):
                seen.append(change.version)
                if len(seen) == 3:
                    return seen
        return seen

    with ThreadPoolExecutor() as threads:
        watching = threads.submit(asyncio.run, count())
        reached = threads.submit(memory.until, "$.n == 3", timeout="5 s")
        for _ in range(3):
            time.sleep(0.2)
            memory.increment("n")
        assert watching.result() == [2, 3, 4]
        assert reached.result() == 4
    assert left_in(pool) == []


def test_idle_worker_behind_a_pooler_finds_work_within_its_poll(
    client: perdure.Client, pool: Pooler, caplog: pytest.LogCaptureFixture
) -> None:
    """[P11] The worker logs that a pooler hides notifications."""
    app = perdure.App()

    @app.coordinator
    async def trivial(memory: perdure.AsyncEntity) -> str:
        return "done"

    with caplog.at_level("INFO", "perdure.worker"), perdure.Worker(app, dsn=pool.url(), poll=0.3):
        wait_for(lambda: "a pooler hides notifications" in caplog.text)
        time.sleep(1)
        began = time.monotonic()
        assert client.start(trivial).result(T) == "done"
        assert time.monotonic() - began < 4  # without its own poll it would take 5 s
    assert left_in(pool) == []


def test_index_is_not_created_through_a_pooler(client: perdure.Client, pool: Pooler) -> None:
    with pytest.raises(InvalidArgument, match="cannot be created through a pooler"):
        client.create_index("counter", "n", "number")
    assert left_in(pool) == []


def test_worker_tests_pass_through_a_pooler() -> None:
    """A few of them run by default, and more if the amount is higher than usual."""
    program("pgbouncer", "pgbouncer")
    chosen = MANY if amount(10) > 10 else MANY[:1]
    names = [f"tests/worker/test_{name}.py" for name in chosen]
    run_tests(*names, PERDURE_TEST_POOLER="1")
