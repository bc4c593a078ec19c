"""Two tasks of one job wait for the same signal: one takes it, the other goes on waiting. [P5]"""

from __future__ import annotations

import pytest

from tests.races.sessions import Json, Session, Task, activity, hook, take


def two_hooks(a: Session) -> list[Task]:
    """Give two hooks of one job, both held by one worker."""
    coordinator = a.held("j")
    a.advance(coordinator.park(requests=[hook("h#1"), hook("h#2")]))
    return sorted(a.claim("hooks"), key=lambda task: task.task)


def shown_to_both(a: Session, hooks: list[Task]) -> Json:
    """Let both hooks see the same signal."""
    first, second = (a.advance(task.park("go")) for task in hooks)
    assert first.state == second.state == "keep"
    assert first.messages == second.messages
    (message,) = first.messages
    return message


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first wins", "second wins"])
def test_first_task_that_takes_signal_gets_it_and_other_turn_is_stale(
    a: Session, b: Session, order: tuple[int, int]
) -> None:
    """[P5] (C43) Also if the second turn comes from another connection."""
    hooks = two_hooks(a)
    a.signal("j", "go", 1)
    message = shown_to_both(a, hooks)
    winner, loser = (hooks[place] for place in order)

    assert a.advance(winner.keep(take(message))).state == "keep"
    assert b.advance(loser.keep(take(message))).state == "stale"

    assert a.one("select task from journal where kind = 'signal'") == winner.task
    assert b.advance(loser.park("go")).state == "parked"
    assert a.state("j", loser.task) == "parked"


def test_answer_is_taken_once(a: Session, b: Session) -> None:
    """[P5] It is gone, and a later turn that takes it again is stale."""
    coordinator = a.held("j")
    a.advance(coordinator.keep(requests=[hook("h#1")]))
    b.advance(b.claim_one("hooks").done("once"))
    (message,) = a.advance(coordinator.keep(awaits=[])).messages

    assert a.advance(coordinator.keep(take(message))).state == "keep"
    assert a.advance(coordinator.told().keep(take(message))).state == "stale"

    assert a.one("select count(*) from journal where kind = 'answer'") == 1


def test_request_to_cancel_is_taken_once(a: Session, b: Session) -> None:
    """[P5] It stays, since it counts for the tasks beneath, but a later turn that takes it again is
    stale.
    """
    coordinator = a.held("j")
    b.call("cancel", id="j")
    (message,) = a.advance(coordinator.keep(awaits=[])).messages

    assert a.advance(coordinator.keep(take(message))).state == "keep"
    assert a.advance(coordinator.told().keep(take(message))).state == "stale"

    assert a.one("select count(*) from journal where kind = 'cancel'") == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "reversed"])
def test_batch_gives_signal_to_first_turn_that_takes_it(a: Session, order: tuple[int, int]) -> None:
    """[P5] The second turn in the batch is stale."""
    hooks = two_hooks(a)
    a.signal("j", "go", 1)
    message = shown_to_both(a, hooks)

    reply = a.advance_all([hooks[place].keep(take(message)) for place in order])

    assert reply.states == ["keep", "stale"]
    assert a.one("select task from journal where kind = 'signal'") == hooks[order[0]].task


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_second_task_gets_signal_only_if_first_rolls_back(a: Session, b: Session, end: str) -> None:
    """[P5] Whether the message is still open is read under the lock."""
    hooks = two_hooks(a)
    a.signal("j", "go", 1)
    message = shown_to_both(a, hooks)
    a.begin()
    assert a.advance(hooks[0].keep(take(message))).state == "keep"
    assert b.advance(hooks[1].keep(take(message))).state == "busy"
    taking = b.later(b.advance, hooks[1].keep(take(message)), waiting=True)
    assert taking.waits()
    a.end(end)

    assert taking.get().state == ("stale" if end == "commit" else "keep")
    assert a.one("select count(*) from journal where kind = 'signal'") == 1


def test_stale_turn_has_no_effect(a: Session) -> None:
    """[P5] [P12] None of its facts, requests and commands is recorded, and the lease is kept."""
    hooks = two_hooks(a)
    a.signal("j", "go", 1)
    message = shown_to_both(a, hooks)
    a.advance(hooks[0].keep(take(message)))
    before = a.everything()

    turn = hooks[1].keep(activity("step#1"), take(message), requests=[hook("x#1")], awaits=["go"])
    assert a.advance(turn).state == "stale"

    assert a.everything() == before
    assert a.advance(hooks[1].done("x")).state == "done"


def test_two_parked_tasks_take_one_of_two_signals_each(a: Session, b: Session) -> None:
    """[P5] (C43) (C51) The first signal wakes both; the task that does not get it parks again."""
    hooks = two_hooks(a)
    assert a.advance_all([task.park("go") for task in hooks]).states == ["parked", "parked"]

    b.signal("j", "go", 1)
    one, two = sorted(a.claim("hooks"), key=lambda task: task.task)
    assert (one.messages, two.messages) == ([1], [1])
    assert a.advance(one.done(1, take(one.row["messages"][0]))).state == "done"
    assert a.advance(two.park("go")).state == "parked"
    b.signal("j", "go", 2)
    (two,) = a.claim("hooks")
    assert two.messages == [2]
    assert a.advance(two.done(2, take(two.row["messages"][0]))).state == "done"


def test_signals_of_one_name_are_delivered_in_order_of_acceptance(
    a: Session, b: Session, c: Session
) -> None:
    """[P5] The second sender waits for the first, which sends another signal before it commits."""
    task = a.parked("j", "go")
    b.begin()
    b.signal("j", "go", 1)
    second = c.later(c.signal, "j", "go", 2)
    assert second.waits()
    b.signal("j", "go", 1.5)
    b.commit()
    second.get()

    assert a.claim_one("j").messages == [1, 1.5, 2]
    assert task.job == "j"
