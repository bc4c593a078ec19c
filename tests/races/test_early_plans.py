"""Plans that were made for empty tables must stay cheap when the tables have grown.

A session plans each statement once, and until the next ANALYZE it may take a table for empty that
has grown. A sequential scan then looks cheapest. So all verbs are planned here while the server
knows only empty tables. Then the tables are filled, and each verb may still read only a few rows of
each, found by an index.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.races.sessions import TABLES, Session, Task, activity, hook, take
from tests.races.test_every_verb import calls_of_pairs

MANY = 2_000
A_FEW = 200
"""The number of rows of a table that a verb may read."""

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


MESSAGES = f"""
insert into inbox (job_id, task, key, name, sent_at)
select {{}}, 'other', clock() from generate_series(1, {MANY}) as n
"""
SIGNALS = MESSAGES.format("'other', null, null")
ANSWERS = MESSAGES.format("'other', '1/main', 'h#' || n")
CANCELS = MESSAGES.format("'other ' || n, '1/main', '$cancel'")
ONE_JOB = f"""
insert into jobs (id, workflow, status, args) values ('one', 'other', 'running', '[]');
insert into jobs (id, entity, parent, asked_as)
select 'child ' || n, 'other', 'one', '1/main/c#1' from generate_series(1, {MANY}) as n;
insert into tasks (job_id, task, kind, name, queue, due_at, token, worker, started_at,
                   asker_job, asker_task, asker_key)
select 'one', '1/main/h#' || n, 'hook', 'held', 'other', clock() + interval '1 h',
       gen_random_uuid(), 'busy', clock(), 'one', '1/main', 'h#' || n
  from generate_series(1, {MANY}) as n;
insert into inbox (job_id, name, sent_at)
select 'one', 'unheard', clock() from generate_series(1, {MANY}) as n;
insert into inbox (job_id, task, key, sent_at)
select 'one', '1/main', 'h#' || n, clock() from generate_series(1, {MANY}) as n;
insert into journal (job_id, task, seq, kind, key, at, is_answer)
select 'one', '1/main', n, 'answer', 'h#' || n, clock(), true from generate_series(1, {MANY}) as n;
insert into conditions (job_id, task, key, condition, asked_at)
select 'one', '1/main', 'u#' || n, '$.n > 5', clock() from generate_series(1, {MANY}) as n;
insert into items (job_id, task, key, name, asked_at)
select 'one', '1/main', 'i#' || n, 'decide', clock() from generate_series(1, {MANY}) as n
"""


KEYS = f"""
insert into lines (queue, priority, limit_key, turn_at)
select 'paced', 5, 'other ' || n, clock() + interval '1 h' from generate_series(1, {MANY}) as n;
insert into key_tokens (queue, limit_key, tokens, counted_at, full_at)
select 'paced', 'other ' || n, 0, clock(), clock() + interval '1 h' * (n - {MANY} / 2)
  from generate_series(1, {MANY}) as n
