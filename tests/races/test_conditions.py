"""A task waits for a condition on its memory while others write: no wake-up is lost. [P5] [P8]

Every kind of write meets the condition before, after and during the park; the transaction of either
side stays open until it commits or rolls back. Other calls on the job run at the same time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.races.sessions import (
    Json,
    Session,
    Task,
    chances,
    command,
    hook,
    take,
    together,
    until,
)

ONE = until("$.n == 1")
ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])


@dataclass(frozen=True)
class Write:
    """A task held by one session, and a write of another session that sets n to 1."""

    task: Task
    do: Callable[[], Any]
    writer: Session

    @property
    def park(self) -> Json:
        """Give the turn that parks until n is 1."""
        return self.task.park(requests=[ONE])


def by_command(a: Session, b: Session) -> Write:
    """A client sends a command."""
    return Write(a.held("j"), lambda: b.call("entity_set", id="j", path="n", value=1), b)


def by_update(a: Session, b: Session) -> Write:
    """A client updates the row."""
    query = "update jobs set context = '{\"n\": 1}' where id = 'j'"
    return Write(a.held("j"), lambda: b.run(query), b)


def by_apply(a: Session, b: Session) -> Write:
    """A client sends several commands; the condition is true only in between."""
    commands = '[{"op": "set", "path": "n", "value": 1}, {"op": "set", "path": "n", "value": 2}]'
    return Write(a.held("j"), lambda: b.run("select entity_apply('j', %s)", commands), b)


def by_restore(a: Session, b: Session) -> Write:
    """A client restores an old version."""
    task = a.held("j", context={"n": 1})
    a.call("entity_set", id="j", path="n", value=0)
    return Write(task, lambda: b.call("entity_restore", id="j", version=1), b)


def by_turn(a: Session, b: Session) -> Write:
    """A hook of the job sets n to 1, and to another value in the same turn."""
    task = a.held("j")
    a.advance(task.keep(requests=[hook("h#1")]))
    turn = b.claim_one("hooks").keep(command("set", "n", 1), command("set", "n", 2))
    return Write(task, lambda: b.advance(turn, waiting=True), b)


def by_end(a: Session, b: Session) -> Write:
    """A hook ends with a command."""
    task = a.held("j")
    b.call("hook", id="j", name="h", queue="hooks")
    turn = b.claim_one("hooks").done(None, command("set", "n", 1))
    return Write(task, lambda: b.advance(turn, waiting=True), b)


WRITES: dict[str, Callable[[Session, Session], Write]] = {
    "a command": by_command,
    "a plain UPDATE": by_update,
    "commands, true in between": by_apply,
    "a restore": by_restore,
    "a turn of a hook": by_turn,
    "the end of a hook": by_end,
}
TRUE_AFTERWARDS = {"a command", "a plain UPDATE", "a restore", "the end of a hook"}


@pytest.fixture(params=WRITES)
def write(request: pytest.FixtureRequest, a: Session, b: Session) -> Write:
    """Give each way to make the condition true."""
    return WRITES[request.param](a, b)


@pytest.fixture(params=sorted(TRUE_AFTERWARDS))
def lasting_write(request: pytest.FixtureRequest, a: Session, b: Session) -> Write:
    """Give each way that leaves the condition true."""
    return WRITES[request.param](a, b)


def keys_of(messages: list[Any]) -> list[Any]:
    """Give the keys of messages."""
    return [message["key"] for message in messages]


def gets_one_answer(session: Session) -> bool:
    """Tell whether the task is due with exactly one answer; park it again."""
    (task,) = session.claim("j")
    messages = task.row["messages"]
    turn = task.park("next", facts=[take(message) for message in messages])
    return keys_of(messages) == ["u#1"] and session.advance(turn).state == "parked"


# Before, after and during the park


def test_park_on_true_condition_is_answered_at_once(a: Session, lasting_write: Write) -> None:
    """[P5] The task stays held, and gets the answer with the reply."""
    lasting_write.do()

    parked = a.advance(lasting_write.park)

    assert (parked.state, keys_of(parked.messages)) == ("keep", ["u#1"])
    assert a.state("j") == "held"


def test_write_after_park_wakes_task(a: Session, write: Write) -> None:
    """[P5] [P8] The task is due with one answer, even if the condition held only in between."""
    assert a.advance(write.park).state == "parked"
    assert a.claim("j") == []

    write.do()

    assert gets_one_answer(a)


def test_a_park_is_busy_while_a_writer_is_open(a: Session, b: Session, write: Write) -> None:
    """[P5] A batch never waits, and no part of a busy turn is applied."""
    b.begin()
    write.do()

    assert a.advance(write.park).state == "busy"

    assert a.one("select count(*) from conditions") == 0
    b.rollback()


@ENDS
def test_park_that_waits_for_writer_sees_its_write(
    a: Session, b: Session, lasting_write: Write, end: str
) -> None:
    """[P5] The condition is checked under the lock; after a rollback the task waits for a write."""
    b.begin()
    lasting_write.do()
    parking = a.later(a.advance, lasting_write.park, waiting=True)
    assert parking.waits()
    b.end(end)

    if end == "commit":
        assert keys_of(parking.get().messages) == ["u#1"]
        return
    assert parking.get().state == "parked"
    lasting_write.do()
    assert gets_one_answer(a)


@ENDS
def test_writer_waits_for_open_park_and_wakes_task(a: Session, write: Write, end: str) -> None:
    """[P5] Conditions are read under the lock; if the park is rolled back, there is no answer."""
    a.begin()
    assert a.advance(write.park).state == "parked"
    writing = write.writer.later(write.do)
    assert writing.waits()
    a.end(end)
    writing.get()

    if end == "commit":
        assert gets_one_answer(a)
        return
    assert a.state("j") == "held"
    assert a.one("select count(*) from inbox") == 0
    assert a.advance(write.park).state in ("keep", "parked")


@ENDS
def test_task_with_later_deadline_is_due_when_writer_commits(
    a: Session, b: Session, write: Write, end: str
) -> None:
    """[P5] [P7] Before the commit no claim finds it; after a rollback it stays parked."""
    a.advance(write.task.park(requests=[ONE], until="2100-01-01Z"))
    b.begin()
    write.do()
    assert a.claim("j") == []
    b.end(end)

    assert a.state("j") == ("ready" if end == "commit" else "parked")
    if end == "commit":
        assert gets_one_answer(a)
        assert a.claim("j") == []


@ENDS
def test_due_deadline_and_writer_wake_task_only_once(
    a: Session, b: Session, write: Write, end: str
) -> None:
    """[P5] [P7] The claim of the deadline is open; its holder gets the answer when it parks."""
    a.advance(write.task.park(requests=[ONE], until="2000-01-01Z"))
    a.begin()
    (task,) = a.claim("j")
    writing = b.later(write.do)
    writing.waits()
    a.end(end)
    writing.get()

    if end == "rollback":
        assert gets_one_answer(a)
        return
    assert b.claim("j") == []
    parked = a.advance(task.park(requests=[ONE]))
    assert (parked.state, keys_of(parked.messages)) == ("keep", ["u#1"])


def test_condition_is_answered_only_once(a: Session, b: Session) -> None:
    """[P12] Further writes, a repeated request and a repeated turn bring no second answer."""
    task = a.held("j")
    a.advance(task.park(requests=[ONE]))
    for n in (1, 0, 1):
        b.call("entity_set", id="j", path="n", value=n)
    (woken,) = a.claim("j")
    asked = a.advance(woken.keep(requests=[ONE]))
    assert keys_of(woken.row["messages"]) == ["u#1"]
    assert asked.state == "keep"

    b.call("entity_set", id="j", path="n", value=0)
    turn = woken.park("next", facts=[take(*woken.row["messages"])], requests=[ONE])
    assert [a.advance(turn).state for _ in range(2)] == ["parked", "parked"]

    assert a.one("select count(*) from conditions") == 0
    b.call("entity_set", id="j", path="n", value=1)
    assert a.state("j") == "parked"
    assert a.one("select count(*) from inbox") == 0


# Two writers


@ENDS
def test_condition_that_was_true_between_two_writes_is_answered(
    a: Session, b: Session, c: Session, write: Write, end: str
) -> None:
    """[P5] The writer that makes it false waits for the one that made it true."""
    a.advance(write.park)
    b.begin()
    write.do()
    undoing = c.later(c.call, "entity_set", id="j", path="n", value=0)
    assert undoing.waits()
    b.end(end)
    undoing.get()

    if end == "commit":
        assert gets_one_answer(a)
        return
    assert a.state("j") == "parked"
    write.do()
    assert gets_one_answer(a)


@ENDS
def test_job_stays_watched_when_task_asks_while_another_is_answered(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P8] Answering the last condition unsets `watched`, and the park that waited sets
    it again.
    """
    a.parked("j", requests=[ONE])
    b.call("hook", id="j", name="h", queue="hooks")
    asking = c.claim_one("hooks").park(requests=[until("$.n == 2")])
    b.begin()
    b.call("entity_set", id="j", path="n", value=1)
    parking = c.later(c.advance, asking, waiting=True)
    assert parking.waits()
    b.end(end)
    assert parking.get().state == "parked"

    assert a.one("select watched from jobs")
    b.call("entity_set", id="j", path="n", value=2)
    assert len(c.claim("hooks")) == 1


