"""Indexes made while others write: builds that are killed, that wait, that meet each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import perdure

Connection = psycopg.Connection[Any]
Connect = Callable[[], Connection]

PATIENCE = 30.0  # seconds

pytestmark = pytest.mark.direct("an index is made by a session")


@pytest.fixture
def client(dsn: str) -> Iterator[perdure.Client]:
    """Give a client of the test's database."""
    with perdure.connect(dsn) as client:
        yield client


@contextmanager
def open_write(connection: Connection) -> Iterator[None]:
    """Keep a transaction open that has written a job."""
    with connection.transaction():
        connection.execute("update jobs set updated_at = updated_at")
        yield


def state(connection: Connection) -> str:
    """Tell the state of the only index."""
    row = connection.execute("select state from indexes").fetchone()
    return "unwanted" if row is None else str(row[0])


def wait_for(connection: Connection, wanted: str) -> None:
    """Wait until the only index is in a state."""
    until = time.monotonic() + PATIENCE
    while (now := state(connection)) != wanted:
        assert time.monotonic() < until, f"the index is {now}, not {wanted}"
        time.sleep(0.01)


def kill_build(connection: Connection) -> None:
    """Kill the session that builds."""
    killed = connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_progress_create_index"
        " where datname = current_database()"
    ).fetchall()
    assert killed == [(True,)]


def build(connection: Connection) -> None:
    """Build as psql does it with \\gexec."""
    asked = "select statements_to_create_index('doc', 'v', 'number')"
    for (statement,) in connection.execute(asked.encode()).fetchall():
        connection.execute(statement.encode())


def test_a_killed_build_is_found_and_made_again(client: perdure.Client, connect: Connect) -> None:
    """What a broken build leaves is told as invalid, and the next call repairs it (C73)."""
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


def test_an_invalid_index_is_made_again_inside_a_transaction_too(
    client: perdure.Client, connect: Connect
) -> None:
    client.create_entity("one", "doc", {"v": 5})
    writer, watcher = connect(), connect()
    with open_write(writer), pytest.raises(psycopg.errors.LockNotAvailable):
        client.create_index("doc", "v", "number", lock_timeout="100 ms")
    assert state(watcher) == "invalid"
    watcher.execute("select create_index('doc', 'v', 'number')")
    assert state(watcher) == "valid"


def test_a_build_waits_for_the_build_of_another(client: perdure.Client, connect: Connect) -> None:
    """The second caller returns when the index is valid, whoever made it (C73)."""
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


def test_clients_that_begin_together_end_together(dsn: str, connect: Connect) -> None:
    """Two builds on one table may get in each other's way; both callers get their index (C73)."""
    connect().execute("select entity_create('one', 'doc', '{\"v\": 5}')")
    together = threading.Barrier(4)

    def create(number: int) -> str:
        with perdure.connect(dsn, provision=False) as client:
            together.wait(PATIENCE)
            return client.create_index("doc", f"v{number % 2}", "number").state

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(create, range(4), timeout=60)) == ["valid"] * 4


def test_writers_go_on_beside_a_build(client: perdure.Client, connect: Connect) -> None:
    """No write waits for a build or fails by it, and none is missing in the index (C73)."""
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


def test_an_extractor_reads_alike_in_every_session(connect: Connect) -> None:
    """Settings of a session change no index row."""
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
"""Takes the place of what the extractors call, for whoever looks there first."""


def test_no_search_path_changes_what_an_index_holds(connect: Connect) -> None:
    """Neither that of who builds it, renews it or writes, nor that of a server which while it does
    maintenance finds nothing of the app (S16)."""
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


def test_a_wait_for_locks_that_postgresql_cannot_count_is_refused(client: perdure.Client) -> None:
    """It counts milliseconds in 32 bits, and said so in its own words, without a hint."""
    for verb in (client.create_index, client.drop_index):
        with pytest.raises(perdure.InvalidArgument, match="lock_timeout='30 d'") as refused:
            verb("note", "n", lock_timeout="30 d")
        assert refused.value.hint
        verb("note", "n", lock_timeout="24 d")
