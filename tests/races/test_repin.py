"""A job is moved to another version of the code while workers of the old one run it. [P6] [P8]

Either `repin()` or the other call comes first, with its transaction open until it commits or rolls
back. Afterwards code of the old version has no effect, and its requests are moved too.
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


def start_pinned(a: Session, job: str = "j", version: str = "1") -> None:
    """Start a job pinned to a version, on a queue of its own name."""
    a.start(job, pinned_version=version)


def queues_of_tasks(a: Session, job: str = "j") -> dict[str, str]:
    """Give the queue of each task of a job."""
    return dict(a.run("select task, queue from tasks where job_id = %s order by task", job))


@ENDS
def test_claim_skips_task_that_is_being_repinned(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P6] Workers of neither version wait, and afterwards those of one can claim it."""
    start_pinned(a)
    with a.open(end):
        assert a.call("repin", id="j", version="2") == 1
        assert b.claim("j@1") == c.claim("j@2") == []
    assert len(b.claim("j@1")) == (end == "rollback")
    assert len(c.claim("j@2")) == (end == "commit")


@ENDS
def test_repin_waits_for_open_claim_and_fences_its_holder(a: Session, b: Session, end: str) -> None:
    """[P6] The claimed task is moved as soon as the transaction of the claim has ended."""
    start_pinned(a)
    a.begin()
    held = a.claim_one("j@1")
    moving = b.later(b.call, "repin", id="j", version="2")
    assert moving.waits()
    a.end(end)
    assert moving.get() == 1
    assert a.advance(held.keep(command("set", "n", 1))).state == "fenced"
    assert len(b.claim("j@2")) == 1


@ENDS
def test_repin_that_waited_for_turn_moves_hook_it_requested(
    a: Session, b: Session, end: str
) -> None:
    """[P8] Otherwise the hook would wait for workers of the old version, which may be gone."""
    start_pinned(a)
    held = a.claim_one("j@1")
    a.begin()
    turn = held.keep(requests=[hook("h#1", "j", pinned_version="1")])
    assert a.advance(turn).state == "keep"
    moving = b.later(b.call, "repin", id="j", version="2")
    assert moving.waits()
    a.end(end)
    moved = {"1/main": "j@2", "1/main/h#1": "j@2"}
    if end == "rollback":
        del moved["1/main/h#1"]
    assert moving.get() == len(moved)
    assert queues_of_tasks(a) == moved


@ENDS
@pytest.mark.parametrize("waiting", [False, True], ids=["busy", "waiting"])
def test_turn_of_old_version_after_repin_is_fenced(
    a: Session, b: Session, end: str, waiting: bool
) -> None:
    """[P6] Its command, its hook and its end have no effect."""
    start_pinned(a)
    held = a.claim_one("j@1")
    turn = held.done(None, command("set", "n", 1), requests=[hook("h#1", pinned_version="1")])
    b.begin()
    assert b.call("repin", id="j", version="2") == 1
    if waiting:
        advancing = a.later(a.advance, turn, waiting=True)
        assert advancing.waits()
        b.end(end)
        state = advancing.get().state
    else:
        assert a.advance(turn).state == "busy"
        b.end(end)
        state = a.advance(turn).state
    assert state == ("fenced" if end == "commit" else "done")
    assert a.memory("j") == (({}, 0) if end == "commit" else ({"n": 1}, 1))
    assert queues_of_tasks(a) == ({"1/main": "j@2"} if end == "commit" else {})


@ENDS
def test_facts_of_old_version_after_repin_are_fenced(a: Session, b: Session, end: str) -> None:
    """[P6] A turn with facts alone takes no lock of the job; the lock of its task is enough."""
    start_pinned(a)
    held = a.claim_one("j@1")
    b.begin()
    b.call("repin", id="j", version="2")
    advancing = a.later(a.advance, held.keep(activity("a#1", 1)))
    assert advancing.waits()
    b.end(end)
    assert advancing.get().state == ("fenced" if end == "commit" else "keep")
    assert a.one("select count(*) from journal") == (end == "rollback")


@ENDS
def test_signal_that_waited_for_repin_wakes_task_on_its_new_queue(
    a: Session, b: Session, end: str
) -> None:
    """[P5] It waits for the repin."""
    start_pinned(a)
    assert a.advance(a.claim_one("j@1").park("go")).state == "parked"
    b.begin()
    assert b.call("repin", id="j", version="2") == 1
    sending = a.later(a.signal, "j", "go", 7)
    assert sending.waits()
    b.end(end)
    assert sending.get()
    (task,) = a.claim("j@2" if end == "commit" else "j@1")
    assert task.messages == [7]


def test_second_of_two_repins_waits_for_first(a: Session, b: Session) -> None:
    """It moves the task that the first has moved."""
    start_pinned(a)
    a.begin()
    assert a.call("repin", id="j", version="2") == 1
    moving = b.later(b.call, "repin", id="j", version="3")
    assert moving.waits()
    a.commit()
    assert moving.get() == 1
    assert queues_of_tasks(a) == {"1/main": "j@3"}


def test_repeated_repin_does_not_fence_new_holder(a: Session, b: Session) -> None:
    """[P12] The reply was lost, and a worker has claimed the task meanwhile."""
    start_pinned(a)
    assert a.call("repin", id="j", version="2") == 1
    task = b.claim_one("j@2")
    assert a.call("repin", id="j", version="2") == 0
    assert b.advance(task.done(1)).state == "done"


@pytest.mark.direct("it listens")
def test_idle_workers_of_version_get_hints_for_its_tasks(a: Session, b: Session) -> None:
    """[P11] For starts, requests of pinned tasks and repins; others get no hints."""
    b.run(f'listen "{b.one("select channel()")}"')
    queues = ["j@1", "j@2", "hooks@1", "children@1", "children"]
    a.call("claim", queues=queues, worker="idle", idle=True)

    def hints() -> list[str]:
        return sorted({notice.payload for notice in b.connection.notifies(timeout=0.2)})

    start_pinned(a)
    assert hints() == ["j@1"]
    asked = [hook("h#1", pinned_version="1"), child("c#1", pinned_version="1")]
    a.advance(a.claim_one("j@1").park(requests=asked))
    assert hints() == ["children@1", "hooks@1"]
    a.start("k", queue="j", pinned_version="3")
    assert hints() == []
    a.call("repin", id="j", version="2")
    assert "j@2" in hints()


@pytest.mark.parametrize("chance", chances(6))
def test_random_repins_lose_no_job(stage: Stage, a: Session, chance: random.Random) -> None:
    """[P6] [P8] Jobs are moved to and fro while workers of both versions run them to their end."""
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
                ended += take_turn(session, task, version) == "done"
        return ended

    ended = together(
        move, lambda: work(workers[0], "1"), lambda: work(workers[1], "2"), patience=PATIENCE
    )

    assert sum(ended) == 2 * len(jobs)
    assert a.one("select count(*) from jobs where status = 'completed'") == len(jobs)


def take_turn(session: Session, task: Task, version: str) -> str:
    """Take the turn of a hook or a coordinator; give the state of the task.

    A coordinator requests a hook and parks, or ends when it has the answer.
    """
    messages = task.row["messages"]
    if messages or task.task != "1/main":
        turn = task.done(1, *map(take, messages))
    else:
        turn = task.park(requests=[hook("h#1", "q", pinned_version=version)])
    while (answer := session.advance(turn, waiting=True)).state in {"busy", "keep"}:
        if answer.state == "keep":
            turn = task.done(1, *map(take, answer.messages))
    assert answer.state in {"done", "parked", "fenced", "gone"}
    return answer.state
