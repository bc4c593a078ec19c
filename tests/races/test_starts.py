"""Concurrent starts of one id make one job. [P1]"""

from __future__ import annotations

from functools import partial

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.races.sessions import Session, Stage, together
from tests.races.theatre import Theatre, shut

STARTERS = 8


def is_new_or_code(session: Session, job: str, **options: object) -> object:
    """Start a job; return whether it is new, or the code of the error."""
    try:
        return session.start(job, **options)
    except psycopg.Error as error:
        return error.sqlstate


@pytest.mark.parametrize(
    ("options", "others"),
    [({"if_exists": "existing"}, False), ({"key": "k"}, False), ({}, "PD402")],
    ids=["existing", "with a key", "error"],
)
def test_the_same_id_from_eight_sessions_at_once_is_new_for_one(
    stage: Stage, options: dict[str, str], others: object
) -> None:
    """[P1] [P12] (E5) (C9) The others get false or the error PD402, depending on their options."""
    sessions = stage.sessions(STARTERS)
    for number in range(10):
        job = f"j{number}"

        results = together(
            *(partial(is_new_or_code, session, job, **options) for session in sessions)
        )

        assert sorted(map(str, results)) == sorted(map(str, [True] + [others] * (STARTERS - 1)))
        assert sessions[0].tasks(job) == {"1/main": "ready"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_start_waits_for_an_open_start_of_the_same_id(a: Session, b: Session, end: str) -> None:
    """[P1] (E7) It is refused if that one commits, and new if it rolls back."""
    a.begin()
    assert a.start("j")
    starting = b.later(is_new_or_code, b, "j")
    assert starting.waits()
    a.end(end)

    assert starting.get() == ("PD402" if end == "commit" else True)
    assert b.one("select count(*) from jobs") == 1


@pytest.mark.parametrize(("key", "answer"), [("k", True), ("other", False), (None, False)])
def test_second_entity_create_returns_true_only_with_same_key(
    a: Session, b: Session, key: str | None, answer: bool
) -> None:
    """[P12] A call with the same key is a repetition, whose first reply was lost."""
    a.begin()
    assert a.call("entity_create", id="e", entity="note", key="k") is True
    making = b.later(b.call, "entity_create", id="e", entity="note", key=key)
    assert making.waits()
    a.end("commit")

    assert making.get() is answer


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_start_in_an_open_transaction_runs_only_when_that_commits(
    a: Session, b: Session, end: str
) -> None:
    """[P1] (E7) Before the commit, no session can claim or signal the job."""
    a.begin()
    assert a.start("j", context={"n": 1})

    assert b.claim("j") == []
    with pytest.raises(psycopg.Error, match="does not exist") as unknown:
        b.signal("j", "go")
    assert unknown.value.sqlstate == "PD401"

    a.end(end)
    assert len(b.claim("j")) == (1 if end == "commit" else 0)
    if end == "rollback":
        assert [b.everything()[table] for table in ("jobs", "tasks", "journal")] == [[], [], []]


def test_overlapping_start_manys_in_opposite_orders_do_not_deadlock(stage: Stage) -> None:
    """[P1] Ids are inserted in their own order; each is new for exactly one of the callers."""
    sessions = stage.sessions(4)
    ids = [f"j{n:03}" for n in range(60)]

    def start(place: int, session: Session) -> dict[str, bool]:
        order = ids[place * 10 : place * 10 + 30]
        order = order[::-1] if place % 2 else order
        starts = [{"id": job, "workflow": "w", "if_exists": "existing"} for job in order]
        return dict(session.rows("start_many", starts=starts))

    answers = together(*(partial(start, place, session) for place, session in enumerate(sessions)))

    for job in ids:
        assert sum(each.get(job, False) for each in answers) == 1
    assert sessions[0].one("select count(*) from tasks") == len(ids)


def test_start_manys_that_meet_in_the_middle_wait_for_each_other(
    a: Session, b: Session, c: Session
) -> None:
    """[P1] Two calls with opposite orders stop at an id that a third session is starting."""
    c.begin()
    c.start("m")
    starts = [{"id": job, "workflow": "w", "if_exists": "existing"} for job in ("a", "m", "z")]
    first = a.later(a.rows, "start_many", starts=starts)
    assert first.waits()
    second = b.later(b.rows, "start_many", starts=starts[::-1])
    assert second.waits()
    c.commit()

    assert [first.get(), second.get()] == [
        [("a", True), ("m", False), ("z", True)],
        [("z", False), ("m", False), ("a", False)],
    ]


def test_a_start_many_that_is_refused_starts_nothing(a: Session, b: Session) -> None:
    """[P1] Also if the existing id was committed while it waited."""
    b.begin()
    b.start("j5", key="mine")
    starts = [{"id": f"j{n}", "workflow": "w"} for n in range(9)]
    starting = a.later(a.rows, "start_many", starts=starts)
    assert starting.waits()
    b.commit()

    refused = starting.error()

    assert isinstance(refused, psycopg.Error)
    assert refused.sqlstate == "PD402"
    assert a.run("select id from jobs") == [("j5",)]


def test_one_call_that_names_an_id_twice_makes_one_job(a: Session) -> None:
    """[P1] With `existing`, the second is not new."""
    starts = [{"id": "j", "workflow": "w", "if_exists": "existing"}] * 2

    assert sorted(a.rows("start_many", starts=starts)) == [("j", False), ("j", True)]
    assert a.tasks("j") == {"1/main": "ready"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_an_entity_and_a_workflow_of_one_id_are_one_job(a: Session, b: Session, end: str) -> None:
    """[P1] start() waits for an uncommitted entity_create() of the same id."""
    a.begin()
    assert a.call("entity_create", id="j", entity="x", context={"n": 1})
    starting = b.later(is_new_or_code, b, "j")
    assert starting.waits()
    a.end(end)

    assert starting.get() == ("PD402" if end == "commit" else True)
    assert b.memory("j") == (({"n": 1}, 1) if end == "commit" else ({}, 0))


def start_while_the_first_is_forgotten(
    theatre: Theatre, *jobs: str, **options: object
) -> tuple[object, int]:
    """Start jobs of which the first has ended, and is forgotten once the call has found it.

    Gives the answer or the code of the error, and the number of jobs afterwards.
    """
    theatre.put_gate("start_jobs", r"perform insert_coordinators")
    with theatre.players() as (a, b, c, _):
        a.advance(a.held(jobs[0]).done())
        shut(c)
        starts = Jsonb([{"workflow": "w", "id": job, **options} for job in jobs])
        starting = b.later(b.run, "select is_new from start_many(%s)", starts)
        assert starting.waits()
        assert a.call("forget", id=jobs[0]) is True
        c.commit()

        error = starting.error()
        answer = error.sqlstate if isinstance(error, psycopg.Error) else starting.get()
        return answer, b.one("select count(*) from jobs")


@pytest.mark.parametrize(
    "options",
    [{}, {"if_exists": "existing"}, {"key": "k"}],
    ids=["error", "existing", "with a key"],
)
def test_start_of_id_that_is_forgotten_meanwhile_starts_job(
    theatre: Theatre, options: dict[str, str]
) -> None:
    """[P1] It must not answer that the job exists."""
    assert start_while_the_first_is_forgotten(theatre, "j", **options) == ([(True,)], 1)


def test_start_many_of_id_that_is_forgotten_meanwhile_is_refused(theatre: Theatre) -> None:
    """[P1] It gets 40001, to be repeated, since it has already inserted other ids in
    their order.
    """
    assert start_while_the_first_is_forgotten(theatre, "j", "k") == ("40001", 0)
