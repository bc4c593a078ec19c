"""Queues with limits, and pauses: other calls beside a claim. [P6] [P8] [P12]"""

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
    """Start jobs q00, q01 … on a queue; options given as lists are used in turn."""
    session.rows(
        "start_many",
        starts=[
            {"id": f"{queue}{n:02}", "workflow": "w", "queue": queue}
            | {name: given[n % len(given)] for name, given in options.items()}
            for n in range(amount)
        ],
    )


def held(session: Session, queue: str = "q") -> int:
    """Count the slots in use."""
    query = "select count(*) from tasks where queue = %s and token is not null"
    return int(session.one(query, queue))


SLOWLY = Decimal("0.001")
"""A rate at which no token comes during a test."""


# Two claims at once


@pytest.mark.parametrize(
    "limits",
    [
        {"max_running": 3},
        {"max_per_key": 3},
        {"rate_per_second": 3},
        {"rate_per_key": SLOWLY, "burst_per_key": 3},
    ],
)
def test_two_concurrent_claims_never_exceed_limit(
    a: Session, b: Session, limits: dict[str, Any]
) -> None:
    """[P6] The second does not wait for the first, and takes nothing until that has ended."""
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
    """[P8] Another worker can claim as many tasks at once."""
    a.call("set_queue", queue="q", max_running=2, max_per_key=2, rate_per_second=2, rate_per_key=2)
    start(a, 4)

    with a.open("rollback"):
        assert len(a.claim("q")) == 2

    assert len(b.claim("q")) == 2


def test_claim_skips_locked_queue_and_takes_from_others(a: Session, b: Session) -> None:
    """[P8] Its reply asks the worker to claim again soon, since the queue may have more tasks."""
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
@pytest.mark.parametrize(
    "limits", [{"max_running": 2}, {"rate_per_key": SLOWLY, "burst_per_key": 2}]
)
def test_claim_with_old_snapshot_gets_serialization_failure(
    a: Session, b: Session, level: str, limits: dict[str, Any]
) -> None:
    """[P6] It would not see the tasks claimed since, and would exceed the limit."""
    a.call("set_queue", queue="q", **limits)
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
    """[P6] It is not free before, nor if the turn is rolled back."""
    a.call("set_queue", queue="q", max_running=1)
    start(a, 1)
    task = a.claim_one("q")
    start(a, 1, queue="q", id=["next"])
    more = {"until": "2100-01-01T00:00:00Z"} if state in ("park", "retry", "release") else {}

    with a.open(end):
        assert a.advance(task.turn(state, value={}, **more)).state.startswith(state[:4])
        assert b.claim("q") == []

    assert [t.job for t in b.claim("q")] == (["next"] if end == "commit" else [])


def test_one_call_ends_turn_and_takes_its_slot_for_next_task(a: Session) -> None:
    """[P12] The same call repeated takes no other task."""
    a.call("set_queue", queue="q", max_running=1)
    start(a, 3)
    task = a.claim_one("q")
    call = {"queues": ["q"], "claim_id": "00000000-0000-4000-8000-000000000001", "max_tasks": 5}

    first = a.advance_all([task.done(1)], **call)
    again = a.advance_all([task.done(1)], again=True, **call)

    assert [t.job for t in first.tasks] == [t.job for t in again.tasks] == ["q01"]
    assert held(a) == 1


def test_lost_worker_keeps_its_slot_until_its_task_is_claimed_again(a: Session, b: Session) -> None:
    """[P6] [P8] (C42) The next claim takes this task, not another one."""
    rates = {"rate_per_second": SLOWLY, "rate_per_key": SLOWLY}
    a.call("set_queue", queue="q", max_running=1, max_per_key=1, **rates)
    start(a, 2)
    lost = a.claim_one("q")

    assert b.claim("q") == []
    a.expire(lost)
    again = b.claim_one("q")

    assert again.job == lost.job
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


def hints_about(session: Session, queue: str) -> Callable[[], list[str]]:
    """Be idle on a queue without a free slot; give a function that waits for a hint."""
    session.run(f'listen "{session.call("channel")}"')
    list(session.connection.notifies(timeout=0))  # an earlier test may have left hints behind
    assert session.claim(queue, idle=True) == []

    def wait_for_hint() -> list[str]:
        notices = session.connection.notifies(timeout=PATIENCE, stop_after=1)
        hints = [notice.payload for notice in notices]
        session.run("unlisten *")
        return hints

    return wait_for_hint


@pytest.mark.direct("it listens")
@pytest.mark.parametrize("verb", FREEING)
def test_worker_that_waits_for_slot_gets_hint(a: Session, b: Session, verb: str) -> None:
    """[P11] (E13) Any call that frees a slot sends it."""
    a.call("set_queue", queue="q", max_running=1)
    start(a, 2)
    task = a.claim_one("q")
    hint = hints_about(b, "q")
    FREEING[verb](a, task)
    assert hint() == ["q"]


