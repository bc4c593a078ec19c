"""Companions of a task that kills its workers: the other tasks that the same worker holds. [P10]"""

from __future__ import annotations

import logging
import subprocess
import time
from typing import Any

import psycopg
import pytest

import perdure
from tests.worker.processes import worker_process

LEASE = 0.5


@pytest.mark.parametrize(("deliveries", "lines"), [(4, 0), (5, 1)])
def test_worker_names_a_suspect_before_it_begins(
    app: perdure.App,
    client: perdure.Client,
    connection: psycopg.Connection[Any],
    work: Any,
    caplog: pytest.LogCaptureFixture,
    deliveries: int,
    lines: int,
) -> None:
    """[P10] Otherwise the last line before the worker dies does not say what kills it."""

    def claims() -> list[str]:
        return [line for line in caplog.messages if "was claimed" in line]

    @app.coordinator
    async def counted(memory: perdure.AsyncEntity) -> str:
        return f"{len(claims())} before it"

    job = client.start(counted, id="poison")
    connection.execute("update tasks set deliveries = %s", [deliveries])
    caplog.set_level(logging.WARNING, "perdure.worker")
    work()
    assert job.result("20 s") == f"{lines} before it"
    for line in claims():
        assert line.startswith("<coordinator counted of poison, task 1/main> was claimed 5 times")


def has_died(worker: subprocess.Popen[bytes], connection: psycopg.Connection[Any]) -> bool:
    """Return whether the worker dies while tasks are left that it could run."""
    while worker.poll() is None:
        left = connection.execute("select from tasks where stuck_reason is null").fetchone()
        if left is None:
            return False
        time.sleep(0.02)
    return True


def test_companions_of_a_deadly_task_are_not_parked(
    client: perdure.Client, dsn: str, connection: psycopg.Connection[Any]
) -> None:
    """[P10] Tasks that die with a deadly one complete, even if they outlast their workers."""
    connection.execute("insert into settings (name, value) values ('max_deliveries', '8')")
    jobs = []
    for number in range(20):
        jobs.append(client.start("harmless", 0.0 if number % 5 else 0.7))
        if number == 2:
            poison = client.start("deadly")
    deaths, is_dead = 0, True
    while is_dead:
        with worker_process(dsn, lease=LEASE) as worker:
            is_dead = has_died(worker, connection)
        deaths += is_dead
        time.sleep(LEASE)
    assert deaths == 8
    assert poison.status().waiting_for.startswith("somebody to resume it: the task was claimed 8")
    assert [job.result("1 s") for job in jobs] == ["alive"] * 20


def test_companion_of_several_deadly_tasks_is_not_parked(
    connection: psycopg.Connection[Any],
) -> None:
    """[P10] It is held alone before it has been claimed too often, if no deadly tasks come anew."""
    connection.execute("select start('slow', id => 'slow')")
    connection.execute(
        "select start('deadly', id => 'deadly-' || n) from generate_series(1, 7) as n"
    )
    for number in range(7 * 20):
        claim = "select claim('{default}', %s, max_tasks => 100) -> 'tasks'"
        (held,) = connection.execute(claim, [f"worker {number}"]).fetchone() or ([],)
        if [task["job"] for task in held] == ["slow"]:
            break
        connection.execute("update tasks set due_at = clock() where token is not null")
    assert [task["name"] for task in held] == ["slow"]
    assert connection.execute("select from tasks where stuck_reason is not null").fetchall() == []
