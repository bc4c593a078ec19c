"""A task waits for people who claim and resolve: nothing is lost, and only one person decides.

Resolving races the park, the end of the wait, the end of the task and other people; the transaction
of either side stays open until it commits or rolls back. [P5] [P8] [P12] (E19)
"""

from __future__ import annotations

import psycopg
import pytest

from tests.races.sessions import Session, item, take, together

ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])
HOLDS = ("keep", "parked")


def open_item(session: Session, job: str = "j") -> str:
    """Let a held task request an item; give its id."""
    task = session.held(job)
    session.advance(task.keep(requests=[item()]))
    return session.item_of(job)


def code_of(error: BaseException | None) -> str | None:
    """Give the code of an error."""
    return error.sqlstate if isinstance(error, psycopg.Error) else None


# Parking


@ENDS
def test_park_is_busy_while_resolution_is_uncommitted(a: Session, b: Session, end: str) -> None:
    """[P5] A batch never waits; a park that waits gets the answer, or parks after a rollback."""
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
def test_resolution_waits_for_open_park_and_wakes_task(a: Session, b: Session, end: str) -> None:
    """[P5] If the park is rolled back, the next park of the holder gets the answer."""
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
def test_item_of_open_transaction_is_not_visible(a: Session, b: Session, end: str) -> None:
    """[P8] Before the commit it can be neither listed nor resolved (PD411)."""
    task = a.held("j")
    a.begin()
    assert a.advance(task.park(requests=[item()])).state == "parked"
    item_id = a.item_of("j")
    assert code_of(b.later(b.resolve, item_id).error()) == "PD411"
    assert b.rows("list_items") == []
    a.end(end)

    resolving = b.later(b.resolve, item_id)
    if end == "commit":
        assert resolving.get() == "b"
        assert a.claim_one("j").messages == ["yes"]
    else:
        assert code_of(resolving.error()) == "PD411"
        assert a.state("j") == "held"


def test_repeated_park_creates_one_item(a: Session, b: Session) -> None:
    """[P12] Also if the item was resolved meanwhile."""
    task = a.held("j")
    turn = task.park(requests=[item()])
    assert [a.advance(turn).state for _ in range(2)] == ["parked", "parked"]
    b.resolve(a.item_of("j"))
    assert a.advance(turn).state == "parked"
    held = a.claim_one("j")
    assert a.advance(held.keep(requests=[item()])).state == "keep"
    done = held.done(None, take(*held.row["messages"]))
    assert a.advance(done).state == "done"

    assert a.one("select count(*) from items") == 1


# Several people


@ENDS
@pytest.mark.parametrize("first", ["claim", "resolve"])
def test_first_person_to_claim_or_resolve_item_wins(
    a: Session, b: Session, c: Session, first: str, end: str
) -> None:
    """[P5] The second person waits, and succeeds only if the first rolls back."""
    item_id = open_item(a)
    b.begin()
    if first == "claim":
        b.call("claim_item", item=item_id, by="b")
    else:
        b.resolve(item_id)
    second = c.later(c.resolve, item_id, "no")
    assert second.waits()
    b.end(end)

    if end == "rollback":
        assert second.get() == "c"
        return
    assert code_of(second.error()) == ("PD112" if first == "claim" else "PD411")
    assert b.resolve(item_id) == "b"
    assert a.run("select payload from inbox") == [("yes",)]


def test_concurrent_resolutions_of_item_leave_one_answer(
    worker_and_people: list[Session],
) -> None:
    """[P5] All other people get the error PD411."""
    a, *people = worker_and_people
    for number in range(10):
        item_id = open_item(a, f"j{number}")

        def decide(who: Session, item_id: str = item_id) -> str | None:
            try:
                return who.resolve(item_id, who.name)
            except psycopg.Error as error:
                return error.sqlstate

        results = together(*(lambda who=who: decide(who) for who in people))  # type: ignore[misc]

        winners = [name for name in results if name != "PD411"]
        query = "select payload from inbox where job_id = %s"
        assert a.run(query, f"j{number}") == [(winners[0],)]
        assert results.count("PD411") == len(people) - 1


@pytest.fixture
def worker_and_people(a: Session, b: Session, c: Session) -> list[Session]:
    """Give the session of a worker and those of two people."""
    return [a, b, c]


