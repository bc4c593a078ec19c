"""An answer never reaches a call other than its own, in random programs and random changes of
them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from replay_driver import World, load, seeds, state_of, step
from replay_programs import double, picky, plus

from perdure.errors import NonDeterminism
from perdure.replay.replay import Fact, Run

Node = list[Any]
"""`["step", function, argument]`, `["sleep", seconds]`, `["one by one", …]` or `["at once", …]`."""

STEPS = [double, plus, picky]


def random_program(chance: random.Random, depth: int = 3) -> Node:
    """Generate a program."""
    kind = chance.choice(
        ["step", "step", "sleep", "one by one", "at once"][: 3 if depth == 0 else 5]
    )
    if kind == "step":
        return ["step", chance.choice(STEPS), chance.randrange(1, 9)]
    if kind == "sleep":
        return ["sleep", chance.randrange(1, 9)]
    return [kind, *(random_program(chance, depth - 1) for _ in range(chance.randrange(1, 4)))]


def code_of(program: Node, wrong: list[Node]) -> Callable[[], Awaitable[None]]:
    """Turn a program into code; it appends to `wrong` each step that got the answer of another."""

    async def play(node: Node) -> None:
        kind, *rest = node
        if kind == "step":
            function, argument = rest
            try:
                answer_of_step = await step(function, argument)
            except Exception:  # noqa: BLE001
                answer_of_step = None
            if answer_of_step != (
                function(argument) if function is not picky or argument % 3 else None
            ):
                wrong.append(node)
        elif kind == "sleep":
            await asyncio.sleep(rest[0])
        elif kind == "one by one":
            for one in rest:
                await play(one)
        else:
            await asyncio.gather(*map(play, rest))

    async def code() -> None:
        await play(program)

    return code


def changed(program: Node, chance: random.Random) -> Node:
    """Return a copy of a program with a change in one place."""
    kind, *rest = program
    if kind in ("step", "sleep"):
        return changed_leaf(kind, rest, chance)
    place = chance.randrange(len(rest))
    change = chance.choice(["deeper", "deeper", "drop", "double", "swap", "insert"])
    if change == "deeper":
        rest[place] = changed(rest[place], chance)
    elif change == "drop":
        del rest[place]
    elif change == "double":
        rest.insert(place, rest[place])
    elif change == "swap":
        rest[place], rest[0] = rest[0], rest[place]
    else:
        rest.insert(place, random_program(chance, 1))
    return [kind, *rest]


def changed_leaf(kind: str, rest: list[Any], chance: random.Random) -> Node:
    """Change the function or argument of a step, or the length of a sleep."""
    if kind == "sleep":
        return [kind, rest[0] + 1]
    function, argument = rest
    if chance.random() < 0.5:
        return [kind, function, argument + 1]
    return [kind, chance.choice([step for step in STEPS if step is not function]), argument]


def test_changed_program_never_gets_an_answer_of_another_call() -> None:
    refused = replayed = 0
    for seed in seeds(150):
        print("seed", seed)
        chance = random.Random(seed)
        program = ["one by one", *(random_program(chance) for _ in range(3))]
        journal = journal_of(program, chance)
        for _ in range(8):
            wrong: list[Node] = []
            run = load(code_of(changed(program, chance), wrong), journal)
            try:
                run.advance()
                replayed += 1
            except NonDeterminism:
                refused += 1
            run.close()
            assert wrong == []
    assert refused > replayed / 10
    assert replayed > 0


def test_unchanged_program_replays_to_the_same_state() -> None:
    for seed in seeds(100):
        print("seed", seed)
        chance = random.Random(seed)
        program = random_program(chance, 4)
        world = World(chance)
        world.drive(load(code_of(program, []), []))
        for position, before in world.seen.items():
            run = load(code_of(program, wrong := []), world.journal[:position])
            assert not run.advance()
            assert state_of(run) == before
            run.close()
            assert wrong == []


def journal_of(program: Node, chance: random.Random) -> list[Fact]:
    """Run a program for a while, and return its journal."""
    world, run = World(chance), load(code_of(program, []), [])
    length = chance.randrange(1, 12)
    while not run.advance() and run.journal.position < length:
        answer(world, run)
    journal = run.journal.take_facts()
    run.close()
    return journal


def answer(world: World, run: Run) -> None:
    """Let one thing happen."""
    world.resolve(run, world.choose(run))
