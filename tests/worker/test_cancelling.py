"""Cancelling, end to end: whom a request to cancel reaches, and what may be done then. (E2)"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure.database.calls import Calls
from perdure.workers.hooks import HookTurn
from tests.worker.test_until import wait_for

T = "40 s"
PARKED = "select count(*) = %s from perdure.tasks where token is null and due_at > perdure.clock()"
HAVE_TURNED = (
    "select count(*) = 2 from perdure.tasks where deliveries = 0 and started_at is not null"
)


def is_cancelled(handle: perdure.Handle) -> str:
    """Wait for the end of a job that is cancelled; give what it says."""
    with pytest.raises(perdure.JobCancelled) as error:
        handle.result(T)
    return error.value.message


# Before anything, and while nothing goes on.


def test_a_job_that_is_cancelled_before_it_begins_hears_of_it_where_it_first_waits(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    called = []

    @app.activity
    async def act() -> None:
        called.append("act")

    @app.coordinator
    async def begins(memory: perdure.AsyncEntity) -> None:
        try:
            await act()
        finally:
            await memory.set(True, "clean")

    handle = client.start(begins)
    assert handle.cancel("not at all")
    work()
    assert is_cancelled(handle) == "not at all"
    assert called == []
    assert handle.memory.get() == {"clean": True}


def test_what_is_written_where_a_cancel_is_first_heard_stays_written(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """Commands and signals are done as they are asked for; what takes its time does not begin."""
    called = []

    @app.activity
    async def act() -> None:
        called.append("act")

    @app.hook
    async def hook(memory: perdure.AsyncEntity) -> None:
        called.append("hook")

    @app.coordinator
    async def told(memory: perdure.AsyncEntity) -> str:
        return str(await perdure.wait_for("told"))

    @app.coordinator
    async def begins(memory: perdure.AsyncEntity) -> None:
        await asyncio.gather(
            memory.set({"state": "new"}),
            memory.log("said", 1),
            perdure.signal("other", "told", "by it"),
            act(),
            hook(memory),
            perdure.start_child(told, id="child"),
        )

    other = client.start(told, id="other")
    handle = client.start(begins)
    handle.cancel("not at all")
    work()
    assert is_cancelled(handle) == "not at all"
    assert handle.memory.get() == {"state": "new"}
    assert handle.memory.get("said") == [1]
    assert other.result(T) == "by it"
    assert called == []
    assert handle.children() == []


def test_a_pause_between_attempts_is_not_slept_through(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """That of an activity, of an activity on a queue, and of a hook."""
    later = perdure.Retry(attempts=2, delay="1 h")

    @app.activity(retry=later)
    async def fails() -> None:
        raise ConnectionError

    @app.activity(retry=later, queue="far")
    async def fails_far() -> None:
        raise ConnectionError

    @app.hook(retry=later)
    async def fails_too(memory: perdure.AsyncEntity) -> None:
        raise ConnectionError

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await asyncio.gather(fails(), fails_far(), fails_too(memory))

    work()
    handle = client.start(waits)
    wait_for(dsn, PARKED.replace("%s", "3"))
    handle.cancel("enough")
    assert is_cancelled(handle) == "enough"


def test_a_cancel_goes_down_to_what_plain_code_waits_for(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """A hook, a child, a limited wait: as where it is awaited."""

    @app.hook
    async def tidies(memory: perdure.AsyncEntity, what: str) -> None:
        try:
            await memory.set(True, "ready")
            await perdure.wait_for("never")
        finally:
            await memory.set("clean", what)
            await memory.signal("clean")

    @app.coordinator
    async def child(memory: perdure.AsyncEntity) -> None:
        await tidies(memory, "child")

    @app.coordinator
    def waits(memory: perdure.Entity, what: str) -> Any:
        try:
            if what == "child":
                perdure.child(child, id="the child")
            elif what == "until":
                memory.set(True, "ready")
                memory.until("exists($.more)", timeout="1 d")
            else:
                tidies(memory, what)
        finally:
            if what == "hook":
                perdure.wait_for("clean")

    work()
    handles = [client.start(waits, what, id=what) for what in ("hook", "child", "until")]
    the_child = client.handle("the child")
    for memory in (handles[0].memory, handles[2].memory):
        memory.until("$.ready == true", timeout=T)
    while client.handle("child").family()[1:] == []:
        time.sleep(0.01)
    the_child.memory.until("$.ready == true", timeout=T)
    for handle in handles:
        assert handle.cancel("enough")
        assert is_cancelled(handle) == "enough"
    assert handles[0].memory.get("hook") == "clean"
    is_cancelled(the_child)


def test_a_second_cancel_disturbs_nobody_who_cleans_up(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    @app.coordinator
    async def cleans(memory: perdure.AsyncEntity) -> None:
        try:
            await perdure.wait_for("never")
        finally:
            await memory.set(await perdure.wait_for("clean"), "clean")

    work()
    handle = client.start(cleans)
    wait_for(dsn, "select exists (select from perdure.tasks where awaits = '{never}')")
    assert handle.cancel("enough")
    wait_for(dsn, "select exists (select from perdure.tasks where awaits = '{clean}')")
    assert not handle.cancel("now")
    handle.signal("clean", True)
    assert is_cancelled(handle) == "enough"
    assert handle.memory.get() == {"clean": True}


# What runs.


def test_what_a_thread_gives_after_a_cancel_is_ignored(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    going, told = threading.Event(), threading.Event()

    @app.activity
    def long() -> str:
        going.set()
        told.wait(20)
        return "too late"

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await memory.set(await long(), "told")

    work()
    handle = client.start(waits)
    assert going.wait(20)
    handle.cancel()
    is_cancelled(handle)
    told.set()
    assert handle.memory.get() == {}


def test_an_activity_on_another_worker_hears_of_it_with_its_heartbeat(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    far = perdure.App()
    has_begun, heard = threading.Event(), threading.Event()

    async def endless() -> None:
        has_begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            heard.set()
            raise

    far.activity(queue="far")(endless)
    here = app.activity(queue="far")(endless)

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await here()

    work(queues=["default"])
    work(far, queues=["far"], lease=1)
    handle = client.start(waits)
    assert has_begun.wait(20)  # the database knows of its claim before the worker may
    handle.cancel()
    is_cancelled(handle)
    assert heard.wait(20)


def test_a_plain_hook_hears_of_a_cancel_that_comes_while_it_leaves_memory(
    app: perdure.App,
    client: perdure.Client,
    dsn: str,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """[P5] [P8]: its thread takes its time to unwind, and the worker hears of the cancel meanwhile.
    Had it taken that, the hook would sleep on.
    """
    leaves, heard, go = threading.Event(), threading.Event(), threading.Event()
    kept = HookTurn._kept

    def keep(turn: HookTurn, answer: Any) -> None:
        kept(turn, answer)
        if leaves.is_set() and answer.get("messages"):
            heard.set()

    @app.hook
    def sleeps(memory: perdure.Entity) -> None:
        try:
            perdure.sleep("1 day")
        finally:
            leaves.set()
            go.wait(20)

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await sleeps(memory)

    monkeypatch.setattr(HookTurn, "_kept", keep)
    monkeypatch.setattr("perdure.workers.waits.GRACE", 0)
    work(lease=0.9)  # heartbeats ask for news
    handle = client.start(waits)
    assert leaves.wait(20)
    handle.cancel()
    assert heard.wait(20)
    go.set()
    is_cancelled(handle)
    wait_for(dsn, "select not exists (select from perdure.tasks)")


def test_an_activity_that_is_cancelled_on_its_queue_never_begins(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    called = []

    @app.activity(queue="far")
    async def far() -> None:
        called.append("far")

    @app.coordinator
    async def limits(memory: perdure.AsyncEntity) -> str:
        asked = far.start()
        await perdure.wait_for("go")
        asked.cancel()
        return str(await perdure.wait_for("end"))

    work(queues=["default"])
    handle = client.start(limits)
    wait_for(dsn, "select exists (select from perdure.tasks where name = 'far')")
    handle.signal("go")
    wait_for(dsn, "select not exists (select from perdure.tasks where name = 'far')")
    work(queues=["far"])
    handle.signal("end", "ended")
    assert handle.result(T) == "ended"
    assert called == []


def test_activities_that_are_cancelled_on_their_queue_take_nothing_of_its_rate(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """What another job asks for does not stand behind them, and the job can be forgotten."""
    called = []

    @app.activity(queue="llm")
    async def ask(question: int) -> int:
        called.append(question)
        return question

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity, questions: list[int]) -> list[int]:
        return await asyncio.gather(*map(ask, questions))

    client.set_queue("llm", rate_per_second=0.001, burst=1)
    work(queues=["default"])
    unwanted = client.start(asks, [*range(20)])
    wait_for(dsn, "select count(*) = 20 from perdure.tasks where name = 'ask'")
    assert unwanted.cancel()
    is_cancelled(unwanted)
    assert client.forget(unwanted.id)
    wanted = client.start(asks, [77])
    work(queues=["llm"])
    assert wanted.result(T) == [77]
    assert called == [77]


@pytest.mark.parametrize("state", ["parked", "running"])
def test_it_goes_down_from_hook_to_hook(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, state: str
) -> None:
    """A hook of a hook of a hook, async and plain; the undermost waits, or works. Each may clean
    up, also when the job has ended."""
    going = threading.Event()

    @app.hook
    async def third(memory: perdure.AsyncEntity) -> None:
        try:
            going.set()
            await (perdure.wait_for("never") if state == "parked" else asyncio.sleep(60))
        finally:
            await memory.append("clean", 3)

    @app.hook
    def second(memory: perdure.Entity) -> None:
        try:
            third(memory)  # type: ignore[unused-coroutine]
        finally:
            memory.append("clean", 2)

    @app.hook
    async def first(memory: perdure.AsyncEntity) -> None:
        try:
            await second(memory)
        finally:
            await memory.append("clean", 1)

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await memory.set([], "clean")
        await first(memory)

    work(lease=1.5)
    handle = client.start(waits)
    assert going.wait(20)
    if state == "parked":
        wait_for(dsn, PARKED.replace("%s", "4"))
    handle.cancel()
    is_cancelled(handle)
    assert handle.memory.until("$.clean.size() == 3", timeout=T)
    wait_for(dsn, "select not exists (select from perdure.tasks)")


# One hook.


def test_one_hook_is_cancelled_from_outside(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """One that was called from outside, one that is detached, one that a coordinator awaits."""

    @app.hook
    async def waits(memory: perdure.AsyncEntity, who: str) -> None:
        try:
            await perdure.wait_for("never")
        except asyncio.CancelledError:
            await memory.append("clean", who)
            raise

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> str:
        await memory.set([], "clean")
        perdure.start_hook(waits, "detached")
        try:
            await waits(memory, "awaited")
        except perdure.HookFailed as error:
            return error.type
        return "nothing"

    work()
    handle = client.start(asks)
    outside = handle.hook(waits, "outside")
    parked = "select count(*) = 3 from perdure.tasks where awaits = '{never}'"
    wait_for(dsn, parked)
    assert handle.cancel_hook(outside, "enough")
    assert not handle.cancel_hook(outside)
    assert handle.cancel_hook("$hook/1:main:waits#1")
    wait_for(dsn, "select jsonb_array_length(context -> 'clean') = 2 from perdure.jobs")
    assert handle.cancel_hook("1/main/waits#2")
    assert handle.result(T) == "CancelledError"
    assert sorted(handle.memory.get("clean")) == ["awaited", "detached", "outside"]
    assert not handle.cancel_hook(outside)


def test_an_async_client_cancels_hooks_and_sees_families_too(client: perdure.Client) -> None:
    client.start("nothing", id="parent")

    async def main() -> Any:
        async with await perdure.connect_async(client.dsn) as other:
            handle = other.handle("parent")
            task = await handle.hook("nothing")
            cancelled = [await handle.cancel_hook(task), await handle.cancel_hook(task)]
            return cancelled, await handle.family(), await handle.children()

    cancelled, family, children = asyncio.run(main())
    assert cancelled == [True, False]
    assert [(each.id, each.depth, each.parent) for each in family] == [("parent", 0, None)]
    assert children == []


# Shielding.


def shield(work: Any) -> Any:
    """Shield by what asyncio has, as one would write it in place."""

    async def waits() -> Any:
        inner = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(inner)
        except asyncio.CancelledError:
            await inner
            raise

    return waits()


@pytest.mark.parametrize("way", [perdure.shielded, shield])
@pytest.mark.parametrize("cache", [0, 100])
def test_what_is_shielded_is_done_to_its_end(
    app: perdure.App,
    client: perdure.Client,
    dsn: str,
    work: Any,
    way: Callable[[Any], Any],
    cache: int,
) -> None:
    """In a coordinator and in a hook: activities, hooks, commands and waits."""

    @app.hook
    async def part(memory: perdure.AsyncEntity, who: str) -> str:
        return f"part of {who}"

    async def pay(memory: perdure.AsyncEntity, who: str) -> str:
        told = await perdure.wait_for(f"go {who}")
        await memory.set([told, await part(memory, who)], who)
        return "paid"

    @app.hook
    async def pays(memory: perdure.AsyncEntity) -> None:
        await way(pay(memory, "hook"))
        await memory.set(True, "went_on")

    @app.coordinator
    async def orders(memory: perdure.AsyncEntity) -> None:
        try:
            await way(pay(memory, "coordinator"))
            await memory.set(True, "went_on")
        finally:
            await memory.until("exists($.hook)")

    @app.coordinator
    async def both(memory: perdure.AsyncEntity) -> None:
        async with asyncio.TaskGroup() as group:  # it waits for all, unlike gather
            group.create_task(orders.function(memory))
            group.create_task(pays(memory))

    work(cache=cache)
    handle = client.start(both)
    wait_for(dsn, HAVE_TURNED)
    handle.cancel("enough")
    heard = "select count(*) = 2 from perdure.inbox where key = '$cancel' and consumed_at <= now()"
    wait_for(dsn, heard)
    handle.signal("go hook", 1)
    handle.signal("go coordinator", 2)
    assert is_cancelled(handle) == "enough"
    want = {"hook": [1, "part of hook"], "coordinator": [2, "part of coordinator"]}
    assert handle.memory.get() == want


@pytest.mark.parametrize("cache", [0, 100])
def test_what_plain_code_shields_is_done_to_its_end(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, cache: int
) -> None:
    """It runs again from the top, in a coordinator and in a hook, and hears of it behind."""

    @app.hook
    def part(memory: perdure.Entity, who: str) -> str:
        return f"part of {who}"

    def pay(memory: perdure.Entity, who: str) -> str:
        told = perdure.wait_for(f"go {who}")
        memory.set([told, perdure.shielded(lambda: part(memory, who))], who)
        return "paid"

    @app.hook
    def pays(memory: perdure.Entity) -> None:
        perdure.shielded(lambda: pay(memory, "hook"))
        memory.set(True, "went_on")

    @app.coordinator
    def orders(memory: perdure.Entity) -> None:
        paying = pays.start()
        try:
            perdure.shielded(lambda: pay(memory, "coordinator"))
            memory.set(True, "went_on")
        except asyncio.CancelledError as error:
            memory.set(str(error), "heard")
            paying.cancel()
            memory.until("exists($.hook)")
            raise

    work(cache=cache)
    handle = client.start(orders)
    wait_for(dsn, HAVE_TURNED)
    client.handle(handle.id).cancel_hook("1/main/pays#1")
    handle.cancel("enough")
    heard = "select count(*) = 2 from perdure.inbox where key = '$cancel' and consumed_at <= now()"
    wait_for(dsn, heard)
    handle.signal("go hook", 1)
    handle.signal("go coordinator", 2)
    assert is_cancelled(handle) == "enough"
    want = {"hook": [1, "part of hook"], "coordinator": [2, "part of coordinator"]}
    assert handle.memory.get() == want | {"heard": "enough"}


def test_a_shield_of_plain_code_gives_what_its_work_gives(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.activity
    def fails() -> None:
        raise LookupError("no")

    def tries() -> list[Any]:
        out: list[Any] = [perdure.shielded(lambda: 7)]
        try:
            perdure.shielded(fails)
        except perdure.ActivityFailed as error:
            out.append(error.message)
        try:
            perdure.shielded(fails.start())
        except perdure.InvalidArgument as error:
            out.append(error.hint)
        return out

    @app.hook
    def in_a_hook(memory: perdure.Entity) -> list[Any]:
        return tries()

    @app.hook
    async def in_async_code(memory: perdure.AsyncEntity) -> str | None:
        try:
            await perdure.shielded(lambda: 7)  # type: ignore[misc]
        except perdure.InvalidArgument as error:
            return error.hint
        return None

    @app.coordinator
    def both(memory: perdure.Entity) -> Any:
        return [tries(), in_a_hook(memory), in_async_code(memory)]

    work()
    want = [7, "no", "perdure.shielded(lambda: pay(memory, order))"]
    hint = "await perdure.shielded(pay(memory, order))"
    assert client.start(both).result(T) == [want, want, hint]


def test_a_shield_gives_what_its_work_gives(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.activity
    async def fails() -> None:
        raise LookupError("no")

    @app.hook
    async def answers(memory: perdure.AsyncEntity) -> int:
        return 7

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        async with asyncio.timeout(60):
            out: list[Any] = [await perdure.shielded(answers(memory))]
        try:
            await perdure.shielded(fails())
        except perdure.ActivityFailed as error:
            out.append(error.message)
        try:
            async with asyncio.timeout(0.01):
                await perdure.shielded(perdure.sleep(0.05))
        except TimeoutError:
            out.append("late")
        return out

    work()
    assert client.start(waits).result(T) == [7, "no", "late"]
    with pytest.raises(perdure.InvalidArgument):
        asyncio.run(perdure.shielded(None))  # type: ignore[arg-type]


def test_what_is_asked_for_in_a_shield_says_so(
    app: perdure.App,
    client: perdure.Client,
    dsn: str,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For a turn that is built before its worker hears of a cancel: it does not begin cancelled."""
    sent = []
    advance = Calls.advance

    def seen(self: Calls, turns: str, *bodies: Any, **options: Any) -> Any:
        sent.extend(request for turn in json.loads(turns) for request in turn.get("requests", ()))
        return advance(self, turns, *bodies, **options)

    monkeypatch.setattr(Calls, "advance", seen)

    async def asks(number: int) -> None:
        await perdure.exec_hook("nothing", number, queue="nowhere")

    async def several(number: int) -> None:
        await asyncio.gather(
            perdure.shielded(perdure.exec_hook("nothing", number, queue="nowhere")),
            perdure.shielded(asks(number + 1)),
            perdure.exec_hook("nothing", number + 2, queue="nowhere"),
        )

    @app.hook
    async def in_a_hook(memory: perdure.AsyncEntity) -> None:
        await several(4)

    @app.hook(queue="nowhere")
    async def nowhere(memory: perdure.AsyncEntity, number: int) -> None:
        pass

    def plainly(number: int) -> None:
        begun = nowhere.start(number)
        perdure.shielded(lambda: nowhere.start(number + 1).result())
        begun.result()

    @app.hook
    def in_a_plain_hook(memory: perdure.Entity) -> None:
        plainly(7)

    @app.coordinator
    def plain(memory: perdure.Entity) -> None:
        plainly(9)

    @app.coordinator
    async def both(memory: perdure.AsyncEntity) -> None:
        perdure.start_hook(in_a_hook)
        perdure.start_hook(in_a_plain_hook)
        plain.start()
        await several(1)

    work(queues=["default"])
    client.start(both)
    wait_for(dsn, "select count(*) = 10 from perdure.tasks where queue = 'nowhere'")
    asked = {request["args"][0]: request.get("shielded") for request in sent if request["args"]}
    assert asked == {1: True, 2: True, 3: None, 4: True, 5: True, 6: None} | {
        7: None, 8: True, 9: None, 10: True
    }  # fmt: skip


@pytest.mark.parametrize("hears_at", ["heartbeat", "wait"])
def test_what_a_hook_awaits_after_it_has_heard_of_a_cancel_goes_on(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, hears_at: str
) -> None:
    """It is cancelled before it begins: what it does side by side stands at its first call."""

    async def other() -> Any:
        return await perdure.wait_for("other")

    @app.hook
    async def waits(memory: perdure.AsyncEntity) -> None:
        beside = asyncio.create_task(other())
        try:
            await asyncio.sleep(0)  # `beside` is at its call
            if hears_at == "heartbeat":
                perdure.heartbeat()
            await perdure.wait_for("go")
        finally:
            await memory.set(await beside, "told")

    client.create_entity("e", "e")
    handle = client.handle("e")
    assert handle.cancel_hook(handle.hook(waits))
    work()
    wait_for(dsn, "select count(*) = 1 from perdure.tasks where awaits = '{other}'")
    handle.signal("other", 7)
    wait_for(dsn, "select count(*) = 0 from perdure.tasks")
    assert handle.memory.get() == {"told": 7}
