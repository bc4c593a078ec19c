"""assert_invariants() on a system at work: it disturbs nobody, and raises no false alarm. [P8]"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.amount import amount
from tests.races.sessions import PATIENCE, Session, chances, increment, together
from tests.races.test_deadlocks import Chaos
from tests.races.theatre import Players, Theatre

SECONDS = amount(20) / 10
LEVELS = ("read committed", "repeatable read, read only")

LOCKS = """
select distinct mode from pg_locks where pid = pg_backend_pid() and locktype <> 'virtualxid'"""


def looks_under_load(
    it: Players, is_enough: Callable[[int, int, list[object]], bool]
) -> list[object]:
    """Look while four sessions do anything to anything, until looks, turns or alarms are enough;
    give the alarms.
    """
    jobs = [f"hot{number}" for number in range(8)]
    sessions = it.stage.sessions(4)
    for job in jobs:
        it.a.start(job, queue="q")
    crowd = [
        Chaos(session, jobs, chance)
        for session, chance in zip(sessions, chances(len(sessions)), strict=True)
    ]
    looks, alarms, is_over = 0, [], False

    def work(worker: Chaos) -> None:
        while not is_over:
            worker.step()

    def look() -> None:
        nonlocal looks, is_over
        try:
            while not is_enough(looks, sum(w.seen.total() for w in crowd), alarms):
                alarms.extend(it.b.broken())
                looks += 1
        finally:
            is_over = True

    together(look, *(partial(work, worker) for worker in crowd))
    return alarms


def test_it_raises_no_false_alarm_under_load(theatre: Theatre) -> None:
    """(T31): every look is at one moment, whatever the turns beside it do."""
    ends_at = time.monotonic() + SECONDS

    def is_enough(looks: int, turns: int, alarms: list[object]) -> bool:
        return bool(alarms) or (time.monotonic() > ends_at and looks > 9 and turns > 200)

    with theatre.players() as it:
        assert looks_under_load(it, is_enough) == []


@pytest.mark.broken_invariants
def test_a_look_at_several_moments_would(theatre: Theatre) -> None:
    """A control: one function with a snapshot of its own sees mail that came after the park."""
    theatre.change("open_messages", "STABLE", "VOLATILE")
    ends_at = time.monotonic() + PATIENCE

    def is_enough(looks: int, turns: int, alarms: list[object]) -> bool:
        return bool(alarms) or time.monotonic() > ends_at

    with theatre.players() as it:
        assert looks_under_load(it, is_enough) != []


@pytest.mark.parametrize("level", LEVELS)
def test_it_holds_nobody_up(a: Session, b: Session, level: str) -> None:
    """Whoever has looked, and has not ended his transaction, holds what every reader holds."""
    task = b.held("j")
    a.begin()
    a.run(f"set transaction isolation level {level}")
    assert a.broken() == []

    assert a.run(LOCKS) == [("AccessShareLock",)]
    assert a.one("select pg_current_xact_id_if_assigned()") is None
    assert b.advance(task.park("go", facts=[increment("n")])).state == "parked"
    b.run("vacuum tasks")
    assert a.broken() == []
    a.commit()


def test_it_is_held_up_by_nobody(a: Session, b: Session) -> None:
    """Rows that others have locked or changed are read as they were."""
    b.held("j")
    b.begin()
    b.run("select from jobs for update")
    b.run("update tasks set position = 7")

    assert a.broken() == []

    b.rollback()