"""


def fill(session: Session, statements: str = BESIDE) -> None:
    """Insert many rows beside those of the test."""
    for statement in statements.split(";"):
        session.run(statement)


@contextmanager
def knowing_what_is_here(session: Session) -> Iterator[Session]:
    """Give a session whose server knows only what the tables hold now."""
    for table in TABLES:
        session.run(f"vacuum (analyze, truncate off) {table}")
        session.run(f"alter table {table} set (autovacuum_enabled = off)")
    session.run("discard plans")
    try:
        yield session
    finally:
        for table in TABLES:
            session.run(f"delete from {table}")
            session.run(f"alter table {table} reset (autovacuum_enabled)")
            session.run(f"vacuum (analyze) {table}")


@pytest.fixture
def early(a: Session) -> Iterator[Session]:
    """Give a session whose server takes all tables for empty, whatever they hold."""
    fill(a)
    for table in TABLES:
        a.run(f"delete from {table}")
    with knowing_what_is_here(a):
        yield a


def rows_read(session: Session, actors: Any, do: Callable[[Session, Any], Any]) -> dict[str, int]:
    """Make a call that is undone; give the number of rows that it has read of each table."""
    query = """select relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
                 from pg_stat_xact_user_tables where schemaname = 'perdure'"""
    session.begin()
    before = dict(session.run(query))  # from earlier transactions, and not yet reported
    try:
        do(session, actors)
        return {table: rows - before[table] for table, rows in session.run(query)}
    except psycopg.Error:
        return {}  # refused in this state; another pair succeeds
    finally:
        session.rollback()


def check_plans(session: Session, more: str) -> None:
    """Plan each verb, and each kind of turn; with more rows each may still read only a few."""
    # forget_finished() would forget the other jobs too.
    all_calls = [call for call in calls_of_pairs() if not call[0].startswith("forget finished")]
    for _, stage, do in all_calls:
        rows_read(session, stage(session), do)
    fill(session, more)

    read = {name: rows_read(session, stage(session), do) for name, stage, do in all_calls}

    assert sum(map(bool, read.values())) > len(read) / 2
    assert {
        (name, table, rows)
        for name, tables in read.items()
        for table, rows in tables.items()
        if rows > A_FEW
    } == set()


def test_plans_for_empty_tables_do_not_scan_full_ones(early: Session) -> None:
    """(E1) Each verb, and each kind of turn, finds its rows by an index."""
    check_plans(early, BESIDE)


def test_plans_for_one_large_job_do_not_scan_those_of_others(a: Session) -> None:
    """(E1) PostgreSQL 18 may skip a leading column of which it knows one value."""
    fill(a, ONE_JOB)
    with knowing_what_is_here(a):
        check_plans(a, f"{BESIDE};{CANCELS}")


def test_plans_for_many_jobs_do_not_scan_one_large_job(a: Session) -> None:
    """(E1) Where each job is small, one of them may be large later."""
    fill(a)
    with knowing_what_is_here(a):
        check_plans(a, ONE_JOB)


TEN = "select forget_finished(clock() + interval '2 h', max_jobs => 10)"


def test_forgetting_ten_jobs_does_not_read_all_jobs(early: Session) -> None:
    """(E18) The oldest are found by an index, with a plan that was made when there were none."""
    rows_read(early, None, lambda session, _: session.one(TEN))
    fill(early)

    read = rows_read(early, None, lambda session, _: session.one(TEN))

    assert read["jobs"] > 0
    assert {table: rows for table, rows in read.items() if rows > A_FEW} == {}


def test_page_of_timeline_reads_only_rows_of_its_job(early: Session) -> None:
    page = "select count(*) from timeline(%s, max_rows => 10)"
    early.start("j")
    rows_read(early, "j", lambda session, job: session.run(page, job))
    fill(early)

    read = rows_read(early, "asleep 7", lambda session, job: session.run(page, job))

    assert read["tasks"] > 0
    assert {table: rows for table, rows in read.items() if rows > A_FEW} == {}


LONG = 100_000
LOGS = f"""
insert into journal (job_id, task, seq, kind, version, op, path, argument, at)
select 'long', '$outside', n, 'command', n, 'log', array['l' || 2 * n / {LONG}],
       to_jsonb(array[n, n]), clock()
  from generate_series(1, {LONG}) as n
"""
PATHS = f"""
insert into journal (job_id, task, seq, kind, version, op, path, argument, at)
select 'finished ' || n, '$outside', 1, 'command', 1, 'log',
       array(select md5((n * m)::text) from generate_series(1, 30) as m), '[1]', clock()
  from generate_series(1, {MANY}) as n
