"""A task waits for people while they claim and resolve: nothing is lost, nobody decides twice.
[P5] [P8] [P12] (E19)

Resolving against parking, against the end of the wait and of the task, against other people; with
the transaction of either side open until it commits or rolls back.
"""

from __future__ import annotations

import psycopg
import pytest

from tests.races.sessions import Session, item, take, together

ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])
HOLDS = ("keep", "parked")


def open_item(session: Session, job: str = "j") -> str:
    """Let a task that is held ask people; give the item."""
    task = session.held(job)
    session.advance(task.keep(requests=[item()]))
    return session.item_of(job)


def code_of(error: BaseException | None) -> str | None:
    """Give the code of a refusal."""
    return error.sqlstate if isinstance(error, psycopg.Error) else None


# Parking


@ENDS
def test_a_park_is_busy_while_somebody_resolves(a: Session, b: Session, end: str) -> None:
    """[P5]: the batch never waits; a waiting one finds the answer, or sleeps."""
    task = a.held("j")
    a.advance(task.keep(requests=[item()]))
    b.begin()
    b.resolve(a.item_of("j"))
    turn = task.park(requests=[item()])
    assert a.advance(turn).state == "busy"
    parking = a.later(a.advance, turn, waiting=True)
    assert parking.waits()
    b.end(end)

    parked = parking.get()
    assert parked.payloads == (["yes"] if end == "commit" else [])
    assert a.one("select count(*) from items") == 1
    if end == "rollback":
        b.resolve(a.item_of("j"))
        assert a.claim_one("j").messages == ["yes"]


@ENDS
def test_who_resolves_waits_for_an_open_park_and_wakes_it(a: Session, b: Session, end: str) -> None:
    """[P5]: no wake-up is lost; what was rolled back is still held."""
    task = a.held("j")
    a.advance(task.keep(requests=[item()]))
    a.begin()
    assert a.advance(task.park()).state == "parked"
    resolving = b.later(b.resolve, a.item_of("j"))
    assert resolving.waits()
    a.end(end)
    assert resolving.get() == "b"

    if end == "commit":
        assert a.claim_one("j").messages == ["yes"]
        return
    assert a.state("j") == "held"
    assert a.advance(task.park()).payloads == ["yes"]


@ENDS
def test_what_is_asked_in_an_open_transaction_nobody_sees(a: Session, b: Session, end: str) -> None:
    """[P8]: neither the item nor the park is there before the commit."""
    task = a.held("j")
    a.begin()
    assert a.advance(task.park(requests=[item()])).state == "parked"
    asked = a.item_of("j")
    assert code_of(b.later(b.resolve, asked).error()) == "PD411"
    assert b.rows("list_items") == []
    a.end(end)

    resolving = b.later(b.resolve, asked)
    if end == "commit":
        assert resolving.get() == "b"
        assert a.claim_one("j").messages == ["yes"]
    else:
        assert code_of(resolving.error()) == "PD411"
        assert a.state("j") == "held"


def test_a_repeated_park_whose_reply_was_lost_asks_once(a: Session, b: Session) -> None:
    """[P12]: also when the item was resolved meanwhile."""
    task = a.held("j")
    turn = task.park(requests=[item()])
    assert [a.advance(turn).state for _ in range(2)] == ["parked", "parked"]
    b.resolve(a.item_of("j"))
    assert a.advance(turn).state == "parked"
    mine = a.claim_one("j")
    assert a.advance(mine.keep(requests=[item()])).state == "keep"
    done = mine.done(None, take(*mine.row["messages"]))
    assert a.advance(done).state == "done"

    assert a.one("select count(*) from items") == 1


# People among themselves


@ENDS
@pytest.mark.parametrize("first", ["claim", "resolve"])
def test_the_first_person_has_it(a: Session, b: Session, c: Session, first: str, end: str) -> None:
    """[P5]: the second waits, then is told; after a rollback he is the first."""
    asked = open_item(a)
    b.begin()
    if first == "claim":
        b.call("claim_item", item=asked, by="b")
    else:
        b.resolve(asked)
    second = c.later(c.resolve, asked, "no")
    assert second.waits()
    b.end(end)

    if end == "rollback":
        assert second.get() == "c"
        return
    assert code_of(second.error()) == ("PD112" if first == "claim" else "PD411")
    assert b.resolve(asked) == "b"
    assert a.run("select payload from inbox") == [("yes",)]


def test_of_many_at_once_one_decides(stage_of_four: list[Session]) -> None:
    """[P5]: all others are told who did, and one answer is left."""
    a, *people = stage_of_four
    for number in range(10):
        asked = open_item(a, f"j{number}")

        def decide(who: Session, asked: str = asked) -> str | None:
            try:
                return who.resolve(asked, who.name)
            except psycopg.Error as error:
                return error.sqlstate

        told = together(*(lambda who=who: decide(who) for who in people))  # type: ignore[misc]

        winners = [name for name in told if name != "PD411"]
        query = "select payload from inbox where job_id = %s"
        assert a.run(query, f"j{number}") == [(winners[0],)]
        assert told.count("PD411") == len(people) - 1


@pytest.fixture
def stage_of_four(a: Session, b: Session, c: Session) -> list[Session]:
    """Give the sessions of a worker and of people."""
    return [a, b, c]


