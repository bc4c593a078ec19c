"""Runs that end and begin while others speak: one at a time, and nothing is lost between two."""

from __future__ import annotations

from functools import partial

import psycopg
import pytest

from tests.races.sessions import Session, Stage, Task, child, increment, take, together

FAILURE = {"type": "OSError", "message": "no"}


def code(session: Session, function: str, **options: object) -> object:
    """Call a function; return its answer, or the code of the refusal."""
    try:
        return session.call(function, **options)
    except psycopg.Error as error:
        return error.sqlstate


def ended(session: Session, job: str, state: str = "failed") -> None:
    """Let a job end."""
    task = session.held(job)
    value = FAILURE if state == "failed" else 1
    assert session.advance(task.turn(state, value=value)).state == state


def with_deadline(session: Session, job: str, **options: object) -> tuple[Task, Task]:
    """Start a job whose time is up; give its coordinator and its deadline, both held."""
    main = session.held(job, timeout="1 h", **options)
    session.run("update tasks set due_at = clock() where name = '$deadline'")
    return main, session.claim_one("$sql")


def time_is_up(session: Session, deadline: Task) -> str:
    """Let the database run a deadline."""
    lease = deadline.lease
    return str(session.call("run_task", **lease))


def test_new_runs_from_eight_sessions_at_once_are_one(stage: Stage) -> None:
    """[P1] (E5)"""
    sessions = stage.sessions(8)
    for number in range(10):
        job = f"j{number}"
        ended(sessions[0], job)
        told = together(
            *(
                partial(
                    code, session, "start", workflow="w", id=job, queue=job, if_exists="new_run"
                )
                for session in sessions
            )
        )
        assert sorted(map(str, told)) == sorted([str(job)] + ["PD402"] * 7)
        assert sessions[0].tasks(job) == {"2/main": "ready"}


