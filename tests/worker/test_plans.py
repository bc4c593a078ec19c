"""Plans: no statement of a verb reads a whole table, whatever statistics the planner had.

The server may analyze tables while they are nearly empty. It then plans to read all of them, and a
session keeps such a plan while many jobs arrive.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]

GROWS = {"jobs", "tasks", "journal", "inbox", "snapshots", "conditions", "items", "listeners"}

EXPLAIN = """
load 'auto_explain';
set auto_explain.log_min_duration = 0;
set auto_explain.log_nested_statements = on;
set auto_explain.log_format = 'json';
set auto_explain.log_level = 'notice'
"""

JOBS = [f"j{number}" for number in range(30)]
ASKS = [
    {"key": "hook", "kind": "hook", "name": "h", "args": [], "queue": "q"},
    {"key": "gone", "kind": "hook", "name": "h", "args": [], "queue": "elsewhere"},
    {"key": "child", "kind": "job", "name": "w", "args": [], "queue": "q"},
    {"key": "until", "kind": "until", "condition": "$.n > 5"},
    {"key": "item", "kind": "item", "name": "approve", "payload": {}},
]
FACTS = [
    {"kind": "activity", "key": "a#1", "name": "a", "value": 1},
    {"kind": "command", "key": "i#1", "op": "increment", "path": ["n"], "value": 1},
]


def whole_tables(plan: dict[str, Any]) -> set[str]:
    """Name the growing tables that a plan reads as a whole."""
    found = set()
    table = plan.get("Relation Name")
    by_place = {"Index Cond", "TID Cond", "Recheck Cond"} & plan.keys()
    if table in GROWS and not by_place and "Scan" in plan["Node Type"]:
        found.add(str(table))
    for part in plan.get("Plans", []):
        found |= whole_tables(part)
    return found


def value_of(connection: Connection, statement: str, *values: Any) -> Any:
    """Execute a statement, and give the first value of its answer."""
    row = connection.execute(statement.encode(), values).fetchone()
    assert row is not None
    return row[0]


def turns(claimed: Any, **fields: Any) -> str:
    """Write turns of all claimed tasks, with these fields; each takes the messages of its task."""
    return json.dumps(
        [
            {"job": task["job"], "task": task["task"], "token": claimed["token"]}
            | {"position": task["position"], **fields}
            | ({"touches": [task["asker"]["job"]]} if task["asker"] else {})
            | (
                {"facts": taken}
                if (taken := taken_messages(task)) and "facts" not in fields
                else {}
            )
            for task in claimed["tasks"]
        ]
    )


def taken_messages(task: Any) -> list[dict[str, Any]]:
    """Give the facts that take the messages of a task."""
    return [
        {"kind": "answer" if message["key"] else "signal", "key": message["key"] or "s#1"}
        | {"message": message["id"]}
        for message in task["messages"]
    ]


def claim(connection: Connection) -> Any:
    return value_of(connection, "select claim('{q}', 'me', max_tasks => 500, idle => true)")


def advance(connection: Connection, claimed: Any, **fields: Any) -> Any:
    assert claimed["tasks"]
    answer = value_of(connection, "select advance(%s)", turns(claimed, **fields))
    states = {turn["state"] for turn in answer["turns"]}
    assert states <= {"keep", "parked", "done", "retry", "released", "cancelled"}, answer
    return answer


def live_through_all(connection: Connection) -> None:
    """Let jobs do everything that jobs can do, and forget them."""
    starts = [{"workflow": "w", "queue": "q", "id": job, "timeout": "1 d"} for job in JOBS]
    value_of(connection, "select count(*) from start_many(%s)", json.dumps(starts))
    value_of(connection, "select start('w', id => 'one', queue => 'q') is not null")
    held = claim(connection)
    advance(connection, held, state="keep", facts=FACTS)
    for task in held["tasks"]:
        task["position"] = 2
    lease = [{key: task[key] for key in ("job", "task")} for task in held["tasks"]]
    lease = [one | {"token": held["token"]} for one in lease]
    value_of(connection, "select extend(%s)", json.dumps(lease))
    advance(connection, held, state="retry")
    advance(connection, claim(connection), state="park", awaits=["go"], requests=ASKS)
    held = claim(connection)  # hooks and children
    hook = next(task for task in held["tasks"] if task["kind"] == "hook")
    held["tasks"].remove(hook)
    ended = [hook["job"], hook["task"], held["token"]]
    assert value_of(connection, "select finish_task(%s, %s, %s, '1')", *ended) == "done"
    advance(connection, held, state="done", value=1)
    for job in JOBS:
        value_of(connection, "select signal(%s, 'go', '1') is not null", job)
        value_of(connection, "select entity_set(%s, '9', 'n') is not null", job)
    held = claim(connection)
    answered = advance(connection, held, state="keep", awaits=["stop"], cancels=["item", "gone"])
    for task, turn in zip(held["tasks"], answered["turns"], strict=True):
        task["position"] += len(task["messages"])
        task["messages"] = turn.get("messages") or []  # what never began is cancelled at once
    advance(connection, held, state="park", awaits=["stop"])
    value_of(connection, "select cancel(%s) is not null", JOBS[0])
    value_of(connection, "select terminate(%s) is not null", JOBS[1])
    for job in JOBS[2:]:
        value_of(connection, "select signal(%s, 'stop') is not null", job)
    advance(connection, claim(connection), state="done", value=1)
    value_of(connection, "select hook('one', 'h', queue => 'q', key => 'asked')")
    answer = "select (hook_result('one', '$hook/asked')).status"
    assert value_of(connection, answer) == "running"
    advance(connection, claim(connection), state="done", value=1)
    assert value_of(connection, answer) == "completed"
    assert value_of(connection, "select forget_finished(clock() + interval '1 h')") > 30


@pytest.mark.parametrize("seen", ["nothing", "empty tables", "a few jobs", "many jobs"])
def test_no_verb_reads_a_whole_table(connect: Callable[[], Connection], seen: str) -> None:
    connection = connect()
    number = {"a few jobs": 5, "many jobs": 20_000}.get(seen, 0)
    others = json.dumps([{"workflow": "w", "queue": "other"}] * number)
    value_of(connection, "select count(*) from start_many(%s)", others)
    if seen != "nothing":
        connection.execute("vacuum analyze")
    found: dict[str, set[str]] = {}

    def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
        text = re.search(r"plan:\n(.*)", diagnostic.message_primary or "", re.DOTALL)
        plan = json.loads(text.group(1)) if text else {"Plan": {"Node Type": "None"}}
        for table in whole_tables(plan["Plan"]):
            found.setdefault(table, set()).add(" ".join(plan["Query Text"].split())[:200])

    for setting in EXPLAIN.split(";"):
        connection.execute(setting.encode())
    connection.add_notice_handler(notice)
    live_through_all(connection)
    assert found == {}
