"""Indexes are built correctly beside writers, other builds, killed sessions and hostile
sessions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import perdure

Connection = psycopg.Connection[Any]
Connect = Callable[[], Connection]

PATIENCE = 30.0  # seconds

pytestmark = pytest.mark.direct("an index is built by a session")


@contextmanager
def open_write(connection: Connection) -> Iterator[None]:
    """Keep a transaction open that has written to jobs."""
    with connection.transaction():
        connection.execute("update jobs set updated_at = updated_at")
        yield


def state(connection: Connection) -> str:
    """Return the state of the only index, or "unwanted"."""
    row = connection.execute("select state from indexes").fetchone()
    return "unwanted" if row is None else str(row[0])


def wait_for(connection: Connection, wanted: str) -> None:
    """Wait until the only index is in the given state."""
    until = time.monotonic() + PATIENCE
    while (now := state(connection)) != wanted:
        assert time.monotonic() < until, f"the index is {now}, not {wanted}"
        time.sleep(0.01)


def kill_build(connection: Connection) -> None:
    """Kill the session that builds the index."""
    killed = connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_progress_create_index"
        " where datname = current_database()"
    ).fetchall()
    assert killed == [(True,)]


def build(connection: Connection) -> None:
    """Build an index with the statements of perdure, one by one, as psql can."""
    asked = "select statements_to_create_index('doc', 'v', 'number')"
    for (statement,) in connection.execute(asked.encode()).fetchall():
        connection.execute(statement.encode())


def test_indexes_of_one_entity_are_counted_one_session_at_a_time(connect: Connect) -> None:
    """(C73) Two sessions that want the last index would each count 64."""
    first, second = connect(), connect()
    want = "select statements_to_create_index('doc', %s)"
    for number in range(63):
        first.execute(want, [f"v{number}"])
    second.execute("set lock_timeout = '100 ms'")

    with first.transaction():
        first.execute(want, ["last"])
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute(want, ["beyond"])
    with pytest.raises(psycopg.Error) as refused:
        second.execute(want, ["beyond"])
    assert refused.value.sqlstate == "PD306"


def test_index_of_a_killed_build_is_invalid_and_built_again(
    client: perdure.Client, connect: Connect
) -> None:
    """(C73) The index is listed as invalid, and the next create_index() repairs it."""
    client.create_entity("one", "doc", {"v": 5})
    writer, builder, watcher = connect(), connect(), connect()
    with ThreadPoolExecutor(1) as pool:
        with open_write(writer):
            building = pool.submit(build, builder)
            wait_for(watcher, "building")
            kill_build(watcher)
            with pytest.raises(psycopg.OperationalError):
                building.result(PATIENCE)
        wait_for(watcher, "invalid")
    assert client.create_index("doc", "v", "number").state == "valid"
    assert [found.id for found in client.find("doc", {"v": 5})] == ["one"]
    assert [(index.path, index.state) for index in client.indexes()] == [("v", "valid")]


def test_invalid_index_is_built_again_by_the_sql_function(
    client: perdure.Client, connect: Connect
) -> None:
    """create_index() in SQL repairs what a client's build left when it could not get its lock."""
    client.create_entity("one", "doc", {"v": 5})
    writer, watcher = connect(), connect()
    with open_write(writer), pytest.raises(psycopg.errors.LockNotAvailable):
        client.create_index("doc", "v", "number", lock_timeout="100 ms")
    assert state(watcher) == "invalid"
    watcher.execute("select create_index('doc', 'v', 'number')")
    assert state(watcher) == "valid"


@pytest.mark.parametrize("limit", ["statement_timeout", "transaction_timeout"])
def test_time_limit_of_the_role_does_not_end_a_build(
    client: perdure.Client, connect: Connect, dsn: str, limit: str
) -> None:
    """Providers set such limits, and a build waits for transactions that began before it."""
    client.create_entity("one", "doc", {"v": 5})
    writer, watcher = connect(), connect()
    if watcher.execute("select from pg_settings where name = %s", [limit]).rowcount == 0:
        pytest.skip(f"this server has no {limit}")
    hasty = make_conninfo(dsn, options=f"-c {limit}=300ms")
    with perdure.connect(hasty, provision=False) as other, ThreadPoolExecutor(1) as pool:
        with open_write(writer):
            building = pool.submit(other.create_index, "doc", "v", "number")
            wait_for(watcher, "building")
            time.sleep(0.6)
        assert building.result(PATIENCE).state == "valid"
        with open_write(writer):
            dropping = pool.submit(other.drop_index, "doc", "v", "number")
            time.sleep(0.6)
            assert not dropping.done()
        assert dropping.result(PATIENCE) is True
    assert state(watcher) == "unwanted"


def test_second_build_of_an_index_waits_for_the_first(
    client: perdure.Client, connect: Connect
) -> None:
    """(C73) The second caller returns when the index is valid, though another session built it."""
    client.create_entity("one", "doc", {"v": 5})
    writer, builder, watcher = connect(), connect(), connect()
    with ThreadPoolExecutor(2) as pool:
        with open_write(writer):
            first = pool.submit(build, builder)
            wait_for(watcher, "building")
            second = pool.submit(client.create_index, "doc", "v", "number")
            time.sleep(0.2)
            assert not second.done()
        first.result(PATIENCE)
        assert second.result(PATIENCE).state == "valid"


