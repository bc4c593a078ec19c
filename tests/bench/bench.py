"""Measure perdure on this machine: `make bench`, or `make bench BENCH_ARGS="--amount 0.2"`.

Every figure is beside its limit: what the same server does in the same run with bare SQL for the
same work at the same batch size, without journal, fences or replay (limits.sql). Throughput counts
from the first start to the last end. The server counts statements, commits that write, and bytes of
WAL for one workflow or command, except the queries of the bench itself. Durability is on. Machines
are noisy: read ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import curves
import memory
import psycopg
from figures import Counts, Figure, table
from flows import TOKENS

import perdure
from perdure.embedded.server import Server
from perdure.installation.install import install

HERE = Path(__file__).parent
SCHEMA = "bench"
BATCH = 200

Connection = psycopg.Connection[Any]


class Bench:
    """A server with the app, the bare limits and the workers that the figures share."""

    def __init__(self, url: str, amount: float, workers: int):
        self.url = url
        self.schema = SCHEMA
        self.amount = amount
        self.workers = workers
        self.connection: Connection = psycopg.connect(url, autocommit=True)
        self.connection.execute("create extension if not exists pg_stat_statements")
        self.connection.execute((HERE / "limits.sql").read_text())
        install(self.connection, SCHEMA)
        self.client = perdure.connect(url, schema=SCHEMA)
        self.last_id = 0
        self.looks = 0
        self.latencies: dict[str, list[float]] = {}
        self.processes: list[subprocess.Popen[bytes]] = []

    def close(self) -> None:
        """Close the connections of the bench."""
        self.client.close()
        self.connection.close()

    def number(self, wanted: int, least: int = 10) -> int:
        """Scale an amount of work."""
        return max(least, int(wanted * self.amount))

    def counts(self) -> Counts:
        """Read the server's counters, without the queries of the bench, once all sessions have
        reported."""
        time.sleep(1.1)
        row = self.connection.execute(
            """select (select sum(calls) from pg_stat_statements where toplevel),
                      pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
                      pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"""
        ).fetchone()
        assert row is not None
        return Counts(float(row[0]) - self.looks, float(row[1]), float(row[2]))

    @contextmanager
    def costs(self, figure: Figure, units: int) -> Iterator[None]:
        """Count what the server does in the block, for one unit of work: the least of all
        rounds."""
        before = self.counts()
        yield
        figure.cost = self.counts().since(before, units).least(figure.cost)

    def ask(self, call: str, *values: Any) -> None:
        """Call a function of the app."""
        self.connection.execute(f"select {self.schema}.{call}", values)

    @contextmanager
    def working(self, *, slots: int = 400, workers: int | None = None) -> Iterator[None]:
        """Run the workers, each in its own process, until the block ends."""
        command = [
            sys.executable, "-m", "perdure", "worker", "flows:app",
            "--queue", "bench", "--schema", SCHEMA, "--dsn", self.url, "--slots", str(slots),
        ]  # fmt: skip
        with ExitStack() as stack:
            stack.callback(self.processes.clear)
            for _ in range(workers or self.workers):
                process = subprocess.Popen(command, cwd=HERE)
                stack.callback(process.wait)
                stack.callback(process.terminate)
                self.processes.append(process)
            self.run("trivial", 50)  # until they answer
            yield

    def run(self, workflow: str, number: int) -> float:
        """Start workflows in batches and wait for the last to end; return the seconds it took."""
        began = time.perf_counter()
        first = self.last_id
        for start in range(0, number, 500):
            batch = [
                {"workflow": workflow, "queue": "bench", "id": f"{workflow}-{first + n}"}
                for n in range(start, min(number, start + 500))
            ]
            self.connection.execute(
                f"select count(*) from {SCHEMA}.start_many(%s)", [json.dumps(batch)]
            )
        self.last_id += number
        while self.unfinished(f"{workflow}-{first}", f"{workflow}-{first + number - 1}"):
            if any(process.poll() is not None for process in self.processes):
                raise RuntimeError("a worker has died")
            time.sleep(0.005)
        return time.perf_counter() - began

    def unfinished(self, first: str, last: str) -> bool:
        """Return whether a task is left; the first and the last job are checked before all."""
        for query in (
            f"select exists (select from {SCHEMA}.tasks where job_id = any(%s))",
            f"select exists (select from {SCHEMA}.tasks where %s <> '{{}}'::text[])",
        ):
            self.looks += 1
            if self.connection.execute(query, [[first, last]]).fetchone() == (True,):
                return True
        return False

    def tidy(self) -> None:
        """Empty all tables, so that every round begins alike. An idle worker may cause a
        deadlock."""
        query = (
            f"truncate {SCHEMA}.tasks, {SCHEMA}.jobs, {SCHEMA}.journal, {SCHEMA}.inbox, "
            f"{SCHEMA}.snapshots, {SCHEMA}.conditions, {SCHEMA}.items, "
            "bare.job, bare.task, bare.fact"
        )
        while True:
            with suppress(psycopg.errors.DeadlockDetected):
                self.connection.execute(query)
                break
        self.connection.execute("checkpoint")

    # ------------------------------------------------------------------ throughput

    def workflows(self, figure: Figure, workflow: str, wanted: int) -> None:
        """Measure workflows a second, and the cost of one."""
        number = self.number(wanted)
        self.tidy()
        with self.costs(figure, number):
            figure.values.append(number / self.run(workflow, number))

    def bare_workflows(self, figure: Figure, wanted: int, facts: int = 0, turns: int = 1) -> None:
        """Measure the limit: start, claim and finish in pure SQL, with so many facts and turns."""
        number = self.number(wanted)
        began = time.perf_counter()
        self.connection.execute("select bare.start(1, %s)", [number * turns])
        held: list[int] = self.bare_turn([])
        while held:
            for seq in range(1, facts + 1):
                self.connection.execute("select bare.record(%s, %s)", [held, seq])
            held = self.bare_turn(held)
        figure.limits.append(number / (time.perf_counter() - began))

    def stream(self, figure: Figure, wanted: int) -> None:
        """Measure items of streams a second, several at a time; the limit is a row a thousand."""
        number = self.number(wanted, least=4)
        self.tidy()
        with self.costs(figure, number * TOKENS):
            figure.values.append(number * TOKENS / self.run("stream", number))
        thousand = json.dumps([f"token {n}" for n in range(1000)])
        began = time.perf_counter()
        for seq in range(100):
            self.connection.execute("insert into bare.fact values (-2, %s, %s)", [seq, thousand])
        figure.limits.append(100_000 / (time.perf_counter() - began))
        self.connection.execute("delete from bare.fact where id = -2")

    def bare_turn(self, held: list[int]) -> list[int]:
        """Finish the held tasks, and claim as many again."""
        row = self.connection.execute(
            "select bare.turn(%s::bigint[], %s)", [held, BATCH]
        ).fetchone()
        assert row is not None
        claimed: list[int] = row[0]
        return claimed

    def hammer(self, query: str, targets: list[Any], connections: int, number: int) -> float:
        """Send a statement again and again from several connections; return calls a second."""

        async def one(mine: list[Any], calls: int) -> None:
            async with await psycopg.AsyncConnection.connect(
                self.url, autocommit=True
            ) as connection:
                connection.prepare_threshold = 0
                for call in range(calls):
                    await connection.execute(query, [mine[call % len(mine)]])

        async def all_of_them() -> float:
            began = time.perf_counter()
            shares = (targets[n::connections] or targets for n in range(connections))
            await asyncio.gather(*(one(share, number // connections) for share in shares))
            return time.perf_counter() - began

        return number / asyncio.run(all_of_them())

    # ------------------------------------------------------------------ latency

    def start_to_result(self, half: Figure, tail: Figure, pause: float, wanted: int) -> None:
        """Measure the time from start() to the result of one job at a time, in ms.

        A processor and a disk that have rested take longer, also for the limits: three calls.
        """
        number = self.number(wanted, least=20)
        self.tidy()
        self.client.start("trivial", queue="bench").result(timeout=10)
        times, limits = [], []
        for _ in range(number):
            time.sleep(pause)
            began = time.perf_counter()
            self.client.start("trivial", queue="bench").result(timeout=10)
            times.append((time.perf_counter() - began) * 1e3)
        for _ in range(number):
            time.sleep(pause)
            limits.append(sum(self.bare_call() for _ in range(3)))
        name = f"after {pause * 1e3:.0f} ms of rest" if pause else "one after the other"
        self.latencies.setdefault(name, []).extend(times)
        for figure, share in ((half, 0.5), (tail, 0.99)):
            figure.values.append(quantile(times, share))
            figure.limits.append(quantile(limits, share))

    def starts(self, figure: Figure, wanted: int) -> None:
        """Measure starts a second, 500 in a call, which no worker claims."""
        number = self.number(wanted, least=500)
        self.tidy()
        batch = json.dumps([{"workflow": "trivial", "queue": "nobody"}] * 500)
        with self.costs(figure, number):
            began = time.perf_counter()
            for _ in range(number // 500):
                self.connection.execute(f"select count(*) from {SCHEMA}.start_many(%s)", [batch])
            figure.values.append(number / (time.perf_counter() - began))
        began = time.perf_counter()
        for first in range(1, number + 1, 500):
            self.connection.execute("select bare.start(%s, %s)", [first, first + 499])
        figure.limits.append(number / (time.perf_counter() - began))

    def thousand_hooks(self, figure: Figure) -> None:
        """Measure one job that runs a thousand hooks and waits for them, in ms."""
        self.tidy()
        figure.values.append(self.run("fan_out_thousand", 1) * 1e3)

    def lateness(self, figure: Figure, wanted: int) -> None:
        """Measure how late code wakes from its sleep: all but one in a hundred, in ms."""
        number = self.number(wanted, least=20)
        self.tidy()
        handles = [self.client.start("wake_up", n / number, queue="bench") for n in range(number)]
        late = [handle.result(timeout=30) * 1e3 for handle in handles]
        figure.values.append(quantile(late, 0.99))

    def signal_to_resume(self, figure: Figure, rested: Figure, wanted: int) -> None:
        """Measure the time from signal() to the code after the wait, in ms: for one parked job
        after the other, and for each after a rest."""
        number = self.number(wanted, least=20)
        self.tidy()
        for pause, to in ((0.0, figure), (0.02, rested)):
            handles = [self.client.start("wait_for_go", queue="bench") for _ in range(number)]
            while self.waiting() < number:
                time.sleep(0.01)
            times, limits = [], []
            for handle in handles:
                time.sleep(pause)
                began = time.perf_counter()
                handle.signal("go", 1)
                times.append((handle.result(timeout=10) - began) * 1e3)
            for _ in range(number):
                time.sleep(pause)
                limits.append(sum(self.bare_call() for _ in range(2)))
            to.values.append(statistics.median(times))
            to.limits.append(statistics.median(limits))

    def waiting(self) -> int:
        """Count the parked jobs that wait for a signal."""
        self.looks += 1
        row = self.connection.execute(
            f"select count(*) from {SCHEMA}.tasks where token is null and awaits is not null"
        ).fetchone()
        assert row is not None
        return int(row[0])

    def bare_call(self) -> float:
        """Call one function that commits once; return ms."""
        began = time.perf_counter()
        self.connection.execute("select bare.call()")
        return (time.perf_counter() - began) * 1e3


def quantile(times: list[float], share: float) -> float:
    """Return the time that this share of all does not exceed."""
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def measure(bench: Bench, rounds: int) -> list[Figure]:
    """Take all figures, round after round, each beside its limit."""
    trivial, ten, fan = (
        Figure(name, "workflows/s")
        for name in ("trivial_workflows", "ten_activities", "fan_out_ten_hooks")
    )
    starts = Figure("starts_batched", "starts/s")
    thousand, late = Figure("fan_out_thousand_ms", "ms"), Figure("timer_lateness_p99_ms", "ms")
    half, tail, rested_half, rested_tail = (
        Figure(f"start_to_result_{name}_ms", "ms")
        for name in ("p50", "p99", "rested_p50", "rested_p99")
    )
    resume, rested_resume = (
        Figure(f"signal_to_resume_{name}_ms", "ms") for name in ("p50", "rested_p50")
    )
    tokens = Figure("streamed_items", "items/s")
    steps: list[Callable[[], None]] = [
        lambda: bench.workflows(trivial, "trivial", 20_000),
        lambda: bench.bare_workflows(trivial, 20_000),
        lambda: bench.workflows(ten, "ten_activities", 3_000),
        lambda: bench.bare_workflows(ten, 3_000, facts=9),
        lambda: bench.workflows(fan, "fan_out", 1_000),
        lambda: bench.bare_workflows(fan, 1_000, facts=1, turns=11),
        lambda: bench.starts(starts, 40_000),
        lambda: bench.thousand_hooks(thousand),
        lambda: bench.stream(tokens, 20),
        lambda: bench.start_to_result(half, tail, 0, 400),
        lambda: bench.start_to_result(rested_half, rested_tail, 0.02, 200),
        lambda: bench.lateness(late, 200),
        lambda: bench.signal_to_resume(resume, rested_resume, 100),
    ]
    repeat(steps, rounds)
    latency_costs(bench, half, resume)
    latencies = [half, tail, rested_half, rested_tail, resume, rested_resume, late]
    return [trivial, ten, fan, thousand, starts, tokens, *latencies]


def repeat(steps: list[Callable[[], None]], rounds: int) -> None:
    """Take steps round after round, so that noise falls on all of them."""
    for round_number in range(1, rounds + 1):
        for step in steps:
            step()
        print(f"round {round_number} of {rounds}", file=sys.stderr)


def measure_memory(bench: Bench, rounds: int) -> list[Figure]:
    """Take the figures of a memory."""
    figures, steps = memory.steps(bench)
    repeat(steps, rounds)
    return list(figures.values())


def latency_costs(bench: Bench, start: Figure, resume: Figure) -> None:
    """Count the cost of a single workflow, whose worker is idle before and after."""
    number = 100
    for figure, work in (
        (start, lambda: bench.client.start("trivial", queue="bench").result(timeout=10)),
        (resume, lambda: one_signal(bench.client)),
    ):
        with bench.costs(figure, number):
            for _ in range(number):
                work()
                time.sleep(0.02)


def one_signal(client: perdure.Client) -> None:
    """Start a workflow that waits for a signal, send the signal, and take the result."""
    handle = client.start("wait_for_go", queue="bench")
    time.sleep(0.02)
    handle.signal("go", 1)
    handle.result(timeout=10)


@contextmanager
def served() -> Iterator[str]:
    """Run a server whose data survives a crash; return its URL."""
    settings = {
        "shared_preload_libraries": "pg_stat_statements",
        "max_wal_size": "4GB",
        "fsync": "on",
    }
    # A given folder makes the server durable; temporary ones are in memory.
    folder = Path(tempfile.gettempdir()) / f"perdure-bench-{os.getpid()}"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield stack.enter_context(Server(folder, settings)).url()


def main() -> None:
    """Measure, print the table, and write bench.json and bench.svg."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--amount", type=float, default=1.0, help="how much of the full amount")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--only", choices=("workflows", "memory"), help="leave out the rest")
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    parser.add_argument("--svg", type=Path, default=Path("bench.svg"))
    options = parser.parse_args()
    with ExitStack() as stack:
        bench = Bench(stack.enter_context(served()), options.amount, options.workers)
        try:
            figures = []
            if options.only != "memory":
                with bench.working():
                    figures += measure(bench, options.rounds)
                latencies = {name: curves.spread(times) for name, times in bench.latencies.items()}
                by_slots = curves.throughput(bench)
                curves.draw(options.svg, by_slots, latencies, curves.claims(bench))
            if options.only != "workflows":
                figures += measure_memory(bench, options.rounds)
        finally:
            bench.close()
    rows = [figure.row() for figure in figures]
    print(table(rows))
    options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
