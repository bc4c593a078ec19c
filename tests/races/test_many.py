"""Verbs on many jobs beside others on one of them: judged under the lock. [P5] [P8]"""

from __future__ import annotations

from functools import partial

import pytest

from tests.races.sessions import Json, Session, Stage, together


def begun(session: Session, *jobs: str) -> None:
    """Start jobs of one entity."""
    for job in jobs:
        session.start(job, entity="agent")


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_job_that_ends_while_many_are_signalled_is_passed_over(
    a: Session, b: Session, end: str
) -> None:
    """[P5] (E15): it was found running; the lock shows whether it still is."""
    begun(a, "1", "2", "3")
    b.begin()
    b.call("terminate", id="2")
    signalling = a.later(a.rows, "signal_found", entity="agent", conditions={}, name="go")
    assert signalling.waits()
    b.end(end)

    told = [row[0] for row in signalling.get()]

    assert told == (["1", "3"] if end == "commit" else ["1", "2", "3"])
    assert a.run("select job_id from inbox where name = 'go' order by job_id") == [
        (job,) for job in told
    ]


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("page", [1, 3])
def test_a_job_whose_memory_changes_meanwhile_is_passed_over(
    a: Session, b: Session, page: int, end: str
) -> None:
    """[P3] (E15): it does not meet the conditions any more, and the page does not seem the last."""
    begun(a, "1", "2")
    b.begin()
    b.call("entity_set", id="1", path="busy", value=True)
    conditions = {"busy": {"$exists": False}}
    options: Json = {"entity": "agent", "conditions": conditions, "max_jobs": page}
    cancelling = a.later(a.rows, "cancel_found", **options)
    assert cancelling.waits()
    b.end(end)

    told = [row[0] for row in cancelling.get()]

    assert told == (["2"] if end == "commit" else ["1", "2"][:page])


