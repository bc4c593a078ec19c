"""The cost of a memory: single and batched commands, large documents, long lists, earlier versions.

Each figure is beside a bare `update … set doc` and a commit on the same server in the same run, on
a document of the same size.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from figures import Figure

from perdure.installation.install import install

if TYPE_CHECKING:
    from bench import Bench

Step = Callable[[], None]

BATCH = 100
"""Commands in one entity_apply()."""

SIZES = {"1 kB": 1, "10 kB": 10, "100 kB": 100, "1 MB": 1000}
LENGTHS = (100, 1_000, 10_000)
NO_HISTORY = "bench_without_history"
FORGET_HISTORY = f"""
    create or replace function {NO_HISTORY}.append_command(
        id text, key text, version bigint, op text, path text[], argument jsonb, value jsonb,
        at timestamptz, source text default null) returns void language plpgsql as 'begin end';
    create or replace function {NO_HISTORY}.store_snapshot(held {NO_HISTORY}.memory) returns void
        language plpgsql as 'begin end'"""

TURNS = 4

ITEM = "x" * 140
"""About 150 bytes with its quotes and key."""


def steps(bench: Bench) -> tuple[dict[str, Figure], list[Step]]:
    """Return the figures of a memory, and the steps of one round."""
    figures: dict[str, Figure] = {}

    def figure(name: str) -> Figure:
        return figures.setdefault(name, Figure(name, "commands/s"))

    work: list[Step] = [
        partial(commands, bench, figure("commands_one_job_1"), 1, 1, 2_000),
        partial(commands, bench, figure("commands_one_job_8"), 1, 8, 2_000),
        partial(commands, bench, figure("commands_many_jobs_8"), 64, 8, 6_000),
        partial(batches, bench, figure("commands_batched"), 20_000),
        partial(with_history, bench, figure("commands_with_history"), 4_000),
    ]
    work += [partial(large, bench, figure(f"set_in_{name}"), size) for name, size in SIZES.items()]
    work += [
        partial(appends, bench, figure(f"append_to_{length}_items"), length, "append")
        for length in LENGTHS
    ]
    work.append(partial(appends, bench, figure("log_beside_10000_items"), 10_000, "log"))
    work.append(
        partial(past, bench, figures.setdefault("at_of_10000", Figure("at_of_10000", "ms")))
    )
    return figures, work


def commands(bench: Bench, figure: Figure, jobs: int, connections: int, wanted: int) -> None:
    """Measure single commands from several connections."""
    number = bench.number(wanted)
    bench.tidy()
    for job in range(jobs):
        bench.ask("entity_create(%s, 'bench', '{\"n\": 0}')", f"e{job}")
    bench.connection.execute("select bare.start(0, %s)", [jobs - 1])
    ours = f"select {bench.schema}.entity_increment(%s, 'n')"
    with bench.costs(figure, number):
        names = [f"e{job}" for job in range(jobs)]
        figure.values.append(bench.hammer(ours, names, connections, number))
    bare = bench.hammer("call bare.change(%s)", list(range(jobs)), connections, number)
    figure.limits.append(bare)


def batches(bench: Bench, figure: Figure, wanted: int) -> None:
    """Measure commands in batches, against single bare updates."""
    number = bench.number(wanted, least=BATCH) // BATCH
    bench.tidy()
    for job in range(64):
        bench.ask("entity_create(%s, 'bench', '{\"n\": 0}')", f"e{job}")
    bench.connection.execute("select bare.start(0, 63)")
    batch = json.dumps([{"op": "increment", "path": "n", "value": 1}] * BATCH)
    with bench.costs(figure, number * BATCH):
        spent = timed(
            bench.ask, (("entity_apply(%s, %s)", f"e{n % 64}", batch) for n in range(number))
        )
    figure.values.append(number * BATCH / spent)
    figure.limits.append(bare_updates(bench, [n % 64 for n in range(bench.number(1_000))]))


def with_history(bench: Bench, figure: Figure, wanted: int) -> None:
    """Measure commands beside the same commands in an app that keeps no history."""
    number = bench.number(wanted) // TURNS
    bench.tidy()
    bench.connection.execute(f"drop schema if exists {NO_HISTORY} cascade")
    install(bench.connection, NO_HISTORY)
    bench.connection.execute(FORGET_HISTORY)
    jobs = [f"e{job}" for job in range(8)]
    for schema in (NO_HISTORY, bench.schema):
        for job in jobs:
            bench.connection.execute(f"select {schema}.entity_create(%s, 'bench')", [job])
    for _ in range(TURNS):  # alternately, so that noise affects both
        for schema, rates in ((NO_HISTORY, figure.limits), (bench.schema, figure.values)):
            call = f"select {schema}.entity_increment(%s, 'n')"
            rates.append(bench.hammer(call, jobs, 1, number))


def large(bench: Bench, figure: Figure, kilobytes: int) -> None:
    """Measure the change of one key of a large document."""
    number = bench.number(2_000 // (1 + kilobytes // 4))
    bench.tidy()
    document = json.dumps({"n": 0, "rest": {f"k{n}": noise(n) for n in range(kilobytes)}})
    with_document(bench, document)
    with bench.costs(figure, number):
        spent = timed(bench.ask, (("entity_increment('e0', 'n')",) for _ in range(number)))
    figure.values.append(number / spent)
    figure.limits.append(bare_updates(bench, [0] * number))


def appends(bench: Bench, figure: Figure, length: int, op: str) -> None:
    """Measure adding an item to a list of so many."""
    number = bench.number(max(100, 100_000 // length) if op == "append" else 1_000)
    bench.tidy()
    items = json.dumps({"n": 0, "items": [{"t": ITEM}] * length})
    with_document(bench, items)
    path = "items" if op == "append" else "more"
    one = json.dumps({"t": ITEM})
    with bench.costs(figure, number):
        spent = timed(bench.ask, ((f"entity_{op}('e0', %s, %s)", path, one) for _ in range(number)))
    figure.values.append(number / spent)
    figure.limits.append(bare_updates(bench, [0] * number))


def past(bench: Bench, figure: Figure) -> None:
    """Measure reading a memory at a version after 10,000 commands on 3 kB, beside reading it
    now."""
    bench.tidy()
    with_document(bench, json.dumps({"n": 0, "rest": {f"k{n}": noise(n) for n in range(3)}}))
    batch = json.dumps([{"op": "set", "path": f"s{n % 10}", "value": n} for n in range(1_000)])
    for _ in range(10):
        bench.ask("entity_apply('e0', %s)", batch)
    versions = range(99, 10_000, 100)  # the farthest from a snapshot
    spent = timed(bench.ask, (("entity_at('e0', %s)", version) for version in versions))
    figure.values.append(spent / len(versions) * 1e3)
    figure.limits.append(
        timed(bench.ask, (("entity_get('e0')",) for _ in versions)) / len(versions) * 1e3
    )


def with_document(bench: Bench, document: str) -> None:
    """Make a memory and a bare row that hold a document."""
    bench.ask("entity_create('e0', 'bench')")
    bench.connection.execute(
        f"update {bench.schema}.jobs set context = %s where id = 'e0'", [document]
    )
    bench.connection.execute("select bare.start(0, 0)")
    bench.connection.execute("update bare.job set doc = %s where id = 0", [document])


def bare_updates(bench: Bench, ids: list[int]) -> float:
    """Change bare documents one by one; return updates a second."""
    update = partial(bench.connection.execute, "call bare.change(%s)")
    return len(ids) / timed(update, (([number],) for number in ids))


def timed(call: Callable[..., Any], calls: Iterator[tuple[Any, ...]]) -> float:
    """Make calls one after the other; return the seconds they took."""
    began = time.perf_counter()
    for arguments in calls:
        call(*arguments)
    return time.perf_counter() - began


def noise(number: int) -> str:
    """Return about a kilobyte that does not compress well."""
    return "".join(f"{(number * 7919 + n * 104729) % 16777213:06x}" for n in range(165))
