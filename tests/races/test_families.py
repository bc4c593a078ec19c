"""Parents are cancelled, terminated or end, beside turns that start their children or end them.

Each pair runs in both orders, with the transaction of the first open until it commits or rolls
back. [P6] [P8] [P12] (E2) (E3)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest

from tests.races.sessions import Json, Session, Stage, Task, child, hook, take, together

ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])
REQUESTS = {
    "a child": [child("c#1", id="c")],
    "a detached child": [child("c#1", id="c", detached=True)],
    "a child of a hook": [child("c#1", id="c")],
    "a hook": [hook("h#1")],
    "a detached hook": [hook("h#1", detached=True)],
    "an activity": [{**hook("a#1"), "kind": "activity"}],
}


def held_asker(session: Session, kind: str) -> Task:
    """Give the task that makes the request, held: a coordinator, or a hook of it."""
    task = session.held("p")
    if kind != "a child of a hook":
        return task
    session.advance(task.keep(requests=[hook("own", "own")]))
    return session.claim_one("own")


def cancel_asker(session: Session, task: Task) -> Any:
    """Ask the asker to cancel."""
    verb, named = ("cancel", {}) if task.task == "1/main" else ("cancel_hook", {"task": task.task})
    return session.call(verb, id="p", reason="enough", **named)


def tasks_asked_to_cancel(session: Session, asker: Task) -> list[tuple[str, str]]:
    """Give the tasks other than the asker that have an open request to cancel."""
    query = "select job_id, task from inbox where key = '$cancel' order by 1, 2"
    return [row for row in session.run(query) if row != ("p", asker.task)]


def live_tasks(session: Session) -> list[str]:
    """Give the names of all tasks."""
    return [row[0] for row in session.run("select task from tasks order by 1")]


# Requests during a cancel or a terminate


@ENDS
@pytest.mark.parametrize("kind", REQUESTS)
def test_request_that_waited_for_cancel_begins_cancelled(
    a: Session, b: Session, kind: str, end: str
) -> None:
    """(E2) The turn waits for the cancel, of which the asker does not know yet."""
    task = held_asker(a, kind)
    b.begin()
    assert cancel_asker(b, task)
    coming = a.later(a.advance, task.keep(requests=REQUESTS[kind]), waiting=True)
    assert coming.waits()
    b.end(end)
    assert coming.get().state == "keep"
    if "child" not in kind and end == "commit":  # it has nothing to clean up, so it ends at once
        assert a.claim("children", "hooks") == []
        assert live_tasks(a) == ["1/main"]
        return
    (begun,) = a.claim("children", "hooks")
    messages = begun.row["messages"]
    assert [m["key"] for m in messages] == (["$cancel"] if end == "commit" else [])
    assert a.advance(begun.keep(*map(take, messages))).state == "keep"


@ENDS
@pytest.mark.parametrize(("kind", "key"), [("an activity", "a#1"), ("a hook", "h#1")])
def test_request_cancelled_during_its_claim_gets_request(
    a: Session, b: Session, c: Session, kind: str, key: str, end: str
) -> None:
    """[P6] If the claim is rolled back, no code of it has begun, and it ends."""
    task = c.held("p")
    c.advance(task.keep(requests=REQUESTS[kind]))
    a.begin()
    a.claim_one("hooks")
    coming = b.later(b.advance, task.keep(cancels=[key]))
    assert coming.waits()
    a.end(end)
    assert coming.get().state == "keep"
    held = end == "commit"
    assert live_tasks(c) == (["1/main", f"1/main/{key}"] if held else ["1/main"])
    assert tasks_asked_to_cancel(c, task) == ([("p", f"1/main/{key}")] if held else [])
    assert [m["key"] for m in c.advance(task.park()).messages] == ([] if held else [key])


@ENDS
@pytest.mark.parametrize(("kind", "key"), [("an activity", "a#1"), ("a hook", "h#1")])
def test_request_that_is_being_cancelled_is_not_claimed(
    a: Session, b: Session, c: Session, kind: str, key: str, end: str
) -> None:
    """[P6] The claim skips the locked row; after the commit the task is gone."""
    task, named = c.held("p"), f"1/main/{key}"
    c.advance(task.keep(requests=REQUESTS[kind]))
    with a.open(end):
        assert a.call("cancel_hook", id="p", task=named)
        assert b.claim("hooks") == []
    assert [each.task for each in b.claim("hooks")] == ([] if end == "commit" else [named])
    assert b.call("cancel_hook", id="p", task=named) is (end == "rollback")
    assert list(c.run("select * from assert_invariants()")) == []


@ENDS
@pytest.mark.parametrize("kind", REQUESTS)
def test_request_before_cancel_is_left_to_its_asker(
    a: Session, b: Session, kind: str, end: str
) -> None:
    """(E2) The cancel waits for the turn; only the asker gets it, and decides what to cancel."""
    task = held_asker(a, kind)
    a.begin()
    assert a.advance(task.keep(requests=REQUESTS[kind])).state == "keep"
    coming = b.later(cancel_asker, b, task)
    assert coming.waits()
    a.end(end)
    assert coming.get() is True
    assert tasks_asked_to_cancel(a, task) == []
    assert len(a.claim("children", "hooks")) == (1 if end == "commit" else 0)
    parked = a.advance(task.park())
    assert [message["key"] for message in parked.messages] == ["$cancel"]


@ENDS
@pytest.mark.parametrize("kind", REQUESTS)
def test_request_that_waited_for_terminate_begins_nothing(
    a: Session, b: Session, kind: str, end: str
) -> None:
    """[P6] The turn waits for the terminate, and is gone."""
    task = held_asker(a, kind)
    b.begin()
    assert b.call("terminate", id="p")
    coming = a.later(a.advance, task.keep(requests=REQUESTS[kind]), waiting=True)
    assert coming.waits()
    b.end(end)
    answer = coming.get()
    answer = a.advance(task.keep(requests=REQUESTS[kind])) if answer.state == "busy" else answer
    assert answer.state == ("gone" if end == "commit" else "keep")
    assert len(a.claim("children", "hooks")) == (0 if end == "commit" else 1)


@ENDS
def test_terminate_that_waited_for_start_of_child_ends_it(a: Session, b: Session, end: str) -> None:
    """[P8] A child that was requested before is terminated with its parent."""
    task = a.held("p")
    a.begin()
    a.advance(task.keep(requests=[child("c#1", id="c", on_parent_end="terminate")]))
    coming = b.later(b.call, "terminate", id="p")
    assert coming.waits()
    a.end(end)
    assert coming.get() is True
    end_tasks = a.claim("$sql")
    assert [run_task(a, each) for each in end_tasks] == (["done"] if end == "commit" else [])
    assert a.run("select id, status from jobs where id <> 'p'") == (
        [("c", "cancelled")] if end == "commit" else []
    )


def test_cancelling_child_does_not_wait_for_its_sibling(a: Session, b: Session) -> None:
    """A turn locks only the children that it cancels."""
    task = a.held("p")
    a.advance(task.keep(requests=[child("c#1", id="c"), child("c#2", id="d")]))
    b.begin()
    b.signal("d", "go")

    assert a.advance(task.keep(cancels=["c#1"])).state == "keep"
    assert a.advance(task.keep(cancels=["c#2"])).state == "busy"


@ENDS
@pytest.mark.parametrize("first", ["the cancel", "the end"])
def test_cancel_during_last_turn_does_not_change_result(
    a: Session, b: Session, first: str, end: str
) -> None:
    """[P6] (E2) The job completes in either order; a cancel that is too late returns false."""
    task = a.held("p")
    one, two = (b, a) if first == "the cancel" else (a, b)

    def cancel() -> Any:
        return b.call("cancel", id="p")

    def finish() -> Any:
        return a.advance(task.done("own"), waiting=True).state

    calls = {b: cancel, a: finish}
    one.begin()
    answers = {one: calls[one]()}
    coming = two.later(calls[two])
    assert coming.waits()
    one.end(end)
    answers[two] = coming.get()
    if end == "rollback" and first == "the end":
        answers[a] = finish()
    assert answers[a] == "done"
    assert answers[b] is (first == "the cancel" or end == "rollback")
    assert a.run("select status, result from jobs") == [("completed", "own")]


# Ending the children of a parent that has ended


def run_task(session: Session, task: Task) -> str:
    """Let the database run a task."""
    return str(session.call("run_task", job=task.job, task=task.task, token=task.token))


def orphans(session: Session, *children: str, **options: Any) -> Task:
    """Let a parent end whose children run; claim the task that ends them."""
    task = session.held("p")
    requests = [child(f"c#{name}", id=name, **options) for name in children]
    assert session.advance(task.done(1, requests=requests)).state == "done"
    return session.claim_one("$sql")


@ENDS
def test_task_that_ends_children_appears_when_parent_has_ended(
    a: Session, b: Session, end: str
) -> None:
    """[P8] It is not there before the commit, nor after a rollback."""
    task = a.held("p")
    a.advance(task.keep(requests=[child("c#1", id="c")]))
    a.begin()
    a.advance(task.done(1))
    assert b.claim("$sql") == []
    a.end(end)
    assert len(b.claim("$sql")) == (1 if end == "commit" else 0)


@ENDS
@pytest.mark.parametrize("fate", ["cancel", "terminate"])
def test_locked_child_is_skipped_and_ended_later(
    a: Session, b: Session, fate: str, end: str
) -> None:
    """(E3) An open transaction on one child does not delay the end of the others."""
    task = orphans(a, "c1", "c2", on_parent_end=fate)
    b.begin()
    b.call("entity_set", id="c1", path="n", value=1)
    assert run_task(a, task) == "retry"
    assert [is_ended(a, name) for name in ("c1", "c2")] == [False, True]
    a.run("update tasks set due_at = clock() where name = '$parent_end'")
    again = a.claim_one("$sql")
    assert run_task(a, again) == "retry"
    b.end(end)
    a.run("update tasks set due_at = clock() where name = '$parent_end'")
    assert run_task(a, a.claim_one("$sql")) == "done"
    assert is_ended(a, "c1")
    assert a.memory("c1")[1] == (1 if end == "commit" else 0)


def is_ended(session: Session, job: str) -> bool:
    """Tell whether a job was terminated, or asked to cancel."""
    asked = "select exists (select from inbox where job_id = %s and key = '$cancel')"
    return session.status(job) == "cancelled" or bool(session.one(asked, job))


@ENDS
@pytest.mark.parametrize("fate", ["cancel", "terminate"])
def test_child_that_ends_meanwhile_keeps_its_result(
    a: Session, b: Session, fate: str, end: str
) -> None:
    """[P6] The task that ends children waits for the child's turn, which has locked the parent."""
    task = orphans(a, "c", on_parent_end=fate)
    running = b.claim_one("children")
    b.begin()
    assert b.advance(running.done("own", touches=["p"]), waiting=True).state == "done"
    coming = a.later(run_task, a, task)
    assert coming.waits()  # the last turn of the child has locked the parent
    b.end(end)
    assert coming.get() == "done"
    if end == "commit":
        assert a.run("select status, result from jobs where id = 'c'") == [("completed", "own")]
    else:
        assert is_ended(a, "c")