@ENDS
def test_claim_waits_for_uncommitted_release_of_item(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P12] A repeated release does not take the item from the next person."""
    item_id = open_item(a)
    b.call("claim_item", item=item_id, by="b")
    b.begin()
    b.call("release_item", item=item_id, by="b")
    claiming = c.later(c.call, "claim_item", item=item_id, by="c")
    assert claiming.waits()
    b.end(end)

    if end == "rollback":
        assert code_of(claiming.error()) == "PD112"
        return
    claiming.get()
    b.call("release_item", item=item_id, by="b")
    assert a.one("select claimed_by from items") == "c"


@ENDS
@pytest.mark.parametrize("first", ["assign", "resolve"])
def test_second_of_assignment_and_resolution_waits(
    a: Session, b: Session, c: Session, first: str, end: str
) -> None:
    """[P5] Anyone may resolve an item that was assigned; a resolved item cannot be assigned."""
    item_id = open_item(a)
    b.call("claim_item", item=item_id, by="b")
    b.begin()
    if first == "assign":
        b.call("assign_item", item=item_id, assignee="legal")
        second = c.later(c.resolve, item_id)
    else:
        b.resolve(item_id)
        second = c.later(c.call, "assign_item", item=item_id, assignee="legal")
    assert second.waits()
    b.end(end)

    refusal = {("assign", "rollback"): "PD112", ("resolve", "commit"): "PD411"}.get((first, end))
    assert code_of(second.error()) == refusal
    assignee, resolved_by = a.run("select assignee, resolved_by from items")[0]
    assert assignee == (None if refusal else "legal")
    assert resolved_by == {"PD112": None, "PD411": "b", None: {"assign": "c"}.get(first)}[refusal]


# The task no longer waits


@ENDS
@pytest.mark.parametrize("how", ["withdraw", "terminate", "done", "cancelled"])
def test_resolution_that_waited_for_end_of_wait_is_refused(
    a: Session, b: Session, how: str, end: str
) -> None:
    """[P6] [P8] An item is deleted with the wait for it."""
    task = a.held("j")
    a.advance(task.keep(requests=[item()]))
    item_id = a.item_of("j")
    a.begin()
    if how == "terminate":
        a.call("terminate", id="j")
    elif how == "withdraw":
        a.advance(task.park("go", cancels=["i#1"]))
    else:
        a.advance(task.turn(how))
    resolving = b.later(b.resolve, item_id)
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
def test_repeated_resolution_succeeds_until_job_is_forgotten(
    a: Session, b: Session, how: str, end: str
) -> None:
    """[P5] [P12] It succeeds even if the task no longer waits, or the job was terminated."""
    task = a.held("j")
    a.advance(task.keep(requests=[item()]))
    item_id = a.item_of("j")
    b.begin()
    b.resolve(item_id)
    if how == "withdraw":
        after = a.later(a.advance, task.park("go", cancels=["i#1"]), waiting=True)
    else:
        after = a.later(a.call, "terminate", id="j")
    assert after.waits()
    b.end(end)
    after.get()
    if how == "forget":
        assert a.call("forget", id="j")

    resolving = b.later(b.resolve, item_id)
    if end == "commit" and how != "forget":
        assert resolving.get() == "b"
    else:
        assert code_of(resolving.error()) == "PD411"


@ENDS
def test_concurrent_cancel_and_resolution_both_reach_task(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P5] (E2) After a rollback of the resolution, only the cancel does."""
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
def test_due_deadline_and_resolution_wake_task_only_once(a: Session, b: Session, end: str) -> None:
    """[P5] [P7] The claim of the deadline is open; its holder gets the answer when it parks."""
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


def test_resolution_with_old_snapshot_gets_serialization_failure(a: Session, b: Session) -> None:
    """[P5] It would not see that the task has parked since, and would not wake it."""
    task = a.held("j")
    a.advance(task.keep(requests=[item()]))
    item_id = a.item_of("j")
    b.run("begin isolation level repeatable read")
    b.run("select from jobs")
    assert a.advance(task.park()).state == "parked"
    assert code_of(b.later(b.resolve, item_id).error()) == "40001"
    b.rollback()

    assert b.resolve(item_id) == "b"
    assert a.claim_one("j").messages == ["yes"]