@ENDS
def test_writer_that_waits_for_second_park_answers_both_tasks(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P8] The second park was not yet committed when the writer began."""
    a.parked("j", requests=[ONE])
    c.call("hook", id="j", name="h", queue="hooks")
    asking = c.claim_one("hooks")
    c.begin()
    assert c.advance(asking.park(requests=[until("$.n > 0")])).state == "parked"
    writing = b.later(b.call, "entity_set", id="j", path="n", value=1)
    assert writing.waits()
    c.end(end)
    writing.get()

    assert gets_one_answer(a)
    assert len(c.claim("hooks")) == (1 if end == "commit" else 0)


# Other calls on the job at the same time


@ENDS
@pytest.mark.parametrize("first", ["signal", "writer"])
def test_concurrent_signal_and_write_both_reach_task(
    a: Session, b: Session, c: Session, first: str, end: str
) -> None:
    """[P5] After a rollback of the first, only the second does."""
    a.parked("j", "go", requests=[ONE])
    steps = {
        "signal": lambda who: who.signal("j", "go", "went"),
        "writer": lambda who: who.call("entity_set", id="j", path="n", value=1),
    }
    b.begin()
    steps.pop(first)(b)
    second = c.later(next(iter(steps.values())), c)
    assert second.waits()
    b.end(end)
    second.get()

    (task,) = a.claim("j")
    assert len(task.row["messages"]) == (2 if end == "commit" else 1)


@ENDS
def test_concurrent_cancel_and_write_both_reach_task(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P5] (E2) After a rollback of the write, only the cancel does."""
    a.parked("j", requests=[ONE])
    b.begin()
    b.call("entity_set", id="j", path="n", value=1)
    cancelling = c.later(c.call, "cancel", id="j")
    assert cancelling.waits()
    b.end(end)
    assert cancelling.get()

    (task,) = a.claim("j")
    assert keys_of(task.row["messages"]) == (["u#1"] if end == "commit" else []) + ["$cancel"]


