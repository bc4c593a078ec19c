"""Runs end and begin while others call: one run at a time, and nothing is lost between two."""

from __future__ import annotations

from functools import partial

import psycopg
import pytest

from tests.races.sessions import Session, Stage, Task, child, increment, take, together

FAILURE = {"type": "OSError", "message": "no"}


def answer_or_code(session: Session, function: str, **options: object) -> object:
    """Call a function; return its answer, or the SQLSTATE of the error."""
    try:
        return session.call(function, **options)
    except psycopg.Error as error:
        return error.sqlstate


def start_and_end(session: Session, job: str, state: str = "failed") -> None:
    """Start a job and end it in this state."""
    task = session.held(job)
    value = FAILURE if state == "failed" else 1
    assert session.advance(task.turn(state, value=value)).state == state


def with_deadline(session: Session, job: str, **options: object) -> tuple[Task, Task]:
    """Start a job whose time limit is over; give its coordinator and its deadline, both held."""
    main = session.held(job, timeout="1 h", **options)
    session.run("update tasks set due_at = clock() where name = '$deadline'")
    return main, session.claim_one("$sql")


def run_deadline(session: Session, deadline: Task) -> str:
    """Let the database run the task of a deadline; return its state."""
    lease = deadline.lease
    return str(session.call("run_task", **lease))


def test_one_of_many_concurrent_starts_of_new_run_succeeds(stage: Stage) -> None:
    """[P1] (E5) Eight sessions try; the others get the error PD402, and one run exists."""
    sessions = stage.sessions(8)
    for number in range(10):
        job = f"j{number}"
        start_and_end(sessions[0], job)
        results = together(
            *(
                partial(
                    answer_or_code,
                    session,
                    "start",
                    workflow="w",
                    id=job,
                    queue=job,
                    if_exists="new_run",
                )
                for session in sessions
            )
        )
        assert sorted(map(str, results)) == sorted([str(job)] + ["PD402"] * 7)
        assert sessions[0].tasks(job) == {"2/main": "ready"}


