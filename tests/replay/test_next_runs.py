"""A run that ends as the beginning of the next, and a journal that began as somebody else's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from replay_driver import load, runtime, signal, step
from replay_programs import plus

from perdure.errors import NonDeterminism
from perdure.replay.replay import AsyncRun, Evicted, Fact

ONE = Fact("activity", "plus#1", True, 2, 1_700_000_000_000_001, "plus", "(1, 1)")


def again(args: Any) -> None:
    runtime().run.continue_with(args)


async def loops() -> None:
    step(plus, 5, 5)
    again([await step(plus, 1, 1)])


def plain_loops() -> None:
    again([step(plus, 1, 1)])


@pytest.mark.parametrize("code", [loops, plain_loops])
def test_it_ends_where_the_code_says_so_and_again_when_it_is_replayed(code: Any) -> None:
    """[P9] Also when the last flush was lost."""
    key = "plus#2" if code is loops else "plus#1"
    fact = Fact("activity", key, True, 2, ONE.at, "plus", "(1, 1)")
    for _ in range(2):
        run = load(code, [])
        assert not run.advance()
        run.journal.append(fact)
        assert run.advance()
        assert run.continuation == [2]
        run.close()
        replayed = load(code, [fact])
        assert replayed.advance()
        assert replayed.continuation == [2]
        replayed.close()


def test_what_is_asked_for_after_it_is_refused_and_never_handed_out() -> None:
    refused = 0

    async def stubborn() -> None:
        nonlocal refused
        try:
            again([1])
        finally:
            for _ in range(1500):
                try:
                    asked = step(plus, 1, 1)
                except Evicted:
                    refused += 1
            await asked

    run = load(stubborn, [])
    assert run.advance()
    assert run.continuation == [1]
    assert run.journal.take_requested() == []
    assert refused == 1000
    run.close()


def test_the_others_of_a_group_end_with_it() -> None:
    ended = []

    async def waits() -> None:
        try:
            await signal("never")
        finally:
            ended.append("waits")

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(waits())
            await step(plus, 1, 1)
            again([1])

    run = load(group, [])
    assert not run.advance()
    run.journal.append(ONE)
    assert run.advance()
    assert run.continuation == [1]
    run.close()
    assert ended == ["waits"]


def test_a_journal_that_goes_on_is_other_code() -> None:
    run = load(loops, [Fact("activity", "plus#2", True, 2, ONE.at, "plus", "(1, 1)")] * 2)
    with pytest.raises(NonDeterminism):
        run.advance()
    run.close()


async def names() -> list[Any]:
    first = runtime().run.uuid(), runtime().run.random().random()
    await step(plus, 1, 1)
    second = runtime().run.uuid()
    await step(plus, 1, 1)
    return [first, second, runtime().run.uuid()]


def named(identity: str, past: list[tuple[str, int]]) -> Any:
    """Give the names that the code makes, with a journal that was others' at first."""
    journal = [ONE, Fact("activity", "plus#2", True, 2, ONE.at, "plus", "(1, 1)")]
    made = type("Runtime", (), {"run": None})()
    made.run = AsyncRun(
        names, identity=identity, journal=journal, started_at=0, runtime=made, past=past
    )
    assert made.run.advance()
    told = made.run.outcome()
    made.run.close()
    return told


def test_what_a_fork_was_told_is_named_as_it_was_and_the_rest_is_its_own() -> None:
    """[P9] (E9)"""
    a, b = named("a", []), named("b", [])
    assert all(one != other for one, other in zip(a, b, strict=True))
    assert named("b", [("a", 0)]) == b
    assert named("b", [("a", 1)]) == [a[0], *b[1:]]
    assert named("b", [("a", 2)]) == [*a[:2], b[2]]
    assert named("c", [("a", 1), ("b", 2)]) == [a[0], b[1], named("c", [])[2]]


async def set_order() -> list[int]:
    asked = {step(plus, number, number): number for number in range(5)}
    return [asked[one] for one in set(asked)]


def order_of(identity: str, past: list[tuple[str, int]]) -> Any:
    """Give the order in which a set gives what the code has asked for."""
    made = type("Runtime", (), {"run": None})()
    made.run = AsyncRun(
        set_order, identity=identity, journal=[], started_at=0, runtime=made, past=past
    )
    assert made.run.advance()
    order = made.run.outcome()
    made.run.close()
    return order


def test_a_fork_sees_sets_in_the_order_in_which_the_other_saw_them() -> None:
    """[P9] (E9)"""
    others = {identity: order_of(identity, []) for identity in "abcdefgh"}
    assert len({tuple(order) for order in others.values()}) > 1
    assert all(order_of("fork", [(name, 1)]) == order for name, order in others.items())
