"""Figures: measured values of the benchmark, and their output as tables and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Counts:
    """The counters of the server: top-level statements, commits that wrote, bytes of WAL."""

    statements: float
    commits: float
    wal_bytes: float

    def least(self, other: Counts | None) -> Counts:
        """Return the lesser of each count, because background work such as vacuuming only adds."""
        if other is None:
            return self
        return Counts(
            min(self.statements, other.statements),
            min(self.commits, other.commits),
            min(self.wal_bytes, other.wal_bytes),
        )

    def since(self, before: Counts, units: int) -> Counts:
        """Return the difference for one unit of work."""
        return Counts(
            (self.statements - before.statements) / units,
            (self.commits - before.commits) / units,
            (self.wal_bytes - before.wal_bytes) / units,
        )


@dataclass
class Figure:
    """One line of the table; `limit` is what bare SQL reaches, `ratio` how close perdure comes."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    cost: Counts | None = None

    @property
    def is_latency(self) -> bool:
        """Return whether a smaller value is better."""
        return self.unit == "ms"

    def row(self) -> dict[str, Any]:
        """Return the figure in the form of bench.json."""
        median = statistics.median(self.values)
        limit = statistics.median(self.limits) if self.limits else None
        cost = self.cost
        return {
            "name": self.name,
            "unit": self.unit,
            "median": round(median, 3),
            "min": round(min(self.values), 3),
            "max": round(max(self.values), 3),
            "statements": None if cost is None else round(cost.statements, 2),
            "commits": None if cost is None else round(cost.commits, 2),
            "wal_bytes": None if cost is None else round(cost.wal_bytes, 2),
            "limit": None if limit is None else round(limit, 3),
            "ratio": None if limit is None else round(self.ratio(median, limit), 3),
        }

    def ratio(self, median: float, limit: float) -> float:
        """Return the speed relative to bare SQL: 1 is as fast."""
        return limit / median if self.is_latency else median / limit


TITLES = (
    "figure",
    "median",
    "min – max",
    "bare SQL",
    "ratio",
    "statements",
    "commits",
    "WAL bytes",
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Write figures as a Markdown table."""
    lines = ["| " + " | ".join(TITLES) + " |", "|" + "---|" * len(TITLES)]
    for row in rows:
        cells = [
            row["name"].removesuffix("_ms"),
            f"{shown(row['median'])} {row['unit']}",
            f"{shown(row['min'])} – {shown(row['max'])}",
            shown(row["limit"]),
            shown(row["ratio"]),
            *(shown(row[name]) for name in ("statements", "commits", "wal_bytes")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(value: float | None) -> str:
    """Write a number as people read it."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


@dataclass(frozen=True)
class Goal:
    """One line of the soak: a figure beside the most, or the least, that it may be.

    Counts (pages, rows, bytes, claims) are the same on every machine and may be asserted; times are
    not.
    """

    part: str
    name: str
    value: float
    unit: str = ""
    most: float | None = None
    least: float | None = None
    counted: bool = False

    @property
    def is_met(self) -> bool:
        """Return whether the figure is within its limits."""
        return (self.most is None or self.value <= self.most) and (
            self.least is None or self.value >= self.least
        )

    def row(self) -> dict[str, Any]:
        """Return the goal in the form of soak.json."""
        return vars(self) | {"value": round(self.value, 3), "is_met": self.is_met}


def goals_table(goals: Sequence[Goal]) -> str:
    """Write goals as a Markdown table."""
    lines = ["| part | figure | value | goal | |", "|" + "---|" * 5]
    for goal in goals:
        limits = [
            f"{sign} {shown(limit)}"
            for sign, limit in (("≥", goal.least), ("≤", goal.most))
            if limit is not None
        ]
        verdict = "" if not limits else "met" if goal.is_met else "**missed**"
        value = f"{shown(goal.value)} {goal.unit}".strip()
        lines.append(f"| {goal.part} | {goal.name} | {value} | {', '.join(limits)} | {verdict} |")
    return "\n".join(lines)
