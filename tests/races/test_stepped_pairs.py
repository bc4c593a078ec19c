"""Every verb is stopped at each of its lock points, while every other comes: all orders of those.

`points.py` puts the points into an engine, and `meetings.py` lets two calls meet there. Verbs,
stages and outcomes are those of the other tables of pairs. By default a few pairs meet, which are
others in each run; PERDURE_RACE_PAIRS=all takes all (`make pairs`). [P3] [P5] [P6] [P8] (T3)
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

all_seen = Counter[str]()


pytestmark = pytest.mark.direct("its sessions are named by where they stand")


def groups(everything: bool) -> Iterator[tuple[str, str | None]]:
    """Yield the groups of pairs: all of a verb that is stopped, or some of a play."""
    for name, play in PLAYS.items():
        yield from product([name], play.deeds if everything else [None])


@pytest.mark.parametrize(("play", "first"), [*groups(EVERYTHING)])
def test_two_that_meet_half_way_come_out_as_one_after_the_other(
    stepped: tuple[Theatre, list[str]], play: str, first: str | None
) -> None:
    """[P3] [P5] [P6] [P8] (C20) (C42) (T3): and no circle of waiting."""
    theatre, places = stepped
    deeds = PLAYS[play].deeds
    (chance,) = chances(1)
    pairs = [*product([first] if first else deeds, deeds)]
    if not EVERYTHING:
        pairs = chance.sample(pairs, min(len(pairs), amount(4)))
    with theatre.players() as it:
        director = Director(it, PLAYS[play], places)
        for one, other in pairs:
            director.pair(one, other, chance)
    all_seen.update(director.seen)
    print(len(places), "places in the engine at which a call can be stopped")
    print(f"{play}: {told(director.seen)}\nall so far: {told(all_seen)}")
    assert not director.wrong, "\n\n".join(director.wrong[:10])


def test_every_function_that_locks_or_writes_has_points(
    stepped: tuple[Theatre, list[str]],
) -> None:
    """Nothing is passed over where a function is taken apart."""
    _, places = stepped
    touching = {
        function.name
        for function in sql_functions()
        if "for no key update" in function.code or function.written()
    }
    assert len(touching) > 100
    assert touching - {place.split(":")[0] for place in places} == set()


def told(seen: Counter[str]) -> str:
    """Tell what was counted."""
    return ", ".join(f"{count} {what}" for what, count in seen.items())


@dataclass(frozen=True)
class Race:
    """A change to a function of the engine, and two who meet there."""

    function: str
    place: str  # a regular expression; a space stands for any white space
    change: str
    play: str
    first: str
    second: str
    is_narrow: bool = True
    """Whether they do not meet there where one of them is whole before the other comes."""


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
    "what is forgotten is not looked at again under its lock": Race(
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
def test_a_race_that_is_put_into_the_engine_is_found(
    theatre: Theatre, record_property: Callable[[str, object], None], name: str
) -> None:
    """(T3) (T32): most of them between two steps only, where no whole call goes."""
    record_property("mutant", name)
    race = RACES[name]
    theatre.change(race.function, race.place, race.change)
    places = put_points(theatre)
    with theatre.players() as it:
        director = Director(it, PLAYS[race.play], places)
        director.judge(Meeting(race.first, race.second))
        director.judge(Meeting(race.second, race.first))
        assert (director.wrong == []) == race.is_narrow, director.wrong

        director.wrong.clear()
        director.pair(race.first, race.second, *chances(1))
        assert director.wrong != []
        print(director.wrong[0])
