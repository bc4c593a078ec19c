"""An old snapshot: throughput while another session holds one."""

from __future__ import annotations

import json
import statistics
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import psycopg
from figures import Goal
from loops import explained, now, vacuum

if TYPE_CHECKING:
    from bench import Bench

PART = "snapshot"
HELD = 600
"""Seconds for which the snapshot is held."""
CHUNK = 500
IN_FLIGHT = 4
"""Chunks of jobs that are started and unfinished at a time, so that the worker is always busy."""


def measure(bench: Bench) -> list[Goal]:
    """Let jobs run before, while and after another session holds a snapshot."""
    held = max(12.0, HELD * bench.amount)
    bench.tidy()
    with bench.working():
        flow(bench, 3)  # tables and caches grow at first, and plans are made
        before = statistics.median(windows(bench, held / 3))
        alone = latency(bench)
        with psycopg.connect(bench.url) as old:
            old.execute("set transaction isolation level repeatable read")
            old.execute(f"select from {bench.schema}.jobs limit 1")
            during = windows(bench, held)
            beside = latency(bench)
        pages = mark_pages(bench)
        vacuum(bench)
        after = statistics.median(windows(bench, held / 3))
    last = statistics.median(during[-3:])
    return [
        Goal(PART, "jobs a second before", before, "jobs/s"),
        *(Goal(PART, f"jobs a second, part {n} of {len(during)} under it", rate, "jobs/s")
          for n, rate in enumerate(during, 1)),
        Goal(PART, "jobs a second at its end, to those before", last / before, least=0.7),
        Goal(PART, "jobs a second afterwards, to those before", after / before, least=0.9),
        Goal(PART, "p50 of start to result at its end, to that before", beside / alone, most=2),
        Goal(PART, "pages of a claim above the mark, at its end", pages["above"], most=90,
             counted=True),
        Goal(PART, "pages of a claim from the beginning, at its end", pages["all"]),
    ]  # fmt: skip


def windows(bench: Bench, seconds: float) -> list[float]:
    """Return the jobs per second of each part of a time."""
    parts = 10 if seconds > 60 else 5
    return [flow(bench, seconds / parts) for _ in range(parts)]


def flow(bench: Bench, seconds: float) -> float:
    """Start jobs for a time, as quickly as they finish, and return the jobs per second."""
    began, chunks, done = time.perf_counter(), deque[str](), 0
    while time.perf_counter() - began < seconds or chunks:
        while len(chunks) < IN_FLIGHT and time.perf_counter() - began < seconds:
            chunks.append(start_chunk(bench))
        if unfinished(bench, chunks[0]):
            time.sleep(0.01)
        else:
            chunks.popleft()
            done += CHUNK
    return done / (time.perf_counter() - began)


def start_chunk(bench: Bench) -> str:
    """Start jobs whose ids share a prefix, and return the prefix."""
    bench.last_id += 1
    prefix = f"c{bench.last_id}-"
    starts = [{"workflow": "trivial", "queue": "bench", "id": f"{prefix}{n}"} for n in range(CHUNK)]
    bench.ask("start_many(%s)", json.dumps(starts))
    return prefix


def unfinished(bench: Bench, prefix: str) -> bool:
    """Return whether a job of a chunk is running."""
    row: Any = bench.connection.execute(
        f"""select exists (select from {bench.schema}.jobs
                            where id collate "C" >= %s and id collate "C" < %s
                              and status = 'running')""",
        [prefix, prefix + "~"],
    ).fetchone()
    return bool(row[0])


def latency(bench: Bench) -> float:
    """Return the median time in ms from start() to the result, with one job at a time."""
    times = []
    for _ in range(40):
        began = time.perf_counter()
        bench.client.start("trivial", queue="bench").result(timeout=60)
        times.append((time.perf_counter() - began) * 1e3)
        time.sleep(0.02)
    return statistics.median(times)


def mark_pages(bench: Bench) -> dict[str, float]:
    """Count the pages of a claim above a mark, and of one from the start, among dead rows."""
    mark = now(bench)
    pages: dict[str, float] = {}
    claim = f"select {bench.schema}.claim('{{bench,$sql}}', 'me', since => %s)"
    for name, since in (("above", str(mark)), ("all", "-infinity")):
        for _ in range(2):
            text = claim.replace("%s", f"'{since}'")
            pages[name] = explained(bench.connection, text)["pages"]
    return pages
