"""The outcome of a run in a comparable form, and the replay of its journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import perdure
from perdure.database.sealing import Fields
from perdure.database.unsealing import Unsealer
from perdure.failures import failure_of
from perdure.workers.coordinator_calls import open_run
from perdure.workers.turns import facts_of
from perdure.workflow.operations import stored
from tests.engine.crashing import Json, Stage
from tests.engine.outside import Outside
from tests.engine.veils import unveiled

JOBS = """
select id, status, result, error, context, version
  from jobs
 where id = %s
    or parent = %s
 order by id
"""

ENDING = """
select status = 'completed', coalesce(result, error)
  from jobs
 where id = %s
"""

# The facts of a task without their order, because parallel steps may happen in any. A command is
# compared by its argument, as its answer may depend on its neighbours; deadlines differ from run to
# run.
FACTS = """
select job_id, task, kind, name, op, path, ok,
       case when kind in ('command', 'read') then argument
            when kind <> 'note' then value end
  from journal
 where kind <> 'dropped'
   and job_id in (select id from jobs where id = %s or parent = %s)
"""


@dataclass
class Outcome:
    """Jobs with their memories and results, facts, and the calls of activities."""

    jobs: list[tuple[Any, ...]]
    facts: Counter[str]
    calls: Counter[str]


def outcome_of(outside: Outside, calls: Iterable[Any]) -> Outcome:
    """Read the outcome of a job, with its children."""
    told = outside.many(FACTS, outside.job, outside.job)
    facts = Counter(repr((*row, ok, _comparable(ok, value))) for *row, ok, value in told)
    family = [
        (*row, unveiled(result), error and _failure(error, "through"), unveiled(context), version)
        for *row, result, error, context, version in outside.many(JOBS, outside.job, outside.job)
    ]
    return Outcome(family, facts, Counter(map(str, calls)))


def _comparable(ok: bool, value: Any) -> Any:
    return unveiled(value) if ok else _failure(value)


def _failure(failure: Any, *more: str) -> list[Any]:
    """Return the parts of a failure that are the same in every run."""
    told = unveiled(failure)
    return (
        [told.get(name) for name in ("type", "message", *more)] if isinstance(told, dict) else told
    )


def differences(have: Outcome, want: Outcome) -> list[str]:
    """Describe how a run differs from the reference, a line each; an empty list means equal."""
    lines = [f"want {b}\nhave {a}" for a, b in zip(have.jobs, want.jobs, strict=False) if a != b]
    if len(have.jobs) != len(want.jobs):
        lines.append(f"{len(have.jobs)} jobs instead of {len(want.jobs)}")
    for what, has, wants in (("fact", have.facts, want.facts), ("call", have.calls, want.calls)):
        lines += [f"{what} missing: {one}" for one in (wants - has).elements()]
        lines += [f"{what} too much: {one}" for one in (has - wants).elements()]
    return lines


def replay_all(stage: Stage, app: perdure.App) -> int:
    """[P9] Replay the journal of every coordinator to its end; return how many there were."""
    coordinators = [row for row in stage.rows.values() if row["kind"] == "coordinator"]
    for row in coordinators:
        replay(stage, app, row)
    return len(coordinators)


def replay(stage: Stage, app: perdure.App, row: Json) -> None:
    """Replay one journal: it must make no new request, and reach the same end."""
    rows = stage.one("select read_journal(%s, %s)", row["job"], row["task"])
    function = app.coordinators[row["name"]]
    unsealer = Unsealer(app.codec, Fields(app.codec.memory if app.codec else ()), {})
    journal = facts_of([unsealer.fact(row["job"], row["task"], fact) for fact in rows])
    run = open_run(app, function, row | {"asked": 0}, journal)
    try:
        assert run.advance(), (
            f"{row['job']} waits for {list(run.journal.operations)} when it is replayed"
        )
        assert run.journal.take_facts() == []
        assert run.journal.asked == stage.asked.get(row["job"], run.journal.asked), row["job"]
        have = ending_of(run)
    finally:
        run.close()
    [(is_well, told)] = stage.many(ENDING, row["job"])
    assert have == (is_well, _comparable(is_well, told)), row["job"]


def ending_of(run: Any) -> tuple[bool, Any]:
    """Return whether a run ended well, and its result or failure."""
    try:
        return True, stored(run.outcome())
    except BaseException as error:  # noqa: BLE001 - whatever the code has raised
        failure = failure_of(error)
        return False, [failure["type"], failure["message"]]
