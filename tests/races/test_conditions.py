"""A task waits for a condition on its memory while others write it: nothing is lost. [P5] [P8]

Whoever may make it true, before, after and during the park, with the transaction of either side
open until it commits or rolls back; and all else that is done to the job at the same time.
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
class Deed:
    """A task in the hands of one session, and what another does to its memory: once n is 1."""

    task: Task
    do: Callable[[], Any]
    writer: Session

    @property
    def park(self) -> Json:
        """Say the turn that waits for it."""
        return self.task.park(requests=[ONE])


def commanded(a: Session, b: Session) -> Deed:
    """A client sends a command."""
    return Deed(a.held("j"), lambda: b.call("entity_set", id="j", path="n", value=1), b)


def updated(a: Session, b: Session) -> Deed:
    """Somebody writes the row."""
    query = "update jobs set context = '{\"n\": 1}' where id = 'j'"
    return Deed(a.held("j"), lambda: b.run(query), b)


def applied(a: Session, b: Session) -> Deed:
    """A client sends several commands; it is true in the middle only."""
    commands = '[{"op": "set", "path": "n", "value": 1}, {"op": "set", "path": "n", "value": 2}]'
    return Deed(a.held("j"), lambda: b.run("select entity_apply('j', %s)", commands), b)


def restored(a: Session, b: Session) -> Deed:
    """A client restores an old version."""
    task = a.held("j", context={"n": 1})
    a.call("entity_set", id="j", path="n", value=0)
    return Deed(task, lambda: b.call("entity_restore", id="j", version=1), b)


def told(a: Session, b: Session) -> Deed:
    """A hook of the job sends a command, and changes it again in the same turn."""
    task = a.held("j")
    a.advance(task.keep(requests=[hook("h#1")]))
    turn = b.claim_one("hooks").keep(command("set", "n", 1), command("set", "n", 2))
    return Deed(task, lambda: b.advance(turn, waiting=True), b)


def ended(a: Session, b: Session) -> Deed:
    """A hook from outside ends with a command."""
    task = a.held("j")
    b.call("hook", id="j", name="h", queue="hooks")
    turn = b.claim_one("hooks").done(None, command("set", "n", 1))
    return Deed(task, lambda: b.advance(turn, waiting=True), b)


DEEDS: dict[str, Callable[[Session, Session], Deed]] = {
    "a command": commanded,
    "a plain UPDATE": updated,
    "commands, true in the middle": applied,
    "a restore": restored,
    "a turn of a hook": told,
    "the end of a hook": ended,
}
TRUE_AFTERWARDS = {"a command", "a plain UPDATE", "a restore", "the end of a hook"}


@pytest.fixture(params=DEEDS)
def deed(request: pytest.FixtureRequest, a: Session, b: Session) -> Deed:
    """Give each way to make the condition true."""
    return DEEDS[request.param](a, b)


@pytest.fixture(params=sorted(TRUE_AFTERWARDS))
def lasting(request: pytest.FixtureRequest, a: Session, b: Session) -> Deed:
    """Give each way that leaves it true."""
    return DEEDS[request.param](a, b)


def answers(messages: list[Any]) -> list[Any]:
    """Name what was answered."""
    return [message["key"] for message in messages]


def is_told_once(session: Session) -> bool:
    """Tell whether the task is due, with one answer; and let it go on."""
    (task,) = session.claim("j")
    messages = task.row["messages"]
    turn = task.park("next", facts=[take(message) for message in messages])
    return answers(messages) == ["u#1"] and session.advance(turn).state == "parked"


# Before, after and during the park


def test_a_park_that_finds_it_true_goes_on(a: Session, lasting: Deed) -> None:
    """[P5]: what holds already is answered at once."""
    lasting.do()

    parked = a.advance(lasting.park)

    assert (parked.state, answers(parked.messages)) == ("keep", ["u#1"])
    assert a.state("j") == "held"


def test_a_writer_that_comes_after_the_park_wakes_the_task(a: Session, deed: Deed) -> None:
    """[P5] [P8]"""
    assert a.advance(deed.park).state == "parked"
    assert a.claim("j") == []

    deed.do()

    assert is_told_once(a)


def test_a_park_is_busy_while_a_writer_is_open(a: Session, b: Session, deed: Deed) -> None:
    """[P5]: the batch never waits; nothing of a busy turn is applied."""
    b.begin()
    deed.do()

    assert a.advance(deed.park).state == "busy"

    assert a.one("select count(*) from conditions") == 0
    b.rollback()


@ENDS
def test_a_waiting_park_sees_what_an_open_writer_left(
    a: Session, b: Session, lasting: Deed, end: str
) -> None:
    """[P5]: it looks after the lock; after a rollback it waits for the next writer."""
    b.begin()
    lasting.do()
    parking = a.later(a.advance, lasting.park, waiting=True)
    assert parking.waits()
    b.end(end)

    if end == "commit":
        assert answers(parking.get().messages) == ["u#1"]
        return
    assert parking.get().state == "parked"
    lasting.do()
    assert is_told_once(a)


@ENDS
def test_a_writer_waits_for_an_open_park_and_wakes_it(a: Session, deed: Deed, end: str) -> None:
    """[P5]: it looks who waits after the lock; what was rolled back nobody asked for."""
    a.begin()
    assert a.advance(deed.park).state == "parked"
    writing = deed.writer.later(deed.do)
    assert writing.waits()
    a.end(end)
    writing.get()

    if end == "commit":
        assert is_told_once(a)
        return
    assert a.state("j") == "held"
    assert a.one("select count(*) from inbox") == 0
    assert a.advance(deed.park).state in ("keep", "parked")


@ENDS
def test_a_task_that_sleeps_until_a_deadline_is_due_when_the_writer_commits(
    a: Session, b: Session, deed: Deed, end: str
) -> None:
    """[P5] [P7]: nobody sees the open answer; afterwards the task is due once, or sleeps on."""
    a.advance(deed.task.park(requests=[ONE], until="2100-01-01Z"))
    b.begin()
    deed.do()
    assert a.claim("j") == []
    b.end(end)

    assert a.state("j") == ("ready" if end == "commit" else "parked")
    if end == "commit":
        assert is_told_once(a)
        assert a.claim("j") == []


@ENDS
def test_a_deadline_and_a_writer_at_once_are_one_wake_up(
    a: Session, b: Session, deed: Deed, end: str
) -> None:
    """[P5] [P7]: the claim of the deadline is open; its holder finds the answer when it parks."""
    a.advance(deed.task.park(requests=[ONE], until="2000-01-01Z"))
    a.begin()
    (task,) = a.claim("j")
    writing = b.later(deed.do)
    writing.waits()
    a.end(end)
    writing.get()

    if end == "rollback":
        assert is_told_once(a)
        return
    assert b.claim("j") == []
    parked = a.advance(task.park(requests=[ONE]))
    assert (parked.state, answers(parked.messages)) == ("keep", ["u#1"])


def test_what_was_told_is_told_once(a: Session, b: Session) -> None:
    """[P12]: true again, asked again, sent again: there is one answer."""
    task = a.held("j")
    a.advance(task.park(requests=[ONE]))
    for n in (1, 0, 1):
        b.call("entity_set", id="j", path="n", value=n)
    (mine,) = a.claim("j")
    asked = a.advance(mine.keep(requests=[ONE]))
    assert answers(mine.row["messages"]) == ["u#1"]
    assert asked.state == "keep"

    b.call("entity_set", id="j", path="n", value=0)
    turn = mine.park("next", facts=[take(*mine.row["messages"])], requests=[ONE])
    assert [a.advance(turn).state for _ in range(2)] == ["parked", "parked"]

    assert a.one("select count(*) from conditions") == 0
    b.call("entity_set", id="j", path="n", value=1)
    assert a.state("j") == "parked"
    assert a.one("select count(*) from inbox") == 1


# Two writers


@ENDS
def test_true_and_false_from_two_writers_is_true(
    a: Session, b: Session, c: Session, deed: Deed, end: str
) -> None:
    """[P5]: the one waits for the other; once true counts."""
    a.advance(deed.park)
    b.begin()
    deed.do()
    undoing = c.later(c.call, "entity_set", id="j", path="n", value=0)
    assert undoing.waits()
    b.end(end)
    undoing.get()

    if end == "commit":
        assert is_told_once(a)
        return
    assert a.state("j") == "parked"
    deed.do()
    assert is_told_once(a)


@ENDS
def test_the_look_is_not_switched_off_behind_the_back_of_who_asks(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P8]: the last writer switches it off while another task asks; the next one looks."""
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
def test_an_open_park_of_another_task_is_found(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P8]: one writer answers both, though he came while the second was asking."""
    a.parked("j", requests=[ONE])
    c.call("hook", id="j", name="h", queue="hooks")
    asking = c.claim_one("hooks")
    c.begin()
    assert c.advance(asking.park(requests=[until("$.n > 0")])).state == "parked"
    writing = b.later(b.call, "entity_set", id="j", path="n", value=1)
    assert writing.waits()
    c.end(end)
    writing.get()

    assert is_told_once(a)
    assert len(c.claim("hooks")) == (1 if end == "commit" else 0)


# Whatever else is done to the job


@ENDS
@pytest.mark.parametrize("first", ["signal", "writer"])
def test_a_signal_and_a_writer_at_once_are_both_told(
    a: Session, b: Session, c: Session, first: str, end: str
) -> None:
    """[P5]"""
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
def test_a_cancel_and_a_writer_at_once_are_both_told(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P5] (E2)"""
    a.parked("j", requests=[ONE])
    b.begin()
    b.call("entity_set", id="j", path="n", value=1)
    cancelling = c.later(c.call, "cancel", id="j")
    assert cancelling.waits()
    b.end(end)
    assert cancelling.get()

    (task,) = a.claim("j")
    assert answers(task.row["messages"]) == (["u#1"] if end == "commit" else []) + ["$cancel"]


