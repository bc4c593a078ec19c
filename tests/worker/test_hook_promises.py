"""Promises of hooks: they run on any queue, in any number, call each other, and use the memory."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import psycopg
import pytest

import perdure
from perdure.database.clock import Clock

T = "60 s"
MANY, BOUND = 1000, 25


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
def test_one_slot_is_enough_for_a_coordinator_and_hooks_of_hooks(
    app: perdure.App, client: perdure.Client, work: Any, is_async: bool
) -> None:
    """(C49) A task that waits for a hook holds no slot."""

    @app.hook(name="depth")
    async def depth(memory: perdure.AsyncEntity, left: int) -> int:
        return 0 if not left else 1 + await depth(memory, left - 1)

    @app.hook(name="plain depth")
    def plain_depth(memory: perdure.Entity, left: int) -> int:
        return 0 if not left else 1 + plain_depth(memory, left - 1)

    @app.coordinator
    async def coordinator(memory: perdure.AsyncEntity) -> list[int]:
        hook = depth if is_async else plain_depth
        return await asyncio.gather(*(hook(memory, left) for left in (3, 2)))

    work(slots=1)
    assert client.start(coordinator).result(T) == [3, 2]


def test_hooks_answer_with_signal_names_made_in_a_loop(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """(C48) (C51) (C46) Each of several calls in a row gets the answer sent under its own name."""

    @app.hook
    async def check(memory: perdure.AsyncEntity, part: str) -> None:
        name = perdure.info().signal
        assert name is not None
        await memory.signal(name, f"{part} is fine")

    @app.coordinator
    async def validate(memory: perdure.AsyncEntity, parts: list[str]) -> list[str]:
        return [
            await perdure.exec_hook(check, part, signal=f"{part}-{place}-done")
            for place, part in enumerate(parts)
        ]

    work()
    answers = client.start(validate, ["title", "body", "title"]).result(T)
    assert answers == ["title is fine", "body is fine", "title is fine"]


def test_command_after_a_sleep_is_written_after_its_end(
    app: perdure.App, client: perdure.Client, work: Any, connect: Any, monkeypatch: Any
) -> None:
    """[P7] This holds although the clock of a worker may go back a little with each reply."""
    exact = Clock.now
    monkeypatch.setattr(Clock, "now", lambda clock: exact(clock) - random.randint(0, 5000))

    @app.hook
    async def naps(memory: perdure.AsyncEntity) -> None:
        for _ in range(10):
            await perdure.sleep(0.01)
            await memory.increment("naps")

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await naps(memory)

    work()
    client.start(waits, id="job").result(T)
    journal = (
        connect()
        .execute(
            "select kind, at, (value ->> 'until')::timestamptz from perdure.journal"
            " where job_id = 'job' and task like '%naps%' order by seq"
        )
        .fetchall()
    )
    ends = [until for kind, _, until in journal if kind == "note"]
    written = [at for kind, at, _ in journal if kind == "command"]
    assert len(ends) == len(written) == 10
    assert all(at >= end for at, end in zip(written, ends, strict=True))


def test_hook_follows_the_memory_and_does_nothing_twice(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """(C38) (C39) (C44) Invoked again, it finds in the memory what is left to do."""

    @app.hook
    async def advance(memory: perdure.AsyncEntity) -> str:
        phases = {"drafted": "reviewed", "reviewed": "published"}
        phase = await memory.get("phase")
        if phase not in phases:
            return "nothing to do"
        await memory.set(phases[phase], "phase")
        await memory.append("log", phases[phase])
        return phases[phase]

    work()
    client.create_entity("post", "post", {"phase": "drafted", "log": []})
    seen = []
    for number in range(3):
        task = client.handle("post").hook(advance, key=f"step {number}")
        assert client.handle("post").hook(advance, key=f"step {number}") == task
        client.entity("post").until(f"exists($.log[{min(number, 1)}])", timeout=T)
        seen.append(client.entity("post").get("phase"))
    assert seen == ["reviewed", "published", "published"]
    assert client.entity("post").get("log") == ["reviewed", "published"]


@pytest.mark.parametrize("slots", [1, 200])
def test_a_thousand_hooks_fan_out_within_a_bound(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    connection: psycopg.Connection[Any],
    slots: int,
) -> None:
    """(C42) (C71) An asyncio semaphore limits how many hooks exist; no write is lost."""
    connection.execute(
        """
        create table perdure.seen (live bigint);
        create function perdure.look() returns trigger language plpgsql as $$
        begin
            insert into perdure.seen
            select count(*) from perdure.tasks as t where t.kind = 'hook' and t.job_id = new.job_id;
            return null;
        end
        $$;
        create trigger look after insert on perdure.tasks
            for each row execute function perdure.look();
        """
    )
    many = MANY if slots > 1 else MANY // 10

    @app.hook
    async def page(memory: perdure.AsyncEntity, number: int) -> int:
        await memory.increment("pages")
        return number

    @app.coordinator
    async def pages(memory: perdure.AsyncEntity) -> list[int]:
        bound = asyncio.Semaphore(BOUND)

        async def one(number: int) -> int:
            async with bound:
                return await page(memory, number)

        return await asyncio.gather(*(one(number) for number in range(many)))

    work(slots=slots)
    handle = client.start(pages)
    assert handle.result("120 s") == list(range(many))
    assert client.entity(handle.id).get("pages") == many
    (live,) = connection.execute("select max(live) from perdure.seen").fetchone() or (0,)
    assert 1 < live <= BOUND


def test_coordinator_joins_a_thousand_hooks_at_once(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """(C42) (C71) Plain code that does so does not run again for each of the answers."""
    runs: list[str] = []

    @app.hook
    async def page(memory: perdure.AsyncEntity, number: int) -> int:
        await memory.increment("pages")
        return number

    @app.coordinator
    async def pages(memory: perdure.AsyncEntity) -> int:
        return sum(await asyncio.gather(*(page(memory, n) for n in range(MANY))))

    @app.coordinator
    def plain_pages(memory: perdure.Entity) -> int:
        runs.append("from the top")
        begun = [page.start(n) for n in range(MANY)]
        return sum(each.result() for each in begun)

    work(slots=200)
    handles = [client.start(pages), client.start(plain_pages)]
    for handle in handles:
        assert handle.result("120 s") == sum(range(MANY))
        assert client.entity(handle.id).get("pages") == MANY
    assert len(runs) < MANY / 10
