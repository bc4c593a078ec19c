"""Every verb that changes something runs beside other calls in some test.

The verbs come from the catalogue, and the server counts which of them the tables of pairs call. A
new verb fails here until it is in one of these tables, or in a list with its reason.
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

# Verbs that are not about a single job, and the tests in which they meet others.
ELSEWHERE = {
    "set_queue": "test_slots",
    "pause_queue": "test_slots",
    "resume_queue": "test_queue_storm",
    "stop_listening": "test_conditions",
    "define_contract": "test_contract_pairs",
    "drop_contract": "test_contract_pairs",
    "create_schedule": "test_schedule_races",
    "drop_schedule": "test_schedule_races",
    "pause_schedule": "test_schedule_races",
    "resume_schedule": "test_schedule_races",
    "trigger_schedule": "test_schedule_races",
    "backfill_schedule": "test_schedule_races",
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


def calls_of_pairs() -> Iterator[
    tuple[str, Callable[[Session], Any], Callable[[Session, Any], Any]]
]:
    """Yield the calls of the tables of pairs: name, function that sets the stage, and call."""
    for module in (test_pairs, test_command_pairs):
        for name, mutator in module.MUTATORS.items():
            yield name, module.cast, mutator.do
    for stage in (test_past_pairs.running, test_past_pairs.finished):
        for name, do in test_past_pairs.MUTATORS.items():
            yield f"{name}, {stage.__name__}", stage, do


def functions_called(session: Session, actors: Any, do: Callable[[Session, Any], Any]) -> set[str]:
    """Make a call that is undone; give the functions that ran."""
    session.begin()
    try:
        do(session, actors)
        query = "select funcname from pg_stat_xact_user_functions where schemaname = 'perdure'"
        return {name for (name,) in session.run(query)}
    except psycopg.Error:
        return set()  # refused in this state; another pair succeeds
    finally:
        session.rollback()


def test_every_verb_of_the_catalogue_meets_others(a: Session) -> None:
    """(T3) In a table of pairs, or in the test that ELSEWHERE names, or ALONE says why not."""
    a.run("set track_functions = 'pl'")
    paired = {
        name for _, stage, do in calls_of_pairs() for name in functions_called(a, stage(a), do)
    }
    a.run("reset track_functions")

    # An installation calls it, so the catalogue does not list it as a verb of its own.
    verbs = mutators(a.connection) | {"adopt_instance"}
    assert verbs - paired == ELSEWHERE.keys() | ALONE.keys()


def test_all_pairs_are_made() -> None:
    """(T3) `make pairs` makes every pair in both orders, with both ends and each job held.

    `make test` leaves out only pairs of mutators that resemble others.
    """
    mutators, actions = test_pairs.MUTATORS, test_crossing_pairs.ACTIONS
    assert set(test_pairs.pairs(everything=True)) == {*product(mutators, mutators, ENDS)}
    gates = test_crossing_pairs.GATES
    assert set(test_crossing_pairs.pairs(everything=True)) == {*product(actions, actions, gates)}
    usual = {pair[:2] for pair in test_pairs.pairs(everything=False)}
    own = [name for name, mutator in mutators.items() if not mutator.is_alike]
    assert usual >= {*product(own, own)}


def test_verbs_tested_elsewhere_appear_in_named_test() -> None:
    """The lists here must not be outdated."""
    missing = [
        verb
        for verb, module in ELSEWHERE.items()
        if verb not in (RACES / f"{module}.py").read_text()
    ]
    assert missing == []
