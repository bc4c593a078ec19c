"""Many tasks wait under one key: a claim reads as much as it takes, not as much as waits. (E13)"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[Any]

CROWD = 10_000
EXPLAIN = b"""
explain (analyze, buffers, timing off, format json) select claim('{q}', 'a', max_tasks => %s)"""


def start(connection: Connection, amount: int, name: str, **options: Any) -> None:
    """Start jobs of the queue."""
    starts = [
        {"id": f"{name} {n}", "workflow": "w", "queue": "q", "limit_key": name} | options
        for n in range(amount)
    ]
    connection.execute("select count(*) from start_many(%s)", [Jsonb(starts)])


def pages_of_a_claim(connection: Connection, max_tasks: int) -> int:
    """Count the pages that a claim touches."""
    row = connection.execute(EXPLAIN, [max_tasks]).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def test_claim_does_not_read_keys_that_wait_for_token(connection: Connection) -> None:
    """Ten thousand keys stand in line, and few of them have a token."""
    connection.execute("select set_queue('q', rate_per_key => 0.001)")
    starts = [{"workflow": "w", "queue": "q", "limit_key": f"k{n}"} for n in range(CROWD)]
    connection.execute("select count(*) from start_many(%s)", [Jsonb(starts)])
    connection.execute("""insert into key_tokens
        select 'q', limit_key, 0, clock(), clock() + interval '1000 s' from tasks""")
    claimed = connection.execute("""
        select sum(json_array_length(claim('{q}', 'a') -> 'tasks')) from generate_series(1, 10)""")
    assert claimed.fetchone() == (0,)
    connection.execute("vacuum tasks, lines, key_tokens")
    none = min(pages_of_a_claim(connection, 100) for _ in range(3))
    connection.execute("update key_tokens set tokens = 1 where limit_key like 'k500_'")
    connection.execute("update lines set turn_at = clock() where limit_key like 'k500_'")
    one = min(pages_of_a_claim(connection, 1) for _ in range(5))  # the first one plans
    rest = pages_of_a_claim(connection, 100)

    query = "select count(*) from tasks where token is not null and limit_key like 'k500_'"
    assert connection.execute(query).fetchone() == (10,)
    assert max(none, one) < 300
    assert rest < 1000


@pytest.mark.parametrize("limits", ["max_per_key => 2", "max_running => 2"])
def test_claim_does_not_read_tasks_that_wait_for_slot(connection: Connection, limits: str) -> None:
    connection.execute(f"select set_queue('q', {limits})".encode())
    for _ in range(CROWD // 1000):
        start(connection, 1000, "crowd", id=None)
    connection.execute("select claim('{q}', 'a', max_tasks => 100) from generate_series(1, 15)")
    for n in range(30):
        start(connection, 1, f"other {n}")
    pages_of_a_claim(connection, 1)  # queues the tasks that were started since the last claim
    connection.execute("vacuum tasks")
    few = min(pages_of_a_claim(connection, 1) for _ in range(5))  # a claim may skip dead rows
    many = pages_of_a_claim(connection, 100)
    none = pages_of_a_claim(connection, 100)
    connection.execute("analyze")

    row = connection.execute("select count(*) from tasks where token is not null").fetchone()
    assert row == ((2 + 30,) if "key" in limits else (2,))
    assert max(few, none) < 500
    assert many < 3000


def test_claim_does_not_count_held_tasks_without_a_limit_of_slots(connection: Connection) -> None:
    """Of a queue that has only a rate per key, however many tasks of the key are held."""
    rates = "rate_per_key => 1000000, burst_per_key => 1000000"
    connection.execute(f"select set_queue('q', {rates})".encode())
    for _ in range(CROWD // 1000):
        start(connection, 1000, "crowd", id=None)
    connection.execute("select claim('{q}', 'a', max_tasks => 1000) from generate_series(1, 9)")
    connection.execute("vacuum tasks, jobs, lines, key_tokens")

    assert min(pages_of_a_claim(connection, 1) for _ in range(5)) < 200
