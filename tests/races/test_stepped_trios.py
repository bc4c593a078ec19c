"""Three at once: two verbs stopped between their steps, and a third comes. (T3)

The trios are those in which a task can be lost or done twice: taking it, ending it and asking it to
cancel; waiting for a signal, the signal and the end of the wait; a lease that has ended, its
heartbeat and the end of the work. By default each meets at a few points, others in each run;
PERDURE_RACE_PAIRS=all takes all points, and more trios drawn from all verbs (`make pairs`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import pytest

from tests.amount import amount
from tests.races import test_pairs as pairs
from tests.races.meetings import Play, jobs
from tests.races.points import put_points
from tests.races.sessions import Session, chances
from tests.races.test_pairs import EVERYTHING, Cast, say, told
from tests.races.theatre import Theatre
from tests.races.trios import Encounter, Names, TrioDirector

pytestmark = pytest.mark.direct("its sessions are named by where they stand")

DRAWN = 60  # trios of any verbs, each at one point
FURTHEST = 30  # points of A and B: where one has fewer, it comes to its end

all_seen = Counter[str]()


def apart(session: Session) -> Cast:
    """Set the stage of the pairs; what is claimed from the queue of the job is its coordinator.

    A claim that found more might take it, and not what has become due since it looked.
    """
    it = pairs.cast(session)
    session.run("update tasks set queue = 'elsewhere' where starts_with(task, '$hook/')")
    return it


def expired(session: Session) -> Cast:
    """Let the lease of the coordinator have ended, unnoticed."""
    it = apart(session)
    session.run(
        "update tasks set due_at = clock() where job_id = %s and task = %s", it.job, it.main.task
    )
    return it


def waiting() -> Play:
    """Make a play in which a coordinator may wait for a signal, and not for long."""
    wait = say("main", "park", awaits=["go"], until="2000-01-01Z")
    play = jobs(pairs)

    def do(name: str, session: Session, it: Cast) -> object:
        if name == "wait":
            return told(pairs.Mutator(wait), session, it)
        return play.do(name, session, it)

    return replace(play, cast=apart, deeds=["wait", *play.deeds], do=do)


PLAYS = {
    "a job in all its states": jobs(pairs),
    "a wait": waiting(),
    "a lease that has ended": replace(jobs(pairs), cast=expired),
}
TRIOS: dict[Names, str] = {
    ("claim", "hook finished", "cancel"): "a job in all its states",
    ("claim", "done", "cancel"): "a job in all its states",
    ("claim", "end of a hook", "terminate"): "a job in all its states",
    ("wait", "signal", "claim"): "a wait",
    ("wait", "signal", "deadline"): "a wait",
    ("park until", "command", "deadline"): "a wait",
    ("claim", "extend", "done"): "a lease that has ended",
    ("claim", "extend", "turn with a command"): "a lease that has ended",
    ("claim", "release", "continue"): "a lease that has ended",
}


@pytest.mark.parametrize("trio", TRIOS, ids=" and ".join)
def test_three_that_meet_half_way_come_out_as_one_after_another(
    stepped: tuple[Theatre, list[str]], trio: Names
) -> None:
    """[P3] [P5] [P6] [P8] (C20) (C42) (T3): and no circle of waiting."""
    theatre, places = stepped
    (chance,) = chances(1)
    with theatre.players() as it:
        director = TrioDirector(it, PLAYS[TRIOS[trio]], places)
        if EVERYTHING:
            for names in permutations(trio):
                director.meet_everywhere(names)
        else:
            for _ in range(amount(6)):
                director.judge_trio(drawn(trio, chance))
    tell(director)


def test_any_three_that_meet_come_out_as_one_after_another(
    stepped: tuple[Theatre, list[str]],
) -> None:
    """[P3] [P5] [P6] [P8] (T3): most never meet in one place; so chance draws them."""
    theatre, places = stepped
    (chance,) = chances(1)
    play = jobs(pairs)
    with theatre.players() as it:
        director = TrioDirector(it, play, places)
        for _ in range(amount(DRAWN if EVERYTHING else 4)):
            director.judge_trio(drawn(chance.choices([*play.deeds], k=3), chance))
    tell(director)


def drawn(names: Names | list[str], chance: random.Random) -> Encounter:
    """Draw who of three is stopped, and where."""
    one, two, three = chance.sample(names, 3)
    at, then = chance.randint(1, FURTHEST), chance.randint(1, FURTHEST)
    return Encounter((one, two, three), at, then, chance.random() < 0.5)


def tell(director: TrioDirector) -> None:
    """Tell what was counted, and what came out as in no order."""
    all_seen.update(director.seen)
    print(f"{dict(director.seen)}\nall so far: {dict(all_seen)}")
    assert not director.wrong, "\n\n".join(director.wrong[:10])


@pytest.mark.broken_invariants
def test_a_race_that_is_put_into_the_engine_is_found(
    theatre: Theatre, record_property: Callable[[str, object], None]
) -> None:
    """(T3) (T32): a signal that does not line up is slept through."""
    record_property("mutant", "a signal takes no lock")
    theatre.change("signal", r"lock_job\(signal\.id\)", "read_job(signal.id)")
    places = put_points(theatre)
    with theatre.players() as it:
        director = TrioDirector(it, PLAYS["a wait"], places)
        director.meet_everywhere(("signal", "wait", "cancel"))
        assert director.wrong != []
        print(director.wrong[0])
