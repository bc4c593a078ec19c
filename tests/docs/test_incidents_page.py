"""The statements of `sql/incidents.md` end the incidents that they are for, and change nothing
else."""

from __future__ import annotations

import json
import re
from typing import Any

import psycopg
import pytest

import perdure
from tests.docs.test_examples import statements
from tests.source import SQL

Connection = psycopg.Connection[Any]

PAGE = (SQL / "incidents.md").read_text("utf-8")
A_FAILURE = '{"type": "E", "message": "no"}'


@pytest.fixture
def app(dsn: str, connection: Connection) -> Connection:
    """Give a connection to an app with three jobs."""
    with perdure.connect(dsn, schema="my_app") as client:
        for number in range(3):
            client.start("ask", id=f"ask-{number}", queue="llm")
    return connection


def of_section(heading: str) -> list[str]:
    """List the statements of a section."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    return [statement for block in blocks for statement, _ in statements(block)]


def run(app: Connection, heading: str, part: str) -> Any:
    """Run the one statement of a section that contains a text. Returns its first value."""
    (statement,) = (each for each in of_section(heading) if part in each)
    cursor = app.execute(statement.encode())
    row = cursor.fetchone() if cursor.description else None
    return row and row[0]


def end_turns(app: Connection, state: str) -> None:
    """Claim the due tasks of all jobs, and end a turn of each."""
    claimed = app.execute("select my_app.claim('{llm}', 'me', max_tasks => 100)").fetchone()
    assert claimed is not None
    turns = [
        {"job": task["job"], "task": task["task"], "token": claimed[0]["token"], "position": 0}
        | {"state": state, "value": json.loads(A_FAILURE)}
        for task in claimed[0]["tasks"]
    ]
    app.execute("select my_app.advance(%s::jsonb)", [json.dumps(turns)])


def states(app: Connection) -> dict[str, str]:
    """Read the state of each job."""
    return dict(app.execute("select id, status::text from my_app.jobs").fetchall())


def test_no_statement_takes_a_task_from_workers() -> None:
    assert "my_app.claim(" not in PAGE


def test_what_was_thrown_away_runs_again(app: Connection) -> None:
    app.execute("select my_app.cancel('ask-0'), my_app.terminate('ask-0', 'by ann')")
    assert run(app, "A queue is late", "terminate") == 2
    assert run(app, "A queue is late", "retry") == 2
    assert states(app) == {"ask-0": "cancelled", "ask-1": "running", "ask-2": "running"}


def test_jobs_that_fail_again_are_run_again_once(app: Connection) -> None:
    end_turns(app, "failed")
    run(app, "Another service is down", "set_config(")
    retried = []
    for _ in range(3):
        retried.append(run(app, "Another service is down", "my_app.retry("))
        end_turns(app, "failed")
    assert retried == [3, 0, 0]


def test_cancelled_jobs_and_children_are_not_run_again(app: Connection) -> None:
    app.execute("select my_app.terminate('ask-0', 'by ann')")
    app.execute("update my_app.jobs set parent = 'ask-1' where id = 'ask-2'")
    end_turns(app, "failed")
    run(app, "Another service is down", "set_config(")
    assert run(app, "Another service is down", "my_app.retry(") == 1
    assert states(app) == {"ask-0": "cancelled", "ask-1": "running", "ask-2": "failed"}


def test_resuming_after_a_deploy_leaves_pauses_and_poisonous_tasks(app: Connection) -> None:
    end_turns(app, "stuck")
    app.execute("select my_app.pause('ask-1')")
    app.execute("update my_app.tasks set deliveries = 20 where job_id = 'ask-2'")
    assert run(app, "A deploy has left jobs stuck", "my_app.resume(") == 2
    assert run(app, "A deploy has left jobs stuck", "my_app.resume(") == 0
    found = app.execute("select job_id, state from my_app.waiting").fetchall()
    assert dict(found) == {"ask-0": "ready", "ask-1": "paused", "ask-2": "stuck"}


@pytest.mark.parametrize(
    "secret",
    ["sk-123", 'sk"123', '"sk"', "\\sk\\", "sk\n\t123\x01", "schlüssel", "it's", "$1%I"],
)
def test_no_copy_of_a_secret_remains(app: Connection, secret: str) -> None:
    value = json.dumps({"token": secret, "in": [f"a {secret} b", {secret: 1}]})
    app.execute("select my_app.entity_set('ask-0', %s::jsonb, 'login')", [value])
    app.execute("select my_app.signal('ask-0', 'go', %s::jsonb)", [value])
    run(app, "A secret was stored", "create function")
    assert replaced(app, secret) == 0
    revoked = {"token": "revoked", "in": ["a revoked b", {"revoked": 1}]}
    copies = app.execute("""
        select my_app.entity_at('ask-0', version => 1, path => 'login'), context -> 'login', payload
          from my_app.inbox as i
          join my_app.jobs as j on j.id = i.job_id""").fetchone()
    assert copies == (revoked, revoked, revoked)
    assert app.execute("select * from my_app.assert_histories()").fetchall() == []


def test_what_remains_of_a_secret_is_counted(app: Connection) -> None:
    app.execute("""select my_app.signal('ask-0', 'sk"123', '"sk"')""")
    app.execute("""select my_app.entity_set('ask-0', '1', 'n', key => 'sk"123')""")
    run(app, "A secret was stored", "create function")
    assert replaced(app, 'sk"123') == 2


def replaced(app: Connection, secret: str) -> int:
    """Replace a secret of the first job. Returns how many rows contain it still."""
    call = "select pg_temp.replace_secret('ask-0', %s, 'revoked')"
    row = app.execute(call, [secret]).fetchone()
    assert row is not None
    return int(row[0])
