"""With 200,000 jobs, the statements of find() and those that users write are answered from
indexes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.servers import AnyServer, adopt
from tests.vectors import create_pgvector, has_pgvector

Connection = psycopg.Connection[Any]
Json = dict[str, Any]

JOBS = 200_000
NAME = "perdure_plans"
PLACES = (
    ("user.email", "text"),
    ("confidence", "number"),
    ("isPremium", "boolean"),
    ("seen_at", "time"),
    ("tags", "contains"),
    ("", "contains"),
    ("notes", "search"),
    ("embedding", "vector(2)"),
)

FILL = """
insert into jobs (id, entity, version, context)
select 'agent-' || i,
       case when i % 4 = 0 then 'other' else 'research-agent' end,
       1,
       jsonb_build_object(
           'isPremium', i % 50 = 1, 'needsVerification', i % 7 = 0,
           'confidence', case when i % 3 < 2 then i % 1000 / 1000.0 end, 'status', 's' || i % 1000,
           'seen_at', to_char(timestamp '2026-01-01' + i * interval '1 min',
                              'YYYY-MM-DD"T"HH24:MI"Z"'),
           'tags', jsonb_build_array('t' || i % 500),
           'notes', case when i % 10 = 1 then 'findings of the day, number n' || i % 2000 end,
           'embedding', case when i % 100 = 1 then jsonb_build_array(i % 777, i % 1000) end,
           'user', jsonb_build_object('email', 'u' || i || '@x.y'))
  from generate_series(1, 200000) as i
"""

# The statements of claims C75 and C76, word for word.
C75 = """create index premium_agents on perdure.jobs (id)
 where entity = 'research-agent' and (context->>'isPremium')::boolean = true"""
C76 = """select id, context->>'status' as status, context->>'confidence' as confidence
  from perdure.jobs
 where entity = 'research-agent' and (context->>'isPremium')::boolean = true
   and (context->>'confidence')::numeric > 0.8"""


@pytest.fixture(scope="module")
def jobs(server: AnyServer, template: str) -> Iterator[Connection]:
    """Give a connection to a database of many jobs, with an index of each kind."""
    database, source = sql.Identifier(NAME), sql.Identifier(template)
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(database))
        create = sql.SQL("create database {} template {} strategy file_copy")
        admin.execute(create.format(database, source))
        adopt(server.url(NAME))
        with psycopg.connect(server.url(NAME), autocommit=True) as connection:
            connection.execute("set search_path = pg_catalog, perdure")
            connection.execute("set maintenance_work_mem = '256MB'; set synchronous_commit = off")
            connection.execute("alter table jobs set (autovacuum_enabled = false)")
            connection.execute("alter table jobs disable trigger user")
            connection.execute(FILL)
            connection.execute("alter table jobs enable trigger user")
            make_indexes(connection)
            yield connection
        admin.execute(sql.SQL("drop database {} with (force)").format(database))


def make_indexes(connection: Connection) -> None:
    """Create an index of each kind as create_index() does, but analyze once."""
    statement_of_find = "select statements_to_create_index('research-agent', %s, %s, '')"
    if has_pgvector(connection):
        connection.execute("create extension vector schema public")
    for path, kind in PLACES:
        if kind.startswith("vector") and not has_pgvector(connection):
            continue
        for (statement,) in connection.execute(statement_of_find.encode(), [path, kind]).fetchall():
            if not statement.startswith("analyze"):
                connection.execute(statement.encode())
    connection.execute("analyze jobs")


def nodes(plan: Json) -> Iterator[Json]:
    """Yield all nodes of a plan."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def plan_of(connection: Connection, query: str) -> list[Json]:
    """Run a query and return the nodes of its plan that were executed."""
    row = connection.execute(f"explain (analyze, format json) {query}".encode()).fetchone()
    assert row is not None
    return [node for node in nodes(row[0][0]["Plan"]) if node["Actual Loops"] > 0]


def statement_of_find(connection: Connection, conditions: Json, *rest: Any) -> str:
    """Return the statement that find() runs."""
    given = [json.dumps(value) if isinstance(value, list) else value for value in rest]
    marks = ", ".join(["%s"] * (2 + len(given)))
    row = connection.execute(
        f"select find_query({marks})".encode(), ["research-agent", json.dumps(conditions), *given]
    ).fetchone()
    assert row is not None
    return str(row[0])


def index_of(connection: Connection, path: str, kind: str) -> str:
    """Return the name of an index."""
    if kind.startswith("vector"):
        create_pgvector(connection)
    row = connection.execute(
        "select name from indexes where path = %s and kind = %s", [path, kind]
    ).fetchone()
    assert row is not None
    return str(row[0])


def used_indexes(plan: list[Json]) -> set[str]:
    """Return the names of the indexes that a plan used."""
    return {node["Index Name"] for node in plan if "Index Name" in node}


