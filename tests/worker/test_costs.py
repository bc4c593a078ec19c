"""The costs of verbs, mostly as counts that no noise of a machine changes: calls and pages."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median_low
from typing import Any

import psycopg
import pytest

import perdure
from perdure.clients import polling, waiting
from tests.amount import amount

Connection = psycopg.Connection[Any]

pytestmark = [
    pytest.mark.steady("it counts what is sent"),
    pytest.mark.direct("without hints more is sent"),
]

MANY = amount(50_000)
"""The number of sleeping jobs, and of finished jobs, beside the one that is measured."""

MOST_PAGES = {
    "start": 20,
    "claim": 30,
    "claim of two": 36,
    "command": 18,
    "signal": 22,
    "advance": 52,
}
"""Each claim takes one task, from one queue or from two, of which the other is empty."""

BESIDE = """
insert into jobs (id, workflow, status, finished_at, result)
select 'finished ' || n, 'other', 'completed', clock(), '1' from generate_series(1, %(many)s) as n;
insert into jobs (id, workflow, status, args)
select 'asleep ' || n, 'other', 'running', '[]' from generate_series(1, %(many)s) as n;
insert into tasks (job_id, task, kind, name, queue, due_at, until, awaits, started_at, last_token)
select j.id, '1/main', 'coordinator', 'other', 'default', clock() + interval '1 h',
       clock() + interval '1 h', '{}', clock(), gen_random_uuid()
  from jobs as j
 where j.status = 'running'
"""


@pytest.mark.parametrize("activities", [1, 10])
def test_k_activities_in_a_row_take_k_and_two_calls(
    app: perdure.App, client: perdure.Client, work: Any, sent: list[str], activities: int
) -> None:
    """(C1) They are `start()`, a claim, and one for each result; the last one ends the job."""

    @app.activity
    async def step(number: int) -> int:
        return number

    @app.coordinator
    async def chain(memory: perdure.AsyncEntity) -> int:
        return sum([await step(number) for number in range(activities)])

    work()
    client.start(chain).result("20 s")
    time.sleep(1.0)  # the worker has nothing left to poll for
    tries = []
    for _ in range(5):  # on a busy machine, the worker may poll once more during a turn
        sent.clear()
        assert client.start(chain).result("20 s") == sum(range(activities))
        time.sleep(0.2)
        tries.append(list(sent))
    assert ["claim", *["advance"] * activities] in tries


def test_result_takes_four_round_trips(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client waits in the server, requests a hint and looks, looks again, and after the hint
    looks and ends the request.

    A result that arrives while it waits in the server takes one round trip.
    """

    @app.coordinator
    async def slow(memory: perdure.AsyncEntity) -> int:
        await perdure.sleep(0.5)
        return 1

    trips: list[str] = []
    send, send_together = waiting.send, waiting.send_together

    def one(connection: Any, call: Any) -> Any:
        trips.append(call.function)
        return send(connection, call)

    def several(connection: Any, *calls: Any) -> list[Any]:
        trips.append(" ".join(call.function for call in calls))
        return send_together(connection, *calls)

    work()
    assert client.start(slow).result("20 s") == 1  # the client knows the channel now
    monkeypatch.setattr(waiting, "send", one)
    monkeypatch.setattr(waiting, "send_together", several)
    monkeypatch.setattr(waiting, "LADDER", ())
    monkeypatch.setattr(waiting, "FIRST_POLL", 20)
    assert client.start(slow).result("20 s") == 1
    looks_and_listens = ["await_result", "listen listen_for", "result"]
    assert trips == [*looks_and_listens, "result unlisten stop_listening"]

    trips.clear()
    monkeypatch.setattr(polling, "AT_THE_SERVER", 20)
    assert client.start(slow).result("20 s") == 1
    assert trips == ["await_result"]


def pages(connection: Connection, statement: str) -> int:
    """Count the pages that a statement touches, without those of its planning."""
    row = connection.execute(
        f"explain (analyze, buffers, format json) {statement}".encode()
    ).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def test_many_other_jobs_do_not_raise_the_costs_of_verbs(connect: Callable[[], Connection]) -> None:
    """(E1) Many sleeping and finished jobs cost the others nothing but a level of an index."""
    connection = connect()
    for statement in BESIDE.split(";"):
        connection.execute(statement.replace("%(many)s", str(MANY)).encode())
    for table in ("jobs", "tasks"):
        connection.execute(f"vacuum analyze {table}".encode())
    costs = defaultdict(list)
    for turn in range(6):
        job = f"measured {turn}"
        costs["start"].append(pages(connection, f"select start('w', id => '{job}')"))
        token = f"00000000-0000-4000-8000-{turn:012}"
        claim = f"select claim('{{default}}', 'me', '{token}')"
        costs["claim"].append(pages(connection, claim))
        costs["command"].append(pages(connection, f"select entity_set('{job}', '1', 'n')"))
        costs["signal"].append(pages(connection, f"select signal('{job}', 'go')"))
        done = {"job": job, "task": "1/main", "token": token, "position": 0, "state": "done"}
        costs["advance"].append(pages(connection, f"select advance('{json.dumps([done])}')"))
    for _ in range(6):
        connection.execute("select start('w')")
        claim = "select claim('{default,$sql}', 'me')"
        costs["claim of two"].append(pages(connection, claim))
    # The first call makes plans and reads the catalogue; one of the others may split a page.
    usual = {verb: median_low(each[1:]) for verb, each in costs.items()}
    excess = {verb: cost for verb, cost in usual.items() if cost > MOST_PAGES[verb]}
    assert excess == {}