LEAVING: dict[str, Callable[[Session, Task], Any]] = {
    "release": lambda session, task: session.release(task),
    "repin": lambda session, task: session.call("repin", id=task.job, version="v9"),
}
FREEING_FOR_ANOTHER = FREEING | LEAVING


@pytest.mark.direct("it listens")
@pytest.mark.parametrize("verb", FREEING_FOR_ANOTHER)
@pytest.mark.parametrize("queues", [("q@v1", "q@v2"), ("q@v1", "q"), ("q", "q@v1")])
def test_worker_of_another_version_gets_hint_for_slot(
    a: Session, b: Session, queues: tuple[str, str], verb: str
) -> None:
    """[P11] (E13) All versions share the slots, so a free one is announced to each that waits."""
    a.call("set_queue", queue="q", max_running=1)
    first, second = queues
    for queue in queues:
        a.start(queue, queue="q", pinned_version=queue.partition("@")[2] or None)
    task = a.claim_one(first)
    hint = hints_about(b, second)
    FREEING_FOR_ANOTHER[verb](a, task)
    assert hint() == [second]


@pytest.mark.direct("it listens")
@pytest.mark.parametrize("verb", LEAVING)
def test_slot_that_becomes_free_late_is_announced_for_what_is_due_by_then(
    a: Session, b: Session, c: Session, verb: str
) -> None:
    """[P8] [P11] (E13) A call that waited for a lock looks at what has become due meanwhile."""
    a.call("set_queue", queue="q", max_running=1)
    a.start("first", queue="q", pinned_version="v1")
    task = a.claim_one("q@v1")
    c.begin()
    c.run("select from tasks where job_id = %s for no key update", task.job)
    leaving = a.later(LEAVING[verb], a, task)
    assert leaving.waits()
    b.start("second", queue="q", pinned_version="v2")
    hint = hints_about(b, "q@v2")
    c.commit()
    leaving.get()
    assert hint() == ["q@v2"]


@pytest.mark.direct("it listens")
@pytest.mark.parametrize("verb", ENDING)
def test_workers_without_journal_send_hints_for_free_slots(
    a: Session, b: Session, verb: str
) -> None:
    """[P11] (E13) When they end a task or an attempt."""
    a.call("set_queue", queue="q", max_running=1)
    a.parked("j", requests=[hook("h#1", "q"), hook("h#2", "q")])
    task = a.claim_one("q")
    hint = hints_about(b, "q")
    ENDING[verb](a, task)
    assert hint() == ["q"]


@pytest.mark.direct("it listens")
def test_end_of_parent_sends_hint_for_slot_of_its_child(a: Session, b: Session) -> None:
    """[P11] (E13) The child is terminated with its parent, and frees its slot."""
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


def test_claim_of_task_released_meanwhile_takes_new_row(theatre: Theatre) -> None:
    """[P6] A call that locks a row uses the locked version, not the one that it read before."""
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

        assert [claimed.job for claimed in claiming.get()] == [task.job]
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
        ({"rate_per_key": 2}, {}, 4),
        ({"rate_per_key": SLOWLY, "burst_per_key": 2}, {"rate_per_key": SLOWLY * 2}, 0),
        ({"max_per_key": 2}, {"rate_per_key": SLOWLY, "burst_per_key": 3}, 3),
    ],
)
def test_setting_limits_waits_for_open_claims(
    a: Session, b: Session, before: dict[str, Any], after: dict[str, Any], taken: int
) -> None:
    """[P8] Tasks that the claim has queued for a slot are found under any new limits."""
    a.call("set_queue", queue="q", **before)
    start(a, 6)

    with a.open():
        assert len(a.claim("q")) == 2
        setting = b.later(b.call, "set_queue", queue="q", **after)
        assert setting.waits()
    setting.get()

    assert len(b.claim("q")) == taken


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize(("version", "queue"), [(None, "q"), ("7", "q@7")])
@pytest.mark.parametrize("limits", [{"max_per_key": 1}, {"rate_per_key": SLOWLY}])
def test_setting_limits_with_old_snapshot_gets_serialization_failure(
    a: Session, b: Session, level: str, version: str | None, queue: str, limits: dict[str, Any]
) -> None:
    """[P8] (E7) It would not see the tasks that stand in line, and they would be lost."""
    a.call("set_queue", queue="q", **limits)
    start(a, 2)
    assert len(a.claim("q", max_tasks=1)) == 1
    a.start("late", queue="q", pinned_version=version)
    b.run(f"begin isolation level {level}")
    b.one("select count(*) from tasks")  # the snapshot is from here
    assert a.claim(queue) == []
    refused = b.later(b.call, "set_queue", queue="q").error()
    b.rollback()

    assert isinstance(refused, psycopg.errors.SerializationFailure)
    b.call("set_queue", queue="q")
    assert len(a.claim("q", "q@7")) == 2


