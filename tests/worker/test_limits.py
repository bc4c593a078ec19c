"""Time limits of activities and hooks hold across attempts, pauses and crashes. [P7] [P10] (E4)"""

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


def type_and_message(error: perdure.Failure) -> list[Any]:
    """Give the type and the message of a failure, without the number of attempts."""
    assert error.attempts is not None
    return [error.type, error.message.replace(f"{error.attempts} attempts", "n attempts")]


# Activities, in the worker of their caller and dispatched.


def here(app: perdure.App, **options: Any) -> Any:
    """Give a decorator of activities that run in the worker of their caller."""
    return app.activity(**options)


def far(app: perdure.App, **options: Any) -> Any:
    """Give a decorator of activities that are dispatched to a queue."""
    return app.activity(queue="far", **options)


@pytest.mark.parametrize("place", [here, far])
@pytest.mark.parametrize("caller", ["a coordinator", "a hook"])
def test_no_attempt_begins_after_the_limit_of_all_attempts(
    app: perdure.App, client: perdure.Client, work: Any, place: Any, caller: str
) -> None:
    """The failure says how many attempts there were, and quotes the error of the last one."""
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
            return [*type_and_message(error), error.attempts]

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
    assert began[-1] - began[0] <= 1.1  # with a margin: the limit is by the database's clock


@pytest.mark.parametrize("place", [here, far])
@pytest.mark.parametrize("is_async", [True, False])
def test_attempt_that_runs_at_the_limit_of_all_attempts_is_given_up(
    app: perdure.App, client: perdure.Client, work: Any, place: Any, is_async: bool
) -> None:
    """A thread cannot be stopped, so its result is ignored."""
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
def test_limit_of_all_attempts_counts_while_no_worker_lives(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, place: Any, caller: str
) -> None:
    """It counts from the first attempt, which is recorded. The next worker makes no other attempt,
    and reports the error of the last one."""
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
            return [*type_and_message(error), error.attempts]

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


def test_limit_of_all_attempts_counts_from_the_first_attempt(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """An activity still has the whole limit if its coordinator woke up late."""

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


def test_hook_that_times_out_cleans_up_and_is_retried(
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


def test_hook_has_a_limit_of_all_attempts(
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
        failures = []
        for hook in (fails, hangs):
            try:
                await hook(memory)
            except perdure.HookFailed as error:
                failures.append([*type_and_message(error), error.attempts])
        return failures

    work()
    first, second = client.start(waits).result(T)
    message = "hook fails was not done within 0.3 s, in n attempts;"
    message += " the last failed with ConnectionError: no route"
    assert first[:2] == ["TimeoutError", message]
    assert first[2] == calls["fails"] > 1
    assert second == ["TimeoutError", "hook hangs was not done within 0.2 s, in 1 attempt", 1]


@pytest.mark.parametrize("is_async", [True, False])
def test_parked_hook_times_out_while_no_worker_lives(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, is_async: bool
) -> None:
    """The next worker ends it where it waits, its `finally` block runs, and it is retried."""

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


# Errors that are not retried, and changed limits.


def test_errors_listed_in_never_are_recognized_by_name(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """A hook may raise them, or a dispatched activity, or a hook that awaits such an activity."""
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
        errors = await asyncio.gather(
            checks(), raises(memory), passes_on(memory), return_exceptions=True
        )
        return [[each.type, each.message] for each in errors]

    work()
    assert client.start(orders).result(T) == [["BadOrder", "no such item"]] * 3
    assert calls == {"checks": 2, "raises": 1, "passes_on": 1}


@pytest.mark.parametrize("options", [{"timeout": 0}, {"within": "0 s"}, {"within": "soon"}])
def test_invalid_time_limit_is_rejected(app: perdure.App, options: Any) -> None:
    for decorator in (app.activity, app.hook):
        with pytest.raises(perdure.InvalidArgument):
            decorator(**options)(lambda memory: None)


def test_limit_that_was_removed_from_the_code_no_longer_applies(
    app: perdure.App, client: perdure.Client, dsn: str
) -> None:
    """The code of an activity is replaced in the pause between two attempts."""

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


def test_limit_that_was_added_to_the_code_applies_to_the_next_attempt(
    client: perdure.Client, dsn: str
) -> None:
    """The code of an activity is replaced in the pause between two attempts."""

    def app_of(**limits: Any) -> perdure.App:
        app = perdure.App()

        @app.activity(retry=IN_AN_HOUR, **limits)
        async def act() -> None:
            if not limits:
                raise ConnectionError
            await asyncio.sleep(60)

        @app.coordinator
        async def asks(memory: perdure.AsyncEntity) -> Any:
            await act()

        return app

    handle = client.start("asks")
    with perdure.Worker(app_of(), dsn=dsn):
        wait_for(dsn, PAUSES.format(1))
    run(dsn, TWO_HOURS_LATER)
    with (
        perdure.Worker(app_of(within=0.3), dsn=dsn),
        pytest.raises(perdure.JobFailed, match="act was not done within"),
    ):
        handle.result(T)
