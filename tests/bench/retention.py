"""Retention: how quickly one caller forgets finished jobs, beside work that goes on."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
from figures import Goal
from loops import beside, broken, explained, forget, now, vacuum, wave

if TYPE_CHECKING:
    from bench import Bench

PART = "retention"
JOBS = 200_000
RATE = 5_000
"""Jobs that finish in a second, and must therefore be forgotten in a second."""
BATCH = 1000


def measure(bench: Bench) -> list[Goal]:
    """Forget the older half of the jobs while others run, then look at the pages of a batch."""
    bench.tidy()
    jobs = bench.number(JOBS, least=4_000)
    wave(bench, 1, jobs // 2)
    before = now(bench)
    wave(bench, jobs // 2 + 1, jobs)
    vacuum(bench)
    spent: dict[str, Any] = {}

    def caller(stop: threading.Event) -> None:
        with psycopg.connect(bench.url, autocommit=True) as connection:
            began = time.perf_counter()
            spent["counts"] = forget(connection, bench.schema, before, BATCH)
            spent["seconds"] = time.perf_counter() - began
            stop.wait()

    with beside(caller):
        wave(bench, jobs + 1, jobs + max(500, jobs // 20))
    counts = spent["counts"]
    left = bench.connection.execute(
        f"select count(*) from {bench.schema}.jobs where finished_at < %s", [before]
    ).fetchone()
    assert left is not None
    return [
        Goal(PART, "jobs forgotten", sum(counts), least=jobs // 2, most=jobs // 2, counted=True),
        Goal(PART, "old jobs that are left", left[0], most=0, counted=True),
        Goal(PART, "jobs in the largest batch", max(counts), most=BATCH, counted=True),
        Goal(PART, "broken invariants", broken(bench), most=0, counted=True),
        *batches(bench),
        Goal(PART, "jobs forgotten by one caller beside work", sum(counts) / spent["seconds"],
             "jobs/s", least=RATE),
    ]  # fmt: skip


def batches(bench: Bench) -> list[Goal]:
    """Compare the pages per job of successive batches: later ones must not cost more."""
    call = f"select {bench.schema}.forget_finished(clock_timestamp(), max_jobs => 200)"
    costs = [explained(bench.connection, call)["pages"] / 200 for _ in range(8)]
    return [
        Goal(PART, f"pages of a job that is forgotten, eighth batch (second: {costs[1]:.0f})",
             costs[-1], most=costs[1] * 1.2 + 2, counted=True),
    ]  # fmt: skip
