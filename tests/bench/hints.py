"""Hints: the cost of NOTIFY for writers, and how often an idle worker claims in vain."""

from __future__ import annotations

import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from figures import Goal
from loops import beside, call, seconds, together

if TYPE_CHECKING:
    from bench import Bench

PART = "hints"
WRITERS = 16
STARTS = 40_000
SLOTS = 4
SINGLE = 1_000
ROUNDS = 4

SAYS_NOTHING = """
create or replace function {schema}.notify_listeners(topics text[]) returns void
language plpgsql volatile set search_path = pg_catalog, {schema}, pg_temp as $$ begin end $$
"""

END = "    return coalesce(claimed, '{}');"
COUNTED = """
    insert into soak.calls (asked, found, alone)
    values (claim_tasks.max_tasks, cardinality(coalesce(claimed, '{}')),
            strpos(current_query(), '"claim"') > 0);
"""


def measure(bench: Bench) -> list[Goal]:
    """Measure writers with hints and without, then the claims of a worker with little to do."""
    return [*writers(bench), *idle(bench)]


def writers(bench: Bench) -> list[Goal]:
    """Let sixteen sessions start jobs beside busy workers, with NOTIFY and without."""
    number = bench.number(STARTS // ROUNDS, least=160) // WRITERS
    bench.tidy()
    with tempfile.TemporaryDirectory() as folder, bench.working(slots=SLOTS):
        file = Path(folder) / "busy"
        file.touch()
        for _ in range(SLOTS):
            bench.client.start("occupy", str(file), queue="bench")
        time.sleep(1.0)  # the worker no longer listens
        rates, told = by_turns(bench, number)
        file.unlink()
    share = sum(rates[True]) / sum(rates[False])
    thousands = number * WRITERS * ROUNDS / 1000
    return [
        Goal(PART, f"hints for 1,000 starts of {WRITERS} writers beside a busy worker",
             told / thousands, most=0, counted=True),
        Goal(PART, f"starts of {WRITERS} writers", sum(rates[True]) / ROUNDS, "starts/s"),
        Goal(PART, "these, to those of an app without NOTIFY", share, least=0.95),
    ]  # fmt: skip


def by_turns(bench: Bench, number: int) -> tuple[dict[bool, list[float]], int]:
    """Return starts a second with NOTIFY and without, and how many hints were sent."""
    says = written(bench, "notify_listeners")
    start = partial(call, bench.url, "call soak.start_singly(%s)", number)
    together([start] * WRITERS)
    rates: dict[bool, list[float]] = {True: [], False: []}
    told = 0
    for turn in range(2 * ROUNDS):
        speaks = turn % 4 in {0, 3}  # neither order has an advantage
        text = says if speaks else SAYS_NOTHING.format(schema=bench.schema)
        bench.connection.execute(text.encode())
        with heard(bench) as notes:
            spent = seconds(lambda: together([start] * WRITERS))
            rates[speaks].append(number * WRITERS / spent)
        told += len(notes) if speaks else 0
    bench.connection.execute(says.encode())
    return rates, told


def written(bench: Bench, function: str) -> str:
    """Return the source of a function of the app."""
    row = bench.connection.execute(
        "select pg_get_functiondef(%s::regproc)", [f"{bench.schema}.{function}"]
    ).fetchone()
    assert row is not None
    return str(row[0])


class heard:  # noqa: N801 - it is used as a function
    """Collect the hints that are sent during a block."""

    def __init__(self, bench: Bench):
        self._bench = bench
        self._notes: list[str] = []

    def __enter__(self) -> list[str]:
        self._beside = beside(self._listen)
        self._beside.__enter__()
        time.sleep(0.2)
        return self._notes

    def __exit__(self, *error: object) -> None:
        time.sleep(0.2)
        self._beside.__exit__(None, None, None)

    def _listen(self, stop: threading.Event) -> None:
        with psycopg.connect(self._bench.url, autocommit=True) as connection:
            row = connection.execute(f"select {self._bench.schema}.channel()").fetchone()
            assert row is not None
            connection.execute(f'listen "{row[0]}"'.encode())
            while not stop.is_set():
                self._notes += [note.payload for note in connection.notifies(timeout=0.1)]


def idle(bench: Bench) -> list[Goal]:
    """Start jobs one by one with pauses, and count the claims of one worker."""
    number = bench.number(SINGLE, least=50)
    bench.tidy()
    with bench.working(workers=1):
        time.sleep(1.0)
        plain = written(bench, "claim_tasks")
        assert END in plain
        bench.connection.execute(plain.replace(END, COUNTED + END).encode())
        bench.connection.execute("truncate soak.calls")
        for _ in range(number):
            bench.client.start("trivial", queue="bench").result(timeout=10)
            time.sleep(0.02)
        row = bench.connection.execute(
            """select count(*) filter (where alone and found = 0 and asked > 0),
                      count(*) filter (where not alone and found = 0 and asked > 0),
                      coalesce(sum(found), 0)
                 from soak.calls"""
        ).fetchone()
        bench.connection.execute(plain.encode())
    assert row is not None
    return [
        Goal(PART, "tasks that the idle worker got, a start", row[2] / number, least=1, most=1,
             counted=True),
        Goal(PART, "claims of their own that came back empty, a start", row[0] / number,
             most=2.5, counted=True),
        Goal(PART, "turns that took an empty claim along, a start", row[1] / number, most=1.1,
             counted=True),
    ]  # fmt: skip