@ENDS
def test_turn_of_child_that_is_being_terminated_is_gone(a: Session, b: Session, end: str) -> None:
    """[P6] (E3) If that is rolled back, the turn is applied."""
    task = orphans(a, "c", on_parent_end="terminate")
    running = b.claim_one("children")
    a.begin()
    assert run_task(a, task) == "done"
    coming = b.later(b.advance, running.park("go"), waiting=True)
    assert coming.waits()
    a.end(end)
    answer = coming.get()
    answer = b.advance(running.park("go")) if answer.state == "busy" else answer
    assert answer.state == ("gone" if end == "commit" else "parked")


@ENDS
def test_holder_of_lost_lease_ends_no_children(a: Session, b: Session, end: str) -> None:
    """[P6] [P12] A repeated call, whose first reply was lost, ends none either."""
    task = orphans(a, "c", on_parent_end="terminate")
    stolen = b.stolen(task)
    assert run_task(a, task) == "gone"
    assert a.status("c") == "running"
    b.begin()
    assert run_task(b, stolen) == "done"
    again = a.later(run_task, a, stolen)
    assert again.waits()
    b.end(end)
    assert again.get() == ("gone" if end == "commit" else "done")
    assert a.status("c") == "cancelled"


def test_parents_and_children_that_end_at_once_do_not_deadlock(stage: Stage) -> None:
    """[P8] [P10] (E3) Some ids of parents sort before those of their children, and some after."""
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
        return advance_until_done(b, turns)

    def run_parent_ends() -> list[Any]:
        return run_parent_end_tasks(c)

    _, states, _ = together(end_parents, end_children, run_parent_ends)
    assert set(states) == {"done"}
    a.run("update tasks set due_at = clock() where name = '$parent_end' and token is null")
    run_parent_end_tasks(a)
    assert a.one("select count(*) from tasks") == 0


