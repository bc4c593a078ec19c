"""`patched(name)` gives running jobs new code at any moment, with one answer for the whole run."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from replay_driver import World, hook, load, outcome, patched, seeds, state_of, step
from replay_programs import double, picky, plus

from perdure.replay.replay import Fact

Program = Callable[[bool], Callable[[], Awaitable[Any]]]


def in_a_loop(new: bool) -> Callable[[], Awaitable[Any]]:
    async def code() -> str:
        for i in range(5):
            await step(plus, i)
            if new and patched("more"):
                await step(double, i)
            await asyncio.sleep(1)
        return "done"

    return code


def in_branches(new: bool) -> Callable[[], Awaitable[Any]]:
    async def branch(i: int) -> Any:
        await step(plus, i)
        if new and patched("more"):
            await step(double, i)
        return await hook(plus, i)

    async def code() -> Any:
        return await asyncio.gather(*(branch(i) for i in range(4)))

    return code


def instead(new: bool) -> Callable[[], Awaitable[Any]]:
    """Replace a request that may already be under way."""

    async def code() -> Any:
        await step(plus, 1)
        first = await (step(double, 1) if new and patched("other") else hook(plus, 1))
        return [first, await step(plus, 2)]

    return code


def several(new: bool) -> Callable[[], Awaitable[Any]]:
    async def code() -> Any:
        out = []
        if new and patched("first"):
            out.append(await step(double, 0))
        out.append(await hook(plus, 1))
        if new and patched("second"):
            async with asyncio.TaskGroup() as group:
                group.create_task(step(picky, 1))
                group.create_task(hook(double, 2))
        out.append(await step(plus, 3))
        return out

    return code


@pytest.mark.parametrize("program", [in_a_loop, in_branches, instead, several])
def test_running_job_accepts_patched_code_at_any_moment(program: Program) -> None:
    for seed in seeds(60):
        print("seed", seed)
        chance = random.Random(seed)
        Upgrade(program, World(chance), cut=chance.randrange(9)).play()


class Upgrade:
    """A job that starts on old code and, from some moment on, is loaded again after every fact."""

    def __init__(self, program: Program, world: World, cut: int):
        self.program = program
        self.world = world
        self.cut = cut
        self.under_way: set[str] = set()

    def play(self) -> None:
        """Play the job to its end, then replay it."""
        world, run = self.world, load(self.program(False), [])
        upgraded = False
        while not run.advance():
            self.flush(run)
            before = state_of(run)
            if run.journal.position >= self.cut:
                run.close()
                run = load(self.program(True), world.journal, asked=world.asked)
                if run.advance():
                    break
                assert not upgraded or state_of(run) == before
                upgraded = True
                self.flush(run)
            world.resolve(run, world.choose(run))
        self.flush(run)
        ended = outcome(run)
        again = load(self.program(upgraded), world.journal, asked=world.asked)
        assert again.advance()
        assert outcome(again) == ended

    def flush(self, run: Any) -> None:
        """Flush, and check that the new code still waits for everything that runs outside."""
        self.world.flush(run)
        recorded = {fact.key for fact in self.world.journal}
        assert self.under_way - set(run.journal.operations) <= recorded
        self.under_way = {op.key for op in run.journal.operations.values() if op.kind == "answer"}


def test_new_run_takes_the_patch() -> None:
    world, run = World(random.Random(1)), load(in_a_loop(True), [])
    assert world.drive(run) == ("returned", "done")
    assert [fact.name for fact in world.journal if fact.kind == "patch"] == ["more"]


def test_patch_fact_is_recorded_in_order() -> None:
    run = load(in_a_loop(True), [])
    run.advance()
    run.journal.append(Fact("activity", "plus#1", True, 1, run.journal.now + 5, "plus"))
    run.advance()
    facts = run.journal.take_facts()
    assert [(fact.kind, fact.name) for fact in facts] == [("activity", "plus"), ("patch", "more")]
    assert facts[1].at == facts[0].at
    assert run.journal.position == 2
    assert run.journal.take_facts() == []
    run.close()


def test_patch_is_not_taken_before_the_last_fact() -> None:
    """Not even if it is unknown how much was asked for, as in a fork."""
    told = [
        Fact("activity", "plus#1", True, 1, 1, "plus"),
        Fact("timer", "$timer#1", True, None, 1_000_001, "$timer"),
    ]
    run = load(in_a_loop(True), told, asked=0)
    assert not run.advance()
    assert list(run.journal.operations) == ["plus#2"]
    run.close()


def test_patch_that_was_not_flushed_is_recorded_again() -> None:
    run = load(in_a_loop(True), [])
    run.advance()
    run.journal.append(Fact("activity", "plus#1", True, 1, run.journal.now, "plus"))
    asked_at_flush = run.journal.asked
    recorded, *_ = run.journal.take_facts()
    run.advance()
    waited = state_of(run)
    run.close()
    again = load(in_a_loop(True), [recorded], asked=asked_at_flush)
    again.advance()
    assert state_of(again) == waited
    assert [fact.kind for fact in again.journal.take_facts()] == ["patch"]
    again.close()


def test_patch_is_taken_when_facts_arrive_together() -> None:
    async def code() -> Any:
        first, second = step(plus, 1), step(double, 2)
        await first
        new = patched("new")
        return [new, await second]

    run = load(code, [])
    run.advance()
    run.journal.append(Fact("activity", "plus#1", True, 1, run.journal.now + 1, "plus"))
    run.journal.append(Fact("activity", "double#1", True, 2, run.journal.now + 2, "double"))
    assert run.advance()
    facts = run.journal.take_facts()
    assert [fact.kind for fact in facts] == ["activity", "activity", "patch"]
    assert [fact.at for fact in facts] == sorted(fact.at for fact in facts)
    again = load(code, facts)
    assert again.advance()
    assert outcome(again) == outcome(run) == ("returned", [True, 2])


def test_first_answer_of_patched_is_kept() -> None:
    async def code() -> Any:
        before = patched("late")
        await step(plus, 1)
        return [before, patched("late")]

    run = load(code, [], asked=1)
    run.advance()
    run.journal.append(Fact("activity", "plus#1", True, 1, run.journal.now, "plus"))
    assert run.advance()
    assert outcome(run) == ("returned", [False, False])


def test_plain_function_keeps_the_answer_of_patched() -> None:
    def code() -> Any:
        step(plus, 1)
        return [patched("new") and step(double, 2), step(plus, 3)]

    world = World(random.Random(1))
    run = load(code, [])
    assert world.drive(run) == ("returned", [4, 4])
    assert [fact.kind for fact in world.journal if fact.kind != "attempt"] == [
        "activity",
        "patch",
        "activity",
        "activity",
    ]
