"""Many workers claim at once: each task goes to one, and none is lost or held up. [P6] [P8]"""

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
    """Claim by sevens until nothing comes."""
    tasks: list[Task] = []
    while more := session.claim("q", max_tasks=7):
        tasks += more
    return tasks


def test_eight_workers_claim_two_hundred_tasks_and_each_goes_to_one(stage: Stage) -> None:
    """[P6] (C42): once, with one delivery."""
    sessions = stage.sessions(WORKERS)
    start(sessions[0])

    claimed = together(*(partial(drain, session) for session in sessions))

    jobs = [task.job for each in claimed for task in each]
    assert sorted(jobs) == [f"j{n:03}" for n in range(TASKS)]
    assert sessions[0].run("select distinct deliveries from tasks") == [(1,)]


def test_eight_workers_finish_two_hundred_tasks_while_they_claim(stage: Stage) -> None:
    """[P6] [P12]: advance() ends the last batch and claims the next in one call."""
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


def test_what_a_claimer_rolls_back_is_there_for_the_next(stage: Stage) -> None:
    """[P6] [P8]: without a delivery counted; nobody waits for the open claim."""
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


def test_a_lease_begins_with_the_claim_not_with_its_transaction(a: Session) -> None:
    """[P6] [P7] (H9): its length is that which was asked for."""
    a.start("j")
    a.begin()
    a.one("select pg_sleep(0.3)::text")

    a.claim_one("j", lease_for="250 ms")

    assert a.one("select due_at > clock_timestamp() from tasks")
    a.commit()


def test_open_claims_of_three_workers_do_not_wait_for_each_other(stage: Stage) -> None:
    """[P6]: best first for each of them, of what the others have left."""
    sessions = stage.sessions(3)
    start(sessions[0], 30)
    told = []
    for session in sessions:
        session.begin()
        told += [[task.row["job"] for task in session.claim("q", max_tasks=3)]]
    for session in sessions:
        session.commit()

    priorities = [sorted(int(job[1:]) % 10 for job in jobs) for jobs in told]
    assert priorities == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_lease_that_has_ended_goes_to_one_of_two_thieves(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P6]"""
    task = a.held("j")
    a.expire(task)
    b.begin()
    assert len(b.claim("j")) == 1
    assert c.claim("j") == []
    b.end(end)

    assert len(c.claim("j")) == (0 if end == "commit" else 1)
    assert a.advance(task.done()).state == ("fenced")


def test_a_task_that_was_parked_under_a_claim_is_not_taken(a: Session, b: Session) -> None:
    """[P6]: the claim saw it due, but the row had moved when it got the lock."""
    task = a.held("j")
    a.expire(task)
    a.begin()
    assert a.advance(task.park("go")).state == "parked"
    assert b.claim("j") == []
    a.commit()
    assert b.claim("j") == []
    assert a.state("j") == "parked"


# A claim that saw an old version of a row keeps a lock on the new one until it commits.

STRAY = """
select t.task from tasks as t
 where t.job_id = 'j' and t.due_at <= clock() and pg_advisory_xact_lock_shared(4711) is not null
   for no key update skip locked
"""


def strayed(claimer: Session, other: Session, task: Task) -> None:
    """Let `claimer` read an old version of a due task, then lock the new one, which is not due.

    A gate in the statement holds it between reading and locking; `other` renews the lease there.
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
def test_a_stray_lock_of_a_claim_makes_no_turn_busy_for_nothing(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P6]: a turn waits for its task's row the moment that the claim takes, and is applied."""
    task = a.held("j")
    a.expire(task)
    strayed(b, c, task)
    assert a.run("select task from tasks for no key update skip locked") == []

    advancing = a.later(a.advance, task.done(1))
    assert advancing.waits()
    b.end(end)

    assert advancing.get().state == "done"


def test_a_heartbeat_passes_a_stray_lock_by_and_is_not_lost(
    a: Session, b: Session, c: Session
) -> None:
    """[P6]: busy says that the lease is still held."""
    task = a.held("j")
    a.expire(task)
    strayed(b, c, task)

    assert a.extend(task) == ["busy"]

    b.commit()
    assert a.extend(task) == ["held"]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_claim_that_comes_while_a_job_is_being_signalled_finds_it_afterwards(
    a: Session, b: Session, end: str
) -> None:
    """[P5] [P8] [P11]: the reader may look too early; the next look, and the hint, find it."""
    a.parked("j", "go")
    b.begin()
    b.signal("j", "go", 1)
    assert a.claim("j") == []
    b.end(end)

    assert [task.messages for task in a.claim("j")] == ([[1]] if end == "commit" else [])


def test_tasks_are_started_claimed_and_stolen_at_the_same_time(stage: Stage) -> None:
    """[P6] [P8]: leases end at once; every job is finished, by one worker, exactly once."""
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


def test_suspects_go_one_to_a_worker_and_none_waits_for_another(stage: Stage) -> None:
    """[P6] [P10]: while a claim is open, others are given what it has not looked at."""
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
