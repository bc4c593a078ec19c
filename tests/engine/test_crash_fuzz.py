"""Whatever happens to the workers, every program has the outcome that it has without faults.

[P2] [P4] [P9] [P12] (C3) (C4) Memory, result, facts and calls of activities equal those of a run
without faults. An activity whose outcome is recorded is not executed again. The invariants hold
whenever a worker has died. Every journal replays to the same end without a new request.

`PERDURE_FUZZ_SEEDS=1000` kills at every point of every program, and draws as many storms.
"""

from __future__ import annotations

import os
import random

import pytest

import perdure
from tests.engine.crashing import Faults, Stage, some_faults
from tests.engine.outcomes import differences
from tests.engine.programs import PROGRAMS, Program
from tests.engine.references import References, run
from tests.engine.veils import Veil

SEEDS = int(os.environ.get("PERDURE_FUZZ_SEEDS", "3"))
ENCRYPTED = PROGRAMS if SEEDS > 3 else PROGRAMS[::4]
MAX_LIVES = 5  # of a storm, before the last life, which has no faults

of_every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: each.workflow)


@of_every_program
def test_worker_killed_at_any_point_changes_no_outcome(
    stage: Stage, programs: perdure.App, references: References, program: Program
) -> None:
    want, points = references.of(program)
    first = random.Random(program.workflow).random()
    for kill_at in sorted({1 + int((n + first) * points / SEEDS) for n in range(SEEDS)}):
        print(f"killed at point {kill_at} of {points}")
        assert differences(run(stage, programs, program, [Faults(kill_at=kill_at)]), want) == []


@of_every_program
def test_storms_of_faults_change_no_outcome(
    stage: Stage, programs: perdure.App, references: References, program: Program
) -> None:
    want, points = references.of(program)
    for seed in range(SEEDS):
        chance = random.Random(f"{program.workflow} {seed}")
        lives = [some_faults(chance, points) for _ in range(chance.randint(1, MAX_LIVES))]
        print("seed", seed, *lives, sep="\n    ")
        assert differences(run(stage, programs, program, lives), want) == []


@of_every_program
def test_worker_without_a_cache_has_the_same_outcome(
    stage: Stage, programs: perdure.App, references: References, program: Program
) -> None:
    """[P9] With a replay at every activation and an eviction at every wait of a hook, each program
    has the same outcome."""
    want, _ = references.of(program)
    assert differences(run(stage, programs, program, [Faults(cache=0, grace=0)]), want) == []


@of_every_program
def test_losing_every_reply_changes_no_outcome(
    stage: Stage, programs: perdure.App, references: References, program: Program
) -> None:
    """[P12] Every call is committed, its reply lost, and the call repeated; no delivery is
    counted."""
    want, _ = references.of(program)
    assert differences(run(stage, programs, program, [Faults(lose_every=1)]), want) == []


@pytest.mark.parametrize("program", ENCRYPTED, ids=lambda each: each.workflow)
def test_encryption_changes_no_outcome(
    stage: Stage, programs: perdure.App, references: References, program: Program
) -> None:
    """[P9] Killed, and with nothing in memory, a worker opens every value at the place for which it
    was sealed."""
    want, points = references.of(program)
    chance = random.Random(f"veil {program.workflow}")
    programs.codec = Veil()
    try:
        lives = [Faults(kill_at=chance.randint(1, points)), Faults(cache=0, grace=0)]
        assert differences(run(stage, programs, program, lives), want) == []
    finally:
        programs.codec = None
