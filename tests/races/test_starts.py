"""Starts of one id at once: one job, whoever is first. [P1]"""

from __future__ import annotations

from functools import partial

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.races.sessions import Session, Stage, together
from tests.races.theatre import Theatre, shut

STARTERS = 8


def code(session: Session, job: str, **options: object) -> object:
    """Start a job; return whether it is new, or the code of the refusal."""
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
    """[P1] [P12] (E5) (C9)"""
    sessions = stage.sessions(STARTERS)
    for number in range(10):
        job = f"j{number}"

        told = together(*(partial(code, session, job, **options) for session in sessions))

        assert sorted(map(str, told)) == sorted(map(str, [True] + [others] * (STARTERS - 1)))
        assert sessions[0].tasks(job) == {"1/main": "ready"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_start_waits_for_an_open_start_of_the_same_id(a: Session, b: Session, end: str) -> None:
    """[P1] (E7): refused when that one commits, new when it rolls back."""
    a.begin()
    assert a.start("j")
    starting = b.later(code, b, "j")
    assert starting.waits()
    a.end(end)

    assert starting.get() == ("PD402" if end == "commit" else True)
    assert b.one("select count(*) from jobs") == 1


@pytest.mark.parametrize(("key", "told"), [("k", True), ("other", False), (None, False)])
def test_an_entity_that_is_just_being_made_is_made_by_its_own_repetition_alone(
    a: Session, b: Session, key: str | None, told: bool
) -> None:
    """[P12]: a reply was lost, and the call that is repeated has not committed yet."""
    a.begin()
    assert a.call("entity_create", id="e", entity="note", key="k") is True
    making = b.later(b.call, "entity_create", id="e", entity="note", key=key)
    assert making.waits()
    a.end("commit")

    assert making.get() is told


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_start_in_an_open_transaction_runs_only_when_that_commits(
    a: Session, b: Session, end: str
) -> None:
    """[P1] (E7): nobody sees, claims or signals it before."""
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
    """[P1]: ids are inserted in their own order; each is new for exactly one of the callers."""
    sessions = stage.sessions(4)
    ids = [f"j{n:03}" for n in range(60)]

    def start(place: int, session: Session) -> dict[str, bool]:
        order = ids[place * 10 : place * 10 + 30]
        order = order[::-1] if place % 2 else order
        starts = [{"id": job, "workflow": "w", "if_exists": "existing"} for job in order]
        return dict(session.rows("start_many", starts=starts))

    told = together(*(partial(start, place, session) for place, session in enumerate(sessions)))

    for job in ids:
        assert sum(each.get(job, False) for each in told) == 1
    assert sessions[0].one("select count(*) from tasks") == len(ids)


def test_start_manys_that_meet_in_the_middle_wait_for_each_other(
    a: Session, b: Session, c: Session
) -> None:
    """[P1]: two calls stopped at an id that a third is starting, from both sides of it."""
    c.begin()
    c.start("m")
    starts = [{"id": job, "workflow": "w", "if_exists": "existing"} for job in ("a", "m", "z")]
    one = a.later(a.rows, "start_many", starts=starts)
    assert one.waits()
    two = b.later(b.rows, "start_many", starts=starts[::-1])
    assert two.waits()
    c.commit()

    assert [one.get(), two.get()] == [
        [("a", True), ("m", False), ("z", True)],
        [("z", False), ("m", False), ("a", False)],
    ]


def test_a_start_many_that_is_refused_starts_nothing(a: Session, b: Session) -> None:
    """[P1]: also where the id that exists was committed while it waited."""
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
    """[P1]: with `existing` the second is not new."""
    starts = [{"id": "j", "workflow": "w", "if_exists": "existing"}] * 2

    assert sorted(a.rows("start_many", starts=starts)) == [("j", False), ("j", True)]
    assert a.tasks("j") == {"1/main": "ready"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_an_entity_and_a_workflow_of_one_id_are_one_job(a: Session, b: Session, end: str) -> None:
    """[P1]: entity_create() and start() meet on the same key."""
    a.begin()
    assert a.call("entity_create", id="j", entity="x", context={"n": 1})
    starting = b.later(code, b, "j")
    assert starting.waits()
    a.end(end)

    assert starting.get() == ("PD402" if end == "commit" else True)
    assert b.memory("j") == (({"n": 1}, 1) if end == "commit" else ({}, 0))


def forgotten_while_it_is_started(
    theatre: Theatre, *jobs: str, **options: object
) -> tuple[object, int]:
    """Start jobs of which the first has ended, and is forgotten once it was found to be there; tell
    what the call is told, and how many jobs there are then."""
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
        told = error.sqlstate if isinstance(error, psycopg.Error) else starting.get()
        return told, b.one("select count(*) from jobs")


@pytest.mark.parametrize(
    "options",
    [{}, {"if_exists": "existing"}, {"key": "k"}],
    ids=["error", "existing", "with a key"],
)
def test_a_start_whose_id_is_forgotten_at_that_moment_starts_the_job(
    theatre: Theatre, options: dict[str, str]
) -> None:
    """[P1]: it was told that the job is there, and none was."""
    assert forgotten_while_it_is_started(theatre, "j", **options) == ([(True,)], 1)


def test_of_several_starts_none_is_lost_where_one_meets_that(theatre: Theatre) -> None:
    """[P1]: ids are taken in order, and the call has taken others already: it is to be repeated."""
    assert forgotten_while_it_is_started(theatre, "j", "k") == ("40001", 0)
