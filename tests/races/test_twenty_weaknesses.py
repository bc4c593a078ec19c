"""Twenty weaknesses that engines of this kind have had; each is put into a copy of this one, and a
named test catches it. (T32)

A row says what is broken, and by which test that is noticed: one that stands elsewhere, is run on
the sound engine first, where it passes, and then on the broken one. What this design cannot have as
it is named has its nearest equivalent here, and the row says why. More mutants of single functions
stand in `test_broken_engines.py` and `test_broken_commands.py`.
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
from tests.races import test_park_and_mail as parks
from tests.races import test_past_pairs as past
from tests.races import test_zombies as zombies
from tests.races.mail import signal
from tests.races.test_broken_engines import Mutant, Test, two
from tests.races.theatre import Players, Theatre
from tests.taps import failures, load_pgtap
from tests.worker import test_client as clients

Break = Callable[[Theatre, pytest.MonkeyPatch], None]


def alone(test: Callable[..., Any], *more: Any) -> Test:
    """Run a test of one session."""
    return lambda it: test(it.a, *more)


def at_work(test: Callable[..., Any], **more: Any) -> Test:
    """Run a test of workers, with those of their fixtures that it names."""

    def run(it: Players) -> None:
        with ExitStack() as stack:
            app = perdure.App()

            def work(**options: Any) -> perdure.Worker:
                return stack.enter_context(perdure.Worker(app, dsn=it.dsn, **options))

            def stage() -> Stage:
                stage = stack.enter_context(stage_on(it.dsn))
                stage.job = "job"
                return stage

            fixtures: dict[str, Callable[[], Any]] = {
                "app": lambda: app,
                "client": lambda: stack.enter_context(perdure.connect(it.dsn)),
                "connection": lambda: it.a.connection,
                "runs": Counter,
                "stage": stage,
                "work": lambda: work,
            }
            named = signature(test).parameters.keys() - more
            test(**{name: fixtures[name]() for name in named}, **more)

    return run


def taps(file: str) -> Test:
    """Run a file of pgTAP: none of its facts is false."""

    def run(it: Players) -> None:
        load_pgtap(it.c.connection, "perdure")
        assert failures(it.c.connection, file) == []

    return run


def sql(function: str, place: str, change: str) -> Break:
    """Change a function where its text matches; a space stands for any white space."""
    return lambda theatre, _: theatre.change(function, place, change)


def statement(text: str) -> Break:
    """Do something as the owner."""
    return lambda theatre, _: theatre.run(text)


def patched(*changes: tuple[object, str, object]) -> Break:
    """Change names of modules and classes."""

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
    """Take a mutant that stands in another table."""
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
    """Pause as before, but for ever where it was until the next look of an idle worker."""
    pause = _pause(self)
    return math.inf if pause > max(claim_pace.LADDER) else pause


WEAKNESSES = {
    "M1 no token check": known(
        "turns are judged by their position alone",
        engines.MUTANTS["turns are judged without their token"],
    ),
    "M2 no lock in await": known(
        "a task that parks reads its inbox without the lock of its job",
        engines.MUTANTS["advance reads the inbox without the lock of the job"],
    ),
    "M3 IN-subquery claim": Weakness(
        "the rows to claim are chosen in a sub-select of the update, which runs for each row: more"
        " are taken than were asked for",
        sql("lease_due", r"from \(select c\.place,.*? returning", CLAIM_BY_SUBSELECT),
        lambda it: claims.test_what_a_claimer_rolls_back_is_there_for_the_next(it.stage),
    ),
    "M4 reversed lock order": known(
        "one of two sessions locks jobs from the end",
        engines.MUTANTS["jobs are locked in any order"],
    ),
    "M5 no command log": known(
        "the journal is not searched for the caller's key",
        engines.MUTANTS["a key of a command is not looked up"],
    ),
    "M6 now() lease": Weakness(
        "a claim reads the time of its transaction",
        sql("claim_due", r"claimed_at timestamptz := clock\(\)", "claimed_at timestamptz := now()"),
        alone(claims.test_a_lease_begins_with_the_claim_not_with_its_transaction),
    ),
    "M7 NOTIFY without poll": Weakness(
        "an idle worker waits for a notification alone",
        patched((claim_pace.ClaimPace, "_pause", pause_for_ever), (clients, "T", "1 s")),
        at_work(clients.test_results_come_without_any_notification),
    ),
    "M8 wake after commit": Weakness(
        "a signal leaves waking to what follows its commit: a function commits nothing, so here"
        " nothing follows, as after a crash in between",
        sql("signal", r"wake_tasks\(array\[signal\.id\], sent_at\)", "'{}'"),
        lambda it: parks.test_mail_that_comes_after_the_park_wakes_the_task(
            it.a, signal(it.a, it.b)
        ),
    ),
    "M9 timer deleted before wake": Weakness(
        "a timer is the time at which its task is due, so it cannot be deleted alone; here a claim"
        " leaves no time at which the task of a worker that dies is due again",
        sql(
            "lease_due", r"lease_due\.leased_at \+ lease_due\.lease_for", "timestamptz '9999-01-01'"
        ),
        taps("claim.sql"),
    ),
    "M10 retry classification wrong": Weakness(
        "a call whose reply was lost is taken for one that has failed",
        patched((connections, "can_be_repeated", lambda error, is_connected: False)),
        at_work(crashes.test_lost_replies_are_asked_for_again_and_nothing_is_done_twice),
    ),
    "M11 heartbeat without token": known(
        "a heartbeat renews whatever lease there is",
        engines.MUTANTS["heartbeats are accepted without a token"],
    ),
    "M12 delivery counted in worker": Weakness(
        "a claim counts nothing, and a worker that dies has told nobody",
        sql("lease_due", r"deliveries = t\.deliveries \+ 1", "deliveries = t.deliveries"),
        taps("tasks/poison.sql"),
    ),
    "M13 STABLE mutator": known(
        "the server lets no STABLE function lock or write (0A000); what is left of the danger is"
        " a memory that is read with the snapshot from before the wait",
        commands.MUTANTS["the memory is read in the statement that locks it"],
    ),
    "M14 unordered GC": Weakness(
        "who forgets locks jobs by age, which is sound as it never waits; here it waits",
        sql("forget_finished", "for update skip locked", "for update"),
        two(past.test_who_forgets_waits_for_nobody_and_needs_no_order),
    ),
    "M15 per-attempt token": Weakness(
        "all claims within one attempt have one token",
        sql("claim", r"coalesce\(claim\.claim_id, gen_random_uuid\(\)\)", "md5('1')::uuid"),
        lambda it: zombies.test_nothing_of_a_late_turn_has_any_effect(
            it.a, zombies.dead(it.a, it.b, zombies.parked_and_claimed), False
        ),
    ),
    "M16 signal dedupe dropped at continue-as-new": Weakness(
        "a run takes what it has heard with it when the next begins",
        sql(
            "continue_runs",
            r"perform forward_cancel_requests\(ended\);",
            r"\g<0> delete from inbox as i using unnest(ended) as r"
            " where i.job_id = r.job and i.consumed_at is not null;",
        ),
        two(runs.test_the_key_of_a_signal_is_remembered_by_the_next_run),
    ),
    "M17 search_path unset": Weakness(
        "a function looks its names up where its caller does",
        sql("signal", "SET search_path TO [^\n]*", ""),
        taps("tidy.sql"),
    ),
    "M18 PUBLIC execute": Weakness(
        "anybody may claim",
        statement("grant execute on all functions in schema perdure to public"),
        taps("tidy.sql"),
    ),
    "M19 jsonb_set raw": known(
        "jsonb_set() says what becomes of a path whose parents are missing: nothing",
        commands.MUTANTS["a value is put as jsonb_set puts it"],
    ),
    "M20 value returned from memory": Weakness(
        "an activity's result is given to the code as it is, not as it will be read",
        patched((operations, "as_stored", lambda value: value)),
        at_work(crashes.test_the_keys_of_a_result_iterate_alike_live_and_replayed, faults=Faults()),
    ),
}


NO_ENGINES: dict[str, tuple[Test, str]] = {
    "raised": (commands.a_sum, "from jobs as j, jobs as i where version = 1"),
    "caught and compared": (commands.the_page, "from jobs as j where j.nothing = 1"),
    "told by pgTAP": (taps("commands/grid.sql"), "from jobs as j, jobs as i where version = 1"),
}
"""A statement that cannot be run, put where a command begins; and how a test meets it."""


@pytest.mark.broken_invariants
@pytest.mark.parametrize("how", NO_ENGINES)
def test_a_change_that_is_no_sql_is_no_weakness(theatre: Theatre, how: str) -> None:
    """(T32): whatever test it is, it would fail; so it says nothing of the test."""
    test, sources = NO_ENGINES[how]
    theatre.change("run_command", r"begin ", f"begin perform {sources}; ")
    with pytest.raises((psycopg.Error, AssertionError), match=r"ambiguous|4270\d"):
        theatre.passes(test)


def test_the_list_is_whole() -> None:
    assert [name.split()[0] for name in WEAKNESSES] == [f"M{number}" for number in range(1, 21)]


@pytest.mark.broken_invariants
@pytest.mark.parametrize("name", WEAKNESSES)
def test_a_weakness_is_noticed(
    theatre: Theatre,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
    name: str,
) -> None:
    """(T32): the test of the row passes on the engine, and fails on the broken one."""
    record_property("mutant", name)
    weakness = WEAKNESSES[name]
    assert theatre.passes(weakness.test)

    weakness.breaks(theatre, monkeypatch)

    assert not theatre.passes(weakness.test)
