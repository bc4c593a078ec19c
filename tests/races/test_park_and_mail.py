"""A task parks while mail for it is on its way: nothing is lost, in whatever order. [P5] [P8]

Many kinds of mail, each before, after and during the park, with the transaction of either side open
until it commits or rolls back.
"""

from __future__ import annotations

import psycopg
import pytest

from tests.races.mail import MAILS, Mail
from tests.races.sessions import Json, Session, child, hook, increment, send, take


@pytest.fixture(params=MAILS, ids=lambda kind: kind.__name__)
def mail(request: pytest.FixtureRequest, a: Session, b: Session) -> Mail:
    """Give each kind of mail, sent by `b` to a task that `a` holds."""
    made: Mail = request.param(a, b)
    return made


def test_mail_that_came_before_the_park_is_given_to_it(a: Session, b: Session, mail: Mail) -> None:
    """[P5] (C36) (C47): a park that finds mail keeps the lease."""
    mail.send()

    parked = a.advance(mail.park)

    assert parked.state == "keep"
    assert mail.is_in(parked.messages)
    assert mail.state(a) == "held"


def test_mail_that_comes_after_the_park_wakes_the_task(a: Session, mail: Mail) -> None:
    """[P5] [P8] (C36)"""
    assert a.advance(mail.park).state == "parked"
    assert mail.state(a) == "parked"

    mail.send()

    assert mail.state(a) == "ready"
    assert mail.is_in(mail.claim(a)[0].row["messages"])


def test_a_park_does_not_wait_for_open_mail_but_is_busy(a: Session, b: Session, mail: Mail) -> None:
    """[P5]: the batch never waits; nothing of a busy turn is applied."""
    b.begin()
    mail.send()

    assert a.advance(mail.task.park(*mail.awaits, facts=[increment("n")])).state == "busy"

    b.commit()
    assert a.memory(mail.task.job) == ({}, 0)
    assert mail.is_in(a.advance(mail.park).messages)


def test_a_waiting_park_sees_mail_that_commits(a: Session, b: Session, mail: Mail) -> None:
    """[P5]: the inbox is read after the lock."""
    b.begin()
    mail.send()
    parking = a.later(a.advance, mail.park, waiting=True)
    assert parking.waits()
    b.commit()

    parked = parking.get()

    assert parked.state == "keep"
    assert mail.is_in(parked.messages)


def test_a_waiting_park_parks_when_the_mail_is_rolled_back(
    a: Session, b: Session, mail: Mail
) -> None:
    """[P5] (E7)"""
    b.begin()
    mail.send()
    parking = a.later(a.advance, mail.park, waiting=True)
    assert parking.waits()
    b.rollback()

    assert parking.get().state == "parked"
    assert mail.state(a) == "parked"
    mail.send()
    assert mail.state(a) == "ready"


def test_mail_waits_for_an_open_park_and_wakes_it(a: Session, b: Session, mail: Mail) -> None:
    """[P5]: the writer sees the parked task, since it has waited for the job's lock."""
    a.begin()
    assert a.advance(mail.park).state == "parked"
    sending = b.later(mail.send)
    assert sending.waits()
    a.commit()
    sending.get()

    assert mail.state(a) == "ready"
    assert mail.is_in(mail.claim(a)[0].row["messages"])


def test_mail_that_waited_for_a_park_rolled_back_is_there_for_the_next(
    a: Session, b: Session, mail: Mail
) -> None:
    """[P5]: waking moves only a parked task."""
    a.begin()
    assert a.advance(mail.park).state == "parked"
    sending = b.later(mail.send)
    assert sending.waits()
    a.rollback()
    sending.get()

    assert mail.state(a) == "held"
    parked = a.advance(mail.park)
    assert parked.state == "keep"
    assert mail.is_in(parked.messages)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_mail_that_comes_while_a_claim_is_open_is_found_by_the_holder(
    a: Session, b: Session, mail: Mail, end: str
) -> None:
    """[P5] [P6]: the wake-up moves nothing of a task that is just being claimed."""
    a.advance(mail.task.park(*mail.awaits, until="2000-01-01Z"))
    a.begin()
    (task,) = mail.claim(a)
    sending = b.later(mail.send)
    sending.waits()  # only a cancel touches the row of a task that is due
    a.end(end)
    sending.get()

    if end == "rollback":
        (task,) = mail.claim(a)
        assert mail.is_in(task.row["messages"])
    assert mail.claim(b) == []
    parked = a.advance(task.park(*mail.awaits))
    assert parked.state == "keep"
    assert mail.is_in(parked.messages)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_task_that_sleeps_until_a_deadline_is_due_when_its_mail_commits(
    a: Session, b: Session, mail: Mail, end: str
) -> None:
    """[P5] [P7]: nobody sees the open mail; afterwards the task is due once, or sleeps on."""
    a.advance(mail.task.park(*mail.awaits, until="2100-01-01Z"))
    b.begin()
    mail.send()
    assert mail.claim(a) == []
    b.end(end)

    assert mail.state(a) == ("ready" if end == "commit" else "parked")
    assert len(mail.claim(a)) == (1 if end == "commit" else 0)
    assert mail.claim(a) == []


