"""Plans outlive the figures that they were made with: those of a quiet night serve a busy day.

A session plans each statement once, and until the server has counted again it may believe that a
table is empty which has grown. What then looks cheapest is to read the table as a whole. So all
verbs are planned here while the server knows of empty tables only; then these are filled, and each
verb may still read a few rows of each, found by an index.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.races.sessions import TABLES, Session, hook
from tests.races.test_every_verb import deeds

MANY = 2_000
A_FEW = 200
"""Rows of a table that a verb may read: those of its own stage."""

BESIDE = f"""
insert into jobs (id, workflow, status, created_at, finished_at, result)
select 'finished ' || n, 'other', 'completed', clock() + interval '1 h', clock(), '1'
  from generate_series(1, {MANY}) as n;
insert into jobs (id, workflow, status, created_at, args, watched, queue, priority)
select 'asleep ' || n, 'other', 'running', clock() + interval '1 h', '[]', true, 'other', 5
  from generate_series(1, {MANY}) as n;
insert into tasks (job_id, task, kind, name, queue, due_at, until, awaits, started_at, last_token)
select 'asleep ' || n, '1/main', 'coordinator', 'other', 'other', clock() + interval '1 h',
       clock() + interval '1 h', '{{}}', clock(), gen_random_uuid()
  from generate_series(1, {MANY}) as n;
insert into tasks (job_id, task, kind, name, queue, due_at, token, worker, started_at)
select 'asleep ' || n, '$hook/' || n, 'hook', 'held', 'other', clock() + interval '1 h',
       gen_random_uuid(), 'busy', clock()
  from generate_series(1, {MANY}) as n;
