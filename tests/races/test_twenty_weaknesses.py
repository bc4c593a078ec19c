"""Twenty known weaknesses are put into copies of the engine, and a named test notices each. (T32)

A row says what is broken, and which test notices it. That test is in another file; it runs first on
the sound engine, where it passes, and then on the broken one. A weakness that this design cannot
have has its nearest equivalent here, and the row says why. `test_broken_engines.py` and
`test_broken_commands.py` have more mutants of single functions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from inspect import signature
from typing import Any

import psycopg
import pytest

import perdure
from perdure.database import connections
from perdure.workers import claim_pace
from perdure.workflow import operations
from tests.engine import test_crash_scenarios as crashes
from tests.engine.crashing import Faults, Stage, stage_on
from tests.races import test_between_runs as runs
from tests.races import test_broken_commands as commands
from tests.races import test_broken_engines as engines
from tests.races import test_claims as claims
from tests.races import test_park_and_messages as parks
from tests.races import test_past_pairs as past
from tests.races import test_zombies as zombies
from tests.races.messages import signal
from tests.races.test_broken_engines import Mutant, Test, two
from tests.races.theatre import Players, Theatre
from tests.taps import failures, load_pgtap
from tests.worker import test_client as clients

Break = Callable[[Theatre, pytest.MonkeyPatch], None]


def alone(test: Callable[..., Any], *more: Any) -> Test:
    """Make a run of a test with one session."""
    return lambda players: test(players.a, *more)


def at_work(test: Callable[..., Any], **more: Any) -> Test:
    """Make a run of a test of workers, with those of their fixtures that it names."""

    def run(players: Players) -> None:
        with ExitStack() as stack:
            app = perdure.App()

            def work(**options: Any) -> perdure.Worker:
                return stack.enter_context(perdure.Worker(app, dsn=players.dsn, **options))

            def stage() -> Stage:
                stage = stack.enter_context(stage_on(players.dsn))
                stage.job = "job"
                return stage

            fixtures: dict[str, Callable[[], Any]] = {
                "app": lambda: app,
                "client": lambda: stack.enter_context(perdure.connect(players.dsn)),
                "connection": lambda: players.a.connection,
                "runs": Counter,
                "stage": stage,
                "work": lambda: work,
            }
            named = signature(test).parameters.keys() - more
            test(**{name: fixtures[name]() for name in named}, **more)

    return run


def taps(file: str) -> Test:
    """Make a run of a pgTAP file, in which every assertion must hold."""

    def run(players: Players) -> None:
        load_pgtap(players.c.connection, "perdure")
        assert failures(players.c.connection, file) == []

    return run


def sql(function: str, place: str, change: str) -> Break:
    """Change a function where its text matches; a space stands for any white space."""
    return lambda theatre, _: theatre.change(function, place, change)


def statement(text: str) -> Break:
    """Run a statement as the owner."""
    return lambda theatre, _: theatre.run(text)


def patched(*changes: tuple[object, str, object]) -> Break:
    """Replace attributes of modules and classes."""

    def patch(_: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
        for target, name, value in changes:
            monkeypatch.setattr(target, name, value)

    return patch


@dataclass(frozen=True)
class Weakness:
    """What is broken, how, and the test that notices it."""

    what: str
    breaks: Break
    test: Test


def known(what: str, mutant: Mutant) -> Weakness:
    """Take a mutant from another table."""
    return Weakness(what, sql(mutant.function, mutant.place, mutant.change), mutant.test)


CLAIM_BY_SUBSELECT = r"""
          from (select null::timestamptz as due_at, false as is_poisoned) as d
         where (t.job_id, t.task) in (
            select i.job_id, i.task
              from tasks as i
             where i.queue = t.queue
               and i.queue = any(array(select c.queue from unnest(lease_due.chosen) as c))
               and i.due_at <= lease_due.leased_at
             limit cardinality(lease_due.chosen)
               for no key update skip locked)
         returning"""

_pause = claim_pace.ClaimPace._pause


def pause_for_ever(self: claim_pace.ClaimPace) -> float:
    """Pause as before, but for ever instead of until the next poll of an idle worker."""
    pause = _pause(self)
    return math.inf if pause > claim_pace.STEP_BACK else pause


WEAKNESSES = {
    "M1 no token check": known(
        "turns are checked only by their position",
        engines.MUTANTS["turns are checked without their token"],
    ),
    "M2 no lock in await": known(
        "a task that parks reads its inbox without the lock of its job",
        engines.MUTANTS["advance reads the inbox without the lock of the job"],
    ),
    "M3 IN-subquery claim": Weakness(
        "the rows to claim are chosen in a sub-select of the update, which runs for each row, so it"
        " claims more than it should",
        sql("lease_due", r"from \(select c\.place,.*? returning", CLAIM_BY_SUBSELECT),
        lambda players: claims.test_tasks_of_claim_that_is_rolled_back_can_be_claimed(
            players.stage
        ),
    ),
    "M4 reversed lock order": known(
        "one of two sessions locks jobs in reverse",
        engines.MUTANTS["jobs are locked in any order"],
    ),
    "M5 no command log": known(
        "the key of a command is not looked up in the journal",
        engines.MUTANTS["a key of a command is not looked up"],
    ),
    "M6 now() lease": Weakness(
        "a claim takes the start of its transaction as its time",
        sql("claim_due", r"claimed_at timestamptz := clock\(\)", "claimed_at timestamptz := now()"),
        alone(claims.test_lease_begins_at_claim_not_at_start_of_transaction),
    ),
    "M7 NOTIFY without poll": Weakness(
        "an idle worker waits only for notifications",
        patched((claim_pace.ClaimPace, "_pause", pause_for_ever), (clients, "T", "1 s")),
        at_work(clients.test_results_come_without_any_notification),
    ),
    "M8 wake after commit": Weakness(
        "a signal wakes the task only after its commit: a function cannot commit, so here it never"
        " wakes it, as after a crash in between",
        sql("signal", r"wake_tasks\(array\[signal\.id\], sent_at\)", "'{}'"),
        lambda players: parks.test_message_after_park_wakes_task(
            players.a, signal(players.a, players.b)
        ),
    ),
    "M9 timer deleted before wake": Weakness(
        "a timer is the time at which its task is due, so it cannot be deleted; here the task of a"
        " worker that dies never becomes due again",
        sql(
            "lease_due", r"lease_due\.leased_at \+ lease_due\.lease_for", "timestamptz '9999-01-01'"
        ),
        taps("claim.sql"),
    ),
    "M10 retry classification wrong": Weakness(
        "a call whose reply was lost is treated as failed",
        patched((connections, "can_be_repeated", lambda error, is_connected: False)),
        at_work(crashes.test_calls_with_lost_replies_are_repeated_without_effect),
    ),
    "M11 heartbeat without token": known(
        "a heartbeat renews the lease of any holder",
        engines.MUTANTS["heartbeats are accepted without a token"],
    ),
    "M12 delivery counted in worker": Weakness(
        "a claim counts no delivery, and a worker that dies cannot count it",
        sql("lease_due", r"deliveries = t\.deliveries \+ 1", "deliveries = t.deliveries"),
        taps("tasks/poison.sql"),
    ),
    "M13 STABLE mutator": known(
        "the server lets no STABLE function lock or write (0A000); the remaining danger is a memory"
        " that is read with the snapshot from before the wait",
        commands.MUTANTS["the memory is read in the statement that locks it"],
    ),
    "M14 unordered GC": Weakness(
        "forget_finished() locks jobs by age, which is sound since it never waits; here it waits",
        sql("forget_finished", "for update skip locked", "for update"),
        two(past.test_forget_finished_waits_for_no_lock_and_closes_no_cycle),
    ),
    "M15 per-attempt token": Weakness(
        "all claims within one attempt have one token",
        sql("claim", r"coalesce\(claim\.claim_id, gen_random_uuid\(\)\)", "md5('1')::uuid"),
        lambda players: zombies.test_late_turn_has_no_effect(
            players.a, zombies.lost_lease(players.a, players.b, zombies.parked_and_claimed), False
        ),
    ),
    "M16 signal dedupe dropped at continue-as-new": Weakness(
        "the consumed messages of a run are deleted when the next one begins",
        sql(
            "continue_runs",
            r"perform forward_cancel_requests\(ended\);",
            r"\g<0> delete from inbox as i using unnest(ended) as r"
            " where i.job_id = r.job and i.consumed_at is not null;",
        ),
        two(runs.test_the_key_of_a_signal_is_remembered_by_the_next_run),
    ),
    "M17 search_path unset": Weakness(
        "a function uses the search_path of its caller",
        sql("signal", "SET search_path TO [^\n]*", ""),
        taps("tidy.sql"),
    ),
    "M18 PUBLIC execute": Weakness(
        "every role may call every function",
        statement("grant execute on all functions in schema perdure to public"),
        taps("tidy.sql"),
    ),
    "M19 jsonb_set raw": known(
        "values are written with jsonb_set(), which ignores paths with missing parents",
        commands.MUTANTS["a value is put as jsonb_set puts it"],
    ),
    "M20 value returned from memory": Weakness(
        "the code gets the result of an activity as it is, not as replay will read it",
        patched((operations, "as_stored", lambda value: value)),
        at_work(crashes.test_keys_of_a_result_keep_their_order_in_replay, faults=Faults()),
    ),
}


NO_ENGINES: dict[str, tuple[Test, str]] = {
    "raised": (commands.exact_sum, "from jobs as j, jobs as i where version = 1"),
    "caught and compared": (commands.memory_page, "from jobs as j where j.nothing = 1"),
    "reported by pgTAP": (taps("commands/grid.sql"), "from jobs as j, jobs as i where version = 1"),
}
"""A statement that cannot be run, put at the beginning of a command; and how a test reports it."""


@pytest.mark.broken_invariants
@pytest.mark.parametrize("how", NO_ENGINES)
def test_change_that_is_not_valid_sql_is_no_weakness(theatre: Theatre, how: str) -> None:
    """(T32) Any test would fail on it, so it proves nothing about the test."""
    test, sources = NO_ENGINES[how]
    theatre.change("run_command", r"begin ", f"begin perform {sources}; ")
    with pytest.raises((psycopg.Error, AssertionError), match=r"ambiguous|4270\d"):
        theatre.passes(test)


def test_list_has_all_twenty_weaknesses() -> None:
    assert [name.split()[0] for name in WEAKNESSES] == [f"M{number}" for number in range(1, 21)]


@pytest.mark.broken_invariants
@pytest.mark.parametrize("name", WEAKNESSES)
def test_weakness_fails_its_test(
    theatre: Theatre,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
    name: str,
) -> None:
    """(T32) The test of the row passes on the sound engine, and fails on the broken one."""
    record_property("mutant", name)
    weakness = WEAKNESSES[name]
    assert theatre.passes(weakness.test)

    weakness.breaks(theatre, monkeypatch)

    assert not theatre.passes(weakness.test)
