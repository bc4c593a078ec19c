"""Restoring, applying, logging and forgetting run beside every other call on the same memory.

A runs in an open transaction; B comes meanwhile and may wait; then A commits or rolls back. The
answers to both and the rows that are left must equal those of `A, then B` or `B, then A`, each run
in sequence; after a rollback, those of B alone. Each history must be the sum of its commands. [P2]
[P3] [P8]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import psycopg
import pytest

from tests.races.sessions import Answer, Session, Task, command
from tests.races.test_pairs import Outcome, plain_update, swapped, verb

_numbers = count(1)


@dataclass(frozen=True)
class Cast:
    """A memory with some versions: of a finished job, or of one that runs."""

    job: str
    main: Task | None


def finished(session: Session) -> Cast:
    """Give the memory of a finished job."""
    actors = running(session)
    assert actors.main is not None
    assert session.advance(actors.main.done("end")).state == "done"
    return Cast(actors.job, None)


def running(session: Session) -> Cast:
    """Give the memory of a job whose coordinator is held."""
    job = f"past {next(_numbers):06}"
    main = session.held(job, context={"n": 0, "l": []})
    session.call("entity_append", id=job, path="l", items=["first"])
    session.call("entity_log", id=job, path="log", items=["first"])
    return Cast(job, main)


def apply(session: Session, actors: Cast) -> Any:
    """Apply three commands."""
    commands = [
        {"op": "append", "path": "l", "value": "applied"},
        {"op": "log", "path": "log", "value": "applied"},
        {"op": "increment", "path": "n", "value": 10},
    ]
    query = "select entity_apply(%s, %s, key => 'apply')"
    return session.one(query, actors.job, json.dumps(commands))


def turn(session: Session, actors: Cast) -> Any:
    """Send a turn with commands and a read."""
    if actors.main is None:
        return None
    facts = [
        command("append", "l", ["turn"]),
        command("log", "log", ["turn"]),
        command("get"),
        command("get", "log"),
    ]
    return session.advance(actors.main.keep(*facts), waiting=True)


def start(session: Session, actors: Cast) -> Any:
    """Start a job of the same id."""
    return session.start(actors.job, context={"new": True}, if_exists="existing")


def create(session: Session, actors: Cast) -> Any:
    """Create an entity of the same id."""
    return session.call("entity_create", id=actors.job, entity="note", context={"new": True})


def forget_finished(session: Session, actors: Cast) -> Any:
    """Forget all finished jobs."""
    return session.one("select forget_finished('infinity')")


PAST: dict[str, Callable[[Session, Cast], Any]] = {
    "restore": verb("entity_restore", version=1, key="restore"),
    "apply": apply,
    "log": verb("entity_log", path="log", items=["outside"]),
    "forget": verb("forget"),
    "forget finished": forget_finished,
}
OTHERS: dict[str, Callable[[Session, Cast], Any]] = {
    "command": verb("entity_append", path="l", items=["outside"]),
    "plain update": plain_update,
    "turn": turn,
    "hook": verb("hook", name="h", key="new", queue="other"),
    "start": start,
    "create": create,
    "terminate": verb("terminate"),
    "signal": verb("signal", name="go"),
}
MUTATORS = PAST | OTHERS
CASTS = {"finished": finished, "running": running}

# It does not wait, but skips locked jobs; its caller repeats it.
SKIPS_LOCKED = {"forget finished"}


def result_of(name: str, session: Session, actors: Cast) -> Any:
    """Make the call; return its answer without what differs from run to run."""
    try:
        answer = MUTATORS[name](session, actors)
    except psycopg.Error as error:
        return f"error {error.sqlstate}"
    return (answer.state, answer.answers) if isinstance(answer, Answer) else answer


LEFT = """
select jsonb_build_object(
    'job', (select to_jsonb(j) - array['created_at', 'updated_at', 'finished_at', 'started_at']
                               - array['start_key']
              from jobs as j where j.id = %(job)s),
    'tasks', (select jsonb_agg(t.task order by t.task) from tasks as t where t.job_id = %(job)s),
    'journal', (select jsonb_agg(to_jsonb(f) - 'at' order by f.task, f.seq)
                  from journal as f where f.job_id = %(job)s),
    'snapshots', (select jsonb_agg(s.version order by s.version)
                    from snapshots as s where s.job_id = %(job)s),
    'inbox', (select jsonb_agg(i.name order by i.id) from inbox as i where i.job_id = %(job)s))
