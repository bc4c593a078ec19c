"""Races within microseconds, held open by the lock of a user or by a gate in a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.races.sessions import Session, child, hook, increment, send
from tests.races.theatre import GATE, Theatre, shut


def test_job_started_while_batch_waits_for_locks_misses_no_signal(
    a: Session, b: Session, c: Session
) -> None:
    """[P5] The batch writes no message to a job that did not exist when it took its locks."""
    sender = a.held("s")
    a.start("y")
    c.begin()
    c.call("entity_increment", id="y", path="n")
    turn = sender.keep(send("go", 1, target="x"), send("hi", 1, target="y"))
    sending = a.later(a.advance, turn, waiting=True)
    assert sending.waits()
    task = b.held("x")
    b.begin()
    assert b.advance(task.park("go")).state == "parked"

    c.commit()
    sending.waits()
    b.commit()

    answer = sending.get()
    if answer.state == "busy":
        answer = a.advance(turn, waiting=True)
    arrived = answer.answers[0][1]
    assert b.state("x") == ("ready" if arrived else "parked")
    assert b.one("select count(*) from inbox where job_id = 'x'") == (1 if arrived else 0)


@pytest.mark.parametrize("first", ["cancel", "retry"])
def test_cancel_makes_coordinator_between_two_attempts_due_at_once(
    a: Session, b: Session, first: str
) -> None:
    """[P8] (E2) In both orders of the cancel and the failed attempt."""
    task = a.held("j")
    retry = task.turn("retry", value={"message": "no"}, until="2100-01-01Z")
    if first == "cancel":
        b.call("cancel", id="j")
        a.advance(retry)
    else:
        a.advance(retry)
        b.call("cancel", id="j")

    assert [m["key"] for m in b.claim_one("j").row["messages"]] == ["$cancel"]


@pytest.mark.parametrize("first", ["cancel", "retry"])
def test_cancel_makes_hook_between_two_attempts_due_at_once(
    a: Session, b: Session, first: str
) -> None:
    """[P8] (E2) In both orders, however long its backoff is."""
    task = a.held("j")
    a.advance(task.keep(requests=[hook("h#1")]))
    retry = b.claim_one("hooks").turn("retry", value={"message": "no"}, until="2100-01-01Z")
    if first == "cancel":
        a.advance(task.keep(cancels=["h#1"]))
        b.advance(retry)
    else:
        b.advance(retry)
        a.advance(task.keep(cancels=["h#1"]))

    assert [m["key"] for m in b.claim_one("hooks").row["messages"]] == ["$cancel"]


def test_child_that_is_terminated_while_it_starts_answers_its_parent(
    theatre: Theatre,
) -> None:
    """[P8] [P10] (E3) Its asker is read under the lock."""
    theatre.put_gate("terminate", r"perform lock_jobs")
    with theatre.players() as (a, b, c, _):
        parent = a.held("j")
        a.begin()
        assert a.advance(parent.park(requests=[child("c#1")])).state == "parked"
        shut(c)
        ending = b.later(b.call, "terminate", id="j/c#1")
        assert ending.waits()
        a.commit()
        c.commit()

        assert ending.get() is True
        assert [m["key"] for m in a.claim_one("j").row["messages"]] == ["c#1"]


def test_memory_is_not_forgotten_while_it_is_restored(theatre: Theatre) -> None:
    """[P3] Another memory could take its id, and be given the past of the first one."""
    theatre.put_gate("entity_restore", r"return run_command")
    with theatre.players() as (a, b, c, _):
        a.call("entity_create", id="e", entity="note", context={"n": 1})
        shut(c)
        restoring = b.later(b.call, "entity_restore", id="e", version=1)
        assert restoring.waits()
        forgetting = a.later(a.call, "forget", id="e")
        assert forgetting.waits()
        c.commit()

        assert restoring.get() == 2
        assert forgetting.get() is True


def claim_while_the_task_is_written(theatre: Theatre) -> None:
    """Update the row of a task between the search of a claim and its lock, which moves the row."""
    opens = f"pg_advisory_xact_lock_shared({GATE})::text is not null"
    theatre.change("find_due", r"(and t\.due_at >= r\.due_at)", rf"\1 and {opens}")
    with theatre.players() as (a, b, c, _):
        a.start("j")
        shut(c)
        claiming = b.later(b.claim, "j")
        assert claiming.waits()
        a.run("update tasks set attempt = 7 where job_id = 'j'")
        c.commit()

        (task,) = claiming.get()
        assert task.row["attempt"] == 7
        assert b.advance(task.done("once")).state == "done"


def test_claim_of_task_that_is_being_written_takes_new_row(
    theatre: Theatre,
) -> None:
    """[P6] [P8] The row is leased where it was locked, by a statement that sees it there."""
    claim_while_the_task_is_written(theatre)


@pytest.mark.broken_invariants
def test_claim_without_lock_would_miss_new_row(theatre: Theatre) -> None:
    """The negative control."""
    theatre.change("find_due", r"for no key update skip locked", "")
    with pytest.raises((AssertionError, ValueError)):
        claim_while_the_task_is_written(theatre)


LOCKS_AT_ONCE = (
    r"return array\( select j\.id from jobs as j where j\.id = any\(lock_jobs\.ids\) order by"
    r" j\.id for no key update skip locked\);"
)


Request = dict[str, Any]


@contextmanager
def child_about_to_be_ended(
    theatre: Theatre, fate: str
) -> Iterator[tuple[Session, Request, Callable[[], None]]]:
    """Let a child end between the search for it and its lock; its end locks no parent.

    Gives a session, the request for the child, and a function that lets the child be locked.
    """
    theatre.put_gate("lock_jobs", LOCKS_AT_ONCE)
    with theatre.players() as (a, b, c, _):
        request = child("c#1", id="c", detached=True, on_parent_end=fate)
        a.advance(a.held("p").done(requests=[request]))
        running, end_task = a.claim_one("children"), b.claim_one("$sql")
        shut(c)
        ending = b.later(b.call, "run_task", **end_task.lease)
        assert ending.waits()
        assert a.advance(running.done("own"), waiting=True).state == "done"

        def go_on() -> None:
            c.commit()
            assert ending.get() == "done"

        yield a, request, go_on


def end_a_child_that_has_ended(theatre: Theatre, fate: str) -> None:
    """End a child that has ended meanwhile."""
    with child_about_to_be_ended(theatre, fate) as (a, _, go_on):
        go_on()
        assert a.run("select status, result from jobs where id = 'c'") == [("completed", "own")]
        assert a.broken() == []


@pytest.mark.parametrize("fate", ["cancel", "terminate"])
def test_child_that_ends_just_before_it_is_locked_keeps_its_result(
    theatre: Theatre, fate: str
) -> None:
    """[P6] (E3) What was read before its lock is read again."""
    end_a_child_that_has_ended(theatre, fate)


@pytest.mark.broken_invariants
@pytest.mark.parametrize(("function", "fate"), [
    ("cancel_children", "cancel"), ("terminate_children", "terminate"),
])  # fmt: skip
def test_child_would_end_twice_if_its_status_was_not_read_again(
    theatre: Theatre, function: str, fate: str
) -> None:
    """The negative control."""
    theatre.change(function, r"and j\.status = 'running'", "")
    with pytest.raises((AssertionError, psycopg.Error)):
        end_a_child_that_has_ended(theatre, fate)


@pytest.mark.parametrize("fate", ["cancel", "terminate"])
def test_child_of_another_parent_with_id_of_forgotten_one_goes_on(
    theatre: Theatre, fate: str
) -> None:
    """[P6] [P8] (E3) Its parent was read before the lock, and is read again under it."""
    with child_about_to_be_ended(theatre, fate) as (a, request, go_on):
        assert a.call("forget", id="c") is True
        other = a.held("q")
        a.advance(other.keep(requests=[request]), waiting=True)

        go_on()

        assert a.run("select parent, status from jobs where id = 'c'") == [("q", "running")]
        assert a.claim_one("children").row["messages"] == []
        assert a.advance(other.done(), waiting=True).state == "done"
        assert [task.job for task in a.claim("$sql")] == ["q"]


@pytest.mark.parametrize("end", ["ends", "ends and runs again"])
def test_requested_child_that_has_ended_gets_no_request_to_cancel(
    theatre: Theatre, end: str
) -> None:
    """[P8] (E2) (E3) A parent that does not know of its cancel repeats the request for a child.

    The child was running when the turn looked, but no longer when it had the lock.
    """
    theatre.put_gate("lock_jobs", LOCKS_AT_ONCE)
    with theatre.players() as (a, b, c, _):
        request = child("c#1", id="c", detached=True)
        task = b.held("p")
        assert b.advance(task.keep(requests=[request]), waiting=True).state == "keep"
        running = a.claim_one("children")
        assert a.call("cancel", id="p") is True
        shut(c)
        again = b.later(b.advance, task.keep(requests=[request]), waiting=True)
        assert again.waits()
        assert a.advance(running.done("own"), waiting=True).state == "done"
        if end == "ends and runs again":
            assert a.start("c", if_exists="new_run")
        c.commit()

        assert again.get().state == "keep"
        assert a.run("select job_id from inbox where key = '$cancel'") == [("p",)]


def test_terminating_child_whose_parent_is_locked_may_be_refused(
    theatre: Theatre,
) -> None:
    """[P8] (E3) It gets 40001 instead of a deadlock, since the parent must be locked first."""
    theatre.put_gate("terminate", r"perform lock_jobs")
    with theatre.players() as (a, b, c, stage):
        parent = a.held("j")
        a.begin()
        assert a.advance(parent.park(requests=[child("c#1")])).state == "parked"
        shut(c)
        ending = b.later(b.call, "terminate", id="j/c#1")
        assert ending.waits()
        a.commit()
        user = stage.session("user")
        user.begin()
        user.call("entity_increment", id="j", path="n")
        c.commit()

        assert isinstance(ending.error(), psycopg.errors.SerializationFailure)
        user.commit()
        assert b.call("terminate", id="j/c#1") is True
        assert [m["key"] for m in a.claim_one("j").row["messages"]] == ["c#1"]


def test_hook_that_begins_while_old_jobs_are_found_keeps_its_job(theatre: Theatre) -> None:
    """[P8] (E18) Jobs to forget are checked again under their locks."""
    theatre.put_gate("is_at_work", r"return exists")
    with theatre.players() as (a, b, c, _):
        assert a.advance(a.held("j").done()).state == "done"
        shut(c)
        forgetting = b.later(b.one, "select forget_finished('infinity')")
        assert forgetting.waits()
        a.call("hook", id="j", name="h", key="late")
        c.commit()

        assert forgetting.get() == 0
        assert a.state("j", "$hook/late") == "ready"
        assert a.memory("j") == ({}, 0)


def test_hook_that_begins_while_old_jobs_are_found_hides_no_others(theatre: Theatre) -> None:
    """(E18) The page is filled with another job; a caller would stop at an empty page."""
    theatre.put_gate("is_at_work", r"return exists")
    with theatre.players() as (a, b, c, _):
        for job in "jk":
            assert a.advance(a.held(job).done()).state == "done"
        shut(c)
        forgetting = b.later(b.one, "select forget_finished('infinity', max_jobs => 1)")
        assert forgetting.waits()
        a.call("hook", id="j", name="h", key="late")
        c.commit()

        assert forgetting.get() == 1
        assert a.run("select id from jobs") == [("j",)]


def test_turn_of_task_that_is_claimed_during_its_batch_is_fenced(
    theatre: Theatre,
) -> None:
    """[P6] The token is compared under the lock of the task, not before."""
    theatre.put_gate("judge_turns", r"return array")
    with theatre.players() as (a, b, c, _):
        task = a.held("j")
        a.expire(task)
        shut(c)
        advancing = a.later(a.advance, task.done("a", increment("n")))
        assert advancing.waits()
        (stolen,) = b.claim("j")
        c.commit()

        assert advancing.get().state == "fenced"
        assert b.advance(stolen.done("b")).state == "done"
        assert b.memory("j") == ({}, 0)


def test_message_that_arrives_during_claim_is_found_by_park(theatre: Theatre) -> None:
    """[P5] The signal is sent after the task was taken and before the claim reads its messages."""
    theatre.put_gate("describe_tasks", r"select json_agg\(json_build_object")
    with theatre.players() as (a, b, c, _):
        a.start("j")
        shut(c)
        claiming = a.later(a.claim_one, "j")
        assert claiming.waits()
        b.signal("j", "go", 1)
        c.commit()

        parked = a.advance(claiming.get().park("go"))
        assert (parked.state, parked.payloads) == ("keep", [1])


def test_message_does_not_end_lease_that_began_at_deadline(theatre: Theatre) -> None:
    """[P6] The task slept when the message was sent, and is claimed before it could be woken."""
    theatre.put_gate("wake_tasks", "with asleep as materialized")
    with theatre.players() as (a, b, c, _):
        shut(c)
        until = a.one("select (clock() + interval '0.5 s')::text")
        a.parked("j", "go", until=until)
        sending = a.later(a.signal, "j", "go")
        assert sending.waits()
        b.run("select pg_sleep(0.6)")
        b.begin()
        claimed = b.claim_one("j")
        c.commit()
        assert sending.waits()
        b.commit()

        assert sending.get() is True
        assert b.claim("j") == []
        assert b.extend(claimed) == ["held"]


def test_message_waits_for_batch_that_has_read_inbox(
    theatre: Theatre,
) -> None:
    """[P5] From reading the inbox to the commit of the park, no message can be sent."""
    theatre.put_gate("keep_or_park", r"update tasks")
    with theatre.players() as (a, b, c, _):
        task = a.held("j")
        shut(c)
        parking = a.later(a.advance, task.park("go"))
        assert parking.waits()
        signalling = b.later(b.signal, "j", "go", 1)
        assert signalling.waits()
        c.commit()

        assert parking.get().state == "parked"
        assert signalling.get()
        assert a.claim_one("j").messages == [1]
