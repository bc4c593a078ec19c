"""A user's transaction stays open on one job: no other turn, claim or lease waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest

from tests.races.sessions import Session, Task, activity, hook, increment, take

JOBS = 100
BUSY = "j50"


def one_hundred(a: Session) -> list[Task]:
    """Give the tasks of a hundred jobs, all held by one worker."""
    a.rows(
        "start_many",
        starts=[{"id": f"j{n}", "workflow": "w", "queue": "q"} for n in range(JOBS)],
    )
    return sorted(a.claim("q"), key=lambda task: int(task.job[1:]))


# Calls of a user on a job, in a transaction, and whether they take the lock of the job.
CALLS: dict[str, tuple[Callable[[Session], object], bool]] = {
    "a plain UPDATE": (
        lambda user: user.run("update jobs set context = '{\"user\": 1}' where id = %s", BUSY),
        True,
    ),
    "a row lock": (
        lambda user: user.run("select from jobs where id = %s for update", BUSY),
        True,
    ),
    "an entity command": (
        lambda user: user.call("entity_increment", id=BUSY, path="n"),
        True,
    ),
    "a signal": (lambda user: user.signal(BUSY, "go"), True),
    "a hook": (lambda user: user.call("hook", id=BUSY, name="h", queue="hooks"), True),
    "a cancel": (lambda user: user.call("cancel", id=BUSY), True),
    "a start of a new child id": (lambda user: user.start(f"{BUSY}/child"), False),
    "a refused start of the same id": (
        lambda user: user.start(BUSY, if_exists="existing"),
        False,
    ),
    "a read": (lambda user: user.memory(BUSY), False),
}


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("call", CALLS)
def test_open_transaction_on_one_job_makes_only_its_turn_busy(
    a: Session, b: Session, call: str, end: str
) -> None:
    """[P3] (E7) (C25) A batch ends 99 jobs at once, and the last one when the transaction ends."""
    act, locks = CALLS[call]
    tasks = one_hundred(a)
    b.begin()
    act(b)

    advancing = a.later(a.advance_all, [task.done(1) for task in tasks])
    assert not advancing.waits()

    states = advancing.get().states
    assert states.count("done") == (JOBS - 1 if locks else JOBS)
    assert states[50] == ("busy" if locks else "done")
    finishing = a.later(a.advance, tasks[50].done(1), waiting=True)
    assert finishing.waits() is locks
    b.end(end)
    assert finishing.get().state == ("done" if locks else "gone")
    assert a.one("select count(*) from jobs where status = 'completed'") == JOBS


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_open_terminate_of_one_job_makes_only_its_turn_busy(
    a: Session, b: Session, end: str
) -> None:
    """[P6] (E2) If it commits, the task of that turn is gone."""
    tasks = one_hundred(a)
    b.begin()
    b.call("terminate", id=BUSY)

    states = a.advance_all([task.done(1) for task in tasks]).states

    assert (states.count("done"), states[50]) == (JOBS - 1, "busy")
    finishing = a.later(a.advance, tasks[50].done(1), waiting=True)
    assert finishing.waits()
    b.end(end)
    assert finishing.get().state == ("gone" if end == "commit" else "done")


def test_turn_with_facts_alone_does_not_need_lock_of_job(a: Session, b: Session) -> None:
    """[P4] A result is recorded while a user changes the memory of that job."""
    tasks = one_hundred(a)
    b.begin()
    b.call("entity_increment", id=BUSY, path="n")

    states = a.advance_all([task.keep(activity("x#1", 1)) for task in tasks]).states

    assert states == ["keep"] * JOBS
    b.commit()


def answered(a: Session) -> Task:
    """Give a task that is told the answer of a hook, and held again."""
    a.advance(a.held("j").park("go", requests=[hook("h#1")]))
    a.advance(a.claim_one("hooks").done(1))
    return a.claim_one("j")


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_turn_that_takes_its_own_answer_does_not_need_lock_of_job(
    a: Session, b: Session, end: str
) -> None:
    """[P5] So hooks of one job record what they were told while another of them writes."""
    task = answered(a)
    (answer,) = task.row["messages"]
    b.begin()
    b.call("entity_increment", id="j", path="n")

    assert a.advance(task.keep(take(answer), activity("x#1", 1))).state == "keep"
    assert a.advance(task.keep(take(answer), activity("x#1", 1))).again
    b.end(end)
    assert a.advance(task.told(2).done(1)).state == "done"
    assert a.run("select key from journal where task = '1/main' order by seq") == [
        ("h#1",),
        ("x#1",),
    ]


def test_answer_is_not_taken_again_by_a_turn_that_waited(a: Session, b: Session) -> None:
    """[P5] (I19) The holder sends the next turn before the first one is committed."""
    task = answered(a)
    (answer,) = task.row["messages"]
    a.begin()
    a.advance(task.keep(take(answer)))
    second = b.later(b.advance, task.told().keep(take(answer)))
    assert second.waits()
    a.commit()
    assert second.get().state == "stale"
    assert a.run("select key from journal where task = '1/main'") == [("h#1",)]


def test_task_is_not_parked_for_an_answer_that_was_taken_while_it_waited(
    a: Session, b: Session
) -> None:
    """[P5] (I3) Nobody would wake it."""
    task = answered(a)
    (answer,) = task.row["messages"]
    a.begin()
    a.advance(task.keep(take(answer)))
    second = b.later(b.advance, task.told().park(), waiting=True)
    assert second.waits()
    a.commit()
    assert second.get().error["code"] == "PD107"


def test_code_is_not_taken_for_other_code_by_a_turn_that_waited(a: Session, b: Session) -> None:
    """[P9] The answer that the code does not wait for any more was taken meanwhile."""
    task = answered(a)
    (answer,) = task.row["messages"]
    a.begin()
    a.advance(task.keep(take(answer)))
    second = b.later(b.advance, task.told().keep(activity("x#1", 1), open={}))
    assert second.waits()
    a.commit()
    assert second.get().state == "keep"


def test_flush_of_a_hook_that_may_answer_early_locks_no_other_task(
    a: Session, b: Session, c: Session
) -> None:
    """[P6] It sends nothing, so nobody is to be woken: that would lock tasks out of order."""
    a.advance(
        a.held("j").park("go", requests=[hook("a#1", queue="a"), hook("h#1", signal="early")])
    )
    hooked, other = a.claim_one("hooks"), c.claim_one("a")
    c.begin()
    c.extend(other)
    pausing = b.later(b.call, "pause", id="j")
    assert pausing.waits()
    a.run("begin isolation level repeatable read")
    flush = a.later(a.advance, hooked.keep(activity("x#1", 1)))
    assert not flush.waits()
    c.commit()
    a.commit()
    assert flush.get().state == "keep"
    assert pausing.get()


@pytest.mark.parametrize("sent", ["signal", "cancel"])
def test_turn_that_takes_what_concerns_other_tasks_waits_for_lock_of_job(
    a: Session, b: Session, sent: str
) -> None:
    """[P5] A signal goes to one of all tasks; a request to cancel counts for those beneath."""
    task = a.parked("j", "go")
    a.signal("j", "go", 1) if sent == "signal" else a.call("cancel", id="j")
    task = a.claim_one("j")
    (message,) = task.row["messages"]
    b.begin()
    b.call("entity_increment", id="j", path="n")

    assert a.advance(task.keep(take(message))).state == "busy"
    b.commit()
    assert a.advance(task.keep(take(message))).state == "keep"


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_end_of_job_waits_for_turn_that_takes_an_answer(a: Session, b: Session, end: str) -> None:
    """[P6] The task ends after the turn, with all its messages."""
    task = answered(a)
    (answer,) = task.row["messages"]
    a.begin()
    assert a.advance(task.keep(take(answer))).state == "keep"
    ending = b.later(b.call, "terminate", id="j")
    assert ending.waits()
    a.end(end)
    assert ending.get()
    assert a.run("select id from inbox") == []


def test_claims_heartbeats_and_releases_do_not_wait_for_locked_job(a: Session, b: Session) -> None:
    """[P6] None of them needs the lock of a job."""
    tasks = one_hundred(a)
    a.start("late", queue="q")
    b.begin()
    b.call("entity_increment", id=BUSY, path="n")
    b.call("entity_increment", id="late", path="n")

    assert set(a.extend(*tasks)) == {"held"}
    assert [task.job for task in a.claim("q")] == ["late"]
    assert a.release(tasks[50]) == ["released"]

    b.rollback()


def test_turns_of_busy_batch_are_not_checked(a: Session, b: Session) -> None:
    """Turns are checked only when they are sent again and their job is locked.

    The jobs that a batch touches are computed once, not for each turn.
    """
    task = a.held("j")
    a.advance(task.park(requests=[hook(f"h#{n}") for n in range(50)]))
    hooks = a.claim("hooks")
    functions = ("touched_jobs", "turn_fields_failure", "turn_failure")
    query = "select funcname, calls from pg_stat_xact_user_functions where funcname = any(%s)"

    def calls(turns: Sequence[dict[str, Any]]) -> list[int]:
        with a.open("rollback"):
            a.run("set local track_functions = 'pl'")
            before = dict(a.run(query, list(functions)))
            a.advance_all(turns)
            after = dict(a.run(query, list(functions)))
        return [after.get(name, 0) - before.get(name, 0) for name in functions]

    turns = [each.done("x" * 300, increment("n")) for each in hooks]
    assert calls(turns) == [1, 50, 50]
    b.begin()
    b.call("entity_increment", id="j", path="n")
    assert calls(turns) == [1, 0, 0]
    b.rollback()


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_only_hooks_of_locked_job_are_busy(a: Session, b: Session, end: str) -> None:
    """[P5] (C42) Both hooks of the locked job are busy together, and end together."""
    tasks = one_hundred(a)[:10]
    a.advance_all([task.park(requests=[hook("h#1"), hook("h#2")]) for task in tasks])
    hooks = sorted(a.claim("hooks"), key=lambda task: (int(task.job[1:]), task.task))
    b.begin()
    b.call("entity_increment", id="j5", path="n")

    states = a.advance_all([task.done(1, increment("n")) for task in hooks]).states

    assert [hooks[n].job for n, state in enumerate(states) if state != "done"] == ["j5", "j5"]
    busy = [task.done(1, increment("n")) for task in hooks if task.job == "j5"]
    finishing = a.later(a.advance_all, busy, waiting=True)
    assert finishing.waits()
    b.end(end)
    assert finishing.get().states == ["done", "done"]
    assert a.memory("j5") == (({"n": 3}, 3) if end == "commit" else ({"n": 2}, 2))


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_start_signal_and_command_of_user_commit_together(a: Session, b: Session, end: str) -> None:
    """[P1] [P3] [P5] (E7) Nothing of an open transaction is visible to others."""
    a.parked("there", "go")
    b.begin()
    b.start("new", queue="q")
    b.call("entity_set", id="new", path="by", value="user")
    b.signal("new", "go", 1)
    b.signal("there", "go", 2)

    assert a.claim("q", "there") == []
    assert a.run("select id from jobs") == [("there",)]

    b.end(end)
    found = {task.job: task.messages for task in a.claim("q", "there")}
    assert found == ({"new": [], "there": [2]} if end == "commit" else {})
    assert a.one("select count(*) from jobs") == (2 if end == "commit" else 1)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_plain_update_that_waited_works_on_memory_of_turn(a: Session, b: Session, end: str) -> None:
    """[P3] (C25) An UPDATE reads its row again after the wait; its version is the next one."""
    task = a.held("j", context={"n": 1})
    a.begin()
    a.advance(task.keep(increment("n"), increment("m")))
    update = """update jobs set context = context || '{"user": true}' where id = 'j'"""
    updating = b.later(b.run, update)
    assert updating.waits()
    a.end(end)
    updating.get()

    expected = {"n": 2, "m": 1} if end == "commit" else {"n": 1}
    assert a.memory("j") == ({**expected, "user": True}, 4 if end == "commit" else 2)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_turn_that_waited_for_plain_update_works_on_its_memory(
    a: Session, b: Session, end: str
) -> None:
    """[P3] (C25) If the UPDATE is rolled back, the turn works on the memory as it was."""
    task = a.held("j", context={"n": 1})
    b.begin()
    b.run("update jobs set context = '{\"n\": 10}' where id = 'j'")
    advancing = a.later(a.advance, task.keep(increment("n")), waiting=True)
    assert advancing.waits()
    b.end(end)

    assert advancing.get().values == [11 if end == "commit" else 2]
    assert a.memory("j") == (({"n": 11}, 3) if end == "commit" else ({"n": 2}, 2))


# A table of the user may have a foreign key to jobs: inserting a row locks the key of a job.

WITH_FOREIGN_KEY = (
    "create table public.orders (job text references perdure.jobs (id) on delete cascade)"
)


@pytest.fixture
def orders(a: Session) -> Iterator[None]:
    """Give a table with a foreign key to jobs."""
    a.run(WITH_FOREIGN_KEY)
    yield
    a.run("drop table public.orders")


@pytest.mark.usefixtures("orders")
def test_forget_finished_skips_job_that_open_transaction_refers_to(a: Session, b: Session) -> None:
    """It must not wait while it holds the locks of other jobs."""
    for job in ("j", "k"):
        a.advance(a.held(job).done())
    b.begin()
    b.run("insert into orders values ('j')")

    assert a.one("select forget_finished('infinity')") == 1
    assert a.run("select id from jobs") == [("j",)]
    b.commit()
    assert a.one("select forget_finished('infinity')") == 1


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize(
    ("id_", "forget", "options"),
    [("j", "forget", {"id": "j"}), ("$schedule/s", "drop_schedule", {"name": "s"})],
)
def test_transaction_that_refers_to_job_can_change_it_while_forget_waits(
    a: Session, b: Session, id_: str, forget: str, options: dict[str, str]
) -> None:
    """The waiting call holds no lock that the transaction needs, so there is no deadlock."""
    a.call("entity_create", id="j", entity="e")
    a.call("create_schedule", name="s", workflow="w", every="1 h")
    b.begin()
    b.run("insert into orders values (%s)", id_)
    forgetting = a.later(a.call, forget, **options)
    assert forgetting.waits()

    b.call("entity_set", id=id_, path="n", value=1)
    b.commit()

    assert forgetting.get() is True
    assert b.run("select from jobs where id = %s", id_) == b.run("select from orders") == []


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "fate",
    ["", "on delete restrict", "deferrable initially deferred", "on delete restrict deferrable"],
)
def test_forget_finished_skips_jobs_that_rows_of_user_refer_to(
    a: Session, b: Session, fate: str, at_once: bool
) -> None:
    """[P13] Such a job must not fail the page (23503), and the other jobs are forgotten."""
    starts = [{"id": f"j{n}", "workflow": "w", "queue": "q"} for n in range(10)]
    if at_once:
        a.rows("start_many", starts=starts)
    else:
        for start in starts:
            a.rows("start", **start)
    a.advance_all([task.done(1, increment("n")) for task in a.claim("q")])
    a.run(f"create table public.orders (job text references perdure.jobs (id) {fate})")
    try:
        kept = [f"j{n}" for n in (0, 1, 2, 3, 7)]
        a.run("insert into orders select unnest(%s::text[])", kept)
        b.begin()
        b.run("insert into orders values ('j5')")
        b.run("set constraints all immediate")
        numbers = [a.one("select forget_finished('infinity', max_jobs => 2)") for _ in range(5)]
        assert (sum(numbers), numbers[-1]) == (4, 0)
        b.rollback()
        assert a.one("select forget_finished('infinity')") == 1
        assert a.one("select forget_finished('infinity')") == 0
        assert a.run("select id, version from jobs order by id") == [(id_, 1) for id_ in kept]
        assert a.one("select count(distinct job_id) from journal") == len(kept)
        a.run("delete from orders where job <> 'j3'")
        assert a.one("select forget_finished('infinity')") == 4
        with pytest.raises(psycopg.IntegrityError, match="orders"):
            a.call("forget", id="j3")
    finally:
        b.rollback()
        a.run("drop table public.orders")


# Isolation levels above read committed: callers may have to retry, and nothing is lost.

VERBS: dict[str, Callable[[Session, Task], object]] = {
    "a command": lambda user, task: user.call("entity_increment", id="j", path="n"),
    "a plain UPDATE": lambda user, task: user.run("update jobs set context = '{}' where id = 'j'"),
    "a signal": lambda user, task: user.signal("j", "go"),
    "a cancel": lambda user, task: user.call("cancel", id="j"),
    "a terminate": lambda user, task: user.call("terminate", id="j"),
    "a hook": lambda user, task: user.call("hook", id="j", name="h"),
    "a turn": lambda user, task: user.advance(task.park("go")),
    "a start": lambda user, task: user.start("new"),
}


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
@pytest.mark.parametrize("verb", VERBS)
def test_verb_with_old_snapshot_is_refused_and_changes_nothing(
    a: Session, b: Session, verb: str, isolation: str
) -> None:
    """[P3] [P5] (E7) It gets 40001; the same call in a new transaction succeeds."""
    task = a.held("j")
    a.run(f"begin isolation level {isolation}")
    a.memory("j")  # the snapshot is from here
    b.call("entity_set", id="j", path="n", value=1)
    b.start("new")
    before = b.everything()

    with pytest.raises(psycopg.errors.SerializationFailure):
        VERBS[verb](a, task)
    a.rollback()

    assert b.everything() == before
    if verb != "a start":
        VERBS[verb](a, task)
        assert b.everything() != before


BLIND: dict[str, Callable[[Session], object]] = {
    "a forget": lambda user: user.call("forget", id="j"),
    "a forget of all": lambda user: user.call("forget_finished", before="infinity"),
    "a signal": lambda user: user.signal("j", "go"),
    "a pause": lambda user: user.call("pause", id="j"),
    "a terminate": lambda user: user.call("terminate", id="j"),
    "a plain UPDATE": lambda user: user.run("update jobs set context = '{}' where id = 'j'"),
}


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
@pytest.mark.parametrize("verb", BLIND)
def test_a_verb_that_does_not_see_a_hook_from_outside_is_refused(
    a: Session, b: Session, verb: str, isolation: str
) -> None:
    """[P5] [P13] (I5) (I16) (I20) Only the row of such a hook shows that it exists."""
    task = a.held("j")
    if "forget" in verb:
        a.advance(task.done())
    a.run(f"begin isolation level {isolation}")
    a.status("j")  # the snapshot is from here
    b.call("hook", id="j", name="h", queue="hooks")
    assert b.advance(b.claim_one("hooks").park("go")).state == "parked"
    before = b.everything()

    refused = a.later(BLIND[verb], a).error()
    a.rollback()

    assert isinstance(refused, psycopg.errors.SerializationFailure)
    assert b.everything() == before


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_hook_that_has_ended_meanwhile_is_not_run_again(
    a: Session, b: Session, isolation: str
) -> None:
    """[P12] Its second end would fail the batch that contains it."""
    a.call("entity_create", id="j", entity="e")
    again = {"id": "j", "name": "h", "queue": "hooks", "key": "k"}
    b.call("hook", **again)
    running = b.claim_one("hooks")
    a.run(f"begin isolation level {isolation}")
    a.memory("j")  # the snapshot is from here
    assert b.advance(running.done()).state == "done"

    refused = a.later(a.call, "hook", **again).error()
    a.rollback()

    assert isinstance(refused, psycopg.errors.SerializationFailure)
    assert a.call("hook", **again) == "$hook/k"
    assert b.claim("hooks") == []


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_signal_with_key_sent_since_snapshot_must_be_retried(
    a: Session, b: Session, isolation: str
) -> None:
    """[P12] It gets a serialization failure, not a broken constraint; the retry returns false."""
    a.held("j")
    a.run(f"begin isolation level {isolation}")
    a.status("j")  # the snapshot is from here
    assert b.signal("j", "go", 1, key="k")

    refused = a.later(a.signal, "j", "go", 1, key="k").error()
    a.rollback()

    assert isinstance(refused, psycopg.errors.SerializationFailure)
    assert a.signal("j", "go", 1, key="k") is False


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize(
    "call", ["entity_increment(id => 'j', path => 'n')", "hook(id => 'j', name => 'h')"]
)
def test_plain_delete_of_job_sees_what_it_waited_for(
    a: Session, b: Session, call: str, end: str
) -> None:
    """[P3] [P5] It waits for the lock of the job, and only then reads what belongs to the job."""
    a.run("insert into jobs (id, entity) values ('j', 'thing')")
    b.begin()
    b.run(f"select {call}")
    deleting = a.later(a.run, "delete from jobs where id = 'j' returning id")
    assert deleting.waits()
    b.end(end)
    if end == "commit":
        assert getattr(deleting.error(), "sqlstate", None) == "PD107"
        assert a.one("select count(*) from jobs") == 1
    else:
        assert deleting.get() == [("j",)]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_command_that_waited_for_delete_is_refused(a: Session, b: Session, end: str) -> None:
    """[P3] It gets PD401, and leaves no fact of a job that is gone."""
    a.run("insert into jobs (id, entity) values ('j', 'thing')")
    b.begin()
    b.run("delete from jobs where id = 'j'")
    changing = a.later(a.call, "entity_increment", id="j", path="n")
    assert changing.waits()
    b.end(end)
    if end == "commit":
        assert getattr(changing.error(), "sqlstate", None) == "PD401"
        assert a.one("select count(*) from journal") == 0
    else:
        assert changing.get() == 1


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_all_verbs_work_in_one_transaction_above_read_committed(
    a: Session, b: Session, isolation: str
) -> None:
    """[P1] [P3] [P5] (E7) As long as no other session changes the same jobs."""
    a.run(f"begin isolation level {isolation}")
    task = a.held("j")
    assert a.advance(task.keep(increment("n"), requests=[hook("h#1")])).values == [1]
    assert a.call("entity_increment", id="j", path="n") == 2
    assert a.signal("j", "go", 1)
    assert a.advance(task.told().park("go")).payloads == [1]
    running = a.claim_one("hooks")
    assert a.advance(running.done("h")).state == "done"
    assert a.call("cancel", id="j")
    assert a.advance(task.told().done()).state == "done"
    a.commit()

    assert b.status("j") == "completed"
    assert b.memory("j") == ({"n": 2}, 2)