@ENDS
@pytest.mark.parametrize("how", ["terminate", "done"])
def test_a_writer_that_waited_for_the_end_answers_nobody(
    a: Session, b: Session, how: str, end: str
) -> None:
    """[P6] [P8]: with a task ends what it waits for."""
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
def test_an_end_that_waited_for_a_writer_leaves_nothing(a: Session, b: Session, end: str) -> None:
    """[P6] [P8]"""
    a.parked("j", requests=[ONE])
    b.begin()
    b.call("entity_set", id="j", path="n", value=1)
    ending = a.later(a.call, "terminate", id="j")
    assert ending.waits()
    b.end(end)

    assert ending.get()
    assert a.one("select (select count(*) from inbox) + (select count(*) from conditions)") == 0


@ENDS
def test_a_writer_that_waited_for_a_withdrawal_wakes_nobody(
    a: Session, b: Session, end: str
) -> None:
    """[P5]"""
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
def test_a_withdrawal_that_waited_for_the_writer_finds_the_answer(
    a: Session, b: Session, end: str
) -> None:
    """[P5] [P8]: it came first; who no longer wants it drops it."""
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
    assert answers(parked.messages) == (["u#1"] if end == "commit" else [])
    if end == "commit":
        dropped = take(*parked.messages) | {"kind": "dropped"}
        assert a.advance(task.park("go", facts=[dropped])).state == "parked"


