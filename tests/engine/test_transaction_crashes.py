"""Transactions of jobs whose workers die: each row exists once, beside its fact.

`PERDURE_FUZZ_SEEDS=1000` kills at every point, and draws as many storms.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import perdure
from tests.engine.crashing import Faults, Stage, some_faults, with_settings

SEEDS = int(os.environ.get("PERDURE_FUZZ_SEEDS", "12"))
MAX_LIVES = 4
BOOK = "insert into public.bookings values (%s)"
BOOKED = ["first", "hook", "last", "left", "plain", "right", "sent"]
RESULT = [1, [2, 1, 3, 4], [5, 2], 6, 7]


def an_app() -> perdure.App:
    """Return an app whose coordinator runs transactions in every way."""
    app = perdure.App()

    @app.transaction
    async def book(connection: psycopg.AsyncConnection[Any], what: str, number: int) -> int:
        await connection.execute(BOOK, [what])
        return number

    @app.transaction
    def book_plain(connection: psycopg.Connection[Any], what: str, number: int) -> int:
        connection.execute(BOOK, [what])
        return number

    @app.transaction(queue="far")
    async def book_far(connection: psycopg.AsyncConnection[Any], what: str, number: int) -> int:
        await connection.execute(BOOK, [what])
        return number

    @app.activity
    async def step(number: int) -> int:
        await asyncio.sleep(0.002)
        return number

    @app.hook
    async def hooks(memory: perdure.AsyncEntity) -> Any:
        return await asyncio.gather(book("hook", 5), memory.increment("n"))

    @app.coordinator
    async def books(memory: perdure.AsyncEntity) -> Any:
        first = await book("first", await step(1))
        many = await asyncio.gather(
            book("left", 2), memory.increment("n"), step(3), book("right", 4)
        )
        hooked = await hooks(memory)
        sent = await book_far("sent", 6)
        await perdure.sleep(0.002)
        await book_plain("plain", 0)
        return [first, many, hooked, sent, await book("last", 7)]

    return app


@pytest.fixture
def stage_of_bookings(stage: Stage) -> Iterator[Stage]:
    """Provide the stage, with a table of the user's."""
    stage.many("create table if not exists public.bookings (what text)")
    yield stage
    stage.many("drop table public.bookings")
    stage.clear()


def run(stage: Stage, lives: list[Faults]) -> None:
    """Let workers die of these faults, and one more live to the end; each row and fact must exist
    once."""
    stage.clear()
    stage.many("delete from public.bookings")
    stage.job = "job"
    app = an_app()
    stage.start("books")
    for faults in lives:
        with with_settings(faults):
            if stage.live(app, faults, []):
                break
    else:
        assert stage.live(app, Faults(), [])
    assert stage.ending() == ("completed", RESULT, None)
    assert [what for (what,) in stage.many("select what from public.bookings order by 1")] == BOOKED
    facts = stage.many("select name, count(*)::int from journal where kind = 'activity' group by 1")
    assert dict(facts) == {"book": 5, "book_plain": 1, "step": 2}
    together = "select count(*) from public.bookings b join journal j on j.xmin = b.xmin"
    assert stage.one(f"{together} and j.kind = 'activity' and j.name like 'book%%'") == 6


def test_worker_killed_at_any_point_commits_each_row_once(stage_of_bookings: Stage) -> None:
    """[P4] [P6] (E8) (C4) A kill at any point leaves each row once, committed with its fact."""
    stage = stage_of_bookings
    run(stage, [])
    points = stage.passed
    first = random.Random("bookings").random()
    for kill_at in sorted({1 + int((n + first) * points / SEEDS) for n in range(SEEDS)}):
        print(f"killed at point {kill_at} of {points}")
        run(stage, [Faults(kill_at=kill_at)])


def test_storms_of_faults_commit_each_row_once(stage_of_bookings: Stage) -> None:
    """[P4] [P6] [P12] (E8) (C4) Deaths, stops, lost replies, stolen leases and few slots leave each
    row once, committed with its fact."""
    stage = stage_of_bookings
    run(stage, [])
    points = stage.passed
    for seed in range(SEEDS):
        chance = random.Random(f"bookings {seed}")
        lives = [some_faults(chance, points) for _ in range(chance.randint(1, MAX_LIVES))]
        print("seed", seed, *lives, sep="\n    ")
        run(stage, lives)