@ENDS
@pytest.mark.parametrize("how", ["terminate", "done"])
def test_writer_that_waited_for_end_of_task_answers_nothing(
    a: Session, b: Session, how: str, end: str
) -> None:
    """[P6] [P8] The conditions of a task end with it."""
    task = a.held("j")
    a.advance(task.keep(requests=[ONE]))
    a.begin()
    assert a.call("terminate", id="j") if how == "terminate" else a.advance(task.done())
    writing = b.later(b.call, "entity_set", id="j", path="n", value=1)
    assert writing.waits()
    a.end(end)
    writing.get()

    assert a.one("select count(*) from inbox") == (0 if end == "commit" else 1)
    assert a.one("select count(*) from conditions") == 0
    assert not a.one("select watched from jobs")


@ENDS
def test_terminate_that_waited_for_writer_leaves_no_condition_or_message(
    a: Session, b: Session, end: str
) -> None:
    """[P6] [P8] The answer that the write has just sent is deleted too."""
    a.parked("j", requests=[ONE])
    b.begin()
    b.call("entity_set", id="j", path="n", value=1)
    ending = a.later(a.call, "terminate", id="j")
    assert ending.waits()
    b.end(end)

    assert ending.get()
    assert a.one("select (select count(*) from inbox) + (select count(*) from conditions)") == 0