"""
PAGES = {
    "items": "select from entity_items('long', 'l1', max_rows => 20)",
    "last items": "select from entity_items('long', 'l0', last => 20)",
    "items before": f"select from entity_items('long', 'l1', last => 20, before => {LONG - 1})",
    "stream": "select from stream_items('long', 'l1', max_rows => 10)",
}


@pytest.mark.parametrize("known", ["", f"{BESIDE};{PATHS}", LOGS], ids=["nothing", "paths", "all"])
def test_page_of_log_costs_same_however_long_the_history_is(a: Session, known: str) -> None:
    """(E1) Also if the index of logs is the larger one, because of their names."""
    a.run(f"insert into jobs (id, entity, version) values ('long', 'other', {LONG})")
    fill(a, known)
    with knowing_what_is_here(a):
        for page in PAGES.values():
            a.run(page)
        if known != LOGS:
            fill(a, LOGS)
        rows = {name: rows_read(a, page, Session.run) for name, page in PAGES.items()}
        plans = {
            name: a.one(f"explain (analyze, buffers, format json) {page}")[0]["Plan"]
            for name, page in PAGES.items()
        }

    assert {name for name in PAGES if rows[name]["journal"] > 12} == set()
    assert {name for name in PAGES if plans[name]["Shared Hit Blocks"] > 30} == set()


STUCK = """update tasks set due_at = 'infinity', stuck_reason = '{}', last_worker = %s
            where job_id = %s and task = '1/main'"""


def test_stuck_tasks_are_found_by_index(early: Session) -> None:
    """Registering and unregistering a worker look for them."""

    def register_and_forget(session: Session, job: str) -> None:
        for worker in ("comes", "goes"):
            session.call("register_worker", worker=worker, queues=["other"])
        session.run(STUCK, "goes", job)
        session.call("forget_worker", worker="goes")

    early.start("j", queue="other")
    rows_read(early, "j", register_and_forget)
    fill(early)

    read = rows_read(early, "asleep 7", register_and_forget)

    assert read["tasks"] > 0
    assert {table: rows for table, rows in read.items() if rows > A_FEW} == {}


def test_reason_why_task_waits_is_found_without_reading_all_tasks(early: Session) -> None:
    """The counts of its queue give the reason, whatever other tasks there are."""

    def explain(session: Session, job: str) -> None:
        session.call("start", workflow="w", id=job, queue="limited")
        session.one("select task_reason(%s, '1/main')", job)

    early.run("select set_queue('limited', 5, 2, 1, 1, 1)")
    rows_read(early, "j", explain)
    fill(early)

    read = rows_read(early, "j", explain)

    assert read["tasks"] > 0
    assert {table: rows for table, rows in read.items() if rows > A_FEW} == {}


def test_key_that_has_a_token_is_found_without_reading_all_lines(early: Session) -> None:
    """Neither the keys that wait for a token are read, nor those that have all of them."""

    def claim(session: Session, key: str) -> None:
        session.call("start", workflow="w", id=key, queue="paced", limit_key=key)
        assert len(session.claim("paced")) == 1
        assert session.claim("paced") == []

    early.run("select set_queue('paced', rate_per_key => 1)")
    rows_read(early, "first", claim)
    fill(early, KEYS)

    read = rows_read(early, "second", claim)

    assert min(read[table] for table in ("tasks", "key_tokens")) > 0
    assert {table: rows for table, rows in read.items() if rows > A_FEW} == {}


def test_cancelling_many_requests_reads_linear_number_of_rows(early: Session) -> None:
    """Each request is found by its key, however many others the task has."""

    def cancel_all(session: Session, count: int) -> None:
        task = session.held("p")
        requests = [hook(f"h#{number}") for number in range(count)]
        session.advance(task.keep(requests=requests))
        session.advance(task.keep(cancels=[request["key"] for request in requests]))

    few, many = (rows_read(early, count, cancel_all)["tasks"] for count in (50, 100))

    assert many < 2.5 * few


def test_open_requests_of_task_are_found_by_index(early: Session) -> None:
    """Only those of this task are read, whatever other tasks have requested."""

    def compare_open(session: Session, job: str) -> None:
        turn = {"job": job, "task": "1/main", "state": "keep", "open": {"u#0": None, "i#0": None}}
        session.one("select open_failure(%s)", json.dumps(turn))

    early.start("j")
    rows_read(early, "j", compare_open)
    fill(early)

    read = rows_read(early, "asleep 7", compare_open)

    assert read["conditions"] == read["items"] == 1
    assert {table: rows for table, rows in read.items() if rows > A_FEW} == {}


CHILDREN = f"""
insert into jobs (id, workflow, status, args, queue, priority, parent, asked_as)
select 'child ' || n, 'other', 'running', '[]', 'other', 5, 'p', '1/main/c#' || n
  from generate_series(1, {MANY}) as n
