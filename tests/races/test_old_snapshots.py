"""A turn in a transaction with an old snapshot misses no message that was sent since."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.races.sessions import Session, Task, child, hook, item

LEVELS = pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])

MESSAGES: dict[str, Callable[[Session, Task], Any]] = {
    "nothing": lambda session, hooked: None,
    "a signal": lambda session, hooked: session.signal("j", "go", 1),
    "an answer": lambda session, hooked: session.advance(hooked.done(1)),
}


@LEVELS
@pytest.mark.parametrize("message", MESSAGES)
def test_task_is_not_parked_where_a_message_would_not_be_seen(
    a: Session, b: Session, message: str, isolation: str
) -> None:
    """[P5] (I5) Nobody would wake it: whoever sent the message saw a task that is held."""
    task = a.held("j")
    a.advance(task.keep(requests=[hook("h#1")]))
    hooked = b.claim_one("hooks")
    a.run(f"begin isolation level {isolation}")
    a.status("j")  # the snapshot is from here
    MESSAGES[message](b, hooked)

    refused = a.later(a.advance, task.park("go")).error()
    a.rollback()

    assert getattr(refused, "sqlstate", None) == "PD107"
    answer = a.advance(task.park("go"))
    seen = ("parked", []) if message == "nothing" else ("keep", [1])
    assert (answer.state, answer.payloads) == seen


@LEVELS
def test_task_that_sees_its_message_is_kept_above_read_committed(
    a: Session, b: Session, isolation: str
) -> None:
    task = a.held("j")
    b.signal("j", "go", 1)
    a.run(f"begin isolation level {isolation}")
    assert a.advance(task.park("go")).payloads == [1]
    a.commit()


def test_task_is_parked_under_read_uncommitted(a: Session, b: Session) -> None:
    """PostgreSQL treats it as READ COMMITTED, so every statement sees what was sent before it."""
    task = a.held("j")
    a.run("begin isolation level read uncommitted")
    a.status("j")
    b.signal("j", "go", 1)
    assert a.advance(task.park("go")).payloads == [1]
    assert a.advance(task.park("stop")).state == "parked"
    a.commit()


ENDS: dict[str, Callable[[Session, Task], Any]] = {
    "a retry": lambda session, task: session.advance(task.turn("retry", until="2100-01-01T00:00Z")),
    "a release": lambda session, task: session.advance(
        task.turn("release", until="2100-01-01T00:00Z")
    ),
    "an end": lambda session, task: session.advance(task.done()),
    "finish_task()": lambda session, task: session.call("finish_task", **task.lease),
    "fail_task()": lambda session, task: session.call("fail_task", **task.lease),
}


@LEVELS
@pytest.mark.parametrize("end", ENDS)
def test_turn_does_not_overlook_a_cancel_since_its_snapshot(
    a: Session, b: Session, end: str, isolation: str
) -> None:
    """[P5] (I4) (I5) The request would be left behind, or slept through."""
    a.call("entity_create", id="j", entity="e")
    name = a.call("hook", id="j", name="h", queue="hooks")
    task = a.claim_one("hooks")
    a.run(f"begin isolation level {isolation}")
    a.memory("j")  # the snapshot is from here
    assert b.call("cancel_hook", id="j", task=name)

    refused = a.later(ENDS[end], a, task).error()
    a.rollback()

    assert isinstance(refused, psycopg.errors.SerializationFailure)
    ENDS[end](a, task)


@LEVELS
def test_next_run_gets_the_cancel_that_an_old_snapshot_does_not_show(
    a: Session, b: Session, isolation: str
) -> None:
    """[P5] (I4)"""
    task = a.held("j")
    a.run(f"begin isolation level {isolation}")
    a.status("j")  # the snapshot is from here
    assert b.call("cancel", id="j")

    refused = a.later(a.advance, task.turn("continue")).error()
    a.rollback()

    assert isinstance(refused, psycopg.errors.SerializationFailure)
    assert a.advance(task.turn("continue")).state == "continue"
    assert [message["key"] for message in a.claim_one("j").row["messages"]] == ["$cancel"]


PARENT_ENDS: dict[str, Callable[[Session, Task], Any]] = {
    "a turn": lambda session, task: session.advance(task.done()),
    "the next run": lambda session, task: session.advance(task.turn("continue")),
    "terminate()": lambda session, task: session.call("terminate", id="j"),
}


@LEVELS
@pytest.mark.parametrize("end", PARENT_ENDS)
def test_job_does_not_end_before_it_could_see_the_answer_of_its_child(
    a: Session, b: Session, end: str, isolation: str
) -> None:
    """[P5] (I4) The answer would stay in the inbox of a task that is gone."""
    task = a.held("j")
    a.advance(task.keep(requests=[child("c#1")]))
    running = b.claim_one("children")
    a.run(f"begin isolation level {isolation}")
    a.status("j")  # the snapshot is from here
    assert b.advance(running.done(1, touches=["j"])).state == "done"

    refused = a.later(PARENT_ENDS[end], a, task).error()
    a.rollback()

    assert isinstance(refused, psycopg.errors.SerializationFailure)
    PARENT_ENDS[end](a, task)


@LEVELS
def test_repeated_request_asks_people_no_second_time_after_their_answer(
    a: Session, b: Session, isolation: str
) -> None:
    """[P4] (I17) The old snapshot shows neither the answer nor that the item is resolved."""
    task = a.held("j")
    a.advance(task.keep(requests=[item("i#1")]))
    a.run(f"begin isolation level {isolation}")
    a.status("j")  # the snapshot is from here
    b.resolve(b.item_of("j"))

    refused = a.later(a.advance, task.keep(requests=[item("i#1")])).error()
    a.rollback()

    assert isinstance(refused, psycopg.errors.SerializationFailure)
    assert a.advance(task.keep(requests=[item("i#1")])).state == "keep"
    assert a.one("select count(*) from items") == 1