@ENDS
def test_writer_that_waited_for_withdrawal_wakes_no_task(a: Session, b: Session, end: str) -> None:
    """[P5] Only if the withdrawal is rolled back, the condition is answered."""
    task = a.held("j")
    a.advance(task.keep(requests=[ONE]))
    a.begin()
    assert a.advance(task.park("go", cancels=["u#1"])).state == "parked"
    writing = b.later(b.call, "entity_set", id="j", path="n", value=1)
    assert writing.waits()
    a.end(end)
    writing.get()

    assert a.state("j") == ("parked" if end == "commit" else "held")
    assert a.one("select count(*) from inbox") == (0 if end == "commit" else 1)


@ENDS
def test_withdrawal_that_waited_for_writer_gets_answer(a: Session, b: Session, end: str) -> None:
    """[P5] [P8] The write came first; the task drops the answer that it no longer wants."""
    task = a.held("j")
    a.advance(task.keep(requests=[ONE]))
    b.begin()
    b.call("entity_set", id="j", path="n", value=1)
    turn = task.park("go", cancels=["u#1"])
    assert a.advance(turn).state == "busy"
    parking = a.later(a.advance, turn, waiting=True)
    assert parking.waits()
    b.end(end)

    parked = parking.get()
    assert keys_of(parked.messages) == (["u#1"] if end == "commit" else [])
    if end == "commit":
        dropped = take(*parked.messages) | {"kind": "dropped"}
        assert a.advance(task.park("go", facts=[dropped])).state == "parked"


def test_repeated_park_is_parked_even_if_task_is_due(a: Session, write: Write) -> None:
    """[P12] The reply to the first park was lost. The answer arrives with the next claim."""
    assert a.advance(write.park).state == "parked"
    write.do()

    assert a.advance(write.park).state == "parked"

    assert gets_one_answer(a)


# Clients that watch


@pytest.mark.direct("it listens")
@ENDS
def test_client_that_watches_gets_hint_for_every_change(a: Session, b: Session, end: str) -> None:
    """[P11] The writer waits for the open entity_watch(), and reads under the lock who listens."""
    a.start("j")
    channel = a.call("channel")
    a.run(f'listen "{channel}"')
    a.begin()
    assert a.call("entity_watch", id="j", listener="client") == 0
    writing = b.later(b.call, "entity_set", id="j", path="n", value=1)
    assert writing.waits()
    a.end(end)
    writing.get()
    b.call("entity_set", id="j", path="n", value=2)

    received = [notice.payload for notice in a.connection.notifies(timeout=0.2, stop_after=2)]
    a.run("unlisten *")
    assert received == (["$memory/j"] * 2 if end == "commit" else [])
    assert a.one("select watched from jobs") == (end == "commit")


def test_watching_does_not_wait_for_open_transaction(a: Session, b: Session) -> None:
    """entity_watch() returns null instead, and the client repeats it."""
    a.start("j")
    b.begin()
    b.call("entity_set", id="j", path="n", value=1)

    assert a.call("entity_watch", id="j", listener="client") is None

    b.commit()
    assert a.call("entity_watch", id="j", listener="client") == 1
    b.begin()
    b.call("entity_set", id="j", path="n", value=2)
    assert a.call("entity_watch", id="j", listener="client") == 1  # it is a listener already
    b.commit()


# Isolation levels above read committed


