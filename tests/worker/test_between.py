"""Between what a worker has decided to do with a task and what is done: whatever comes in between
is neither lost, nor told to code that is not there any more."""

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


def is_taken(dsn: str, name: str) -> None:
    """Let the task of this name be lost, and due."""
    taken = "update perdure.tasks set token = gen_random_uuid(), due_at = now() where name = %s"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(taken, [name])


def waits_elsewhere(begun: Any) -> None:
    """Wait for something else, and find what was begun cancelled, too."""
    try:
        perdure.wait_for("never")
    finally:
        with pytest.raises(asyncio.CancelledError):
            begun.result()


def waits_for_it(begun: Any) -> None:
    """Wait for what was begun."""
    begun.result()


@pytest.mark.parametrize("waits_next", [waits_elsewhere, waits_for_it])
def test_plain_code_that_is_busy_hears_of_a_cancel_where_it_waits_next(
    app: perdure.App, client: perdure.Client, work: Any, waits_next: Any
) -> None:
    """Once, though what it has begun on the side hears of it at once. (E2)"""
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
        assert is_aside.wait(30)  # one that has not begun would not hear of the cancel
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
    """Let threads of hooks be slow to see an answer."""
    result = Future.result

    def slow(future: Future[Any], timeout: float | None = None) -> Any:
        try:
            return result(future, timeout)
        finally:
            if threading.current_thread().name.startswith("perdure-hook"):
                time.sleep(A_MOMENT)

    monkeypatch.setattr(Future, "result", slow)


def begins_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls of threads be slow to reach the loop."""
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


@pytest.mark.parametrize(("is_slow", "pause"), [(wakes_late, 0), (begins_late, 2 * A_MOMENT)])
def test_a_thread_that_has_something_to_do_does_not_leave_memory(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
    is_slow: Any,
    pause: float,
) -> None:
    """Though something else that it has begun is open: it would sleep until that is answered."""

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

    is_slow(monkeypatch)
    work(slots=1)
    assert client.start(waits).result(T) == "done"


def test_a_hook_whose_time_is_up_just_before_it_leaves_memory_is_cancelled_all_the_same(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was to be parked: without a time at which to wake up, since that had passed."""
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


def test_a_thread_that_loses_its_task_is_not_told_that_it_is_cancelled(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """Whoever holds the task next goes on in its place: what it would undo is still wanted."""
    heard: list[str] = []

    @app.hook
    def waits_plainly(memory: perdure.Entity) -> str:
        memory.set(True, "ready")
        try:
            perdure.wait_for("go")
        except asyncio.CancelledError:
            heard.append("a cancel")
            raise
        return "went on"

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> str:
        return await waits_plainly(memory)

    work(lease=1)
    handle = client.start(waits)
    handle.memory.until("$.ready == true", timeout=T)
    is_taken(dsn, "waits_plainly")
    handle.signal("go")
    assert handle.result(T) == "went on"
    assert heard == []


def test_a_thread_whose_hook_is_refused_while_it_unwinds_tells_why(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was to be parked, with nothing left to wait for."""
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


def test_plain_code_that_waits_for_what_it_has_shielded_hears_of_a_cancel_behind_it(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """Though something else that it has begun is cancelled at once. (E2)"""
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
        told = begun.result()
        try:
            perdure.wait_for("never")
        finally:
            memory.set(told, "part")

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


def test_a_hook_that_starts_over_from_its_journal_knows_how_far_its_activities_were(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a worker was lost: what its claim told of them was of before they began."""
    answered, told = HookTurn.answered, threading.Event()
    begun: list[Any] = []

    def starts_over(turn: HookTurn, answer: dict[str, Any]) -> None:
        is_due = told.is_set() and len(begun) == 1
        answered(turn, {"state": "stale"} if is_due else answer)

    @app.activity
    async def reads() -> Any:
        begun.append(perdure.info().progress)
        if len(begun) == 1:
            perdure.heartbeat({"page": 12})
            told.set()
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


def test_what_a_lost_task_cannot_open_is_not_held_against_who_has_it_next(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal is still being read when the same worker claims it again: that one keeps it."""
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
    is_taken(dsn, "takes_long")
    assert begins.wait(20)
    fails.set()
    assert handle.result(T) == 1


def test_a_task_whose_commit_nobody_tells_of_is_let_go_of(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be held, and say nothing any more; who has it next runs it again. [P12]"""
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


def test_a_worker_that_stops_gives_back_what_its_threads_only_waited_for(
    app: perdure.App,
    client: perdure.Client,
    dsn: str,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They have to wake up first: another worker would wait for the end of the lease."""
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


def test_a_parked_coordinator_is_taken_up_with_what_others_have_told_of_its_activities(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker had begun the next attempt, and was lost before it could record anything."""
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
    told = "update perdure.tasks set progress = replace(progress::text, '12', '50')::jsonb"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(told)
    assert handle.result(T) == {"page": 50}
    assert begun == [None, {"page": 50}]
