"""assert_invariants() on a system at work: it disturbs nobody, and raises no false alarm. [P8]"""

from __future__ import annotations

import time
from functools import partial

import pytest

from tests.amount import amount
from tests.races.sessions import Session, chances, increment, together
from tests.races.test_deadlocks import Chaos
from tests.races.theatre import GATE, Players, Theatre, shut

SECONDS = amount(20) / 10
LEVELS = ("read committed", "repeatable read, read only")

PASS = f"pg_advisory_xact_lock_shared({GATE})::text"

LOCKS = """
select distinct mode from pg_locks where pid = pg_backend_pid() and locktype <> 'virtualxid'"""


def alarms_under_load(it: Players) -> list[object]:
    """Look while four sessions do anything to anything; give the alarms."""
    jobs = [f"hot{number}" for number in range(8)]
    sessions = it.stage.sessions(4)
    for job in jobs:
        it.a.start(job, queue="q")
    crowd = [
        Chaos(session, jobs, chance)
        for session, chance in zip(sessions, chances(len(sessions)), strict=True)
    ]
    ends_at = time.monotonic() + SECONDS
    looks, alarms, is_over = 0, [], False

    def work(worker: Chaos) -> None:
        while not is_over:
            worker.step()

    def look() -> None:
        nonlocal looks, is_over
        try:
            while not alarms and (time.monotonic() < ends_at or looks < 10 or turns() < 200):
                alarms.extend(it.b.broken())
                looks += 1
        finally:
            is_over = True

    def turns() -> int:
        return sum(worker.seen.total() for worker in crowd)

    together(look, *(partial(work, worker) for worker in crowd))
    return alarms


def test_it_raises_no_false_alarm_under_load(theatre: Theatre) -> None:
    """(T31): every look is at one moment, whatever the turns beside it do."""
    with theatre.players() as it:
        assert alarms_under_load(it) == []


@pytest.mark.broken_invariants
@pytest.mark.parametrize("volatility", ["STABLE", "VOLATILE"])
def test_a_look_at_several_moments_would(theatre: Theatre, volatility: str) -> None:
    """A control: mail comes between the look at a task that is parked and the look at its mail. A
    function with a snapshot of its own would see it.
    """
    gate = f"gate text := case when current_setting('application_name') = 'b' then {PASS} end;"
    theatre.change("open_messages", "STABLE", volatility)
    theatre.change("open_messages", "declare", f"declare {gate}")
    with theatre.players() as it:
        it.a.parked("j", "go")
        shut(it.c)
        look = it.b.later(it.b.broken)
        assert look.waits()
        it.a.signal("j", "go")
        it.c.commit()
        assert [row[0] for row in look.get()] == (["I5"] if volatility == "VOLATILE" else [])


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
