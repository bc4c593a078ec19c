"""Named scenarios on a real worker: a job affects neither another job nor its own past."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import perdure

T = "40 s"
Memory = perdure.AsyncEntity
Work = Callable[..., perdure.Worker]


@pytest.fixture
def runs() -> Counter[str]:
    """Provide a counter of runs."""
    return Counter()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    until = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_open_transaction_on_one_job_delays_no_other_job(
    app: perdure.App, client: perdure.Client, work: Work, dsn: str, runs: Counter[str]
) -> None:
    """[P8] The turn of the locked job waits on its own connection."""

    @app.activity
    async def pause(seconds: float) -> float:
        runs[f"pause {seconds}"] += 1
        await asyncio.sleep(seconds)
        return seconds

    @app.hook
    async def adds(memory: Memory, seconds: float) -> None:
        await memory.increment("n", 1 + 0 * await pause(seconds))

    @app.coordinator
    async def counts(memory: Memory, seconds: float) -> Any:
        await memory.increment("n")
        await adds(memory, seconds)
        return await memory.get("n")

    work(slots=100)
    locked = client.start(counts, 0.3, id="locked")
    wait_until(lambda: runs["pause 0.3"] == 1)
    with psycopg.connect(dsn) as user:
        user.execute(
            """update perdure.jobs set context = context || '{"user": 1}' where id = 'locked'"""
        )
        time.sleep(0.5)  # now the hook of the job waits for the lock
        others = [client.start(counts, 0.001) for _ in range(40)]
        assert [other.result(T) for other in others] == [2] * 40
        assert locked.status().status == "running"
    assert locked.result(T) == 2
    assert locked.memory.get() == {"n": 2, "user": 1}


def test_bad_turn_in_a_batch_of_100_does_not_affect_the_other_99(
    app: perdure.App, client: perdure.Client, work: Work, connection: psycopg.Connection[Any]
) -> None:
    """[P10] An unforeseen error parks the job that caused it, with the message, and the job can be
    resumed."""

    @app.activity
    async def step(x: int) -> int:
        return x

    @app.coordinator
    async def simple(memory: Memory, x: int) -> Any:
        await memory.set(await step(x), "x")
        return await memory.get("x")

    connection.execute(
        "create function public.spoil() returns trigger language plpgsql as"
        " 'begin raise exception ''the disk of job 50 is full''; end';"
        " create trigger spoils before insert on perdure.journal for each row"
        " when (new.job_id = 'job 50') execute function public.spoil()"
    )
    handles = client.start_many(simple, [{"args": [x], "id": f"job {x}"} for x in range(100)])
    work(slots=100)
    bad = handles.pop(50)
    assert [handle.result(T) for handle in handles] == [x for x in range(100) if x != 50]
    wait_until(lambda: "the disk of job 50 is full" in (bad.status().waiting_for or ""))
    assert bad.memory.get() == {}
    connection.execute("drop trigger spoils on perdure.journal")
    assert bad.resume() == 1
    assert bad.result(T) == 50


@pytest.mark.parametrize("slots", [1, 10])
def test_activity_in_flight_beside_a_wait_of_its_hook_runs_once(
    app: perdure.App,
    client: perdure.Client,
    work: Work,
    connection: psycopg.Connection[Any],
    runs: Counter[str],
    slots: int,
) -> None:
    """[P4] A hook leaves memory only if none of its activities is in flight."""

    @app.activity
    async def slow() -> str:
        runs["slow"] += 1
        await asyncio.sleep(0.4)
        runs["slow ended"] += 1
        return "slow"

    @app.hook
    async def wide(memory: Memory) -> Any:
        runs["wide"] += 1
        return await asyncio.gather(slow(), perdure.wait_for("go"), perdure.wait_for("later"))

    @app.coordinator
    async def waits(memory: Memory) -> Any:
        return await wide(memory)

    work(slots=slots)
    handle = client.start(waits)
    wait_until(lambda: runs["slow"] == 1)
    handle.signal("go", 1)
    left = "select token is null and awaits = '{later}' from tasks where kind = 'hook'"
    wait_until(lambda: connection.execute(left.encode()).fetchall() == [(True,)])
    assert runs["slow ended"] == 1
    handle.signal("later", 2)
    assert handle.result(T) == ["slow", 1, 2]
    assert (runs["slow"], runs["slow ended"], runs["wide"]) == (1, 1, 2)


def test_gathered_hooks_write_nothing_after_one_of_them_has_failed(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    """[P6] [P10] The coordinator fails with the hook's error, and its end stops its other hooks."""

    @app.hook
    async def fails(memory: Memory) -> None:
        await perdure.wait_for("fail")
        raise LookupError("the third source is gone")

    @app.hook
    async def writes(memory: Memory, who: str) -> None:
        for _ in range(10_000):
            await memory.increment(who)
            await asyncio.sleep(0.002)

    @app.coordinator
    async def three(memory: Memory) -> None:
        await asyncio.gather(fails(memory), writes(memory, "a"), writes(memory, "b"))

    work()
    handle = client.start(three)
    wait_until(lambda: (handle.memory.get("a") or 0) > 2 and (handle.memory.get("b") or 0) > 2)
    handle.signal("fail")
    with pytest.raises(perdure.JobFailed) as raised:
        handle.result(T)
    assert (raised.value.type, raised.value.message) == ("LookupError", "the third source is gone")
    assert "LookupError: the third source is gone" in (raised.value.traceback or "")
    left = handle.memory.get(), handle.status().version
    time.sleep(0.3)
    assert (handle.memory.get(), handle.status().version) == left


def test_thousand_signals_before_the_wait_all_arrive(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    """[P5] Signals stay in the inbox until the coordinator waits for them."""
    many = 1000

    @app.hook
    async def says(memory: Memory, x: int) -> None:
        await memory.signal("ready", x)

    @app.coordinator
    async def listens(memory: Memory) -> Any:
        await asyncio.gather(*(says(memory, x) for x in range(many)))
        return sorted([await perdure.wait_for("ready") for _ in range(many)])

    work(slots=200)
    assert client.start(listens).result("60 s") == list(range(many))


def test_fifty_jobs_use_the_same_signal_names_at_once(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    """[P5] Names of signals belong to one job, both for hooks that answer by signal and for plain
    signals."""

    @app.hook
    async def page(memory: Memory, x: int) -> None:
        await memory.signal("said", x)
        await memory.signal("page-done", {"x": x})

    @app.coordinator
    async def pages(memory: Memory, first: int) -> Any:
        told = await asyncio.gather(
            *(perdure.exec_hook(page, first + x, signal="page-done") for x in range(3))
        )
        said = [await perdure.wait_for("said") for _ in range(3)]
        return [[each["x"] for each in told], sorted(said), await perdure.wait_for("outside")]

    work()
    handles = client.start_many(pages, [{"args": [1000 * x]} for x in range(50)])
    for x, handle in enumerate(handles):
        handle.signal("outside", x)
    for x, handle in enumerate(handles):
        own = [1000 * x, 1000 * x + 1, 1000 * x + 2]
        assert handle.result(T) == [own, own, x]
