"""Hooks from outside that are awaited there: a question to a job, and its answer."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import perdure

T = "30 s"

STICK = """
update tasks set stuck_reason = '{"message": "it is broken"}', due_at = 'infinity' where task = %s
"""


@dataclass
class Reply:
    """What a hook answers."""

    text: str
    seen: int


@pytest.fixture
def reply(app: perdure.App) -> Any:
    """Register a hook that answers from the memory, and counts in it."""

    @app.hook
    async def reply(memory: perdure.AsyncEntity, question: str) -> Reply:
        return Reply(question.upper(), await memory.increment("asked", 1))

    return reply


def test_who_asks_a_job_from_outside_gets_an_answer(
    client: perdure.Client, work: Any, reply: Any
) -> None:
    """(C41): in the type that the hook returns; where only a name is known, as stored."""
    work()
    client.create_entity("e", "note", {})
    handle = client.handle("e")
    assert handle.run_hook(reply, "what?", timeout=T) == Reply("WHAT?", 1)
    assert handle.run_hook("reply", "who?", timeout=T) == {"text": "WHO?", "seen": 2}
    task = handle.hook(reply, "when?")
    assert handle.hook_result(task, timeout=T) == {"text": "WHEN?", "seen": 3}
    assert handle.hook_result(task, reply, timeout=T) == Reply("WHEN?", 3)


@pytest.mark.parametrize("state", ["paused", "stuck", "late"])
def test_who_hears_no_answer_is_told_what_helps(
    client: perdure.Client, connection: psycopg.Connection[Any], reply: Any, state: str
) -> None:
    """[P8]: of a hook that is paused or stuck it said to wait longer, which never helps."""
    handle = client.start("some", id="e")
    connection.execute(STICK, [handle.hook(reply, "who?", key="another, which a status names")])
    task = handle.hook(reply, "what?", key="it")
    if state == "paused":
        handle.pause()
    elif state == "stuck":
        connection.execute(STICK, [task])
    with pytest.raises(perdure.ResultTimeout) as late:
        handle.hook_result(task, timeout=0)
    hint = "Wait longer" if state == "late" else "handle.resume()"
    assert hint in (late.value.hint or "")
    told = {"paused": "its job is paused", "stuck": "it is broken", "late": "a worker on queue"}
    assert told[state] in (late.value.detail or "")


def test_a_question_with_a_key_is_asked_once(client: perdure.Client, work: Any, reply: Any) -> None:
    """[P12]: whoever asks again, since he has not heard the answer, gets the same."""
    work()
    client.create_entity("e", "note", {})
    handle = client.handle("e")
    answers = [handle.run_hook(reply, "what?", key="q", timeout=T) for _ in range(2)]
    assert answers == [Reply("WHAT?", 1)] * 2
    assert handle.memory.get("asked") == 1


def test_a_hook_that_raises_raises_where_it_is_awaited(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """(C45): with its type and message."""

    @app.hook
    async def fails(memory: perdure.AsyncEntity) -> None:
        raise ValueError("no")

    work()
    client.create_entity("e", "note", {})
    with pytest.raises(perdure.HookFailed, match="ValueError: no") as raised:
        client.handle("e").run_hook(fails, timeout=T)
    assert "job e" in raised.value.__notes__[0]


def test_who_has_no_answer_in_time_is_told_so(client: perdure.Client, reply: Any) -> None:
    """Nobody serves it; it can be waited for again."""
    client.create_entity("e", "note", {})
    handle = client.handle("e")
    with pytest.raises(perdure.ResultTimeout, match=r"\$hook/q of job e"):
        handle.run_hook(reply, "what?", key="q", timeout=0.05)
    with pytest.raises(perdure.ResultTimeout):
        handle.hook_result("$hook/q", timeout=0)


def test_a_hook_that_is_not_there_has_no_answer(client: perdure.Client) -> None:
    """A name that is wrong is told at once, whatever the patience."""
    client.create_entity("e", "note", {})
    with pytest.raises(perdure.HookNotFound):
        client.handle("e").hook_result("$hook/nobody")
    with pytest.raises(perdure.JobNotFound):
        client.handle("nobody").hook_result("$hook/k")


def test_an_async_client_asks_many_at_once(client: perdure.Client, work: Any, reply: Any) -> None:
    """All wait on one connection."""
    work()
    client.create_entity("e", "note", {})

    async def main() -> list[Reply]:
        async with await perdure.connect_async(client.dsn) as other:
            asked = (other.handle("e").run_hook(reply, str(n), timeout=T) for n in range(9))
            return list(await asyncio.gather(*asked))

    answers = asyncio.run(main())
    assert [answer.text for answer in answers] == [str(n) for n in range(9)]
    assert sorted(answer.seen for answer in answers) == [*range(1, 10)]


@pytest.mark.direct("a hint makes it quick")
def test_who_waits_is_told_when_the_answer_is_there(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """By a hint, long before he would look again."""

    @app.hook
    async def slow(memory: perdure.AsyncEntity) -> float:
        await asyncio.sleep(2.5)
        return time.time()

    work()
    client.create_entity("e", "note", {})
    answered_at = client.handle("e").run_hook(slow, timeout=T)
    assert time.time() - answered_at < 0.5
