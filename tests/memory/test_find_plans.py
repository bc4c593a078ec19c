"""The indexes serve: at 200,000 jobs, what `find` runs and what people write uses them."""

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

# CLAIMS, as they stand.
C75 = """create index premium_agents on perdure.jobs (id)
 where entity = 'research-agent' and (context->>'isPremium')::boolean = true"""
C76 = """select id, context->>'status' as status, context->>'confidence' as confidence
  from perdure.jobs
 where entity = 'research-agent' and (context->>'isPremium')::boolean = true
   and (context->>'confidence')::numeric > 0.8"""


@pytest.fixture(scope="module")
def jobs(server: AnyServer, template: str) -> Iterator[Connection]:
    """Give a database of many jobs, with an index of each kind."""
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
    """Make an index of each kind as create_index() does, but analyze once."""
    asked = "select statements_to_create_index('research-agent', %s, %s, '')"
    if has_pgvector(connection):
        connection.execute("create extension vector schema public")
    for path, kind in PLACES:
        if kind.startswith("vector") and not has_pgvector(connection):
            continue
        for (statement,) in connection.execute(asked.encode(), [path, kind]).fetchall():
            if not statement.startswith("analyze"):
                connection.execute(statement.encode())
    connection.execute("analyze jobs")


def nodes(plan: Json) -> Iterator[Json]:
    """Walk a plan."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def plan_of(connection: Connection, query: str) -> list[Json]:
    """Run a query and give the nodes of its plan that ran."""
    row = connection.execute(f"explain (analyze, format json) {query}".encode()).fetchone()
    assert row is not None
    return [node for node in nodes(row[0][0]["Plan"]) if node["Actual Loops"] > 0]


def asked(connection: Connection, conditions: Json, *rest: Any) -> str:
    """Give the statement that find() runs."""
    given = [json.dumps(value) if isinstance(value, list) else value for value in rest]
    marks = ", ".join(["%s"] * (2 + len(given)))
    row = connection.execute(
        f"select find_query({marks})".encode(), ["research-agent", json.dumps(conditions), *given]
    ).fetchone()
    assert row is not None
    return str(row[0])


def index_of(connection: Connection, path: str, kind: str) -> str:
    """Name an index."""
    if kind.startswith("vector"):
        create_pgvector(connection)
    row = connection.execute(
        "select name from indexes where path = %s and kind = %s", [path, kind]
    ).fetchone()
    assert row is not None
    return str(row[0])


def used(plan: list[Json]) -> set[str]:
    """Name the indexes that a plan used; none may be read with a condition left to a filter."""
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
    """`find` and `count_found` read the rows that an index names, and no table (C73) (C74)."""
    plan = plan_of(jobs, asked(jobs, conditions))
    assert used(plan) == {index_of(jobs, path, kind)}
    assert not [node for node in plan if node["Node Type"] == "Seq Scan"]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    ("path", "kind"), [place for place in PLACES if place[1] in ("text", "number", "time")]
)
def test_an_order_uses_its_index(jobs: Connection, path: str, kind: str, descending: bool) -> None:
    """The first page and the thousandth read as many rows as they give (C73) (E12)."""
    order = [{"path": path, "as": kind, "descending": descending}]
    middle = jobs.execute(
        "select place from find('research-agent', '{\"$id\": \"agent-100003\"}', %s)",
        [json.dumps(order)],
    ).fetchone()
    assert middle is not None
    for after in (None, json.dumps(middle[0])):
        plan = plan_of(jobs, asked(jobs, {}, order, 10, after))
        scans = [node for node in plan if "Index Name" in node]
        assert used(plan) == {index_of(jobs, path, kind)}
        assert sum(node["Actual Rows"] * node["Actual Loops"] for node in scans) <= 20
        assert sum(node.get("Rows Removed by Filter", 0) for node in scans) == 0


def test_the_nearest_are_read_from_their_index(jobs: Connection) -> None:
    """The first page reads as many vectors as it gives, from PostgreSQL 17 on (C73) (E12)."""
    name = index_of(jobs, "embedding", "vector(2)")
    plan = plan_of(jobs, asked(jobs, {}, [{"path": "embedding", "near": [3, 4]}], 10))
    assert used(plan) == {name}
    assert sum(node["Actual Rows"] for node in plan if node.get("Index Name") == name) <= 50


def test_the_best_answers_are_read_from_their_index(jobs: Connection) -> None:
    """A search in the order of its answers reads what answers it, and no table (C73)."""
    order = [{"path": "notes", "search": "finding n1231"}]
    plan = plan_of(jobs, asked(jobs, {"notes": {"$search": "finding n1231"}}, order, 10))
    assert used(plan) == {index_of(jobs, "notes", "search")}
    assert not [node for node in plan if node["Node Type"] == "Seq Scan"]


def test_an_entity_is_found_by_itself(jobs: Connection) -> None:
    """Memories of a type need no index of their own to be listed (E12)."""
    plan = plan_of(jobs, asked(jobs, {}))
    assert used(plan) == {"jobs_of_an_entity"}
    assert max(node["Actual Rows"] for node in plan) == 100


def test_two_booleans_give_exactly_the_rows(jobs: Connection) -> None:
    """`find(entity, {isPremium: true, needsVerification: true})` returns exactly those (C74)."""
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
    """The statements of the README run as they stand and use the partial index (C75) (C76)."""
    jobs.execute(C75.encode())
    jobs.execute("analyze jobs")
    assert used(plan_of(jobs, C76)) == {"premium_agents"}
    rows = jobs.execute(C76.encode()).fetchall()
    agents = (i for i in range(1, JOBS + 1) if i % 4 and i % 50 == 1 and i % 3 < 2)
    wanted = {f"agent-{i}" for i in agents if i % 1000 > 800}
    assert {row[0] for row in rows} == wanted
    assert {row[1] for row in rows} == {f"s{i}" for i in range(801, 1000) if i % 50 == 1}
