"""Every verb that changes something meets others at the same time, in a test that says so.

The verbs are those of the catalogue, and what the tables of pairs call is asked of the server, not
declared: a new verb fails here until it stands in a table, or in a list with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import psycopg

from tests.races import test_command_pairs, test_crossing_pairs, test_pairs, test_past_pairs
from tests.races.sessions import Session
from tests.source import mutators

RACES = Path(__file__).parent
ENDS = ("commit", "rollback")

# What concerns no single job, and meets others in tests of its own.
ELSEWHERE = {
    "set_queue": "test_slots",
    "pause_queue": "test_slots",
    "resume_queue": "test_queue_storm",
    "define_contract": "test_contract_pairs",
    "drop_contract": "test_contract_pairs",
    "create_schedule": "test_schedule_races",
    "drop_schedule": "test_schedule_races",
    "pause_schedule": "test_schedule_races",
    "resume_schedule": "test_schedule_races",
    "trigger_schedule": "test_schedule_races",
    "register_sql_hook": "test_sql_tasks",
    "drop_sql_hook": "test_sql_tasks",
    "run_sql_hooks": "test_sql_tasks",
    "time_out_task": "test_sql_tasks",
    "register_worker": "test_hellos",
    "forget_worker": "test_hellos",
    "move_clock": "test_moved_clock",
    "skip_time": "test_moved_clock",
    "reset_clock": "test_moved_clock",
    "grant_access": "test_owners",
    "revoke_access": "test_owners",
    "adopt_instance": "test_owners",
    "migrate": "test_missing_parts",
}
ALONE = {
    "create_index": "DDL of a client, one at a time: tests/memory/test_index_builds.py",
    "drop_index": "DDL of a client, one at a time: tests/memory/test_index_builds.py",
    "create_test_helpers": "made by a test in its own transaction",
    "run_until_idle": "runs a test's hooks in its own transaction",
}


def deeds() -> Iterator[tuple[str, Callable[[Session], Any], Callable[[Session, Any], Any]]]:
    """Yield what the tables of pairs do, each with its name and with what sets its stage."""
    for module in (test_pairs, test_command_pairs):
        for name, mutator in module.MUTATORS.items():
            yield name, module.cast, mutator.do
    for stage in (test_past_pairs.running, test_past_pairs.finished):
        for name, do in test_past_pairs.MUTATORS.items():
            yield f"{name}, {stage.__name__}", stage, do


def called(session: Session, it: Any, do: Callable[[Session, Any], Any]) -> set[str]:
    """Do something that is undone, and tell which functions ran."""
    session.begin()
    try:
        do(session, it)
        query = "select funcname from pg_stat_xact_user_functions where schemaname = 'perdure'"
        return {name for (name,) in session.run(query)}
    except psycopg.Error:
        return set()  # a refusal; the verb stands in another pair
    finally:
        session.rollback()


def test_every_verb_of_the_catalogue_meets_others(a: Session) -> None:
    """(T3): in a table of pairs, or where ELSEWHERE says, or it says why not."""
    a.run("set track_functions = 'pl'")
    paired = {name for _, stage, do in deeds() for name in called(a, stage(a), do)}
    a.run("reset track_functions")

    # An install adopts, so the catalogue takes this for a part of something else.
    verbs = mutators(a.connection) | {"adopt_instance"}
    assert verbs - paired == ELSEWHERE.keys() | ALONE.keys()


def test_all_pairs_are_all_of_them() -> None:
    """(T3): `make pairs` lets each meet each, in both orders and to both ends, and holds each job
    in turn where two cross; `make test` leaves out no pair of what resembles nothing else."""
    mutators, deeds = test_pairs.MUTATORS, test_crossing_pairs.DEEDS
    assert set(test_pairs.pairs(everything=True)) == {*product(mutators, mutators, ENDS)}
    gates = test_crossing_pairs.GATES
    assert set(test_crossing_pairs.pairs(everything=True)) == {*product(deeds, deeds, gates)}
    usual = {pair[:2] for pair in test_pairs.pairs(everything=False)}
    own = [name for name, mutator in mutators.items() if not mutator.is_alike]
    assert usual >= {*product(own, own)}


def test_where_others_say_they_are_tested_they_are() -> None:
    """A list of names that nobody keeps is worth nothing."""
    missing = [
        verb
        for verb, module in ELSEWHERE.items()
        if verb not in (RACES / f"{module}.py").read_text()
    ]
    assert missing == []
