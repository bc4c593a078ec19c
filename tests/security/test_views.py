"""What a reader's own code sees of a view is what the view shows, not the rows behind it (S17).

A function that costs next to nothing would be run before the conditions of a view, and an operator
is tried by the planner on samples of the table beneath it: unless the view is a barrier.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import uuid4

import pytest
from psycopg.errors import Diagnostic

from tests.security.house import Connection

Enter = Callable[[str], Connection]

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
def owner(enter: Enter) -> Connection:
    """Give the owner of an app with facts that no view shows: what activities have returned."""
    owner = enter("owner")
    turn = {"job": f"job {uuid4()}", "task": "1/main", "token": str(uuid4()), "position": 0}
    owner.execute("select start('w', id => %s, queue => %s)", [turn["job"]] * 2)
    owner.execute("select claim(array[%s], 'me', %s::uuid)", [turn["job"], turn["token"]])
    fact = {"kind": "activity", "name": "ask", "ok": True, "value": HIDDEN}
    facts = [fact | {"key": f"ask#{number}"} for number in range(40)]
    written = {"op": "set", "path": ["n"], "value": 1}
    told = {"state": "done", "facts": [*facts, written]}
    owner.execute("select advance(%s)", [json.dumps([turn | told])])
    owner.execute("analyze perdure.journal, perdure.jobs, perdure.tasks")  # the planner's samples
    return owner


def leaked(reader: Connection, view: str) -> set[str]:
    """Run code of the reader's on each column of a view; tell what it saw that is not shown."""
    return {
        value
        for column, kind in reader.execute(COLUMNS, [f"perdure.{view}"]).fetchall()
        for value in leaked_by(reader, f"perdure.{view}", column, kind)
    }


def leaked_by(reader: Connection, view: str, column: str, kind: str) -> set[str]:
    """Lay the traps on one column: the cheap function, and the operator that is estimated."""
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
    assert set(seen) >= shown.keys() & after.keys()  # they were sprung
    return set(seen) - shown.keys() - after.keys() - {"<NULL>"}


@pytest.mark.parametrize("view", VIEWS)
def test_no_code_of_a_reader_sees_what_a_view_does_not_show(
    owner: Connection, enter: Enter, view: str
) -> None:
    assert leaked(enter("reader"), view) == set()


def test_every_view_is_tried(owner: Connection) -> None:
    query = "select viewname from pg_views where schemaname = 'perdure' order by viewname"
    assert [name for (name,) in owner.execute(query)] == list(VIEWS)


def test_the_same_view_without_its_barrier_leaks(owner: Connection, enter: Enter) -> None:
    """The results of activities, which are in no history, are among the planner's samples."""
    owner.execute("alter view history set (security_barrier = false)")
    try:
        assert json.dumps(HIDDEN) in leaked(enter("reader"), "history")
    finally:
        owner.execute("alter view history set (security_barrier = true)")
