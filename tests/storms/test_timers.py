"""A mass of timers, under faults. [P7] (T12)"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

import perdure
from tests.amount import amount
from tests.storms.cluster import Cluster
from tests.storms.load import BOUND
from tests.storms.storm import Faults, Storm
from tests.storms.timers import Clockmaker, Firing, Timer, misfires

TIMERS = 300
WITHIN = 4
"""Seconds in which these timers are due."""
RUSH = amount(1250) if amount(10) > 10 else 200
"""Timers that are due in one second: few by default, because they take long to fire."""
SOON = 3
"""Seconds until then."""


def test_timers_fire_once_and_never_early(brewing: Callable[..., Storm], cluster: Cluster) -> None:
    """[P7] (T12) Sleeps, deadlines, later starts and later hooks fire once and not early, while the
    server is stopped on the spot and workers are killed. Timers that are cancelled in time never
    fire. Their lateness is printed, but not promised."""
    storm = brewing("T12 timers", callers=0, customers=0)
    with storm.crew(2) as crew, storm.load(), perdure.connect(storm.dsn) as client:
        deeds: dict[str, Callable[[random.Random], object]] = {
            "crash": lambda _: cluster.crash(),
            "kill a worker": crew.kill,
        }
        clockmaker = Clockmaker(client, storm.direct, storm.random("timers"), amount(WITHIN))
        with ThreadPoolExecutor(1) as pool:
            setting = pool.submit(clockmaker.set, amount(TIMERS))
            storm.blow(Faults(deeds, (0.1, 0.7)), amount(6))
            setting.result()
        clockmaker.wait(amount(BOUND))
    storm.figures.operations += len(clockmaker.timers)
    storm.figures.note = clockmaker.lateness()
    assert misfires(clockmaker.timers, clockmaker.firings()) == []
    assert storm.judge() == []


def test_timers_that_are_due_in_one_second_fire_once_each(
    brewing: Callable[..., Storm], cluster: Cluster
) -> None:
    """[P7] (T12) Sleeps, later starts and later hooks, while workers are killed: 10,000 with
    AMOUNT=8."""
    storm = brewing("T12 rush", callers=0, customers=0)
    with storm.crew(2) as crew, storm.load(), perdure.connect(storm.dsn) as client:
        clockmaker = Clockmaker(client, storm.direct, storm.random("timers"), amount(SOON))
        clockmaker.await_time(clockmaker.set_for_one_second(RUSH))
        storm.blow(Faults({"kill a worker": crew.kill}, (0.1, 0.7)), amount(6))
        clockmaker.wait(amount(BOUND))
    storm.figures.operations += len(clockmaker.timers)
    storm.figures.note = f"{len(clockmaker.timers):,} in one second, {clockmaker.lateness()}"
    assert misfires(clockmaker.timers, clockmaker.firings()) == []
    assert storm.judge() == []


DUE = datetime(2000, 1, 1, tzinfo=UTC)
LATER = DUE + timedelta(seconds=1)
TIMERS_SET = [
    Timer("a", DUE),
    Timer("b", DUE),
    Timer("cancelled", DUE, counts=frozenset({0})),
]
RIGHT: list[Firing] = [("a", DUE, LATER), ("b", DUE, DUE)]


@pytest.mark.parametrize(
    ("firings", "wrong"),
    [
        (RIGHT, 0),
        (RIGHT[:1], 1),
        ([*RIGHT, RIGHT[0]], 1),
        ([RIGHT[0], ("b", DUE, DUE - timedelta(microseconds=1))], 1),
        ([RIGHT[0], ("b", LATER, DUE)], 1),
        ([*RIGHT, ("cancelled", DUE, LATER)], 1),
        ([*RIGHT, ("nobody's", DUE, LATER)], 1),
    ],
    ids=["right", "lost", "twice", "early", "early by its code", "cancelled", "nobody's"],
)
def test_misfires_are_found(firings: list[Firing], wrong: int) -> None:
    """(T32) A control: lost, doubled, early and cancelled timers that fire are found."""
    assert len(misfires(TIMERS_SET, firings)) == wrong
