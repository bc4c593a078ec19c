"""Runs of programs through lives with faults, and the references with which they are compared."""

from __future__ import annotations

import perdure
from tests.engine.crashing import Faults, Stage, with_settings
from tests.engine.outcomes import Outcome, outcome_of, replay_all
from tests.engine.programs import Program


def run(stage: Stage, programs: perdure.App, program: Program, lives: list[Faults]) -> Outcome:
    """Run a program through lives with these faults, and then to its end without any."""
    stage.clear()
    stage.ledger.is_strict = all(faults.workers == 1 for faults in lives)
    stage.job = program.workflow
    stage.start(program.workflow)
    steps = list(program.steps)
    for faults in [*lives, Faults()]:
        with with_settings(faults):
            if stage.live(programs, faults, steps):
                break
    assert stage.ending()[0] == program.ends
    assert replay_all(stage, programs) >= 1
    return outcome_of(stage, stage.ledger.executions)


class References:
    """The outcomes of programs without faults, and the number of points that they pass."""

    def __init__(self, stage: Stage, programs: perdure.App) -> None:
        self._stage = stage
        self._programs = programs
        self._known: dict[Program, tuple[Outcome, int]] = {}

    def of(self, program: Program) -> tuple[Outcome, int]:
        """Return the reference of a program, which runs at the first call."""
        if program not in self._known:
            outcome = run(self._stage, self._programs, program, [])
            self._known[program] = outcome, self._stage.passed
        return self._known[program]
