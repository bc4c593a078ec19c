"""No two calls can wait for each other in a circle, whatever they meet: lockdep (T16).

From what each call holds at each lock for which it waits (`locks.py`) follows every way in which
calls could stand in a circle, also one that no two sessions have ever met. The calls are those of
the tables of pairs, and some that touch several rows; each finds its stage as it was set, since it
is undone. PERDURE_RACE_PAIRS=all takes those that differ little from others too.
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
from tests.races.locks import Prober, Wait, circles
from tests.races.sessions import Session, Stage, Task, activity
from tests.races.theatre import Theatre

Deed = Callable[[Session, Any], object]

# Calls on one job that touch several tasks, a queue with limits, or a worker's own rows.
SEVERAL: dict[str, Deed] = {
    "facts of two": lambda a, it: a.advance_all(
        [it.main.keep(activity("x#1")), it.hook.keep(activity("x#1"))]
    ),
    "facts of two, in reverse": lambda a, it: a.advance_all(
        [it.hook.keep(activity("x#1")), it.main.keep(activity("x#1"))]
    ),
    "heartbeat of two": lambda a, it: a.extend(it.hook, it.main),
    "release of two": lambda a, it: a.release(it.main, it.hook),
    "release of two, in reverse": lambda a, it: a.release(it.hook, it.main),
    "claim by a turn": lambda a, it: a.advance_all(
        [it.main.keep(activity("x#1"))], queues=[it.job], max_tasks=9
    ),
    "idle claim": lambda a, it: a.claim("x", "y", worker="w", idle=True),
    "idle claim, in reverse": lambda a, it: a.claim("y", "x", worker="w", idle=True),
    "hello": lambda a, it: a.rows("register_worker", worker="w", queues=[it.job, "x"]),
    "limits": lambda a, it: a.call("set_queue", queue=it.job, max_running=1),
    "pause of a queue": lambda a, it: a.call("pause_queue", queue=it.job),
}

# On a parent and its child.
BOTH: dict[str, Deed] = {
    "facts of both": crossing.turn(
        lambda it: it.parent.keep(activity("x#1")), lambda it: it.child.keep(activity("x#1"))
    ),
    "facts of both, in reverse": crossing.turn(
        lambda it: it.child.keep(activity("x#1")), lambda it: it.parent.keep(activity("x#1"))
    ),
    "release of both": lambda a, it: a.release(it.parent, it.child),
    "release of both, in reverse": lambda a, it: a.release(it.child, it.parent),
}

# On a schedule that owes a due time.
TICKS: dict[str, Deed] = {
    "tick": schedules.run,
    "forget what is old": lambda a, _: a.one("select forget_finished('infinity')"),
} | {name: lambda a, _, verb=verb: verb(a) for name, verb in schedules.VERBS.items()}


def limited(session: Session) -> pairs.Cast:
    """Set the stage of the pairs, on a queue with limits."""
    it = pairs.cast(session)
    session.call("set_queue", queue=it.job, max_running=9, rate_per_second=9)
    return it


def due(session: Session) -> Task:
    """Make a schedule that has started a job, and hold its task when it is due again."""
    schedules.make(session)
    schedules.run(session, schedules.taken(session))
    schedules.owe(session, 1)
    return session.claim_one("$sql")


def of_pairs() -> dict[str, Deed]:
    """Give what is done to one job."""
    mutators = pairs.MUTATORS.items()
    return {name: it.do for name, it in mutators if pairs.EVERYTHING or not it.is_alike}


STAGES: dict[str, tuple[Callable[[Session], Any], dict[str, Deed]]] = {
    "a job in all its states": (limited, of_pairs() | SEVERAL),
    "a parent and its child": (crossing.cast, crossing.DEEDS | BOTH),
    "a memory of a job that runs": (past.running, past.MUTATORS),
    "a memory of a job that is finished": (past.finished, past.MUTATORS),
    "a schedule": (due, TICKS),
}


def waits_on(stage: Stage, name: str) -> list[Wait]:
    """Find the waits of all calls on a stage, which each of them finds as it was set."""
    prober = Prober(stage)
    cast, deeds = STAGES[name]
    it = cast(prober.a)
    return [w for deed, do in deeds.items() for w in prober.waits(deed, partial(do, prober.a, it))]


def told(waits: list[Wait]) -> list[list[str]]:
    """Tell of the shortest circles, in words."""
    return sorted(([str(wait) for wait in circle] for circle in circles(waits)), key=len)[:5]


def out_of_order(waits: list[Wait]) -> list[str]:
    """Tell of waits for a job by who holds one that stands behind it in the order of ids.

    An id that is free is no job yet: who has inserted it locks no other, or it closed a circle.
    """
    return [
        str(wait)
        for wait in waits
        for lock in wait.held
        if not wait.is_new
        if lock.table == wait.wanted.table == "jobs" and lock.key > wait.wanted.key
    ]


@pytest.mark.parametrize("name", STAGES)
def test_calls_never_stand_in_a_circle(stage: Stage, name: str) -> None:
    """[P3] [P8] (E2) (E3): and who needs several jobs locks them in the order of their ids."""
    waits = waits_on(stage, name)
    print(len(waits), "waits,", Counter(wait.wanted.table for wait in waits))
    assert told(waits) == []
    assert out_of_order(waits) == []
    assert {wait.wanted.table for wait in waits} >= {"jobs", "tasks", "journal"}


def test_an_engine_that_locks_in_another_order_is_seen(theatre: Theatre) -> None:
    """Tasks in the reverse order, where other calls keep to it; and jobs in that of their ids."""
    order = 'order by given.job collate "C"'
    theatre.change("judge_turns", f"{order}, given.task", f"{order} desc, given.task")
    with theatre.players() as players:
        (circle, *_) = told(waits_on(players.stage, "a parent and its child"))
        assert "release of both" in " ".join(circle)
    theatre.change("lock_jobs", "order by j.id for", "order by j.id desc for")
    with theatre.players() as players:
        assert out_of_order(waits_on(players.stage, "a parent and its child")) != []
