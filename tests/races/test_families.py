"""Parents that are cancelled, terminated or end, beside the turns that start children and end them.

Each pair in both orders, with the transaction of the first open until it commits or rolls back.
[P6] [P8] [P12] (E2) (E3)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest

from tests.races.sessions import Json, Session, Stage, Task, child, hook, take, together

ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])
ASKED = {
    "a child": [child("c#1", id="c")],
    "a detached child": [child("c#1", id="c", detached=True)],
    "a child of a hook": [child("c#1", id="c")],
    "a hook": [hook("h#1")],
    "a detached hook": [hook("h#1", detached=True)],
    "an activity": [{**hook("a#1"), "kind": "activity"}],
}


def asker_of(session: Session, what: str) -> Task:
    """Give the task that asks: a coordinator, or a hook that it has asked for."""
    task = session.held("p")
    if what != "a child of a hook":
        return task
    session.advance(task.keep(requests=[hook("own", "own")]))
    return session.claim_one("own")


def ask_to_cancel(session: Session, task: Task) -> Any:
    """Ask the asker to cancel."""
    verb, named = ("cancel", {}) if task.task == "1/main" else ("cancel_hook", {"task": task.task})
    return session.call(verb, id="p", reason="enough", **named)


def asked_to_cancel(session: Session, asker: Task) -> list[tuple[str, str]]:
    """Name the tasks, but for that of the asker, in whose mail lies a request to cancel."""
    query = "select job_id, task from inbox where key = '$cancel' order by 1, 2"
    return [row for row in session.run(query) if row != ("p", asker.task)]


def live_tasks(session: Session) -> list[str]:
    """Name the tasks that are alive."""
    return [row[0] for row in session.run("select task from tasks order by 1")]


# Who is asked to cancel, and who begins.


@ENDS
@pytest.mark.parametrize("what", ASKED)
def test_what_is_asked_for_after_a_cancel_begins_cancelled(
    a: Session, b: Session, what: str, end: str
) -> None:
    """(E2) The turn waits for the cancel, and its asker has not heard of it."""
    task = asker_of(a, what)
    b.begin()
    assert ask_to_cancel(b, task)
    coming = a.later(a.advance, task.keep(requests=ASKED[what]), waiting=True)
    assert coming.waits()
    b.end(end)
    assert coming.get().state == "keep"
    if what == "an activity" and end == "commit":  # nobody holds it: there is none to be told
        assert a.claim("children", "hooks") == []
        assert live_tasks(a) == ["1/main"]
        return
    (begun,) = a.claim("children", "hooks")
    messages = begun.row["messages"]
    assert [m["key"] for m in messages] == (["$cancel"] if end == "commit" else [])
    assert a.advance(begun.keep(*map(take, messages))).state == "keep"


@ENDS
def test_an_activity_that_is_cancelled_while_it_is_claimed_is_told(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P6]: who holds it hears of it; once the claim has failed, it has ended instead."""
    task = c.held("p")
    c.advance(task.keep(requests=ASKED["an activity"]))
    a.begin()
    a.claim_one("hooks")
    coming = b.later(b.advance, task.keep(cancels=["a#1"]))
    assert coming.waits()
    a.end(end)
    assert coming.get().state == "keep"
    held = end == "commit"
    assert live_tasks(c) == (["1/main", "1/main/a#1"] if held else ["1/main"])
    assert asked_to_cancel(c, task) == ([("p", "1/main/a#1")] if held else [])
    assert [m["key"] for m in c.advance(task.park()).messages] == ([] if held else ["a#1"])


