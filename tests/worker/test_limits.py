"""Limits of time on activities and hooks, end to end: exact across attempts, pauses and crashes.
[P7] [P10] (E4)"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import Any

import pytest

import perdure
from tests.worker.test_until import TWO_HOURS_LATER, run, wait_for

T = "40 s"
QUICK = perdure.Retry(attempts=100, delay=0.02, factor=1, jitter=0)
IN_AN_HOUR = perdure.Retry(attempts=3, delay="1 h", max_delay="1 h", factor=1, jitter=0)
PAUSES = "select count(*) = {} from perdure.tasks where token is null and due_at > perdure.clock()"


def told_of(error: perdure.Failure) -> list[Any]:
    """Give what a failure tells, the number of attempts as far as it is known beforehand."""
    assert error.attempts is not None
    return [error.type, error.message.replace(f"{error.attempts} attempts", "n attempts")]


# Activities, wherever they run.


def here(app: perdure.App, **options: Any) -> Any:
    """Give a decorator of activities that run beside a coordinator."""
    return app.activity(**options)


def far(app: perdure.App, **options: Any) -> Any:
    """Give a decorator of activities that run on a queue."""
    return app.activity(queue="far", **options)


@pytest.mark.parametrize("place", [here, far])
@pytest.mark.parametrize("caller", ["a coordinator", "a hook"])
def test_no_attempt_begins_when_the_time_for_all_is_up(
    app: perdure.App, client: perdure.Client, work: Any, place: Any, caller: str
) -> None:
    """The failure tells how many there were, and what the last one said."""
    began: list[float] = []

    @place(app, retry=QUICK, within=1)  # long enough for two, on a busy machine too
    async def fails() -> None:
        began.append(time.monotonic())
        raise ConnectionError("no route")

    @app.hook
    async def asks(memory: perdure.AsyncEntity) -> Any:
        try:
            await fails()
        except perdure.ActivityFailed as error:
            return [*told_of(error), error.attempts]

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        return await (asks(memory) if caller == "a hook" else asks.function(memory))

    work()
    kind, message, attempts = client.start(waits).result(T)
    assert kind == "TimeoutError"
    assert message == (
        "activity fails was not done within 1 s, in n attempts;"
        " the last failed with ConnectionError: no route"
    )
    assert attempts == len(began) > 1
    assert began[-1] - began[0] <= 1.1  # a little more than the database's clock tells


@pytest.mark.parametrize("place", [here, far])
@pytest.mark.parametrize("is_async", [True, False])
def test_an_attempt_that_runs_when_the_time_for_all_is_up_is_given_up(
    app: perdure.App, client: perdure.Client, work: Any, place: Any, is_async: bool
) -> None:
    """A thread cannot be stopped: what it gives is ignored."""
    ended = threading.Event()
    calls: Counter[str] = Counter()

    async def hangs() -> None:
        calls["async"] += 1
        await asyncio.sleep(60)

    def hangs_plainly() -> None:
        calls["plain"] += 1
        ended.wait(20)

    activity = place(app, retry=QUICK, timeout="1 h", within=0.2)(
        hangs if is_async else hangs_plainly
    )

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        try:
            await activity()
        except perdure.ActivityFailed as error:
            return [error.message, error.attempts]

    work()
    name = "hangs" if is_async else "hangs_plainly"
    message = f"activity {name} was not done within 0.2 s, in 1 attempt"
    assert client.start(waits).result(T) == [message, 1]
    assert calls.total() == 1
    ended.set()


@pytest.mark.parametrize("place", [here, far])
@pytest.mark.parametrize("caller", ["a coordinator", "a hook"])
def test_time_goes_on_while_no_worker_lives(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, place: Any, caller: str
) -> None:
    """It counts from the first attempt, which is recorded: another worker makes no attempt then,
    and tells what the last one has said."""
    calls: Counter[str] = Counter()

    @place(app, retry=IN_AN_HOUR, within="90 min")
    async def fails() -> None:
        calls["fails"] += 1
        raise ConnectionError("no route")

    @app.hook
    async def asks(memory: perdure.AsyncEntity) -> Any:
        try:
            await fails()
        except perdure.ActivityFailed as error:
            return [*told_of(error), error.attempts]

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        return await (asks(memory) if caller == "a hook" else asks.function(memory))

    worker = work()
    handle = client.start(waits)
    tasks = (1 if place is here else 2) + (1 if caller == "a hook" else 0)
    wait_for(dsn, PAUSES.format(tasks))
    worker.stop()
    run(dsn, TWO_HOURS_LATER)
    work()
    message = (
        "activity fails was not done within 5400 s, in 1 attempt;"
        " the last failed with ConnectionError: no route"
    )
    assert handle.result(T) == ["TimeoutError", message, 1]
    assert calls == {"fails": 1}


def test_within_counts_from_the_first_attempt_not_from_the_last_thing_that_was_told(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """A coordinator that wakes late still has all the time."""

    @app.activity(within="1 h")
    async def act() -> str:
        return "done"

    @app.coordinator
    async def sleeps(memory: perdure.AsyncEntity) -> str:
        await perdure.sleep("10 min")
        return await act()

    worker = work()
    handle = client.start(sleeps)
    wait_for(dsn, PAUSES.format(1))
    worker.stop()
    run(dsn, TWO_HOURS_LATER)
    work()
    assert handle.result(T) == "done"


# Hooks.


def test_a_hook_that_takes_too_long_is_cancelled_cleans_up_and_is_tried_again(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.hook(timeout=0.2, retry=perdure.Retry(attempts=2, delay=0.01))
    async def slow(memory: perdure.AsyncEntity) -> str:
        if perdure.info().attempt == 0:
            try:
                await asyncio.sleep(60)
            finally:
                await memory.append("clean", "slow")
        return "quick"

    @app.hook(timeout=0.2)
    def plain(memory: perdure.Entity) -> None:
        try:
            perdure.wait_for("never")
        finally:
            memory.append("clean", "plain")

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        await memory.set([], "clean")
        first = await slow(memory)
        try:
            await plain(memory)
        except perdure.HookFailed as error:
            return [first, error.type, error.message, error.attempts, await memory.get("clean")]

    work()
    assert client.start(waits).result(T) == [
        "quick", "TimeoutError", "hook plain took longer than 0.2 s", 1, ["slow", "plain"],
    ]  # fmt: skip


def test_a_hook_has_its_limit_of_time_for_all_attempts(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    calls: Counter[str] = Counter()

    @app.hook(retry=QUICK, within=0.3)
    async def fails(memory: perdure.AsyncEntity) -> None:
        calls["fails"] += 1
        raise ConnectionError("no route")

    @app.hook(retry=QUICK, timeout="1 h", within=0.2)
    async def hangs(memory: perdure.AsyncEntity) -> None:
        await perdure.wait_for("never")

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        told = []
        for hook in (fails, hangs):
            try:
                await hook(memory)
            except perdure.HookFailed as error:
                told.append([*told_of(error), error.attempts])
        return told

    work()
    first, second = client.start(waits).result(T)
    message = "hook fails was not done within 0.3 s, in n attempts;"
    message += " the last failed with ConnectionError: no route"
    assert first[:2] == ["TimeoutError", message]
    assert first[2] == calls["fails"] > 1
    assert second == ["TimeoutError", "hook hangs was not done within 0.2 s, in 1 attempt", 1]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_parked_hook_is_woken_when_its_time_is_up_though_no_worker_lived_then(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, is_async: bool
) -> None:
    """Where it waits, with what it waits for withdrawn; and it has its whole time once more."""

    async def waits(memory: perdure.AsyncEntity) -> Any:
        if perdure.info().attempt == 1:
            return "in time"
        try:
            await perdure.exec_hook("nothing", queue="nowhere")
        finally:
            await memory.set(True, "clean")

    def waits_plainly(memory: perdure.Entity) -> Any:
        if perdure.info().attempt == 1:
            return "in time"
        try:
            perdure.exec_hook("nothing", queue="nowhere")
        finally:
            memory.set(True, "clean")

    made: Any = app.hook(timeout="1 h", retry=perdure.Retry(attempts=2, delay=0.01))
    hook = made(waits if is_async else waits_plainly)

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return [await hook(memory), await memory.get("clean")]

    worker = work()
    handle = client.start(asks)
    parked = "select exists (select from perdure.tasks where due_at = started_at + interval '1 h')"
    wait_for(dsn, parked)
    worker.stop()
    run(dsn, TWO_HOURS_LATER)
    work()
    assert handle.result(T) == ["in time", True]


def test_asyncio_timeout_cancels_a_hook(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    @app.hook
    async def waits(memory: perdure.AsyncEntity) -> None:
        try:
            await perdure.wait_for("never")
        finally:
            await memory.set(True, "clean")

    @app.coordinator
    async def limits(memory: perdure.AsyncEntity) -> str:
        try:
            async with asyncio.timeout(0.2):
                await waits(memory)
        except TimeoutError:
            return "late"
        return "in time"

    work()
    handle = client.start(limits)
    assert handle.result(T) == "late"
    assert handle.memory.until("$.clean == true", timeout=T)  # also when the job has ended
    wait_for(dsn, "select not exists (select from perdure.tasks)")


# What is not tried again, and who is asked.


def test_types_that_are_never_tried_again_are_known_by_name_across_processes(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """Of a hook, an activity on a queue, and of what these have got from others."""
    calls: Counter[str] = Counter()
    never = perdure.Retry(attempts=5, delay=0.01, never=("BadOrder",))

    class BadOrder(Exception): ...

    @app.activity(queue="far", retry=never)
    async def checks() -> None:
        calls["checks"] += 1
        raise BadOrder("no such item")

    @app.hook(retry=never)
    async def raises(memory: perdure.AsyncEntity) -> None:
        calls["raises"] += 1
        raise BadOrder("no such item")

    @app.hook(retry=never)
    async def passes_on(memory: perdure.AsyncEntity) -> None:
        calls["passes_on"] += 1
        await checks()

    @app.coordinator
    async def orders(memory: perdure.AsyncEntity) -> Any:
        told = await asyncio.gather(
            checks(), raises(memory), passes_on(memory), return_exceptions=True
        )
        return [[each.type, each.message] for each in told]

    work()
    assert client.start(orders).result(T) == [["BadOrder", "no such item"]] * 3
    assert calls == {"checks": 2, "raises": 1, "passes_on": 1}


@pytest.mark.parametrize("options", [{"timeout": 0}, {"within": "0 s"}, {"within": "soon"}])
def test_a_limit_that_is_none_is_refused(app: perdure.App, options: Any) -> None:
    for decorator in (app.activity, app.hook):
        with pytest.raises(perdure.InvalidArgument):
            decorator(**options)(lambda memory: None)


def test_code_that_has_lost_its_limit_has_none(
    app: perdure.App, client: perdure.Client, dsn: str
) -> None:
    """In a pause between two attempts of a coordinator's activity the code is replaced."""

    def app_of(error: Exception | None, **limits: Any) -> perdure.App:
        app = perdure.App()

        @app.activity(retry=IN_AN_HOUR, **limits)
        async def act() -> str:
            if error is not None:
                raise error
            return "done"

        @app.coordinator
        async def asks(memory: perdure.AsyncEntity) -> Any:
            return await act()

        return app

    handle = client.start("asks")
    with perdure.Worker(app_of(ConnectionError(), within="90 min"), dsn=dsn):
        wait_for(dsn, PAUSES.format(1))
    run(dsn, TWO_HOURS_LATER)
    with perdure.Worker(app_of(None), dsn=dsn):
        assert handle.result(T) == "done"