CHILDREN = """
insert into jobs (id, workflow, status, finished_at, result, parent, asked_as, on_parent_end)
select 'j/c' || n, 'w', 'completed', clock(), '1', 'j', '1/main/c' || n, 'cancel'
  from generate_series(1, 5000) as n
"""


def test_turn_that_cancels_does_not_read_finished_children(
    connect: Callable[[], Connection],
) -> None:
    """A turn looks up only the children that it cancels, not all children of the job."""
    connection = connect()
    connection.execute("select start('w', id => 'j')")
    row = connection.execute("select claim('{default}', 'me')").fetchone()
    assert row is not None
    keep = {"job": "j", "task": "1/main", "token": row[0]["token"], "position": 0, "state": "keep"}
    turn = f"select advance('{json.dumps([keep | {'cancels': ['u#1', 'c1']}])}')"
    costs = [pages(connection, turn) for _ in range(3)]
    connection.execute(CHILDREN)
    costs.append(pages(connection, turn))
    assert costs[-1] <= costs[-2] + 10


def finish(connection: Connection, number: int) -> None:
    """Start jobs, and finish them."""
    for _ in range(number // 500):
        starts = json.dumps([{"workflow": "w"}] * 500)
        connection.execute("select count(*) from start_many(%s)", [starts])
        row = connection.execute("select claim('{default}', 'me', max_tasks => 500)").fetchone()
        assert row is not None
        held = {"token": row[0]["token"], "position": 0, "state": "done"}
        turns = [{"job": task["job"], "task": task["task"]} | held for task in row[0]["tasks"]]
        connection.execute("select advance(%s)", [json.dumps(turns)])


def test_claim_above_its_mark_skips_rows_that_an_old_snapshot_keeps(
    connect: Callable[[], Connection],
) -> None:
    """Dead rows from before the mark stay at the head of the index, but are not read."""
    connection, old = connect(), connect()
    old.execute("begin isolation level repeatable read")
    old.execute("select from jobs")
    costs = []
    for _ in range(2):
        finish(connection, 4_000)
        row = connection.execute("select clock()").fetchone()
        connection.execute("select start('w') from generate_series(1, 3)")
        claim = f"select claim('{{default,$sql}}', 'me', since => '{row and row[0]}')"
        costs.append([pages(connection, claim) for _ in range(3)][-1])
    assert costs[1] <= costs[0] + 4 < 90


def test_claim_reads_few_pages_with_statistics_of_an_empty_table(
    connect: Callable[[], Connection],
) -> None:
    """The server often analyzes the table while it is nearly empty, before much work arrives."""
    connection = connect()
    connection.execute("vacuum analyze tasks")
    starts = json.dumps([{"workflow": "w"}] * 5_000)
    connection.execute("select claim('{default}', 'me')")  # the plans are made
    connection.execute("select count(*) from start_many(%s)", [starts])
    claim = "select claim('{default,$sql}', 'me')"
    assert [pages(connection, claim) for _ in range(3)][-1] <= MOST_PAGES["claim of two"]


OPEN = """
insert into tasks (job_id, task, kind, name, queue, due_at, asker_job, asker_task, asker_key)
select 'j', '1/main/h#' || n, 'hook', 'h', 'other', clock(), 'j', '1/main', 'h#' || n
  from generate_series(1, %s) as n
"""


def test_many_hooks_are_withdrawn_almost_as_fast_as_kept(connect: Callable[[], Connection]) -> None:
    """To check 10,000 withdrawn hooks takes less than four times as long as to check 10,000 open
    ones.

    The job is locked meanwhile, so no hook may be searched for in a list of all.
    """
    connection, many = connect(), 10_000
    connection.execute("select start('w', id => 'j')")
    connection.execute(OPEN, [many])
    keys = [f"h#{n}" for n in range(1, many + 1)]
    bodies: list[Any] = [
        {"open": dict.fromkeys(keys), "cancels": []},
        {"open": {}, "cancels": keys},
    ]
    fastest = []
    for each in bodies:
        turn = json.dumps({"job": "j", "task": "1/main", "state": "keep"} | each)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            row = connection.execute("select open_failure(%s::jsonb)", [turn]).fetchone()
            times.append(time.perf_counter() - began)
            assert row == (None,)
        fastest.append(min(times))
    assert fastest[1] < 4 * fastest[0]
