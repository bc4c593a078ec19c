"""A task parks while a message to it is on its way: none is lost, in whatever order. [P5] [P8]

Each kind of message arrives before, after and during the park; the transaction of either side stays
open until it commits or rolls back.
"""

from __future__ import annotations

import psycopg
import pytest

from tests.races.messages import KINDS, Incoming
from tests.races.sessions import Json, Session, child, hook, increment, send, take


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def incoming(request: pytest.FixtureRequest, a: Session, b: Session) -> Incoming:
    """Give each kind of message, which `b` sends to a task that `a` holds."""
    made: Incoming = request.param(a, b)
    return made


def test_park_that_finds_message_keeps_lease(a: Session, b: Session, incoming: Incoming) -> None:
    """[P5] (C36) (C47) The task gets the message with the reply."""
    incoming.send()

    parked = a.advance(incoming.park)

    assert parked.state == "keep"
    assert incoming.is_all_of(parked.messages)
    assert incoming.state(a) == "held"


def test_message_after_park_wakes_task(a: Session, incoming: Incoming) -> None:
    """[P5] [P8] (C36) The claim that follows gives the message to the task."""
    assert a.advance(incoming.park).state == "parked"
    assert incoming.state(a) == "parked"

    incoming.send()

    assert incoming.state(a) == "ready"
    assert incoming.is_all_of(incoming.claim(a)[0].row["messages"])


def test_park_is_busy_while_message_is_uncommitted(
    a: Session, b: Session, incoming: Incoming
) -> None:
    """[P5] A batch never waits, and no part of a busy turn is applied."""
    b.begin()
    incoming.send()

    assert a.advance(incoming.task.park(*incoming.awaits, facts=[increment("n")])).state == "busy"

    b.commit()
    assert a.memory(incoming.task.job) == ({}, 0)
    assert incoming.is_all_of(a.advance(incoming.park).messages)


def test_park_that_waits_sees_message_that_commits(
    a: Session, b: Session, incoming: Incoming
) -> None:
    """[P5] The inbox is read under the lock of the job."""
    b.begin()
    incoming.send()
    parking = a.later(a.advance, incoming.park, waiting=True)
    assert parking.waits()
    b.commit()

    parked = parking.get()

    assert parked.state == "keep"
    assert incoming.is_all_of(parked.messages)


def test_park_that_waits_parks_when_message_is_rolled_back(
    a: Session, b: Session, incoming: Incoming
) -> None:
    """[P5] (E7) The message sent again wakes the task."""
    b.begin()
    incoming.send()
    parking = a.later(a.advance, incoming.park, waiting=True)
    assert parking.waits()
    b.rollback()

    assert parking.get().state == "parked"
    assert incoming.state(a) == "parked"
    incoming.send()
    assert incoming.state(a) == "ready"


def test_message_waits_for_open_park_and_wakes_task(
    a: Session, b: Session, incoming: Incoming
) -> None:
    """[P5] The sender waits for the lock of the job, and so sees the parked task."""
    a.begin()
    assert a.advance(incoming.park).state == "parked"
    sending = b.later(incoming.send)
    assert sending.waits()
    a.commit()
    sending.get()

    assert incoming.state(a) == "ready"
    assert incoming.is_all_of(incoming.claim(a)[0].row["messages"])