def test_a_repeated_park_whose_reply_was_lost_is_told_what_came(a: Session, deed: Deed) -> None:
    """[P12]: parked, though it may be due by now; the answer comes with the next claim."""
    assert a.advance(deed.park).state == "parked"
    deed.do()

    assert a.advance(deed.park).state == "parked"

    assert is_told_once(a)


# Those who watch from outside


@pytest.mark.direct("it listens")
@ENDS
def test_who_watches_is_told_of_every_change(a: Session, b: Session, end: str) -> None:
    """[P11]: the writer waits for who comes to watch, and looks who is there after the lock."""
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

    heard = [notice.payload for notice in a.connection.notifies(timeout=0.2, stop_after=2)]
    a.run("unlisten *")
    assert heard == (["$memory/j"] * 2 if end == "commit" else [])
    assert a.one("select watched from jobs") == (end == "commit")


def test_who_comes_to_watch_does_not_wait_for_an_open_transaction(a: Session, b: Session) -> None:
    """It says null, and asks again."""
    a.start("j")
    b.begin()
    b.call("entity_set", id="j", path="n", value=1)

    assert a.call("entity_watch", id="j", listener="client") is None

    b.commit()
    assert a.call("entity_watch", id="j", listener="client") == 1
    b.begin()
    b.call("entity_set", id="j", path="n", value=2)
    assert a.call("entity_watch", id="j", listener="client") == 1  # it is known already
    b.commit()


