"""The database agrees with a plain Python model of the memory on any sequence of commands. [P3]"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from tests.amount import amount, seed
from tests.memory.memory_machine import OPS, MemoryMachine
from tests.races.sessions import Session, Stage

STEPS = 25
CODES = {"PD101", "PD102", "PD103", "PD104", "PD105", "PD106"}


def agrees(session: Session, memories: int, chosen: str | None = None) -> Counter[str]:
    """Run random commands on many memories; fail where database and model differ. Returns how often
    each command succeeded and each code was returned. Failures are not shrunk: with a database
    behind each step, that would take minutes."""
    seen: Counter[str] = Counter()

    @seeded(chosen or seed())
    def machine() -> MemoryMachine:
        return MemoryMachine(session, seen)

    options = settings(
        max_examples=memories,
        stateful_step_count=STEPS,
        derandomize=False,
        print_blob=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=options)
    print(dict(seen))
    return seen


@pytest.mark.stress
def test_documents_versions_answers_and_errors_agree_with_the_model(
    connect: Callable[[], psycopg.Connection[Any]],
) -> None:
    """[P2] [P3] (C20) (C21) (C25) (C26) (C27) (C28) (C29) (C30) (C31) (C32) (C33) (C34) (C35):
    after every command of a client or a turn. PERDURE_TEST_AMOUNT scales the number of memories."""
    seen = agrees(Stage(connect).session("model"), amount(60))

    assert seen.keys() >= {*OPS, "get", *CODES}
