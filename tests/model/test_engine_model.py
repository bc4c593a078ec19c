"""The engine agrees with a model of it in plain Python, whatever its users do and lose. (T2)"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from perdure.errors import PerdureError
from tests.amount import amount, seed
from tests.model.game import Disagreement, Game
from tests.model.play import play
from tests.model.real import Connection, Real
from tests.model.tour import NOT_MODELLED, UNMET, Tour
from tests.model.verbs import VERBS
from tests.source import mutators
from tests.storms.figures import Figures

GAMES = 8  # a test: each has the database to itself
CALLS = 100  # a game


@pytest.mark.stress
@pytest.mark.parametrize("part", range(amount(GAMES) // GAMES or 1))
def test_answers_and_tables_are_those_of_the_model(
    connection: Connection, part: int, figures: Callable[..., Figures]
) -> None:
    """[P1] [P2] [P3] [P4] [P5] [P6] [P7] [P8] [P10] [P12] [P13]: after each call, whoever repeats
    it or comes late. PERDURE_TEST_AMOUNT asks for more games; the seed of each stands in a failure.
    """
    real = Real(connection)
    seen: Counter[str] = Counter()
    drawn = seed()
    row = figures("T2 model", drawn)
    for number in range(part * GAMES, min(part * GAMES + amount(GAMES), (part + 1) * GAMES)):
        real.empty()
        row.operations += CALLS
        play(Game(real, f"{drawn} {number}", seen), CALLS)
    print(dict(sorted(seen.items())))
    assert seen.keys() >= {"claim", "advance", "start", "signal", "turn parked", "turn keep"}


def test_every_verb_and_every_code_is_met(connection: Connection) -> None:
    """[P10]: what chance may miss, a tour does not; what it cannot meet says why."""
    real = Real(connection)
    seen: Counter[str] = Counter()
    real.empty()
    game = Game(real, "tour", seen)
    Tour(game).walk()
    game.check_invariants()

    print(dict(sorted(seen.items())))
    assert {verb for verb in VERBS if seen[verb] == 0} == set()
    assert {code for code in PerdureError.codes if seen[code] == 0} == set(UNMET)


def test_every_verb_that_changes_something_is_in_the_model(connection: Connection) -> None:
    """A verb that the model does not know says why."""
    assert mutators(connection) - VERBS.keys() == set(NOT_MODELLED)


@pytest.mark.broken_invariants
@pytest.mark.parametrize(
    ("function", "what", "into", "place"),
    [
        ("wake_tasks", "t.awaits is not null", "false", "due_at"),
        ("was_started_by", "j.start_key = was_started_by.key", "false", "the answer"),
        ("end_tasks", "where r.asker_job is null", "where false", "journal"),
    ],
)
def test_a_broken_engine_and_the_model_disagree(
    connection: Connection, function: str, what: str, into: str, place: str
) -> None:
    """A control: one that wakes nobody, knows no key again, or journals no end. (T32)"""
    real = Real(connection)
    real.change(function, what, into)
    real.empty()

    with pytest.raises(Disagreement, match=place):
        Tour(Game(real, "tour", Counter())).walk()
