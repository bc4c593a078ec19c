"""Cancelling, end to end (E2): what a cancel reaches, and what cancelled code may still do."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import perdure
from perdure.database.calls import Calls
from perdure.workers import waits
from perdure.workers.hooks import HookTurn
from tests.patience import wait_until
from tests.worker.test_until import note_earlier_attempt, wait_for

T = "40 s"
PARKED = "select count(*) = %s from perdure.tasks where token is null and due_at > perdure.clock()"
BOTH_HAD_A_TURN = (
    "select count(*) = 2 from perdure.tasks where deliveries = 0 and started_at is not null"
)


def is_cancelled(handle: perdure.Handle) -> str:
    """Wait until a job has ended as cancelled, and return its message."""
    with pytest.raises(perdure.JobCancelled) as error:
        handle.result(T)
    return error.value.message


# Before a job begins, and while it waits.


def test_job_cancelled_before_it_begins_is_cancelled_at_its_first_wait(
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


def test_commands_and_signals_beside_a_cancelled_wait_are_kept(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """Activities, hooks and children that are requested at the same time do not begin."""
    called = []

    @app.activity
    async def act() -> None:
        called.append("act")

    @app.hook
    async def hook(memory: perdure.AsyncEntity) -> None:
        called.append("hook")

    @app.coordinator
    async def listens(memory: perdure.AsyncEntity) -> str:
        return str(await perdure.wait_for("told"))

    @app.coordinator
    async def begins(memory: perdure.AsyncEntity) -> None:
        await asyncio.gather(
            memory.set({"state": "new"}),
            memory.log("said", 1),
            perdure.signal("other", "told", "by it"),
            act(),
            hook(memory),
            perdure.start_child(listens, id="child"),
        )

    other = client.start(listens, id="other")
    handle = client.start(begins)
    handle.cancel("not at all")
    work()
    assert is_cancelled(handle) == "not at all"
    assert handle.memory.get() == {"state": "new"}
    assert handle.memory.get("said") == [1]
    assert other.result(T) == "by it"
    assert called == []
    assert handle.children() == []


def test_cancel_ends_the_pause_before_a_retry(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """An activity, a dispatched activity and a hook would wait an hour for their retries."""
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


def test_cancel_reaches_what_plain_code_waits_for(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """A cancel reaches a hook, a child or a wait with a timeout that plain code waits for."""

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


def test_second_cancel_does_not_interrupt_cleanup(
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


# Running code.


def test_result_of_a_thread_after_a_cancel_is_ignored(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    going, may_return = threading.Event(), threading.Event()

    @app.activity
    def long() -> str:
        going.set()
        may_return.wait(20)
        return "too late"

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await memory.set(await long(), "told")

    work()
    handle = client.start(waits)
    assert going.wait(20)
    handle.cancel()
    is_cancelled(handle)
    may_return.set()
    assert handle.memory.get() == {}


def test_cancel_reaches_an_activity_on_another_worker(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """The worker of the activity learns of the cancel by its heartbeat."""
    far = perdure.App()
    has_begun, was_cancelled = threading.Event(), threading.Event()

    async def endless() -> None:
        has_begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            was_cancelled.set()
            raise

    far.activity(queue="far")(endless)
    here = app.activity(queue="far")(endless)

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await here()

    work(queues=["default"])
    work(far, queues=["far"], lease=1)
    handle = client.start(waits)
    assert has_begun.wait(20)  # the database knows of its claim before its worker does
    handle.cancel()
    is_cancelled(handle)
    assert was_cancelled.wait(20)


def test_plain_hook_is_cancelled_while_it_is_being_parked(
    app: perdure.App,
    client: perdure.Client,
    dsn: str,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """[P5] [P8] A cancel that arrives while the thread of the hook unwinds is not lost."""
    unwinds, has_message, may_end = threading.Event(), threading.Event(), threading.Event()
    kept = HookTurn._kept

    def keep(turn: HookTurn, answer: Any) -> None:
        kept(turn, answer)
        if unwinds.is_set() and answer.get("messages"):
            has_message.set()

    @app.hook
    def sleeps(memory: perdure.Entity) -> None:
        try:
            perdure.sleep("1 day")
        finally:
            unwinds.set()
            may_end.wait(20)

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await sleeps(memory)

    monkeypatch.setattr(HookTurn, "_kept", keep)
    monkeypatch.setattr("perdure.workers.waits.GRACE", 0)
    work(lease=0.9)  # short, so that heartbeats soon ask for messages
    handle = client.start(waits)
    assert unwinds.wait(20)
    handle.cancel()
    assert has_message.wait(20)
    may_end.set()
    is_cancelled(handle)
    wait_for(dsn, "select not exists (select from perdure.tasks)")


def test_activity_cancelled_in_its_queue_never_begins(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    called = []

    @app.activity(queue="far")
    async def far() -> None:
        called.append("far")

    @app.coordinator
    async def limits(memory: perdure.AsyncEntity) -> str:
        pending = far.start()
        await perdure.wait_for("go")
        pending.cancel()
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


def test_activities_cancelled_in_their_queue_do_not_use_its_rate(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """Other activities need not wait behind them, and the cancelled job can be forgotten."""
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
def test_cancel_reaches_hooks_of_hooks(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, state: str
) -> None:
    """Of three nested hooks, async and plain, each cleans up, even after the job has ended."""
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


# Single hooks.


def test_client_cancels_one_hook(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """The hook was requested by a client, is detached, or is awaited by a coordinator."""

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


def test_async_client_cancels_hooks_and_reads_families(client: perdure.Client) -> None:
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
    """Shield work with asyncio alone, as users would write it."""

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
def test_shielded_work_is_completed_after_a_cancel(
    app: perdure.App,
    client: perdure.Client,
    dsn: str,
    work: Any,
    way: Callable[[Any], Any],
    cache: int,
) -> None:
    """In a coordinator and in a hook, the code after the shielded work does not run."""
    waiting: set[str] = set()

    @app.hook
    async def part(memory: perdure.AsyncEntity, who: str) -> str:
        return f"part of {who}"

    async def pay(memory: perdure.AsyncEntity, who: str) -> str:
        waiting.add(who)
        number = await perdure.wait_for(f"go {who}")
        await memory.set([number, await part(memory, who)], who)
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
        async with asyncio.TaskGroup() as group:  # unlike gather, it waits for all
            group.create_task(orders.function(memory))
            group.create_task(pays(memory))

    work(cache=cache)
    handle = client.start(both)
    wait_until(lambda: waiting == {"hook", "coordinator"})
    handle.cancel("enough")
    consumed = (
        "select count(*) = 2 from perdure.inbox where key = '$cancel' and consumed_at <= now()"
    )
    wait_for(dsn, consumed)
    handle.signal("go hook", 1)
    handle.signal("go coordinator", 2)
    assert is_cancelled(handle) == "enough"
    expected = {"hook": [1, "part of hook"], "coordinator": [2, "part of coordinator"]}
    assert handle.memory.get() == expected


@pytest.mark.parametrize("cache", [0, 100])
def test_work_shielded_by_plain_code_is_completed_after_a_cancel(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, cache: int
) -> None:
    """In a coordinator and in a hook, plain code is cancelled after the shielded work."""

    @app.hook
    def part(memory: perdure.Entity, who: str) -> str:
        return f"part of {who}"

    def pay(memory: perdure.Entity, who: str) -> str:
        number = perdure.wait_for(f"go {who}")
        memory.set([number, perdure.shielded(lambda: part(memory, who))], who)
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
    wait_for(dsn, BOTH_HAD_A_TURN)
    client.handle(handle.id).cancel_hook("1/main/pays#1")
    handle.cancel("enough")
    consumed = (
        "select count(*) = 2 from perdure.inbox where key = '$cancel' and consumed_at <= now()"
    )
    wait_for(dsn, consumed)
    handle.signal("go hook", 1)
    handle.signal("go coordinator", 2)
    assert is_cancelled(handle) == "enough"
    expected = {"hook": [1, "part of hook"], "coordinator": [2, "part of coordinator"]}
    assert handle.memory.get() == expected | {"heard": "enough"}


@pytest.mark.parametrize("is_plain", [True, False], ids=["plain", "async"])
@pytest.mark.parametrize("kind", ["coordinator", "hook"])
def test_cancel_replaces_the_error_of_shielded_work(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, kind: str, is_plain: bool
) -> None:
    """Code that handles the error must not go on as if nobody had asked it to cancel."""

    def fails() -> None:
        perdure.wait_for("go")
        raise LookupError("no")

    async def fails_in_async_code() -> None:
        await perdure.wait_for("go")
        raise LookupError("no")

    def pays(memory: perdure.Entity) -> None:
        with suppress(LookupError):
            perdure.shielded(fails)

    async def pays_in_async_code(memory: perdure.AsyncEntity) -> None:
        with suppress(LookupError):
            await perdure.shielded(fails_in_async_code())

    register: Any = app.hook if kind == "hook" else app.coordinator
    register(name="pays")(pays if is_plain else pays_in_async_code)
    work()
    if kind == "hook":
        client.create_entity("order", "order")
        handle = client.handle("order")
        task = handle.hook("pays")
    else:
        handle = client.start("pays")
    wait_for(dsn, "select bool_or('go' = any(awaits)) from perdure.tasks")
    handle.cancel_hook(task) if kind == "hook" else handle.cancel()
    wait_for(dsn, "select bool_or(consumed_at <= now()) from perdure.inbox where key = '$cancel'")
    handle.signal("go")
    with pytest.raises(perdure.HookFailed if kind == "hook" else perdure.JobCancelled) as error:
        handle.hook_result(task, timeout=T) if kind == "hook" else handle.result(T)
    assert error.value.type == "CancelledError"


def test_cancel_is_raised_at_the_end_of_one_shield_only(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """Code that handles the cancel may shield its cleaning up as well."""

    @app.coordinator
    def pays(memory: perdure.Entity) -> str:
        try:
            perdure.shielded(lambda: perdure.wait_for("go"))
        except asyncio.CancelledError:
            perdure.shielded(lambda: memory.set(True, "tidy"))
            return "tidied up"
        return "went on"

    work()
    handle = client.start(pays)
    wait_for(dsn, "select 'go' = any(awaits) from perdure.tasks")
    handle.cancel()
    wait_for(dsn, "select bool_or(consumed_at <= now()) from perdure.inbox where key = '$cancel'")
    handle.signal("go")
    assert handle.result(T) == "tidied up"


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
def test_hook_cancelled_after_a_shield_hears_of_it_where_it_waits(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, is_async: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It runs again from the top, through a shield that was over before the cancel."""
    monkeypatch.setattr(waits, "GRACE", 0.0)

    async def pays_async(memory: perdure.AsyncEntity) -> None:
        await perdure.shielded(memory.set(1, "paid"))
        try:
            await perdure.wait_for("go")
        finally:
            await memory.set(await perdure.wait_for("tidy"), "tidy")

    def pays(memory: perdure.Entity) -> None:
        perdure.shielded(lambda: memory.set(1, "paid"))
        try:
            perdure.wait_for("go")
        finally:
            memory.set(perdure.wait_for("tidy"), "tidy")

    code: Any = pays_async if is_async else pays
    app.hook(name="pays")(code)
    work()
    client.create_entity("order", "order")
    handle = client.handle("order")
    task = handle.hook("pays")
    wait_for(dsn, "select 'go' = any(awaits) and token is null from perdure.tasks")
    handle.cancel_hook(task)
    wait_for(dsn, "select 'tidy' = any(awaits) and token is null from perdure.tasks")
    handle.signal("tidy", True)
    with pytest.raises(perdure.HookFailed):
        handle.hook_result(task, timeout=T)
    assert handle.memory.get() == {"paid": 1, "tidy": True}