def advance_until_done(session: Session, turns: Sequence[Json]) -> list[str]:
    """Send turns in batches of four, and repeat those that are busy."""
    states = []
    for n in range(0, len(turns), 4):
        answers = session.advance_all(turns[n : n + 4], waiting=True).states
        while "busy" in answers:
            answers = session.advance_all(turns[n : n + 4], waiting=True).states
            answers = ["done" if state == "gone" else state for state in answers]
        states += answers
    return states


def run_parent_end_tasks(session: Session) -> list[str]:
    """Run the tasks that end children, until none is due."""
    states = []
    while tasks := session.claim("$sql"):
        states += [run_task(session, task) for task in tasks]
    return states


# A client cancels one hook


def claimed_keys(session: Session) -> list[Any]:
    """Claim the hook; give the keys of its messages."""
    return [m["key"] for task in session.claim("hooks") for m in task.row["messages"]]


@ENDS
def test_cancel_during_park_of_hook_is_not_lost(a: Session, b: Session, end: str) -> None:
    """[P5] (E2) The cancel waits for the park, and wakes the hook."""
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
        assert claimed_keys(b) == ["$cancel"]
    else:
        assert [m["key"] for m in a.advance(running.park("go")).messages] == ["$cancel"]


@ENDS
def test_cancel_that_waited_for_end_of_hook_returns_false(a: Session, b: Session, end: str) -> None:
    """[P6] If the end is rolled back, the cancel is accepted."""
    a.held("p")
    a.call("hook", id="p", name="h", queue="hooks", key="k")
    running = a.claim_one("hooks")
    a.begin()
    a.advance(running.done(1))
    coming = b.later(b.call, "cancel_hook", id="p", task="$hook/k")
    assert coming.waits()
    a.end(end)
    assert coming.get() is (end == "rollback")


# Old snapshots

CANCELS: dict[str, Callable[[Session], Any]] = {
    "a job": lambda session: session.call("cancel", id="p"),
    "a hook": lambda session: session.call("cancel_hook", id="p", task="1/main/h#1"),
}


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
@pytest.mark.parametrize("target", CANCELS)
def test_cancel_with_old_snapshot_gets_serialization_failure(
    a: Session, b: Session, target: str, isolation: str
) -> None:
    """[P5] (E7) It would not see that the task has parked meanwhile, and would not wake it."""
    task = a.held("p")
    a.advance(task.keep(requests=[hook("h#1")]))
    running = a.claim_one("hooks")
    b.run(f"begin isolation level {isolation}")
    b.status("p")  # the snapshot is from here
    assert a.advance_all([task.park("go"), running.park("go")]).states == ["parked", "parked"]
    refused = b.later(CANCELS[target], b).error()
    b.rollback()
    assert isinstance(refused, psycopg.errors.SerializationFailure)
    assert CANCELS[target](b) is True
    assert claimed_keys(a) == (["$cancel"] if target == "a hook" else [])
