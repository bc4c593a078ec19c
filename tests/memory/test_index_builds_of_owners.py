"""An ordinary owner builds indexes as a superuser does, although it is shown less of the server.

The owner logs in through a member of its role, as `sql/security.md` recommends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import perdure
from perdure.embedded.server import Server
from perdure.installation.install import install

Connection = psycopg.Connection[Any]

PATIENCE = 30.0  # seconds

SLOW_AUTOVACUUM = """
alter table my_app.jobs set (autovacuum_vacuum_threshold = 10, autovacuum_vacuum_scale_factor = 0,
                             autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)
"""
AUTOVACUUM = """
select from pg_locks as l join pg_stat_activity as a on a.pid = l.pid
 where l.relation = 'my_app.jobs'::regclass and a.backend_type = 'autovacuum worker'
"""


@pytest.fixture
def server() -> Iterator[Server]:
    """Give a server whose autovacuum often looks for work."""
    with Server(settings={"autovacuum_naptime": "1s"}) as server:
        yield server


@pytest.fixture
def admin(server: Server) -> Iterator[Connection]:
    """Give a connection of the superuser, which has made the owner and its member."""
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute("create role owner; create role deploy login in role owner")
        admin.execute("grant create on database postgres to owner")
        yield admin


@pytest.fixture
def dsn(server: Server, admin: Connection) -> str:
    """Give the connection string of the owner of an app with many memories."""
    dsn = make_conninfo(server.url(), user="deploy", options="-c role=owner")
    with psycopg.connect(dsn, autocommit=True) as owner:
        install(owner, "my_app")
        owner.execute("""
            select count(my_app.entity_create(number::text, 'doc', '{"v": 5}'))
              from generate_series(1, 2000) as number""")
    return dsn


def wait_until(is_so: Callable[[], Any]) -> None:
    """Wait until a condition is true."""
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_build_does_not_wait_for_autovacuum(dsn: str, admin: Connection) -> None:
    """Autovacuum gives way to whoever waits for its table; for a large one it may take hours."""
    admin.execute(SLOW_AUTOVACUUM)
    admin.execute("update my_app.jobs set updated_at = updated_at")
    wait_until(lambda: admin.execute(AUTOVACUUM).rowcount)
    with perdure.connect(dsn, schema="my_app", provision=False) as client:
        began = time.monotonic()
        assert client.create_index("doc", "v", "number").state == "valid"
        assert time.monotonic() - began < 10


def test_index_that_a_member_of_the_owner_builds_is_not_called_invalid(
    dsn: str, admin: Connection
) -> None:
    """Or others would be told to drop it."""
    asked = "select count(*) from my_app.statements_to_create_index('doc', 'v', 'number')"
    states = "select state from my_app.indexes"
    with (
        perdure.connect(dsn, schema="my_app", provision=False) as client,
        psycopg.connect(dsn, autocommit=True) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        with admin.transaction():
            admin.execute("update my_app.jobs set updated_at = updated_at where id = '1'")
            building = pool.submit(client.create_index, "doc", "v", "number")
            wait_until(lambda: other.execute(states).fetchall() not in ([], [("missing",)]))
            assert other.execute(states).fetchall() == [("building",)]
            assert other.execute(asked).fetchall() == [(0,)]
        assert building.result(PATIENCE).state == "valid"
