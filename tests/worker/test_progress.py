"""Progress and heartbeats: the progress of an attempt outlives the worker that ran it. (E20)"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import perdure
from perdure.database.calls import Calls
from perdure.workers.engine import Engine
from tests.worker.processes import worker_process
from tests.worker.test_recovery import ledger
from tests.worker.test_until import note_earlier_attempt, run, wait_for

T = "40 s"
SEEN = "select coalesce(bool_or(progress::text ~ '7'), false) from perdure.waiting"


@pytest.mark.parametrize("workflow", ["reads", "reads_far", "reads_in_hook", "reads_in_thread"])
def test_next_attempt_continues_from_the_progress_of_a_killed_one(
    client: perdure.Client, dsn: str, tmp_path: Path, workflow: str
) -> None:
    """[P4] [P6] After kill -9, the next attempt knows what the last heartbeat has reported."""
    path = tmp_path / "ledger"
    handle = client.start(workflow, 10)
    with worker_process(dsn, LEDGER=str(path), STOP_AT="7"):
        wait_for(dsn, SEEN)
    with worker_process(dsn, LEDGER=str(path)):
        assert handle.result("40 s") == 10
    assert ledger(path) == {f"page {n}": 1 for n in range(1, 11)}


def test_orderly_stop_records_progress_that_no_heartbeat_has_sent(
    app: perdure.App, client: perdure.Client, dsn: str
) -> None:
    begun = threading.Event()

    @app.activity(queue="far")
    async def far() -> Any:
        known = perdure.info().progress
        if known is None:
            perdure.heartbeat({"n": 7})
            begun.set()
            await asyncio.sleep(60)
        return known

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await far()

    with perdure.Worker(app, dsn=dsn, lease=300, grace=0.1):
        handle = client.start(asks)
        assert begun.wait(20)
    with perdure.Worker(app, dsn=dsn, lease=300):
        assert handle.result(T) == {"n": 7}


@pytest.mark.parametrize("queue", [None, "far"])
def test_next_attempt_continues_from_the_progress_of_a_failed_one(
    app: perdure.App, client: perdure.Client, work: Any, queue: str | None
) -> None:
    """The lease is so long that the worker sends no heartbeat in between."""

    @app.activity(queue=queue, retry=perdure.Retry(attempts=3, delay=0.01))
    def steps() -> Any:
        done = (perdure.info().progress or 0) + 1
        perdure.heartbeat(done)
        if done < 3:
            raise ConnectionError("not yet")
        return [done, perdure.info().attempt]

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await asyncio.gather(steps(), steps())

    work(lease=300)
    assert client.start(asks).result(T) == [[3, 2], [3, 2]]


def test_concurrent_activities_have_progress_of_their_own(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    go, end = threading.Event(), threading.Event()

    @app.activity
    def step(n: int) -> int:
        perdure.heartbeat(n)
        go.wait(20)
        return n

    @app.activity
    def waits() -> None:
        end.wait(20)

    @app.hook
    def both(memory: perdure.Entity) -> Any:
        perdure.heartbeat("in the hook")
        pending = [step.start(n) for n in (1, 2)]
        return [each.result() for each in pending]

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        results = await asyncio.gather(both(memory), step(3))
        await waits()
        return results

    work(lease=0.9)
    handle = client.start(asks)
    query = (
        "select coalesce(jsonb_agg(v.value order by v.value::text), '[]') from perdure.tasks as t"
    )
    query += " cross join lateral jsonb_each(t.progress) as v"
    wait_for(dsn, f"select ({query}) = '[\"in the hook\", 1, 2, 3]'")
    go.set()
    wait_for(dsn, f"select ({query}) = '[]'")  # ended work has no progress
    end.set()
    assert handle.result(T) == [[1, 2], 3]


def test_a_heartbeat_costs_no_statement(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    extend = Calls.extend
    monkeypatch.setattr(Calls, "extend", lambda *given: sent.append(given) or extend(*given))

    @app.activity
    def steps() -> None:
        for n in range(1000):
            perdure.heartbeat(n)

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> None:
        await steps()

    work(lease=300)
    client.start(asks).result(T)
    assert [tasks for _, tasks, _ in sent if tasks] == []


def test_progress_that_a_worker_in_sql_gives_a_hook_is_ignored(
    app: perdure.App, client: perdure.Client, connection: Any, work: Any
) -> None:
    @app.hook
    async def runs(memory: perdure.AsyncEntity) -> None:
        known = perdure.info().progress
        perdure.heartbeat("mine")
        await memory.set({"known": known})

    client.create_entity("e", "note")
    client.handle("e").hook(runs, key="k")
    reply = connection.execute("select claim('{default}', 'sql')").fetchone()[0]
    lease = {"job": "e", "task": "$hook/k", "token": reply["token"], "progress": 5}
    connection.execute("select release(%s)", [json.dumps([lease])])
    work()
    client.entity("e").until("exists($.known)", T)
    assert client.entity("e").get() == {"known": None}


# Cancels and timeouts.


@pytest.mark.parametrize("queue", [None, "far"])
def test_heartbeat_raises_in_a_plain_activity_after_a_cancel(
    app: perdure.App, client: perdure.Client, work: Any, queue: str | None
) -> None:
    """(E2) A thread cannot be cancelled, so it learns of the cancel at its next heartbeat."""
    begun, ended = threading.Event(), threading.Event()

    @app.activity(queue=queue)
    def runs() -> None:
        begun.set()
        try:
            while True:
                perdure.heartbeat()
                time.sleep(0.01)
        except asyncio.CancelledError:
            ended.set()
            raise

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> None:
        await runs()

    work(lease=0.9)
    handle = client.start(asks)
    assert begun.wait(20)
    handle.cancel()
    with pytest.raises(perdure.JobCancelled):
        handle.result(T)
    assert ended.wait(20)


def test_attempt_that_timed_out_ends_at_its_next_heartbeat(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    ended = threading.Event()

    @app.activity(timeout=0.1)
    def runs() -> None:
        try:
            while True:
                perdure.heartbeat()
                time.sleep(0.01)
        finally:
            ended.set()

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        try:
            await runs()
        except perdure.ActivityFailed as error:
            return error.type

    work()
    assert client.start(asks).result(T) == "TimeoutError"
    assert ended.wait(20)


@pytest.mark.parametrize("end", ["cancel", "terminate"])
def test_heartbeat_ends_a_plain_hook_that_nobody_wants(
    app: perdure.App, client: perdure.Client, work: Any, end: str
) -> None:
    begun, ended = threading.Event(), threading.Event()

    @app.hook
    def runs(memory: perdure.Entity) -> None:
        begun.set()
        try:
            while True:
                perdure.heartbeat()
                time.sleep(0.01)
        finally:
            ended.set()

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> None:
        await runs(memory)

    work(lease=0.9)
    handle = client.start(asks)
    assert begun.wait(20)
    getattr(handle, end)()
    with pytest.raises(perdure.JobCancelled):
        handle.result(T)
    assert ended.wait(20)


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("steps", [0, 1])
def test_replayed_hook_receives_a_cancel_where_it_waited(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, kind: str, steps: int
) -> None:
    """An earlier heartbeat must not raise it, before the `try` whose `finally` has to run."""
    came_to: list[str] = []

    @app.hook(name="async")
    async def on_the_loop(memory: perdure.AsyncEntity) -> None:
        perdure.heartbeat("begins")
        for step in range(steps):
            await memory.set(step, "step")
        try:
            await perdure.wait_for("go")
        finally:
            came_to.append("finally")
            await memory.set(True, "clean")
            perdure.heartbeat("is clean")
            await perdure.wait_for("end")  # the hook leaves memory once more
            came_to.append("end")

    @app.hook(name="plain")
    def in_a_thread(memory: perdure.Entity) -> None:
        perdure.heartbeat("begins")
        for step in range(steps):
            memory.set(step, "step")
        try:
            perdure.wait_for("go")
        finally:
            came_to.append("finally")
            memory.set(True, "clean")
            perdure.heartbeat("is clean")
            perdure.wait_for("end")
            came_to.append("end")

    parked = (
        "select count(*) = 1 from perdure.tasks where token is null and due_at > perdure.clock()"
        " and awaits = '{%s}'"
    )
    client.create_entity("e", "e")
    handle = client.handle("e")
    work()
    task = handle.hook(kind)
    wait_for(dsn, parked % "go")
    assert handle.cancel_hook(task)
    wait_for(dsn, parked % "end")
    handle.signal("end")
    wait_for(dsn, "select count(*) = 0 from perdure.tasks")
    assert handle.memory.get("clean") is True
    assert came_to[-2:] == ["finally", "end"]


def test_hook_that_only_computes_receives_a_cancel_at_its_first_heartbeat(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    ended = threading.Event()

    @app.hook
    def computes(memory: perdure.Entity) -> None:
        try:
            while True:
                perdure.heartbeat()
                time.sleep(0.01)
        finally:
            ended.set()

    client.create_entity("e", "e")
    handle = client.handle("e")
    task = handle.hook(computes)
    note_earlier_attempt(dsn)
    assert handle.cancel_hook(task)
    work()
    wait_for(dsn, "select count(*) = 0 from perdure.tasks")
    assert ended.is_set()


def test_hook_that_is_cancelled_before_it_begins_does_not_run(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """It needs no worker to end, and takes no token of its queue."""
    ran: list[str] = []

    @app.hook(queue="slow")
    async def runs(memory: perdure.AsyncEntity) -> None:
        ran.append("hook")

    @app.coordinator
    async def gives_up(memory: perdure.AsyncEntity) -> str:
        try:
            async with asyncio.timeout(0.1):
                await asyncio.gather(*(runs(memory) for _ in range(50)))
        except TimeoutError:
            return "late"
        return "in time"

    client.set_queue("slow", rate_per_second=0.001, burst=1)
    work(queues=["default", "slow"])
    assert client.start(gives_up).result(10) == "late"
    assert len(ran) <= 1
    wait_for(dsn, "select count(*) = 0 from perdure.tasks")


# Refusals.


def test_heartbeat_rejects_progress_that_cannot_be_stored(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.activity
    async def reports(what: str) -> Any:
        try:
            perdure.heartbeat({"large": "x" * 10_001, "nan": float("nan"), "set": {1}}[what])
        except perdure.PerdureError as error:
            return error.code

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        try:
            perdure.heartbeat(1)
        except perdure.InvalidArgument as error:
            return [str(error.hint), *[await reports(what) for what in ("large", "nan", "set")]]

    work()
    hint, *codes = client.start(asks).result(T)
    assert "activity or hook" in hint
    assert codes == ["PD301", "PD103", "PD103"]


def test_heartbeat_outside_of_jobs_is_rejected() -> None:
    with pytest.raises(perdure.InvalidArgument):
        perdure.heartbeat()


def test_worker_that_has_lost_its_task_reports_no_progress(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """[P6] The progress that the new holder of the task has reported stays."""
    begun, go = threading.Event(), threading.Event()

    @app.activity(queue="far")
    def runs() -> None:
        perdure.heartbeat("mine")
        begun.set()
        go.wait(20)

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> None:
        await runs()

    work(lease=1.5)
    handle = client.start(asks)
    assert begun.wait(20)
    taken = "update perdure.tasks set token = gen_random_uuid(), worker = 'x', progress = '\"its\"'"
    run(dsn, f"{taken}, due_at = 'tomorrow' where kind = 'activity'")
    time.sleep(1.0)
    assert run(dsn, "select progress from perdure.tasks where kind = 'activity'") == [("its",)]
    handle.terminate()
    go.set()


def test_late_answer_to_a_heartbeat_ends_no_later_lease() -> None:
    """The task may have been lost and claimed again in between."""
    dropped: list[str] = []
    turn = SimpleNamespace(token="new", in_flight=False, drop=lambda: dropped.append("new"))
    engine: Any = SimpleNamespace(held={("job", "1/main"): turn})
    task = {"job": "job", "task": "1/main", "token": "old"}
    Engine.heartbeat_answered(engine, task, "lost", False)
    assert dropped == []
    Engine.heartbeat_answered(engine, task | {"token": "new"}, "lost", False)
    assert dropped == ["new"]