# Stronger isolation


OLD_SNAPSHOTS: dict[str, Callable[[Session], Any]] = {
    "a command": lambda who: who.call("entity_set", id="j", path="n", value=1),
    "a plain UPDATE": lambda who: who.run("update jobs set context = '{\"n\": 1}'"),
    "a signal": lambda who: who.signal("j", "go"),
}


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
@pytest.mark.parametrize("what", OLD_SNAPSHOTS)
def test_a_writer_with_an_old_snapshot_is_refused(
    a: Session, b: Session, isolation: str, what: str
) -> None:
    """[P5] (E7): 40001 instead of a lost wake-up, also where the row of the job is as it was."""
    task = a.held("j")
    a.advance(task.keep(requests=[until("$.other == 1", "x#1")]))
    b.run(f"begin isolation level {isolation}")
    b.memory("j")  # the snapshot is from here
    a.begin()
    assert a.advance(task.park("go", requests=[ONE])).state == "parked"
    writing = b.later(OLD_SNAPSHOTS[what], b)
    assert writing.waits()
    a.commit()

    assert isinstance(writing.error(), psycopg.errors.SerializationFailure)

    b.rollback()
    OLD_SNAPSHOTS[what](b)
    assert a.state("j") == "ready"


# All at once


def wait_and_see(session: Session, chance: random.Random, goes_on: Callable[[], bool]) -> int:
    """Be a worker whose tasks wait for one thing after another; count what they were told."""
    heard = 0
    while goes_on():
        for claimed in session.claim("q", lease_for="1 h"):
            task, messages, state = claimed, claimed.row["messages"], "keep"
            while state == "keep":  # mail has come
                heard += len(messages)
                facts = [take(message) for message in messages]
                ask = until(f"$.n == {chance.randrange(4)}", f"u#{task.position + len(facts)}")
                turn = task.park("go", facts=facts, requests=[ask])
                told = session.advance(turn, waiting=True)
                task, messages, state = task.told(len(facts)), told.messages, told.state
            if state == "stale":  # another task has taken the signal
                session.release(claimed)
    return heard


def write_at_random(session: Session, chance: random.Random, rounds: int) -> int:
    """Be clients that write two memories in all ways."""
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


def test_a_storm_of_writers_and_waiters_loses_nothing(stage: Any) -> None:
    """[P5] [P8]: no deadlock, no broken law, and in the end each waits or is due, rightly."""
    sessions = stage.sessions(4)
    for job in ("j", "k"):
        sessions[0].start(job, queue="q")
        for key in ("a", "b"):
            sessions[0].call("hook", id=job, name="h", key=key, queue="q")
    one, two, three, four = chances(4)
    left = [150, 150]

    def write(place: int, session: Session, chance: random.Random) -> int:
        try:
            return write_at_random(session, chance, left[place])
        finally:
            left[place] = 0

    told = together(
        lambda: wait_and_see(sessions[0], one, lambda: any(left)),
        lambda: wait_and_see(sessions[1], two, lambda: any(left)),
        lambda: write(0, sessions[2], three),
        lambda: write(1, sessions[3], four),
    )

    assert sum(told) > 0
    assert sessions[0].broken() == []
    for n in range(4):
        for job in ("j", "k"):
            sessions[2].call("entity_set", id=job, path="n", value=n)
    assert len(sessions[0].claim("q")) == 6
