"""Loops of the soak: several sessions start, claim, finish and forget jobs."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from bench import Bench

Connection = psycopg.Connection[Any]

TABLES = ("jobs", "tasks", "journal", "inbox", "snapshots", "conditions", "items", "listeners")


@dataclass
class Done:
    """The work of a loop: tasks, empty claims, errors by their codes."""

    tasks: int = 0
    empty: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, other: Done) -> None:
        """Add the work of another loop."""
        self.tasks += other.tasks
        self.empty += other.empty
        self.errors += other.errors


def work(url: str, worker: str, batch: int, until: str | None = None) -> Done:
    """Claim and finish the due tasks, and those that become due until a time."""
    done = Done()
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            try:
                row = connection.execute(
                    "call soak.work(%s, %s, %s::timestamptz)", [worker, batch, until]
                ).fetchone()
            except psycopg.errors.OperationalError as error:
                done.errors[error.sqlstate or "lost"] += 1
                continue
            assert row is not None
            done.add(Done(row[0], row[1]))
            return done


def together(calls: list[Callable[[], Any]]) -> list[Any]:
    """Make calls at the same time, each in a thread; return their results, or raise their error."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def run(place: int) -> None:
        try:
            results[place] = calls[place]()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=[place]) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def call(url: str, statement: str, *values: Any) -> Any:
    """Execute a statement on a new connection."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchone() if cursor.description else None


def wave(bench: Bench, first: int, last: int, workers: int = 2) -> Done:
    """Start jobs while others claim and finish them; signal those that wait, until all are over."""
    done = Done()
    start = partial(call, bench.url, "call soak.start_all(%s, %s)", first, last)
    until = call(bench.url, "select clock_timestamp() + interval '200 ms'")[0]
    loops = [partial(work, bench.url, f"w{n}", 200, str(until)) for n in range(workers)]
    for one in together([start, *loops])[1:]:
        done.add(one)
    done.add(work(bench.url, "w0", 200))
    signal = partial(call, bench.url, "call soak.signal_all(%s, %s)", first, last)
    for one in together([signal, *loops])[1:]:
        done.add(one)
    done.add(work(bench.url, "w0", 200))
    return done


@contextmanager
def beside(target: Callable[[threading.Event], None]) -> Iterator[threading.Thread]:
    """Run a function beside the block, until the block ends."""
    stop = threading.Event()
    thread = threading.Thread(target=target, args=[stop])
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join()


def explained(connection: Connection, statement: str) -> dict[str, float]:
    """Execute a statement; return its pages, its WAL in bytes, and its ms."""
    row = connection.execute(
        f"explain (analyze, buffers, wal, timing off, format json) {statement}".encode()
    ).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return {
        "pages": plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
        "wal": plan["WAL Bytes"],
        "ms": row[0][0]["Execution Time"],
    }


def medians(costs: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each cost."""
    return {name: statistics.median(cost[name] for cost in costs) for name in costs[0]}


def sizes(bench: Bench) -> dict[str, int]:
    """Return the pages of tables and indexes."""
    rows = bench.connection.execute(
        """select c.relname, pg_relation_size(c.oid) / 8192
             from pg_class as c
            where c.relnamespace = %s::regnamespace
              and c.relkind in ('r', 'i')""",
        [bench.schema],
    )
    return dict(rows.fetchall())


def vacuum(bench: Bench) -> None:
    """Vacuum and analyze at once, in place of autovacuum."""
    tables = ", ".join(f"{bench.schema}.{table}" for table in TABLES)
    bench.connection.execute(f"vacuum (analyze) {tables}".encode())


@contextmanager
def without_autovacuum(bench: Bench) -> Iterator[None]:
    """Turn autovacuum off during the block."""
    bench.connection.execute("alter system set autovacuum = off")
    bench.connection.execute("select pg_reload_conf()")
    try:
        yield
    finally:
        bench.connection.execute("alter system reset autovacuum")
        bench.connection.execute("select pg_reload_conf()")


def broken(bench: Bench) -> int:
    """Count the broken invariants."""
    row = bench.connection.execute(
        f"select count(*) from {bench.schema}.assert_invariants()"
    ).fetchone()
    assert row is not None
    return int(row[0])


def forget(connection: Connection, schema: str, before: Any, max_jobs: int = 1000) -> list[int]:
    """Forget jobs that finished before a time, call after call; return how many each call
    forgot."""
    counts = []
    while not counts or counts[-1]:
        row = connection.execute(
            f"select {schema}.forget_finished(%s, max_jobs => %s)", [before, max_jobs]
        ).fetchone()
        assert row is not None
        counts.append(int(row[0]))
    return counts[:-1]


def starts(number: int, **more: Any) -> str:
    """Return starts of trivial workflows for start_many()."""
    return json.dumps([{"workflow": "trivial", "queue": "bench"} | more] * number)


def now(bench: Bench) -> Any:
    """Return the time of the server."""
    row = bench.connection.execute("select clock_timestamp()").fetchone()
    assert row is not None
    return row[0]


def seconds(action: Callable[[], Any]) -> float:
    """Measure the seconds of an action."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