"""


def test_child_is_found_among_many_of_its_parent(early: Session) -> None:
    """By its id or by its request, however many children the parent has."""
    turn = {"job": "p", "task": "1/main", "requests": [{"key": "c#7", "kind": "job"}]}

    def find(session: Session, child: str) -> None:
        by_id = session.one("select still_children(array[%s], 'p')", child)
        query = "select lock_requested(array[jsonb_populate_record(null::turn, %s)])"
        assert by_id == session.one(query, json.dumps(turn))

    rows_read(early, "child 7", find)
    fill(early)
    early.run(CHILDREN)

    read = rows_read(early, "child 7", find)

    assert read["jobs"] > 0
    assert {table: rows for table, rows in read.items() if rows > A_FEW} == {}


@pytest.mark.parametrize(
    ("known", "more"), [(ANSWERS, SIGNALS), (SIGNALS, ANSWERS), (ANSWERS, CANCELS)]
)
def test_message_that_is_taken_is_found_by_its_id(early: Session, known: str, more: str) -> None:
    """[P5] Also if the statistics know no messages of a kind, of which there are many."""
    task = early.held("j")
    early.call("signal", id="j", name="go")
    (message,) = early.advance(task.park("go")).messages
    early.run(known)
    early.run("analyze inbox")
    early.run(more)

    read = rows_read(early, task, lambda session, held: session.advance(held.keep(take(message))))

    assert 0 < read["inbox"] <= A_FEW


def test_request_is_not_looked_up_among_all_that_were_answered(early: Session) -> None:
    """[P4] Nor is an answer: those that a run has taken are in nobody's way."""
    task = early.held("j")
    early.advance(task.keep(requests=[hook(f"h#{n}") for n in range(MANY)]))
    while hooks := early.claim("hooks", max_tasks=MANY):
        early.advance_all([asked.done() for asked in hooks])
    while messages := early.advance(task.keep(awaits=[])).messages:
        early.advance(task.keep(*map(take, messages)))
        task = task.told(len(messages))

    def ask_again_and_one_more(session: Session, held: Task) -> None:
        session.advance(held.keep(requests=[hook("h#0"), hook("one more")]))
        (asked,) = session.claim("hooks")
        session.advance(asked.done())
        (answer,) = session.advance(held.park()).messages
        assert session.advance(held.park("go", facts=[take(answer)])).state == "parked"

    read = rows_read(early, task, ask_again_and_one_more)

    assert 0 < read["inbox"] <= A_FEW
    assert 0 < read["journal"] <= A_FEW


def test_name_that_leads_to_others_is_not_looked_for_among_all_facts(early: Session) -> None:
    """[P4] Not even if the journal was analyzed before its first fact, so that all its indexes look
    alike.
    """
    early.run("truncate journal")
    early.run("vacuum (analyze) journal")
    early.advance(early.held("first").park(requests=[hook("plain")]))
    task = early.held("j")
    early.advance(task.keep(*[activity(f"a#{n}") for n in range(MANY)]))

    read = rows_read(
        early,
        task.told(MANY),
        lambda session, held: session.advance(held.park(requests=[hook("h")])),
    )

    assert read["journal"] <= A_FEW
