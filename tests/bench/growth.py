"""Growth: waves of jobs that are started, run to their ends and forgotten; what is left behind."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from figures import Goal
from loops import broken, explained, forget, medians, now, sizes, vacuum, wave

if TYPE_CHECKING:
    from bench import Bench

PART = "growth"
WAVES = 10
JOBS = 1_000_000
STEADY = 5
"""The wave after which nothing may grow any more: an index gets a page back two vacuums later."""

HOT = """
select relname, n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables where schemaname = %s
"""


def measure(bench: Bench) -> list[Goal]:
    """Run the waves, and compare the last with those before it."""
    bench.tidy()
    in_wave = bench.number(JOBS // WAVES, least=500)
    before, written = now(bench), dict(bench.connection.execute(HOT, [bench.schema]).fetchall())
    costs, room, unfinished = [], [], 0
    for number in range(WAVES):
        first = number * in_wave + 1
        costs.append(start_costs(bench))
        began = now(bench)
        done = wave(bench, first, first + in_wave - 1)
        unfinished += in_wave + in_wave // 10 - (done.tasks - parked(in_wave))
        forget(bench.connection, bench.schema, before)
        before = began
        vacuum(bench)
        room.append(sizes(bench))
    written = {
        table: (rows - written.get(table, 0)) / (WAVES * in_wave)
        for table, rows in bench.connection.execute(HOT, [bench.schema])
    }
    return [
        Goal(PART, "jobs", WAVES * in_wave),
        Goal(PART, "jobs that did not end", unfinished, most=0, counted=True),
        Goal(PART, "broken invariants", broken(bench), most=0, counted=True),
        *heat(written),
        *pages(room),
        *dead(bench),
        *starts(costs),
    ]


def parked(jobs: int) -> int:
    """Count the turns beside the last: of those that wait for a signal or a hook."""
    return jobs // 5 + jobs // 10


def heat(written: dict[str, float]) -> list[Goal]:
    """Tell which tables are hot: rows that are written for a job."""
    hot = sorted(((rows, table) for table, rows in written.items() if rows > 0.01), reverse=True)
    return [Goal(PART, f"rows of {table} that a job writes", rows) for rows, table in hot]


def pages(room: list[dict[str, int]]) -> list[Goal]:
    """Compare pages at the end with those of the wave from which on they should be steady."""
    goals = []
    for name, steady in room[STEADY - 1].items():
        most = int(steady * 1.25) + 8
        if max(steady, room[-1][name]) > 8:
            label = f"pages of {name}, the last wave (after the fifth: {steady})"
            goals.append(Goal(PART, label, room[-1][name], most=most, counted=True))
    return goals


def dead(bench: Bench) -> list[Goal]:
    """Look for dead rows that vacuum left in the hot tables: there must be none."""
    return [
        Goal(PART, f"dead rows in {table}", dead_rows(bench, table), most=0, counted=True)
        for table in ("tasks", "jobs", "inbox", "journal")
    ]


def dead_rows(bench: Bench, table: str) -> int:
    """Count what vacuum leaves; it is asked again where autovacuum was looking at the same time."""
    rows = 0
    for _ in range(10):
        query = "select dead_tuple_count from pgstattuple(%s)"
        row: Any = bench.connection.execute(query, [f"{bench.schema}.{table}"]).fetchone()
        rows = row[0]
        if not rows:
            break
        time.sleep(0.5)
        vacuum(bench)
    return rows


def start_costs(bench: Bench) -> dict[str, float]:
    """Measure what one start costs; the jobs are run with the wave that follows."""
    costs = []
    for _ in range(51):
        begin = f"select {bench.schema}.start('w', queue => 'started')"
        costs.append(explained(bench.connection, begin))
    finish_started(bench)
    return medians(costs[1:])


def finish_started(bench: Bench) -> None:
    """End the jobs that were started one by one."""
    claim = f"select {bench.schema}.claim('{{started}}', 'me', max_tasks => 100)"
    row: Any = bench.connection.execute(claim).fetchone()
    end = {"token": row[0]["token"], "position": 0, "state": "done"}
    turns = [{"job": task["job"], "task": task["task"]} | end for task in row[0]["tasks"]]
    bench.ask("advance(%s)", json.dumps(turns))


def starts(costs: list[dict[str, float]]) -> list[Goal]:
    """Compare the cost of a start before the last wave with that before the first ones.

    The first wave finds empty tables; the second is the first with indexes of their usual height.
    """
    first, second, last = costs[0], costs[1], costs[-1]
    return [
        Goal(PART, f"pages of a start, last wave (first: {first['pages']:.0f})", last["pages"],
             most=second["pages"] + 6, counted=True),
        Goal(PART, f"WAL of a start, last wave (first: {first['wal']:.0f})", last["wal"], "bytes",
             most=first["wal"] * 1.1, counted=True),
        Goal(PART, "time of a start, last wave to second", last["ms"] / second["ms"], most=1.5),
    ]  # fmt: skip
