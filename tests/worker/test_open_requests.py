"""Changed code is found out though what the old one had asked for has not answered yet. [P9]"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from tests.databases import UNHINTED
from tests.patience import wait_until

T = "40 s"
Serve = Callable[[perdure.App], perdure.Worker]


@pytest.fixture
def serve(dsn: str) -> Serve:
    """Give a function that makes a worker of some version of the code."""
    return lambda app: perdure.Worker(app, dsn=dsn, queues=["default", "far"], **UNHINTED)


def app_with(ask: Any) -> perdure.App:
    """Make a version of the code; what it asks for answers after a signal, or is resolved."""
    app = perdure.App()

    @app.hook
    async def slow(memory: perdure.AsyncEntity, who: str) -> str:
        await perdure.wait_for("go")
        return f"for {who}"

    @app.activity(queue="far")
    async def far(who: str) -> str:
        return f"for {who}"

    @app.coordinator
    async def kid(memory: perdure.AsyncEntity, who: str) -> str:
        await perdure.wait_for("go")
        return f"for {who}"

    @app.coordinator
    async def flow(memory: perdure.AsyncEntity) -> Any:
        return await ask(memory, {"slow": slow, "far": far, "kid": kid})

    return app


def gathered(*people: str) -> Any:
    """Ask for all people at once, in an order that a set might have."""

    async def ask(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        answers = await asyncio.gather(*(work["slow"](memory, who) for who in people))
        return dict(zip(people, answers, strict=True))

    return ask


def child(who: str) -> Any:
    async def ask(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        return await perdure.child(work["kid"], who)

    return ask


def until(name: str) -> Any:
    async def ask(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        return [name, await memory.until(f"$.{name} == 1")]

    return ask


def item(payload: str) -> Any:
    async def ask(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        return [payload, await perdure.ask_people("sign", payload)]

    return ask


def go(handle: Any, client: perdure.Client) -> None:
    for _ in "ab":
        handle.signal("go")


def go_child(handle: Any, client: perdure.Client) -> None:
    client.handle(f"{handle.id}/kid#1").signal("go")


def write(handle: Any, client: perdure.Client) -> None:
    handle.memory.set(1, "a")


def resolve(handle: Any, client: perdure.Client) -> None:
    next(iter(client.items())).resolve("yes")


def is_parked(connection: Any, handle: Any) -> bool:
    """Tell whether the coordinator has asked, and waits for nothing but answers."""
    query = "select token is null and awaits is not null from tasks where (job_id, task) = (%s, %s)"
    return bool(connection.execute(query, [handle.id, "1/main"]).fetchone()[0])


@pytest.mark.parametrize(
    ("old", "new", "answer", "result"),
    [
        (gathered("a", "b"), gathered("b", "a"), go, {"a": "for a", "b": "for b"}),
        (child("a"), child("b"), go_child, "for a"),
        (until("a"), until("b"), write, ["a", 1]),
        (item("a"), item("b"), resolve, ["a", "yes"]),
    ],
    ids=["hooks", "child", "until", "item"],
)
def test_an_answer_goes_to_nobody_who_asks_for_something_else_now(
    client: perdure.Client,
    serve: Serve,
    connection: Any,
    old: Any,
    new: Any,
    answer: Any,
    result: Any,
) -> None:
    with serve(app_with(old)):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    answer(handle, client)
    with serve(app_with(new)):
        wait_until(lambda: handle.status().stuck)
        assert "other arguments" in (handle.status().waiting_for or "")
    with serve(app_with(old)):
        assert handle.resume() == 1
        assert handle.result(T) == result


def test_changed_arguments_of_what_is_open_may_be_accepted(
    client: perdure.Client, serve: Serve, connection: Any
) -> None:
    with serve(app_with(item("a"))):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    resolve(handle, client)
    with serve(app_with(item("b"))):
        wait_until(lambda: handle.status().stuck)
        assert handle.resume(accept_changes=True) == 1
        assert handle.result(T) == ["b", "yes"]
