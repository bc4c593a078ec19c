"""Replay comes to the same place, whatever was recorded and wherever the worker died."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from replay_driver import World, load, outcome, seeds, shown, waits
from replay_programs import ASYNC, CANCELLED, PLAIN, PLAIN_CANCELLED

CASES = [
    *((program, 0) for program in ASYNC + PLAIN),
    *((program, 2) for program in CANCELLED + PLAIN_CANCELLED),
]


@pytest.mark.parametrize(("program", "cancels"), CASES, ids=[f"{f.__name__}-{n}" for f, n in CASES])
def test_replay_comes_to_the_same_place(program: Callable[..., Any], cancels: int) -> None:
    for seed in seeds(12):
        print("seed", seed)
        world = World(random.Random(seed), cancels)
        ended = world.drive(load(program, []))
        replays_to_the_same_answer(program, world, ended)
        replays_to_the_same_waits(program, world)


def replays_to_the_same_answer(
    program: Callable[..., Any], world: World, ended: tuple[str, Any]
) -> None:
    executed = len(world.executed)
    run = load(program, world.journal, asked=world.asked)
    assert run.advance(), waits(run)
    assert run.journal.take_facts() == []
    assert outcome(run) == ended
    assert len(world.executed) == executed


def replays_to_the_same_waits(program: Callable[..., Any], world: World) -> None:
    for position, before in world.seen.items():
        run = load(program, world.journal[:position], asked=before[2])
        assert not run.advance()
        assert shown(run) == before, position
        run.close()
        assert run.journal.operations == {}
