"""Children, end to end (E3): how they begin, what they return, and the end of their parents."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import perdure
from tests.worker.test_cancelling import is_cancelled
from tests.worker.test_until import run, wait_for

T = "40 s"


@dataclass
class Review:
    """The rating of a reviewer."""

    stars: int
    text: str = ""


# Results and failures.


@pytest.mark.parametrize("within", ["coordinator", "hook"])
def test_coordinator_called_without_its_memory_is_rejected(
    app: perdure.App, client: perdure.Client, work: Any, within: str
) -> None:
    """Otherwise its first argument would be taken for the memory."""

    @app.coordinator
    async def doubles(memory: perdure.AsyncEntity, number: int = 0) -> int:
        return 2 * number

    @app.hook
    async def calls(memory: perdure.AsyncEntity) -> list[Any]:
        with pytest.raises(perdure.InvalidArgument, match="was given int for a memory") as refused:
            await doubles(4)  # type: ignore[arg-type]
        return [await doubles(memory, 4), refused.value.hint]

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> list[Any]:
        return await (calls(memory) if within == "hook" else calls.function(memory))

    work()
    doubled, hint = client.start(asks).result(T)
    assert doubled == 8
    assert hint == "Call doubles(memory, …), or perdure.child(doubles, …) to make it a job."
    assert asyncio.run(doubles.function(None, 2)) == 4


def test_result_of_a_child_has_its_annotated_type(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """This holds at once or later, in coordinators and hooks, in async and plain code."""

    @app.coordinator
    async def review(memory: perdure.AsyncEntity, stars: int) -> Review:
        return Review(stars)

    @app.hook
    async def asks(memory: perdure.AsyncEntity) -> list[int]:
        first, begun = await perdure.child(review, 3), perdure.start_child(review, 4)
        return [first.stars, (await begun).stars, (await review.start(5)).stars]

    @app.hook
    def asks_plainly(memory: perdure.Entity) -> list[int]:
        first, begun = perdure.child(review, 6), review.start(7)
        return [first.stars, begun.result().stars]

    @app.coordinator
    async def all_of_them(memory: perdure.AsyncEntity) -> list[Any]:
        begun = [review.start(1), perdure.start_child(review, 2)]
        stars = [(await each).stars for each in begun]
        return [*stars, *await asks(memory), *await asks_plainly(memory)]

    work()
    assert client.start(all_of_them).result(T) == [1, 2, 3, 4, 5, 6, 7]


def test_started_child_takes_the_options_of_an_awaited_one(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> str:
        await perdure.wait_for("go")
        return perdure.info().job

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        awaited = perdure.child(waits, id="a", limit_key="jane")
        begun = perdure.start_child(waits, id="b", limit_key="jane")
        return [await awaited, await begun]

    work()
    handle = client.start(asks)
    wait_for(dsn, "select count(*) = 2 from perdure.tasks where limit_key = 'jane'")
    for child in ("a", "b"):
        client.handle(child).signal("go")
    assert handle.result(T) == ["a", "b"]


def test_failure_keeps_its_cause_through_all_levels(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.activity
    async def fails() -> None:
        raise LookupError("no source")

    @app.coordinator
    async def third(memory: perdure.AsyncEntity) -> None:
        await fails()

    @app.hook
    async def middle(memory: perdure.AsyncEntity) -> None:
        await perdure.child(third)

    @app.coordinator
    async def second(memory: perdure.AsyncEntity) -> None:
        await middle(memory)

    @app.coordinator
    async def first(memory: perdure.AsyncEntity) -> list[Any]:
        try:
            await perdure.child(second)
        except perdure.ChildFailed as error:
            path = error.failure["through"]
            return [error.type, error.message, "no source" in (error.traceback or ""), path]
        return []

    work()
    failure = client.start(first).result(T)
    assert failure[:3] == ["LookupError", "no source", True]
    assert failure[3] == [
        "activity fails", "ActivityFailed", "ChildFailed", "hook middle", "HookFailed",
    ]  # fmt: skip


def test_child_fails_when_terminated_or_when_its_id_is_taken(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await perdure.wait_for("never")

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> list[Any]:
        outcomes = await asyncio.gather(
            perdure.child(waits, id="mine"),
            perdure.child(waits, id="taken"),
            return_exceptions=True,
        )
        return [[each.type, each.message] for each in outcomes]

    client.start(waits, id="taken", queue="nowhere")
    work()
    handle = client.start(parent)
    wait_for(dsn, "select exists (select from perdure.tasks where awaits = '{never}')")
    client.handle("mine").terminate("by hand")
    assert handle.result(T) == [
        ["Terminated", "by hand"],
        ["JobExists", "job 'taken' exists already"],
    ]


@pytest.mark.parametrize("by", ["coordinator", "hook"])
def test_signals_go_to_children_and_back(
    app: perdure.App, client: perdure.Client, work: Any, by: str
) -> None:
    """[P5] A child, attached or detached, can be signalled as soon as it has been requested."""

    @app.coordinator
    async def echo(memory: perdure.AsyncEntity) -> None:
        number = await perdure.wait_for("ask")
        await perdure.signal(perdure.info().parent or "", "answer", [number, memory.id])

    async def talk(memory: perdure.AsyncEntity) -> Any:
        ids = [f"{memory.id}/begun", f"{memory.id}/detached"]
        begun = perdure.start_child(echo, id=ids[0])
        perdure.child(echo, id=ids[1], detached=True)
        for place, child in enumerate(ids):
            await perdure.signal(child, "ask", place)
        answers = sorted([await perdure.wait_for("answer") for _ in ids])
        await begun
        return answers

    hook = app.hook(talk)

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> Any:
        return await (talk(memory) if by == "coordinator" else hook(memory))

    work()
    assert client.start(parent, id="p").result(T) == [[0, "p/begun"], [1, "p/detached"]]


@pytest.mark.parametrize("by", ["coordinator", "hook"])
def test_child_is_requested_before_a_signal_to_it_is_sent(
    app: perdure.App, client: perdure.Client, work: Any, by: str
) -> None:
    """[P5] This holds in a turn that begins with nothing to send, and for a detached child."""

    @app.coordinator
    async def echo(memory: perdure.AsyncEntity) -> Any:
        return await perdure.wait_for("ask")

    async def talk(memory: perdure.AsyncEntity) -> Any:
        await asyncio.sleep(0.1)
        perdure.child(echo, id=f"{memory.id}/first", detached=True)
        begun = perdure.start_child(echo, id=f"{memory.id}/begun")
        await perdure.signal(f"{memory.id}/begun", "ask", 1)
        await perdure.signal(f"{memory.id}/first", "ask", 2)
        return await begun

    hook = app.hook(talk)

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> Any:
        return await (talk(memory) if by == "coordinator" else hook(memory))

    work()
    assert client.start(parent, id="p").result(T) == 1


@pytest.mark.parametrize("by", ["coordinator", "hook"])
def test_detached_child_begins_once_although_it_was_forgotten(
    app: perdure.App, client: perdure.Client, dsn: str, connect: Any, work: Any, by: str
) -> None:
    """[P1] [P13] Its parent requests it again when another worker takes over."""
    begun: list[str] = []

    @app.coordinator
    async def child(memory: perdure.AsyncEntity) -> None:
        begun.append(memory.id)

    async def begins(memory: perdure.AsyncEntity) -> None:
        perdure.child(child, id="kid", detached=True)
        await perdure.wait_for("go")

    hook = app.hook(begins)

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> None:
        await (begins(memory) if by == "coordinator" else hook(memory))

    handle = client.start(parent)
    worker = work()
    wait_for(dsn, "select exists (select from perdure.jobs where id = 'kid')")
    client.handle("kid").result(T)
    worker.stop()
    connection = connect()
    connection.execute("select forget_finished('infinity')")
    handle.signal("go")
    work()
    handle.result(T)
    assert begun == ["kid"]
    connection.execute("select forget_finished('infinity')")
    assert connection.execute("select count(*) from jobs").fetchone() == (0,)


def test_parent_gets_the_results_of_a_thousand_children(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def square(memory: perdure.AsyncEntity, x: int) -> int:
        return x * x

    @app.coordinator
    async def sums(memory: perdure.AsyncEntity) -> int:
        return sum(await asyncio.gather(*(perdure.child(square, x) for x in range(1000))))

    work()
    handle = client.start(sums, id="sums")
    assert handle.result("60 s") == sum(x * x for x in range(1000))
    family = handle.family()
    assert len(family) == 1001
    assert {each.status for each in family} == {"completed"}
    assert {each.id for each in family[1:]} == {f"sums/square#{n}" for n in range(1, 1001)}


# Families.


def test_client_reads_the_family_of_a_job(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    @app.coordinator
    async def leaf(memory: perdure.AsyncEntity) -> None:
        await perdure.wait_for("never")

    @app.coordinator
    async def branch(memory: perdure.AsyncEntity) -> None:
        perdure.child(leaf, detached=True)
        await perdure.child(leaf, on_parent_end="terminate")

    @app.coordinator
    async def tree(memory: perdure.AsyncEntity) -> None:
        await perdure.child(branch)

    work()
    handle = client.start(tree, id="t")
    wait_for(dsn, "select count(*) = 4 from perdure.jobs")
    have = [(each.id, each.depth, each.asked_as, each.on_parent_end) for each in handle.family()]
    assert have == [
        ("t", 0, None, None),
        ("t/branch#1", 1, "1/main/branch#1", "cancel"),
        ("t/branch#1/leaf#1", 2, "1/main/leaf#1", "continue"),
        ("t/branch#1/leaf#2", 2, "1/main/leaf#2", "terminate"),
    ]
    assert [child.id for child in handle.children()] == ["t/branch#1"]
    handle.terminate()
    wait_for(dsn, "select count(*) = 1 from perdure.jobs where status = 'running'")


def test_children_are_found_in_a_large_family(client: perdure.Client, dsn: str) -> None:
    """`family()` returns ten thousand jobs at most; `children()` finds the ones after them."""
    old = """
        insert into perdure.jobs (id, workflow, status, parent, queue, priority, finished_at)
        select id, 'w', 'completed', parent, 'default', 5, now()
          from (values ('t/a', 't'), ('t/b', 't')) as children (id, parent)
        union all
        select 't/a/' || n, 'w', 'completed', 't/a', 'default', 5, now()
          from generate_series(1, 10000) as n
    """
    handle = client.start("w", id="t")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(old)
    assert [child.id for child in handle.children()] == ["t/a", "t/b"]
    assert len(handle.family()) == 10_000


# When the parent ends.


@pytest.mark.parametrize("end", ["returns", "raises", "is cancelled", "is terminated"])
def test_end_of_a_parent_cancels_or_keeps_each_child_by_its_policy(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, end: str
) -> None:
    """Attached children are cancelled and detached ones continue, unless they were requested with
    another policy.

    Children of a hook follow the end of the hook.
    """

    @app.coordinator
    async def endless(memory: perdure.AsyncEntity, who: str) -> None:
        try:
            await perdure.wait_for("never")
        finally:
            await perdure.sleep(0.01)
            await memory.set(True, "clean")

    @app.hook
    async def begins(memory: perdure.AsyncEntity) -> None:
        perdure.start_child(endless, "hook's", id="hook's")
        perdure.start_child(endless, "of a hook, continues", id="h continues",
                            on_parent_end="continue")  # fmt: skip
        await perdure.wait_for("leave")

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> None:
        endless.start("started")
        perdure.start_child(endless, "c", id="continues", on_parent_end="continue")
        perdure.start_child(endless, "t", id="terminates", on_parent_end="terminate")
        perdure.child(endless, "d", id="detached", detached=True)
        perdure.child(endless, "x", id="detached, cancels", detached=True, on_parent_end="cancel")
        awaited = asyncio.ensure_future(perdure.child(endless, "a", id="awaited"))
        await begins(memory)
        signal = asyncio.ensure_future(perdure.wait_for("go"))
        await asyncio.wait([awaited, signal], return_when=asyncio.FIRST_COMPLETED)
        if signal.result() == "raises":
            raise ValueError("end")

    work()
    handle = client.start(parent, id="p")
    wait_for(dsn, "select count(*) = 8 from perdure.tasks where awaits = '{never}'")
    handle.signal("leave")
    wait_for(dsn, "select count(*) = 1 from perdure.tasks where awaits = '{go}'")
    {"is cancelled": handle.cancel, "is terminated": handle.terminate}.get(
        end, lambda: handle.signal("go", end)
    )()
    wait_for(dsn, "select count(*) = 3 from perdure.jobs where status = 'running'")
    ended = run(dsn, "select id, error ->> 'type', context ? 'clean' from perdure.jobs"
                     " where parent = 'p' and status = 'cancelled' order by id")  # fmt: skip
    assert ended == [
        ("awaited", "CancelledError", True),
        ("detached, cancels", "CancelledError", True),
        ("hook's", "CancelledError", True),
        ("p/endless#1", "CancelledError", True),
        ("terminates", "Terminated", False),
    ]
    left = run(dsn, "select id from perdure.jobs where status = 'running' order by id")
    assert left == [("continues",), ("detached",), ("h continues",)]
    wait_for(dsn, "select count(*) = 3 from perdure.tasks")


def test_cancelled_await_cancels_attached_children_only(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    @app.coordinator
    async def endless(memory: perdure.AsyncEntity) -> None:
        await perdure.wait_for("never")

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> str:
        perdure.child(endless, id="detached", detached=True)
        begun = perdure.start_child(endless, id="begun")
        try:
            async with asyncio.timeout(0.2):
                await perdure.child(endless, id="awaited")
        except TimeoutError:
            begun.cancel()
        return str(await perdure.wait_for("go"))

    work()
    handle = client.start(parent)
    wait_for(dsn, "select count(*) = 4 from perdure.jobs")
    for job in ("awaited", "begun"):
        is_cancelled(client.handle(job))
    assert client.handle("detached").status().status == "running"
    handle.signal("go", "on")
    assert handle.result(T) == "on"
    assert client.handle("detached").status().status == "running"


@pytest.mark.parametrize("asker", ["a coordinator", "a hook"])
def test_child_requested_in_the_last_turn_begins_only_if_it_continues(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, asker: str
) -> None:
    @app.hook
    async def begins(memory: perdure.AsyncEntity) -> None:
        perdure.start_child("nothing", id="cancels", queue="nowhere")
        perdure.start_child("nothing", id="terminates", queue="nowhere", on_parent_end="terminate")
        perdure.start_child("nothing", id="continues", queue="nowhere", on_parent_end="continue")
        perdure.child("nothing", id="detached", queue="nowhere", detached=True)

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> None:
        await begins(memory) if asker == "a hook" else await begins.function(memory)

    work()
    client.start(parent, id="p").result(T)
    family = run(dsn, "select id from perdure.family('p') where depth = 1")
    assert family == [("continues",), ("detached",)]


def test_retried_hook_finds_the_child_that_it_has_begun(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    @app.coordinator
    async def one(memory: perdure.AsyncEntity) -> str:
        return str(await perdure.wait_for("go"))

    @app.hook(retry=perdure.Retry(attempts=2, delay=0.01))
    async def asks(memory: perdure.AsyncEntity) -> Any:
        begun = perdure.start_child(one, id="one")
        if perdure.info().attempt == 0:
            await memory.set(True, "begun")
            raise ConnectionError
        return await begun

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> Any:
        return await asks(memory)

    work()
    handle = client.start(parent)
    wait_for(
        dsn, "select exists (select from perdure.tasks where job_id = 'one' and awaits is not null)"
    )
    client.handle("one").signal("go", "on")
    assert handle.result(T) == "on"


def test_unknown_policy_for_the_end_of_a_parent_is_rejected(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> list[str]:
        unknown: Any = "abandon"
        refusals = []
        for ask in (perdure.child, perdure.start_child):
            try:
                await ask("c", on_parent_end=unknown)
            except perdure.InvalidArgument as error:
                refusals.append(error.message)
        return refusals

    work()
    assert client.start(parent).result(T) == ["on_parent_end='abandon' is not known"] * 2


def test_child_of_a_hook_has_a_short_id_if_its_job_has_a_long_one(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def answer(memory: perdure.AsyncEntity) -> str:
        return memory.id

    @app.hook
    async def asks(memory: perdure.AsyncEntity) -> str:
        return await perdure.child(answer)

    work()
    job = "j" * 180
    client.create_entity(job, "shop")
    child = client.handle(job).run_hook(asks, timeout=T)
    assert child.startswith(f"{job}/")
    assert len(child) <= 200
