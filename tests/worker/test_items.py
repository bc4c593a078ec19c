"""Items, end to end (E19): coordinators and hooks ask people, who list, claim and resolve items."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
import pytest

import perdure
from tests.worker.test_until import TWO_HOURS_LATER, run, wait_for

T = "40 s"
OPEN = "select exists (select from perdure.items where is_open)"
PARKED = "select bool_and(token is null and due_at > perdure.clock()) from perdure.tasks"


@dataclass
class Decision:
    """A decision of people."""

    approved: bool
    note: str = ""


# The same question in four places: each workflow returns the resolution, or "late".


def ask(limit: float | None) -> Any:
    """Ask; in async code this is to be awaited."""
    return perdure.ask_people("approve", {"n": 1}, assignee="finance", priority=2, timeout=limit)


def in_coordinator(app: perdure.App) -> Any:
    @app.coordinator
    async def asks(memory: perdure.AsyncEntity, limit: float | None) -> Any:
        try:
            return await ask(limit)
        except TimeoutError:
            return "late"

    return asks


def in_plain_coordinator(app: perdure.App) -> Any:
    @app.coordinator
    def asks(memory: perdure.Entity, limit: float | None) -> Any:
        try:
            return ask(limit)
        except TimeoutError:
            return "late"

    return asks


def in_hook(app: perdure.App) -> Any:
    @app.hook
    async def inquires(memory: perdure.AsyncEntity, limit: float | None) -> Any:
        try:
            return await ask(limit)
        except TimeoutError:
            return "late"

    return workflow_with(app, inquires)


def in_plain_hook(app: perdure.App) -> Any:
    @app.hook
    def inquires(memory: perdure.Entity, limit: float | None) -> Any:
        try:
            return ask(limit)
        except TimeoutError:
            return "late"

    return workflow_with(app, inquires)


def workflow_with(app: perdure.App, inquires: Any) -> Any:
    """Return a workflow that lets this hook ask."""

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity, limit: float | None) -> Any:
        return await inquires(memory, limit)

    return asks


PLACES = [in_coordinator, in_plain_coordinator, in_hook, in_plain_hook]


@pytest.fixture(params=PLACES, ids=lambda place: place.__name__)
def asks(request: pytest.FixtureRequest, app: perdure.App) -> Any:
    """A workflow that asks, in each of the four places."""
    return request.param(app)


def test_asker_gets_the_resolution_of_its_item(
    client: perdure.Client, dsn: str, work: Any, asks: Any
) -> None:
    """[P4] The item is listed as it was requested, and is resolved only once."""
    work()
    handle = client.start(asks, None)
    wait_for(dsn, OPEN)
    assert client.items(job=uuid4()) == []
    (item,) = client.items(assignee="finance", name="approve", job=handle.id)
    assert (item.job, item.payload, item.priority, item.status, item.expires_at) == (
        handle.id,
        {"n": 1},
        2,
        "unclaimed",
        None,
    )
    resolved = item.claim("jane").resolve({"ok": True}, by="jane")
    assert handle.result(T) == {"ok": True}
    assert (resolved.status, resolved.resolution, resolved.resolved_by) == (
        "resolved",
        {"ok": True},
        "jane",
    )
    assert client.item(item.id) == resolved
    assert item.resolve({"ok": True}, by="jane") == resolved  # [P12]
    with pytest.raises(perdure.ItemNotFound) as refused:
        item.resolve({"ok": False}, by="bob")
    assert "jane resolved it" in (refused.value.detail or "")


def test_resolution_wakes_a_parked_task(
    client: perdure.Client, dsn: str, work: Any, app: perdure.App, asks: Any
) -> None:
    """[P5] No worker runs while the item is resolved; the next one goes on with it."""
    with perdure.Worker(app, dsn=dsn):
        handle = client.start(asks, 3600)
        wait_for(dsn, OPEN)
    assert "people: approve" in "".join(
        row[0] or "" for row in run(dsn, "select waits_for from perdure.waiting")
    )
    client.items()[0].resolve("yes")
    work(cache=0)
    assert handle.result(T) == "yes"


def test_item_expires_at_its_timeout(
    client: perdure.Client, dsn: str, work: Any, asks: Any
) -> None:
    """[P7] After the timeout the item is no longer listed, and a late resolution is refused."""
    work()
    handle = client.start(asks, 0.5)
    wait_for(dsn, OPEN)
    (item,) = client.items()
    assert handle.result(T) == "late"
    assert client.items() == []
    with pytest.raises(perdure.ItemNotFound):
        item.resolve("yes")


@pytest.mark.parametrize("deadline", ["before it", "after it"])
def test_earlier_of_resolution_and_deadline_wins_when_both_are_seen_late(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, asks: Any, deadline: str
) -> None:
    """[P7] [P9] No worker runs meanwhile; a resolution after the deadline is refused."""
    with perdure.Worker(app, dsn=dsn):
        handle = client.start(asks, 3600)
        wait_for(dsn, OPEN)
    (item,) = client.items()
    if deadline == "after it":
        item.resolve("yes", by="jane")
    run(dsn, TWO_HOURS_LATER)
    if deadline == "before it":
        with pytest.raises(perdure.ItemNotFound):
            item.resolve("yes", by="jane")
    work(cache=0)

    assert handle.result(T) == ("yes" if deadline == "after it" else "late")
    assert client.items() == []


def test_cancel_withdraws_the_item(client: perdure.Client, dsn: str, work: Any, asks: Any) -> None:
    work()
    handle = client.start(asks, None)
    wait_for(dsn, OPEN)
    assert handle.cancel()
    with pytest.raises(perdure.JobCancelled):
        handle.result(T)
    wait_for(dsn, "select count(*) = 0 from perdure.tasks")  # hooks may take longer to clean up
    assert client.items() == []


def test_resolution_has_the_requested_type(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    @app.hook
    async def inquires(memory: perdure.AsyncEntity) -> str:
        decision: Decision = await perdure.ask_people("b", Decision(False), type=Decision)
        return decision.note

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        decision: Decision = await perdure.ask_people("a", type=Decision, timeout="1 d")
        return [decision.approved, decision.note, await inquires(memory)]

    work()
    handle = client.start(asks)
    for name in "ab":
        wait_for(dsn, f"select exists (select from perdure.items where name = '{name}')")
        (item,) = client.items(name=name)
        item.resolve(Decision(True, f"said {name}"), by="jane")
    assert item.payload == {"approved": False, "note": ""}
    assert handle.result(T) == [True, "said a", "said b"]


def test_first_of_several_people_decides(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        asked = [
            asyncio.ensure_future(perdure.ask_people("vote", assignee=who)) for who in ("a", "b")
        ]
        done, left = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        for each in left:
            each.cancel()
        return [each.result() for each in done]

    work()
    handle = client.start(asks)
    wait_for(dsn, "select count(*) = 2 from perdure.items")
    client.items(assignee="b")[0].resolve("b decides")
    assert handle.result(T) == ["b decides"]
    assert client.items() == []


def test_item_is_resolved_in_the_callers_transaction(
    client: perdure.Client, dsn: str, work: Any, asks: Any
) -> None:
    """A claim or resolution that is rolled back has no effect."""
    work()
    handle = client.start(asks, None)
    wait_for(dsn, OPEN)
    (item,) = client.items()
    with psycopg.connect(dsn) as connection:
        assert item.claim("jane", connection=connection).claimed_by == "jane"
        connection.rollback()
        item.resolve("no", by="bob", connection=connection)
        connection.rollback()
        item.resolve("yes", by="jane", connection=connection)
        connection.commit()
    assert handle.result(T) == "yes"


def test_items_are_paged_claimed_assigned_and_released(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    @app.coordinator
    async def asks(memory: perdure.AsyncEntity, many: int) -> Any:
        names = [f"n{n}" for n in range(many)]
        return await asyncio.gather(*(perdure.ask_people(name, priority=5) for name in names))

    work()
    handle = client.start(asks, 5)
    wait_for(dsn, "select count(*) = 5 from perdure.items")
    listed = client.items()
    pages, after = [], None
    while page := client.items(limit=2, after=after):
        pages += page
        after = page[-1].place
    assert pages == listed
    first = listed[0].claim("jane")
    with pytest.raises(perdure.ItemNotYours):
        first.resolve(by="bob")
    assert first.assign("legal").claimed_by is None
    assert [item.id for item in client.items(assignee="legal")] == [first.id]
    assert first.assign(None).assignee is None
    assert first.claim("bob").release("bob").status == "unclaimed"
    with pytest.raises(perdure.InvalidArgument):
        client.items(status="lost")
    with pytest.raises(perdure.ItemNotFound):
        client.item("nothing")
    for item in listed:
        item.resolve(item.name)
    assert handle.result(T) == [f"n{n}" for n in range(5)]
    assert len(client.items(status="resolved")) == 5


def test_async_client_claims_and_resolves_items(
    client: perdure.Client, dsn: str, work: Any, asks: Any
) -> None:
    work()
    handle = client.start(asks, None)
    wait_for(dsn, OPEN)

    async def decide() -> perdure.AsyncItem:
        async with await perdure.connect_async(dsn) as other:
            (item,) = await other.items(status="unclaimed")
            claimed = await item.claim("jane")
            assert await (await claimed.release()).assign("jane") == await other.item(item.id)
            return await item.resolve("yes", by="jane")

    assert asyncio.run(decide()).resolved_by == "jane"
    assert handle.result(T) == "yes"


def test_ask_people_is_rejected_outside_of_jobs() -> None:
    with pytest.raises(perdure.InvalidArgument):
        perdure.ask_people("approve")


def test_resolution_can_be_repeated_after_the_job_has_ended(
    client: perdure.Client, dsn: str, work: Any, asks: Any
) -> None:
    """[P12] A client that lost the reply gets the same item when it repeats the call."""
    work()
    handle = client.start(asks, None)
    wait_for(dsn, OPEN)
    (item,) = client.items()
    with psycopg.connect(dsn) as connection:
        items = [item.resolve("yes", by="jane", connection=connection)]
        connection.commit()
        assert handle.result(T) == "yes"
        began = time.monotonic()
        while client.handle(handle.id).status().finished_at is None:
            assert time.monotonic() - began < 10
        items.append(item.resolve("yes", by="jane", connection=connection))
    assert items[0] == items[1]