OLD_SNAPSHOTS: dict[str, Callable[[Session], Any]] = {
    "a command": lambda who: who.call("entity_set", id="j", path="n", value=1),
    "a plain UPDATE": lambda who: who.run("update jobs set context = '{\"n\": 1}'"),
    "a signal": lambda who: who.signal("j", "go"),
}


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
@pytest.mark.parametrize("writer", OLD_SNAPSHOTS)
def test_writer_with_old_snapshot_gets_serialization_failure(
    a: Session, b: Session, isolation: str, writer: str
) -> None:
    """[P5] (E7) Otherwise it would not see the new condition, and the wake-up would be lost."""
    task = a.held("j")
    a.advance(task.keep(requests=[until("$.other == 1", "x#1")]))
    b.run(f"begin isolation level {isolation}")
    b.memory("j")  # the snapshot is from here
    a.begin()
    assert a.advance(task.park("go", requests=[ONE])).state == "parked"
    writing = b.later(OLD_SNAPSHOTS[writer], b)
    assert writing.waits()
    a.commit()

    assert isinstance(writing.error(), psycopg.errors.SerializationFailure)

    b.rollback()
    OLD_SNAPSHOTS[writer](b)
    assert a.state("j") == "ready"


# All of it at random


def wait_at_random(session: Session, chance: random.Random, goes_on: Callable[[], bool]) -> int:
    """Be a worker whose tasks wait for one condition after another; count the messages they get."""
    received = 0
    while goes_on():
        for claimed in session.claim("q", lease_for="1 h"):
            task, messages, state = claimed, claimed.row["messages"], "keep"
            while state == "keep":  # messages have arrived
                received += len(messages)
                facts = [take(message) for message in messages]
                ask = until(f"$.n == {chance.randrange(4)}", f"u#{task.position + len(facts)}")
                turn = task.park("go", facts=facts, requests=[ask])
                answer = session.advance(turn, waiting=True)
                task, messages, state = task.told(len(facts)), answer.messages, answer.state
            if state == "stale":  # another task took the signal
                session.release(claimed)
    return received


def write_at_random(session: Session, chance: random.Random, rounds: int) -> int:
    """Be a client that writes two memories in all ways."""
    for _ in range(rounds):
        job, n = chance.choice(["j", "k"]), chance.randrange(4)
        match chance.randrange(6):
            case 0:
                session.call("entity_set", id=job, path="n", value=n)
            case 1:
                session.run(
                    "update jobs set context = jsonb_build_object('n', %s::int) where id = %s",
                    n,
                    job,
                )
            case 2:
                commands = [{"op": "set", "path": "n", "value": v} for v in (n, (n + 1) % 4)]
                session.run(
                    "select entity_apply(%s, %s::jsonb)", job, psycopg.types.json.Jsonb(commands)
                )
            case 3:
                session.signal(job, "go", n)
            case 4:
                session.call("entity_watch", id=job, listener=session.name)
            case 5:
                session.call("stop_listening", listener=session.name)
    return 0


def test_random_writers_and_waiters_lose_no_wake_up(stage: Any) -> None:
    """[P5] [P8] Nothing deadlocks, no invariant breaks, and in the end every task can be woken."""
    sessions = stage.sessions(4)
    for job in ("j", "k"):
        sessions[0].start(job, queue="q")
        for key in ("a", "b"):
            sessions[0].call("hook", id=job, name="h", key=key, queue="q")
    one, two, three, four = chances(4)
    left = [150, 150]

    def write_rounds(place: int, session: Session, chance: random.Random) -> int:
        try:
            return write_at_random(session, chance, left[place])
        finally:
            left[place] = 0

    counts = together(
        lambda: wait_at_random(sessions[0], one, lambda: any(left)),
        lambda: wait_at_random(sessions[1], two, lambda: any(left)),
        lambda: write_rounds(0, sessions[2], three),
        lambda: write_rounds(1, sessions[3], four),
    )

    assert sum(counts) > 0
    assert sessions[0].broken() == []
    for n in range(4):
        for job in ("j", "k"):
            sessions[2].call("entity_set", id=job, path="n", value=n)
    assert len(sessions[0].claim("q")) == 6
