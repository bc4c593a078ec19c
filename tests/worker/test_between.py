"""Events between the decision of a worker about a task and its execution.

None of them is lost, and none reaches code that no longer runs.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from typing import Any

import psycopg
import pytest

import perdure
from perdure.database.connections import AsyncLink
from perdure.errors import ValueSealed
from perdure.workers import coordinators
from perdure.workers.committer import Committer
from perdure.workers.engine import Engine
from perdure.workers.hooks import HookTurn
from perdure.workers.lent_connections import NAME
from perdure.workers.transactions import TransactionAttempt
from tests.worker.test_until import wait_for

T = "10 s"
A_MOMENT = 0.2


def take_away(dsn: str, name: str) -> None:
    """Take the task of this name from its worker, and make it due."""
    taken = "update perdure.tasks set token = gen_random_uuid(), due_at = now() where name = %s"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(taken, [name])


def waits_elsewhere(begun: Any) -> None:
    """Wait for something else, and find that the call begun before is cancelled too."""
    try:
        perdure.wait_for("never")
    finally:
        with pytest.raises(asyncio.CancelledError):
            begun.result()


def waits_for_begun_call(begun: Any) -> None:
    """Wait for the call that was begun before."""
    begun.result()


@pytest.mark.parametrize("waits_next", [waits_elsewhere, waits_for_begun_call])
def test_busy_plain_code_is_cancelled_where_it_waits_next(
    app: perdure.App, client: perdure.Client, work: Any, waits_next: Any
) -> None:
    """(E2) It is cancelled once, although an activity that it began is cancelled at once."""
    is_aside, goes_on = threading.Event(), threading.Event()

    @app.activity
    async def aside() -> None:
        is_aside.set()
        try:
            await asyncio.sleep(60)
        finally:
            goes_on.set()

    @app.hook
    def busy(memory: perdure.Entity) -> None:
        begun = aside.start()
        assert is_aside.wait(30)  # a call that has not begun would not notice the cancel
        memory.set(True, "ready")
        goes_on.wait(30)
        try:
            waits_next(begun)
        finally:
            memory.set(True, "clean")

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        try:
            await busy(memory)
        except perdure.HookFailed as error:
            return [error.type, await memory.get("clean")]

    work(lease=1)
    handle = client.start(waits)
    handle.memory.until("$.ready == true", timeout=T)
    assert client.handle(handle.id).cancel_hook("1/main/busy#1")
    assert handle.result(T) == ["CancelledError", True]


def wakes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make threads of hooks slow to see an answer."""
    result = Future.result

    def slow(future: Future[Any], timeout: float | None = None) -> Any:
        try:
            return result(future, timeout)
        finally:
            if threading.current_thread().name.startswith("perdure-hook"):
                time.sleep(A_MOMENT)

    monkeypatch.setattr(Future, "result", slow)


def begins_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make calls of threads slow to reach the event loop."""
    submit = asyncio.run_coroutine_threadsafe

    def slow(asked: Any, loop: asyncio.AbstractEventLoop) -> Future[Any]:
        future: Future[Any] = Future()

        def hand_over(answered: Future[Any]) -> None:
            if (error := answered.exception()) is not None:
                future.set_exception(error)
            else:
                future.set_result(answered.result())

        def begin() -> None:
            submit(asked, loop).add_done_callback(hand_over)

        loop.call_soon_threadsafe(loop.call_later, A_MOMENT, begin)
        return future

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", slow)


@pytest.mark.parametrize(("slow_down", "pause"), [(wakes_late, 0), (begins_late, 2 * A_MOMENT)])
def test_hook_is_not_parked_while_its_thread_has_work_to_do(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
    slow_down: Any,
    pause: float,
) -> None:
    """If it were parked, it would sleep until another open call of it is answered."""

    @app.hook
    async def aside(memory: perdure.AsyncEntity) -> None:
        await perdure.wait_for("never")

    @app.activity
    async def act() -> str:
        return "done"

    @app.hook
    def acts(memory: perdure.Entity) -> str:
        aside.start()
        time.sleep(pause)
        return act()

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> str:
        return await acts(memory)

    slow_down(monkeypatch)
    work(slots=1)
    assert client.start(waits).result(T) == "done"


def test_hook_that_times_out_just_before_it_is_parked_is_cancelled(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a hook is not parked: it would have no time to wake up at, since that has passed."""
    leave = HookTurn.leave

    def leaves(turn: HookTurn) -> None:
        leave(turn)
        if not turn._is_late:
            turn._until = turn.engine.clock.now()
            turn._time_is_up()

    @app.hook(timeout="1 h")
    async def waits_long(memory: perdure.AsyncEntity) -> None:
        try:
            await perdure.wait_for("never")
        finally:
            await memory.set(True, "clean")

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        try:
            await waits_long(memory)
        except perdure.HookFailed as error:
            return [error.type, await memory.get("clean")]

    monkeypatch.setattr(HookTurn, "leave", leaves)
    work(slots=1)
    assert client.start(waits).result(T) == ["TimeoutError", True]