def test_limited_wait_that_was_cancelled_leaves_no_timer(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    @app.coordinator
    def pays(memory: perdure.Entity) -> Any:
        try:
            return perdure.wait_for("go", timeout="1 h")
        except asyncio.CancelledError:
            return perdure.wait_for("stop")

    work()
    handle = client.start(pays)
    wait_for(dsn, "select until is not null and token is null from perdure.tasks")
    handle.cancel()
    wait_for(dsn, "select 'stop' = any(awaits) and token is null from perdure.tasks")
    wait_for(dsn, "select until is null from perdure.tasks")
    handle.signal("stop", 1)
    assert handle.result(T) == 1


def test_shield_of_plain_code_passes_on_results_and_errors(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """A shield that is called in the wrong form hints at the right one."""

    @app.activity
    def fails() -> None:
        raise LookupError("no")

    def tries() -> list[Any]:
        outcomes: list[Any] = [perdure.shielded(lambda: 7)]
        try:
            perdure.shielded(fails)
        except perdure.ActivityFailed as error:
            outcomes.append(error.message)
        try:
            perdure.shielded(fails.start())
        except perdure.InvalidArgument as error:
            outcomes.append(error.hint)
        return outcomes

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
    expected = [7, "no", "perdure.shielded(lambda: pay(memory, order))"]
    hint = "await perdure.shielded(pay(memory, order))"
    assert client.start(both).result(T) == [expected, expected, hint]


def test_shield_of_async_code_passes_on_results_and_errors(
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
            outcomes: list[Any] = [await perdure.shielded(answers(memory))]
        try:
            await perdure.shielded(fails())
        except perdure.ActivityFailed as error:
            outcomes.append(error.message)
        try:
            async with asyncio.timeout(0.01):
                await perdure.shielded(perdure.sleep(0.05))
        except TimeoutError:
            outcomes.append("late")
        return outcomes

    work()
    assert client.start(waits).result(T) == [7, "no", "late"]
    with pytest.raises(perdure.InvalidArgument):
        asyncio.run(perdure.shielded(None))  # type: ignore[arg-type]


def test_requests_made_in_a_shield_are_marked_as_shielded(
    app: perdure.App,
    client: perdure.Client,
    dsn: str,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mark keeps them running if the worker learns of a cancel after it built the turn."""
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
    marks = {request["args"][0]: request.get("shielded") for request in sent if request["args"]}
    assert marks == {1: True, 2: True, 3: None, 4: True, 5: True, 6: None} | {
        7: None, 8: True, 9: None, 10: True
    }  # fmt: skip


@pytest.mark.parametrize("hears_at", ["heartbeat", "wait"])
def test_parallel_wait_of_a_cancelled_hook_goes_on(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, hears_at: str
) -> None:
    """A hook cancelled between attempts can still await what its other asyncio task waits for."""

    async def other() -> Any:
        return await perdure.wait_for("other")

    @app.hook
    async def waits(memory: perdure.AsyncEntity) -> None:
        parallel = asyncio.create_task(other())
        try:
            await asyncio.sleep(0)  # `parallel` makes its call
            if hears_at == "heartbeat":
                perdure.heartbeat()
            await perdure.wait_for("go")
        finally:
            await memory.set(await parallel, "told")

    client.create_entity("e", "e")
    handle = client.handle("e")
    task = handle.hook(waits)
    note_earlier_attempt(dsn)
    assert handle.cancel_hook(task)
    work()
    wait_for(dsn, "select count(*) = 1 from perdure.tasks where awaits = '{other}'")
    handle.signal("other", 7)
    wait_for(dsn, "select count(*) = 0 from perdure.tasks")
    assert handle.memory.get() == {"told": 7}
