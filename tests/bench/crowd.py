"""A crowd: one to thirty-two workers on one queue, each a session that claims and finishes."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import psycopg
from figures import Goal
from loops import Done, together

if TYPE_CHECKING:
    from bench import Bench

PART = "crowd"
WORKERS = (1, 2, 4, 8, 16, 32)
JOBS = 40_000
BATCH = 10
WARM = 20
"""Jobs of each session before the measurement, until its plans are made."""


def measure(bench: Bench) -> list[Goal]:
    """Let more and more sessions share the same work."""
    rates: dict[int, float] = {}
    done: dict[int, Done] = {}
    for workers in WORKERS:
        rates[workers], done[workers] = shared(bench, workers)
    return [goal for workers in WORKERS for goal in compared(workers, rates, done[workers])]


def compared(workers: int, rates: dict[int, float], done: Done) -> list[Goal]:
    """Compare so many workers with the best of fewer."""
    fewer = max(rate for number, rate in rates.items() if number <= workers)
    name = f"{workers} workers" if workers > 1 else "1 worker"
    return [
        Goal(PART, f"errors (40001, 40P01, 55P03, …), {name}", done.errors.total(), most=0,
             counted=True),
        Goal(PART, f"claims that came back empty, {name}, each", done.empty / workers, most=2,
             counted=True),
        Goal(PART, f"tasks a second, {name}", rates[workers], "tasks/s"),
        Goal(PART, f"tasks a second, {name}, to the best of as many or fewer",
             rates[workers] / fewer, least=0.8),
    ]  # fmt: skip


def shared(bench: Bench, workers: int) -> tuple[float, Done]:
    """Let a number of sessions share the work; return tasks per second and the total work."""
    number = bench.number(JOBS, least=800)
    bench.tidy()
    start = threading.Barrier(workers + 1)

    def fill() -> float:
        bench.connection.execute("call soak.start_all(1, %s)", [workers * WARM])
        start.wait()  # the sessions make their plans
        start.wait()
        bench.connection.execute("call soak.start_all(1000001, %s)", [1_000_000 + number])
        start.wait()
        began = time.perf_counter()
        start.wait()
        return time.perf_counter() - began

    spent, *all_done = together(
        [fill, *(partial(one, bench.url, start, n) for n in range(workers))]
    )
    done = Done()
    for part in all_done:
        done.add(part)
    return done.tasks / spent, done


def one(url: str, start: threading.Barrier, number: int) -> Done:
    """Make plans with some of the work, then claim and finish until nothing is left."""
    done = Done()
    with psycopg.connect(url, autocommit=True) as connection:
        start.wait()
        work(connection, number, Done())
        start.wait()
        start.wait()
        work(connection, number, done)
        start.wait()
    return done


def work(connection: psycopg.Connection[tuple[int, int]], number: int, done: Done) -> None:
    """Claim and finish until a claim is empty; count errors."""
    while True:
        try:
            row = connection.execute("call soak.work(%s, %s, null)", [f"w{number}", BATCH])
        except psycopg.errors.OperationalError as error:
            done.errors[error.sqlstate or "lost"] += 1
            continue
        tasks, empty = row.fetchone() or (0, 0)
        done.add(Done(tasks, empty))
        return