@ENDS
def test_an_activity_that_is_cancelled_first_is_claimed_by_nobody(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P6] The other order: a claim passes by what is locked, and finds it gone."""
    task = c.held("p")
    c.advance(task.keep(requests=ASKED["an activity"]))
    with a.open(end):
        assert a.call("cancel_hook", id="p", task="1/main/a#1")
        assert b.claim("hooks") == []
    assert [each.task for each in b.claim("hooks")] == ([] if end == "commit" else ["1/main/a#1"])
    assert b.call("cancel_hook", id="p", task="1/main/a#1") is (end == "rollback")
    assert list(c.run("select * from assert_invariants()")) == []


@ENDS
@pytest.mark.parametrize("what", ASKED)
def test_what_is_asked_for_before_a_cancel_is_cancelled_by_its_asker_alone(
    a: Session, b: Session, what: str, end: str
) -> None:
    """(E2) The cancel waits for the turn; the asker hears of it, and decides."""
    task = asker_of(a, what)
    a.begin()
    assert a.advance(task.keep(requests=ASKED[what])).state == "keep"
    coming = b.later(ask_to_cancel, b, task)
    assert coming.waits()
    a.end(end)
    assert coming.get() is True
    assert asked_to_cancel(a, task) == []
    assert len(a.claim("children", "hooks")) == (1 if end == "commit" else 0)
    heard = a.advance(task.park())
    assert [message["key"] for message in heard.messages] == ["$cancel"]


@ENDS
@pytest.mark.parametrize("what", ASKED)
def test_nothing_begins_after_a_terminate(a: Session, b: Session, what: str, end: str) -> None:
    """[P6] The turn waits for it, and is fenced."""
    task = asker_of(a, what)
    b.begin()
    assert b.call("terminate", id="p")
    coming = a.later(a.advance, task.keep(requests=ASKED[what]), waiting=True)
    assert coming.waits()
    b.end(end)
    answer = coming.get()
    answer = a.advance(task.keep(requests=ASKED[what])) if answer.state == "busy" else answer
    assert answer.state == ("gone" if end == "commit" else "keep")
    assert len(a.claim("children", "hooks")) == (0 if end == "commit" else 1)


@ENDS
def test_a_terminate_that_waited_for_a_child_to_begin_sees_to_it(
    a: Session, b: Session, end: str
) -> None:
    """[P8] The child is there when the parent ends, or never was."""
    task = a.held("p")
    a.begin()
    a.advance(task.keep(requests=[child("c#1", id="c", on_parent_end="terminate")]))
    coming = b.later(b.call, "terminate", id="p")
    assert coming.waits()
    a.end(end)
    assert coming.get() is True
    left = a.claim("$sql")
    assert [run(a, each) for each in left] == (["done"] if end == "commit" else [])
    assert a.run("select id, status from jobs where id <> 'p'") == (
        [("c", "cancelled")] if end == "commit" else []
    )


@ENDS
@pytest.mark.parametrize("first", ["the cancel", "the end"])
def test_a_cancel_that_crosses_the_last_turn_is_in_vain(
    a: Session, b: Session, first: str, end: str
) -> None:
    """[P6] (E2) The job has completed, whatever the order; who comes too late is told so."""
    task = a.held("p")
    one, two = (b, a) if first == "the cancel" else (a, b)

    def cancel() -> Any:
        return b.call("cancel", id="p")

    def finish() -> Any:
        return a.advance(task.done("own"), waiting=True).state

    deeds = {b: cancel, a: finish}
    one.begin()
    told = {one: deeds[one]()}
    coming = two.later(deeds[two])
    assert coming.waits()
    one.end(end)
    told[two] = coming.get()
    if end == "rollback" and first == "the end":
        told[a] = finish()
    assert told[a] == "done"
    assert told[b] is (first == "the cancel" or end == "rollback")
    assert a.run("select status, result from jobs") == [("completed", "own")]


# Who sees to children.


def run(session: Session, task: Task) -> str:
    """Let the database run a task."""
    return str(session.call("run_task", job=task.job, task=task.task, token=task.token))


def orphans(session: Session, *children: str, **options: Any) -> Task:
    """Let a parent end whose children run; give the task that sees to them."""
    task = session.held("p")
    requests = [child(f"c#{name}", id=name, **options) for name in children]
    assert session.advance(task.done(1, requests=requests)).state == "done"
    return session.claim_one("$sql")


@ENDS
def test_a_parent_leaves_what_sees_to_its_children_when_it_ends_and_not_else(
    a: Session, b: Session, end: str
) -> None:
    """[P8]"""
    task = a.held("p")
    a.advance(task.keep(requests=[child("c#1", id="c")]))
    a.begin()
    a.advance(task.done(1))
    assert b.claim("$sql") == []
    a.end(end)
    assert len(b.claim("$sql")) == (1 if end == "commit" else 0)


@ENDS
@pytest.mark.parametrize("fate", ["cancel", "terminate"])
def test_a_child_that_somebody_has_locked_is_passed_by_and_comes_next(
    a: Session, b: Session, fate: str, end: str
) -> None:
    """(E3) A user's open transaction on one child holds up none of the others."""
    task = orphans(a, "c1", "c2", on_parent_end=fate)
    b.begin()
    b.call("entity_set", id="c1", path="n", value=1)
    assert run(a, task) == "retry"
    assert [is_seen_to(a, name) for name in ("c1", "c2")] == [False, True]
    a.run("update tasks set due_at = clock() where name = '$parent_end'")
    again = a.claim_one("$sql")
    assert run(a, again) == "retry"
    b.end(end)
    a.run("update tasks set due_at = clock() where name = '$parent_end'")
    assert run(a, a.claim_one("$sql")) == "done"
    assert is_seen_to(a, "c1")
    assert a.memory("c1")[1] == (1 if end == "commit" else 0)