def test_builds_on_one_table_at_the_same_time_all_succeed(dsn: str, connect: Connect) -> None:
    """(C73) Four clients build two indexes at once; each of them gets a valid index."""
    connect().execute("select entity_create('one', 'doc', '{\"v\": 5}')")
    together = threading.Barrier(4)

    def create(number: int) -> str:
        with perdure.connect(dsn, provision=False) as client:
            together.wait(PATIENCE)
            return client.create_index("doc", f"v{number % 2}", "number").state

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(create, range(4), timeout=60)) == ["valid"] * 4


def test_writes_succeed_and_are_indexed_while_an_index_is_built(
    client: perdure.Client, connect: Connect
) -> None:
    """(C73) No write waits long or fails, and the finished index holds all of them."""
    writer, reader = connect(), connect()
    for number in range(20):
        client.create_entity(f"e{number}", "doc", {"v": 0})
    stop = threading.Event()
    longest = 0.0

    def write() -> int:
        nonlocal longest
        written = 0
        while not stop.is_set():
            began = time.monotonic()
            writer.execute("select entity_increment(%s, 'v')", [f"e{written % 20}"])
            longest = max(longest, time.monotonic() - began)
            written += 1
        return written

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            for _ in range(3):
                assert client.create_index("doc", "v", "number").state == "valid"
                assert client.drop_index("doc", "v", "number") is True
            client.create_index("doc", "v", "number")
        finally:
            stop.set()
        written = writing.result(PATIENCE)
    reader.execute("set enable_seqscan = off; set enable_indexscan = off")
    found = reader.execute(
        "select id, context from find('doc', '{\"v\": {\"$gte\": 0}}')"
    ).fetchall()
    assert len(found) == 20
    assert sum(context["v"] for _, context in found) == written
    assert longest < 5.0


def test_session_settings_do_not_change_extracted_values(connect: Connect) -> None:
    """Otherwise an index would depend on the sessions that write to it."""
    odd, plain = connect(), connect()
    odd.execute("set standard_conforming_strings = off; set escape_string_warning = off")
    odd.execute("set timezone = 'Pacific/Kiritimati'; set datestyle = 'German, DMY'")
    odd.execute("set extra_float_digits = -15; set intervalstyle = 'sql_standard'")
    asked = """select array[written_time(time_at(d, '{t}')), text_at(d, '{s}'),
                            number_at(d, '{n}')::text, boolean_at(d, '{b}')::text]
                 from jsonb_build_object('t', '2024-02-29 23:30:00.5+05:30', 's', chr(92) || 'x',
                                         'n', 0.1, 'b', true) as d"""
    answer = plain.execute(asked.encode()).fetchone()
    assert answer == (["2024-02-29T18:00:00.5Z", "\\x", "0.1", "true"],)
    assert odd.execute(asked.encode()).fetchone() == answer


HOSTILE = """
create schema planted;
create function planted.caught(what anyelement) returns anyelement language plpgsql
as $$ begin raise exception 'what was planted is called'; end $$;
create function planted.jsonb_typeof(jsonb) returns text language sql
as $$ select planted.caught('string'::text) $$;
create function planted.text_at(jsonb, text[]) returns text language sql
as $$ select planted.caught('planted'::text) $$;
create function planted.left(text, integer) returns text language sql
as $$ select planted.caught('planted'::text) $$;
create function planted.at(jsonb, text[]) returns jsonb language sql
as $$ select planted.caught('1'::jsonb) $$;
create operator planted.#> (function = planted.at, leftarg = jsonb, rightarg = text[]);
set search_path = planted, pg_catalog
"""
"""Shadows what the extractors call, for sessions with `planted` first in their search path."""


def test_no_search_path_changes_what_an_index_holds(connect: Connect) -> None:
    """(S16) Neither the search path of a session that builds, renews or writes, nor the empty one
    of the server's maintenance, has an effect."""
    hostile, plain = connect(), connect()
    hostile.execute(HOSTILE.encode())
    with pytest.raises(psycopg.Error, match="what was planted is called"):
        hostile.execute("select '{}'::jsonb #> '{v}'::text[]")
    kinds = ["text", "number", "boolean", "time", "contains"]
    make = "select perdure.create_index('doc', 'v', k) from unnest(%s::text[]) as k"
    hostile.execute(make, [kinds])
    values = ['"2024-02-29T23:30:00Z"', "1", "true", '{"a": 1}']
    write = """insert into perdure.jobs (id, entity, version, context)
               values (gen_random_uuid()::text, 'doc', 1, jsonb_build_object('v', %s::jsonb))"""
    for value in values:
        hostile.execute(write, [value])
    for statement in ("reindex table", "analyze", "vacuum (full, analyze)"):
        hostile.execute(f"{statement} perdure.jobs".encode())
    plain.execute("set enable_seqscan = off")
    found = "select count_found('doc', jsonb_build_object('v', %s::jsonb))"
    assert [plain.execute(found, [value]).fetchone() for value in values] == [(1,)] * 4


def test_lock_timeout_beyond_the_limit_of_postgresql_is_rejected(client: perdure.Client) -> None:
    """PostgreSQL counts milliseconds in 32 bits, in which 24 days fit."""
    for verb in (client.create_index, client.drop_index):
        with pytest.raises(perdure.InvalidArgument, match="lock_timeout='30 d'") as refused:
            verb("note", "n", lock_timeout="30 d")
        assert refused.value.hint
        verb("note", "n", lock_timeout="24 d")
