"""Hooks that clients request and await: a question to a job, and its answer."""

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
    """The answer of a hook."""

    text: str
    seen: int


@pytest.fixture
def reply(app: perdure.App) -> Any:
    """A hook that answers, and counts its questions in the memory."""

    @app.hook
    async def reply(memory: perdure.AsyncEntity, question: str) -> Reply:
        return Reply(question.upper(), await memory.increment("asked", 1))

    return reply


def test_client_gets_the_answer_of_a_hook(client: perdure.Client, work: Any, reply: Any) -> None:
    """(C41) It has the type that the hook returns, or is as stored if only a name is given."""
    work()
    client.create_entity("e", "note", {})
    handle = client.handle("e")
    assert handle.run_hook(reply, "what?", timeout=T) == Reply("WHAT?", 1)
    assert handle.run_hook("reply", "who?", timeout=T) == {"text": "WHO?", "seen": 2}
    task = handle.hook(reply, "when?")
    assert handle.hook_result(task, timeout=T) == {"text": "WHEN?", "seen": 3}
    assert handle.hook_result(task, reply, timeout=T) == Reply("WHEN?", 3)


@pytest.mark.parametrize("state", ["paused", "stuck", "late"])
def test_timeout_of_an_answer_hints_at_what_helps(
    client: perdure.Client, connection: psycopg.Connection[Any], reply: Any, state: str
) -> None:
    """[P8] The hint is `handle.resume()` for a paused or stuck hook, where waiting is in vain."""
    handle = client.start("some", id="e")
    connection.execute(STICK, [handle.hook(reply, "who?", key="another, which a status names")])
    task = handle.hook(reply, "what?", key="it")
    if state == "late":
        connection.execute("select perdure.register_worker('busy', '{default}')")
    elif state == "paused":
        handle.pause()
    elif state == "stuck":
        connection.execute(STICK, [task])
    with pytest.raises(perdure.ResultTimeout) as late:
        handle.hook_result(task, timeout=0)
    hint = "Wait longer" if state == "late" else "handle.resume()"
    assert hint in (late.value.hint or "")
    reasons = {"paused": "its job is paused", "stuck": "it is broken", "late": "a worker on queue"}
    assert reasons[state] in (late.value.detail or "")


def test_hook_that_is_requested_twice_with_a_key_runs_once(
    client: perdure.Client, work: Any, reply: Any
) -> None:
    """[P12] A client that did not get the answer can ask again, and gets the same one."""
    work()
    client.create_entity("e", "note", {})
    handle = client.handle("e")
    answers = [handle.run_hook(reply, "what?", key="q", timeout=T) for _ in range(2)]
    assert answers == [Reply("WHAT?", 1)] * 2
    assert handle.memory.get("asked") == 1


def test_error_of_a_hook_is_raised_in_the_client(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """(C45) The error has the type and message of the original one, and names the job."""

    @app.hook
    async def fails(memory: perdure.AsyncEntity) -> None:
        raise ValueError("no")

    work()
    client.create_entity("e", "note", {})
    with pytest.raises(perdure.HookFailed, match="ValueError: no") as raised:
        client.handle("e").run_hook(fails, timeout=T)
    assert "job e" in raised.value.__notes__[0]


def test_wait_for_an_answer_times_out_and_can_be_repeated(
    client: perdure.Client, reply: Any
) -> None:
    """A client waits twice for a hook that no worker serves."""
    client.create_entity("e", "note", {})
    handle = client.handle("e")
    with pytest.raises(perdure.ResultTimeout, match=r"\$hook/q of job e"):
        handle.run_hook(reply, "what?", key="q", timeout=0.05)
    with pytest.raises(perdure.ResultTimeout):
        handle.hook_result("$hook/q", timeout=0)


def test_answer_of_an_unknown_hook_is_rejected_at_once(client: perdure.Client) -> None:
    """The wait ends at once, although it has no timeout."""
    client.create_entity("e", "note", {})
    with pytest.raises(perdure.HookNotFound):
        client.handle("e").hook_result("$hook/nobody")
    with pytest.raises(perdure.JobNotFound):
        client.handle("nobody").hook_result("$hook/k")


def test_async_client_asks_many_hooks_at_once(
    client: perdure.Client, work: Any, reply: Any
) -> None:
    work()
    client.create_entity("e", "note", {})

    async def main() -> list[Reply]:
        async with await perdure.connect_async(client.dsn) as other:
            asked = (other.handle("e").run_hook(reply, str(n), timeout=T) for n in range(9))
            return list(await asyncio.gather(*asked))

    answers = asyncio.run(main())
    assert [answer.text for answer in answers] == [str(n) for n in range(9)]
    assert sorted(answer.seen for answer in answers) == [*range(1, 10)]


@pytest.mark.direct("needs a hint to be quick")
def test_hint_announces_the_answer_of_a_hook(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """The client gets the answer long before it would poll again."""

    @app.hook
    async def slow(memory: perdure.AsyncEntity) -> float:
        await asyncio.sleep(2.5)
        return time.time()

    work()
    client.create_entity("e", "note", {})
    answered_at = client.handle("e").run_hook(slow, timeout=T)
    assert time.time() - answered_at < 0.5
