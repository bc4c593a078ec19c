"""One call is stopped at each of its lock points while every other call runs: all their orders.

`points.py` puts the points into an engine, and `meetings.py` lets two calls meet there. The calls,
stages and outcomes are those of the other tables of pairs. By default a few pairs meet, others in
each run; PERDURE_RACE_PAIRS=all takes all of them (`make pairs`). [P3] [P5] [P6] [P8] (T3)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import pytest

from tests.amount import amount
from tests.races.meetings import PLAYS, Director, Meeting
from tests.races.points import put_points
from tests.races.sessions import chances
from tests.races.test_pairs import EVERYTHING
from tests.races.theatre import Theatre
from tests.source import sql_functions

total_seen = Counter[str]()


pytestmark = pytest.mark.direct("its sessions report their place in their name")


def groups(everything: bool) -> Iterator[tuple[str, str | None]]:
    """Yield the groups of pairs: all pairs of a call that is stopped, or some pairs of a play."""
    for name, play in PLAYS.items():
        yield from product([name], play.actions if everything else [None])


@pytest.mark.parametrize(("play", "first"), [*groups(EVERYTHING)])
def test_two_calls_stopped_half_way_have_outcome_of_one_order(
    stepped: tuple[Theatre, list[str]], play: str, first: str | None
) -> None:
    """[P3] [P5] [P6] [P8] (C20) (C42) (T3) No calls deadlock."""
    theatre, places = stepped
    actions = PLAYS[play].actions
    (chance,) = chances(1)
    pairs = [*product([first] if first else actions, actions)]
    if not EVERYTHING:
        pairs = chance.sample(pairs, min(len(pairs), amount(4)))
    with theatre.players() as players:
        director = Director(players, PLAYS[play], places)
        for one, other in pairs:
            director.pair(one, other, chance)
    total_seen.update(director.seen)
    print(len(places), "places in the engine at which a call can be stopped")
    print(f"{play}: {summary(director.seen)}\nall so far: {summary(total_seen)}")
    assert not director.wrong, "\n\n".join(director.wrong[:10])


def test_every_function_that_locks_or_writes_has_points(
    stepped: tuple[Theatre, list[str]],
) -> None:
    """The parser that puts in the points misses no function."""
    _, places = stepped
    touching = {
        function.name
        for function in sql_functions()
        if "for no key update" in function.code or function.written()
    }
    assert len(touching) > 100
    assert touching - {place.split(":")[0] for place in places} == set()


def summary(seen: Counter[str]) -> str:
    """Give the counts as text."""
    return ", ".join(f"{count} {what}" for what, count in seen.items())


@dataclass(frozen=True)
class Race:
    """A change to a function of the engine, and two calls that race there."""

    function: str
    place: str  # a regular expression; a space stands for any white space
    change: str
    play: str
    first: str
    second: str
    is_narrow: bool = True
    """Whether the race is missed where one call has ended before the other begins."""


RACES = {
    "a signal takes no lock": Race(
        "signal",
        r"lock_job\(signal\.id\)",
        "read_job(signal.id)",
        "a job in all its states",
        "signal",
        "park",
        is_narrow=False,
    ),
    "a fork takes no lock": Race(
        "fork",
        r"lock_job\(fork\.id\)",
        "read_job(fork.id)",
        "a job in all its states",
        "fork",
        "turn with a command",
    ),
    "a job to forget is not checked again under its lock": Race(
        "forget_finished",
        r"array\(select id from unnest\(found_now\) as id where not is_at_work\(id\)\)",
        "found_now",
        "a memory of a job that is finished",
        "forget finished",
        "hook",
    ),
    "a child is terminated after its parent was locked": Race(
        "terminate",
        r"perform lock_jobs",
        "perform lock_jobs(array_remove(array[asker.asker_job], null), true); perform lock_jobs",
        "a parent and its child",
        "the child is terminated",
        "the child ends",
    ),
    "an answer is compared with those alone that were taken": Race(
        "insert_answers",
        r"and not exists \( select from inbox as i .*? offset 0\)",
        "",
        "a coordinator and its answers",
        "take",
        "end of the early hook",
        is_narrow=False,
    ),
    "the tasks of a job are locked before the job": Race(
        "pause",
        r"held memory := lock_job",
        "tasks text[] := array(select t.task from tasks as t where t.job_id = pause.id for no key"
        " update); held memory := lock_job",
        "a job in all its states",
        "pause",
        "turn with a command",
    ),
}


@pytest.mark.broken_invariants
@pytest.mark.parametrize("name", RACES)
def test_race_put_into_engine_is_found(
    theatre: Theatre, record_property: Callable[[str, object], None], name: str
) -> None:
    """(T3) (T32) Most are found only if a call is stopped between two of its steps."""
    record_property("mutant", name)
    race = RACES[name]
    theatre.change(race.function, race.place, race.change)
    places = put_points(theatre)
    with theatre.players() as players:
        director = Director(players, PLAYS[race.play], places)
        director.judge(Meeting(race.first, race.second))
        director.judge(Meeting(race.second, race.first))
        assert (director.wrong == []) == race.is_narrow, director.wrong

        director.wrong.clear()
        director.pair(race.first, race.second, *chances(1))
        assert director.wrong != []
        print(director.wrong[0])
