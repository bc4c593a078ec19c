"""A replay reaches the same state, whatever was recorded and wherever the worker died."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from replay_driver import World, load, outcome, seeds, state_of, waits
from replay_programs import ASYNC, CANCELLED, PLAIN, PLAIN_CANCELLED

CASES = [
    *((program, 0) for program in ASYNC + PLAIN),
    *((program, 2) for program in CANCELLED + PLAIN_CANCELLED),
]


@pytest.mark.parametrize(("program", "cancels"), CASES, ids=[f"{f.__name__}-{n}" for f, n in CASES])
def test_replay_reaches_the_same_outcome_and_states(
    program: Callable[..., Any], cancels: int
) -> None:
    for seed in seeds(12):
        print("seed", seed)
        world = World(random.Random(seed), cancels)
        ended = world.drive(load(program, []))
        assert_same_outcome(program, world, ended)
        assert_same_states(program, world)


def assert_same_outcome(program: Callable[..., Any], world: World, ended: tuple[str, Any]) -> None:
    executed = len(world.executed)
    run = load(program, world.journal, asked=world.asked)
    assert run.advance(), waits(run)
    assert run.journal.take_facts() == []
    assert outcome(run) == ended
    assert len(world.executed) == executed


def assert_same_states(program: Callable[..., Any], world: World) -> None:
    for position, before in world.seen.items():
        run = load(program, world.journal[:position], asked=before[2])
        assert not run.advance()
        assert state_of(run) == before, position
        run.close()
        assert run.journal.operations == {}
