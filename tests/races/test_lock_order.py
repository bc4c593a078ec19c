"""No calls can wait for each other in a cycle, whichever of them meet (T16).

`locks.py` finds what each call holds at each lock for which it waits. From this follow all possible
cycles, also those that no two sessions have ever met. The calls are those of the tables of pairs,
and some that touch several rows; each call is undone, so that all find the same rows.
PERDURE_RACE_PAIRS=all includes the calls that resemble others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.races import test_crossing_pairs as crossing
from tests.races import test_pairs as pairs
from tests.races import test_past_pairs as past
from tests.races import test_schedule_races as schedules
from tests.races.locks import Prober, Wait, cycles
from tests.races.sessions import Session, Stage, Task, activity
from tests.races.theatre import Theatre

Action = Callable[[Session, Any], object]

# Calls on one job that touch several tasks, a queue with limits, or a worker's own rows.
SEVERAL: dict[str, Action] = {
    "facts of two": lambda a, actors: a.advance_all(
        [actors.main.keep(activity("x#1")), actors.hook.keep(activity("x#1"))]
    ),
    "facts of two, in reverse": lambda a, actors: a.advance_all(
        [actors.hook.keep(activity("x#1")), actors.main.keep(activity("x#1"))]
    ),
    "heartbeat of two": lambda a, actors: a.extend(actors.hook, actors.main),
    "release of two": lambda a, actors: a.release(actors.main, actors.hook),
    "release of two, in reverse": lambda a, actors: a.release(actors.hook, actors.main),
    "claim by a turn": lambda a, actors: a.advance_all(
        [actors.main.keep(activity("x#1"))], queues=[actors.job], max_tasks=9
    ),
    "idle claim": lambda a, actors: a.claim("x", "y", worker="w", idle=True),
    "idle claim, in reverse": lambda a, actors: a.claim("y", "x", worker="w", idle=True),
    "hello": lambda a, actors: a.rows("register_worker", worker="w", queues=[actors.job, "x"]),
    "limits": lambda a, actors: a.call("set_queue", queue=actors.job, max_running=1),
    "pause of a queue": lambda a, actors: a.call("pause_queue", queue=actors.job),
}

# Calls on a parent and its child.
BOTH: dict[str, Action] = {
    "facts of both": crossing.turn(
        lambda actors: actors.parent.keep(activity("x#1")),
        lambda actors: actors.child.keep(activity("x#1")),
    ),
    "facts of both, in reverse": crossing.turn(
        lambda actors: actors.child.keep(activity("x#1")),
        lambda actors: actors.parent.keep(activity("x#1")),
    ),
    "release of both": lambda a, actors: a.release(actors.parent, actors.child),
    "release of both, in reverse": lambda a, actors: a.release(actors.child, actors.parent),
}

# Calls on a schedule that is due.
TICKS: dict[str, Action] = {
    "tick": schedules.run,
    "forget what is old": lambda a, _: a.one("select forget_finished('infinity')"),
} | {name: lambda a, _, verb=verb: verb(a) for name, verb in schedules.VERBS.items()}


def limited(session: Session) -> pairs.Cast:
    """Give the job of `test_pairs.py`, on a queue with limits."""
    actors = pairs.cast(session)
    session.call("set_queue", queue=actors.job, max_running=9, rate_per_second=9, rate_per_key=9)
    return actors


def due(session: Session) -> Task:
    """Create a schedule that has started a job, and hold its task when it is due again."""
    schedules.make(session)
    schedules.run(session, schedules.taken(session))
    schedules.owe(session, 1)
    return session.claim_one("$sql")


def of_pairs() -> dict[str, Action]:
    """Give the calls on one job."""
    mutators = pairs.MUTATORS.items()
    return {name: actors.do for name, actors in mutators if pairs.EVERYTHING or not actors.is_alike}


STAGES: dict[str, tuple[Callable[[Session], Any], dict[str, Action]]] = {
    "a job in all its states": (limited, of_pairs() | SEVERAL),
    "a parent and its child": (crossing.cast, crossing.ACTIONS | BOTH),
    "a memory of a job that runs": (past.running, past.MUTATORS),
    "a memory of a job that is finished": (past.finished, past.MUTATORS),
    "a schedule": (due, TICKS),
}


def waits_on(stage: Stage, name: str) -> list[Wait]:
    """Find the waits of all calls on a stage."""
    prober = Prober(stage)
    cast, actions = STAGES[name]
    actors = cast(prober.a)
    return [
        w
        for action, do in actions.items()
        for w in prober.waits(action, partial(do, prober.a, actors))
    ]


def shortest_cycles(waits: list[Wait]) -> list[list[str]]:
    """Describe the shortest cycles."""
    return sorted(([str(wait) for wait in cycle] for cycle in cycles(waits)), key=len)[:5]


def out_of_order(waits: list[Wait]) -> list[str]:
    """Describe the waits for a job of calls that hold a job with a later id.

    A free id is no job yet: a call that has inserted it locks no other job, or a cycle would be
    found.
    """
    return [
        str(wait)
        for wait in waits
        for lock in wait.held
        if not wait.is_new
        if lock.table == wait.wanted.table == "jobs" and lock.key > wait.wanted.key
    ]


@pytest.mark.parametrize("name", STAGES)
def test_calls_never_wait_for_each_other_in_cycle(stage: Stage, name: str) -> None:
    """[P3] [P8] (E2) (E3) Calls that need several jobs lock them in the order of their ids."""
    waits = waits_on(stage, name)
    print(len(waits), "waits,", Counter(wait.wanted.table for wait in waits))
    assert shortest_cycles(waits) == []
    assert out_of_order(waits) == []
    assert {wait.wanted.table for wait in waits} >= {"jobs", "tasks", "journal"}


def test_engine_with_another_lock_order_is_detected(theatre: Theatre) -> None:
    """First the tasks of a batch are locked in reverse, then the jobs."""
    order = 'order by given.job collate "C"'
    theatre.change("judge_turns", f"{order}, given.task", f"{order} desc, given.task")
    with theatre.players() as players:
        (cycle, *_) = shortest_cycles(waits_on(players.stage, "a parent and its child"))
        assert "release of both" in " ".join(cycle)
    theatre.change("lock_jobs", "order by j.id for", "order by j.id desc for")
    with theatre.players() as players:
        assert out_of_order(waits_on(players.stage, "a parent and its child")) != []