@pytest.mark.parametrize("verb", ["pause", "terminate"])
def test_removing_limits_locks_waiting_tasks_in_common_order(
    a: Session, b: Session, c: Session, verb: str
) -> None:
    """[P8] By time the second hook comes first, by name the first."""
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


def test_task_that_comes_to_an_open_line_is_found(a: Session, b: Session) -> None:
    """[P8] A claim that takes the last task of a line removes it, and one that follows opens it."""
    a.call("set_queue", queue="q", rate_per_key=SLOWLY, burst_per_key=9)
    start(a, 1)
    with a.open():
        assert len(a.claim("q")) == 1
        b.start("late", queue="q")
        assert b.claim("q") == []
    assert [task.job for task in b.claim("q")] == ["late"]
    assert a.one("select count(*) from lines") == 0


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_line_whose_task_is_being_paused_stays_until_that_is_certain(
    a: Session, b: Session, end: str
) -> None:
    """[P8] Its task is found again if the pause is rolled back, or when the job is resumed."""
    a.call("set_queue", queue="q", rate_per_key=9)
    start(a, 2, limit_key=["k", "l"])
    assert [task.job for task in a.claim("q", max_tasks=1)] == ["q00"]
    with a.open(end):
        a.call("pause", id="q01")
        assert b.claim("q") == []
        assert b.one("select count(*) from lines") == 1
    if end == "commit":
        assert b.claim("q") == []
        assert b.one("select count(*) from lines") == 0
        a.call("resume", id="q01")
    assert [task.job for task in b.claim("q")] == ["q01"]


def test_claims_do_not_wait_while_limits_are_set(a: Session, b: Session) -> None:
    """[P8] The first limit of a queue holds from its commit on."""
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


def test_claim_skips_queue_whose_limits_were_just_read(theatre: Theatre) -> None:
    """[P8] They are about to be changed, and tokens are counted from what was read."""
    theatre.put_gate("set_queue", r"limits_set_at := clock\(\)")
    with theatre.players() as (a, b, c, _):
        a.call("set_queue", queue="q", max_running=9)
        start(a, 3)
        shut(c)
        setting = a.later(a.call, "set_queue", queue="q", max_running=2)
        assert setting.waits()
        assert b.claim("q") == []
        c.commit()
        setting.get()

        assert len(b.claim("q")) == 2


def test_claim_does_not_wait_for_first_limit_of_queue(a: Session, b: Session) -> None:
    """[P8] It claims from the queue as if the limit came later."""
    a.call("set_queue", queue="q", max_running=2)
    a.call("set_queue", queue="r")
    start(a, 1)
    start(a, 1, queue="r")
    with a.open():
        a.call("set_queue", queue="r", max_running=1)
        other = b.later(b.claim, "q", "r")
        assert not other.waits()
        assert len(other.get()) == 2


def test_tasks_started_while_limits_are_set_obey_them(a: Session, b: Session) -> None:
    """[P8] Neither call waits for the other, and no task is missed."""
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


def test_pausing_queue_waits_for_open_claims(a: Session, b: Session) -> None:
    """[P8] The claimed task may end; no other is claimed until the queue is resumed."""
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


def test_pausing_job_waits_for_open_claim_and_lets_turn_end(a: Session, b: Session) -> None:
    """[P6] A hook that the turn requests is paused too."""
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


@pytest.mark.parametrize(
    "limits",
    [{}, {"max_running": 1}, {"max_per_key": 1}, {"rate_per_key": 9}],
    ids=["no limits", "a limit", "a limit per key", "a rate per key"],
)
def test_claim_skips_job_that_is_being_paused_or_resumed(
    a: Session, b: Session, limits: dict[str, int]
) -> None:
    """[P8] Whether or not the call commits, also if the task stands in line for a slot."""
    a.call("set_queue", queue="q", **limits)
    a.start("i", queue="q")
    a.start("j", queue="q")
    (first,) = a.claim("q", max_tasks=1)
    a.advance(first.done())
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
def test_hook_requested_during_pause_is_paused(a: Session, b: Session, end: str) -> None:
    """[P8] A hook from outside waits for the pause, and is paused if that commits."""
    task = a.held("j")
    with a.open(end):
        a.call("pause", id="j")
        coming = b.later(b.call, "hook", id="j", name="h", key="k", queue="q")
        assert coming.waits()
    coming.get()
    assert b.advance(task.keep(requests=[hook("h#1", "q")])).state == "keep"

    assert len(b.claim("q")) == (0 if end == "commit" else 2)


def test_later_of_pause_and_cancel_counts(a: Session, b: Session) -> None:
    """[P8] A cancel ends a pause, and a pause stops a cancelled task."""
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