CONDITIONS: list[tuple[str, str, Json]] = [
    ("user.email", "text", {"user.email": "u777@x.y"}),
    ("user.email", "text", {"user.email": {"$in": ["u1@x.y", "u2@x.y", "u3@x.y"]}}),
    ("user.email", "text", {"user.email": {"$gte": "u777@", "$lt": "u777A"}}),
    ("confidence", "number", {"confidence": 0.125}),
    ("confidence", "number", {"confidence": {"$gt": 0.998}}),
    ("isPremium", "boolean", {"isPremium": True, "needsVerification": True}),
    ("seen_at", "time", {"seen_at": {"$lt": {"$time": "2026-01-01T01:00:00Z"}}}),
    ("tags", "contains", {"tags": {"$contains": ["t7"]}}),
    ("", "contains", {"": {"$contains": {"user": {"email": "u77@x.y"}}}}),
    ("", "contains", {"": {"$match": '$.user.email == "u77@x.y" && $.tags[*] == "t77"'}}),
    ("notes", "search", {"notes": {"$search": "finding n1231"}}),
    ("user.email", "text", {"$or": [{"user.email": "u1@x.y"}, {"user.email": "u5@x.y"}]}),
]


@pytest.mark.parametrize(("path", "kind", "conditions"), CONDITIONS, ids=str)
def test_a_condition_uses_its_index(
    jobs: Connection, path: str, kind: str, conditions: Json
) -> None:
    """(C73) (C74) The plan uses only the index of the condition, and no sequential scan."""
    plan = plan_of(jobs, statement_of_find(jobs, conditions))
    assert used_indexes(plan) == {index_of(jobs, path, kind)}
    assert not [node for node in plan if node["Node Type"] == "Seq Scan"]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    ("path", "kind"), [place for place in PLACES if place[1] in ("text", "number", "time")]
)
def test_an_order_uses_its_index(jobs: Connection, path: str, kind: str, descending: bool) -> None:
    """(C73) (E12) The first page and one from the middle read at most twice the rows they
    return."""
    order = [{"path": path, "as": kind, "descending": descending}]
    middle = jobs.execute(
        "select place from find('research-agent', '{\"$id\": \"agent-100003\"}', %s)",
        [json.dumps(order)],
    ).fetchone()
    assert middle is not None
    for after in (None, json.dumps(middle[0])):
        plan = plan_of(jobs, statement_of_find(jobs, {}, order, 10, after))
        scans = [node for node in plan if "Index Name" in node]
        assert used_indexes(plan) == {index_of(jobs, path, kind)}
        assert sum(node["Actual Rows"] * node["Actual Loops"] for node in scans) <= 20
        assert sum(node.get("Rows Removed by Filter", 0) for node in scans) == 0


def test_nearest_vectors_are_read_from_the_vector_index(jobs: Connection) -> None:
    """(C73) (E12) The first page of 10 reads at most 50 vectors."""
    name = index_of(jobs, "embedding", "vector(2)")
    plan = plan_of(jobs, statement_of_find(jobs, {}, [{"path": "embedding", "near": [3, 4]}], 10))
    assert used_indexes(plan) == {name}
    assert sum(node["Actual Rows"] for node in plan if node.get("Index Name") == name) <= 50


def test_ranked_search_is_read_from_the_search_index(jobs: Connection) -> None:
    """(C73) A search ordered by rank uses its index, and no sequential scan."""
    order = [{"path": "notes", "search": "finding n1231"}]
    plan = plan_of(
        jobs, statement_of_find(jobs, {"notes": {"$search": "finding n1231"}}, order, 10)
    )
    assert used_indexes(plan) == {index_of(jobs, "notes", "search")}
    assert not [node for node in plan if node["Node Type"] == "Seq Scan"]


def test_memories_of_an_entity_are_listed_by_the_built_in_index(jobs: Connection) -> None:
    """(E12) Listing an entity needs no index of the user, and reads one page of rows."""
    plan = plan_of(jobs, statement_of_find(jobs, {}))
    assert used_indexes(plan) == {"jobs_of_an_entity"}
    assert max(node["Actual Rows"] for node in plan) == 100


def test_find_by_two_booleans_returns_exactly_the_matching_rows(jobs: Connection) -> None:
    """(C74) All pages together hold each matching row once, and the count agrees."""
    wanted = {f"agent-{i}" for i in range(1, JOBS + 1) if i % 4 and i % 50 == 1 and i % 7 == 0}
    conditions = {"isPremium": True, "needsVerification": True}
    got, after = [], None
    for _ in itertools.count():
        page = jobs.execute(
            "select id, place from find('research-agent', %s, '[]', 100, %s)",
            [json.dumps(conditions), after and json.dumps(after)],
        ).fetchall()
        got += [row[0] for row in page]
        if len(page) < 100:
            break
        after = page[-1][1]
    assert len(got) == len(set(got)) == len(wanted)
    assert set(got) == wanted
    count = jobs.execute("select count_found('research-agent', %s)", [json.dumps(conditions)])
    assert count.fetchone() == (len(wanted),)


def test_the_users_own_partial_index_is_used(jobs: Connection) -> None:
    """(C75) (C76) A partial index made by plain SQL serves a plain query, which returns the right
    rows."""
    jobs.execute(C75.encode())
    jobs.execute("analyze jobs")
    assert used_indexes(plan_of(jobs, C76)) == {"premium_agents"}
    rows = jobs.execute(C76.encode()).fetchall()
    agents = (i for i in range(1, JOBS + 1) if i % 4 and i % 50 == 1 and i % 3 < 2)
    wanted = {f"agent-{i}" for i in agents if i % 1000 > 800}
    assert {row[0] for row in rows} == wanted
    assert {row[1] for row in rows} == {f"s{i}" for i in range(801, 1000) if i % 50 == 1}