@ENDS
def test_a_release_and_a_claim_at_once(a: Session, b: Session, c: Session, end: str) -> None:
    """A repeated release takes the item from nobody. [P12]"""
    asked = open_item(a)
    b.call("claim_item", item=asked, by="b")
    b.begin()
    b.call("release_item", item=asked, by="b")
    claiming = c.later(c.call, "claim_item", item=asked, by="c")
    assert claiming.waits()
    b.end(end)

    if end == "rollback":
        assert code_of(claiming.error()) == "PD112"
        return
    claiming.get()
    b.call("release_item", item=asked, by="b")
    assert a.one("select claimed_by from items") == "c"


@ENDS
@pytest.mark.parametrize("first", ["assign", "resolve"])
def test_an_assignment_and_a_resolution_at_once(
    a: Session, b: Session, c: Session, first: str, end: str
) -> None:
    """[P5]: an item that is given away is nobody's, so it can be resolved; a resolved one stays."""
    asked = open_item(a)
    b.call("claim_item", item=asked, by="b")
    b.begin()
    if first == "assign":
        b.call("assign_item", item=asked, assignee="legal")
        second = c.later(c.resolve, asked)
    else:
        b.resolve(asked)
        second = c.later(c.call, "assign_item", item=asked, assignee="legal")
    assert second.waits()
    b.end(end)

    refusal = {("assign", "rollback"): "PD112", ("resolve", "commit"): "PD411"}.get((first, end))
    assert code_of(second.error()) == refusal
    assignee, resolved_by = a.run("select assignee, resolved_by from items")[0]
    assert assignee == (None if refusal else "legal")
    assert resolved_by == {"PD112": None, "PD411": "b", None: {"assign": "c"}.get(first)}[refusal]


# Nobody waits any more


@ENDS
@pytest.mark.parametrize("how", ["withdraw", "terminate", "done", "cancelled"])
def test_who_resolves_too_late_is_told(a: Session, b: Session, how: str, end: str) -> None:
    """[P6] [P8]: with the wait goes the item."""
    task = a.held("j")
    a.advance(task.keep(requests=[item()]))
    asked = a.item_of("j")
    a.begin()
    if how == "terminate":
        a.call("terminate", id="j")
    elif how == "withdraw":
        a.advance(task.park("go", cancels=["i#1"]))
    else:
        a.advance(task.turn(how))
    resolving = b.later(b.resolve, asked)
    assert resolving.waits()
    a.end(end)

    if end == "commit":
        assert code_of(resolving.error()) == "PD411"
        assert a.one("select (select count(*) from items) + (select count(*) from inbox)") == 0
    else:
        assert resolving.get() == "b"
        assert a.advance(task.park()).payloads == ["yes"]


@ENDS
@pytest.mark.parametrize("how", ["withdraw", "terminate", "forget"])
def test_who_was_first_is_told_again(a: Session, b: Session, how: str, end: str) -> None:
    """[P5] [P12]: whatever became of the job, until it is forgotten."""
    task = a.held("j")
    a.advance(task.keep(requests=[item()]))
    asked = a.item_of("j")
    b.begin()
    b.resolve(asked)
    if how == "withdraw":
        after = a.later(a.advance, task.park("go", cancels=["i#1"]), waiting=True)
    else:
        after = a.later(a.call, "terminate", id="j")
    assert after.waits()
    b.end(end)
    after.get()
    if how == "forget":
        assert a.call("forget", id="j")

    resolving = b.later(b.resolve, asked)
    if end == "commit" and how != "forget":
        assert resolving.get() == "b"
    else:
        assert code_of(resolving.error()) == "PD411"


@ENDS
def test_a_cancel_and_a_resolution_are_both_told(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P5] (E2)"""
    a.parked("j", requests=[item()])
    b.begin()
    b.resolve(a.item_of("j"))
    cancelling = c.later(c.call, "cancel", id="j")
    assert cancelling.waits()
    b.end(end)
    assert cancelling.get()

    keys = [message["key"] for message in a.claim_one("j").row["messages"]]
    assert keys == (["i#1"] if end == "commit" else []) + ["$cancel"]


@ENDS
def test_a_deadline_and_a_resolution_at_once_are_one_wake_up(
    a: Session, b: Session, end: str
) -> None:
    """[P5] [P7]: the claim of the deadline is open; its holder finds the answer when it parks."""
    a.parked("j", requests=[item()], until="2000-01-01Z")
    a.begin()
    (task,) = a.claim("j")
    resolving = b.later(b.resolve, a.item_of("j"))
    resolving.waits()
    a.end(end)
    assert resolving.get() == "b"

    if end == "rollback":
        assert a.claim_one("j").messages == ["yes"]
        return
    assert b.claim("j") == []
    assert a.advance(task.park()).payloads == ["yes"]


def test_with_an_old_snapshot_nobody_resolves(a: Session, b: Session) -> None:
    """[P5]: the task has parked since, and would not wake: 40001, and the caller tries again."""
    task = a.held("j")
    a.advance(task.keep(requests=[item()]))
    asked = a.item_of("j")
    b.run("begin isolation level repeatable read")
    b.run("select from jobs")
    assert a.advance(task.park()).state == "parked"
    assert code_of(b.later(b.resolve, asked).error()) == "40001"
    b.rollback()

    assert b.resolve(asked) == "b"
    assert a.claim_one("j").messages == ["yes"]
