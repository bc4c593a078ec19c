"""Curves: throughput against the slots of a worker, the spread of a latency, and the cost of a
claim against the backlog; and their picture."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench import Bench

Curve = list[tuple[float, float]]

SLOTS = (1, 4, 16, 64, 400)
BACKLOGS = (0, 1_000, 10_000, 100_000, 1_000_000)
CLAIMS = 101

INK, PAPER = "#1f2937", "#ffffff"
COLOURS = ("#2563eb", "#d97706")


def throughput(bench: Bench) -> dict[str, Curve]:
    """Measure workflows a second of one worker with so many slots."""
    curves: dict[str, Curve] = {"trivial": [], "ten_activities": []}
    for slots in SLOTS:
        with bench.working(slots=slots, workers=1):
            for workflow, curve in curves.items():
                number = bench.number(min(40 * slots, 4_000), least=40)
                curve.append((slots, number / bench.run(workflow, number)))
    return curves


def claims(bench: Bench) -> Curve:
    """Measure the median of a claim of one task (ms) beside so many that wait in the same queue."""
    curve: Curve = []
    waiting = 0
    for backlog in BACKLOGS:
        wanted = int(backlog * min(bench.amount, 1))
        while waiting < wanted:
            number = min(10_000, wanted - waiting)
            starts = [{"workflow": "w", "queue": "backlog"}] * number
            bench.ask("start_many(%s)", json.dumps(starts))
            waiting += number
        bench.connection.execute(f"vacuum analyze {bench.schema}.tasks")
        curve.append((wanted, statistics.median(claim(bench) for _ in range(CLAIMS))))
    bench.tidy()
    return curve


def claim(bench: Bench) -> float:
    """Claim a task and give it back; return ms."""
    with bench.connection.transaction(force_rollback=True):
        began = time.perf_counter()
        bench.ask("claim(%s, 'bench')", ["backlog"])
        return (time.perf_counter() - began) * 1e3


def spread(times: list[float]) -> Curve:
    """Return the share of all that took at most so many ms."""
    ordered = sorted(times)
    return [(value, (place + 1) / len(ordered)) for place, value in enumerate(ordered)]


def draw(
    path: Path, by_slots: dict[str, Curve], latencies: dict[str, Curve], by_backlog: Curve
) -> None:
    """Write the picture of all three."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "perdure", "font.size": 9}
    mpl.rcParams |= {"font.family": "sans-serif", "text.color": INK, "axes.labelcolor": INK}
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(11, 3.2), facecolor=PAPER)
    for (name, curve), colour in zip(by_slots.items(), COLOURS, strict=True):
        plot(left, curve, colour, name.replace("_", " "))
    left.set(title="Workflows a second, one worker", xlabel="tasks that it holds", xscale="log")
    left.set(yscale="log")
    for (name, curve), colour in zip(latencies.items(), COLOURS, strict=True):
        middle.plot(*zip(*curve, strict=True), color=colour, label=name)
    middle.set(title="From start() to the result", xlabel="ms", ylabel="share", xscale="log")
    plot(right, [(max(backlog, 1), cost) for backlog, cost in by_backlog], COLOURS[0], "")
    right.set(title="A claim beside waiting tasks", xlabel="tasks", ylabel="ms", xscale="log")
    right.set_ylim(bottom=0)
    for axes in (left, middle, right):
        axes.grid(visible=True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    middle.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def plot(axes: Any, curve: Curve, colour: str, label: str) -> None:
    """Draw points and the line between them."""
    axes.plot(*zip(*curve, strict=True), marker="o", markersize=4, color=colour, label=label)
