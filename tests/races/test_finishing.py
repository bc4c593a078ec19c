"""Workers without a journal end activities while others act on the same job. [P4] [P6] [P12]"""

from __future__ import annotations

import psycopg
import pytest

from tests.races.sessions import Session, Task

ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])
ACTIVITY = {"key": "x#1", "kind": "activity", "name": "x", "queue": "far"}


def asked(session: Session, worker: Session) -> tuple[Task, Task]:
    """Let a coordinator, which is held, ask for an activity that another worker holds."""
    main = session.held("j")
    session.advance(main.keep(requests=[ACTIVITY]))
    return main, worker.claim_one("far")


def finish(session: Session, task: Task, value: object = 1) -> str:
    """End a task with a value; give the state, or the code of the refusal."""
    try:
        return str(session.call("finish_task", **task.lease, value=value))
    except psycopg.Error as error:
        return str(error.sqlstate)


def fail(session: Session, task: Task, retry_at: str | None = None) -> str:
    """Tell that an attempt has failed; give the state, or the code of the refusal."""
    try:
        return str(session.call("fail_task", **task.lease, retry_at=retry_at))
    except psycopg.Error as error:
        return str(error.sqlstate)


@ENDS
def test_a_park_and_the_end_at_once(a: Session, b: Session, end: str) -> None:
    """[P5]: the result is found by the park, or wakes who has parked."""
    main, task = asked(a, b)
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
def test_a_park_is_busy_while_a_result_is_open(a: Session, b: Session, end: str) -> None:
    """[P5]: the batch never waits."""
    main, task = asked(a, b)
    b.begin()
    assert finish(b, task) == "done"
    assert a.advance(main.park()).state == "busy"
    b.end(end)

    assert a.advance(main.park()).payloads == ([1] if end == "commit" else [])
    if end == "rollback":
        assert finish(b, task) == "done"


@ENDS
def test_of_two_holders_the_last_one_counts(a: Session, b: Session, c: Session, end: str) -> None:
    """[P4] [P6]: the lease ends and another takes the task while the first one is finishing."""
    _, task = asked(a, b)
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
    assert finish(c, again, "mine") == "done"
    assert finish(b, task, "late") == "gone"
    assert a.run("select payload from inbox") == [("mine",)]


