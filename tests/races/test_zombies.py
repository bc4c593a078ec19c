"""A holder that lost its lease speaks late: not a row of any table changes. [P6]"""

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
    """Another worker has claimed the task after its lease had ended."""
    b.stolen(task)


def parked_and_claimed(a: Session, b: Session, task: Task) -> None:
    """The task was parked, woken and claimed by another worker: the attempt is the same."""
    a.advance(task.park("wake", facts=[activity("x#1")]))
    b.signal("j", "wake")
    b.claim_one("j")


def parked_and_claimed_by_the_same(a: Session, b: Session, task: Task) -> None:
    """The task was parked, woken and claimed by the same worker: each claim has its own token."""
    a.advance(task.park("wake"))
    b.signal("j", "wake")
    a.claim_one("j")


def parked(a: Session, b: Session, task: Task) -> None:
    """The task was parked and sleeps."""
    a.advance(task.park("nothing yet"))


def released_and_claimed(a: Session, b: Session, task: Task) -> None:
    """The lease was given back, and another worker has it."""
    a.release(task)
    b.claim_one("j")


def terminated(a: Session, b: Session, task: Task) -> None:
    """Somebody has ended the job."""
    b.call("terminate", id="j")


def finished(a: Session, b: Session, task: Task) -> None:
    """Another worker has stolen the task and finished it."""
    b.advance(b.stolen(task).done("b", command("set", "by", "b")))


def resumed(a: Session, b: Session, task: Task) -> None:
    """The task was stuck, and an operator has let it go on."""
    a.advance(task.turn("stuck", value={"message": "?"}))
    b.call("resume", id="j")


def resumed_and_claimed(a: Session, b: Session, task: Task) -> None:
    """The task was stuck, resumed, and claimed by another worker."""
    resumed(a, b, task)
    b.claim_one("j")


STORIES = (
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


def dead(a: Session, b: Session, story: Callable[[Session, Session, Task], None]) -> Task:
    """Give a lease that has ended in this way."""
    a.held("other")
    task = a.held("j")
    b.signal("j", "go", 1)  # message 1
    story(a, b, task)
    return task


@pytest.fixture(params=STORIES, ids=lambda story: story.__name__)
def zombie(request: pytest.FixtureRequest, a: Session, b: Session) -> Task:
    """Give a lease that has ended in each of the ways in which one can end."""
    return dead(a, b, request.param)


@pytest.mark.parametrize("waiting", [False, True], ids=["at once", "waiting"])
def test_nothing_of_a_late_turn_has_any_effect(a: Session, zombie: Task, waiting: bool) -> None:
    """[P6] (C4): whatever it says, however it asks."""
    before = a.everything()

    for name, turn in LATE_TURNS.items():
        late = a.advance(turn(zombie), waiting=waiting)
        assert (name, late.state in {"fenced", "gone", "parked"}) == (name, True)
        assert (name, late.answers, late.messages) == (name, [], [])

    assert a.everything() == before


def test_a_batch_of_late_turns_leaves_its_neighbours_alone(a: Session, zombie: Task) -> None:
    """[P6]: a good turn in the same batch is applied, the others are not."""
    good = a.held("good")
    turns = [turn(zombie) for turn in LATE_TURNS.values()]

    reply = a.advance_all([*turns[:5], good.done("good"), *turns[5:]])

    assert reply.states[5] == "done"
    assert not {"done", "keep", "retry"} & set(reply.states[:5] + reply.states[6:])
    assert a.status("good") == "completed"
    assert a.one("select count(*) from journal where value @> '\"zombie\"'") == 0


def test_a_late_heartbeat_renews_nothing(a: Session, zombie: Task) -> None:
    """[P6]: and says that the lease is lost."""
    before = a.everything()

    assert a.extend(zombie) == ["lost"]

    assert a.everything() == before


def test_a_late_release_gives_back_nothing(a: Session, zombie: Task) -> None:
    """[P6]: what another worker holds stays held."""
    before = a.everything()

    a.release(zombie)

    assert a.everything() == before


# While the new holder's transaction is still open


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_late_turn_waits_for_the_claim_that_steals_its_task(
    a: Session, b: Session, end: str
) -> None:
    """[P6]: it is judged by what the lock shows; if the thief fails, the lease is good again."""
    task = a.held("j")
    a.expire(task)
    b.begin()
    assert len(b.claim("j")) == 1
    finishing = a.later(a.advance, task.done("a"))
    assert finishing.waits()
    b.end(end)

    assert finishing.get().state == ("fenced" if end == "commit" else "done")
    assert a.status("j") == ("running" if end == "commit" else "completed")


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_claim_does_not_wait_for_a_turn_that_comes_at_the_last_moment(
    a: Session, b: Session, end: str
) -> None:
    """[P6]: the lease has ended, but its holder was first: the claim passes it by."""
    task = a.held("j")
    a.expire(task)
    a.begin()
    assert a.advance(task.keep(increment("n"))).state == "keep"

    assert b.claim("j") == []

    a.end(end)
    (mine,) = b.claim("j")
    assert mine.position == (1 if end == "commit" else 0)
    assert a.advance(task.told(mine.position).done()).state == "fenced"


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_heartbeat_does_not_wait_and_does_not_lie(a: Session, b: Session, end: str) -> None:
    """[P6]: a locked row is busy, not lost; afterwards the answer is definite."""
    task = a.held("j")
    a.expire(task)
    b.begin()
    b.claim_one("j")

    assert a.extend(task) == ["busy"]

    b.end(end)
    assert a.extend(task) == (["lost"] if end == "commit" else ["held"])


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_late_turn_waits_for_a_terminate_and_is_gone(a: Session, b: Session, end: str) -> None:
    """[P6]: no fact is told after the end."""
    task = a.held("j")
    b.begin()
    b.call("terminate", id="j")
    telling = a.later(a.advance, task.keep(command("set", "n", 1)), waiting=True)
    assert telling.waits()
    b.end(end)

    assert telling.get().state == ("gone" if end == "commit" else "keep")
    assert a.memory("j")[1] == (0 if end == "commit" else 1)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_lease_that_is_renewed_in_time_is_not_claimed(a: Session, b: Session, end: str) -> None:
    """[P6]: the heartbeat moves the end of the lease, if it commits."""
    task = a.held("j")
    a.expire(task)
    a.begin()
    assert a.extend(task) == ["held"]
    assert b.claim("j") == []
    a.end(end)

    assert len(b.claim("j")) == (0 if end == "commit" else 1)
