"""A turn in a transaction of the holder: its rows and its facts commit together or not at all.

The caller makes `advance` the last statement, and commits only if that applied the turn: not if the
task is fenced, and not if `again` says that the turn was applied before.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.races.sessions import Session, Task, activity, command

TABLE = "create table if not exists public.bookings (what text)"


@pytest.fixture(autouse=True)
def bookings(a: Session) -> None:
    """Give an empty table of the user."""
    a.run(TABLE)
    a.run("delete from bookings")


def book(session: Session, task: Task, name: str = "tea") -> bool:
    """Insert a row and record it; tell whether the transaction may be committed."""
    session.run("insert into bookings values (%s)", name)
    answer = session.advance(task.keep(activity("book#1", name)), waiting=True)
    return answer.state == "keep" and not answer.again


def booked(session: Session) -> tuple[int, int]:
    """Count the rows and the facts that record them."""
    return session.one("select count(*) from bookings"), session.one(
        "select count(*) from journal where key = 'book#1'"
    )


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_rows_and_facts_of_transaction_commit_together(a: Session, b: Session, end: str) -> None:
    """[P4] (E8) Neither is visible before the commit."""
    task = a.held("j")
    with a.open(end):
        assert book(a, task)
        assert booked(b) == (0, 0)
    assert booked(b) == ((1, 1) if end == "commit" else (0, 0))
    assert a.advance(task.told(1 if end == "commit" else 0).done()).state == "done"


@pytest.mark.parametrize("waiting", [False, True], ids=["after", "during"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_holder_whose_commit_is_in_doubt_can_ask_whether_it_was_applied(
    a: Session, b: Session, end: str, waiting: bool
) -> None:
    """[P12] An empty turn at the same position waits, and answers `again` if it was."""
    task = a.held("j")
    a.begin()
    assert book(a, task)
    if waiting:
        repeating = b.later(b.advance, task.keep())
        assert repeating.waits()
        a.end(end)
        answer = repeating.get()
    else:
        a.end(end)
        answer = b.advance(task.keep())
    assert (answer.state, answer.again) == ("keep", end == "commit")


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_repeated_transaction_commits_only_if_first_did_not(
    a: Session, b: Session, end: str
) -> None:
    """[P12] [P2] A repetition waits, and `again` says that the first one has committed."""
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
def test_worker_that_lost_its_task_may_not_commit(a: Session, b: Session, fate: str) -> None:
    """[P6] Another worker claimed the task, or a client terminated the job, in the meantime."""
    task = a.held("j")
    a.begin()
    a.run("insert into bookings values ('late')")
    ENDS[fate](b, task)
    answer = a.advance(task.keep(activity("book#1", "late")), waiting=True)
    assert answer.state == ("fenced" if fate == "stolen" else "gone")
    a.rollback()
    assert booked(b) == (0, 0)


def test_repeated_park_answers_again(a: Session) -> None:
    """[P12] Although the state of the task has changed since."""
    task = a.held("j")
    assert not a.advance(task.park("go")).again
    assert a.advance(task.park("go")).again


def test_deadlock_between_rows_and_job_ends_one_transaction(a: Session, b: Session) -> None:
    """One transaction has rows and wants the job, the other has the job and wants the rows."""
    task = a.held("j")
    a.run("insert into bookings values ('x')")
    a.begin()
    b.begin()
    a.run("update bookings set what = 'a'")
    b.call("entity_set", id="j", value=1, path="n")
    turn = task.keep(command("set", "m", 1))
    advancing = a.later(a.advance, turn, waiting=True)
    assert advancing.waits()
    updating = b.later(b.run, "update bookings set what = 'b'")
    errors = [error for error in (advancing.error(), updating.error()) if error is not None]
    assert [getattr(error, "sqlstate", None) for error in errors] == ["40P01"]
    a.rollback()
    b.rollback()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_turn_with_old_snapshot_gets_serialization_failure(
    a: Session, b: Session, level: str
) -> None:
    """[P6] It would not see a heartbeat since; a new transaction succeeds."""
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


# Starts in the caller's transaction


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_job_starts_with_rows_of_its_transaction(a: Session, b: Session, end: str) -> None:
    """[P1] (E7) No worker can claim it before the commit, or ever after a rollback."""
    with a.open(end):
        a.run("insert into bookings values ('tea')")
        a.start("j")
        a.signal("j", "go", 1)
        assert b.claim("j") == []
    claimed = b.claim("j")
    assert len(claimed) == (1 if end == "commit" else 0)
    assert a.one("select count(*) from bookings") == len(claimed)
