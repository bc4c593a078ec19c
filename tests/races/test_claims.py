"""Many workers claim at once: each task goes to one of them, and none is lost or delayed.

[P6] [P8]
"""

from __future__ import annotations

from functools import partial

import pytest

from tests.races.sessions import Session, Stage, Task, together

WORKERS = 8
TASKS = 200


def start(session: Session, amount: int = TASKS) -> None:
    """Start jobs on one queue, with all priorities."""
    session.rows(
        "start_many",
        starts=[
            {"id": f"j{n:03}", "workflow": "w", "queue": "q", "priority": n % 10}
            for n in range(amount)
        ],
    )


def drain(session: Session) -> list[Task]:
    """Claim seven tasks at a time until the queue is empty."""
    tasks: list[Task] = []
    while more := session.claim("q", max_tasks=7):
        tasks += more
    return tasks


def test_concurrent_claims_give_each_task_to_one_worker(stage: Stage) -> None:
    """[P6] (C42) Eight workers claim two hundred tasks; each counts one delivery."""
    sessions = stage.sessions(WORKERS)
    start(sessions[0])

    claimed = together(*(partial(drain, session) for session in sessions))

    jobs = [task.job for each in claimed for task in each]
    assert sorted(jobs) == [f"j{n:03}" for n in range(TASKS)]
    assert sessions[0].run("select distinct deliveries from tasks") == [(1,)]


def test_concurrent_advances_that_claim_finish_each_task_once(stage: Stage) -> None:
    """[P6] [P12] advance() ends the last batch and claims the next one in the same call."""
    sessions = stage.sessions(WORKERS)
    start(sessions[0])

    def work(session: Session) -> list[str]:
        held, jobs = session.claim("q", max_tasks=5), []
        while held:
            jobs += [task.job for task in held]
            turns = [task.done(session.name) for task in held]
            reply = session.advance_all(turns, queues=["q"], max_tasks=5)
            assert set(reply.states) == {"done"}
            held = reply.tasks
        return jobs

    jobs = [job for each in together(*(partial(work, s) for s in sessions)) for job in each]

    assert sorted(jobs) == [f"j{n:03}" for n in range(TASKS)]
    assert sessions[0].one("select count(*) from jobs where status = 'completed'") == TASKS


def test_tasks_of_claim_that_is_rolled_back_can_be_claimed(stage: Stage) -> None:
    """[P6] [P8] No delivery is counted, and no other claim waits for the open one."""
    a, b, c = stage.sessions(3)
    start(a, 20)
    a.begin()
    lost = a.claim("q", max_tasks=12)

    claiming = b.later(b.claim, "q", max_tasks=20)
    assert not claiming.waits()
    assert len(claiming.get()) == 8
    assert b.claim("q") == []

    a.rollback()
    again = c.claim("q")
    assert sorted(task.job for task in again) == sorted(task.job for task in lost)
    assert {task.row["deliveries"] for task in again} == {1}


def test_lease_begins_at_claim_not_at_start_of_transaction(a: Session) -> None:
    """[P6] [P7] (H9) The lease has the requested length even in an old transaction."""
    a.start("j")
    a.begin()
    a.one("select pg_sleep(0.3)::text")

    a.claim_one("j", lease_for="250 ms")

    assert a.one("select due_at > clock_timestamp() from tasks")
    a.commit()


def test_open_claims_do_not_wait_and_take_best_of_what_is_left(stage: Stage) -> None:
    """[P6] Three workers claim in order of priority, each in an open transaction."""
    sessions = stage.sessions(3)
    start(sessions[0], 30)
    claimed = []
    for session in sessions:
        session.begin()
        claimed += [[task.row["job"] for task in session.claim("q", max_tasks=3)]]
    for session in sessions:
        session.commit()

    priorities = [sorted(int(job[1:]) % 10 for job in jobs) for jobs in claimed]
    assert priorities == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_expired_lease_goes_to_one_of_two_claimers(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P6] The second claimer gets it only if the first rolls back; the former holder is fenced."""
    task = a.held("j")
    a.expire(task)
    b.begin()
    assert len(b.claim("j")) == 1
    assert c.claim("j") == []
    b.end(end)

    assert len(c.claim("j")) == (0 if end == "commit" else 1)
    assert a.advance(task.done()).state == ("fenced")


def test_claim_does_not_take_task_that_was_parked_meanwhile(a: Session, b: Session) -> None:
    """[P6] The lease has ended, so the task was due; its holder parks it in an open transaction."""
    task = a.held("j")
    a.expire(task)
    a.begin()
    assert a.advance(task.park("go")).state == "parked"
    assert b.claim("j") == []
    a.commit()
    assert b.claim("j") == []
    assert a.state("j") == "parked"


# A claim that read an old version of a row keeps its lock on the new version until it commits.

STRAY = """
select t.task from tasks as t
 where t.job_id = 'j' and t.due_at <= clock() and pg_advisory_xact_lock_shared(4711) is not null
   for no key update skip locked