# Busy instead of waiting: what a turn leaves for another job that somebody else has locked


def senders(a: Session, b: Session) -> dict[str, tuple[Json, Json]]:
    """Give turns of `b` that leave something for job j, each with the turn of `a` that parks j."""
    task = a.held("j")
    a.advance(task.keep(requests=[hook("h#1"), hook("h#2", signal="ready")]))
    first, second = sorted(b.claim("hooks"), key=lambda t: t.task)
    other = b.held("other")
    return {
        "the answer of a hook": (first.done(1), task.park()),
        "the early answer of a hook": (second.keep(send("ready", 1)), task.park()),
        "a signal of another job": (other.keep(send("go", 1, target="j")), task.park("go")),
    }


def test_a_turn_that_leaves_mail_for_a_locked_job_is_busy(a: Session, b: Session) -> None:
    """[P5]: an inbox is not written without its job's lock, or a task that parks would miss it."""
    for what, (leave, park) in senders(a, b).items():
        a.begin()
        assert a.advance(park).state == "parked"

        assert (what, b.advance(leave).state) == (what, "busy")

        a.rollback()
    assert a.one("select count(*) from inbox") == 0
    assert a.one("select count(*) from journal") == 0


def test_a_turn_that_cancels_a_child_which_is_locked_is_busy(a: Session, b: Session) -> None:
    """[P5] (E2): the child's inbox is not written without the child's lock."""
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


def test_a_turn_that_cancels_waits_for_none_of_its_other_children(a: Session, b: Session) -> None:
    """[P5]: who writes to a child that has long ended makes nobody busy."""
    parent = a.held("j")
    a.advance(parent.keep(requests=[child("c#1"), child("c#2"), hook("h#1")]))
    first, second = a.claim("children")
    assert a.advance(second.done(touches=["j"])).state == "done"
    b.begin()
    b.call("entity_set", id="j/c#2", path="n", value=1)

    assert a.advance(parent.keep(cancels=["c#1", "h#1"])).state == "keep"

    b.commit()
    assert [m["key"] for m in a.advance(first.park("go")).messages] == ["$cancel"]


# Mail for a job that ends


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_signal_that_waited_for_the_end_of_a_job_is_refused(
    a: Session, b: Session, end: str
) -> None:
    """[P5]: PD403, unless the end is rolled back; a signal is never accepted in vain."""
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
def test_a_cancel_or_terminate_that_waited_for_the_end_of_a_job_says_that_it_was_too_late(
    a: Session, b: Session, verb: str, end: str
) -> None:
    """[P6] (E2): false, and the result stands."""
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
def test_a_child_whose_parent_is_just_being_ended_ends_without_an_answer(
    a: Session, b: Session, end: str
) -> None:
    """[P8] (E3): the answer is left only where somebody is there to take it."""
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


# The same mail twice


def test_a_signal_with_a_key_is_accepted_once_also_after_it_was_consumed(
    a: Session, b: Session
) -> None:
    """[P5] [P12] (C36)"""
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
    """[P5] [P12]"""
    a.parked("j", "go")
    b.begin()
    assert b.signal("j", "go", 1, key="k")
    repeating = c.later(c.signal, "j", "go", 1, key="k")
    assert repeating.waits()
    b.end(end)

    assert repeating.get() is (end == "rollback")
    assert a.claim_one("j").messages == [1]


def test_a_hook_that_signalled_early_answers_once(a: Session, b: Session) -> None:
    """[P5] (C46) (C47): its return value is not a second answer."""
    task = a.held("j")
    a.advance(task.keep(requests=[hook("h#1", signal="ready")]))
    working = b.claim_one("hooks")
    assert b.advance(working.keep(send("ready", "early"))).state == "keep"
    (message,) = a.advance(task.park()).messages
    assert a.advance(task.park("next", facts=[take(message)])).state == "parked"

    assert b.advance(working.told().done("late")).state == "done"

    assert message["payload"] == "early"
    assert a.state("j") == "parked"
    assert a.one("select count(*) from inbox where key = 'h#1'") == 1


def test_a_second_cancel_asks_for_nothing_also_after_it_was_consumed(
    a: Session, b: Session
) -> None:
    """[P12] (E2)"""
    task = a.held("j")
    assert b.call("cancel", id="j", reason="first")
    assert not b.call("cancel", id="j", reason="second")
    (message,) = a.advance(task.park()).messages
    a.advance(task.park("cleaned", facts=[take(message)]))

    assert not b.call("cancel", id="j", reason="third")

    assert message["payload"] == "first"
    assert a.state("j") == "parked"
