"""The alerts of `sql/operating.md` return rows in the incident that each is for, and no others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import perdure
from tests.source import SQL

Connection = psycopg.Connection[Any]


def alerts() -> dict[str, list[str]]:
    """Read the queries of the page by their headings, with times that a test can wait for."""
    page = (SQL / "operating.md").read_text("utf-8")
    section = page.partition("\n## Alerts\n")[2].partition("\n### What to record\n")[0]
    parts = re.split(r"^### (.+)$", section, flags=re.MULTILINE)[1:]
    return {
        heading: re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


QUERIES = alerts()

A_TURN = """select my_app.advance(jsonb_build_array(jsonb_build_object(
    'job', 'j', 'task', '1/main', 'token', my_app.claim('{q}', 'me') ->> 'token',
    'position', 0, 'state', %s::text, 'value', '{"type": "E", "message": "no"}'::jsonb)))"""

LATE = "update my_app.tasks set due_at = due_at - interval '2 hours'"

GIVEN_BACK = A_TURN.replace("%s::text", "'release', 'until', clock_timestamp() + interval '1 min'")

LEASES_END = ("select my_app.claim('{q}', 'me')", LATE)

NEWER_FAILURES = """
    insert into my_app.jobs (id, workflow, status, error, created_at, finished_at)
    select 'newer-' || n, 'w', 'failed', '{"message": "no"}', now() + interval '1 min',
           now() - interval '20 min'
      from generate_series(1, 150) as n"""

INCIDENTS = {
    "Work is late": (LATE,),
    "Work is late: its worker is gone": LEASES_END,
    "Work is late: a worker that is gone has all slots": (
        "select my_app.set_queue('q', max_running => 1)",
        "select my_app.start('w', id => 'k', queue => 'q')",
        *LEASES_END,
    ),
    "A pause was forgotten": (LATE, "select my_app.pause_queue('q')"),
    "A pause was forgotten: of a job": (LATE, "select my_app.pause('j')"),
    "A pause was forgotten: a worker is gone too": (
        *LEASES_END,
        "select my_app.pause_queue('q')",
    ),
    "Tasks are stuck": (A_TURN.replace("%s", "'stuck'"),),
    "No worker can run a task": (GIVEN_BACK,),
    "Tasks end their workers": ("update my_app.tasks set deliveries = 5",),
    "Jobs have failed": (A_TURN.replace("%s", "'failed'"),),
    "Jobs have failed: many others began later": (
        A_TURN.replace("%s", "'failed'"),
        NEWER_FAILURES,
    ),
    "A schedule is late": (
        "select my_app.create_schedule('s', 'w', every => '1 hour')",
        "update my_app.tasks set until = until - interval '2 hours' where job_id = '$schedule/s'",
    ),
    "An index is not valid": (
        "select my_app.create_index('e', 'n', 'number')",
        """do $$ begin execute (select format('drop index my_app.%I', name) from my_app.indexes);
            end $$""",
    ),
    "Something holds up vacuum": (),
    "A table is not vacuumed": (
        "create table my_app.dead (n integer) with (autovacuum_enabled = false)",
        "insert into my_app.dead select generate_series(1, 100001)",
        "delete from my_app.dead",
        "select pg_stat_force_next_flush()",
    ),
}


@pytest.fixture
def app(dsn: str, connection: Connection) -> Connection:
    """Give a connection to an app with a job."""
    with perdure.connect(dsn, schema="my_app") as client:
        client.start("w", id="j", queue="q")
    return connection


@pytest.fixture
def monitor(app: Connection, dsn: str) -> Iterator[Connection]:
    """Give a connection of a monitor."""
    with ExitStack() as stack:
        app.execute("drop role if exists watchful")
        app.execute("create role watchful login")
        stack.callback(app.execute, "drop role watchful")
        app.execute("select my_app.grant_access('watchful', 'monitor')")
        stack.callback(app.execute, "select my_app.revoke_access('watchful')")
        yield stack.enter_context(
            psycopg.connect(make_conninfo(dsn, user="watchful"), autocommit=True)
        )


def raised(connection: Connection) -> list[str]:
    """List the alerts of which a query returns a row."""
    return [
        heading
        for heading, queries in QUERIES.items()
        if any(connection.execute(query.encode()).fetchone() for query in queries)
    ]


def test_healthy_app_raises_no_alert(app: Connection) -> None:
    assert raised(app) == []


def test_each_alert_has_an_incident() -> None:
    assert QUERIES.keys() == {incident.partition(":")[0] for incident in INCIDENTS}


@pytest.mark.parametrize("incident", INCIDENTS)
def test_each_incident_raises_its_alert_and_no_other(
    app: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch, incident: str
) -> None:
    heading = incident.partition(":")[0]
    for statement in INCIDENTS[incident]:
        app.execute(statement.encode())
    with psycopg.connect(dsn) as other:
        if heading == "Something holds up vacuum":
            other.execute("select pg_current_xact_id()")
            app.execute("select pg_sleep(0.01)")
            soon = [query.replace("'10 min'", "'10 ms'") for query in QUERIES[heading]]
            monkeypatch.setitem(QUERIES, heading, soon)
        assert raised(app) == [heading]


def test_monitor_may_run_the_alerts_that_name_no_other_role(monitor: Connection) -> None:
    refused = []
    for heading, queries in QUERIES.items():
        try:
            for query in queries:
                monitor.execute(query.encode())
        except psycopg.errors.InsufficientPrivilege:
            refused.append(heading)
    assert refused == ["Jobs have failed"]
