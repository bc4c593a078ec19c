"""[P3] [P6] Claims whose commit does not wait for the disk, after a crash of the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

from perdure import Client, connect
from tests.databases import connected
from tests.storms.cluster import Cluster


@pytest.fixture
def lazy_disk(cluster: Cluster) -> Iterator[None]:
    """Let only commits that wait for the disk reach it, for ten seconds."""
    cluster.run("alter system set wal_writer_delay = '10s'")
    cluster.run("select pg_reload_conf()")
    yield
    cluster.run("alter system reset wal_writer_delay")
    cluster.run("select pg_reload_conf()")


@pytest.fixture
def client(cluster: Cluster, storm_database: str) -> Iterator[Client]:
    """Provide a client of a fresh database."""
    with connect(cluster.server.url(storm_database)) as client:
        yield client


def ask(cluster: Cluster, dbname: str, query: str, **values: Any) -> Any:
    """Call a verb in its own transaction; return its answer."""
    with connected(cluster.url(dbname)) as connection:
        row = connection.execute(query.encode(), values).fetchone()
        return None if row is None else row[0]


def claim(cluster: Cluster, dbname: str) -> dict[str, Any]:
    """Claim as workers do; return the only task, with its token."""
    query = "select claim('{default}', 'ada', %(id)s, durable => false)"
    answer = ask(cluster, dbname, query, id=uuid4())
    (task,) = answer["tasks"]
    return {name: task[name] for name in ("job", "task", "position")} | {"token": answer["token"]}


def held(cluster: Cluster, dbname: str) -> Any:
    """Return the token under which the only task is held."""
    return ask(cluster, dbname, "select token::text from tasks")


@pytest.mark.usefixtures("lazy_disk")
def test_crash_undoes_a_claim_without_recorded_facts(
    cluster: Cluster, storm_database: str, client: Client
) -> None:
    """The task is due again, the old holder is fenced, and another claim gets the task."""
    client.start("other", id="before", queue="other")
    ask(
        cluster, storm_database, "select claim('{other}', 'ada', durable => false)"
    )  # wakes the walwriter
    ask(cluster, storm_database, "select terminate('before')")
    client.start("work", id="job")
    lost = claim(cluster, storm_database)
    assert held(cluster, storm_database) == lost["token"]
    cluster.crash()
    assert held(cluster, storm_database) is None  # due again, as before the claim
    turn = Jsonb([lost | {"asked_before": 0, "state": "done", "value": 1}])
    answer = ask(cluster, storm_database, "select advance(%(turns)s)", turns=turn)
    assert [each["state"] for each in answer["turns"]] == ["fenced"]
    again = claim(cluster, storm_database)
    assert again["token"] != lost["token"]
    assert ask(cluster, storm_database, "select count(*) from assert_invariants()") == 0


@pytest.mark.usefixtures("lazy_disk")
def test_claim_with_recorded_facts_survives_a_crash(
    cluster: Cluster, storm_database: str, client: Client
) -> None:
    client.start("work", id="job")
    kept = claim(cluster, storm_database)
    fact = {"kind": "activity", "key": "step#1", "name": "step", "value": 1}
    turn = Jsonb([kept | {"asked_before": 0, "asked": 1, "state": "keep", "facts": [fact]}])
    answer = ask(cluster, storm_database, "select advance(%(turns)s)", turns=turn)
    assert [each["state"] for each in answer["turns"]] == ["keep"]
    cluster.crash()
    assert held(cluster, storm_database) == kept["token"]
    assert ask(cluster, storm_database, "select position from tasks") == 1
    assert ask(cluster, storm_database, "select count(*) from assert_invariants()") == 0
