"""Restoring, applying, logging and forgetting, against whatever else may happen to the same memory.

A runs in an open transaction; B comes meanwhile and waits; then A commits or rolls back. What both
were told and what is left must equal `A, then B` or `B, then A`, as they come out one after the
other; after a rollback, B alone. The histories must be the sums of their commands. [P2] [P3] [P8]
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

_numbers = count(1)


@dataclass(frozen=True)
class Cast:
    """A memory of some versions: of a finished job, of one that runs, or of a plain entity."""

    job: str
    main: Task | None


def finished(session: Session) -> Cast:
    """Give the memory of a job that has ended."""
    it = running(session)
    assert it.main is not None
    assert session.advance(it.main.done("end")).state == "done"
    return Cast(it.job, None)


def running(session: Session) -> Cast:
    """Give the memory of a job whose coordinator is held."""
    job = f"past {next(_numbers):06}"
    main = session.held(job, context={"n": 0, "l": []})
    session.call("entity_append", id=job, path="l", items=["first"])
    session.call("entity_log", id=job, path="log", items=["first"])
    return Cast(job, main)


def verb(function: str, **arguments: Any) -> Callable[[Session, Cast], Any]:
    """Call a verb with the id of the job."""
    return lambda session, it: session.call(function, id=it.job, **arguments)


def apply(session: Session, it: Cast) -> Any:
    """Apply three commands."""
    commands = [
        {"op": "append", "path": "l", "value": "applied"},
        {"op": "log", "path": "log", "value": "applied"},
        {"op": "increment", "path": "n", "value": 10},
    ]
    query = "select entity_apply(%s, %s, key => 'apply')"
    return session.one(query, it.job, json.dumps(commands))


def plain_update(session: Session, it: Cast) -> None:
    """Write the memory with ordinary SQL, so that the order of the writers can be seen."""
    query = "update jobs set context = context || jsonb_build_object('user', context) where id = %s"
    session.run(query, it.job)


def turn(session: Session, it: Cast) -> Any:
    """Send a turn with commands and a read."""
    if it.main is None:
        return None
    facts = [
        command("append", "l", ["turn"]),
        command("log", "log", ["turn"]),
        command("get"),
        command("get", "log"),
    ]
    return session.advance(it.main.keep(*facts), waiting=True)


def start(session: Session, it: Cast) -> Any:
    """Start a job of the same id."""
    return session.start(it.job, context={"new": True}, if_exists="existing")


def create(session: Session, it: Cast) -> Any:
    """Make an entity of the same id."""
    return session.call("entity_create", id=it.job, entity="note", context={"new": True})


def forget_finished(session: Session, it: Cast) -> Any:
    """Forget what is old, of this family."""
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

# Does not wait, but passes round what is locked: whoever calls it comes again.
PASSES_ROUND = {"forget finished"}


def told(name: str, session: Session, it: Cast) -> Any:
    """Do it; say the answer, without what differs from run to run."""
    try:
        answer = MUTATORS[name](session, it)
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


def left(session: Session, it: Cast) -> str:
    """Read what is left of a job, and look that nothing is left of what is not there."""
    ((row,),) = session.connection.execute(LEFT, {"job": it.job}).fetchall()
    if row["job"] is None:
        assert [name for name, rows in row.items() if rows is not None] == []
    return json.dumps(row, indent=1).replace(it.job, "JOB")


@dataclass(frozen=True)
class Outcome:
    """What both were told, and what is left."""

    first: Any
    second: Any
    left: str


_alone: dict[tuple[str, ...], Outcome] = {}


def one_after_the_other(session: Session, cast: str, *names: str) -> Outcome:
    """Find what comes out of one or two calls in order, once for each pair."""
    if (cast, *names) not in _alone:
        it = CASTS[cast](session)
        answers = [told(name, session, it) for name in names]
        _alone[cast, *names] = Outcome(
            answers[0], answers[1] if answers[1:] else None, left(session, it)
        )
        session.run("delete from tasks")  # what is forgotten by age is counted in each test alone
        for table in ("conditions", "inbox", "snapshots", "journal", "jobs"):
            session.run(f"delete from {table}")
    return _alone[cast, *names]


def pairs() -> Iterator[tuple[str, str, str]]:
    """Make the pairs, of which one at least has to do with the past."""
    for first in MUTATORS:
        for second in MUTATORS:
            if first in PAST or second in PAST:
                yield from ((cast, first, second) for cast in CASTS)


@pytest.mark.parametrize(("cast", "first", "second"), list(pairs()))
def test_two_at_once_come_out_as_one_after_the_other(
    a: Session, b: Session, cast: str, first: str, second: str
) -> None:
    """[P2] [P3] [P8]"""
    forth = one_after_the_other(a, cast, first, second)
    back = one_after_the_other(a, cast, second, first)
    it = CASTS[cast](a)

    a.begin()
    one = told(first, a, it)
    coming = b.later(told, second, b, it)
    waited = coming.waits()
    a.commit()
    two = coming.get()
    if second in PASSES_ROUND and two == 0:
        two = told(second, b, it)

    found = Outcome(one, two, left(a, it))
    assert found in [forth, Outcome(back.second, back.first, back.left)]
    if second in PASSES_ROUND:
        assert not waited


@pytest.mark.parametrize("second", [*PAST, "command", "start", "create"])
@pytest.mark.parametrize("first", PAST)
def test_what_is_rolled_back_leaves_nothing(
    a: Session, b: Session, first: str, second: str
) -> None:
    """[P2] [P3] [P8]"""
    alone = one_after_the_other(a, "finished", second)
    it = finished(a)

    a.begin()
    told(first, a, it)
    coming = b.later(told, second, b, it)
    coming.waits()
    a.rollback()
    two = coming.get()
    if second in PASSES_ROUND and two == 0:
        two = told(second, b, it)

    assert Outcome(two, None, left(a, it)) == alone


def test_a_command_that_waited_for_a_job_to_be_forgotten_finds_nobody(
    a: Session, b: Session, c: Session
) -> None:
    """[P8]"""
    it = finished(a)

    with a.open():
        assert a.call("forget", id=it.job) is True
        writes = b.later(b.call, "entity_set", id=it.job, value=1, path="n")
        assert writes.waits()
        restores = c.later(c.call, "entity_restore", id=it.job, version=1)
        assert restores.waits()

    for call in (writes, restores):
        error = call.error()
        assert isinstance(error, psycopg.Error)
        assert error.sqlstate == "PD401"
    assert not any(a.everything().values())


def test_an_id_that_is_forgotten_and_taken_again_has_no_other_past(
    a: Session, b: Session, c: Session
) -> None:
    """A restore that waited does not bring back the memory of the job before. [P3]"""
    it = finished(a)

    with a.open():
        a.call("forget", id=it.job)
        a.call("entity_create", id=it.job, entity="note", context={"new": True})
        restores = b.later(b.call, "entity_restore", id=it.job, version=2)
        assert restores.waits()

    error = restores.error()
    assert error is None or getattr(error, "sqlstate", None) in ("PD401", "PD404")
    assert c.memory(it.job) == ({"new": True}, 1)


def test_a_hook_that_begins_while_jobs_are_forgotten_keeps_its_job(a: Session, b: Session) -> None:
    """[P8]"""
    it, other = finished(a), finished(a)

    with a.open():
        a.call("hook", id=it.job, name="h", key="new")
        assert b.one("select forget_finished('infinity')") == 1
    assert b.one("select forget_finished('infinity')") == 0
    assert a.run("select id from jobs") == [(it.job,)]
    assert a.tasks(it.job) == {"$hook/new": "ready"}
    assert other.job != it.job


def test_who_forgets_waits_for_nobody_and_needs_no_order(a: Session, b: Session) -> None:
    """[P8]: jobs are locked by age, others lock them by id; who never waits closes no circle."""
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


def test_two_who_forget_share_the_work(a: Session, b: Session) -> None:
    """[P8]"""
    jobs = [finished(a).job for _ in range(6)]

    with a.open():
        assert a.one("select forget_finished('infinity', max_jobs => 2)") == 2
        assert b.one("select forget_finished('infinity', max_jobs => 3)") == 3

    assert a.run("select id from jobs") == [(jobs[-1],)]


def test_a_repeated_apply_waits_and_gets_the_first_answers(a: Session, b: Session) -> None:
    """[P2] [P12]"""
    it = finished(a)

    with a.open():
        first = apply(a, it)
        again = b.later(apply, b, it)
        assert again.waits()

    assert again.get() == first
    assert a.memory(it.job)[1] == 6
