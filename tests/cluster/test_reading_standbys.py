"""(T13) Reading and waiting at a standby, where no client can register as a listener."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import perdure
from perdure.cli import terminal
from tests.cluster.machines import Machine, dsn_of, wait_for

SOON, T = 10.0, "15 s"
"""Seconds until commits of the primary are seen at the standby, even on a busy machine."""


@pytest.fixture
def written(primary: Machine, standby: Machine) -> Iterator[psycopg.Connection[Any]]:
    """Provide a connection to the primary, whose job and memory the standby has."""
    with primary.connect() as connection:
        connection.execute("select perdure.start('w', id => 'job')")
        connection.execute("select perdure.entity_create('note', 'note', '{}')")
        with standby.connect() as follower:
            note = "select from perdure.jobs where id = 'note'"
            wait_for(lambda: follower.execute(note).rowcount == 1)
        yield connection


def reading(standby: Machine) -> dict[str, Any]:
    """Return the options of a client that only reads."""
    return {"dsn": make_conninfo(standby.url(), target_session_attrs="any"), "provision": False}


def plainly(options: dict[str, Any]) -> list[Any]:
    """Make every kind of wait."""
    with perdure.connect(**options) as client:
        waits: list[Callable[[], Any]] = [
            lambda: client.entity("note").until("$.n == 1", timeout=T) > 0,
            lambda: [item.item for item in client.handle("job").stream("words", timeout=T)],
            lambda: client.handle("job").result(T),
        ]
        with ThreadPoolExecutor() as threads:
            return list(threads.map(lambda wait: wait(), waits))


async def in_async_code(options: dict[str, Any]) -> list[Any]:
    """Make the same waits with an async client."""
    async with await perdure.connect_async(**options) as client:

        async def words() -> list[Any]:
            stream = client.handle("job").stream("words", timeout=T)
            return [item.item async for item in stream]

        async def is_one() -> bool:
            return await client.entity("note").until("$.n == 1", timeout=T) > 0

        return await asyncio.gather(is_one(), words(), client.handle("job").result(T))


def finish(connection: psycopg.Connection[Any]) -> None:
    """Write as a caller and a worker do, and end the job."""
    token = str(uuid.uuid4())
    turn = {"job": "job", "task": "1/main", "token": token, "position": 0, "state": "done"}
    connection.execute("select perdure.entity_set('note', '1', 'n')")
    connection.execute("select perdure.entity_log('job', 'words', '[\"one\"]')")
    connection.execute("select perdure.claim('{default}', 'me', %s::uuid)", [token])
    connection.execute("select perdure.advance(%s)", [json.dumps([turn | {"value": "whole"}])])


@pytest.mark.parametrize(
    "wait", [plainly, lambda options: asyncio.run(in_async_code(options))], ids=["plain", "async"]
)
def test_waits_at_a_standby_see_later_commits(
    standby: Machine, written: psycopg.Connection[Any], wait: Callable[[dict[str, Any]], list[Any]]
) -> None:
    """until(), stream() and result() poll at a standby, which refuses to register a listener."""
    with ThreadPoolExecutor() as threads:
        told = threads.submit(wait, reading(standby))
        time.sleep(0.5)  # until each wait has read once
        finish(written)
        assert told.result(SOON) == [True, ["one"], "whole"]


def test_waits_at_a_standby_time_out(standby: Machine, written: Any) -> None:
    with perdure.connect(**reading(standby)) as client:
        began = time.monotonic()
        with pytest.raises(perdure.ResultTimeout):
            client.handle("job").result(1)
        assert time.monotonic() - began < SOON
        with pytest.raises(TimeoutError):
            client.entity("note").until("$.n == 2", timeout=1)


@pytest.mark.parametrize(
    "call",
    [
        "listen_for('$job/job', 'me')",
        "stop_listening('me')",
        "entity_watch('note', 'me')",
        "register_worker('me', '{default}')",
        "claim('{default}', 'me', idle => true)",
        "start('w')",
    ],
)
def test_standby_refuses_to_write_and_to_listen(standby: Machine, written: Any, call: str) -> None:
    """A client that knows this code connects to the primary."""
    written.execute("select perdure.entity_watch('note', 'other')")
    with standby.connect() as follower, pytest.raises(psycopg.Error) as refused:
        follower.execute(f"select perdure.{call}".encode())
    assert refused.value.sqlstate == "25006"


def test_command_with_several_hosts_goes_to_the_one_that_accepts_writes(
    primary: Machine, standby: Machine
) -> None:
    """Otherwise `perdure install` and `adopt` are refused if the first host is a standby."""
    with terminal.connected(dsn_of([standby, primary]), "perdure") as connection:
        assert connection.execute("select pg_is_in_recovery()").fetchone() == (False,)


def test_command_checks_a_standby_that_is_asked_for(standby: Machine, written: Any) -> None:
    dsn = make_conninfo(standby.url(), target_session_attrs="any")
    with terminal.connected(dsn, "perdure") as connection:
        assert connection.execute("select from perdure.assert_invariants()").rowcount == 0
