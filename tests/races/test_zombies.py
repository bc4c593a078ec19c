"""A holder that has lost its lease calls too late: no row of any table changes. [P6]"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.races.sessions import (
    Json,
    Session,
    Task,
    activity,
    child,
    command,
    hook,
    increment,
    send,
    take,
)

FAILURE = {"type": "ValueError", "message": "no"}

LATE_TURNS: dict[str, Callable[[Task], Json]] = {
    "keep": lambda t: t.keep(),
    "a command": lambda t: t.keep(command("set", "zombie", 1)),
    "a fact": lambda t: t.keep(activity("x#1", 1)),
    "a request": lambda t: t.keep(requests=[hook("zombie#1"), child("zombie#2")]),
    "a signal": lambda t: t.keep(send("zombie", 1), send("zombie", 1, target="other")),
    "a message": lambda t: t.keep(take({"id": 1, "key": None, "name": "go"})),
    "a cancel": lambda t: t.keep(cancels=["h#1"]),
    "park": lambda t: t.park("go"),
    "done": lambda t: t.done("zombie", command("set", "zombie", 1)),
    "failed": lambda t: t.turn("failed", value=FAILURE),
    "cancelled": lambda t: t.turn("cancelled", value=FAILURE),
    "retry": lambda t: t.turn("retry", value=FAILURE),
    "continue": lambda t: t.turn("continue", value=["zombie"]),
    "stuck": lambda t: t.turn("stuck", value={"message": "?"}),
    "release": lambda t: t.turn("release"),
    "a later position": lambda t: t.told(7).done("zombie"),
}


def stolen(a: Session, b: Session, task: Task) -> None:
    """Another worker has claimed the task after its lease ended."""
    b.stolen(task)


def parked_and_claimed(a: Session, b: Session, task: Task) -> None:
    """The task was parked, woken and claimed by another worker; the attempt is the same."""
    a.advance(task.park("wake", facts=[activity("x#1")]))
    b.signal("j", "wake")
    b.claim_one("j")


def parked_and_claimed_by_the_same(a: Session, b: Session, task: Task) -> None:
    """The task was parked, woken and claimed by the same worker, with another token."""
    a.advance(task.park("wake"))
    b.signal("j", "wake")
    a.claim_one("j")


def parked(a: Session, b: Session, task: Task) -> None:
    """The task is parked."""
    a.advance(task.park("nothing yet"))


def released_and_claimed(a: Session, b: Session, task: Task) -> None:
    """The task was given back, and claimed by another worker."""
    a.release(task)
    b.claim_one("j")


def terminated(a: Session, b: Session, task: Task) -> None:
    """A client has terminated the job."""
    b.call("terminate", id="j")


def finished(a: Session, b: Session, task: Task) -> None:
    """Another worker has claimed the task and ended it."""
    b.advance(b.stolen(task).done("b", command("set", "by", "b")))


def resumed(a: Session, b: Session, task: Task) -> None:
    """The task was stuck, and an operator has resumed it."""
    a.advance(task.turn("stuck", value={"message": "?"}))
    b.call("resume", id="j")


def resumed_and_claimed(a: Session, b: Session, task: Task) -> None:
    """The task was stuck, resumed, and claimed by another worker."""
    resumed(a, b, task)
    b.claim_one("j")


LOSSES = (
    stolen,
    parked_and_claimed,
    parked_and_claimed_by_the_same,
    parked,
    released_and_claimed,
    terminated,
    finished,
    resumed,
    resumed_and_claimed,
)


def lost_lease(a: Session, b: Session, loss: Callable[[Session, Session, Task], None]) -> Task:
    """Give a lease that was lost in this way."""
    a.held("other")
    task = a.held("j")
    b.signal("j", "go", 1)  # message 1
    loss(a, b, task)
    return task


@pytest.fixture(params=LOSSES, ids=lambda loss: loss.__name__)
def zombie(request: pytest.FixtureRequest, a: Session, b: Session) -> Task:
    """Give a lease that was lost, in each way in which that can happen."""
    return lost_lease(a, b, request.param)


@pytest.mark.parametrize("waiting", [False, True], ids=["at once", "waiting"])
def test_late_turn_has_no_effect(a: Session, zombie: Task, waiting: bool) -> None:
    """[P6] (C4) Whatever the turn contains, and whether or not it waits for locks."""
    before = a.everything()

    for name, turn in LATE_TURNS.items():
        late = a.advance(turn(zombie), waiting=waiting)
        assert (name, late.state in {"fenced", "gone", "parked"}) == (name, True)
        assert (name, late.answers, late.messages) == (name, [], [])

    assert a.everything() == before


def test_late_turns_do_not_harm_good_turn_in_their_batch(a: Session, zombie: Task) -> None:
    """[P6] The good turn is applied, the others are not."""
    good = a.held("good")
    turns = [turn(zombie) for turn in LATE_TURNS.values()]

    reply = a.advance_all([*turns[:5], good.done("good"), *turns[5:]])

    assert reply.states[5] == "done"
    assert not {"done", "keep", "retry"} & set(reply.states[:5] + reply.states[6:])
    assert a.status("good") == "completed"
    assert a.one("select count(*) from journal where value @> '\"zombie\"'") == 0


def test_late_heartbeat_is_answered_lost_and_renews_nothing(a: Session, zombie: Task) -> None:
    """[P6] A worker learns in this way that it has lost the task."""
    before = a.everything()

    assert a.extend(zombie) == ["lost"]

    assert a.everything() == before


def test_late_release_releases_nothing(a: Session, zombie: Task) -> None:
    """[P6] A task that another worker holds stays held."""
    before = a.everything()

    a.release(zombie)

    assert a.everything() == before


# Calls beside an open transaction of the new holder

LIMITS = pytest.mark.parametrize(
    "limits",
    [{}, {"max_running": 1}, {"max_per_key": 1}],
    ids=["no limits", "a limit", "a limit per key"],
)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_late_turn_waits_for_open_claim_of_its_task(a: Session, b: Session, end: str) -> None:
    """[P6] It is checked under the lock; if the claim is rolled back, the lease is good again."""
    task = a.held("j")
    a.expire(task)
    b.begin()
    assert len(b.claim("j")) == 1
    finishing = a.later(a.advance, task.done("a"))
    assert finishing.waits()
    b.end(end)

    assert finishing.get().state == ("fenced" if end == "commit" else "done")
    assert a.status("j") == ("running" if end == "commit" else "completed")


@LIMITS
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_claim_skips_task_whose_holder_was_just_in_time(
    a: Session, b: Session, end: str, limits: dict[str, int]
) -> None:
    """[P6] The lease had ended, but the holder's turn came first; the next claim takes the task."""
    a.call("set_queue", queue="j", **limits)
    task = a.held("j")
    a.expire(task)
    a.begin()
    assert a.advance(task.keep(increment("n"))).state == "keep"

    assert b.claim("j") == []

    a.end(end)
    (claimed,) = b.claim("j")
    assert claimed.position == (1 if end == "commit" else 0)
    assert a.advance(task.told(claimed.position).done()).state == "fenced"


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_heartbeat_during_open_claim_is_busy_not_lost(a: Session, b: Session, end: str) -> None:
    """[P6] It does not wait; after the transaction its answer is `lost` or `held`."""
    task = a.held("j")
    a.expire(task)
    b.begin()
    b.claim_one("j")

    assert a.extend(task) == ["busy"]

    b.end(end)
    assert a.extend(task) == (["lost"] if end == "commit" else ["held"])


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_late_release_waits_for_open_claim_of_its_task(a: Session, b: Session, end: str) -> None:
    """[P6] A task that another worker has claimed meanwhile stays held."""
    task = a.held("j")
    a.expire(task)
    b.begin()
    claimed = b.claim_one("j")
    releasing = a.later(a.release, task)
    assert releasing.waits()
    b.end(end)

    assert releasing.get() == ["lost" if end == "commit" else "released"]
    assert a.state("j") == ("held" if end == "commit" else "ready")
    assert b.extend(claimed) == ["held" if end == "commit" else "lost"]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_late_turn_waits_for_a_terminate_and_is_gone(a: Session, b: Session, end: str) -> None:
    """[P6] No fact is recorded after the end of a job."""
    task = a.held("j")
    b.begin()
    b.call("terminate", id="j")
    advancing = a.later(a.advance, task.keep(command("set", "n", 1)), waiting=True)
    assert advancing.waits()
    b.end(end)

    assert advancing.get().state == ("gone" if end == "commit" else "keep")
    assert a.memory("j")[1] == (0 if end == "commit" else 1)


@LIMITS
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_lease_that_is_being_renewed_is_not_claimed(
    a: Session, b: Session, end: str, limits: dict[str, int]
) -> None:
    """[P6] After a rollback of the heartbeat, the expired lease is claimed."""
    a.call("set_queue", queue="j", **limits)
    task = a.held("j")
    a.expire(task)
    a.begin()
    assert a.extend(task) == ["held"]
    assert b.claim("j") == []
    a.end(end)

    assert len(b.claim("j")) == (0 if end == "commit" else 1)
