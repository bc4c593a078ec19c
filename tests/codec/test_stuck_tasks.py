"""A task that is stuck, or was given back, shows its reason in plain text, without any value."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import perdure
from perdure.codecs import AesGcm
from tests.codec.programs import OLD, SECRET, Broken, codec, secret
from tests.codec.test_secrets import rows_with

T = "20 s"
Connection = psycopg.Connection[Any]
Code = Callable[..., Any]
Work = Callable[..., perdure.Worker]


def app_of(code: Code, given: Any = None) -> perdure.App:
    """Return an app whose coordinator `flow` runs this code."""
    app = perdure.App(codec=given or codec())
    app.coordinator(name="flow")(code)
    return app


async def first(memory: perdure.AsyncEntity, query: str) -> str:
    await memory.append("notes", query)
    await perdure.wait_for("go")
    return query


# Changed versions of `first`.


async def raises(memory: perdure.AsyncEntity, query: str) -> None:
    raise Broken(query)


async def raises_for_a_reason(memory: perdure.AsyncEntity, query: str) -> None:
    raise ExceptionGroup(query, [Broken(query)]) from Broken(query)


def plain_raises(memory: perdure.Entity, query: str) -> None:
    raise Broken(query)


async def returns(memory: perdure.AsyncEntity, query: str) -> str:
    return query


async def asks_otherwise(memory: perdure.AsyncEntity, query: str) -> None:
    await memory.append("notes", f"{query}, too")


async def asks_for_something_else(memory: perdure.AsyncEntity, query: str) -> None:
    await memory.set(query, "patient.name")


def until_waiting_for(job: perdure.Handle[Any], words: str) -> None:
    """Wait until the status of a job contains these words."""
    end = time.monotonic() + 20
    while words not in (said := job.status().waiting_for or ""):
        assert time.monotonic() < end, said
        time.sleep(0.02)


def shown(connection: Connection) -> list[str]:
    """Return the places where the secret can be read: in tables, or in views."""
    seen = rows_with(connection, SECRET)
    rows = connection.execute("select w::text from waiting as w").fetchall()
    rows += connection.execute("select s::text from jobs as j, status(j.id) as s").fetchall()
    return seen + [row for (row,) in rows if SECRET in row]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (raises, "the code raised Broken"),
        (raises_for_a_reason, "the code raised ExceptionGroup"),
        (plain_raises, "the code raised Broken"),
        (returns, "the code has finished"),
        (asks_otherwise, "other arguments"),
        (asks_for_something_else, "the code waits for command"),
    ],
)
def test_stuck_task_shows_no_value(
    connection: Connection, client: perdure.Client, work: Work, code: Code, words: str
) -> None:
    """[P9] [P10] The status says where code and journal differ; the holder of the key reads the
    details."""
    worker = work(app_of(first))
    job = client.start("flow", secret("query"), id="flow")
    until_waiting_for(job, "signal go")
    worker.stop()
    job.signal("go")
    work(app_of(code))
    until_waiting_for(job, words)
    assert shown(connection) == []
    tasks = [item.body["stuck_reason"] for item in job.timeline() if item.kind == "task"]
    told = [reason["traceback"] for reason in tasks if reason and "traceback" in reason]
    assert len(told) == 1
    assert (SECRET in told[0]) == ("raised" in words)


async def differs(query: str) -> None:
    raise perdure.NonDeterminism(query, detail=query, hint=query)


def test_nondeterminism_raised_by_user_code_shows_no_value(
    connection: Connection, client: perdure.Client, work: Work
) -> None:
    """[P10] User code may raise NonDeterminism, as an activity that replays recordings does; its
    texts are encrypted."""

    async def flow(memory: perdure.AsyncEntity, query: str) -> None:
        with pytest.raises(perdure.ActivityFailed, match=SECRET):
            await app.activities["differs"](query)
        with pytest.raises(perdure.HookFailed, match=SECRET):
            await app.hooks["differs_too"](memory, query)
        await differs(query)

    async def differs_too(memory: perdure.AsyncEntity, query: str) -> None:
        await differs(query)

    app = app_of(flow)
    app.activity(differs)
    app.hook(differs_too)
    work(app)
    with pytest.raises(perdure.JobFailed, match=SECRET):
        client.start("flow", secret("query")).result(timeout=T)
    assert shown(connection) == []


class Talkative(AesGcm):
    """A codec without its key, whose error contains a secret."""

    def decode(self, key: str, sealed: bytes, place: bytes) -> bytes:
        raise LookupError(secret("of a vault"))


def test_task_given_back_for_a_missing_key_shows_only_the_key_name(
    connection: Connection, client: perdure.Client, work: Work
) -> None:
    job = client.start("flow", secret("query"), id="flow")
    work(app_of(first, Talkative({"old": OLD}, "old")), lease=1)
    until_waiting_for(job, "the key 'old', which this codec does not know")
    assert shown(connection) == []