@ENDS
def test_a_claim_passes_by_what_is_just_ending(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P6]: it does not wait; after a rollback the task is due as before."""
    _, task = asked(a, b)
    a.expire(task)
    b.begin()
    assert finish(b, task) == "done"
    assert c.claim("far") == []
    b.end(end)

    assert len(c.claim("far")) == (1 if end == "rollback" else 0)


@ENDS
@pytest.mark.parametrize("how", ["finish", "fail"])
def test_with_a_terminated_job_the_task_is_gone(a: Session, b: Session, how: str, end: str) -> None:
    """[P6] [P8]"""
    _, task = asked(a, b)
    a.begin()
    a.call("terminate", id="j")
    ending = b.later({"finish": finish, "fail": fail}[how], b, task)
    assert ending.waits()
    a.end(end)

    usual = {"finish": "done", "fail": "failed"}[how]
    assert ending.get() == ("gone" if end == "commit" else usual)


@ENDS
def test_a_cancel_that_comes_meanwhile_is_the_end(a: Session, b: Session, end: str) -> None:
    """(E2) An attempt that failed is not tried again when nobody waits for it."""
    main, task = asked(a, b)
    a.begin()
    a.advance(main.keep(cancels=["x#1"]))
    failing = b.later(fail, b, task, "2100-01-01")
    assert failing.waits()
    a.end(end)

    assert failing.get() == ("cancelled" if end == "commit" else "retry")


@pytest.mark.parametrize("how", ["finish", "fail", "retry"])
def test_a_call_whose_reply_was_lost_is_repeated(a: Session, b: Session, how: str) -> None:
    """[P12]"""
    _, task = asked(a, b)
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
def test_a_heartbeat_does_not_wait_for_an_open_end(a: Session, b: Session, end: str) -> None:
    """It says busy, and its progress is told with the next one."""
    _, task = asked(a, b)
    b.begin()
    assert finish(b, task) == "done"
    told = {**task.lease, "progress": {"n": 1}}
    assert [lease["state"] for lease in a.call("extend", tasks=[told])] == ["busy"]
    b.end(end)

    state = "lost" if end == "commit" else "held"
    assert [lease["state"] for lease in a.call("extend", tasks=[told])] == [state]
    assert a.run("select progress from tasks where kind = 'activity'") == (
        [] if end == "commit" else [({"n": 1},)]
    )


@pytest.mark.direct("it listens")
def test_an_idle_worker_hears_of_the_next_attempt(a: Session, b: Session) -> None:
    """[P11]"""
    _, task = asked(a, b)
    a.run(f'listen "{a.call("channel")}"')
    a.call("listen_for", topic="far", listener="idle")
    assert fail(b, task, "2000-01-01") == "retry"

    heard = [notice.payload for notice in a.connection.notifies(timeout=5, stop_after=1)]
    a.run("unlisten *")
    assert heard == ["far"]


@ENDS
def test_a_result_that_is_waited_for_is_seen_when_it_is_there(
    a: Session, b: Session, end: str
) -> None:
    """[P10]: by a call that began before the end, in a statement of its own."""
    main = a.held("j")
    a.begin()
    waiting = b.later(
        b.call, "await_result", id="j", timeout="1 s" if end == "rollback" else "30 s"
    )
    assert a.advance(main.turn("done", value=1)).state == "done"
    a.end(end)
    assert waiting.get() == ("completed" if end == "commit" else "running")


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_who_keeps_a_snapshot_is_answered_at_once(a: Session, b: Session, isolation: str) -> None:
    """[P10]: what ends later he could not see, however long he waited."""
    main = a.held("j")
    b.run(f"begin isolation level {isolation}")
    assert b.run("select status from jobs") == [("running",)]
    assert a.advance(main.turn("done", value=1)).state == "done"
    assert b.later(b.call, "await_result", id="j", timeout="60 s").get() == "running"
    b.commit()
    b.run(f"begin isolation level {isolation}")
    assert b.call("await_result", id="j", timeout="60 s") == "completed"
    b.commit()


def held_ends(session: Session) -> list[str]:
    """Tell how the ends of jobs are locked, by anybody."""
    locks = session.run("select mode from pg_locks where locktype = 'advisory'")
    return [mode for (mode,) in locks]


@ENDS
def test_who_looks_while_a_job_ends_waits_for_that(a: Session, b: Session, end: str) -> None:
    """[P10]: not for his next look; and he is not kept by what is undone."""
    main = a.held("j")
    a.begin()
    assert a.advance(main.turn("done", value=1)).state == "done"
    assert held_ends(a) == ["ExclusiveLock"]

    coming = b.later(b.call, "await_result", id="j", timeout="500 ms")
    assert coming.waits()
    a.end(end)
    assert coming.get() == ("completed" if end == "commit" else "running")
    assert held_ends(a) == []


def test_a_turn_waits_for_nobody_who_waits_for_its_end(a: Session, b: Session) -> None:
    """[P10]: neither for him, nor for what he holds."""
    main = a.held("j")
    b.begin()
    assert b.call("await_result", id="j", timeout="20 ms") == "running"
    assert held_ends(b) == []

    b.run("select pg_advisory_xact_lock_shared(end_lock_key('j'))")
    ending = a.later(a.advance, main.turn("done", value=1))
    assert not ending.waits()
    assert ending.get().state == "done"
    b.rollback()


def test_who_holds_what_a_turn_waits_for_does_not_wait_for_its_end(a: Session, b: Session) -> None:
    """[P10] (T16): the server would end one of the two."""
    main = a.held("j")
    b.begin()
    b.call("entity_set", id="j", value=1, path="n")
    ending = a.later(a.advance, main.turn("done", value=1), waiting=True)
    assert ending.waits()

    # The server looks for deadlocks after a second.
    assert b.call("await_result", id="j", timeout="2 s") == "running"
    b.commit()
    assert ending.get().state == "done"


def test_ends_of_many_are_not_locked(a: Session) -> None:
    """[P12]: the server has not room for any number of locks."""
    turns = [a.held(f"j{n}").turn("done", value=n) for n in range(5)]
    a.begin()
    assert a.advance_all(turns).states == ["done"] * 5
    assert held_ends(a) == []
    a.commit()