def is_seen_to(session: Session, job: str) -> bool:
    """Tell whether a job was terminated, or asked to cancel."""
    asked = "select exists (select from inbox where job_id = %s and key = '$cancel')"
    return session.status(job) == "cancelled" or bool(session.one(asked, job))


@ENDS
@pytest.mark.parametrize("fate", ["cancel", "terminate"])
def test_a_child_that_ends_meanwhile_ends_once(a: Session, b: Session, fate: str, end: str) -> None:
    """[P6] It is passed by while it ends; when it has ended, it is left alone."""
    task = orphans(a, "c", on_parent_end=fate)
    running = b.claim_one("children")
    b.begin()
    assert b.advance(running.done("own", touches=["p"]), waiting=True).state == "done"
    coming = a.later(run, a, task)
    assert coming.waits()  # the child's end has its parent locked
    b.end(end)
    assert coming.get() == "done"
    if end == "commit":
        assert a.run("select status, result from jobs where id = 'c'") == [("completed", "own")]
    else:
        assert is_seen_to(a, "c")


@ENDS
def test_a_child_s_turn_that_waits_for_its_end_hears_of_it(
    a: Session, b: Session, end: str
) -> None:
    """[P6] (E3) What it wants to do comes too late, or goes on."""
    task = orphans(a, "c", on_parent_end="terminate")
    running = b.claim_one("children")
    a.begin()
    assert run(a, task) == "done"
    coming = b.later(b.advance, running.park("go"), waiting=True)
    assert coming.waits()
    a.end(end)
    answer = coming.get()
    answer = b.advance(running.park("go")) if answer.state == "busy" else answer
    assert answer.state == ("gone" if end == "commit" else "parked")


@ENDS
def test_the_holder_of_an_old_lease_sees_to_nobody(a: Session, b: Session, end: str) -> None:
    """[P6] [P12] Also not a second time, when the reply was lost."""
    task = orphans(a, "c", on_parent_end="terminate")
    stolen = b.stolen(task)
    assert run(a, task) == "gone"
    assert a.status("c") == "running"
    b.begin()
    assert run(b, stolen) == "done"
    again = a.later(run, a, stolen)
    assert again.waits()
    b.end(end)
    assert again.get() == ("gone" if end == "commit" else "done")
    assert a.status("c") == "cancelled"


