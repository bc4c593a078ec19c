"""Ticks of a schedule race other ticks, and every verb on the schedule. [P1] [P6]"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.races.sessions import Session, Stage, Task, together

JOB, TASK = "$schedule/s", "$hook/$schedule"
FIRST = "s/2020-01-01T00:00:00Z"


def make(session: Session, **options: Any) -> None:
    """Create a schedule that begins in the far future, so that the test decides when it is due."""
    far = "2100-01-01T00:00:00Z"
    options = {"name": "s", "workflow": "w", "every": "1 h", "starts_at": far, **options}
    session.rows("create_schedule", **options)


def owe(session: Session, hour: int = 0) -> None:
    """Make the schedule due since this hour."""
    query = """
        update tasks set due_at = %s, until = %s where job_id = %s and task = %s"""
    at = f"2020-01-01T{hour:02}:00:00Z"
    session.run(query, at, at, JOB, TASK)


def taken(session: Session) -> Task:
    """Make the schedule due, and claim its task."""
    owe(session)
    return session.claim_one("$sql")


def run(session: Session, task: Task) -> str:
    """Run a tick."""
    return str(session.call("run_task", job=task.job, task=task.task, token=task.token))


def jobs(session: Session) -> list[str]:
    """Give the ids of the jobs that the schedule has started."""
    query = "select id from jobs where headers ->> 'schedule' = 's' order by id"
    return [row[0] for row in session.run(query)]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_repeated_tick_waits_for_first_and_starts_one_job(a: Session, b: Session, end: str) -> None:
    """[P1] [P6] The reply was lost; the second tick starts the job only if the first rolls back."""
    make(a)
    slow = taken(a)
    a.begin()
    assert run(a, slow) == "waiting"
    again = b.later(run, b, slow)
    assert again.waits()
    a.end(end)

    assert again.get() == ("gone" if end == "commit" else "waiting")
    assert len(jobs(b)) == 1


def test_tick_with_lost_lease_starts_nothing(a: Session, b: Session) -> None:
    """[P6] Neither before nor after the tick of the new holder."""
    make(a)
    lost = taken(a)
    stolen = b.stolen(lost)

    assert run(a, lost) == "gone"
    assert jobs(a) == []
    assert run(b, stolen) == "waiting"
    assert run(a, lost) == "gone"
    assert len(jobs(a)) == 1


def test_many_workers_at_one_due_time_start_one_job(stage: Stage) -> None:
    """[P1] (E14) Six workers claim; one of them gets the task at each due time."""
    sessions = stage.sessions(6)
    make(sessions[0])

    def work(session: Session) -> list[str]:
        return [run(session, task) for task in session.claim("$sql")]

    for hour in range(5):
        owe(sessions[0], hour)
        states = together(*(partial(work, session) for session in sessions))
        assert sorted(map(len, states)) == [0, 0, 0, 0, 0, 1]
    assert jobs(sessions[0]) == [f"s/2020-01-01T{hour:02}:00:00Z" for hour in range(5)]


def backfill(session: Session) -> list[tuple[str, bool]]:
    """Start the jobs of a day."""
    day = {"since": "2020-01-01Z", "until": "2020-01-02Z"}
    return session.rows("backfill_schedule", name="s", **day)  # type: ignore[return-value]


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("first", ["tick", "backfill"])
def test_backfill_waits_for_tick_or_other_backfill(
    a: Session, b: Session, first: str, end: str
) -> None:
    """[P1] (E14) It starts what the first has not started."""
    make(a, every="10 years", starts_at="2020-01-01T00:00:00Z")
    task = taken(a)
    a.begin()
    assert (run(a, task) if first == "tick" else backfill(a)) in ("waiting", [(FIRST, True)])
    filling = b.later(backfill, b)
    assert filling.waits()
    a.end(end)

    assert filling.get() == [(FIRST, end == "rollback")]
    assert jobs(b) == [FIRST]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_tick_that_waits_for_backfill_starts_job_that_is_missing(
    a: Session, b: Session, end: str
) -> None:
    """[P1] (E14) Only if the backfill was rolled back."""
    make(a, every="10 years", starts_at="2020-01-01T00:00:00Z")
    task = taken(a)
    b.begin()
    assert backfill(b) == [(FIRST, True)]
    ticking = a.later(run, a, task)
    assert ticking.waits()
    b.end(end)

    assert ticking.get() == "waiting"
    assert jobs(a) == [FIRST]
    assert a.one("select priority from jobs where id = %s", FIRST) == (9 if end == "commit" else 5)


VERBS: dict[str, Callable[[Session], Any]] = {
    "pause": lambda session: session.call("pause_schedule", name="s"),
    "resume": lambda session: session.call("resume_schedule", name="s"),
    "pause of the memory": lambda session: session.call("pause", id=JOB),
    "resume of the memory": lambda session: session.call("resume", id=JOB),
    "trigger": lambda session: session.rows("trigger_schedule", name="s", key="k"),
    "drop": lambda session: session.call("drop_schedule", name="s"),
    "create": lambda session: make(session, every="2 h"),
    "edit": lambda session: session.call("entity_set", id=JOB, value="2 h", path="every"),
    "update": lambda session: session.run(
        "update jobs set context = context || '{\"args\": [1]}' where id = %s", JOB
    ),
}


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_waits_for_a_tick(a: Session, b: Session, verb: str, end: str) -> None:
    """[P1] [P8] After a rollback of the tick no job has started; no invariant is broken."""
    make(a)
    task = taken(a)
    a.begin()
    run(a, task)
    calling = b.later(VERBS[verb], b)
    assert calling.waits()
    a.end(end)
    calling.get()

    wanted = (1 if end == "commit" else 0) + (verb == "trigger")
    assert len(jobs(b)) == wanted
    assert b.broken() == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_tick_waits_for_a_verb(a: Session, b: Session, verb: str, end: str) -> None:
    """[P1] [P8] This tick or the next one starts the job, except after a pause or a drop."""
    make(a)
    task = taken(a)
    b.begin()
    VERBS[verb](b)
    ticking = a.later(run, a, task)
    assert ticking.waits()
    b.end(end)
    ticking.get()
    for again in a.claim("$sql"):
        run(a, again)

    has_stopped = verb in {"pause", "drop"} and end == "commit"
    is_triggered = verb == "trigger" and end == "commit"
    assert len(jobs(a)) == (0 if has_stopped else 1) + is_triggered
    assert a.broken() == []


def test_edit_does_not_take_task_from_its_holder(a: Session, b: Session) -> None:
    """[P6] It wakes only a parked task; the tick that follows sees the edit."""
    make(a)
    task = taken(a)
    VERBS["edit"](b)

    assert b.claim("$sql") == []
    assert run(a, task) == "waiting"
    assert len(jobs(a)) == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("first", ["trigger", "drop"])
def test_a_trigger_waits_for_another_verb(a: Session, b: Session, first: str, end: str) -> None:
    """[P1] [P12] Two triggers with one key start one job; a dropped schedule starts none."""
    make(a)
    a.begin()
    VERBS[first](a)
    triggering = b.later(VERBS["trigger"], b)
    assert triggering.waits()
    a.end(end)

    if (first, end) == ("drop", "commit"):
        assert getattr(triggering.error(), "sqlstate", None) == "PD410"
    else:
        assert triggering.get() == [("s/now-k", end == "rollback")]
    assert jobs(b) == ([] if (first, end) == ("drop", "commit") else ["s/now-k"])


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_second_of_two_concurrent_creations_changes_schedule(
    a: Session, b: Session, end: str
) -> None:
    """[P1] [P12] If the first is rolled back, the second creates it."""
    a.begin()
    make(a)
    making = b.later(make, b, every="2 h")
    assert making.waits()
    a.end(end)
    making.get()

    assert b.memory(JOB)[1] == (2 if end == "commit" else 1)
    assert b.tasks(JOB) == {TASK: "parked"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_creation_that_waited_for_drop_creates_new_schedule(
    a: Session, b: Session, end: str
) -> None:
    """[P1] If the drop is rolled back, it changes the old one."""
    make(a)
    a.begin()
    a.call("drop_schedule", name="s")
    making = b.later(make, b, every="2 h")
    assert making.waits()
    a.end(end)
    making.get()

    assert b.memory(JOB)[1] == (1 if end == "commit" else 2)
    assert b.tasks(JOB) == {TASK: "parked"}


def test_concurrent_creations_and_drops_leave_whole_schedule_or_none(stage: Stage) -> None:
    """[P8] No invariant is broken, whichever call is last."""
    sessions = stage.sessions(4)

    def storm(place: int, session: Session) -> None:
        for n in range(20):
            if (n + place) % 2:
                make(session, every=f"{n + 1} h")
            else:
                session.call("drop_schedule", name="s")

    together(*(partial(storm, place, session) for place, session in enumerate(sessions)))

    assert sessions[0].broken() == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_tick_waits_for_uncommitted_start_of_its_job_id(a: Session, b: Session, end: str) -> None:
    """[P1] The id belongs to one job, whoever starts it."""
    make(a)
    task = taken(a)
    a.begin()
    run(a, task)
    (job,) = jobs(a)
    a.rollback()
    b.begin()
    b.start(job, workflow="other")
    ticking = a.later(run, a, task)
    assert ticking.waits()
    b.end(end)

    assert ticking.get() == "waiting"
    assert a.one("select workflow from jobs where id = %s", job) == (
        "other" if end == "commit" else "w"
    )


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_edit_with_old_snapshot_gets_serialization_failure(
    a: Session, b: Session, level: str
) -> None:
    """[P8] It would not see that the task has parked since, and would not wake it."""
    make(a)
    task = taken(a)
    b.begin()
    b.run(f"set transaction isolation level {level}")
    b.run("select 1 from jobs")
    run(a, task)
    error = b.later(VERBS["edit"], b).error()

    assert error is not None
    assert getattr(error, "sqlstate", None) == "40001"
    b.rollback()
    VERBS["edit"](b)
    assert a.tasks(JOB) == {TASK: "ready"}
