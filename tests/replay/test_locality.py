"""The key of an operation depends on the place of its call, so a change in one branch does not
affect other branches."""

# ruff: noqa: RUF006 - the loop holds its tasks itself

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from replay_driver import World, load, seeds, signal, step
from replay_programs import double, plus

from perdure.errors import NonDeterminism
from perdure.replay.replay import Fact


def keys_of(code: Callable[..., Any], journal: list[Fact] | None = None) -> list[str]:
    """Return the keys of what a run waits for."""
    run = load(code, journal or [])
    run.advance()
    keys = list(run.journal.operations)
    run.close()
    return keys


def test_keys_contain_place_name_and_occurrence() -> None:
    async def child(i: int) -> None:
        await asyncio.gather(step(plus, i), step(plus, i), leaf())

    async def leaf() -> None:
        await asyncio.sleep(1)

    async def code() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            group.create_task(child(1))
            asyncio.create_task(child(2), name="search")
            group.create_task(child(3), name="search")
            loop.create_task(child(4), name="v1.2/ü\n")
            loop.create_task(child(5))
            step(double, 1)
            step(double, 2)
            await signal("go/on#1")

    names = [".1", ".search", ".search~2", ".v1.2/\\xfc\\n", ".2"]
    assert keys_of(code) == [
        *("double#1", "double#2", "go/on#1#1"),
        *(f"{name}/plus#{n}" for name in names for n in (1, 2)),
        *(f"{name}.1/$timer#1" for name in names),
    ]


def test_keys_are_unique_whatever_names_contain() -> None:
    async def child() -> None:
        await signal("x")

    async def code() -> None:
        for name in ("1", "1", None, "1~2"):
            asyncio.get_running_loop().create_task(child(), name=name)
        signal(".1/x")
        signal("x")
        signal("x#1")
        await asyncio.sleep(1)

    keys = keys_of(code)
    assert len(keys) == 8


def test_keys_stay_short_however_long_the_names_are() -> None:
    async def parent(depth: int) -> None:
        loop = asyncio.get_running_loop()
        if depth:
            names = ["ü" * 60, "a long name " * 9 + "1", "a long name " * 9 + "2", None, "é"]
            await asyncio.gather(
                *(loop.create_task(parent(depth - 1), name=name) for name in names)
            )
        else:
            await signal("x")

    async def code() -> None:
        await parent(4)

    keys = keys_of(code)
    assert len(set(keys)) == 5**4
    assert max(len(key.encode()) for key in keys) <= 110
    assert keys == keys_of(code)


def test_task_renamed_after_its_creation_keeps_its_place() -> None:
    async def child() -> None:
        asyncio.current_task().set_name("self")  # type: ignore[union-attr]
        await signal("x")

    async def code() -> None:
        first, second = asyncio.create_task(child()), asyncio.create_task(child())
        first.set_name("first")
        second.set_name("second")
        step(plus, 1)
        asyncio.create_task(child(), name="third").set_name("fourth")
        await first

    assert keys_of(code) == ["plus#1", ".1/x#1", ".2/x#1", ".third/x#1"]


def test_wait_for_does_not_change_the_place() -> None:
    async def child() -> None:
        asyncio.ensure_future(step(plus, 1))
        asyncio.create_task(asyncio.sleep(2))
        await step(plus, 2)

    async def code() -> None:
        await asyncio.wait_for(child(), 1)

    assert sorted(keys_of(code)) == ["$timer#1", ".1/$timer#1", "plus#1", "plus#2"]


def test_unnamed_tasks_are_named_by_their_place() -> None:
    async def code() -> Any:
        names = [asyncio.current_task().get_name()]  # type: ignore[union-attr]

        async def child() -> None:
            names.append(asyncio.current_task().get_name())  # type: ignore[union-attr]

        await asyncio.gather(child(), asyncio.create_task(child(), name="x"), child())
        return names

    run = load(code, [])
    assert run.advance()
    assert run.outcome() == ["main", ".1", "x", ".2"] or run.outcome() == ["main", "x", ".1", ".2"]
    run.close()


def code_with_extra_step(extra: bool) -> Callable[[], Awaitable[Any]]:
    """Return code whose first branch may have one more step."""

    async def branch(i: int) -> Any:
        a = await step(plus, i)
        b = await step(plus, a + 10)
        if extra and i == 0:
            await step(plus, 77)
        return a, b

    async def code() -> Any:
        return await asyncio.gather(*(branch(i) for i in range(4)))

    return code


def test_new_step_in_one_branch_replays_or_is_refused() -> None:
    """With some journals the changed code replays; with the others it raises NonDeterminism."""
    replayed = 0
    for seed in seeds(100):
        print("seed", seed)
        world, run = World(random.Random(seed)), load(code_with_extra_step(False), [])
        while not run.advance() and run.journal.position < 5:
            world.resolve(run, world.choose(run))
        journal = run.journal.take_facts()
        run.close()
        again = load(code_with_extra_step(True), journal)
        try:
            again.advance()
            replayed += 1
        except NonDeterminism:
            pass
        again.close()
    assert replayed > 0


def test_as_completed_of_several_coroutines_is_rejected() -> None:
    async def one(i: int) -> Any:
        return await step(plus, i)

    async def code() -> Any:
        coroutines = [one(i) for i in range(3)]
        try:
            for answer in asyncio.as_completed(coroutines):
                await answer
        except Exception:  # noqa: BLE001
            return "swallowed"
        finally:
            for coroutine in coroutines:
                coroutine.close()

    run = load(code, [])
    with pytest.raises(NonDeterminism, match="as_completed") as raised:
        run.advance()
    assert "create_task" in str(raised.value.hint)
    run.close()


def test_as_completed_of_one_coroutine_and_durables_is_accepted() -> None:
    async def one(i: int) -> Any:
        return await step(plus, i)

    async def code() -> Any:
        both = [one(1), step(plus, 2), asyncio.create_task(one(3))]
        return sorted([await answer for answer in asyncio.as_completed(both)])

    assert World(random.Random(1)).drive(load(code, [])) == ("returned", [2, 3, 4])


@pytest.mark.parametrize("places", [0, 7919])
def test_sets_iterate_alike_in_every_process(places: int) -> None:
    here = digest_of_sets()
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    there = subprocess.run(
        [sys.executable, __file__, str(places)],
        env={**os.environ, "PYTHONHASHSEED": str(places), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == here


def digest_of_sets() -> str:
    """Drive code whose steps depend on the order of sets; return a digest of everything it did."""
    world = World(random.Random(7))
    ended = world.drive(load(iterating_sets, []))
    return hashlib.sha256(repr((ended, world.journal, world.seen)).encode()).hexdigest()


async def iterating_sets() -> Any:
    async def awaited(durable: Any) -> Any:
        return await durable

    out: list[Any] = []
    pending = {asyncio.ensure_future(awaited(step(plus, i))) for i in range(12)}
    await signal("go")  # meanwhile several finish
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        out += [await step(double, answer.result()) for answer in done]
    for answer in asyncio.as_completed({step(plus, 200 + i) for i in range(6)}):
        out.append(await answer)
    for durable in {step(double, i) for i in range(20)}:
        out.append(await durable)
    return out


if __name__ == "__main__":
    # Allocate objects of odd sizes first, so that addresses differ from the parent's.
    perturbing = [bytearray(n % 3989) for n in range(int(sys.argv[1]))]
    print(digest_of_sets())
