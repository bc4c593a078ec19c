"""Workers without a journal end activities while others act on the same job. [P4] [P6] [P12]"""

from __future__ import annotations

import psycopg
import pytest

from tests.races.sessions import Session, Task

ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])
ACTIVITY = {"key": "x#1", "kind": "activity", "name": "x", "queue": "far"}


def request_activity(session: Session, worker: Session) -> tuple[Task, Task]:
    """Let a held coordinator request an activity, which another worker claims."""
    main = session.held("j")
    session.advance(main.keep(requests=[ACTIVITY]))
    return main, worker.claim_one("far")


def finish(session: Session, task: Task, value: object = 1) -> str:
    """End a task with a value; give its state, or the code of the error."""
    try:
        return str(session.call("finish_task", **task.lease, value=value))
    except psycopg.Error as error:
        return str(error.sqlstate)


def fail(session: Session, task: Task, retry_at: str | None = None) -> str:
    """Report a failed attempt; give the state, or the code of the error."""
    try:
        return str(session.call("fail_task", **task.lease, retry_at=retry_at))
    except psycopg.Error as error:
        return str(error.sqlstate)


@ENDS
def test_result_that_waits_for_open_park_reaches_task(a: Session, b: Session, end: str) -> None:
    """[P5] It wakes the parked task; if the park is rolled back, the next park finds it."""
    main, task = request_activity(a, b)
    a.begin()
    assert a.advance(main.park()).state == "parked"
    ending = b.later(finish, b, task)
    assert ending.waits()
    a.end(end)
    assert ending.get() == "done"

    if end == "commit":
        assert a.claim_one("j").messages == [1]
    else:
        assert a.advance(main.park()).payloads == [1]


@ENDS
def test_park_is_busy_while_result_is_uncommitted(a: Session, b: Session, end: str) -> None:
    """[P5] A batch never waits."""
    main, task = request_activity(a, b)
    b.begin()
    assert finish(b, task) == "done"
    assert a.advance(main.park()).state == "busy"
    b.end(end)

    assert a.advance(main.park()).payloads == ([1] if end == "commit" else [])
    if end == "rollback":
        assert finish(b, task) == "done"


