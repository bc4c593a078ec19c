"""Code as users write it with clients and handles, plain and async. mypy checks it; nothing runs
it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, assert_type

import perdure

app = perdure.App()
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Review:
    stars: int


@app.coordinator(entity="research-agent")
async def research(memory: perdure.AsyncEntity, query: str) -> dict[str, Any]:
    return {"query": query}


@app.coordinator
def review(memory: perdure.Entity, text: str) -> Review:
    return Review(len(text))


@app.hook
async def reply(memory: perdure.AsyncEntity, text: str) -> Review:
    return Review(len(text))


@app.hook
def tidy(memory: perdure.Entity) -> None:
    memory.delete("notes")


recount = perdure.sql_hook("count reviews", int)


@app.coordinator
async def goes_on(memory: perdure.AsyncEntity) -> None:
    await perdure.sleep("1 h")


def plain(client: perdure.Client) -> None:
    handle = client.start("w", 1, id="j", connection=None)
    assert_type(handle, perdure.Handle)
    assert_type(client.signal_with_start("w", "j", "go"), perdure.Handle)
    assert_type(client.start_many("w", [{"id": "j"}]), list[perdure.Handle])
    assert_type(client.fork("j", at=12), perdure.Handle)
    assert_type(client.handle("j"), perdure.Handle)
    assert_type(client.entity("j"), perdure.Memory)
    assert_type(client.create_entity("e", "note", {}), perdure.Memory)
    assert_type(client.until("j", "$.n > 3", 1.5), int)
    assert_type(client.reseal("j"), int)
    assert_type(client.forget("j"), bool)
    assert_type(client.create_index("note", "n"), perdure.Index)
    assert_type(client.drop_index("note", "n"), bool)
    assert_type(client.create_schedule("w", "@hourly"), datetime | None)
    assert_type(client.item("i").resolve("yes"), perdure.Item)
    with client as opened:
        assert_type(opened, perdure.Client)
    client.fork("j", 12)  # type: ignore[arg-type]
    client.entity("j", None)  # type: ignore[call-arg]


def plain_handle(handle: perdure.Handle) -> None:
    assert_type(handle.id, str)
    assert_type(handle.memory, perdure.Memory)
    assert_type(handle.result(timeout="10 min"), Any)
    assert_type(handle.status(), perdure.Status)
    assert_type(handle.signal("go", {"n": 1}, key="k"), bool)
    assert_type(handle.stream("tokens", after=(1, 2)), perdure.Stream)
    assert_type(handle.cancel("why"), bool)
    assert_type(handle.cancel_hook("$hook/tidy"), bool)
    assert_type(handle.family(), list[perdure.Relative])
    assert_type(handle.children(), list[perdure.Handle])
    assert_type(handle.terminate(), bool)
    assert_type(handle.pause(), bool)
    assert_type(handle.resume(accept_changes=True), int)
    assert_type(handle.repin("2"), int)
    assert_type(handle.retry([1], timeout="2 h"), bool)
    assert_type(handle.timeline(), Iterator[perdure.TimelineItem])
    assert_type(handle.forget_old_runs(), int)
    assert_type(handle.hook("tidy", 1), str)
    assert_type(handle.run_hook("tidy", 1, timeout=1), Any)
    assert_type(handle.hook_result("$hook/k", timeout=1), Any)
    assert_type(handle.memory.watch("a"), Iterator[perdure.Change])
    handle.retry(5)  # type: ignore[arg-type]
    handle.signal("go", {}, "k")  # type: ignore[call-arg]


def plain_results(client: perdure.Client, some: perdure.Coordinator[..., Any]) -> None:
    handle = client.start(research, "subsidies", id="j", timeout="1 h")
    assert_type(handle, perdure.Handle[dict[str, Any]])
    assert_type(handle.result(timeout="10 min"), dict[str, Any])
    assert_type(client.start(review, "good").result().stars, int)
    assert_type(client.start(goes_on), perdure.Handle[None])
    assert_type(client.start(some), perdure.Handle[Any])
    assert_type(client.signal_with_start(review, "j", "go", 1, "good"), perdure.Handle[Review])
    assert_type(client.start_many(review, [{"args": ["good"]}]), list[perdure.Handle[Review]])
    assert_type(client.fork("j", workflow=research), perdure.Handle[dict[str, Any]])
    assert_type(client.handle("j", review).result(), Review)
    assert_type(client.trigger_schedule("nightly"), perdure.Handle[Any])
    assert_type(client.backfill_schedule("nightly", NEW_YEAR), list[perdure.Handle[Any]])
    assert_type(handle.children(), list[perdure.Handle[Any]])
    assert_type(handle.run_hook(reply, "good", timeout=1), Review)
    assert_type(handle.run_hook(tidy), None)
    assert_type(handle.run_hook(recount, add=1, key="k"), int)
    assert_type(handle.run_hook("reply", "good"), Any)
    assert_type(handle.hook_result("$hook/k", reply, timeout=1), Review)
    assert_type(handle.hook_result("$hook/k"), Any)
    handle.run_hook(review, "good")  # type: ignore[arg-type]
    of_any: perdure.Handle = client.start(review, "good")
    assert_type(of_any, perdure.Handle[Any])
    wider: perdure.Handle[object] = client.start(review, "good")
    named: perdure.Handle[Review] = client.start("review", "good")
    wrong: perdure.Handle[int] = client.start(review, "good")  # type: ignore[arg-type]
    print(client.handle("j", review).result().nothing)  # type: ignore[attr-defined]
    client.start(5)  # type: ignore[arg-type]
    client.start(review, workflow="review")  # type: ignore[misc]
    print(wider, named, wrong)


async def asynchronous(client: perdure.AsyncClient) -> None:
    handle = await client.start("w", 1, id="j", connection=None)
    assert_type(handle, perdure.AsyncHandle)
    starting: Coroutine[Any, Any, perdure.AsyncHandle] = client.start("w")
    assert_type(await starting, perdure.AsyncHandle)
    assert_type(await client.signal_with_start("w", "j", "go"), perdure.AsyncHandle)
    assert_type(await client.start_many("w", [{"id": "j"}]), list[perdure.AsyncHandle])
    assert_type(await client.fork("j", at=12), perdure.AsyncHandle)
    assert_type(client.handle("j"), perdure.AsyncHandle)
    assert_type(client.entity("j"), perdure.AsyncMemory)
    assert_type(await client.create_entity("e", "note", {}), perdure.AsyncMemory)
    assert_type(await client.until("j", "$.n > 3", 1.5), int)
    assert_type(await client.reseal("j"), int)
    assert_type(await client.forget("j"), bool)
    assert_type(await client.create_index("note", "n"), perdure.Index)
    assert_type(await client.drop_index("note", "n"), bool)
    assert_type(await client.create_schedule("w", "@hourly"), datetime | None)
    assert_type(await (await client.item("i")).resolve("yes"), perdure.AsyncItem)
    async with client as opened:
        assert_type(opened, perdure.AsyncClient)
    assert client.handle("j").status().version  # type: ignore[attr-defined]


async def asynchronous_handle(handle: perdure.AsyncHandle) -> None:
    assert_type(handle.id, str)
    assert_type(handle.memory, perdure.AsyncMemory)
    assert_type(await handle.result(timeout="10 min"), Any)
    assert_type(await handle.status(), perdure.Status)
    assert_type(await handle.signal("go", {"n": 1}, key="k"), bool)
    handle.signal("go")  # type: ignore[unused-coroutine]
    assert_type(handle.stream("tokens", after=(1, 2)), perdure.AsyncStream)
    assert_type(await handle.cancel("why"), bool)
    assert_type(await handle.cancel_hook("$hook/tidy"), bool)
    assert_type(await handle.family(), list[perdure.Relative])
    assert_type(await handle.children(), list[perdure.AsyncHandle])
    assert_type(await handle.terminate(), bool)
    assert_type(await handle.pause(), bool)
    assert_type(await handle.resume(accept_changes=True), int)
    assert_type(await handle.repin("2"), int)
    assert_type(await handle.retry([1], timeout="2 h"), bool)
    assert_type(handle.timeline(), AsyncGenerator[perdure.TimelineItem, None])
    assert_type(await handle.forget_old_runs(), int)
    assert_type(await handle.hook("tidy", 1), str)
    assert_type(handle.memory.watch("a"), AsyncGenerator[perdure.Change, None])
    async for item in handle.stream("tokens"):
        assert_type(item, perdure.StreamItem)


async def asynchronous_results(
    client: perdure.AsyncClient, some: perdure.Coordinator[..., Any]
) -> None:
    handle = await client.start(research, "subsidies", id="j", timeout="1 h")
    assert_type(handle, perdure.AsyncHandle[dict[str, Any]])
    assert_type(await handle.result(timeout="10 min"), dict[str, Any])
    assert_type((await (await client.start(review, "good")).result()).stars, int)
    assert_type(await client.start(some), perdure.AsyncHandle[Any])
    signalled = await client.signal_with_start(review, "j", "go", 1, "good")
    assert_type(signalled, perdure.AsyncHandle[Review])
    many = await client.start_many(review, [{"args": ["good"]}])
    assert_type(many, list[perdure.AsyncHandle[Review]])
    forked = await client.fork("j", workflow=research)
    assert_type(forked, perdure.AsyncHandle[dict[str, Any]])
    assert_type(await client.handle("j", review).result(), Review)
    assert_type(await handle.children(), list[perdure.AsyncHandle[Any]])
    assert_type(await handle.run_hook(reply, "good", timeout=1), Review)
    assert_type(await handle.run_hook(recount, add=1, key="k"), int)
    assert_type(await handle.run_hook("reply", "good"), Any)
    assert_type(await handle.hook_result("$hook/k", reply, timeout=1), Review)
    asking: Coroutine[Any, Any, Review] = handle.run_hook(reply, "good")
    handle.run_hook(review, "good")  # type: ignore[arg-type, unused-coroutine]
    print(handle.run_hook(reply, "good").stars)  # type: ignore[attr-defined]
    of_any: perdure.AsyncHandle = forked
    assert_type(await client.trigger_schedule("nightly"), perdure.AsyncHandle[Any])
    assert_type(
        await client.backfill_schedule("nightly", NEW_YEAR),
        list[perdure.AsyncHandle[Any]],
    )
    wrong: perdure.AsyncHandle[int] = await client.start(review)  # type: ignore[arg-type]
    print(client.handle("j", review).result().stars)  # type: ignore[attr-defined]
    print(of_any, wrong, await asking)
