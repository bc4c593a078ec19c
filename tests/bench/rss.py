"""The memory of a worker's process: over many jobs, and beside many that are parked."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures import Goal

if TYPE_CHECKING:
    from bench import Bench

PART = "memory"
JOBS = 1_000_000
PARKED = 100_000
SAMPLES = 20
MB = 2**20
CACHE = 1_000
"""Parked coordinators that a worker keeps in memory by default."""
BREATH = 16
"""Megabytes by which the memory of a process varies between garbage collections."""


def measure(bench: Bench) -> list[Goal]:
    """Sample the memory of one worker while jobs finish, then while parked jobs accumulate."""
    return [*running(bench), *parked(bench)]


def running(bench: Bench) -> list[Goal]:
    """Fit a line to the second half of the samples; buffers grow during the first half."""
    in_sample = bench.number(JOBS // SAMPLES, least=200)
    bench.tidy()
    with bench.working(workers=1):
        samples = []
        for number in range(SAMPLES):
            bench.run("trivial", in_sample)
            samples.append((number * in_sample, resident(bench)))
            if number % 4 == 3:
                bench.tidy()
    later = samples[SAMPLES // 2 :]
    slope = statistics.linear_regression([n for n, _ in later], [size for _, size in later]).slope
    total = SAMPLES * in_sample
    return [
        Goal(PART, f"memory of a worker after {total:,} jobs", samples[-1][1] / MB, "MB"),
        Goal(PART, "what the second half of them has added, by a line", slope * total / 2 / MB,
             "MB", most=BREATH),
    ]  # fmt: skip


def parked(bench: Bench) -> list[Goal]:
    """Let coordinators wait: first as many as the worker keeps twice over, then many more."""
    number = bench.number(PARKED, least=2 * CACHE + 1_000)
    bench.tidy()
    with bench.working(workers=1):
        alone = resident(bench)
        wait(bench, 2 * CACHE)
        kept = resident(bench)
        wait(bench, number - 2 * CACHE)
        many = resident(bench)
    bench.tidy()
    return [
        Goal(PART, f"what {2 * CACHE:,} parked jobs add, of which {CACHE:,} are kept",
             (kept - alone) / MB, "MB"),
        Goal(PART, f"what {number - 2 * CACHE:,} more add", (many - kept) / MB, "MB", most=BREATH),
    ]  # fmt: skip


def wait(bench: Bench, number: int) -> None:
    """Start workflows that wait for a signal, until all of them are parked."""
    for start in range(0, number, 500):
        starts = [{"workflow": "wait_for_go", "queue": "bench"}] * min(500, number - start)
        bench.ask("start_many(%s)", json.dumps(starts))
    query = f"select exists (select from {bench.schema}.tasks where due_at < 'infinity')"
    row: Any = (True,)
    while row[0]:
        time.sleep(0.1)
        row = bench.connection.execute(query).fetchone()
    time.sleep(1.0)


def resident(bench: Bench) -> int:
    """Read how many bytes of the worker are in memory."""
    status = Path(f"/proc/{bench.processes[0].pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
