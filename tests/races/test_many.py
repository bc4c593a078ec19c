"""Verbs that act on many jobs, beside others on one of them: each job is checked under its lock.

[P5] [P8]
"""

from __future__ import annotations

from functools import partial

import pytest

from tests.races.sessions import Json, Session, Stage, together


def start_all(session: Session, *jobs: str) -> None:
    """Start jobs of one entity."""
    for job in jobs:
        session.start(job, entity="agent")


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_signal_found_skips_job_that_ends_meanwhile(a: Session, b: Session, end: str) -> None:
    """[P5] (E15) It was found running; under the lock the verb checks whether it still is."""
    start_all(a, "1", "2", "3")
    b.begin()
    b.call("terminate", id="2")
    signalling = a.later(a.rows, "signal_found", entity="agent", conditions={}, name="go")
    assert signalling.waits()
    b.end(end)

    found = [row[0] for row in signalling.get()]

    assert found == (["1", "3"] if end == "commit" else ["1", "2", "3"])
    assert a.run("select job_id from inbox where name = 'go' order by job_id") == [
        (job,) for job in found
    ]


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("page", [1, 3])
def test_cancel_found_skips_job_that_no_longer_meets_conditions(
    a: Session, b: Session, page: int, end: str
) -> None:
    """[P3] (E15) The page is filled with the next job, so it does not look like the last one."""
    start_all(a, "1", "2")
    b.begin()
    b.call("entity_set", id="1", path="busy", value=True)
    conditions = {"busy": {"$exists": False}}
    options: Json = {"entity": "agent", "conditions": conditions, "max_jobs": page}
    cancelling = a.later(a.rows, "cancel_found", **options)
    assert cancelling.waits()
    b.end(end)

    found = [row[0] for row in cancelling.get()]

    assert found == (["2"] if end == "commit" else ["1", "2"][:page])


