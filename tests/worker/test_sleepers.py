"""Sleeping jobs: they cost nothing, wake in time and never before. [P7] (E1)"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

import perdure

SLEEPERS = 100_000
CLAIM_BUFFERS = 50  # of two queues, the look at the next due time included

SLEEP = """
insert into jobs (id, workflow, status, args)
select 'sleeper ' || n, 'sleeper', 'running', '[3600]' from generate_series(1, %(many)s) as n;
insert into tasks (job_id, task, kind, name, queue, due_at, until, awaits, started_at, last_token)
select j.id, '1/main', 'coordinator', 'sleeper', 'default', clock() + interval '1 h',
       clock() + interval '1 h', '{}', clock(), gen_random_uuid()
  from jobs as j
 where j.workflow = 'sleeper'
"""


def fall_asleep(connection: psycopg.Connection[Any], many: int) -> None:
    """Make jobs that were parked by a worker, for an hour."""
    for statement in SLEEP.split(";"):
        connection.execute(statement.replace("%(many)s", str(many)).encode())
    connection.execute("analyze tasks")


def test_a_hundred_thousand_sleepers_cost_nothing(
    connect: Callable[[], psycopg.Connection[Any]],
) -> None:
    """(E1): a claim beside them reads a few pages, all of them index ranges."""
    connection = connect()
    fall_asleep(connection, SLEEPERS)
    connection.execute("select start('w', id => 'awake')")
    claim = "select claim('{default,$sql}', 'me', max_tasks => 100)"
    connection.execute("begin")
    connection.execute(claim.encode())  # plans are made
    connection.execute("rollback")

    plan = connection.execute(
        f"explain (analyze, buffers, format json) {claim}".encode()
    ).fetchone()

    assert plan is not None
    assert plan[0][0]["Plan"]["Shared Hit Blocks"] < CLAIM_BUFFERS
    assert plan[0][0]["Plan"]["Shared Read Blocks"] < 10


@pytest.mark.direct("without hints it asks at each poll")
def test_an_idle_worker_beside_sleepers_asks_next_to_nothing(
    app: perdure.App, connection: psycopg.Connection[Any], work: Any, sent: list[str]
) -> None:
    """(E1): no query per job; the only look is one for the whole queue, now and then."""
    fall_asleep(connection, 10_000)
    work()
    time.sleep(1.0)  # it claims a few times before it is idle
    before = len(sent)
    time.sleep(2.0)
    assert len(sent) - before <= 1


def test_sleepers_wake_together(
    app: perdure.App, client: perdure.Client, connection: psycopg.Connection[Any], work: Any
) -> None:
    """[P7] (E1): thousands are due at once; each wakes once."""
    woken: list[int] = []

    @app.coordinator
    async def sleeper(memory: perdure.AsyncEntity, length: float) -> float:
        began = perdure.now()
        await perdure.sleep(length)
        woken.append(1)
        return (perdure.now() - began).total_seconds()

    fall_asleep(connection, 3000)
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


def test_nobody_wakes_before_the_time(
    app: perdure.App, client: perdure.Client, connection: psycopg.Connection[Any], work: Any
) -> None:
    """[P7] (E1): by the clock of the database; an idle worker is there within a moment."""

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


def test_what_is_due_after_all_calendars_ends_no_worker(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """Its deadline stood in the answer to each claim, as a time that has no date here."""

    @app.coordinator
    async def today(memory: perdure.AsyncEntity) -> str:
        return "done"

    far = datetime(9990, 1, 1, tzinfo=UTC)
    client.start("far", queue="elsewhere", due_at=far, timeout="36500 days")
    work()
    for _ in range(2):
        assert client.start(today).result(timeout=10) == "done"