@pytest.mark.parametrize("verb", ["signal_found", "cancel_found"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_page_whose_jobs_are_forgotten_meanwhile_is_not_the_last(
    a: Session, b: Session, end: str, verb: str
) -> None:
    """[P5] (E15): who stopped there would have passed over all that run behind it."""
    begun(a, "1", "2", "3")
    b.begin()
    b.call("terminate", id="1")
    b.call("forget", id="1")
    options = {"name": "go"} if verb == "signal_found" else {}
    telling = a.later(a.rows, verb, entity="agent", conditions={}, max_jobs=1, **options)
    assert telling.waits()
    b.end(end)

    assert telling.get() == [("2" if end == "commit" else "1", True)]


def test_a_task_that_parks_while_many_are_signalled_is_woken(a: Session, b: Session) -> None:
    """[P5] [P8]"""
    begun(a, "1")
    task = b.held("2", entity="agent")
    b.begin()
    assert b.advance(task.park("go")).state == "parked"
    signalling = a.later(a.rows, "signal_found", entity="agent", conditions={}, name="go")
    assert signalling.waits()
    b.commit()

    assert len(signalling.get()) == 2
    assert a.state("2") == "ready"


def test_two_pages_that_overlap_do_not_block_each_other_for_ever(a: Session, b: Session) -> None:
    """Both lock in order of id: one waits, none is broken."""
    begun(a, *"123456")
    a.begin()
    a.rows("signal_found", entity="agent", conditions={}, name="x", after="2")
    other = b.later(b.rows, "cancel_found", entity="agent", conditions={})
    assert other.waits()
    a.rows("signal_found", entity="agent", conditions={}, name="x", after="4")
    a.commit()

    assert len(other.get()) == 6


def test_a_signal_with_start_waits_for_who_starts_the_job(a: Session, b: Session) -> None:
    """[P1] [P5]: one job, both signals."""
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
    """[P1]"""
    given = {"workflow": "w", "id": "j"}
    a.begin()
    a.call("signal_with_start", **given, name="one")
    second = b.later(b.rows, "signal_with_start", **given, name="two")
    assert second.waits()
    a.rollback()

    assert second.get() == [("j", True)]
    assert a.run("select name from inbox") == [("two",)]


AGAIN = {"workflow": "w", "id": "j", "queue": "j", "name": "go", "if_exists": "new_run"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("how", ["done", "terminate"])
def test_a_signal_that_begins_a_new_run_waits_for_the_end_of_the_last(
    a: Session, b: Session, how: str, end: str
) -> None:
    """[P1] [P5] It goes to the run that there is then: none is begun beside one that lives."""
    task = a.held("j")
    a.begin()
    if how == "done":
        assert a.advance(task.done(1)).state == "done"
    else:
        assert a.call("terminate", id="j")
    signalling = b.later(b.rows, "signal_with_start", **AGAIN, payload=1)
    assert signalling.waits()
    a.end(end)

    assert signalling.get() == [("j", end == "commit")]
    assert a.tasks("j") == ({"2/main": "ready"} if end == "commit" else {"1/main": "held"})
    its_run = a.claim_one("j") if end == "commit" else task
    assert a.advance(its_run.park("go")).payloads == [1]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_the_end_of_a_run_waits_for_a_signal_that_might_have_begun_one(
    a: Session, b: Session, end: str
) -> None:
    """[P5] It was accepted by a job that runs, and ends with that run as any signal does."""
    task = a.held("j")
    b.begin()
    assert b.rows("signal_with_start", **AGAIN, payload="early") == [("j", False)]
    ending = a.later(a.advance, task.done(1), waiting=True)
    assert ending.waits()
    b.end(end)

    assert ending.get().state == "done"
    assert a.tasks("j") == {}
    assert a.rows("signal_with_start", **AGAIN, payload="late") == [("j", True)]
    assert a.advance(a.claim_one("j").park("go")).payloads == ["late"]


@pytest.mark.parametrize("key", ["k", None], ids=["the same call", "calls of their own"])
def test_signals_from_eight_sessions_at_once_begin_one_new_run(
    stage: Stage, key: str | None
) -> None:
    """[P1] [P5] [P12] A call that is repeated is one call."""
    sessions = stage.sessions(8)
    for number in range(5):
        job = f"j{number}"
        sessions[0].advance(sessions[0].held(job).done(1))
        call = AGAIN | {"id": job, "queue": job, "key": key}
        told = together(*(partial(s.rows, "signal_with_start", **call) for s in sessions))

        assert sorted(rows[0][1] for rows in told) == [False] * 7 + [True]
        assert sessions[0].tasks(job) == {"2/main": "ready"}
        heard = sessions[0].advance(sessions[0].claim_one(job).park("go")).payloads
        assert len(heard) == (1 if key else 8)


def test_a_signal_starts_a_job_that_was_forgotten_while_it_waited(a: Session, b: Session) -> None:
    """[P1] [P5] It was there to be signalled, and is gone when the lock is free."""
    assert a.advance(a.held("j").done(1)).state == "done"
    a.begin()
    assert a.call("forget", id="j")
    signalling = b.later(b.rows, "signal_with_start", **AGAIN)
    assert signalling.waits()
    a.commit()

    assert signalling.get() == [("j", True)]
    assert a.tasks("j") == {"1/main": "ready"}


def test_a_signal_beside_the_start_of_a_new_run_goes_to_it(a: Session, b: Session) -> None:
    """[P1] [P5]"""
    assert a.advance(a.held("j").done(1)).state == "done"
    a.begin()
    assert a.start("j", if_exists="new_run")
    signalling = b.later(b.rows, "signal_with_start", **AGAIN, payload=1)
    assert signalling.waits()
    a.commit()

    assert signalling.get() == [("j", False)]
    assert a.tasks("j") == {"2/main": "ready"}
    assert a.advance(a.claim_one("j").park("go")).payloads == [1]
