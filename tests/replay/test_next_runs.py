"""A run can end by continuing as the next one, and a fork replays the journal of another job
first."""

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
def test_run_ends_at_continue_as_new_live_and_on_replay(code: Any) -> None:
    """[P9] A replay ends there too, as is needed when the last flush was lost."""
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


def test_requests_after_continue_as_new_are_refused() -> None:
    refused = 0

    async def stubborn() -> None:
        nonlocal refused
        try:
            again([1])
        finally:
            for _ in range(1500):
                try:
                    requested = step(plus, 1, 1)
                except Evicted:
                    refused += 1
            await requested

    run = load(stubborn, [])
    assert run.advance()
    assert run.continuation == [1]
    assert run.journal.take_requested() == []
    assert refused == 1000
    run.close()


def test_continue_as_new_ends_the_other_tasks_of_a_group() -> None:
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


def test_facts_after_continue_as_new_raise_nondeterminism() -> None:
    run = load(loops, [Fact("activity", "plus#2", True, 2, ONE.at, "plus", "(1, 1)")] * 2)
    with pytest.raises(NonDeterminism):
        run.advance()
    run.close()


async def draw() -> list[Any]:
    first = runtime().run.uuid(), runtime().run.random().random()
    await step(plus, 1, 1)
    second = runtime().run.uuid()
    await step(plus, 1, 1)
    return [first, second, runtime().run.uuid()]


def draws_of(identity: str, past: list[tuple[str, int]]) -> Any:
    """Return the ids and numbers that the code draws, with a journal that belonged to other jobs at
    first."""
    journal = [ONE, Fact("activity", "plus#2", True, 2, ONE.at, "plus", "(1, 1)")]
    runtime_of_run = type("Runtime", (), {"run": None})()
    runtime_of_run.run = AsyncRun(
        draw, identity=identity, journal=journal, started_at=0, runtime=runtime_of_run, past=past
    )
    assert runtime_of_run.run.advance()
    draws = runtime_of_run.run.outcome()
    runtime_of_run.run.close()
    return draws


def test_fork_repeats_draws_of_its_origin_and_then_makes_its_own() -> None:
    """[P9] (E9) Ids and random numbers are the origin's up to the fork, so replay sees them
    again."""
    a, b = draws_of("a", []), draws_of("b", [])
    assert all(first != second for first, second in zip(a, b, strict=True))
    assert draws_of("b", [("a", 0)]) == b
    assert draws_of("b", [("a", 1)]) == [a[0], *b[1:]]
    assert draws_of("b", [("a", 2)]) == [*a[:2], b[2]]
    assert draws_of("c", [("a", 1), ("b", 2)]) == [a[0], b[1], draws_of("c", [])[2]]


async def set_order() -> list[int]:
    requested = {step(plus, number, number): number for number in range(5)}
    return [requested[request] for request in set(requested)]


def order_of(identity: str, past: list[tuple[str, int]]) -> Any:
    """Return the order in which a set yields the requests of the code."""
    runtime_of_run = type("Runtime", (), {"run": None})()
    runtime_of_run.run = AsyncRun(
        set_order, identity=identity, journal=[], started_at=0, runtime=runtime_of_run, past=past
    )
    assert runtime_of_run.run.advance()
    order = runtime_of_run.run.outcome()
    runtime_of_run.run.close()
    return order


def test_fork_iterates_sets_in_the_order_of_its_origin() -> None:
    """[P9] (E9) The order of a set depends on the job, so a fork must use the one of its origin."""
    others = {identity: order_of(identity, []) for identity in "abcdefgh"}
    assert len({tuple(order) for order in others.values()}) > 1
    assert all(order_of("fork", [(name, 1)]) == order for name, order in others.items())