def test_concurrent_retries_with_one_key_begin_one_run(stage: Stage) -> None:
    """[P12] A client that lost replies repeats its retry: eight sessions, one new run."""
    sessions = stage.sessions(8)
    start_and_end(sessions[0], "j")

    results = together(
        *(partial(answer_or_code, session, "retry", id="j", key="k") for session in sessions)
    )

    assert results == [True] * 8
    assert sessions[0].tasks("j") == {"2/main": "ready"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_new_run_waits_for_uncommitted_end_of_last_run(a: Session, b: Session, end: str) -> None:
    """It begins if the end commits, and is refused if the last run goes on."""
    task = a.held("j")
    a.begin()
    a.advance(task.done(1))
    starting = b.later(
        answer_or_code, b, "start", workflow="w", id="j", queue="j", if_exists="new_run"
    )
    assert starting.waits()
    a.end(end)

    assert starting.get() == ("j" if end == "commit" else "PD402")
    assert a.tasks("j") == ({"2/main": "ready"} if end == "commit" else {"1/main": "held"})


def test_new_runs_in_opposite_orders_do_not_deadlock(stage: Stage) -> None:
    """Four sessions start the same jobs, of which some exist: one succeeds, each job runs once."""
    sessions = stage.sessions(4)
    ids = [f"j{n:03}" for n in range(40)]
    for job in ids[::2]:
        start_and_end(sessions[0], job)

    def start(place: int, session: Session) -> object:
        order = ids if place % 2 else ids[::-1]
        starts = [{"id": job, "workflow": "w", "if_exists": "new_run"} for job in order]
        try:
            return len(session.rows("start_many", starts=starts))
        except psycopg.Error as error:
            return error.sqlstate

    results = together(*(partial(start, place, session) for place, session in enumerate(sessions)))

    assert sorted(map(str, results)) == ["40", "PD402", "PD402", "PD402"]
    assert sessions[0].one("select count(*) from tasks") == len(ids)


def test_new_run_waits_for_uncommitted_creation_of_its_memory(a: Session, b: Session) -> None:
    """[P1] The row could not be locked before it existed; the run begins as soon as it does."""
    a.begin()
    a.call("entity_create", id="e", entity="note")
    starting = b.later(
        answer_or_code, b, "start", workflow="w", id="e", queue="e", if_exists="new_run"
    )
    assert starting.waits()  # for the unique index
    a.commit()

    assert starting.get() == "e"
    assert a.tasks("e") == {"1/main": "ready"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_request_to_cancel_during_continue_reaches_run_that_follows(
    a: Session, b: Session, end: str
) -> None:
    """(E2) It waits for the open turn; if that is rolled back, the old run gets the request."""
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


def test_signal_during_continue_reaches_next_run(a: Session, b: Session) -> None:
    """[P5] The turn that ends the run waits for the uncommitted signal, and hands it on once."""
    task = a.held("j")
    b.begin()
    b.signal("j", "go", 1)
    going_on = a.later(a.advance, task.turn("continue", value=[2]), waiting=True)
    assert going_on.waits()
    b.commit()

    assert going_on.get().state == "continue"
    assert a.advance(a.claim_one("j").park("go")).payloads == [1]


def test_the_key_of_a_signal_is_remembered_by_the_next_run(a: Session, b: Session) -> None:
    """[P5] [P12] A client that repeats a signal after the run changed sends nothing new."""
    task = a.held("j")
    b.signal("j", "go", 1, key="k")
    (message,) = a.advance(task.park("go")).messages
    a.advance(task.turn("continue", take(message), value=[2]))

    assert not b.signal("j", "go", 1, key="k")

    assert a.advance(a.claim_one("j").park("go")).state == "parked"


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_signal_after_end_is_refused_even_while_children_are_ended(
    a: Session, b: Session, end: str
) -> None:
    """[P5] No task of this run could take the signal, and it was not meant for the next run."""
    parent = a.held("p")
    a.advance(parent.keep(requests=[child("c#1")]))
    a.signal("p", "go", "early")
    a.signal("p", "go", "with a key", "k")
    a.begin()
    assert a.advance(parent.done(1)).state == "done"
    sending = b.later(answer_or_code, b, "signal", id="p", name="go", payload="late")
    assert sending.waits()
    a.end(end)

    assert sending.get() == ("PD403" if end == "commit" else True)
    if end == "commit":
        a.start("p", if_exists="new_run")
        assert a.advance(a.claim_one("p").park("go")).state == "parked"


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_signal_that_waits_for_end_that_awaits_it(a: Session, b: Session, end: str) -> None:
    """[P5] None had come when the job ended: the sender of a later one is told."""
    job = a.held("j")
    a.begin()
    assert a.advance(job.turn("done", awaits=["go"])).state == "done"
    sending = b.later(answer_or_code, b, "signal", id="j", name="go")
    assert sending.waits()
    a.end(end)

    assert sending.get() == ("PD403" if end == "commit" else True)
    if end == "rollback":
        assert a.advance(job.turn("done", awaits=["go"])).state == "continue"


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_end_that_waits_for_signal_that_it_awaits(a: Session, b: Session, end: str) -> None:
    """[P5] The next run begins with the same arguments, and takes the signal."""
    job = a.held("j", args=["same"])
    a.signal("j", "go", 0)
    (first,) = a.advance(job.keep(awaits=["go"])).messages
    b.begin()
    b.signal("j", "go", 1)
    done = job.turn("done", take(first), awaits=["go"], value="over")
    ending = a.later(a.advance, done, waiting=True)
    assert ending.waits()
    b.end(end)

    assert ending.get().state == ("continue" if end == "commit" else "done")
    if end == "commit":
        (again,) = a.claim("j")
        assert (again.task, again.row["args"]) == ("2/main", ["same"])
        (message,) = a.advance(again.park("go")).messages
        taken = a.advance(again.turn("done", take(message), awaits=["go"], value="over"))
        assert taken.state == "done"
    assert a.status("j") == "completed"
    assert a.broken() == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_signal_that_is_repeated_while_its_key_is_forgotten(
    a: Session, b: Session, end: str
) -> None:
    """[P12] It is accepted again only if the key is gone."""
    job = a.held("j")
    a.signal("j", "go", 1, key="k")
    (message,) = a.advance(job.keep(awaits=["go"])).messages
    a.advance(job.keep(take(message)))
    a.run("update inbox set consumed_at = clock() - interval '2 days'")
    a.begin()
    assert a.call("forget_old_runs", id="j") == 1
    repeating = b.later(b.signal, "j", "go", 1, key="k")
    assert repeating.waits()
    a.end(end)

    assert repeating.get() is (end == "commit")


def test_job_does_not_end_without_seeing_signals(a: Session) -> None:
    """[P5] In a transaction with one snapshot, a signal that has come since would be lost."""
    job = a.held("j")
    a.begin()
    a.run("set transaction isolation level repeatable read")
    code = answer_or_code(a, "advance", turns=[job.turn("done", awaits=["go"])])
    a.rollback()

    assert code == "PD107"
    assert a.status("j") == "running"


def test_answer_of_child_does_not_reach_next_run_of_its_parent(a: Session, b: Session) -> None:
    """[P6] [P8] The run that asked for the child is over."""
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
def test_last_turn_that_commits_before_deadline_completes_job(
    a: Session, b: Session, end: str
) -> None:
    """[P6] [P7] [P10] The deadline waits for the turn; after a rollback the job fails."""
    main, deadline = with_deadline(a, "j")
    a.begin()
    assert a.advance(main.done(1)).state == "done"
    dying = b.later(run_deadline, b, deadline)
    assert dying.waits()
    a.end(end)

    assert dying.get() == ("gone" if end == "commit" else "done")
    assert a.status("j") == ("completed" if end == "commit" else "failed")


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_last_turn_that_waits_for_deadline_is_gone(a: Session, b: Session, end: str) -> None:
    """[P6] [P7] The turn waits for the deadline, and counts only if that is rolled back."""
    main, deadline = with_deadline(a, "j")
    b.begin()
    assert run_deadline(b, deadline) == "done"
    finishing = a.later(a.advance, main.done(1), waiting=True)
    assert finishing.waits()
    b.end(end)

    state = finishing.get().state
    if end == "commit" and state == "busy":  # a turn whose task was deleted while it waited
        state = a.advance(main.done(1), waiting=True).state
    assert state == ("gone" if end == "commit" else "done")
    assert a.status("j") == ("failed" if end == "commit" else "completed")


def test_deadline_that_is_due_during_continue_ends_next_run(a: Session, b: Session) -> None:
    """[P7] The deadline moves to the next run, where it is due at once."""
    main, deadline = with_deadline(a, "j")
    a.begin()
    assert a.advance(main.turn("continue", value=[2])).state == "continue"
    dying = b.later(run_deadline, b, deadline)
    assert dying.waits()
    a.commit()

    assert dying.get() == "gone"
    assert run_deadline(b, b.claim_one("$sql")) == "done"
    assert a.status("j") == "failed"


def test_a_stuck_deadline_is_due_in_the_next_run(a: Session) -> None:
    """[P7] [P8] In the run before, it had too many deliveries to be claimed."""
    main, deadline = with_deadline(a, "j")
    a.release(deadline)
    a.run("update tasks set deliveries = 20 where name = '$deadline'")
    assert a.claim("$sql") == []
    assert a.advance(main.turn("continue", value=[2])).state == "continue"

    assert run_deadline(a, a.claim_one("$sql")) == "done"


def test_deadline_of_child_waits_for_locked_parent_and_wakes_it(a: Session, b: Session) -> None:
    """[P8] It locks both jobs up front, in order."""
    parent = a.held("p")
    request = child("c#1", id="a child", timeout="1 h")
    assert a.advance(parent.park(requests=[request])).state == "parked"
    a.run("update tasks set due_at = clock() where name = '$deadline'")
    deadline = b.claim_one("$sql")
    a.begin()
    a.signal("p", "other")
    dying = b.later(run_deadline, b, deadline)
    assert dying.waits()
    a.commit()

    assert dying.get() == "done"
    assert [message["type"] for message in a.claim_one("p").messages] == ["TimeoutError"]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_terminating_new_run_of_child_sends_its_parent_nothing_more(
    a: Session, b: Session, end: str
) -> None:
    """[P8] The parent got the failure of the run before, and waits for nothing else."""
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
def test_fork_waits_for_open_turn_and_copies_one_moment(a: Session, b: Session, end: str) -> None:
    """[P3] [P9] Memory and journal of the fork have the same position."""
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