"""


def lock_by_stray_claim(claimer: Session, other: Session, task: Task) -> None:
    """Let `claimer` read an old version of a due task, then lock the new version, which is not due.

    An advisory lock in the statement stops it between reading and locking; meanwhile `other` renews
    the lease.
    """
    other.begin()
    other.run("select pg_advisory_xact_lock(4711)")
    claimer.begin()
    claiming = claimer.later(claimer.run, STRAY)
    assert claiming.waits()
    other.run(
        "update tasks set due_at = clock() + interval '1 h' where job_id = %s and task = %s",
        task.job,
        task.task,
    )
    other.commit()
    assert claiming.get() == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_turn_waits_for_stray_lock_of_claim_and_is_applied(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P6] A claim holds such a lock only briefly, so the turn waits instead of being busy."""
    task = a.held("j")
    a.expire(task)
    lock_by_stray_claim(b, c, task)
    assert a.run("select task from tasks for no key update skip locked") == []

    advancing = a.later(a.advance, task.done(1))
    assert advancing.waits()
    b.end(end)

    assert advancing.get().state == "done"


def test_heartbeat_skips_stray_lock_and_answers_busy(a: Session, b: Session, c: Session) -> None:
    """[P6] `busy` means that the lease is still held; a repeated heartbeat renews it."""
    task = a.held("j")
    a.expire(task)
    lock_by_stray_claim(b, c, task)

    assert a.extend(task) == ["busy"]

    b.commit()
    assert a.extend(task) == ["held"]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_claim_finds_signalled_task_once_signal_commits(a: Session, b: Session, end: str) -> None:
    """[P5] [P8] [P11] A claim during the open signal finds nothing; the next one does."""
    a.parked("j", "go")
    b.begin()
    b.signal("j", "go", 1)
    assert a.claim("j") == []
    b.end(end)

    assert [task.messages for task in a.claim("j")] == ([[1]] if end == "commit" else [])


def test_jobs_end_only_once_while_leases_are_stolen(stage: Stage) -> None:
    """[P6] [P8] Five workers claim and end jobs while another session lets their leases end."""
    sessions = stage.sessions(6)
    finished: list[list[str]] = []

    def work(session: Session) -> list[str]:
        done = []
        for _ in range(60):
            held = session.claim("q", max_tasks=4, lease_for="100 ms")
            states = session.advance_all([task.done(session.name) for task in held]).states
            ended = zip(held, states, strict=True)
            done += [task.job for task, state in ended if state == "done"]
        return done

    def steal(session: Session) -> list[str]:
        for _ in range(60):
            session.run(
                """update tasks set due_at = clock()
                    where (job_id, task) in (select job_id, task from tasks
                                              where token is not null for update skip locked)"""
            )
        return []

    start(sessions[0])
    finished = together(
        partial(steal, sessions[0]), *(partial(work, session) for session in sessions[1:])
    )

    jobs = [job for each in finished for job in each]
    assert len(jobs) == len(set(jobs))
    left = sessions[0].one("select count(*) from tasks")
    assert sessions[0].one("select count(*) from jobs where status = 'completed'") == len(jobs)
    assert len(jobs) + left == TASKS


def test_concurrent_claims_take_one_suspect_each_and_do_not_wait(stage: Stage) -> None:
    """[P6] [P10] A suspect is a task that has lost several workers.

    Claims beside an open one get other tasks.
    """
    a, b, c = stage.sessions(3)
    start(a, 4)
    a.run(
        """update tasks set deliveries = 5, token = gen_random_uuid(), worker = 'dead'
            where job_id <> 'j003' returning job_id"""
    )
    a.begin()
    assert {task.job for task in a.claim("q", max_tasks=2)} == {"j000", "j003"}

    claiming = b.later(b.claim, "q", max_tasks=9)
    assert not claiming.waits()
    assert [task.job for task in claiming.get()] == ["j002"]
    a.commit()
    assert [task.job for task in c.claim("q", max_tasks=9)] == ["j001"]
    assert [a.claim("q"), b.claim("q"), c.claim("q")] == [[], [], []]