def test_message_that_waited_for_rolled_back_park_reaches_next(
    a: Session, b: Session, incoming: Incoming
) -> None:
    """[P5] A message moves only a task that is parked."""
    a.begin()
    assert a.advance(incoming.park).state == "parked"
    sending = b.later(incoming.send)
    assert sending.waits()
    a.rollback()
    sending.get()

    assert incoming.state(a) == "held"
    parked = a.advance(incoming.park)
    assert parked.state == "keep"
    assert incoming.is_all_of(parked.messages)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_message_during_open_claim_is_found_by_holder(
    a: Session, b: Session, incoming: Incoming, end: str
) -> None:
    """[P5] [P6] A message does not move a task that is just being claimed."""
    a.advance(incoming.task.park(*incoming.awaits, until="2000-01-01Z"))
    a.begin()
    (task,) = incoming.claim(a)
    sending = b.later(incoming.send)
    sending.waits()  # only a cancel touches the row of a task that is due
    a.end(end)
    sending.get()

    if end == "rollback":
        (task,) = incoming.claim(a)
        assert incoming.is_all_of(task.row["messages"])
    assert incoming.claim(b) == []
    parked = a.advance(task.park(*incoming.awaits))
    assert parked.state == "keep"
    assert incoming.is_all_of(parked.messages)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_task_with_later_deadline_is_due_when_its_message_commits(
    a: Session, b: Session, incoming: Incoming, end: str
) -> None:
    """[P5] [P7] Before the commit no claim finds it; after a rollback it stays parked."""
    a.advance(incoming.task.park(*incoming.awaits, until="2100-01-01Z"))
    b.begin()
    incoming.send()
    assert incoming.claim(a) == []
    b.end(end)

    assert incoming.state(a) == ("ready" if end == "commit" else "parked")
    assert len(incoming.claim(a)) == (1 if end == "commit" else 0)
    assert incoming.claim(a) == []


# Turns that send messages to a locked job are busy instead of waiting


def senders(a: Session, b: Session) -> dict[str, tuple[Json, Json]]:
    """Give turns of `b` that send a message to job j, each with the turn of `a` that parks j."""
    task = a.held("j")
    a.advance(task.keep(requests=[hook("h#1"), hook("h#2", signal="ready")]))
    first, second = sorted(b.claim("hooks"), key=lambda t: t.task)
    other = b.held("other")
    return {
        "the answer of a hook": (first.done(1), task.park()),
        "the early answer of a hook": (second.keep(send("ready", 1)), task.park()),
        "a signal of another job": (other.keep(send("go", 1, target="j")), task.park("go")),
    }


def test_turn_that_sends_message_to_locked_job_is_busy(a: Session, b: Session) -> None:
    """[P5] A message sent without the lock of the job would be missed by a task that parks."""
    for kind, (turn, park) in senders(a, b).items():
        a.begin()
        assert a.advance(park).state == "parked"

        assert (kind, b.advance(turn).state) == (kind, "busy")

        a.rollback()
    assert a.one("select count(*) from inbox") == 0
    assert a.one("select count(*) from journal") == 0


def test_turn_that_cancels_locked_child_is_busy(a: Session, b: Session) -> None:
    """[P5] (E2) The child gets the request to cancel only under the lock of the child."""
    parent = a.held("j")
    a.advance(parent.keep(requests=[child("c#1")]))
    task = b.claim_one("children")
    b.begin()
    assert b.advance(task.park("go")).state == "parked"

    assert a.advance(parent.keep(cancels=["c#1"])).state == "busy"

    b.commit()
    assert a.state("j/c#1") == "parked"
    assert a.advance(parent.keep(cancels=["c#1"])).state == "keep"
    assert a.state("j/c#1") == "ready"


def test_turn_that_cancels_one_child_does_not_lock_others(a: Session, b: Session) -> None:
    """[P5] A transaction open on a child that has ended does not make the turn busy."""
    parent = a.held("j")
    a.advance(parent.keep(requests=[child("c#1"), child("c#2"), hook("h#1")]))
    first, second = a.claim("children")
    assert a.advance(second.done(touches=["j"])).state == "done"
    b.begin()
    b.call("entity_set", id="j/c#2", path="n", value=1)

    assert a.advance(parent.keep(cancels=["c#1", "h#1"])).state == "keep"

    b.commit()
    assert [m["key"] for m in a.advance(first.park("go")).messages] == ["$cancel"]


# Messages to a job that ends


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_signal_that_waited_for_the_end_of_a_job_is_refused(
    a: Session, b: Session, end: str
) -> None:
    """[P5] It gets PD403, unless the end is rolled back; no signal is accepted in vain."""
    task = a.held("j")
    a.begin()
    assert a.advance(task.done()).state == "done"
    sending = b.later(b.signal, "j", "go")
    assert sending.waits()
    a.end(end)

    refused = sending.error()
    if end == "commit":
        assert isinstance(refused, psycopg.Error)
        assert refused.sqlstate == "PD403"
    else:
        assert sending.get()
        assert a.advance(task.park("go")).state == "keep"


