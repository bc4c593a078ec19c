"""Conditions that race their deadlines, under storms of faults: the outcome of each race is final.

[P7] [P9] Here chance decides the outcome of a wait. The outcome is recorded: each journal replays
to the same end, and a hook that runs again gets the same outcomes and writes the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest

import perdure
from tests.engine.crashing import Stage, some_faults
from tests.engine.ledger import Book
from tests.engine.outside import Outside, Step
from tests.engine.programs import Parts, Program
from tests.engine.references import run
from tests.engine.test_crash_fuzz import MAX_LIVES, SEEDS

ROUNDS = 5


def patience(x: int) -> float:
    """Return the seconds of a wait: alternately few, so that it may time out, and many, so that it
    may not, even on a busy machine."""
    return 0.03 if x % 2 else 0.004


# ruff: noqa: C901 - a function that defines several programs counts as all of them
def app_of(ledger: Book) -> perdure.App:
    """Return an app in which every kind of code waits briefly for others."""
    app = perdure.App()
    parts = Parts(app, ledger)

    async def outcome_of(memory: perdure.AsyncEntity, x: int) -> Any:
        try:
            return await memory.until(f"$.n > {x}", timeout=patience(x))
        except TimeoutError:
            return "late"

    def plain_outcome_of(memory: perdure.Entity, x: int) -> Any:
        try:
            return memory.until(f"$.n > {x}", timeout=patience(x))
        except TimeoutError:
            return "late"

    @app.coordinator
    async def racing(memory: perdure.AsyncEntity) -> Any:
        out: list[Any] = []
        for x in range(ROUNDS):
            out += await asyncio.gather(
                outcome_of(memory, x), outcome_of(memory, x + 1), parts.double(x)
            )
            await memory.append("told", out[-3:])
        return out

    @app.coordinator
    def racing_plain(memory: perdure.Entity) -> Any:
        out: list[Any] = []
        for x in range(ROUNDS):
            out.append(plain_outcome_of(memory, x))
            memory.append("told", out[-1])
        return out

    @app.hook
    async def races(memory: perdure.AsyncEntity) -> None:
        for x in range(ROUNDS):
            await memory.append("told", await outcome_of(memory, x))

    @app.hook
    def races_plain(memory: perdure.Entity) -> None:
        for x in range(ROUNDS):
            memory.append("told too", plain_outcome_of(memory, x))

    @app.coordinator
    async def racing_hooks(memory: perdure.AsyncEntity) -> Any:
        await asyncio.gather(races(memory), races_plain(memory))

    return app


def writes_now_and_then(chance: random.Random) -> Step:
    """Increment at random moments."""
    left = [2 * ROUNDS]

    def step(outside: Outside) -> bool:
        if chance.random() < 0.4:
            outside.many("select entity_increment(%s, 'n')", outside.job)
            left[0] -= 1
        return not left[0]

    return step


@pytest.mark.parametrize("workflow", ["racing", "racing_plain", "racing_hooks"])
def test_outcome_of_a_race_is_final(stage: Stage, caplog: Any, workflow: str) -> None:
    """Faults never change the recorded outcome of a wait, and both outcomes occur."""
    programs, kinds = app_of(stage.ledger), set()
    for seed in range(2 * SEEDS):
        chance = random.Random(f"{workflow} {seed}")
        lives = [some_faults(chance, 40) for _ in range(chance.randint(1, MAX_LIVES))]
        print("seed", seed, *lives, sep="\n    ")
        outcome = run(stage, programs, Program(workflow, (writes_now_and_then(chance),)), lives)
        kinds |= set(map(type, _all_told(outcome.jobs[0][4])))
        assert stage.one("select count(*) from conditions") == 0
    assert kinds == {int, str}
    assert "differs from its first run" not in caplog.text


def _all_told(value: Any) -> Iterator[Any]:
    """Yield the outcomes of waits, wherever they are in a memory."""
    if isinstance(value, dict):
        value = [value.get("told"), value.get("told too")]
    if isinstance(value, list):
        for each in value:
            yield from _all_told(each)
    elif value is not None:
        yield value