insert into inbox (job_id, name, sent_at)
select 'asleep ' || n, 'unheard', clock() from generate_series(1, {MANY}) as n;
insert into journal (job_id, task, seq, kind, name, at)
select 'finished ' || n, '1/main', 1, 'note', 'done', clock() from generate_series(1, {MANY}) as n;
insert into conditions (job_id, task, key, condition, asked_at)
select 'asleep ' || n, '1/main', 'u#0', '$.n > 5', clock() from generate_series(1, {MANY}) as n;
insert into items (job_id, task, key, name, asked_at)
select 'asleep ' || n, '1/main', 'i#0', 'decide', clock() from generate_series(1, {MANY}) as n
"""


def fill(session: Session) -> None:
    """Put many jobs beside those on the stage."""
    for statement in BESIDE.split(";"):
        session.run(statement)


@pytest.fixture
def early(a: Session) -> Iterator[Session]:
    """Give a session for whose server all tables are empty, whatever is in them."""
    fill(a)
    for table in TABLES:
        a.run(f"delete from {table}")
    for table in TABLES:
        a.run(f"vacuum (analyze, truncate off) {table}")
        a.run(f"alter table {table} set (autovacuum_enabled = off)")
    a.run("discard plans")
    yield a
    for table in TABLES:
        a.run(f"delete from {table}")
        a.run(f"alter table {table} reset (autovacuum_enabled)")
        a.run(f"vacuum (analyze) {table}")


def reads(session: Session, it: Any, do: Callable[[Session, Any], Any]) -> dict[str, int]:
    """Do something that is undone; give the rows that it has read of each table."""
    query = """select relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
                 from pg_stat_xact_user_tables where schemaname = 'perdure'"""
    session.begin()
    before = dict(session.run(query))  # of earlier transactions, and not yet reported
    try:
        do(session, it)
        return {table: rows - before[table] for table, rows in session.run(query)}
    except psycopg.Error:
        return {}  # a refusal, which is another pair's
    finally:
        session.rollback()


def test_plans_made_for_empty_tables_never_read_a_full_one(early: Session) -> None:
    """(E1): each verb, and each kind of turn, finds by an index what it needs."""
    # Whoever forgets what has finished forgets the others too.
    everything = [each for each in deeds() if not each[0].startswith("forget finished")]
    for _, stage, do in everything:
        reads(early, stage(early), do)
    fill(early)

    read = {name: reads(early, stage(early), do) for name, stage, do in everything}

    assert sum(map(bool, read.values())) > len(read) / 2
    assert {
        (name, table, rows)
        for name, tables in read.items()
        for table, rows in tables.items()
        if rows > A_FEW
    } == set()


TEN = "select forget_finished(clock() + interval '2 h', max_jobs => 10)"


def test_ten_jobs_are_forgotten_without_a_look_at_all(early: Session) -> None:
    """(E18): the oldest are found by age, with a plan that was made when there were none."""
    reads(early, None, lambda session, _: session.one(TEN))
    fill(early)

    read = reads(early, None, lambda session, _: session.one(TEN))

    assert read["jobs"] > 0
    assert {table: rows for table, rows in read.items() if rows > A_FEW} == {}


def test_a_page_of_a_timeline_reads_the_rows_of_its_job_alone(early: Session) -> None:
    """Whatever else there is: all of its journal, which is sorted by time, and the rest in part."""
    page = "select count(*) from timeline(%s, max_rows => 10)"
    early.start("j")
    reads(early, "j", lambda session, job: session.run(page, job))
    fill(early)

    read = reads(early, "asleep 7", lambda session, job: session.run(page, job))

    assert read["tasks"] > 0
    assert {table: rows for table, rows in read.items() if rows > A_FEW} == {}


STUCK = """update tasks set due_at = 'infinity', stuck_reason = '{}', last_worker = %s
            where job_id = %s and task = '1/main'"""


def test_what_is_stuck_is_found_among_all_tasks(early: Session) -> None:
    """By whoever says hello or goodbye to its queue."""

    def come_and_go(session: Session, job: str) -> None:
        for worker in ("comes", "goes"):
            session.call("register_worker", worker=worker, queues=["other"])
        session.run(STUCK, "goes", job)
        session.call("forget_worker", worker="goes")

    early.start("j", queue="other")
    reads(early, "j", come_and_go)
    fill(early)

    read = reads(early, "asleep 7", come_and_go)

    assert read["tasks"] > 0
    assert {table: rows for table, rows in read.items() if rows > A_FEW} == {}


def test_why_a_task_may_not_be_claimed_is_told_without_a_look_at_all(early: Session) -> None:
    """For each task that is due: by what its queue has taken, whatever other tasks there are."""

    def tell(session: Session, job: str) -> None:
        session.call("start", workflow="w", id=job, queue="limited")
        session.one("select task_reason(%s, '1/main')", job)

    early.run("select set_queue('limited', 5, 2, 1, 1)")
    reads(early, "j", tell)
    fill(early)

    read = reads(early, "j", tell)

    assert read["tasks"] > 0
    assert {table: rows for table, rows in read.items() if rows > A_FEW} == {}


def test_what_is_cancelled_is_found_by_its_name(early: Session) -> None:
    """Each request, whatever else the task has asked for: twice as many take twice as long."""

    def cancel_all(session: Session, count: int) -> None:
        task = session.held("p")
        asked = [hook(f"h#{number}") for number in range(count)]
        session.advance(task.keep(requests=asked))
        session.advance(task.keep(cancels=[each["key"] for each in asked]))

    few, many = (reads(early, count, cancel_all)["tasks"] for count in (50, 100))

    assert many < 2.5 * few


def test_what_is_under_way_is_found_by_indexes(early: Session) -> None:
    """Of one task, whatever others have asked for."""

    def compare(session: Session, job: str) -> None:
        said = {"job": job, "task": "1/main", "state": "keep", "open": {"u#0": None, "i#0": None}}
        session.one("select open_failure(%s)", json.dumps(said))

    early.start("j")
    reads(early, "j", compare)
    fill(early)

    read = reads(early, "asleep 7", compare)

    assert read["conditions"] == read["items"] == 1
    assert {table: rows for table, rows in read.items() if rows > A_FEW} == {}


CHILDREN = f"""
insert into jobs (id, workflow, status, args, queue, priority, parent, asked_as)
select 'child ' || n, 'other', 'running', '[]', 'other', 5, 'p', '1/main/c#' || n
  from generate_series(1, {MANY}) as n
"""


def test_a_child_is_found_among_all_of_its_parent(early: Session) -> None:
    """By its id or by its request, however many others the parent has."""
    turn = {"job": "p", "task": "1/main", "requests": [{"key": "c#7", "kind": "job"}]}

    def find(session: Session, child: str) -> None:
        mine = session.one("select still_children(array[%s], 'p', '1/main')", child)
        query = "select lock_requested(array[jsonb_populate_record(null::turn, %s)])"
        assert mine == session.one(query, json.dumps(turn))

    reads(early, "child 7", find)
    fill(early)
    early.run(CHILDREN)

    read = reads(early, "child 7", find)

    assert read["jobs"] > 0
    assert {table: rows for table, rows in read.items() if rows > A_FEW} == {}
