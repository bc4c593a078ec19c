"""Growth: waves of jobs that are started, run to their ends and forgotten, and what they leave
behind."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from figures import Goal
from loops import (
    broken,
    explained,
    forget,
    medians,
    now,
    sizes,
    vacuum,
    wave,
    without_autovacuum,
)

if TYPE_CHECKING:
    from bench import Bench

PART = "growth"
JOBS = 1_000_000
WAVES, RIPPLES = 10, 5
"""Vacuum runs after each ripple of a wave, and never by itself: the size of an index depends on the
dead rows between two vacuums, and should not depend on their timing."""
STEADY = 5
"""The wave after which nothing may grow: by then indexes have reused their pages, which takes two
vacuums, and tables have been filled from the front again."""

HOT = """
select relname, n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables where schemaname = %s
"""


def measure(bench: Bench) -> list[Goal]:
    """Run the waves, and compare the last with those before it."""
    bench.tidy()
    with without_autovacuum(bench):
        return waves(bench, bench.number(JOBS // (WAVES * RIPPLES), least=100) // 10 * 10)


def waves(bench: Bench, in_ripple: int) -> list[Goal]:
    """Run ripples of so many jobs, a multiple of ten."""
    before, written = now(bench), dict(bench.connection.execute(HOT, [bench.schema]).fetchall())
    costs, room, tasks, jobs = [], [], 0, 0
    for _ in range(WAVES):
        costs.append(start_costs(bench))
        began = now(bench)
        for _ in range(RIPPLES):
            tasks += wave(bench, jobs + 1, jobs + in_ripple).tasks
            jobs += in_ripple
            vacuum(bench)
        forget(bench.connection, bench.schema, before)
        before = began
        vacuum(bench)
        room.append(sizes(bench))
    written = {
        table: (rows - written.get(table, 0)) / jobs
        for table, rows in bench.connection.execute(HOT, [bench.schema])
    }
    return [
        Goal(PART, "jobs", jobs),
        Goal(PART, "jobs that did not end", turns(jobs) - tasks, most=0, counted=True),
        Goal(PART, "broken invariants", broken(bench), most=0, counted=True),
        *heat(written),
        *pages(room),
        *dead(bench),
        *starts(costs),
    ]


def turns(jobs: int) -> int:
    """Count the tasks that are claimed: the first of each job, the hooks of a tenth, and the second
    turns of jobs that waited for a hook or a signal."""
    return jobs + jobs // 10 + jobs // 10 + jobs // 5


def heat(written: dict[str, float]) -> list[Goal]:
    """Return the rows of each table that a job writes."""
    hot = sorted(((rows, table) for table, rows in written.items() if rows > 0.01), reverse=True)
    return [Goal(PART, f"rows of {table} that a job writes", rows) for rows, table in hot]


def pages(room: list[dict[str, int]]) -> list[Goal]:
    """Compare the most pages of the later waves with those of the earlier ones."""
    goals = []
    for name in room[0]:
        steady, last = (max(each[name] for each in part) for part in (room[:STEADY], room[STEADY:]))
        if max(steady, last) > 8:
            label = f"pages of {name}, at most, after wave {STEADY} (until then: {steady})"
            goals.append(Goal(PART, label, last, most=int(steady * 1.25) + 8, counted=True))
    return goals


def dead(bench: Bench) -> list[Goal]:
    """Count the dead rows that vacuum left in the hot tables: there must be none."""
    return [
        Goal(PART, f"dead rows in {table}", dead_rows(bench, table), most=0, counted=True)
        for table in ("tasks", "jobs", "inbox", "journal")
    ]


def dead_rows(bench: Bench, table: str) -> int:
    """Count the rows that vacuum leaves, again if autovacuum was running at the same time."""
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
    """Measure the cost of one start; the jobs are run with the next wave."""
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
