"""Workers say hello and goodbye while others work, and while others say it, too. [P11] [P12]"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.races.sessions import Session, Stage, together

ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])


def hello(session: Session, worker: str = "w", *functions: str) -> Any:
    """Register a worker of the queue `q`."""
    return session.call("register_worker", worker=worker, queues=["q"], functions=list(functions))


def put_aside(session: Session, job: str) -> None:
    """Start a job whose task nobody has the code for."""
    task = session.held(job, queue="q")
    failure = {"code": "PD406", "message": "no such workflow"}
    turn = task.turn("release", until="2100-01-01T00:00:00Z", value=failure)
    assert session.advance(turn).state == "released"
    session.run("update tasks set due_at = clock() + '50 s' where job_id = %s", job)


@ENDS
def test_a_worker_says_hello_twice(a: Session, b: Session, end: str) -> None:
    """[P12]: the second call waits for the first, and there is one worker."""
    a.begin()
    hello(a)
    again = b.later(hello, b, "w", "coordinator w")
    assert again.waits()
    a.end(end)
    again.get()
    assert a.run("select worker, functions from workers") == [("w", ["coordinator w"])]


@ENDS
def test_a_hello_waits_for_nobody_who_has_a_task_that_was_put_aside(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P11]: it wakes the others; what is locked is about to move, or comes by itself."""
    put_aside(a, "i")
    put_aside(a, "j")
    with a.open(end):
        a.call("terminate", id="i")
        assert not b.later(hello, b, "w", "coordinator w").waits()
    assert [task.job for task in c.claim("q")] == ["j"]
    hello(b, "w", "coordinator w")
    assert [task.job for task in c.claim("q")] == ([] if end == "commit" else ["i"])


def get_stuck(session: Session, job: str) -> None:
    """Start a job that a worker `old` takes, whose code does not fit."""
    session.start(job, queue="q")
    (task,) = session.claim("q", worker="old")
    assert session.advance(task.turn("stuck", value={"code": "PD201"})).state == "stuck"


def say_hello(session: Session) -> None:
    hello(session, "w")


def say_goodbye(session: Session) -> None:
    session.call("forget_worker", worker="old")


@ENDS
@pytest.mark.parametrize("verb", ["terminate", "resume", "pause"])
@pytest.mark.parametrize("speak", [say_hello, say_goodbye])
def test_who_wakes_what_is_stuck_waits_for_nobody_who_has_it(
    a: Session, b: Session, c: Session, speak: Callable[[Session], None], verb: str, end: str
) -> None:
    """[P9]: it wakes the others; what is locked is about to move, or its owner resumes it."""
    hello(c, "stays")
    if speak is say_goodbye:
        hello(c, "old")
    get_stuck(c, "i")
    get_stuck(c, "j")
    with a.open(end):
        a.call(verb, id="i")
        assert not b.later(speak, b).waits()
    woken = {"j", "i"} if (verb, end) == ("resume", "commit") else {"j"}
    assert {task.job for task in c.claim("q", max_tasks=10)} == woken


@ENDS
@pytest.mark.parametrize("speak", [say_hello, say_goodbye])
def test_who_has_what_is_woken_waits_for_him_who_wakes_it(
    a: Session, b: Session, c: Session, speak: Callable[[Session], None], end: str
) -> None:
    """[P9] The other order: a task is resumed once, by whoever comes first."""
    hello(c, "stays")
    if speak is say_goodbye:
        hello(c, "old")
    get_stuck(c, "i")
    a.begin()
    speak(a)
    resumed = b.later(b.call, "resume", id="i")
    assert resumed.waits()
    a.end(end)
    assert resumed.get() == (0 if end == "commit" else 1)
    assert [task.job for task in c.claim("q")] == ["i"]


@ENDS
@pytest.mark.parametrize("verbs", [(say_hello, say_goodbye), (say_goodbye, say_hello)])
def test_of_a_hello_and_a_goodbye_the_later_one_wakes_what_is_stuck(
    a: Session, b: Session, c: Session, verbs: tuple[Callable[[Session], None], ...], end: str
) -> None:
    """[P9]: it sees that one has come, and the other gone; else nobody would try it. The task is
    due when it is woken, not when the later one began to wait: claims look no longer there."""
    first, second = verbs
    hello(c, "old")
    get_stuck(c, "i")
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
def test_a_hello_waits_for_nobody_who_forgets_the_lost_ones(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P11]: what another hello is about to forget is passed by, also where it is one's own row."""
    for worker in ("lost", "a", "b"):
        hello(c, worker)
        c.claim("q", worker=worker, idle=True)
    c.run("update workers set seen_at = '2000-01-01'")
    c.run("update listeners set since = '2000-01-01'")
    for locked in ("workers", "listeners"):
        with c.open(end):
            name = "worker" if locked == "workers" else "listener"
            c.run(f"delete from {locked} where {name} = 'lost'")
            assert not a.later(hello, a, "a").waits()
            assert not b.later(hello, b, "b").waits()
    hello(c, "c")
    assert c.run("select worker from workers order by 1") == [("a",), ("b",), ("c",)]
    assert c.run("select listener from listeners") == []


def test_many_say_hello_at_once_and_each_task_is_woken_once(stage: Stage) -> None:
    """[P6]: none of them waits for another in a circle, though all forget the lost ones."""
    a, *sessions = stage.sessions(5)
    for number in range(20):
        put_aside(a, f"j{number:02}")
    for number in range(5):
        hello(a, f"lost {number}")
    a.run("update workers set seen_at = '2000-01-01'")
    together(*(partial(hello, s, s.name, "coordinator w") for s in sessions))

    taken = together(*(partial(s.claim, "q", max_tasks=10) for s in sessions))
    assert sorted(task.job for tasks in taken for task in tasks) == [f"j{n:02}" for n in range(20)]
    assert a.one("select count(*) from workers") == len(sessions)


def test_many_come_and_go_and_nothing_stays_stuck(stage: Stage) -> None:
    """[P8] [P9]: none of them waits for another in a circle, and the last who comes tries all."""
    a, *sessions = stage.sessions(5)
    for number in range(5):
        a.start(f"j{number}", queue="q")

    def come_and_go(session: Session) -> None:
        for number in range(20):
            worker = f"{session.name} {number % 2}"
            hello(session, worker)
            for task in session.claim("q", worker=worker, max_tasks=3):
                session.advance(task.turn("stuck", value={"code": "PD201"}))
            session.call("forget_worker", worker=worker)

    together(*(partial(come_and_go, session) for session in sessions))
    hello(a, "last")
    assert sorted(task.job for task in a.claim("q")) == [f"j{number}" for number in range(5)]