@ENDS
def test_result_of_worker_whose_task_was_claimed_again_is_refused(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P4] [P6] The lease ended while it was working; the result of the new holder is recorded."""
    _, task = request_activity(a, b)
    a.expire(task)
    c.begin()
    (again,) = c.claim("far")
    ending = b.later(finish, b, task, "late")
    assert ending.waits()
    c.end(end)

    if end == "rollback":
        assert ending.get() == "done"
        return
    assert ending.get() == "PD001"
    assert fail(b, task) == fail(b, task, "2100-01-01") == "PD001"
    assert finish(c, again, "second") == "done"
    assert finish(b, task, "late") == "gone"
    assert a.run("select payload from inbox") == [("second",)]


@ENDS
def test_claim_skips_task_that_is_just_ending(a: Session, b: Session, c: Session, end: str) -> None:
    """[P6] It does not wait; after a rollback the task is due as before."""
    _, task = request_activity(a, b)
    a.expire(task)
    b.begin()
    assert finish(b, task) == "done"
    assert c.claim("far") == []
    b.end(end)

    assert len(c.claim("far")) == (1 if end == "rollback" else 0)


@ENDS
@pytest.mark.parametrize("how", ["finish", "fail"])
def test_result_or_failure_that_waited_for_terminate_is_gone(
    a: Session, b: Session, how: str, end: str
) -> None:
    """[P6] [P8] It waits for the terminate, and counts only if that is rolled back."""
    _, task = request_activity(a, b)
    a.begin()
    a.call("terminate", id="j")
    ending = b.later({"finish": finish, "fail": fail}[how], b, task)
    assert ending.waits()
    a.end(end)

    usual = {"finish": "done", "fail": "failed"}[how]
    assert ending.get() == ("gone" if end == "commit" else usual)


@ENDS
def test_failed_attempt_is_not_retried_after_cancel(a: Session, b: Session, end: str) -> None:
    """(E2) The failure waits for the open cancel."""
    main, task = request_activity(a, b)
    a.begin()
    a.advance(main.keep(cancels=["x#1"]))
    failing = b.later(fail, b, task, "2100-01-01")
    assert failing.waits()
    a.end(end)

    assert failing.get() == ("cancelled" if end == "commit" else "retry")


@pytest.mark.parametrize("how", ["finish", "fail", "retry"])
def test_repeated_call_of_worker_without_journal_changes_nothing(
    a: Session, b: Session, how: str
) -> None:
    """[P12] The reply to the first call was lost."""
    _, task = request_activity(a, b)
    calls = {
        "finish": lambda: finish(b, task),
        "fail": lambda: fail(b, task),
        "retry": lambda: fail(b, task, "2100-01-01"),
    }
    first = calls[how]()
    everything = a.everything()

    assert calls[how]() == ("retry" if how == "retry" else "gone")

    assert first == {"finish": "done", "fail": "failed", "retry": "retry"}[how]
    assert a.everything() == everything


@ENDS
def test_heartbeat_is_busy_while_end_of_its_task_is_uncommitted(
    a: Session, b: Session, end: str
) -> None:
    """It does not wait, and its progress is recorded with the next heartbeat."""
    _, task = request_activity(a, b)
    b.begin()
    assert finish(b, task) == "done"
    heartbeat = {**task.lease, "progress": {"n": 1}}
    assert [lease["state"] for lease in a.call("extend", tasks=[heartbeat])] == ["busy"]
    b.end(end)

    state = "lost" if end == "commit" else "held"
    assert [lease["state"] for lease in a.call("extend", tasks=[heartbeat])] == [state]
    assert a.run("select progress from tasks where kind = 'activity'") == (
        [] if end == "commit" else [({"n": 1},)]
    )


@pytest.mark.direct("it listens")
def test_idle_worker_gets_hint_for_next_attempt(a: Session, b: Session) -> None:
    """[P11] The attempt is due at once."""
    _, task = request_activity(a, b)
    a.run(f'listen "{a.call("channel")}"')
    a.call("listen_for", topic="far", listener="idle")
    assert fail(b, task, "2000-01-01") == "retry"

    hints = [notice.payload for notice in a.connection.notifies(timeout=5, stop_after=1)]
    a.run("unlisten *")
    assert hints == ["far"]


@ENDS
def test_await_result_returns_when_job_has_ended(a: Session, b: Session, end: str) -> None:
    """[P10] It sees an end that commits after it began to wait."""
    main = a.held("j")
    a.begin()
    waiting = b.later(
        b.call, "await_result", id="j", timeout="1 s" if end == "rollback" else "30 s"
    )
    assert a.advance(main.turn("done", value=1)).state == "done"
    a.end(end)
    assert waiting.get() == ("completed" if end == "commit" else "running")


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_await_result_with_fixed_snapshot_does_not_wait(
    a: Session, b: Session, isolation: str
) -> None:
    """[P10] It could not see a later end, however long it waited."""
    main = a.held("j")
    b.run(f"begin isolation level {isolation}")
    assert b.run("select status from jobs") == [("running",)]
    assert a.advance(main.turn("done", value=1)).state == "done"
    assert b.later(b.call, "await_result", id="j", timeout="60 s").get() == "running"
    b.commit()
    b.run(f"begin isolation level {isolation}")
    assert b.call("await_result", id="j", timeout="60 s") == "completed"
    b.commit()


def advisory_locks(session: Session) -> list[str]:
    """Give the modes of all advisory locks, which stand for the ends of jobs."""
    locks = session.run("select mode from pg_locks where locktype = 'advisory'")
    return [mode for (mode,) in locks]


@ENDS
def test_await_result_waits_for_commit_of_end_not_for_its_poll(
    a: Session, b: Session, end: str
) -> None:
    """[P10] After a rollback it waits no longer than its timeout."""
    main = a.held("j")
    a.begin()
    assert a.advance(main.turn("done", value=1)).state == "done"
    assert advisory_locks(a) == ["ExclusiveLock"]

    coming = b.later(b.call, "await_result", id="j", timeout="500 ms")
    assert coming.waits()
    a.end(end)
    assert coming.get() == ("completed" if end == "commit" else "running")
    assert advisory_locks(a) == []


def test_end_of_job_does_not_wait_for_await_result(a: Session, b: Session) -> None:
    """[P10] Neither the call nor a shared lock of its transaction delays the turn."""
    main = a.held("j")
    b.begin()
    assert b.call("await_result", id="j", timeout="20 ms") == "running"
    assert advisory_locks(b) == []

    b.run("select pg_advisory_xact_lock_shared(end_lock_key('j'))")
    ending = a.later(a.advance, main.turn("done", value=1))
    assert not ending.waits()
    assert ending.get().state == "done"
    b.rollback()


def test_await_result_does_not_wait_for_turn_that_waits_for_it(a: Session, b: Session) -> None:
    """[P10] (T16) The server would report a deadlock."""
    main = a.held("j")
    b.begin()
    b.call("entity_set", id="j", value=1, path="n")
    ending = a.later(a.advance, main.turn("done", value=1), waiting=True)
    assert ending.waits()

    # Long enough for the server to detect a deadlock.
    assert b.call("await_result", id="j", timeout="2 s") == "running"
    b.commit()
    assert ending.get().state == "done"


def test_batch_that_ends_many_jobs_takes_no_advisory_locks(a: Session) -> None:
    """[P12] The server has room only for a limited number of locks."""
    turns = [a.held(f"j{n}").turn("done", value=n) for n in range(5)]
    a.begin()
    assert a.advance_all(turns).states == ["done"] * 5
    assert advisory_locks(a) == []
    a.commit()
