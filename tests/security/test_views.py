"""Code of a reader sees only the rows that a view shows, not those behind it (S17).

PostgreSQL would run a cheap function before the conditions of a view, and the planner tries
operators on samples of the table, unless the view is a security barrier.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import uuid4

import pytest
from psycopg.errors import Diagnostic

from tests.security.secured import Connection

ConnectAs = Callable[[str], Connection]

HIDDEN = "what an activity has returned"
VIEWS = ("history", "indexes", "schedules", "waiting")
COLUMNS = """
select quote_ident(a.attname), format_type(a.atttypid, null)
  from pg_attribute as a
 where a.attrelid = %s::regclass
   and a.attnum > 0
"""
TRAPS = """
create function pg_temp.leak({kind}) returns boolean language plpgsql cost 0.0000001
as $$ begin raise notice '%', $1; return true; end $$;
create function pg_temp.leak({kind}, {kind}) returns boolean language plpgsql
as $$ begin raise notice '%', $1; return true; end $$;
create operator pg_temp.<<< (
    function = pg_temp.leak, leftarg = {kind}, rightarg = {kind}, restrict = scalarltsel)
"""


@pytest.fixture
def owner(connect_as: ConnectAs) -> Connection:
    """Give the owner of an app with facts that no view shows: results of activities."""
    owner = connect_as("owner")
    turn = {"job": f"job {uuid4()}", "task": "1/main", "token": str(uuid4()), "position": 0}
    owner.execute("select start('w', id => %s, queue => %s)", [turn["job"]] * 2)
    owner.execute("select claim(array[%s], 'me', %s::uuid)", [turn["job"], turn["token"]])
    fact = {"kind": "activity", "name": "ask", "ok": True, "value": HIDDEN}
    facts = [fact | {"key": f"ask#{number}"} for number in range(40)]
    written = {"op": "set", "path": ["n"], "value": 1}
    outcome = {"state": "done", "facts": [*facts, written]}
    owner.execute("select advance(%s)", [json.dumps([turn | outcome])])
    owner.execute("analyze perdure.journal, perdure.jobs, perdure.tasks")  # the planner's samples
    return owner


def leaked(reader: Connection, view: str) -> set[str]:
    """Run the reader's code on each column of a view; return the values it saw that are not
    shown."""
    return {
        value
        for column, kind in reader.execute(COLUMNS, [f"perdure.{view}"]).fetchall()
        for value in leaked_by(reader, f"perdure.{view}", column, kind)
    }


def leaked_by(reader: Connection, view: str, column: str, kind: str) -> set[str]:
    """Lay traps on one column: a cheap function, and an operator whose selectivity is estimated."""
    written = f"format('%s', {column}), quote_literal({column}::text)"
    query = f"select {written} from {view} where {column} is not null"
    shown = dict(reader.execute(query.encode()).fetchall())
    seen: list[str] = []

    def note(notice: Diagnostic) -> None:
        seen.append(notice.message_primary or "")

    with reader.transaction(force_rollback=True):
        reader.execute("set local enable_indexscan = off; set local enable_bitmapscan = off")
        reader.execute(TRAPS.format(kind=kind).encode())
        reader.add_notice_handler(note)
        reader.execute(f"select from {view} where pg_temp.leak({column})".encode())
        for value in list(shown.values())[:1]:
            trap = f"{column} operator(pg_temp.<<<) {value}::{kind}"
            reader.execute(f"select from {view} where {trap}".encode())
        reader.remove_notice_handler(note)
    after = dict(reader.execute(query.encode()).fetchall())  # a lease may have ended meanwhile
    assert set(seen) >= shown.keys() & after.keys()  # the traps were called
    return set(seen) - shown.keys() - after.keys() - {"<NULL>"}


@pytest.mark.parametrize("view", VIEWS)
def test_reader_code_sees_only_the_rows_of_a_view(
    owner: Connection, connect_as: ConnectAs, view: str
) -> None:
    assert leaked(connect_as("reader"), view) == set()


def test_list_of_views_is_complete(owner: Connection) -> None:
    query = "select viewname from pg_views where schemaname = 'perdure' order by viewname"
    assert [name for (name,) in owner.execute(query)] == list(VIEWS)


def test_view_without_its_security_barrier_leaks(owner: Connection, connect_as: ConnectAs) -> None:
    """A control: results of activities are not in `history`, but among the planner's samples."""
    owner.execute("alter view history set (security_barrier = false)")
    try:
        assert json.dumps(HIDDEN) in leaked(connect_as("reader"), "history")
    finally:
        owner.execute("alter view history set (security_barrier = true)")
