"""assert_invariants() on a busy system delays nobody and reports no false alarm. [P8]"""

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


def alarms_under_load(players: Players) -> list[object]:
    """Check the invariants while four sessions make random calls; give the violations."""
    jobs = [f"hot{number}" for number in range(8)]
    sessions = players.stage.sessions(4)
    for job in jobs:
        players.a.start(job, queue="q")
    workers = [
        Chaos(session, jobs, chance)
        for session, chance in zip(sessions, chances(len(sessions)), strict=True)
    ]
    ends_at = time.monotonic() + SECONDS
    checks, alarms, is_over = 0, [], False

    def work(worker: Chaos) -> None:
        while not is_over:
            worker.step()

    def check() -> None:
        nonlocal checks, is_over
        try:
            while not alarms and (time.monotonic() < ends_at or checks < 10 or turns() < 200):
                alarms.extend(players.b.broken())
                checks += 1
        finally:
            is_over = True

    def turns() -> int:
        return sum(worker.seen.total() for worker in workers)

    together(check, *(partial(work, worker) for worker in workers))
    return alarms


def test_assert_invariants_reports_no_false_alarm_under_load(theatre: Theatre) -> None:
    """(T31) Each check sees a single moment, whatever turns run beside it."""
    with theatre.players() as players:
        assert alarms_under_load(players) == []


@pytest.mark.broken_invariants
@pytest.mark.parametrize("volatility", ["STABLE", "VOLATILE"])
def test_assert_invariants_would_report_false_alarms_without_one_snapshot(
    theatre: Theatre, volatility: str
) -> None:
    """A negative control: a message arrives between reading a parked task and reading its messages.

    A function with a snapshot of its own would see that message.
    """
    gate = f"gate text := case when current_setting('application_name') = 'b' then {PASS} end;"
    theatre.change("open_messages", "STABLE", volatility)
    theatre.change("open_messages", "declare", f"declare {gate}")
    with theatre.players() as players:
        players.a.parked("j", "go")
        shut(players.c)
        check = players.b.later(players.b.broken)
        assert check.waits()
        players.a.signal("j", "go")
        players.c.commit()
        assert [row[0] for row in check.get()] == (["I5"] if volatility == "VOLATILE" else [])


@pytest.mark.parametrize("level", LEVELS)
def test_assert_invariants_delays_nobody(a: Session, b: Session, level: str) -> None:
    """Its open transaction holds only the locks of a reader, and lets others write and vacuum."""
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


def test_assert_invariants_waits_for_nobody(a: Session, b: Session) -> None:
    """It reads rows that others have locked or changed as they were."""
    b.held("j")
    b.begin()
    b.run("select from jobs for update")
    b.run("update tasks set position = 7")

    assert a.broken() == []

    b.rollback()