def test_the_same_retry_from_eight_sessions_at_once_is_one(stage: Stage) -> None:
    """[P12] A reply was lost, and lost again: one run."""
    sessions = stage.sessions(8)
    ended(sessions[0], "j")

    told = together(*(partial(code, session, "retry", id="j", key="k") for session in sessions))

    assert told == [True] * 8
    assert sessions[0].tasks("j") == {"2/main": "ready"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_new_run_waits_for_the_end_of_the_last(a: Session, b: Session, end: str) -> None:
    """It is refused or begun by what is true then, not by what was read before."""
    task = a.held("j")
    a.begin()
    a.advance(task.done(1))
    starting = b.later(code, b, "start", workflow="w", id="j", queue="j", if_exists="new_run")
    assert starting.waits()
    a.end(end)

    assert starting.get() == ("j" if end == "commit" else "PD402")
    assert a.tasks("j") == ({"2/main": "ready"} if end == "commit" else {"1/main": "held"})


def test_new_runs_in_opposite_orders_do_not_deadlock(stage: Stage) -> None:
    """Some of the ids exist, some do not; each run begins once."""
    sessions = stage.sessions(4)
    ids = [f"j{n:03}" for n in range(40)]
    for job in ids[::2]:
        ended(sessions[0], job)

    def start(place: int, session: Session) -> object:
        order = ids if place % 2 else ids[::-1]
        starts = [{"id": job, "workflow": "w", "if_exists": "new_run"} for job in order]
        try:
            return len(session.rows("start_many", starts=starts))
        except psycopg.Error as error:
            return error.sqlstate

    told = together(*(partial(start, place, session) for place, session in enumerate(sessions)))

    assert sorted(map(str, told)) == ["40", "PD402", "PD402", "PD402"]
    assert sessions[0].one("select count(*) from tasks") == len(ids)


def test_a_new_run_of_a_memory_that_is_just_being_made_waits_for_it(a: Session, b: Session) -> None:
    """[P1] It was not there to be locked up front; it is there when the new run begins."""
    a.begin()
    a.call("entity_create", id="e", entity="note")
    starting = b.later(code, b, "start", workflow="w", id="e", queue="e", if_exists="new_run")
    assert starting.waits()  # for the unique index
    a.commit()

    assert starting.get() == "e"
    assert a.tasks("e") == {"1/main": "ready"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_request_to_cancel_between_two_runs_is_heard(a: Session, b: Session, end: str) -> None:
    """(E2) It comes while the run goes on as the next."""
    task = a.held("j")
    a.begin()
    assert a.advance(task.turn("continue", increment("n"), value=[2])).state == "continue"
    cancelling = b.later(b.call, "cancel", id="j", reason="enough")
    assert cancelling.waits()
    a.end(end)

    assert cancelling.get() is True
    if end == "commit":
        assert a.claim_one("j").messages == ["enough"]
    else:
        assert a.advance(task.park("go")).payloads == ["enough"]


def test_a_signal_between_two_runs_is_taken_once(a: Session, b: Session) -> None:
    """[P5]"""
    task = a.held("j")
    b.begin()
    b.signal("j", "go", 1)
    going_on = a.later(a.advance, task.turn("continue", value=[2]), waiting=True)
    assert going_on.waits()
    b.commit()

    assert going_on.get().state == "continue"
    assert a.advance(a.claim_one("j").park("go")).payloads == [1]


def test_the_key_of_a_signal_is_remembered_by_the_next_run(a: Session, b: Session) -> None:
    """[P5] [P12]: who repeats it then, for a reply that was lost, signals nothing."""
    task = a.held("j")
    b.signal("j", "go", 1, key="k")
    (message,) = a.advance(task.park("go")).messages
    a.advance(task.turn("continue", take(message), value=[2]))

    assert not b.signal("j", "go", 1, key="k")

    assert a.advance(a.claim_one("j").park("go")).state == "parked"


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_signal_behind_the_end_is_refused_though_children_are_seen_to(
    a: Session, b: Session, end: str
) -> None:
    """[P5] Nobody could take it but the next run, for which it was not sent."""
    parent = a.held("p")
    a.advance(parent.keep(requests=[child("c#1")]))
    a.signal("p", "go", "early")
    a.signal("p", "go", "with a key", "k")
    a.begin()
    assert a.advance(parent.done(1)).state == "done"
    sending = b.later(code, b, "signal", id="p", name="go", payload="late")
    assert sending.waits()
    a.end(end)

    assert sending.get() == ("PD403" if end == "commit" else True)
    if end == "commit":
        a.start("p", if_exists="new_run")
        assert a.advance(a.claim_one("p").park("go")).state == "parked"


def test_the_end_of_a_child_beside_the_next_run_of_its_parent_is_dropped(
    a: Session, b: Session
) -> None:
    """[P6] [P8] Its answer is for a run that is over."""
    parent = a.held("p")
    a.advance(parent.keep(requests=[child("c#1")]))
    its_child = b.claim_one("children")
    b.begin()
    assert b.advance(its_child.done(1, touches=["p"])).state == "done"
    going_on = a.later(a.advance, parent.turn("continue", value=[]), waiting=True)
    assert going_on.waits()
    b.commit()

    assert going_on.get().state == "continue"
    assert a.claim_one("p").messages == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_last_turn_beside_a_deadline_counts_if_it_is_first(
    a: Session, b: Session, end: str
) -> None:
    """[P6] [P7] [P10]"""
    main, deadline = with_deadline(a, "j")
    a.begin()
    assert a.advance(main.done(1)).state == "done"
    dying = b.later(time_is_up, b, deadline)
    assert dying.waits()
    a.end(end)

    assert dying.get() == ("gone" if end == "commit" else "done")
    assert a.status("j") == ("completed" if end == "commit" else "failed")


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_last_turn_behind_a_deadline_is_gone(a: Session, b: Session, end: str) -> None:
    """[P6] [P7]"""
    main, deadline = with_deadline(a, "j")
    b.begin()
    assert time_is_up(b, deadline) == "done"
    finishing = a.later(a.advance, main.done(1), waiting=True)
    assert finishing.waits()
    b.end(end)

    state = finishing.get().state
    if end == "commit" and state == "busy":  # a turn whose task was deleted while it waited
        state = a.advance(main.done(1), waiting=True).state
    assert state == ("gone" if end == "commit" else "done")
    assert a.status("j") == ("failed" if end == "commit" else "completed")


def test_a_deadline_beside_the_next_run_goes_on_with_it(a: Session, b: Session) -> None:
    """[P7] It is not lost: the next run has it, due at once."""
    main, deadline = with_deadline(a, "j")
    a.begin()
    assert a.advance(main.turn("continue", value=[2])).state == "continue"
    dying = b.later(time_is_up, b, deadline)
    assert dying.waits()
    a.commit()

    assert dying.get() == "gone"
    assert time_is_up(b, b.claim_one("$sql")) == "done"
    assert a.status("j") == "failed"


def test_a_stuck_deadline_is_due_in_the_next_run(a: Session) -> None:
    """[P7] [P8] It slept there for ever, and nobody saw that it was stuck."""
    main, deadline = with_deadline(a, "j")
    a.release(deadline)
    a.run("update tasks set deliveries = 20 where name = '$deadline'")
    assert a.claim("$sql") == []
    assert a.advance(main.turn("continue", value=[2])).state == "continue"

    assert time_is_up(a, a.claim_one("$sql")) == "done"


def test_a_deadline_waits_for_the_parent_and_wakes_it(a: Session, b: Session) -> None:
    """[P8] Both jobs are locked up front, in order."""
    parent = a.held("p")
    request = child("c#1", id="a child", timeout="1 h")
    assert a.advance(parent.park(requests=[request])).state == "parked"
    a.run("update tasks set due_at = clock() where name = '$deadline'")
    deadline = b.claim_one("$sql")
    a.begin()
    a.signal("p", "other")
    dying = b.later(time_is_up, b, deadline)
    assert dying.waits()
    a.commit()

    assert dying.get() == "done"
    assert [message["type"] for message in a.claim_one("p").messages] == ["TimeoutError"]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_terminate_beside_a_new_run_of_a_child_asks_nobody(
    a: Session, b: Session, end: str
) -> None:
    """[P8] The parent of the run before waits for nothing any more."""
    parent = a.held("p")
    a.advance(parent.keep(requests=[child("c#1", id="c")]))
    its_child = a.claim_one("children")
    a.begin()
    assert a.advance(its_child.turn("failed", value=FAILURE, touches=["p"])).state == "failed"
    assert a.call("retry", id="c") is True
    ending = b.later(b.call, "terminate", id="c")
    assert ending.waits()
    a.end(end)

    assert ending.get() is True
    assert len(a.one("select array_agg(key) from inbox where job_id = 'p'")) == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_fork_stands_where_the_other_does_in_the_end(a: Session, b: Session, end: str) -> None:
    """[P3] [P9] Memory and journal are of one moment."""
    task = a.held("j", context={"n": 0})
    a.advance(task.keep(increment("n")))
    a.begin()
    a.advance(task.told(1).keep(increment("n")))
    forking = b.later(b.one, "select fork('j', 'f')::text")
    assert forking.waits()
    a.end(end)

    forking.get()
    n = 2 if end == "commit" else 1
    assert a.memory("f")[0] == {"n": n}
    assert a.one("select position from tasks where job_id = 'f' and task = '1/main'") == n
