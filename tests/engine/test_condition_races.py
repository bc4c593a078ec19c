"""Conditions and deadlines that race, under storms of faults: whoever wins has won for ever.

Here it depends on chance what a wait is told. What was told is recorded: each journal replays to
the end that it came to, and a hook that runs again is told the same, and writes the same. [P7] [P9]
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
    """Give seconds to wait: by turns so few that a wait may end early, and so many that it may not,
    on a machine that has other work, too."""
    return 0.03 if x % 2 else 0.004


# ruff: noqa: C901 - a function that defines several programs counts as all of them
def app_of(ledger: Book) -> perdure.App:
    """Make an app in which every kind of code waits a little while for others."""
    app = perdure.App()
    parts = Parts(app, ledger)

    async def told(memory: perdure.AsyncEntity, x: int) -> Any:
        try:
            return await memory.until(f"$.n > {x}", timeout=patience(x))
        except TimeoutError:
            return "late"

    def told_plain(memory: perdure.Entity, x: int) -> Any:
        try:
            return memory.until(f"$.n > {x}", timeout=patience(x))
        except TimeoutError:
            return "late"

    @app.coordinator
    async def racing(memory: perdure.AsyncEntity) -> Any:
        out: list[Any] = []
        for x in range(ROUNDS):
            out += await asyncio.gather(told(memory, x), told(memory, x + 1), parts.double(x))
            await memory.append("told", out[-3:])
        return out

    @app.coordinator
    def racing_plain(memory: perdure.Entity) -> Any:
        out: list[Any] = []
        for x in range(ROUNDS):
            out.append(told_plain(memory, x))
            memory.append("told", out[-1])
        return out

    @app.hook
    async def races(memory: perdure.AsyncEntity) -> None:
        for x in range(ROUNDS):
            await memory.append("told", await told(memory, x))

    @app.hook
    def races_plain(memory: perdure.Entity) -> None:
        for x in range(ROUNDS):
            memory.append("told too", told_plain(memory, x))

    @app.coordinator
    async def racing_hooks(memory: perdure.AsyncEntity) -> Any:
        await asyncio.gather(races(memory), races_plain(memory))

    return app


def writes_now_and_then(chance: random.Random) -> Step:
    """Count up at random moments."""
    left = [2 * ROUNDS]

    def step(outside: Outside) -> bool:
        if chance.random() < 0.4:
            outside.many("select entity_increment(%s, 'n')", outside.job)
            left[0] -= 1
        return not left[0]

    return step


@pytest.mark.parametrize("workflow", ["racing", "racing_plain", "racing_hooks"])
def test_whoever_wins_has_won_for_ever(stage: Stage, caplog: Any, workflow: str) -> None:
    programs, told = app_of(stage.ledger), set()
    for seed in range(2 * SEEDS):
        chance = random.Random(f"{workflow} {seed}")
        lives = [some_faults(chance, 40) for _ in range(chance.randint(1, MAX_LIVES))]
        print("seed", seed, *lives, sep="\n    ")
        outcome = run(stage, programs, Program(workflow, (writes_now_and_then(chance),)), lives)
        told |= set(map(type, _all_told(outcome.jobs[0][4])))
        assert stage.one("select count(*) from conditions") == 0
    assert told == {int, str}
    assert "differs from its first run" not in caplog.text


def _all_told(value: Any) -> Iterator[Any]:
    """Give what waits were told, wherever it stands in a memory."""
    if isinstance(value, dict):
        value = [value.get("told"), value.get("told too")]
    if isinstance(value, list):
        for each in value:
            yield from _all_told(each)
    elif value is not None:
        yield value
