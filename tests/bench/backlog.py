"""Backlog: the cost of a claim beside millions of sleeping and due tasks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from figures import Goal
from loops import broken, explained, medians

if TYPE_CHECKING:
    from bench import Bench

PART = "backlog"
SLEEPING, DUE = 10_000_000, 1_000_000
CLAIMS = 100
LEVELS = 30
"""Additional pages that a claim may read: large indexes have two or three more levels."""
CHECKED = 20_000
"""Tasks of the backlog whose invariants are checked."""

ROWS = """
select to_jsonb(j) - %(times)s::text[], to_jsonb(t) - %(times)s::text[]
  from bench.jobs as j join bench.tasks as t on t.job_id = j.id where j.id = %(id)s
"""
TIMES = [
    "id", "job_id", "due_at", "until", "created_at", "updated_at", "started_at", "last_token",
]  # fmt: skip


def measure(bench: Bench) -> list[Goal]:
    """Measure claims with no backlog, then with all of it."""
    sleeping, due = bench.number(SLEEPING, least=2_000), bench.number(DUE, least=1_000)
    alike = [is_alike(bench, kind) for kind in ("sleeping", "due")]
    bench.tidy()
    bench.ask("start_many(%s)", json.dumps([{"workflow": "w", "queue": "soak"}] * (CLAIMS + 20)))
    vacuum(bench)
    empty, rest_empty = claims(bench), look(bench)
    bench.tidy()
    few = min(sleeping, CHECKED)
    bench.connection.execute("call soak.fill_sleeping(1, %s)", [few])
    bench.connection.execute("call soak.fill_due(%s, %s)", [few + 1, few + min(due, CHECKED)])
    vacuum(bench)
    failures = broken(bench)
    bench.connection.execute("call soak.fill_sleeping(%s, %s)", [20_000_001, 20_000_000 + sleeping])
    bench.connection.execute("call soak.fill_due(%s, %s)", [40_000_001, 40_000_000 + due])
    vacuum(bench)
    full, rest_full = claims(bench), look(bench)
    beside = f"beside {sleeping:,} that sleep and {due:,} that are due"
    return [
        Goal(PART, "rows that the engine would write otherwise", alike.count(False), most=0,
             counted=True),
        Goal(PART, "broken invariants", failures, most=0, counted=True),
        Goal(PART, f"pages of a claim {beside} (alone: {empty['pages']:.0f})", full["pages"],
             most=empty["pages"] + LEVELS, counted=True),
        Goal(PART, f"pages of a claim that finds nothing, {beside} (alone: {rest_empty:.0f})",
             rest_full, most=rest_empty + LEVELS, counted=True),
        Goal(PART, f"p50 of a claim {beside}, to that of one alone", full["ms"] / empty["ms"],
             most=2),
    ]  # fmt: skip


def claims(bench: Bench) -> dict[str, float]:
    """Measure claims of one task each, after the first ones have made the plans."""
    claim = f"select {bench.schema}.claim('{{soak,$sql}}', 'me')"
    return medians([explained(bench.connection, claim) for _ in range(CLAIMS + 10)][10:])


def look(bench: Bench) -> float:
    """Count the pages of a claim from a queue where all tasks sleep."""
    bench.connection.execute(
        f"update {bench.schema}.tasks set queue = 'asleep' where job_id in"
        f" (select job_id from {bench.schema}.tasks where awaits is not null limit 500)"
    )
    claim = f"select {bench.schema}.claim('{{asleep,$sql}}', 'me')"
    costs = medians([explained(bench.connection, claim) for _ in range(12)][2:])
    return costs["pages"]


def vacuum(bench: Bench) -> None:
    """Vacuum and analyze the filled tables."""
    bench.connection.execute(f"vacuum analyze {bench.schema}.jobs, {bench.schema}.tasks".encode())


def is_alike(bench: Bench, kind: str) -> bool:
    """Return whether the engine writes the rows that a generator writes."""
    bench.tidy()
    bench.connection.execute(f"call soak.fill_{kind}(1, 1)".encode())
    bench.ask("start('w', '[]', 'j2', queue => 'soak')")
    if kind == "sleeping":
        claim = f"select {bench.schema}.claim('{{soak}}', 'w')"
        row: Any = bench.connection.execute(claim).fetchone()
        turn = {"job": "j2", "task": "1/main", "token": row[0]["token"], "position": 0, "asked": 1}
        turn |= {"state": "park", "until": "2100-01-01Z"}
        bench.ask("advance(%s)", json.dumps([turn]))
    rows = [
        bench.connection.execute(ROWS, {"times": TIMES, "id": name}).fetchone()
        for name in ("j1", "j2")
    ]
    return rows[0] == rows[1] and rows[0] is not None
