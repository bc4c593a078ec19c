"""Workers register and unregister while others work, register or unregister too. [P11] [P12]"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.races.sessions import Session, Stage, together

ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])


def register(session: Session, worker: str = "w", *functions: str) -> Any:
    """Register a worker of the queue `q`."""
    return session.call("register_worker", worker=worker, queues=["q"], functions=list(functions))


def release_without_code(session: Session, job: str) -> None:
    """Start a job whose task waits for a worker that has its code."""
    task = session.held(job, queue="q")
    failure = {"code": "PD406", "message": "no such workflow"}
    turn = task.turn("release", until="2100-01-01T00:00:00Z", value=failure)
    assert session.advance(turn).state == "released"
    session.run("update tasks set due_at = clock() + '50 s' where job_id = %s", job)


@ENDS
def test_two_concurrent_registrations_of_worker_make_one_row(
    a: Session, b: Session, end: str
) -> None:
    """[P12] The second waits for the first, and its functions and time are recorded."""
    a.begin()
    register(a)
    again = b.later(register, b, "w", "coordinator w")
    assert again.waits()
    waited = a.one("select clock()")
    a.end(end)
    again.get()
    assert a.run("select worker, functions from workers") == [("w", ["coordinator w"])]
    assert a.one("select seen_at > %s from workers", waited)


@ENDS
def test_registration_that_waits_for_a_known_worker_is_seen_after_the_wait(
    a: Session, b: Session, end: str
) -> None:
    """[P11] The clock is read under the lock of its row."""
    register(a)
    a.begin()
    a.run("select from workers for no key update")
    again = b.later(register, b)
    assert again.waits()
    waited = a.one("select clock()")
    a.end(end)
    again.get()
    assert a.one("select seen_at > %s from workers", waited)


@ENDS
def test_registering_skips_locked_task_that_waits_for_its_code(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P11] It wakes the others; the locked task is about to move, or becomes due by itself."""
    release_without_code(a, "i")
    release_without_code(a, "j")
    with a.open(end):
        a.call("terminate", id="i")
        assert not b.later(register, b, "w", "coordinator w").waits()
    assert [task.job for task in c.claim("q")] == ["j"]
    register(b, "w", "coordinator w")
    assert [task.job for task in c.claim("q")] == ([] if end == "commit" else ["i"])


def start_stuck(session: Session, job: str) -> None:
    """Start a job that gets stuck at worker `old`, whose code does not fit."""
    session.start(job, queue="q")
    (task,) = session.claim("q", worker="old")
    assert session.advance(task.turn("stuck", value={"code": "PD201"})).state == "stuck"


def register_w(session: Session) -> None:
    """Register worker `w`."""
    register(session, "w")


def unregister_old(session: Session) -> None:
    """Unregister worker `old`."""
    session.call("forget_worker", worker="old")


@ENDS
@pytest.mark.parametrize("verb", ["terminate", "resume", "pause"])
@pytest.mark.parametrize("call", [register_w, unregister_old])
def test_registering_and_unregistering_skip_locked_stuck_task(
    a: Session, b: Session, c: Session, call: Callable[[Session], None], verb: str, end: str
) -> None:
    """[P9] They wake the other stuck tasks; the locked one is about to move or to be resumed."""
    register(c, "stays")
    if call is unregister_old:
        register(c, "old")
    start_stuck(c, "i")
    start_stuck(c, "j")
    with a.open(end):
        a.call(verb, id="i")
        assert not b.later(call, b).waits()
    woken = {"j", "i"} if (verb, end) == ("resume", "commit") else {"j"}
    assert {task.job for task in c.claim("q", max_tasks=10)} == woken


@ENDS
@pytest.mark.parametrize("call", [register_w, unregister_old])
def test_resume_waits_for_registration_that_wakes_task(
    a: Session, b: Session, c: Session, call: Callable[[Session], None], end: str
) -> None:
    """[P9] The task is resumed once, by the call that comes first."""
    register(c, "stays")
    if call is unregister_old:
        register(c, "old")
    start_stuck(c, "i")
    a.begin()
    call(a)
    resumed = b.later(b.call, "resume", id="i")
    assert resumed.waits()
    a.end(end)
    assert resumed.get() == (0 if end == "commit" else 1)
    assert [task.job for task in c.claim("q")] == ["i"]


@ENDS
@pytest.mark.parametrize("verbs", [(register_w, unregister_old), (unregister_old, register_w)])
def test_later_of_registration_and_unregistration_wakes_tasks(
    a: Session, b: Session, c: Session, verbs: tuple[Callable[[Session], None], ...], end: str
) -> None:
    """[P9] Only the later one sees that one worker has come and the other has gone.

    A woken task is due from the time of its waking, not from when the later call began to wait,
    since claims no longer look at that time.
    """
    first, second = verbs
    register(c, "old")
    start_stuck(c, "i")
    a.begin()
    first(a)
    later = b.later(second, b)
    assert later.waits()
    waited = a.one("select clock()")
    a.end(end)
    later.get()
    assert c.one("select due_at > %s from tasks", waited)
    assert [task.job for task in c.claim("q")] == (["i"] if end == "commit" else [])


@ENDS
def test_registering_skips_rows_of_lost_workers_that_others_delete(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P11] It skips them even if its own row is among those of lost workers."""
    for worker in ("lost", "a", "b"):
        register(c, worker)
        c.claim("q", worker=worker, idle=True)
    c.run("update workers set seen_at = '2000-01-01'")
    c.run("update listeners set since = '2000-01-01'")
    for locked in ("workers", "listeners"):
        with c.open(end):
            name = "worker" if locked == "workers" else "listener"
            c.run(f"delete from {locked} where {name} = 'lost'")
            assert not a.later(register, a, "a").waits()
            assert not b.later(register, b, "b").waits()
    register(c, "c")
    assert c.run("select worker from workers order by 1") == [("a",), ("b",), ("c",)]
    assert c.run("select listener from listeners") == []


def test_concurrent_registrations_wake_each_task_once(stage: Stage) -> None:
    """[P6] They do not deadlock, though all of them delete the lost workers."""
    a, *sessions = stage.sessions(5)
    for number in range(20):
        release_without_code(a, f"j{number:02}")
    for number in range(5):
        register(a, f"lost {number}")
    a.run("update workers set seen_at = '2000-01-01'")
    together(*(partial(register, s, s.name, "coordinator w") for s in sessions))

    taken = together(*(partial(s.claim, "q", max_tasks=10) for s in sessions))
    assert sorted(task.job for tasks in taken for task in tasks) == [f"j{n:02}" for n in range(20)]
    assert a.one("select count(*) from workers") == len(sessions)


def test_no_task_stays_stuck_while_workers_come_and_go(stage: Stage) -> None:
    """[P8] [P9] They do not deadlock, and the last worker that registers gets all tasks."""
    a, *sessions = stage.sessions(5)
    for number in range(5):
        a.start(f"j{number}", queue="q")

    def register_and_unregister(session: Session) -> None:
        for number in range(20):
            worker = f"{session.name} {number % 2}"
            register(session, worker)
            for task in session.claim("q", worker=worker, max_tasks=3):
                session.advance(task.turn("stuck", value={"code": "PD201"}))
            session.call("forget_worker", worker=worker)

    together(*(partial(register_and_unregister, session) for session in sessions))
    register(a, "last")
    assert sorted(task.job for task in a.claim("q")) == [f"j{number}" for number in range(5)]
