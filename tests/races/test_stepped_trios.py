"""Three calls run at once: two are stopped between their steps, and a third begins. (T3)

The trios are those in which a task can be lost or done twice: claiming it, ending it and asking it
to cancel; waiting for a signal, the signal and the end of the wait; an expired lease, its heartbeat
and the end of the work. By default each trio meets at a few points, others in each run;
PERDURE_RACE_PAIRS=all takes all points, and more trios drawn from all calls (`make pairs`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import pytest

from tests.amount import amount
from tests.races import answers
from tests.races import test_pairs as pairs
from tests.races.meetings import Play, jobs
from tests.races.points import put_points
from tests.races.sessions import Session, chances
from tests.races.test_pairs import EVERYTHING, Cast, result_of, send_turn
from tests.races.theatre import Theatre
from tests.races.trios import Encounter, Names, TrioDirector

pytestmark = pytest.mark.direct("its sessions report their place in their name")

DRAWN = 60  # trios of any calls, each at one point
FURTHEST = 30  # the highest point at which A and B stop; a call with fewer points ends

total_seen = Counter[str]()


def alone_on_queue(session: Session) -> Cast:
    """Give the cast of the pairs, with its coordinator alone on the queue of the job.

    A claim that found other tasks might take one of them, and not the coordinator that has become
    due since it looked.
    """
    actors = pairs.cast(session)
    session.run("update tasks set queue = 'elsewhere' where starts_with(task, '$hook/')")
    return actors


def expired(session: Session) -> Cast:
    """Give this cast, in which the lease of the coordinator has ended."""
    actors = alone_on_queue(session)
    session.run(
        "update tasks set due_at = clock() where job_id = %s and task = %s",
        actors.job,
        actors.main.task,
    )
    return actors


def waiting() -> Play:
    """Make a play in which a coordinator waits for a signal until a time that is over."""
    wait = send_turn("main", "park", awaits=["go"], until="2000-01-01Z")
    play = jobs(pairs)

    def do(name: str, session: Session, actors: Cast) -> object:
        if name == "wait":
            return result_of(pairs.Mutator(wait), session, actors)
        return play.do(name, session, actors)

    return replace(play, cast=alone_on_queue, actions=["wait", *play.actions], do=do)


PLAYS = {
    "a job in all its states": jobs(pairs),
    "a wait": waiting(),
    "a lease that has ended": replace(jobs(pairs), cast=expired),
    "answers": jobs(answers),
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
    ("take", "end of the early hook", "ask again"): "answers",
    ("take", "end of the early hook", "terminate"): "answers",
}


@pytest.mark.parametrize("trio", TRIOS, ids=" and ".join)
def test_three_calls_stopped_half_way_have_outcome_of_one_order(
    stepped: tuple[Theatre, list[str]], trio: Names
) -> None:
    """[P3] [P5] [P6] [P8] (C20) (C42) (T3) No calls deadlock."""
    theatre, places = stepped
    (chance,) = chances(1)
    with theatre.players() as players:
        director = TrioDirector(players, PLAYS[TRIOS[trio]], places)
        if EVERYTHING:
            for names in permutations(trio):
                director.meet_everywhere(names)
        else:
            for _ in range(amount(6)):
                director.judge_trio(draw(trio, chance))
    report(director)


def test_three_random_calls_have_outcome_of_one_order(
    stepped: tuple[Theatre, list[str]],
) -> None:
    """[P3] [P5] [P6] [P8] (T3) Most trios never touch the same row, so only some are drawn."""
    theatre, places = stepped
    (chance,) = chances(1)
    play = jobs(pairs)
    with theatre.players() as players:
        director = TrioDirector(players, play, places)
        for _ in range(amount(DRAWN if EVERYTHING else 4)):
            director.judge_trio(draw(chance.choices([*play.actions], k=3), chance))
    report(director)


def draw(names: Names | list[str], chance: random.Random) -> Encounter:
    """Draw which two of three are stopped, and where."""
    one, two, three = chance.sample(names, 3)
    at, then = chance.randint(1, FURTHEST), chance.randint(1, FURTHEST)
    return Encounter((one, two, three), at, then, chance.random() < 0.5)


def report(director: TrioDirector) -> None:
    """Print the counts, and fail on outcomes of no order."""
    total_seen.update(director.seen)
    print(f"{dict(director.seen)}\nall so far: {dict(total_seen)}")
    assert not director.wrong, "\n\n".join(director.wrong[:10])


@pytest.mark.broken_invariants
def test_race_put_into_engine_is_found(
    theatre: Theatre, record_property: Callable[[str, object], None]
) -> None:
    """(T3) (T32) A signal that takes no lock is not seen by a task that parks."""
    record_property("mutant", "a signal takes no lock")
    theatre.change("signal", r"lock_job\(signal\.id\)", "read_job(signal.id)")
    places = put_points(theatre)
    with theatre.players() as players:
        director = TrioDirector(players, PLAYS["a wait"], places)
        director.meet_everywhere(("signal", "wait", "cancel"))
        assert director.wrong != []
        print(director.wrong[0])
