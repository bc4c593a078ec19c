"""`memory.until`, end to end: in coordinators and hooks, in async code and in plain code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from typing import Any

import psycopg
import pytest

import perdure

T = "40 s"


# The same wait in four places. Each workflow gives [version or "late", seconds of the wait].


def in_coordinator(app: perdure.App) -> Any:
    @app.coordinator
    async def waiter(memory: perdure.AsyncEntity, condition: str, limit: float | None) -> Any:
        await memory.set(True, "begun")
        began = perdure.now()
        try:
            outcome: Any = await memory.until(condition, limit)
        except TimeoutError:
            outcome = "late"
        return [outcome, (perdure.now() - began).total_seconds()]

    return waiter


def in_plain_coordinator(app: perdure.App) -> Any:
    @app.coordinator
    def waiter(memory: perdure.Entity, condition: str, limit: float | None) -> Any:
        memory.set(True, "begun")
        began = perdure.now()
        try:
            outcome: Any = memory.until(condition, limit)
        except TimeoutError:
            outcome = "late"
        return [outcome, (perdure.now() - began).total_seconds()]

    return waiter


def in_hook(app: perdure.App) -> Any:
    @app.hook
    async def waits(memory: perdure.AsyncEntity, condition: str, limit: float | None) -> Any:
        await memory.set(True, "begun")
        try:
            return await memory.until(condition, limit)
        except TimeoutError:
            return "late"

    return asking(app, waits)


def in_plain_hook(app: perdure.App) -> Any:
    @app.hook
    def waits(memory: perdure.Entity, condition: str, limit: float | None) -> Any:
        memory.set(True, "begun")
        try:
            return memory.until(condition, limit)
        except TimeoutError:
            return "late"

    return asking(app, waits)


def asking(app: perdure.App, waits: Any) -> Any:
    """Make a workflow whose hook waits."""

    @app.coordinator
    async def waiter(memory: perdure.AsyncEntity, condition: str, limit: float | None) -> Any:
        began = perdure.now()
        outcome = await waits(memory, condition, limit)
        return [outcome, (perdure.now() - began).total_seconds()]

    return waiter


PLACES = [in_coordinator, in_plain_coordinator, in_hook, in_plain_hook]


@pytest.fixture(params=PLACES, ids=lambda place: place.__name__)
def waiter(request: pytest.FixtureRequest, app: perdure.App) -> Any:
    """Give a workflow that waits, in each of the four places."""
    return request.param(app)


# Writers of the memory.


def by_client(handle: perdure.Handle, dsn: str, patch: dict[str, Any]) -> None:
    handle.memory.merge(patch)


def by_sql(handle: perdure.Handle, dsn: str, patch: dict[str, Any]) -> None:
    run(dsn, "select perdure.entity_merge(%s, %s)", handle.id, json.dumps(patch))


def by_update(handle: perdure.Handle, dsn: str, patch: dict[str, Any]) -> None:
    run(
        dsn,
        "update perdure.jobs set context = context || %s::jsonb where id = %s",
        json.dumps(patch),
        handle.id,
    )


def by_hook(handle: perdure.Handle, dsn: str, patch: dict[str, Any]) -> None:
    handle.hook("merges", patch)


WRITERS = [by_client, by_sql, by_update, by_hook]


@pytest.fixture(params=WRITERS, ids=lambda writer: writer.__name__)
def write(request: pytest.FixtureRequest, app: perdure.App) -> Any:
    """Give each way to write to a memory."""

    @app.hook
    async def merges(memory: perdure.AsyncEntity, patch: Any) -> None:
        await memory.merge(patch)

    return request.param


def run(dsn: str, query: str, *params: Any) -> list[Any]:
    # With a name of its own: behind a pooler, the session may have the name of an earlier client.
    with psycopg.connect(dsn, autocommit=True, application_name="test") as connection:
        cursor = connection.execute(query.encode(), params)
        return cursor.fetchall() if cursor.description else []


TWO_HOURS_LATER = """
    create or replace function perdure.clock() returns timestamptz
    language plpgsql volatile parallel safe set search_path = pg_catalog, perdure, pg_temp
    as 'begin return clock_timestamp() + interval ''2 h''; end'"""


def wait_for(dsn: str, query: str) -> None:
    """Wait until the query gives true."""
    until = time.monotonic() + 15
    while not run(dsn, query)[0][0]:
        assert time.monotonic() < until, query
        time.sleep(0.01)


def note_earlier_attempt(dsn: str) -> None:
    """Let hooks that wait for a worker have begun before, so that they are told of a cancel."""
    run(dsn, "update perdure.tasks set started_at = clock_timestamp()")


ASKED = "select exists (select from perdure.conditions)"
PARKED = (
    "select exists (select from perdure.conditions) and not exists"
    " (select from perdure.tasks where token is not null or due_at <= perdure.clock())"
)


# The condition is met before the wait, while the job runs, or when it is parked.


def test_condition_that_is_already_met_returns_at_once(
    client: perdure.Client, work: Any, waiter: Any
) -> None:
    work()
    outcome, _ = client.start(waiter, "$.begun == true && $.n == 1", None, context={"n": 1}).result(
        T
    )
    assert outcome == 2


def test_any_writer_that_meets_the_condition_wakes_the_wait(
    client: perdure.Client, dsn: str, work: Any, waiter: Any, write: Any
) -> None:
    """[P5] [P8] The wait returns the version that met the condition, not a later one."""
    work()
    handle = client.start(waiter, "$.n == 1", None)
    wait_for(dsn, ASKED)
    write(handle, dsn, {"n": 1})
    if write is not by_hook:  # a hook may run at any time
        write(handle, dsn, {"n": 2})
    assert handle.result(T)[0] == 2


def test_any_writer_that_meets_the_condition_wakes_a_parked_wait(
    client: perdure.Client, dsn: str, work: Any, app: perdure.App, waiter: Any, write: Any
) -> None:
    """[P5] No worker runs at that time, and the condition may be false again when one begins."""
    with perdure.Worker(app, dsn=dsn):
        handle = client.start(waiter, "$.n == 1", "1 day")
        wait_for(dsn, ASKED)
    wait_for(dsn, PARKED)
    assert "its memory: " in "".join(
        row[0] or "" for row in run(dsn, "select waits_for from perdure.waiting")
    )
    write(handle, dsn, {"n": 1})
    if write is not by_hook:
        write(handle, dsn, {"n": 0})
    work(cache=0)
    assert handle.result(T)[0] == 2


@pytest.mark.parametrize("slots", [1, 10])
def test_many_hooks_wait_for_each_other(
    app: perdure.App, client: perdure.Client, work: Any, slots: int
) -> None:
    """A hook that waits leaves memory, so that one slot is enough."""

    @app.hook
    async def link(memory: perdure.AsyncEntity, n: int) -> int:
        await memory.until(f"$.turn == {n}", timeout="1 h")
        return await memory.increment("turn")

    @app.hook
    def plain_link(memory: perdure.Entity, n: int) -> int:
        memory.until(f"$.turn == {n}")
        return memory.increment("turn")

    @app.coordinator
    async def chain(memory: perdure.AsyncEntity) -> Any:
        await memory.set({"turn": 0})
        links = [(link if n % 2 else plain_link)(memory, n) for n in reversed(range(1, 6))]
        waiting = asyncio.gather(*links)
        await memory.set(1, "turn")
        return [await memory.until("$.turn > 5"), await waiting]

    work(slots=slots)
    assert client.start(chain).result(T) == [7, [6, 5, 4, 3, 2]]


# Deadlines.


def test_wait_times_out_by_the_clock_of_the_database(
    client: perdure.Client, dsn: str, work: Any, waiter: Any
) -> None:
    """[P7] It does not time out too early, and leaves no condition behind."""
    work()
    began = time.monotonic()
    outcome, took = client.start(waiter, "$.n == 1", 0.4).result(T)
    assert outcome == "late"
    assert took >= 0.4
    assert time.monotonic() - began >= 0.4
    assert run(dsn, "select count(*) from perdure.conditions") == [(0,)]


@pytest.mark.parametrize("place", [in_coordinator, in_plain_coordinator])
def test_workflow_time_after_a_timeout_is_the_deadline(
    app: perdure.App, client: perdure.Client, work: Any, place: Any
) -> None:
    """[P7] [P9] It does not depend on when the worker notices the deadline."""
    waiter = place(app)
    work()
    assert client.start(waiter, "$.n == 1", 0.4).result(T) == ["late", 0.4]


@pytest.mark.parametrize("deadline", ["before it", "after it"])
def test_first_of_condition_and_deadline_decides(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, waiter: Any, deadline: str
) -> None:
    """[P7] [P9] No worker runs while the condition is met and the deadline passes."""
    with perdure.Worker(app, dsn=dsn):
        handle = client.start(waiter, "$.n == 1", 3600)
        wait_for(dsn, ASKED)
    if deadline == "after it":
        handle.memory.set(1, "n")
    run(dsn, TWO_HOURS_LATER)
    if deadline == "before it":
        handle.memory.set(1, "n")
    work(cache=0)

    assert handle.result(T)[0] == (2 if deadline == "after it" else "late")
    assert run(dsn, "select count(*) from perdure.conditions") == [(0,)]


# Beside other waits, cancels and retries.


def test_until_works_with_asyncio(app: perdure.App, client: perdure.Client, work: Any) -> None:
    @app.hook
    async def counts(memory: perdure.AsyncEntity) -> None:
        for _ in range(3):
            await memory.increment("n")

    @app.coordinator
    async def mixes(memory: perdure.AsyncEntity) -> Any:
        counting = counts(memory)
        three = [memory.until(f"$.n == {n}") for n in (1, 2, 3)]
        results = await asyncio.gather(counting, *three)
        never = asyncio.ensure_future(memory.until("$.n == 9"))
        sent = asyncio.ensure_future(perdure.wait_for("go"))
        done, _ = await asyncio.wait((never, sent), return_when=asyncio.FIRST_COMPLETED)
        never.cancel()
        try:
            async with asyncio.timeout(0.1):
                await memory.until("$.n == 9")
        except TimeoutError:
            results.append("late")
        results.append(await asyncio.wait_for(memory.until("$.n == 3"), 60))
        return [*results, done == {sent}, never.cancelled()]

    work()
    handle = client.start(mixes)
    handle.signal("go")
    assert handle.result(T) == [None, 1, 2, 3, "late", 3, True, True]


def test_cancelled_wait_leaves_no_condition(
    client: perdure.Client, dsn: str, work: Any, waiter: Any
) -> None:
    work()
    handle = client.start(waiter, "$.n == 1", None)
    wait_for(dsn, ASKED)
    assert handle.cancel()
    with pytest.raises(perdure.JobCancelled):
        handle.result(T)
    wait_for(dsn, "select not exists (select from perdure.conditions)")  # a hook may take longer
    handle.memory.set(1, "n")


def test_retried_hook_continues_to_wait(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """It gets the answer from before its failure again, and then waits for the next one."""

    @app.hook(retry=perdure.Retry(attempts=3, delay=0.02))
    async def stumbles(memory: perdure.AsyncEntity) -> Any:
        first = await memory.until("$.n == 1")
        if perdure.info().attempt < 1:
            never = asyncio.ensure_future(memory.until("$.n == 2"))
            await memory.set(True, "failing")
            raise ConnectionError(str(never))
        return [first, await memory.until("$.n == 2"), perdure.info().attempt]

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await stumbles(memory)

    work()
    handle = client.start(asks)
    handle.memory.set(1, "n")
    wait_for(dsn, "select (context ->> 'failing')::boolean is true from perdure.jobs")
    handle.memory.set(2, "n")
    assert handle.result(T) == [1, 3, 1]


# Invalid conditions.


def test_invalid_condition_fails_a_hook(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.hook
    async def wrong(memory: perdure.AsyncEntity) -> None:
        await memory.until("n > 3")

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        try:
            await wrong(memory)
        except perdure.HookFailed as error:
            return [error.type, error.message]

    work()
    assert client.start(asks).result(T) == [
        "InvalidCondition",
        "this is not a condition on a memory: n > 3",
    ]


def test_invalid_condition_makes_a_coordinator_stuck_until_it_is_mended(
    dsn: str, client: perdure.Client
) -> None:
    """[P9] Nothing has been requested, so the mended code may request something else."""

    def app_with(condition: str) -> perdure.App:
        app = perdure.App()

        @app.coordinator
        async def asks(memory: perdure.AsyncEntity) -> Any:
            await memory.set({"n": 4})
            return await memory.until(condition)

        return app

    with perdure.Worker(app_with("$.n >"), dsn=dsn):
        handle = client.start("asks")
        wait_for(dsn, "select bool_or(stuck_reason is not null) from perdure.tasks")
    assert "not a condition on a memory: $.n >" in (handle.status().waiting_for or "")
    with perdure.Worker(app_with("$.n > 3"), dsn=dsn):
        assert handle.result(T) == 1


def both_at_once(app: perdure.App, release: threading.Event) -> None:
    """Register a coordinator and a hook that wait in memory, beside an activity."""

    @app.activity
    def busy() -> None:
        release.wait(20)

    async def waits(memory: perdure.AsyncEntity) -> Any:
        async def decided() -> Any:
            try:
                return await memory.until("$.n == 1", 2.2)
            except TimeoutError:
                return "late"

        return (await asyncio.gather(decided(), busy()))[0]

    app.coordinator(name="coordinator")(waits)
    hook = app.hook(name="hook")(waits)

    @app.coordinator(name="asks a hook")
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await hook(memory)


def eventually(connection: psycopg.Connection[Any], query: str, wanted: Any) -> None:
    """Repeat the query until it gives what is wanted."""
    end = time.monotonic() + 15
    while (found := connection.execute(query.encode()).fetchone()) != (wanted,):
        assert time.monotonic() < end, f"{query} gives {found}, not {wanted}"
        time.sleep(0.02)


@pytest.mark.parametrize("workflow", ["coordinator", "asks a hook"])
def test_condition_met_between_two_polls_wins_over_a_later_deadline(
    app: perdure.App, client: perdure.Client, connection: Any, work: Any, workflow: str
) -> None:
    """(E10) A wait in memory polls less and less often, and once more at its deadline."""
    release = threading.Event()
    both_at_once(app, release)
    work()
    handle = client.start(workflow)
    eventually(connection, "select count(*) from conditions", 1)
    time.sleep(1.63)  # the last poll before that at the deadline was after 1.26 s, or after 1.42
    version = handle.memory.set(1, "n")
    time.sleep(0.9)
    release.set()
    assert handle.result(T) == version


def test_hook_withdraws_a_condition_that_it_no_longer_waits_for(
    app: perdure.App, client: perdure.Client, connection: Any, work: Any
) -> None:
    """(E10) The hook gets no late answer, and no writer checks the condition in vain."""

    @app.hook
    async def waits(memory: perdure.AsyncEntity) -> None:
        with contextlib.suppress(TimeoutError):
            await memory.until("$.n == 1", 0.05)
        await perdure.wait_for("go")

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> None:
        await waits(memory)

    work()
    handle = client.start(asks)
    eventually(connection, "select count(*) from tasks where awaits = '{go}'", 1)
    eventually(connection, "select count(*) from conditions", 0)
    handle.memory.set(1, "n")
    eventually(connection, "select count(*) from inbox where key like '$until%'", 0)
    handle.signal("go")
    assert handle.result(T) is None
    eventually(connection, "select count(*) from journal where is_answer and key like '$until%'", 0)
