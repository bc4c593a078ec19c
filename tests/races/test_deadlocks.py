"""Calls that touch the same jobs and tasks in opposite orders do not deadlock. (lock order)

Every session has `deadlock_timeout = 10 ms`, so a deadlock is an error (40P01) and fails the test.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import cycle, product
from typing import Any

import psycopg
import pytest

from tests.races.sessions import (
    Json,
    Session,
    Stage,
    Task,
    activity,
    chances,
    child,
    hook,
    increment,
    send,
    take,
    together,
)

ROUNDS = 40
BATCHES = int(os.environ.get("PERDURE_RACE_BATCHES", "60"))


# Calls in random order, from several sessions at once


@pytest.mark.parametrize("waiting", [False, True], ids=["busy", "waiting"])
def test_signals_that_cross_between_two_jobs_all_arrive(
    a: Session, b: Session, waiting: bool
) -> None:
    """[P5] (C43) Two tasks signal each other's job again and again, from two sessions."""
    one, two = a.held("one"), b.held("two")

    def cross(session: Session, task: Task, target: str) -> int:
        busy = 0
        for number in range(ROUNDS):
            turn = task.told(number).keep(send("hi", number, target=target))
            while (state := session.advance(turn, waiting=waiting).state) == "busy":
                busy += 1
            assert state == "keep"
        return busy

    busy = together(lambda: cross(a, one, "two"), lambda: cross(b, two, "one"))

    assert busy == [0, 0] or not waiting
    for job, task in (("one", one), ("two", two)):
        (answer,) = a.advance_all([task.told(ROUNDS).park("hi")]).turns
        assert (job, answer.payloads) == (job, list(range(ROUNDS)))


