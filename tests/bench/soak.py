"""Let perdure grow, and see what stays flat: `make soak AMOUNT=1`, or `AMOUNT=0.01` in two minutes.

The bench measures how fast perdure is on a small database. The soak measures it after a million
jobs, beside ten million sleeping tasks, under an old snapshot, with retention, and with many
writers and workers. Each figure is beside its goal. Read counts as they are, times as ratios.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import backlog
import crowd
import growth
import hints
import retention
import rss
import snapshot
from bench import HERE, Bench, served
from figures import Goal, goals_table

PARTS: dict[str, Callable[[Bench], list[Goal]]] = {
    "growth": growth.measure,
    "backlog": backlog.measure,
    "retention": retention.measure,
    "hints": hints.measure,
    "snapshot": snapshot.measure,
    "memory": rss.measure,
    "crowd": crowd.measure,
}


def main() -> None:
    """Measure the parts, print the table, and write soak.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--amount", type=float, default=1.0, help="how much of the full size")
    parser.add_argument("--only", choices=PARTS, nargs="+", help="leave out the rest")
    parser.add_argument("--json", type=Path, default=Path("soak.json"))
    options = parser.parse_args()
    goals: list[Goal] = []
    with ExitStack() as stack:
        bench = Bench(stack.enter_context(served()), options.amount, workers=1)
        stack.callback(bench.close)
        bench.connection.execute("create extension pgstattuple")
        bench.connection.execute((HERE / "soak.sql").read_text())
        for part in options.only or PARTS:
            began = time.perf_counter()
            goals += PARTS[part](bench)
            print(f"{part}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    print(f"AMOUNT={options.amount:g}\n\n{goals_table(goals)}")
    options.json.write_text(json.dumps([goal.row() for goal in goals], indent=2) + "\n")


if __name__ == "__main__":
    main()
