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

GAMES = 8  # in one test, each on an empty database
CALLS = 100  # in one game


@pytest.mark.stress
@pytest.mark.parametrize("part", range(amount(GAMES) // GAMES or 1))
def test_answers_and_tables_equal_the_model(
    connection: Connection, part: int, figures: Callable[..., Figures]
) -> None:
    """[P1] [P2] [P3] [P4] [P5] [P6] [P7] [P8] [P10] [P12] [P13] After each call, repeated or late,
    answers and tables are those of the model. PERDURE_TEST_AMOUNT asks for more games; a failure
    shows the seed of its game."""
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


def test_tour_meets_every_verb_and_every_code(connection: Connection) -> None:
    """[P10] A tour meets what random games may miss; each code that it cannot meet has a reason."""
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
    """Each verb that is not in the model has a reason."""
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
def test_broken_engine_and_model_disagree(
    connection: Connection, function: str, what: str, into: str, place: str
) -> None:
    """(T32) A control: an engine that wakes no task, recognizes no key, or records no end is
    found."""
    real = Real(connection)
    real.change(function, what, into)
    real.empty()

    with pytest.raises(Disagreement, match=place):
        Tour(Game(real, "tour", Counter())).walk()