def test_thread_that_loses_its_task_is_not_cancelled(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """The next holder of the task continues it, so the thread must not undo anything."""
    cancels: list[str] = []

    @app.hook
    def waits_plainly(memory: perdure.Entity) -> str:
        memory.set(True, "ready")
        try:
            perdure.wait_for("go")
        except asyncio.CancelledError:
            cancels.append("a cancel")
            raise
        return "went on"

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> str:
        return await waits_plainly(memory)

    work(lease=1)
    handle = client.start(waits)
    handle.memory.until("$.ready == true", timeout=T)
    take_away(dsn, "waits_plainly")
    handle.signal("go")
    assert handle.result(T) == "went on"
    assert cancels == []


def test_hook_rejected_while_its_thread_unwinds_fails_with_the_reason(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a hook is not parked, because it has nothing left to wait for."""
    unwinds, refused = threading.Event(), threading.Event()
    leave, answered, make_round = HookTurn.leave, HookTurn.answered, Committer._round

    def leaves(turn: HookTurn) -> None:
        leave(turn)
        turn.check_inbox()

    def refuses(turn: HookTurn, answer: dict[str, Any]) -> None:
        if turn._is_unwinding and not refused.is_set():
            answer = {"state": "refused", "error": {"code": "PD107", "message": "not so"}}
            refused.set()
        answered(turn, answer)

    async def is_busy(committer: Committer) -> None:
        if refused.is_set() and not unwinds.is_set():
            unwinds.set()
            await asyncio.sleep(A_MOMENT)
        await make_round(committer)

    @app.hook
    def waits_plainly(memory: perdure.Entity) -> None:
        try:
            perdure.wait_for("never")
        finally:
            unwinds.wait(30)

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        try:
            await waits_plainly(memory)
        except perdure.HookFailed as error:
            return error.message

    monkeypatch.setattr(HookTurn, "leave", leaves)
    monkeypatch.setattr(HookTurn, "answered", refuses)
    monkeypatch.setattr(Committer, "_round", is_busy)
    work(slots=1)
    assert client.start(waits).result(T) == "not so"


def test_plain_code_is_cancelled_after_the_shielded_call_it_waits_for(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """(E2) The shielded call is completed, although another open call is cancelled at once."""
    goes_on = threading.Event()

    @app.activity
    async def aside() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            goes_on.set()

    @app.activity
    def part() -> str:
        goes_on.wait(30)
        return "done"

    @app.hook
    def busy(memory: perdure.Entity) -> None:
        begun = perdure.shielded(part.start)
        aside.start()
        memory.set(True, "ready")
        result = begun.result()
        try:
            perdure.wait_for("never")
        finally:
            memory.set(result, "part")

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        try:
            await busy(memory)
        except perdure.HookFailed as error:
            return [error.type, await memory.get("part")]

    work(lease=1)
    handle = client.start(waits)
    handle.memory.until("$.ready == true", timeout=T)
    assert client.handle(handle.id).cancel_hook("1/main/busy#1")
    assert handle.result(T) == ["CancelledError", "done"]


def test_hook_that_restarts_from_its_journal_keeps_progress_of_activities(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The progress is newer than what the claim returned, as after the loss of a worker."""
    answered, has_reported = HookTurn.answered, threading.Event()
    begun: list[Any] = []

    def starts_over(turn: HookTurn, answer: dict[str, Any]) -> None:
        is_due = has_reported.is_set() and len(begun) == 1
        answered(turn, {"state": "stale"} if is_due else answer)

    @app.activity
    async def reads() -> Any:
        begun.append(perdure.info().progress)
        if len(begun) == 1:
            perdure.heartbeat({"page": 12})
            has_reported.set()
            await asyncio.sleep(60)
        return begun[-1]

    @app.hook
    async def reads_aside(memory: perdure.AsyncEntity) -> Any:
        waiting = asyncio.create_task(perdure.wait_for("never"))
        page = await reads()
        waiting.cancel()
        return page

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        return await reads_aside(memory)

    monkeypatch.setattr(HookTurn, "answered", starts_over)
    work()
    assert client.start(waits).result(T) == {"page": 12}


def test_failed_read_of_a_lost_task_does_not_harm_its_next_turn(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker loses a task while it reads its journal, and claims it again; the failure of that
    read does not end the new turn."""
    read_journal = Engine.read_journal
    reads, begins, fails = threading.Event(), threading.Event(), threading.Event()
    begun: list[str] = []

    async def slow(engine: Engine, job: str, task: str) -> Any:
        if not reads.is_set():
            reads.set()
            await asyncio.to_thread(fails.wait, 30)
            raise ValueSealed("there is no key")
        return await read_journal(engine, job, task)

    @app.hook
    async def takes_long(memory: perdure.AsyncEntity) -> int:
        begun.append(perdure.info().task)
        begins.set()
        await asyncio.sleep(2)
        return len(begun)

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> int:
        return await takes_long(memory)

    monkeypatch.setattr(Engine, "read_journal", slow)
    monkeypatch.setattr(HookTurn, "begin", lambda turn: turn.engine.spawn(turn._reload(), turn))
    work(lease=1)
    handle = client.start(waits)
    assert reads.wait(20)
    take_away(dsn, "takes_long")
    assert begins.wait(20)
    fails.set()
    assert handle.result(T) == 1


def test_task_with_an_unknown_commit_is_released(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P12] If neither a commit nor the question about it is answered, the worker releases the task
    instead of holding it for ever."""
    judged, call = TransactionAttempt._judged, AsyncLink.call
    lost: list[str] = []

    def loses(attempt: TransactionAttempt, reply: Any) -> Any:
        answer = judged(attempt, reply)
        if not lost:
            lost.append("commit")
            raise psycopg.OperationalError("the connection is lost")
        return answer

    async def refuses(link: AsyncLink, asked: Any) -> Any:
        if lost == ["commit"] and link._name == NAME:
            lost.append("question")
            raise psycopg.errors.InsufficientPrivilege("permission denied")
        return await call(link, asked)

    @app.transaction
    async def pays(connection: psycopg.AsyncConnection[Any]) -> str:
        return "paid"

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> str:
        return await pays()

    monkeypatch.setattr(TransactionAttempt, "_judged", loses)
    monkeypatch.setattr(AsyncLink, "call", refuses)
    work(lease=1)
    assert client.start(waits).result(T) == "paid"
    assert lost == ["commit", "question"]


def test_stopping_worker_releases_tasks_whose_threads_only_wait(
    app: perdure.App,
    client: perdure.Client,
    dsn: str,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The threads are woken first, so no other worker must wait for the end of the lease."""
    begun = threading.Event()

    @app.activity
    async def act() -> None:
        begun.set()
        await asyncio.sleep(60)

    @app.hook
    def acts(memory: perdure.Entity) -> None:
        act()

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await acts(memory)

    wakes_late(monkeypatch)
    worker = work(grace=0.1)
    client.start(waits)
    assert begun.wait(20)
    worker.stop()
    given_back = "select token is null from perdure.tasks where name = 'acts'"
    with psycopg.connect(dsn) as connection:
        assert connection.execute(given_back).fetchone() == (True,)


def test_parked_coordinator_resumes_with_progress_from_other_workers(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress that another worker reported before it was lost reaches the next attempt."""
    is_parked = "select token is null and progress is not null from perdure.tasks"
    begun: list[Any] = []

    @app.activity(retry=perdure.Retry(attempts=2, delay=2))
    async def reads() -> Any:
        begun.append(perdure.info().progress)
        if len(begun) == 1:
            perdure.heartbeat({"page": 12})
            await asyncio.sleep(1)
            raise ConnectionError("no route")
        return begun[-1]

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        return await reads()

    monkeypatch.setattr(coordinators, "SHORT_PAUSE", 0)
    work(lease=1)
    handle = client.start(waits)
    wait_for(dsn, is_parked)
    report = "update perdure.tasks set progress = replace(progress::text, '12', '50')::jsonb"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(report)
    assert handle.result(T) == {"page": 50}
    assert begun == [None, {"page": 50}]