@pytest.mark.parametrize("verb", ["cancel", "terminate"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_cancel_or_terminate_that_waited_for_end_of_job_returns_false(
    a: Session, b: Session, verb: str, end: str
) -> None:
    """[P6] (E2) The result of the job does not change."""
    task = a.held("j")
    a.begin()
    assert a.advance(task.done("result")).state == "done"
    ending = b.later(b.call, verb, id="j")
    assert ending.waits()
    a.end(end)

    assert ending.get() is (end == "rollback")
    if end == "commit":
        assert a.rows("result", id="j") == [("completed", "result", None)]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_child_whose_parent_is_being_terminated_sends_no_answer(
    a: Session, b: Session, end: str
) -> None:
    """[P8] (E3) It answers only if the terminate is rolled back."""
    task = a.held("j")
    a.advance(task.keep(requests=[child("c#1")]))
    ending = b.claim_one("children").done("answer", touches=["j"])
    a.begin()
    assert a.call("terminate", id="j")
    assert b.advance(ending).state == "busy"
    waiting = b.later(b.advance, ending, waiting=True)
    assert waiting.waits()
    a.end(end)

    assert waiting.get().state == "done"
    assert b.status("j/c#1") == "completed"
    assert a.one("select count(*) from inbox") == (0 if end == "commit" else 1)


# The same message twice


def test_signal_with_key_is_accepted_once_even_after_it_was_consumed(
    a: Session, b: Session
) -> None:
    """[P5] [P12] (C36) A repeated signal does not wake the task."""
    task = a.held("j")
    assert b.signal("j", "go", 1, key="k")
    assert not b.signal("j", "go", 1, key="k")
    (message,) = a.advance(task.park("go")).messages
    assert a.advance(task.park("go", facts=[take(message)])).state == "parked"

    assert not b.signal("j", "go", 1, key="k")

    assert a.state("j") == "parked"


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_the_same_key_from_two_sessions_at_once_is_one_signal(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P5] [P12] The second session waits, and sends the signal only if the first rolls back."""
    a.parked("j", "go")
    b.begin()
    assert b.signal("j", "go", 1, key="k")
    repeating = c.later(c.signal, "j", "go", 1, key="k")
    assert repeating.waits()
    b.end(end)

    assert repeating.get() is (end == "rollback")
    assert a.claim_one("j").messages == [1]


def test_a_hook_that_signalled_early_answers_once(a: Session, b: Session) -> None:
    """[P5] (C46) (C47) Its return value is not a second answer."""
    task = a.held("j")
    a.advance(task.keep(requests=[hook("h#1", signal="ready")]))
    working = b.claim_one("hooks")
    assert b.advance(working.keep(send("ready", "early"))).state == "keep"
    (message,) = a.advance(task.park()).messages
    assert a.advance(task.park("next", facts=[take(message)])).state == "parked"

    assert b.advance(working.told().done("late")).state == "done"

    assert message["payload"] == "early"
    assert a.state("j") == "parked"
    assert a.one("select count(*) from inbox") == 0


def test_task_does_not_park_for_hook_that_has_answered(a: Session, b: Session) -> None:
    """[P10] (I3) The hook goes on, but will not answer again: nothing would wake the task."""
    task = a.held("j")
    a.advance(task.keep(requests=[hook("h#1", signal="ready")]))
    working = b.claim_one("hooks")
    b.advance(working.keep(send("ready", "early")))
    (message,) = a.advance(task.park()).messages

    assert a.advance(task.park(facts=[take(message)])).state == "refused"
    assert a.advance(task.keep(take(message))).state == "keep"
    assert a.advance(task.told().park()).state == "refused"
    assert a.advance(task.told().park(requests=[hook("h#2")])).state == "parked"


def test_second_cancel_is_ignored_even_after_first_was_consumed(a: Session, b: Session) -> None:
    """[P12] (E2) It returns false, and does not wake the task."""
    task = a.held("j")
    assert b.call("cancel", id="j", reason="first")
    assert not b.call("cancel", id="j", reason="second")
    (message,) = a.advance(task.park()).messages
    a.advance(task.park("cleaned", facts=[take(message)]))

    assert not b.call("cancel", id="j", reason="third")

    assert message["payload"] == "first"
    assert a.state("j") == "parked"
