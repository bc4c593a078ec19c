"""The database runs tasks while others call on them: each task has its effect once. [P6] [P12]"""

from __future__ import annotations

from typing import Any

import pytest

from tests.races.sessions import Session, Stage, Task, hook, together

QUEUE = "$sql"
FUNCTION = """
create or replace function pg_temp.add_up(job text, args jsonb) returns jsonb language plpgsql as
'begin return perdure.entity_increment(job, ''n''); end'
"""
ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])


@pytest.fixture(autouse=True)
def add_up(a: Session) -> Any:
    """Register a hook in SQL that all sessions know.

    Its function is kept, since prepared statements refer to its oid.
    """
    a.run(FUNCTION.replace("pg_temp", "public"))
    a.run("select register_sql_hook('add up', 'public.add_up', attempts => 2, timeout => '1 h')")
    yield
    a.run("select drop_sql_hook('add up')")


def claimed(session: Session, job: str = "j") -> Task:
    """Create a memory, request a hook in SQL for it, and claim the hook."""
    session.call("entity_create", id=job, entity="note", context={"n": 0})
    session.call("hook", id=job, name="add up", queue=QUEUE, key="k")
    return session.claim_one(QUEUE)


def run(session: Session, task: Task) -> Any:
    """Let the database run a task."""
    return session.call("run_task", **task.lease)


@ENDS
def test_task_that_runs_is_not_claimed_even_after_its_lease(
    a: Session, b: Session, end: str
) -> None:
    """Its row is locked, so a claim skips it; after a rollback it is claimed."""
    task = claimed(a)
    a.expire(task)
    a.begin()
    assert run(a, task) == "done"
    assert b.claim(QUEUE) == []
    a.end(end)
    assert [run(b, taken) for taken in b.claim(QUEUE)] == ["done"] * (end == "rollback")
    assert b.memory("j") == ({"n": 1}, 2)


def test_task_that_waited_longer_than_its_lease_does_not_run(
    a: Session, b: Session, c: Session
) -> None:
    task = claimed(a)
    with c.open():
        c.call("entity_set", id="j", path="m", value=1)
        late = a.later(run, a, task)
        assert late.waits()
        stolen = b.stolen(task)
    assert late.get() == "gone"
    assert run(b, stolen) == "done"
    assert a.memory("j") == ({"n": 1, "m": 1}, 3)


@ENDS
def test_repeated_call_waits_for_first_and_task_runs_once(a: Session, b: Session, end: str) -> None:
    task = claimed(a)
    a.begin()
    assert run(a, task) == "done"
    again = b.later(run, b, task)
    assert again.waits()
    a.end(end)
    assert again.get() == ("gone" if end == "commit" else "done")
    assert b.memory("j") == ({"n": 1}, 2)


@ENDS
def test_terminating_job_waits_for_its_running_hook(a: Session, b: Session, end: str) -> None:
    asker = a.held("j", context={"n": 0})
    a.advance(asker.park(requests=[hook("h#1", QUEUE, name="add up")]))
    task = a.claim_one(QUEUE)
    a.begin()
    assert run(a, task) == "done"
    ending = b.later(b.call, "terminate", id="j")
    assert ending.waits()
    a.end(end)
    assert ending.get() is True
    assert run(a, task) == "gone"
    assert b.memory("j")[0] == {"n": 1 if end == "commit" else 0}
    assert b.tasks("j") == {}


@ENDS
def test_park_waits_for_running_hook_and_gets_its_answer(a: Session, b: Session, end: str) -> None:
    """[P5] After a rollback of the hook it parks."""
    asker = a.held("j", context={"n": 0})
    a.advance(asker.keep(requests=[hook("h#1", QUEUE, name="add up")]))
    task = b.claim_one(QUEUE)
    b.begin()
    assert run(b, task) == "done"
    parking = a.later(a.advance, asker.park(), waiting=True)
    assert parking.waits()
    b.end(end)
    answer = parking.get()
    assert (answer.state, answer.payloads) == (("keep", [1]) if end == "commit" else ("parked", []))


@ENDS
def test_timing_out_task_waits_for_its_uncommitted_end(a: Session, b: Session, end: str) -> None:
    """[P6] [P12] If the end commits, it counts; otherwise the attempt has failed."""
    task = claimed(a)
    a.begin()
    assert run(a, task) == "done"
    giving_up = b.later(b.call, "time_out_task", **task.lease)
    assert giving_up.waits()
    a.end(end)
    assert giving_up.get() == ("gone" if end == "commit" else "retry")
    assert run(a, task) == "gone"
    assert a.memory("j")[0] == {"n": 1 if end == "commit" else 0}


def test_concurrent_procedures_share_hooks(stage: Stage) -> None:
    first, *others = stage.sessions(4)
    for number in range(40):
        first.call("entity_create", id=f"j{number % 7}", entity="note")
        first.call("hook", id=f"j{number % 7}", name="add up", queue=QUEUE)
    ran = together(*(lambda s=s: s.one("call run_sql_hooks()") for s in others))
    assert sum(ran) == 40
    assert first.one("select sum((context ->> 'n')::int) from jobs") == 40


def test_procedure_commits_its_hooks_while_another_job_is_locked(
    a: Session, b: Session, c: Session
) -> None:
    """A procedure runs the hooks that it sees; the hook of the locked job is not committed yet."""
    for job in ("x", "y"):
        a.call("entity_create", id=job, entity="note")
    with c.open():
        c.call("entity_set", id="y", path="m", value=1)
        a.call("hook", id="x", name="add up", queue=QUEUE, key="1")
        c.call("hook", id="y", name="add up", queue=QUEUE, key="2")
        assert a.one("call run_sql_hooks()") == 1
        waiting = a.later(a.one, "call run_sql_hooks()")
        assert waiting.get() == 0  # the hook of y is not committed
        assert b.memory("x") == ({"n": 1}, 1)
    assert b.one("call run_sql_hooks()") == 1
    assert b.memory("y") == ({"m": 1, "n": 1}, 2)


@ENDS
def test_hook_that_is_dropped_fails_only_after_commit(a: Session, b: Session, end: str) -> None:
    """[P10] Dropping it waits for no running hook; hooks that began before end as usual."""
    first, second = claimed(a), claimed(a, "i")
    with a.open():
        assert run(a, first) == "done"
        b.begin()
        assert b.call("drop_sql_hook", name="add up") is True
    assert run(a, second) == "done"
    third = claimed(a, "h")
    b.end(end)
    assert run(a, third) == ("failed" if end == "commit" else "done")


@ENDS
def test_later_of_two_concurrent_registrations_of_hook_counts(
    a: Session, b: Session, end: str
) -> None:
    """It waits for the first."""
    register = "select register_sql_hook('add up', 'public.add_up', attempts => %s)"
    a.begin()
    a.run(register, 5)
    registering = b.later(b.run, register, 7)
    assert registering.waits()
    a.end(end)
    registering.get()
    assert a.run("select attempts from sql_hooks where name = 'add up'") == [(7,)]