def test_batches_that_signal_each_other_s_jobs_do_not_deadlock(a: Session, b: Session) -> None:
    """[P5] (C52) Each batch has ten jobs; the batches have opposite orders, and wait for locks."""
    tasks_of_a = [a.held(f"a{number}") for number in range(10)]
    tasks_of_b = [b.held(f"b{number}") for number in range(10)]

    def cross(session: Session, tasks: list[Task], targets: list[Task]) -> None:
        for number in range(ROUNDS // 2):
            turns = [
                task.told(number).keep(send("hi", 1, target=target.job))
                for task, target in zip(tasks, targets, strict=True)
            ]
            assert set(session.advance_all(turns, waiting=True).states) == {"keep"}

    together(
        lambda: cross(a, tasks_of_a, tasks_of_b),
        lambda: cross(b, tasks_of_b[::-1], tasks_of_a[::-1]),
    )

    assert a.one("select count(*) from inbox") == 20 * ROUNDS // 2


@pytest.mark.parametrize("verb", ["cancel", "terminate"])
def test_ending_children_while_parents_end_does_not_deadlock(
    stage: Stage, a: Session, b: Session, verb: str
) -> None:
    """[P8] [P10] (E2) (E3) A cancelled parent gets all answers; a terminated one is gone."""
    parents = [a.held(f"p{number}") for number in range(12)]
    requests = [child("c#1"), child("c#2")]
    a.advance_all([task.park(requests=requests) for task in parents])
    children = b.claim("children")
    random.Random(7).shuffle(children)

    def end_children() -> list[Any]:
        turns = [task.done(1, touches=[task.row["parent"]]) for task in children]
        return [state for n in range(0, 24, 4) for state in finish(b, turns[n : n + 4])]

    def end_parents() -> list[Any]:
        return [a.call(verb, id=task.job) for task in reversed(parents)]

    states, ended = together(end_children, end_parents)

    assert set(states) == {"done"}
    assert ended == [True] * 12
    if verb == "terminate":
        assert a.one("select count(*) from tasks where name <> '$parent_end'") == 0
        return
    for task in a.claim(*(task.job for task in parents)):
        assert sorted(m["key"] for m in task.row["messages"]) == ["$cancel", "c#1", "c#2"]


def finish(session: Session, turns: Sequence[Json]) -> list[str]:
    """Send a batch, and repeat the busy turns, as a worker does."""
    states = session.advance_all(turns).states
    busy = [n for n, state in enumerate(states) if state == "busy"]
    if busy:
        again = session.advance_all([turns[n] for n in busy], waiting=True).states
        for n, state in zip(busy, again, strict=True):
            states[n] = state
    return states


def test_cancelling_children_that_end_meanwhile_does_not_deadlock(
    a: Session, b: Session, c: Session
) -> None:
    """[P8] (E2) (E3) A cancel locks parent and child, an end locks child and parent."""
    parents = [a.held(f"p{number}") for number in range(12)]
    a.advance_all([task.keep(requests=[child("c#1"), child("c#2")]) for task in parents])
    children = b.claim("children")
    first = [task for task in children if task.job.endswith("c#1")]
    second = [task.job for task in children if task.job.endswith("c#2")]

    together(
        lambda: finish(a, [task.keep(cancels=["c#1", "c#2"]) for task in parents]),
        lambda: finish(b, [task.done(1, touches=[task.row["parent"]]) for task in first[::-1]]),
        lambda: [c.call("terminate", id=job) for job in second] and [],
    )

    for task in parents:
        (answer,) = a.advance_all([task.park()], waiting=True).turns
        assert sorted(m["key"] for m in answer.messages) == ["c#1", "c#2"]


def test_two_batches_with_opposite_orders_lock_jobs_in_same_order(
    a: Session, b: Session, c: Session
) -> None:
    """[P3] [P12] A batch and its reversed repetition stop at a locked job, then both succeed."""
    turns = [a.held(f"j{number}").keep(increment("n")) for number in range(9)]
    c.begin()
    c.call("entity_increment", id="j4", path="n")
    one = a.later(a.advance_all, turns, waiting=True)
    assert one.waits()
    two = b.later(b.advance_all, turns[::-1], waiting=True)
    assert two.waits()
    c.commit()

    assert two.get().turns[::-1] == one.get().turns
    assert [answer.values for answer in one.get().turns] == [[1]] * 4 + [[2]] + [[1]] * 4


# Calls in a fixed order: a third session holds the row at which the cycle would close


def three_hooks(a: Session, job: str) -> list[Task]:
    """Give three hooks of a job, in order of name."""
    coordinator = a.held(job, timeout="1 h")
    a.advance(coordinator.park(requests=[hook("h#1"), hook("h#2"), hook("h#3")]))
    return sorted(a.claim("hooks"), key=lambda task: task.task)


def move_rows(a: Session, hooks: list[Task]) -> None:
    """Move the rows of tasks in the table into this order."""
    for task in hooks:
        where = "where job_id = %s and task = %s"
        a.run(f"update tasks set limit_key = 'a longer row' {where}", task.job, task.task)


SECOND: dict[str, Callable[[Session, list[Task]], object]] = {
    "a terminate": lambda b, hooks: b.call("terminate", id=hooks[0].job),
    "a batch": lambda b, hooks: b.advance_all([t.keep(activity("y#1")) for t in hooks]),
    "a batch in reverse": lambda b, hooks: b.advance_all([t.park("go") for t in hooks[::-1]]),
    "a heartbeat": lambda b, hooks: b.extend(*hooks[::-1]),
    "a release": lambda b, hooks: b.release(*hooks),
    "a release in reverse": lambda b, hooks: b.release(*hooks[::-1]),
    "a claim": lambda b, _: b.claim("hooks"),
    "a signal": lambda b, hooks: b.signal(hooks[0].job, "go"),
    "a resume": lambda b, hooks: b.call("resume", id=hooks[0].job),
    "a pause": lambda b, hooks: b.call("pause", id=hooks[0].job),
    "the end of a pause": lambda b, hooks: b.call("resume", id=hooks[0].job),
    "the end of its time": lambda b, hooks: b.call("run_task", **b.claim_one("$sql").lease),
}

FIRST: dict[str, Callable[[Session, list[Task]], object]] = {
    "a batch": lambda a, hooks: a.advance_all([t.keep(activity("x#1")) for t in hooks]),
    "a release": lambda a, hooks: a.release(*hooks),
}


STATE_BEFORE: dict[str, Callable[[Task], Json]] = {
    "a signal": lambda task: task.park("go"),
    "a resume": lambda task: task.turn("stuck", value={"message": "?"}),
}


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("first", FIRST)
def test_tasks_are_locked_in_one_order_whatever_the_order_of_the_call(
    a: Session, b: Session, c: Session, first: str, second: str
) -> None:
    """[P6] [P8] One call stops half-way at a locked row; another comes with the opposite order.

    If the other call wakes or resumes tasks, these are parked or stuck, and the first call is a
    late one.
    """
    for number, (gate, reverse) in enumerate(product(range(3), (False, True))):
        hooks = three_hooks(a, f"j{number}")
        if second in STATE_BEFORE:
            a.advance_all([STATE_BEFORE[second](task) for task in hooks])
        if second == "the end of a pause":
            a.call("pause", id=f"j{number}")
        move_rows(a, hooks[:: -1 if reverse else 1])
        a.run("update tasks set due_at = clock() where name = '$deadline'")
        h1, h2, h3 = hooks
        c.begin()
        where = "where job_id = %s and task = %s"
        c.run(f"select from tasks {where} for no key update", f"j{number}", hooks[gate].task)
        first_call = a.later(FIRST[first], a, [h2, h3, h1])
        first_call.waits()
        second_call = b.later(SECOND[second], b, [h1, h2, h3])
        second_call.waits()

        c.commit()

        assert (first_call.error(), second_call.error()) == (None, None)
        a.call("terminate", id=f"j{number}")


@pytest.mark.parametrize("second", ["a resume", "a pause", "the end of a pause"])
def test_tasks_are_locked_in_one_order_even_by_bitmap_scan(
    a: Session, b: Session, c: Session, second: str
) -> None:
    """[P8] A bitmap scan has the order of the table; the planner uses it for many tasks."""
    b.run("set enable_indexscan = off; set seq_page_cost = 1000000")  # so that a bitmap scan wins
    b.run("discard plans")
    try:
        test_tasks_are_locked_in_one_order_whatever_the_order_of_the_call(
            a, b, c, "a batch", second
        )
    finally:
        b.run("reset enable_indexscan; reset seq_page_cost")
        b.run("discard plans")


def test_end_of_coordinator_and_batch_of_its_hooks_do_not_deadlock(
    a: Session, b: Session, c: Session
) -> None:
    """[P6] [P8] The end deletes tasks that another worker advances."""
    coordinator = a.held("j")
    a.advance(coordinator.keep(requests=[hook("h#1"), hook("h#2"), hook("h#3")]))
    h1, h2, h3 = sorted(b.claim("hooks"), key=lambda task: task.task)
    c.begin()
    c.run("select from tasks where task = %s for no key update", h3.task)
    advancing = b.later(b.advance_all, [t.keep(activity("x#1")) for t in (h2, h3, h1)])
    assert advancing.waits()
    ending = a.later(a.advance, coordinator.done())
    assert ending.waits()
    c.commit()

    assert advancing.get().states == ["keep"] * 3
    assert ending.get().state == "done"
    assert b.advance_all([t.told().done() for t in (h1, h2, h3)]).states == ["gone"] * 3


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_idle_claims_of_worker_with_queues_in_any_order_do_not_deadlock(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P11] Listeners are inserted in one order; a third claim holds the queue in the middle."""
    worker: dict[str, Any] = {"worker": "w", "idle": True}
    c.begin()
    assert c.claim("middle", **worker) == []
    one = a.later(a.claim, "a", "middle", "z", **worker)
    assert one.waits()
    two = b.later(b.claim, "z", "middle", "a", **worker)
    assert two.waits()
    c.end(end)

    assert (one.get(), two.get()) == ([], [])
    # Three queues, and the messages of the worker.
    assert a.one("select count(*) from listeners") == 4


# Random calls


class Chaos:
    """A worker that calls anything on any job, in any order, and repeats busy turns."""

    def __init__(self, session: Session, jobs: list[str], chance: random.Random) -> None:
        self.session = session
        self.jobs = jobs
        self.chance = chance
        self.held: list[Task] = []
        self.asked: dict[tuple[str, str], list[str]] = {}
        self.seen: Counter[str] = Counter()

    def run(self, batches: int = BATCHES) -> Counter[str]:
        """Make some batches, with other calls in between."""
        for _ in range(batches):
            self.step()
        self.session.release(*self.held)
        return self.seen

    def step(self) -> None:
        """Make a batch and one other call."""
        self.held += self.session.claim(*self.queues(), max_tasks=6, **self.idle())
        self.chance.shuffle(self.held)
        self.batch()
        self.other()

    def queues(self) -> list[str]:
        """Give the queues in a random order."""
        return self.chance.sample(("q", "hooks", "children"), 3)

    def idle(self) -> dict[str, Any]:
        """Sometimes claim under a name shared with others, and listen if nothing is due."""
        return {"worker": "any", "idle": True} if self.chance.random() < 0.3 else {}

    def any_job(self) -> str:
        """Give one of the shared jobs."""
        return self.chance.choice(self.jobs)

    def turn(self, task: Task) -> Json:
        """Make a random turn of a task."""
        say = self.chance.choice
        facts = say(
            (
                [activity("x#1", 1)],
                [increment("n")],
                [increment("n"), send("go", 1, target=self.any_job())],
                [send("go", 2), send("go", 3, target=self.any_job())],
                [take(m) for m in task.row["messages"] if m["key"] is None][:2],
                [],
            )
        )
        key = f"#{self.chance.random()}"
        asked = self.asked.setdefault((task.job, task.task), [])
        requests = say(([], [], [], [hook(f"h{key}"), child(f"c{key}")]))
        more: dict[str, Any] = {"requests": requests} if requests else {}
        if asked and self.chance.random() < 0.3:
            more["cancels"] = asked[-4:]
        asked += [request["key"] for request in requests]
        if task.task == "1/main" and not task.row["parent"]:
            state = say(("keep", "park", "retry", "release"))
        else:
            state = say(("keep", "park", "done", "failed", "retry", "release"))
        parent = task.row["parent"]
        touches = {"touches": [parent]} if parent else {}
        return task.turn(state, *facts, value={}, awaits=["go"], **more, **touches)

    def batch(self) -> None:
        """Send a batch of turns, then the busy ones once more, waiting."""
        turns = [self.turn(task) for task in self.held]
        options = {"queues": self.queues(), "max_tasks": self.chance.choice((0, 4))}
        reply = self.session.advance_all(turns, waiting=self.chance.random() < 0.3, **options)
        busy = [turn for turn, state in zip(turns, reply.states, strict=True) if state == "busy"]
        self.seen.update(reply.states)
        self.seen.update(self.session.advance_all(busy, waiting=True).states)
        for turn in self.chance.sample(turns, min(2, len(turns))):
            self.session.advance(turn, waiting=True)  # as if a reply was lost, or by a zombie
        self.held = reply.tasks

    def other(self) -> None:
        """Make a call of a client, a heartbeat or a user."""
        session, job = self.session, self.any_job()
        calls: tuple[Callable[[], object], ...] = (
            lambda: session.signal(job, "go", 1),
            lambda: session.call("cancel", id=job),
            lambda: session.call("hook", id=job, name="h", queue="hooks"),
            lambda: session.call("entity_increment", id=job, path="n"),
            lambda: session.run("update jobs set context = context || '{}' where id = %s", job),
            lambda: session.extend(*self.held, lease_for="1 min"),
            lambda: session.release(*self.held[:2]),
            lambda: session.call("resume", id=job),
            self.terminate_a_child,
            self.steal,
        )
        self.chance.choice(calls)()

    def terminate_a_child(self) -> None:
        """Terminate a random child."""
        query = "select id from jobs where parent is not null and status = 'running' limit 50"
        if rows := self.session.run(query):
            self.session.call("terminate", id=self.chance.choice(rows)[0])

    def steal(self) -> None:
        """Let a few leases end, whoever holds them."""
        self.session.run(
            """update tasks set due_at = clock()
                where (job_id, task) in (select job_id, task from tasks where token is not null
                                          limit 3 for no key update skip locked)"""
        )


def test_random_batches_from_four_sessions_never_deadlock(stage: Stage) -> None:
    """[P3] [P5] [P6] [P8] All kinds of calls run on shared jobs, with zombies and repetitions.

    The invariants hold at every moment. PERDURE_RACE_BATCHES sets the number of batches.
    """
    jobs = [f"hot{number}" for number in range(8)]
    sessions = stage.sessions(4)
    for job in jobs:
        sessions[0].start(job, queue="q")
    workers = [
        Chaos(session, jobs, chance)
        for session, chance in zip(sessions, chances(len(sessions)), strict=True)
    ]

    watching, is_over = stage.session("watcher"), threading.Event()

    def watch() -> Counter[str]:
        broken: Counter[str] = Counter()
        while not is_over.is_set():
            broken.update(str(row) for row in watching.broken())
        return broken

    watcher = watching.later(watch)
    seen: Counter[str] = sum(together(*(worker.run for worker in workers)), Counter())
    is_over.set()

    assert watcher.get() == Counter()
    assert {"keep", "parked", "done", "failed", "retry", "released", "gone"} <= seen.keys()
    assert sessions[0].broken() == []


def test_sessions_detect_deadlock_at_once(a: Session, b: Session) -> None:
    """(T16) A control: two transactions lock two jobs in opposite orders, and one gets 40P01."""
    a.start("one")
    a.start("two")
    sides = cycle(("one", "two"))
    a.begin()
    b.begin()
    a.signal(next(sides), "go")
    b.signal(next(sides), "go")
    crossing = a.later(a.signal, "two", "go")
    assert crossing.waits()

    closing = b.later(b.signal, "one", "go")

    failed = [error for error in (crossing.error(), closing.error()) if error is not None]
    assert [type(error) for error in failed] == [psycopg.errors.DeadlockDetected]
    a.rollback()
    b.rollback()