def test_lines_end_from_the_top_while_children_end_from_below(stage: Stage) -> None:
    """[P8] [P10] (E3) Parents before and after their children by name; nothing deadlocks."""
    a, b, c = stage.sessions(3)
    parents = [a.held(f"p{number}") for number in range(12)]
    turns = [
        task.keep(requests=[child(f"c#{n}", id=f"{order}{task.job}.{n}") for n in range(4)])
        for task, order in zip(parents, "az" * 6, strict=True)
    ]
    assert set(a.advance_all(turns).states) == {"keep"}
    children = b.claim("children")
    random.Random(3).shuffle(children)

    def end_parents() -> list[Any]:
        return [a.call("terminate", id=task.job) for task in parents]

    def end_children() -> list[Any]:
        turns = [task.done(1, touches=[task.row["parent"]]) for task in children]
        return finished(b, turns)

    def see_to_them() -> list[Any]:
        return seen_to(c)

    _, states, _ = together(end_parents, end_children, see_to_them)
    assert set(states) == {"done"}
    a.run("update tasks set due_at = clock() where name = '$parent_end' and token is null")
    seen_to(a)
    assert a.one("select count(*) from tasks") == 0


def finished(session: Session, turns: Sequence[Json]) -> list[str]:
    """Send turns in batches of four, waiting."""
    states = []
    for n in range(0, len(turns), 4):
        answers = session.advance_all(turns[n : n + 4], waiting=True).states
        while "busy" in answers:
            answers = session.advance_all(turns[n : n + 4], waiting=True).states
            answers = ["done" if state == "gone" else state for state in answers]
        states += answers
    return states


def seen_to(session: Session) -> list[str]:
    """Run what sees to children, as long as there is any that is due."""
    states = []
    while tasks := session.claim("$sql"):
        states += [run(session, task) for task in tasks]
    return states


# One hook that is cancelled from outside.


def wake(session: Session) -> list[Any]:
    """Claim the hook; give the keys of its mail."""
    return [m["key"] for task in session.claim("hooks") for m in task.row["messages"]]


@ENDS
def test_a_hook_that_parks_and_is_cancelled_sleeps_through_nothing(
    a: Session, b: Session, end: str
) -> None:
    """[P5] (E2) The cancel waits for the park, and wakes it."""
    a.held("p")
    a.call("hook", id="p", name="h", queue="hooks", key="k")
    running = a.claim_one("hooks")
    a.begin()
    a.advance(running.park("go"))
    coming = b.later(b.call, "cancel_hook", id="p", task="$hook/k")
    assert coming.waits()
    a.end(end)
    assert coming.get() is True
    if end == "commit":
        assert wake(b) == ["$cancel"]
    else:
        assert [m["key"] for m in a.advance(running.park("go")).messages] == ["$cancel"]


@ENDS
def test_a_hook_that_ends_while_it_is_cancelled_has_ended(a: Session, b: Session, end: str) -> None:
    """[P6]"""
    a.held("p")
    a.call("hook", id="p", name="h", queue="hooks", key="k")
    running = a.claim_one("hooks")
    a.begin()
    a.advance(running.done(1))
    coming = b.later(b.call, "cancel_hook", id="p", task="$hook/k")
    assert coming.waits()
    a.end(end)
    assert coming.get() is (end == "rollback")


# Old snapshots.

CANCELS: dict[str, Callable[[Session], Any]] = {
    "a job": lambda session: session.call("cancel", id="p"),
    "a hook": lambda session: session.call("cancel_hook", id="p", task="1/main/h#1"),
}


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
@pytest.mark.parametrize("what", CANCELS)
def test_who_cancels_with_an_old_snapshot_is_refused(
    a: Session, b: Session, what: str, isolation: str
) -> None:
    """[P5] (E7) It would not see that the task has parked meanwhile, and wake nobody."""
    task = a.held("p")
    a.advance(task.keep(requests=[hook("h#1")]))
    running = a.claim_one("hooks")
    b.run(f"begin isolation level {isolation}")
    b.status("p")  # the snapshot is from here
    assert a.advance_all([task.park("go"), running.park("go")]).states == ["parked", "parked"]
    refused = b.later(CANCELS[what], b).error()
    b.rollback()
    assert isinstance(refused, psycopg.errors.SerializationFailure)
    assert CANCELS[what](b) is True
    assert wake(a) == (["$cancel"] if what == "a hook" else [])
