"""Queues with limits, and pauses: what others do in the moments of a claim. [P6] [P8] [P12]"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.races.sessions import PATIENCE, Session, Task, child, hook
from tests.races.theatre import Theatre, shut


def start(session: Session, amount: int, queue: str = "q", **options: Any) -> None:
    """Start jobs j00, j01 … on a queue; options that are lists go round."""
    session.rows(
        "start_many",
        starts=[
            {"id": f"{queue}{n:02}", "workflow": "w", "queue": queue}
            | {name: given[n % len(given)] for name, given in options.items()}
            for n in range(amount)
        ],
    )


def held(session: Session, queue: str = "q") -> int:
    """Count the slots that are taken."""
    query = "select count(*) from tasks where queue = %s and token is not null"
    return int(session.one(query, queue))


# Two claims


@pytest.mark.parametrize("limits", [{"max_running": 3}, {"max_per_key": 3}, {"rate_per_second": 3}])
def test_two_claims_at_once_never_take_more_than_there_is(
    a: Session, b: Session, limits: dict[str, int]
) -> None:
    """[P6]: the second does not wait for the first, and takes nothing until that has ended."""
    a.call("set_queue", queue="q", **limits)
    start(a, 9)

    with a.open():
        assert len(a.claim("q", max_tasks=2)) == 2
        other = b.later(b.claim, "q")
        assert not other.waits()
        assert other.get() == []

    assert len(b.claim("q")) == 1
    assert b.claim("q") == []


def test_a_claim_that_is_rolled_back_gives_its_slots_and_tokens_back(
    a: Session, b: Session
) -> None:
    """[P8]"""
    a.call("set_queue", queue="q", max_running=2, max_per_key=2, rate_per_second=2)
    start(a, 4)

    with a.open("rollback"):
        assert len(a.claim("q")) == 2

    assert len(b.claim("q")) == 2


def test_who_misses_a_queue_takes_from_others(a: Session, b: Session) -> None:
    """[P8]: and is told to look again soon, since something may be left."""
    a.call("set_queue", queue="q", max_running=5)
    start(a, 3)
    start(a, 1, queue="other")

    with a.open():
        a.claim("q", max_tasks=1)
        assert [task.job for task in b.claim("q", "other")] == ["other00"]
        reply = b.call("claim", queues=["q"], worker="b")
        assert reply["tasks"] == []
        soon = datetime.fromisoformat(reply["at"]) + timedelta(seconds=1)
        assert datetime.fromisoformat(reply["next_due_at"]) < soon

    assert len(b.claim("q")) == 2


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_old_snapshot_gives_no_slot_away(a: Session, b: Session, level: str) -> None:
    """[P6]: it does not see what was claimed since, and is refused."""
    a.call("set_queue", queue="q", max_running=2)
    start(a, 4)
    b.run(f"begin isolation level {level}")
    b.one("select count(*) from tasks")

    assert len(a.claim("q")) == 2
    with pytest.raises(psycopg.errors.SerializationFailure):
        b.claim("q")
    b.rollback()

    assert held(a) == 2


# Claims and turns


@pytest.mark.parametrize("state", ["done", "park", "retry", "release", "stuck"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_slot_is_free_when_the_turn_is_committed(
    a: Session, b: Session, state: str, end: str
) -> None:
    """[P6]: not before, and not if it is rolled back."""
    a.call("set_queue", queue="q", max_running=1)
    start(a, 1)
    task = a.claim_one("q")
    start(a, 1, queue="q", id=["next"])
    more = {"until": "2100-01-01T00:00:00Z"} if state in ("park", "retry", "release") else {}

    with a.open(end):
        assert a.advance(task.turn(state, value={}, **more)).state.startswith(state[:4])
        assert b.claim("q") == []

    assert [t.job for t in b.claim("q")] == (["next"] if end == "commit" else [])


def test_one_call_ends_a_turn_and_takes_the_slot(a: Session) -> None:
    """[P12]: and the same call again takes no other."""
    a.call("set_queue", queue="q", max_running=1)
    start(a, 3)
    task = a.claim_one("q")
    call = {"queues": ["q"], "claim_id": "00000000-0000-4000-8000-000000000001", "max_tasks": 5}

    first = a.advance_all([task.done(1)], **call)
    again = a.advance_all([task.done(1)], again=True, **call)

    assert [t.job for t in first.tasks] == [t.job for t in again.tasks] == ["q01"]
    assert held(a) == 1


def test_a_worker_that_is_lost_keeps_its_slot_until_its_task_is_claimed_again(
    a: Session, b: Session
) -> None:
    """[P6] [P8] (C42)"""
    a.call("set_queue", queue="q", max_running=1, max_per_key=1, rate_per_second=Decimal("0.001"))
    start(a, 2)
    lost = a.claim_one("q")

    assert b.claim("q") == []
    a.expire(lost)
    mine = b.claim_one("q")

    assert mine.job == lost.job
    assert a.advance(lost.done()).state == "fenced"
    assert b.claim("q") == []


FREEING: dict[str, Callable[[Session, Task], Any]] = {
    "park": lambda session, task: session.advance(task.park("go")),
    "ask and park": lambda session, task: session.advance(task.park(requests=[hook("h#1")])),
    "terminate": lambda session, task: session.call("terminate", id=task.job),
}
ENDING: dict[str, Callable[[Session, Task], Any]] = {
    "finish": lambda session, task: session.call("finish_task", **task.lease),
    "fail": lambda session, task: session.call("fail_task", **task.lease),
    "give an attempt up": lambda session, task: session.call(
        "fail_task", **task.lease, retry_at="2100-01-01"
    ),
}


def told_of(session: Session, queue: str) -> Callable[[], list[str]]:
    """Be idle on a queue that has no room; give the function that waits to be told of some."""
    session.run(f'listen "{session.call("channel")}"')
    assert session.claim(queue, idle=True) == []

    def told() -> list[str]:
        notices = session.connection.notifies(timeout=PATIENCE, stop_after=1)
        heard = [notice.payload for notice in notices]
        session.run("unlisten *")
        return heard

    return told


@pytest.mark.direct("it listens")
@pytest.mark.parametrize("verb", FREEING)
def test_who_waits_for_a_slot_is_told(a: Session, b: Session, verb: str) -> None:
    """[P11] (E13): by the call that sets one free, whoever makes it."""
    a.call("set_queue", queue="q", max_running=1)
    start(a, 2)
    task = a.claim_one("q")
    told = told_of(b, "q")
    FREEING[verb](a, task)
    assert told() == ["q"]


@pytest.mark.direct("it listens")
@pytest.mark.parametrize("verb", ENDING)
def test_who_waits_for_a_slot_is_told_by_workers_without_a_journal(
    a: Session, b: Session, verb: str
) -> None:
    """[P11] (E13)"""
    a.call("set_queue", queue="q", max_running=1)
    a.parked("j", requests=[hook("h#1", "q"), hook("h#2", "q")])
    task = a.claim_one("q")
    told = told_of(b, "q")
    ENDING[verb](a, task)
    assert told() == ["q"]


@pytest.mark.direct("it listens")
def test_who_waits_for_a_slot_is_told_by_the_end_of_a_parent(a: Session, b: Session) -> None:
    """[P11] (E13): a child that is terminated with it sets one free."""
    a.call("set_queue", queue="q", max_running=1)
    asks = [child(f"c#{n}", "q", on_parent_end="terminate") for n in range(2)]
    parent = a.held("j")
    a.advance(parent.keep(requests=asks))
    task = a.claim_one("q")
    start(a, 1)
    b.run(f'listen "{b.call("channel")}"')
    assert b.claim("q", idle=True) == []
    b.call("listen_for", topic=f"$memory/{task.job}", listener="b")
    a.advance(parent.done())
    (ending,) = a.claim("$sql")
    assert a.call("run_task", **ending.lease) == "done"
    notices = b.connection.notifies(timeout=PATIENCE, stop_after=2)
    assert {notice.payload for notice in notices} == {"q", f"$memory/{task.job}"}
    b.run("unlisten *")


def test_a_task_given_back_in_the_middle_of_a_claim_is_taken_as_it_is(theatre: Theatre) -> None:
    """[P6]: whoever locks a row goes on with what the lock shows, not with what he read before."""
    theatre.put_gate("find_free", "return array")
    with theatre.players() as (a, b, c, _):
        a.call("set_queue", queue="q", max_per_key=2)
        start(a, 1)
        task = a.claim_one("q")
        a.begin()
        assert a.release(task) == ["released"]
        shut(c)
        claiming = b.later(b.claim, "q")
        assert claiming.waits()
        a.commit()
        c.commit()

        assert [mine.job for mine in claiming.get()] == [task.job]
        assert a.broken() == []


# Claims and limits


@pytest.mark.parametrize(
    ("before", "after", "taken"),
    [
        ({"max_running": 2}, {"max_running": 3}, 1),
        ({"max_running": 2}, {"max_running": 1}, 0),
        ({"max_running": 2}, {}, 4),
        ({"max_per_key": 2}, {}, 4),
        ({"max_per_key": 2}, {"max_running": 3}, 1),
        ({"rate_per_second": 2}, {"max_per_key": 4}, 2),
    ],
)
def test_limits_are_set_after_the_claims_that_go_on(
    a: Session, b: Session, before: dict[str, int], after: dict[str, int], taken: int
) -> None:
    """[P8]: what a claim has put in line is found by whatever limits come."""
    a.call("set_queue", queue="q", **before)
    start(a, 6)

    with a.open():
        assert len(a.claim("q")) == 2
        setting = b.later(b.call, "set_queue", queue="q", **after)
        assert setting.waits()
    setting.get()

    assert len(b.claim("q")) == taken


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_limits_set_with_an_old_snapshot_strand_nobody_in_line(
    a: Session, b: Session, level: str
) -> None:
    """[P8] (E7) They would not see who has been put in line, and nobody would look there again."""
    a.call("set_queue", queue="q", max_per_key=1)
    start(a, 2)
    assert len(a.claim("q", max_tasks=1)) == 1
    a.start("late", queue="q")
    b.run(f"begin isolation level {level}")
    b.one("select count(*) from tasks")  # the snapshot is from here
    assert a.claim("q") == []
    refused = b.later(b.call, "set_queue", queue="q").error()
    b.rollback()

    assert isinstance(refused, psycopg.errors.SerializationFailure)
    b.call("set_queue", queue="q")
    assert len(a.claim("q")) == 2


@pytest.mark.parametrize("verb", ["pause", "terminate"])
def test_a_line_is_left_in_the_order_in_which_others_lock_tasks(
    a: Session, b: Session, c: Session, verb: str
) -> None:
    """[P8]: by time the second hook comes first, by name the first."""
    a.call("set_queue", queue="hooks", max_per_key=1)
    main = a.held("j")
    requests = [hook("h#0"), *(hook(f"h#{n}", due_at=f"2020-01-0{9 - n}Z") for n in (1, 2))]
    a.advance(main.keep(requests=requests))
    assert [task.task for task in a.claim("hooks")] == ["1/main/h#2"]
    c.begin()
    c.run("select from tasks where task = '1/main/h#0' for no key update")
    ending = a.later(a.call, verb, id="j")
    assert ending.waits()
    leaving = b.later(b.call, "set_queue", queue="hooks")
    assert leaving.waits()
    c.commit()

    assert (ending.error(), leaving.error()) == (None, None)


def test_limits_that_are_just_being_set_hold_no_claim_up(a: Session, b: Session) -> None:
    """[P8]: a queue gets its first limit when that is committed, without waiting for anybody."""
    start(a, 6)
    with a.open():
        a.call("set_queue", queue="q", max_running=2)
        assert len(b.claim("q", max_tasks=1)) == 1
    assert len(b.claim("q")) == 1
    with a.open():
        a.call("set_queue", queue="q", max_running=4)
        other = b.later(b.claim, "q")
        assert not other.waits()
        assert other.get() == []
    assert len(b.claim("q")) == 2


def test_a_claim_waits_for_no_limits_of_another_queue(a: Session, b: Session) -> None:
    """[P8]: a queue that had none is claimed as if they came later."""
    a.call("set_queue", queue="q", max_running=2)
    a.call("set_queue", queue="r")
    start(a, 1)
    start(a, 1, queue="r")
    with a.open():
        a.call("set_queue", queue="r", max_running=1)
        other = b.later(b.claim, "q", "r")
        assert not other.waits()
        assert len(other.get()) == 2


def test_what_is_started_while_limits_are_set_keeps_to_them(a: Session, b: Session) -> None:
    """[P8]: neither waits for the other; nothing is stranded."""
    with a.open():
        start(a, 4, limit_key=["k", "l"])
        setting = b.later(b.call, "set_queue", queue="q", max_per_key=1)
        assert not setting.waits()
    setting.get()
    with a.open():
        b.call("set_queue", queue="q", max_running=3)
        start(a, 2, queue="r")
    b.call("set_queue", queue="q", max_per_key=1)

    assert sorted(task.row["job"] for task in b.claim("q")) == ["q00", "q01"]
    b.call("set_queue", queue="q")
    assert len(b.claim("q")) == 2


# Pauses


def test_a_queue_is_paused_after_the_claims_that_go_on(a: Session, b: Session) -> None:
    """[P8]"""
    a.call("set_queue", queue="q", max_running=1)
    start(a, 3)
    with a.open():
        task = a.claim_one("q")
        pausing = b.later(b.call, "pause_queue", queue="q")
        assert pausing.waits()
    assert pausing.get() is True

    assert a.advance(task.done()).state == "done"
    assert b.claim("q") == []
    b.call("resume_queue", queue="q")
    assert len(b.claim("q")) == 1


def test_a_pause_waits_for_the_claim_of_a_task_and_lets_its_turn_end(
    a: Session, b: Session
) -> None:
    """[P6]"""
    a.start("j", queue="q")
    with a.open():
        task = a.claim_one("q")
        pausing = b.later(b.call, "pause", id="j")
        assert pausing.waits()
    assert pausing.get() is True

    assert a.advance(task.keep(requests=[hook("h#1", "q")])).state == "keep"
    assert a.advance(task.park()).state == "parked"
    assert b.claim("q") == []
    assert b.call("resume", id="j") == 2
    assert [t.task for t in b.claim("q")] == ["1/main/h#1"]


def test_a_claim_passes_over_a_job_that_is_just_being_paused(a: Session, b: Session) -> None:
    """[P8]: whether or not the pause comes to be."""
    a.start("j", queue="q")
    with a.open("rollback"):
        a.call("pause", id="j")
        assert b.claim("q") == []
    with a.open():
        a.call("pause", id="j")
    assert b.claim("q") == []
    with a.open("rollback"):
        a.call("resume", id="j")
        assert b.claim("q") == []
    b.call("resume", id="j")
    assert len(b.claim("q")) == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_what_comes_to_be_during_a_pause_is_paused(a: Session, b: Session, end: str) -> None:
    """[P8]: a hook from outside waits for the pause, and is as the pause has ended."""
    task = a.held("j")
    with a.open(end):
        a.call("pause", id="j")
        coming = b.later(b.call, "hook", id="j", name="h", key="k", queue="q")
        assert coming.waits()
    coming.get()
    assert b.advance(task.keep(requests=[hook("h#1", "q")])).state == "keep"

    assert len(b.claim("q")) == (0 if end == "commit" else 2)


def test_a_pause_and_a_cancel_come_one_after_the_other(a: Session, b: Session) -> None:
    """[P8]: whoever is last decides."""
    a.parked("j", "go")
    with a.open():
        a.call("pause", id="j")
        cancelling = b.later(b.call, "cancel", id="j")
        assert cancelling.waits()
    assert cancelling.get() is True
    assert len(b.claim("j")) == 1
    a.parked("i", "go")
    with a.open():
        a.call("cancel", id="i")
        pausing = b.later(b.call, "pause", id="i")
        assert pausing.waits()
    assert pausing.get() is True
    assert b.claim("i") == []
    b.call("resume", id="i")
    assert len(b.claim("i")) == 1