@pytest.mark.parametrize("verb", ["signal_found", "cancel_found"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_page_whose_jobs_were_forgotten_continues_with_later_jobs(
    a: Session, b: Session, end: str, verb: str
) -> None:
    """[P5] (E15) An empty page would end the loop of the caller before the later jobs."""
    start_all(a, "1", "2", "3")
    b.begin()
    b.call("terminate", id="1")
    b.call("forget", id="1")
    options = {"name": "go"} if verb == "signal_found" else {}
    telling = a.later(a.rows, verb, entity="agent", conditions={}, max_jobs=1, **options)
    assert telling.waits()
    b.end(end)

    assert telling.get() == [("2" if end == "commit" else "1", True)]


def test_signal_found_wakes_task_that_parks_meanwhile(a: Session, b: Session) -> None:
    """[P5] [P8] It waits for the open park."""
    start_all(a, "1")
    task = b.held("2", entity="agent")
    b.begin()
    assert b.advance(task.park("go")).state == "parked"
    signalling = a.later(a.rows, "signal_found", entity="agent", conditions={}, name="go")
    assert signalling.waits()
    b.commit()

    assert len(signalling.get()) == 2
    assert a.state("2") == "ready"


def test_overlapping_pages_do_not_deadlock(a: Session, b: Session) -> None:
    """Both lock jobs in the order of their ids."""
    start_all(a, *"123456")
    a.begin()
    a.rows("signal_found", entity="agent", conditions={}, name="x", after="2")
    other = b.later(b.rows, "cancel_found", entity="agent", conditions={})
    assert other.waits()
    a.rows("signal_found", entity="agent", conditions={}, name="x", after="4")
    a.commit()

    assert len(other.get()) == 6


def test_signal_with_start_waits_for_uncommitted_start(a: Session, b: Session) -> None:
    """[P1] [P5] One job starts, and gets both signals."""
    given = {"workflow": "w", "id": "j"}
    a.begin()
    a.call("signal_with_start", **given, name="one")
    second = b.later(b.rows, "signal_with_start", **given, name="two")
    assert second.waits()
    a.commit()

    assert second.get() == [("j", False)]
    assert a.run("select name from inbox order by id") == [("one",), ("two",)]
    assert a.tasks("j") == {"1/main": "ready"}


def test_a_signal_with_start_whose_rival_rolls_back_starts_the_job(a: Session, b: Session) -> None:
    """[P1] Only its own signal is sent."""
    given = {"workflow": "w", "id": "j"}
    a.begin()
    a.call("signal_with_start", **given, name="one")
    second = b.later(b.rows, "signal_with_start", **given, name="two")
    assert second.waits()
    a.rollback()

    assert second.get() == [("j", True)]
    assert a.run("select name from inbox") == [("two",)]


NEW_RUN = {"workflow": "w", "id": "j", "queue": "j", "name": "go", "if_exists": "new_run"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("how", ["done", "terminate"])
def test_signal_with_start_waits_for_uncommitted_end_of_run(
    a: Session, b: Session, how: str, end: str
) -> None:
    """[P1] [P5] If the end commits, it begins a new run; otherwise it signals the old one."""
    task = a.held("j")
    a.begin()
    if how == "done":
        assert a.advance(task.done(1)).state == "done"
    else:
        assert a.call("terminate", id="j")
    signalling = b.later(b.rows, "signal_with_start", **NEW_RUN, payload=1)
    assert signalling.waits()
    a.end(end)

    assert signalling.get() == [("j", end == "commit")]
    assert a.tasks("j") == ({"2/main": "ready"} if end == "commit" else {"1/main": "held"})
    its_run = a.claim_one("j") if end == "commit" else task
    assert a.advance(its_run.park("go")).payloads == [1]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_signal_with_start_before_end_of_run_begins_no_run(
    a: Session, b: Session, end: str
) -> None:
    """[P5] A running job accepted the signal, which ends with the run, as any signal does."""
    task = a.held("j")
    b.begin()
    assert b.rows("signal_with_start", **NEW_RUN, payload="early") == [("j", False)]
    ending = a.later(a.advance, task.done(1), waiting=True)
    assert ending.waits()
    b.end(end)

    assert ending.get().state == "done"
    assert a.tasks("j") == {}
    assert a.rows("signal_with_start", **NEW_RUN, payload="late") == [("j", True)]
    assert a.advance(a.claim_one("j").park("go")).payloads == ["late"]


@pytest.mark.parametrize("key", ["k", None], ids=["the same call", "calls of their own"])
def test_signals_from_eight_sessions_at_once_begin_one_new_run(
    stage: Stage, key: str | None
) -> None:
    """[P1] [P5] [P12] With one key for all calls there is one signal, without keys eight."""
    sessions = stage.sessions(8)
    for number in range(5):
        job = f"j{number}"
        sessions[0].advance(sessions[0].held(job).done(1))
        call = NEW_RUN | {"id": job, "queue": job, "key": key}
        found = together(*(partial(s.rows, "signal_with_start", **call) for s in sessions))

        assert sorted(rows[0][1] for rows in found) == [False] * 7 + [True]
        assert sessions[0].tasks(job) == {"2/main": "ready"}
        received = sessions[0].advance(sessions[0].claim_one(job).park("go")).payloads
        assert len(received) == (1 if key else 8)


def test_signal_with_start_starts_job_that_was_forgotten_meanwhile(a: Session, b: Session) -> None:
    """[P1] [P5] The job still existed when the call began."""
    assert a.advance(a.held("j").done(1)).state == "done"
    a.begin()
    assert a.call("forget", id="j")
    signalling = b.later(b.rows, "signal_with_start", **NEW_RUN)
    assert signalling.waits()
    a.commit()

    assert signalling.get() == [("j", True)]
    assert a.tasks("j") == {"1/main": "ready"}


def test_signal_with_start_during_start_of_new_run_goes_to_it(a: Session, b: Session) -> None:
    """[P1] [P5] It waits for the uncommitted start, and begins no run of its own."""
    assert a.advance(a.held("j").done(1)).state == "done"
    a.begin()
    assert a.start("j", if_exists="new_run")
    signalling = b.later(b.rows, "signal_with_start", **NEW_RUN, payload=1)
    assert signalling.waits()
    a.commit()

    assert signalling.get() == [("j", False)]
    assert a.tasks("j") == {"2/main": "ready"}
    assert a.advance(a.claim_one("j").park("go")).payloads == [1]
