"""A job is moved to another version of the code while workers of the old one are at it. [P6] [P8]

Whoever comes first, `repin()` or the other, with its transaction open until it commits or rolls
back: no code of the old version has an effect afterwards, and what it asked for moves along.
"""

from __future__ import annotations

import random
import time

import pytest

from tests.races.sessions import (
    PATIENCE,
    Session,
    Stage,
    Task,
    activity,
    chances,
    child,
    command,
    hook,
    take,
    together,
)

ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])


def pinned(a: Session, job: str = "j", version: str = "1") -> None:
    """Start a job of a version, on a queue of its own name."""
    a.start(job, pinned_version=version)


def places(a: Session, job: str = "j") -> dict[str, str]:
    """Tell on which queue each task of a job stands."""
    return dict(a.run("select task, queue from tasks where job_id = %s order by task", job))


@ENDS
def test_a_claim_passes_over_what_is_just_moved(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P6]: neither version waits, and afterwards one of them gets it."""
    pinned(a)
    with a.open(end):
        assert a.call("repin", id="j", version="2") == 1
        assert b.claim("j@1") == c.claim("j@2") == []
    assert len(b.claim("j@1")) == (end == "rollback")
    assert len(c.claim("j@2")) == (end == "commit")


@ENDS
def test_a_move_waits_for_a_claim_and_fences_it(a: Session, b: Session, end: str) -> None:
    """[P6]: what an open transaction has just claimed is moved once that has ended."""
    pinned(a)
    a.begin()
    mine = a.claim_one("j@1")
    moving = b.later(b.call, "repin", id="j", version="2")
    assert moving.waits()
    a.end(end)
    assert moving.get() == 1
    assert a.advance(mine.keep(command("set", "n", 1))).state == "fenced"
    assert len(b.claim("j@2")) == 1


@ENDS
def test_what_the_old_version_asks_for_meanwhile_moves_along(
    a: Session, b: Session, end: str
) -> None:
    """[P8]: a turn that came first is followed; its hook is not left to a version that has gone."""
    pinned(a)
    mine = a.claim_one("j@1")
    a.begin()
    turn = mine.keep(requests=[hook("h#1", "j", pinned_version="1")])
    assert a.advance(turn).state == "keep"
    moving = b.later(b.call, "repin", id="j", version="2")
    assert moving.waits()
    a.end(end)
    moved = {"1/main": "j@2", "1/main/h#1": "j@2"}
    if end == "rollback":
        del moved["1/main/h#1"]
    assert moving.get() == len(moved)
    assert places(a) == moved


@ENDS
@pytest.mark.parametrize("waiting", [False, True], ids=["busy", "waiting"])
def test_a_turn_of_the_old_version_comes_too_late(
    a: Session, b: Session, end: str, waiting: bool
) -> None:
    """[P6]: its command, its hook and its end have no effect after the move."""
    pinned(a)
    mine = a.claim_one("j@1")
    turn = mine.done(None, command("set", "n", 1), requests=[hook("h#1", pinned_version="1")])
    b.begin()
    assert b.call("repin", id="j", version="2") == 1
    if waiting:
        telling = a.later(a.advance, turn, waiting=True)
        assert telling.waits()
        b.end(end)
        state = telling.get().state
    else:
        assert a.advance(turn).state == "busy"
        b.end(end)
        state = a.advance(turn).state
    assert state == ("fenced" if end == "commit" else "done")
    assert a.memory("j") == (({}, 0) if end == "commit" else ({"n": 1}, 1))
    assert places(a) == ({"1/main": "j@2"} if end == "commit" else {})


@ENDS
def test_facts_that_touch_no_job_wait_for_the_task_and_are_fenced(
    a: Session, b: Session, end: str
) -> None:
    """[P6]: a flush of facts alone takes no lock of the job; that of its task is enough."""
    pinned(a)
    mine = a.claim_one("j@1")
    b.begin()
    b.call("repin", id="j", version="2")
    telling = a.later(a.advance, mine.keep(activity("a#1", 1)))
    assert telling.waits()
    b.end(end)
    assert telling.get().state == ("fenced" if end == "commit" else "keep")
    assert a.one("select count(*) from journal") == (end == "rollback")


@ENDS
def test_a_signal_and_a_move_wait_for_each_other(a: Session, b: Session, end: str) -> None:
    """[P5]: what was parked is woken in its new place, whoever came first."""
    pinned(a)
    assert a.advance(a.claim_one("j@1").park("go")).state == "parked"
    b.begin()
    assert b.call("repin", id="j", version="2") == 1
    sending = a.later(a.signal, "j", "go", 7)
    assert sending.waits()
    b.end(end)
    assert sending.get()
    (task,) = a.claim("j@2" if end == "commit" else "j@1")
    assert task.messages == [7]


def test_two_moves_come_one_after_the_other(a: Session, b: Session) -> None:
    """The second sees what the first has done."""
    pinned(a)
    a.begin()
    assert a.call("repin", id="j", version="2") == 1
    moving = b.later(b.call, "repin", id="j", version="3")
    assert moving.waits()
    a.commit()
    assert moving.get() == 1
    assert places(a) == {"1/main": "j@3"}


def test_a_repeated_move_harms_nobody(a: Session, b: Session) -> None:
    """[P12]: after a lost reply the call is made again; who has claimed meanwhile goes on."""
    pinned(a)
    assert a.call("repin", id="j", version="2") == 1
    task = b.claim_one("j@2")
    assert a.call("repin", id="j", version="2") == 0
    assert b.advance(task.done(1)).state == "done"


@pytest.mark.direct("it listens")
def test_who_is_idle_in_a_version_is_told(a: Session, b: Session) -> None:
    """[P11]: of a start, of what a pinned task asks for, and of a move; others are not."""
    b.run(f'listen "{b.one("select channel()")}"')
    queues = ["j@1", "j@2", "hooks@1", "children@1", "children"]
    a.call("claim", queues=queues, worker="ear", idle=True)

    def heard() -> list[str]:
        return sorted({notice.payload for notice in b.connection.notifies(timeout=0.2)})

    pinned(a)
    assert heard() == ["j@1"]
    asked = [hook("h#1", pinned_version="1"), child("c#1", pinned_version="1")]
    a.advance(a.claim_one("j@1").park(requests=asked))
    assert heard() == ["children@1", "hooks@1"]
    a.start("k", queue="j", pinned_version="3")
    assert heard() == []
    a.call("repin", id="j", version="2")
    assert "j@2" in heard()


@pytest.mark.parametrize("chance", chances(6))
def test_moves_at_random_lose_nothing(stage: Stage, a: Session, chance: random.Random) -> None:
    """[P6] [P8]: jobs are moved to and fro while workers of both versions run them to their end."""
    jobs = [f"j{number}" for number in range(6)]
    for job in jobs:
        a.start(job, queue="q", pinned_version="1")
    mover, *workers = stage.sessions(3)
    moves = [(chance.choice(jobs), chance.choice(["1", "2"])) for _ in range(60)]

    def move() -> int:
        for job, version in moves:
            mover.call("repin", id=job, version=version)
        for job in jobs:
            mover.call("repin", id=job, version="2")
        return 0

    def work(session: Session, version: str) -> int:
        ended = 0
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and session.run("select 1 from jobs where status = 'running'"):
            for task in session.claim(f"q@{version}", max_tasks=2):
                ended += run_on(session, task, version) == "done"
        return ended

    ended = together(
        move, lambda: work(workers[0], "1"), lambda: work(workers[1], "2"), patience=PATIENCE
    )

    assert sum(ended) == 2 * len(jobs)
    assert a.one("select count(*) from jobs where status = 'completed'") == len(jobs)


def run_on(session: Session, task: Task, version: str) -> str:
    """Ask for a hook, wait for it, and end; or end as the hook. Give what became of the task."""
    mail = task.row["messages"]
    if mail or task.task != "1/main":
        turn = task.done(1, *map(take, mail))
    else:
        turn = task.park(requests=[hook("h#1", "q", pinned_version=version)])
    while (answer := session.advance(turn, waiting=True)).state in {"busy", "keep"}:
        if answer.state == "keep":
            turn = task.done(1, *map(take, answer.messages))
    assert answer.state in {"done", "parked", "fenced", "gone"}
    return answer.state
