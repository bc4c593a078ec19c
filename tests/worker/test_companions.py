"""Companions of a task that kills its workers: the other tasks that the same worker holds. [P10]"""

from __future__ import annotations

import subprocess
import time
from typing import Any

import psycopg

import perdure
from tests.worker.processes import worker_process

LEASE = 0.5


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