"""


def rows_left(session: Session, actors: Cast) -> str:
    """Read the rows of a job; of a job that is gone, no row may be left."""
    ((row,),) = session.connection.execute(LEFT, {"job": actors.job}).fetchall()
    if row["job"] is None:
        assert [name for name, rows in row.items() if rows is not None] == []
    return json.dumps(row, indent=1).replace(actors.job, "JOB")


_sequences: dict[tuple[str, ...], Outcome] = {}


def one_after_the_other(session: Session, cast: str, *names: str) -> Outcome:
    """Run one or two calls in sequence on a memory of their own; each sequence runs only once."""
    if (cast, *names) not in _sequences:
        actors = CASTS[cast](session)
        answers = [result_of(name, session, actors) for name in names]
        _sequences[cast, *names] = Outcome(
            answers[0], answers[1] if answers[1:] else None, rows_left(session, actors)
        )
        # Each test counts only the jobs that it forgets itself.
        session.run("delete from tasks")
        for table in ("conditions", "inbox", "snapshots", "journal", "jobs"):
            session.run(f"delete from {table}")
    return _sequences[cast, *names]


def pairs() -> Iterator[tuple[str, str, str]]:
    """Make the pairs in which at least one call is of PAST."""
    for first in MUTATORS:
        for second in MUTATORS:
            if first in PAST or second in PAST:
                yield from ((cast, first, second) for cast in CASTS)


@pytest.mark.parametrize(("cast", "first", "second"), list(pairs()))
def test_two_concurrent_calls_have_outcome_of_one_of_their_orders(
    a: Session, b: Session, cast: str, first: str, second: str
) -> None:
    """[P2] [P3] [P8] Forgetting finished jobs never waits."""
    forth = one_after_the_other(a, cast, first, second)
    back = one_after_the_other(a, cast, second, first)
    actors = CASTS[cast](a)

    a.begin()
    one = result_of(first, a, actors)
    coming = b.later(result_of, second, b, actors)
    waited = coming.waits()
    a.commit()
    two = coming.get()
    if second in SKIPS_LOCKED and two == 0:
        two = result_of(second, b, actors)

    found = Outcome(one, two, rows_left(a, actors))
    assert found in [forth, swapped(back)]
    if second in SKIPS_LOCKED:
        assert not waited


@pytest.mark.parametrize("second", [*PAST, "command", "start", "create"])
@pytest.mark.parametrize("first", PAST)
def test_call_that_is_rolled_back_leaves_no_trace(
    a: Session, b: Session, first: str, second: str
) -> None:
    """[P2] [P3] [P8] A call that waited for it has the same outcome as alone."""
    alone = one_after_the_other(a, "finished", second)
    actors = finished(a)

    a.begin()
    result_of(first, a, actors)
    coming = b.later(result_of, second, b, actors)
    coming.waits()
    a.rollback()
    two = coming.get()
    if second in SKIPS_LOCKED and two == 0:
        two = result_of(second, b, actors)

    assert Outcome(two, None, rows_left(a, actors)) == alone


def test_call_that_waited_while_its_job_was_forgotten_is_refused(
    a: Session, b: Session, c: Session
) -> None:
    """[P8] A command and a restore both get PD401, and leave no row."""
    actors = finished(a)

    with a.open():
        assert a.call("forget", id=actors.job) is True
        writes = b.later(b.call, "entity_set", id=actors.job, value=1, path="n")
        assert writes.waits()
        restores = c.later(c.call, "entity_restore", id=actors.job, version=1)
        assert restores.waits()

    for call in (writes, restores):
        error = call.error()
        assert isinstance(error, psycopg.Error)
        assert error.sqlstate == "PD401"
    assert not any(a.everything().values())


def test_restore_never_uses_versions_of_forgotten_job_of_same_id(
    a: Session, b: Session, c: Session
) -> None:
    """[P3] A restore waits while its job is forgotten and another one takes the id."""
    actors = finished(a)

    with a.open():
        a.call("forget", id=actors.job)
        a.call("entity_create", id=actors.job, entity="note", context={"new": True})
        restores = b.later(b.call, "entity_restore", id=actors.job, version=2)
        assert restores.waits()

    error = restores.error()
    assert error is None or getattr(error, "sqlstate", None) in ("PD401", "PD404")
    assert c.memory(actors.job) == ({"new": True}, 1)


def test_a_hook_that_begins_while_jobs_are_forgotten_keeps_its_job(a: Session, b: Session) -> None:
    """[P8] Forgetting skips a job that is locked, and a job that has a task."""
    actors, other = finished(a), finished(a)

    with a.open():
        a.call("hook", id=actors.job, name="h", key="new")
        assert b.one("select forget_finished('infinity')") == 1
    assert b.one("select forget_finished('infinity')") == 0
    assert a.run("select id from jobs") == [(actors.job,)]
    assert a.tasks(actors.job) == {"$hook/new": "ready"}
    assert other.job != actors.job


def test_forget_finished_waits_for_no_lock_and_closes_no_cycle(a: Session, b: Session) -> None:
    """[P8] It locks jobs by age while others lock them by id, so it must never wait."""
    finished(a)
    new = finished(a).job

    a.begin()
    with b.open():
        b.call("entity_increment", id=new, path="n")
        forgetting = a.later(a.one, "select forget_finished('infinity')")
        assert not forgetting.waits()
        assert forgetting.get() == 1
        a.commit()

    assert b.run("select id from jobs") == [(new,)]


def test_two_concurrent_forget_finished_take_different_jobs(a: Session, b: Session) -> None:
    """[P8] The second skips the jobs that the first has locked."""
    jobs = [finished(a).job for _ in range(6)]

    with a.open():
        assert a.one("select forget_finished('infinity', max_jobs => 2)") == 2
        assert b.one("select forget_finished('infinity', max_jobs => 3)") == 3

    assert a.run("select id from jobs") == [(jobs[-1],)]


def test_a_repeated_apply_waits_and_gets_the_first_answers(a: Session, b: Session) -> None:
    """[P2] [P12] The commands are applied only once."""
    actors = finished(a)

    with a.open():
        first = apply(a, actors)
        again = b.later(apply, b, actors)
        assert again.waits()

    assert again.get() == first
    assert a.memory(actors.job)[1] == 6
