"""Sleeping jobs cost nothing, wake in time and never too early. [P7] (E1)"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

import perdure

SLEEPERS = 100_000
CLAIM_BUFFERS = 50  # for two queues, including the search for the next due time

SLEEP = """
insert into jobs (id, workflow, status, args)
select 'sleeper ' || n, 'sleeper', 'running', '[3600]' from generate_series(1, %(many)s) as n;
insert into tasks (job_id, task, kind, name, queue, due_at, until, awaits, started_at, last_token)
select j.id, '1/main', 'coordinator', 'sleeper', 'default', clock() + interval '1 h',
       clock() + interval '1 h', '{}', clock(), gen_random_uuid()
  from jobs as j
 where j.workflow = 'sleeper'
"""


def insert_sleepers(connection: psycopg.Connection[Any], many: int) -> None:
    """Insert jobs that a worker has parked for an hour."""
    for statement in SLEEP.split(";"):
        connection.execute(statement.replace("%(many)s", str(many)).encode())
    connection.execute("analyze tasks")


def test_claim_beside_a_hundred_thousand_sleepers_reads_few_pages(
    connect: Callable[[], psycopg.Connection[Any]],
) -> None:
    """(E1) Sleeping jobs do not slow down the work beside them."""
    connection = connect()
    insert_sleepers(connection, SLEEPERS)
    connection.execute("select start('w', id => 'awake')")
    claim = "select claim('{default,$sql}', 'me', max_tasks => 100)"
    connection.execute("begin")
    connection.execute(claim.encode())  # so that plans are cached
    connection.execute("rollback")

    plan = connection.execute(
        f"explain (analyze, buffers, format json) {claim}".encode()
    ).fetchone()

    assert plan is not None
    assert plan[0][0]["Plan"]["Shared Hit Blocks"] < CLAIM_BUFFERS
    assert plan[0][0]["Plan"]["Shared Read Blocks"] < 10


@pytest.mark.direct("without hints it asks at each poll")
def test_idle_worker_beside_sleepers_sends_almost_no_calls(
    app: perdure.App, connection: psycopg.Connection[Any], work: Any, sent: list[str]
) -> None:
    """(E1) It polls the whole queue now and then, and sends no query per job."""
    insert_sleepers(connection, 10_000)
    work()
    time.sleep(1.0)  # the worker claims a few times before it is idle
    before = len(sent)
    time.sleep(2.0)
    assert len(sent) - before <= 1


def test_sleepers_wake_together(
    app: perdure.App, client: perdure.Client, connection: psycopg.Connection[Any], work: Any
) -> None:
    """[P7] (E1) Thousands of jobs are due at once, and each wakes once."""
    woken: list[int] = []

    @app.coordinator
    async def sleeper(memory: perdure.AsyncEntity, length: float) -> float:
        began = perdure.now()
        await perdure.sleep(length)
        woken.append(1)
        return (perdure.now() - began).total_seconds()

    insert_sleepers(connection, 3000)
    connection.execute(
        """
        update tasks
           set due_at = clock(), until = clock(), started_at = clock() - interval '1 h'
         where name = 'sleeper'
        """
    )
    work()
    handles = [client.handle(f"sleeper {n}") for n in range(1, 3001)]
    assert {handle.result("60 s") for handle in handles} == {3600.0}
    assert len(woken) == len(handles)


def test_no_job_wakes_too_early(
    app: perdure.App, client: perdure.Client, connection: psycopg.Connection[Any], work: Any
) -> None:
    """[P7] (E1) The clock of the database decides. An idle worker wakes a job within a moment."""

    @app.activity
    def note() -> str:
        row = connection.execute("select clock()").fetchone()
        assert row is not None
        return str(row[0].isoformat())

    @app.coordinator
    async def sleeper(memory: perdure.AsyncEntity, length: float) -> list[str]:
        asleep = perdure.now()
        await perdure.sleep(length)
        return [asleep.isoformat(), await note()]

    @app.coordinator
    async def sleeper_until(memory: perdure.AsyncEntity, until: str) -> list[str]:
        await perdure.sleep_until(datetime.fromisoformat(until))
        return [until, await note()]

    work()
    lateness = []
    handles = [(client.start(sleeper, place / 40), place / 40) for place in range(20)]
    row = connection.execute("select clock() + interval '300 ms'").fetchone()
    assert row is not None
    handles.append((client.start(sleeper_until, row[0].isoformat()), 0.0))
    for handle, length in handles:
        asleep, awake = map(datetime.fromisoformat, handle.result("30 s"))
        lateness.append((awake - asleep).total_seconds() - length)
    assert min(lateness) >= 0
    assert sorted(lateness)[len(lateness) // 2] < 0.5


def test_deadline_beyond_the_calendar_of_python_ends_no_worker(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """The deadline of the job is later than the last date that Python can represent."""

    @app.coordinator
    async def today(memory: perdure.AsyncEntity) -> str:
        return "done"

    far = datetime(9990, 1, 1, tzinfo=UTC)
    client.start("far", queue="elsewhere", due_at=far, timeout="36500 days")
    work()
    for _ in range(2):
        assert client.start(today).result(timeout=10) == "done"
