"""A turn in the holder's own transaction: its rows and what it tells are there both, or neither.

Whoever records a result this way lets `advance` be the last statement, and commits only what was
applied by it: not what is fenced, and not what `again` says was applied before.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.races.sessions import Session, Task, activity, command

TABLE = "create table if not exists public.bookings (what text)"


@pytest.fixture(autouse=True)
def bookings(a: Session) -> None:
    """Have an empty table of the user's."""
    a.run(TABLE)
    a.run("delete from bookings")


def book(session: Session, task: Task, what: str = "tea") -> bool:
    """Write a row, and record that; tell whether it may be committed."""
    session.run("insert into bookings values (%s)", what)
    answer = session.advance(task.keep(activity("book#1", what)), waiting=True)
    return answer.state == "keep" and not answer.again


def booked(session: Session) -> tuple[int, int]:
    """Count the rows, and the facts that tell of them."""
    return session.one("select count(*) from bookings"), session.one(
        "select count(*) from journal where key = 'book#1'"
    )


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_rows_and_fact_are_there_both_or_neither(a: Session, b: Session, end: str) -> None:
    """[P4] (E8)"""
    task = a.held("j")
    with a.open(end):
        assert book(a, task)
        assert booked(b) == (0, 0)
    assert booked(b) == ((1, 1) if end == "commit" else (0, 0))
    assert a.advance(task.told(1 if end == "commit" else 0).done()).state == "done"


@pytest.mark.parametrize("waiting", [False, True], ids=["after", "during"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_whose_reply_was_lost_asks_again(a: Session, b: Session, end: str, waiting: bool) -> None:
    """[P12]: the answer waits for the end of the transaction that is in doubt."""
    task = a.held("j")
    a.begin()
    assert book(a, task)
    if waiting:
        asking = b.later(b.advance, task.keep())
        assert asking.waits()
        a.end(end)
        answer = asking.get()
    else:
        a.end(end)
        answer = b.advance(task.keep())
    assert (answer.state, answer.again) == ("keep", end == "commit")


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_whole_repetition_may_be_committed_only_if_the_first_was_not(
    a: Session, b: Session, end: str
) -> None:
    """[P12] [P2]: whoever does it all again is told that it was done."""
    task = a.held("j")
    a.begin()
    assert book(a, task)
    b.begin()
    repeating = b.later(book, b, task)
    assert repeating.waits()
    a.end(end)
    may_commit = repeating.get()
    b.end("commit" if may_commit else "rollback")
    assert may_commit == (end == "rollback")
    assert booked(b) == (1, 1)


ENDS: dict[str, Callable[[Session, Task], object]] = {
    "stolen": lambda b, task: b.stolen(task),
    "terminated": lambda b, task: b.call("terminate", id="j"),
}


@pytest.mark.parametrize("fate", ENDS)
def test_a_zombie_may_not_commit(a: Session, b: Session, fate: str) -> None:
    """[P6]: the task was lost while the rows were written."""
    task = a.held("j")
    a.begin()
    a.run("insert into bookings values ('late')")
    ENDS[fate](b, task)
    answer = a.advance(task.keep(activity("book#1", "late")), waiting=True)
    assert answer.state == ("fenced" if fate == "stolen" else "gone")
    a.rollback()
    assert booked(b) == (0, 0)


def test_a_repeated_park_says_so(a: Session) -> None:
    """[P12]: in the words of another state, it was done before all the same."""
    task = a.held("j")
    assert not a.advance(task.park("go")).again
    assert a.advance(task.park("go")).again


def test_a_deadlock_between_rows_and_jobs_is_broken(a: Session, b: Session) -> None:
    """Who has rows and wants the job, against who has the job and wants the rows: one is told."""
    task = a.held("j")
    a.run("insert into bookings values ('x')")
    a.begin()
    b.begin()
    a.run("update bookings set what = 'a'")
    b.call("entity_set", id="j", value=1, path="n")
    deed = task.keep(command("set", "m", 1))
    telling = a.later(a.advance, deed, waiting=True)
    assert telling.waits()
    taking = b.later(b.run, "update bookings set what = 'b'")
    errors = [error for error in (telling.error(), taking.error()) if error is not None]
    assert [getattr(error, "sqlstate", None) for error in errors] == ["40P01"]
    a.rollback()
    b.rollback()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_old_snapshot_is_refused(a: Session, b: Session, level: str) -> None:
    """[P6]: what was done to the task since is not overlooked: 40001, and another snapshot."""
    task = a.held("j")
    a.run(f"begin isolation level {level}")
    a.run("select count(*) from bookings")
    assert b.extend(task) == ["held"]
    error = a.later(book, a, task).error()
    assert getattr(error, "sqlstate", None) == "40001"
    a.rollback()
    a.run(f"begin isolation level {level}")
    assert book(a, task)
    a.commit()
    assert booked(b) == (1, 1)


# What starts in the caller's transaction.


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_job_starts_with_the_row_that_it_is_about(a: Session, b: Session, end: str) -> None:
    """[P1] (E7): nobody claims it before, and nobody at all if there is no row."""
    with a.open(end):
        a.run("insert into bookings values ('tea')")
        a.start("j")
        a.signal("j", "go", 1)
        assert b.claim("j") == []
    claimed = b.claim("j")
    assert len(claimed) == (1 if end == "commit" else 0)
    assert a.one("select count(*) from bookings") == len(claimed)
