"""The loop of coordinators: what it supports, what it rejects, and that it leaves the worker's loop
alone."""

# ruff: noqa: RUF006 - the loop holds its tasks itself

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from replay_driver import SECOND, STARTED_AT, StepFailed, load, outcome, runtime, signal, step
from replay_programs import plus

from perdure.errors import IoInCoordinator, NonDeterminism
from perdure.replay import replay
from perdure.replay.replay import Fact, SyncRun, current


def run_to_end(code: Callable[..., Any], *answers: Any) -> Any:
    """Run code to its end, answering its requests in order, and return its outcome."""
    run = load(code, [])
    left = list(answers)
    while not run.advance():
        op = next(iter(run.journal.operations.values()))
        at = run.journal.now if op.deadline is None else op.deadline
        run.journal.append(Fact(op.kind, op.key, True, left.pop(0) if left else None, at, op.name))
    return outcome(run)


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.run_in_executor(None, print),
        lambda loop: loop.call_soon_threadsafe(print),
        lambda loop: loop.create_connection(asyncio.Protocol, "localhost", 80),
        lambda loop: loop.getaddrinfo("localhost", 80),
        lambda loop: loop.add_signal_handler(2, print),
        lambda loop: loop.sock_recv(None, 1),
        lambda loop: loop.subprocess_shell(asyncio.SubprocessProtocol, "true"),
        lambda loop: loop.run_forever(),
        lambda loop: loop.run_until_complete(None),
        lambda loop: loop.set_task_factory(None),
        lambda loop: loop.stop(),
        lambda loop: loop.close(),
    ],
)
def test_loop_methods_that_do_io_are_rejected(call: Callable[[Any], Any]) -> None:
    async def code() -> None:
        call(asyncio.get_running_loop())

    run = load(code, [])
    assert run.advance()
    with pytest.raises(IoInCoordinator, match="a coordinator has no loop") as raised:
        run.outcome()
    assert "activity" in str(raised.value.hint)
    run.close()
    gc.collect()


@pytest.mark.parametrize(
    "call",
    [
        lambda: asyncio.to_thread(print),
        lambda: asyncio.open_connection("localhost", 80),
        lambda: asyncio.create_subprocess_exec("true"),
    ],
)
def test_asyncio_functions_that_do_io_are_rejected(call: Callable[[], Any]) -> None:
    async def code() -> None:
        await call()

    run = load(code, [])
    assert run.advance()
    with pytest.raises(IoInCoordinator):
        run.outcome()
    run.close()


def test_loop_supports_the_queries_of_libraries() -> None:
    async def code() -> Any:
        loop = asyncio.get_running_loop()
        return [
            loop.is_running(),
            loop.is_closed(),
            loop.get_debug(),
            loop.get_task_factory(),
            loop.get_exception_handler(),
            asyncio.current_task() in asyncio.all_tasks(),
            loop.time(),
        ]

    assert run_to_end(code) == ("returned", [True, False, False, None, None, True, 0.0])


def test_time_is_that_of_the_last_fact_and_never_goes_back() -> None:
    async def code() -> Any:
        loop, run = asyncio.get_running_loop(), runtime().run
        times = []
        for _ in range(3):
            await signal("go")
            times.append((run.journal.now - STARTED_AT, loop.time()))
        return times

    run = load(code, [])
    for number, seconds in enumerate((5, 3, 8), 1):
        run.advance()
        at = STARTED_AT + seconds * SECOND
        run.journal.append(Fact("signal", f"go#{number}", True, None, at, "go"))
    assert run.advance()
    assert outcome(run)[1] == [(5 * SECOND, 5.0), (5 * SECOND, 5.0), (8 * SECOND, 8.0)]


@pytest.mark.parametrize(
    ("delay", "deadline"),
    [
        (0.1, 100_000),
        (1e-9, 0),
        (-5, 0),
        (1.0000004, 1_000_000),
        (86_400 * 365, 86_400 * 365 * SECOND),
        (float("inf"), 253_402_300_799_999_999 - STARTED_AT),
        (1e300, 253_402_300_799_999_999 - STARTED_AT),
    ],
)
def test_deadlines_are_exact(delay: float, deadline: int) -> None:
    async def code() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(delay, print)
        loop.call_at(loop.time() + delay, print)
        await signal("go")

    run = load(code, [])
    run.advance()
    first, second, _ = run.journal.operations.values()
    assert first.deadline == second.deadline == STARTED_AT + deadline
    assert (first.key, second.key) == ("$timer#1", "$timer#2")
    assert first.kind == "timer"
    run.close()


def test_nan_delay_is_rejected() -> None:
    async def code() -> None:
        asyncio.get_running_loop().call_later(float("nan"), print)

    assert run_to_end(code)[0] == "raised"


def test_durable_is_accepted_wherever_asyncio_accepts_an_awaitable() -> None:
    async def code() -> Any:
        one = step(plus, 1)
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(one), asyncio.create_task(one, name="x")]
        async with asyncio.TaskGroup() as group:
            tasks.append(group.create_task(one, name="y"))
        done, _ = await asyncio.wait([one])
        [first] = asyncio.as_completed([one])
        return [
            await one,
            await one,
            await asyncio.gather(one, one),
            [await task for task in tasks],
            await asyncio.wait_for(one, 5),
            await asyncio.shield(one),
            await asyncio.ensure_future(one),
            one in done,
            await first,
            len({one, one}),
        ]

    assert run_to_end(code, 2)[1] == [2, 2, [2, 2], [2, 2, 2], 2, 2, 2, True, 2, 1]


def test_durable_rejected_by_a_finished_task_group_is_withdrawn() -> None:
    async def code() -> Any:
        async with asyncio.TaskGroup() as group:
            pass
        try:
            group.create_task(step(plus, 1))
        except RuntimeError:
            return len(runtime().run.journal.operations)

    left = run_to_end(code)[1]
    assert left == 0 or sys.version_info < (3, 13)


def test_durable_of_a_task_cancelled_before_its_start_is_withdrawn() -> None:
    async def code() -> Any:
        task = asyncio.create_task(step(plus, 1))
        task.cancel()
        await asyncio.wait([task])
        return list(runtime().run.journal.operations)

    assert run_to_end(code) == ("returned", [])


def test_eager_tasks_have_their_place() -> None:
    async def child() -> Any:
        return await step(plus, 1)

    async def code() -> Any:
        loop = asyncio.get_running_loop()
        task: Any = asyncio.Task
        if sys.version_info < (3, 12):
            return await loop.create_task(child(), name="x")
        task = loop.create_task(child(), name="x", eager_start=True)
        assert list(runtime().run.journal.operations) == [".x/plus#1"]
        return await task

    assert run_to_end(code, 2) == ("returned", 2)


def test_tasks_run_in_their_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    async def child() -> str:
        await step(plus, 1)
        return variable.get()

    async def code() -> Any:
        other = contextvars.copy_context()
        other.run(variable.set, "other")
        variable.set("own")
        loop = asyncio.get_running_loop()
        return [await loop.create_task(child()), await loop.create_task(child(), context=other)]

    variable.set("the worker's")
    assert run_to_end(code, 1, 1) == ("returned", ["own", "other"])
    assert variable.get() == "the worker's"


def test_errors_that_nobody_awaits_are_collected(capfd: pytest.CaptureFixture[str]) -> None:
    async def fails() -> None:
        raise ValueError("nobody awaits me")

    async def code() -> None:
        loop = asyncio.get_running_loop()
        loop.create_task(fails())
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    run = load(code, [])
    run.advance()
    run.journal.append(Fact("timer", "$timer#1", True, None, run.journal.now + SECOND))
    assert run.advance()
    errors = run.unawaited_errors()
    run.close()
    gc.collect()
    assert {type(error) for error in errors} == {ValueError, ZeroDivisionError}
    assert capfd.readouterr().err == ""


def test_failed_call_is_held_by_the_code_alone() -> None:
    """A run that goes on after a thousand failures must not hold them all until its end."""

    async def code() -> None:
        kept = step(plus, 1)
        for number in range(3):
            with contextlib.suppress(StepFailed):
                await step(plus, number)
        await step(plus, 5)
        kept.done()

    run = load(code, [])
    run.advance()
    for number in range(1, 5):
        fact = Fact("activity", f"plus#{number}", False, "no", run.journal.now, "plus")
        run.journal.append(fact)
        run.advance()
    assert len(run._loop.failed) == 1
    assert [str(error) for error in run.unawaited_errors()] == ["no"]
    run.close()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exit_exception_of_the_code_is_its_outcome(kind: type[BaseException]) -> None:
    async def exits() -> None:
        raise kind(3)

    async def code() -> Any:
        task = asyncio.create_task(exits())
        try:
            await task
        except kind as error:
            return error.args

    def plain() -> None:
        raise kind(4)

    assert run_to_end(code) == ("returned", (3,))
    assert run_to_end(exits) == ("raised", f"{kind.__name__}(3)")
    assert run_to_end(plain) == ("raised", f"{kind.__name__}(4)")


def test_decoding_error_is_raised_in_the_code_as_value_mistyped() -> None:
    def broken(value: Any) -> Any:
        raise StopIteration(value)

    async def code() -> Any:
        run = runtime().run
        out: list[Any] = []
        for options in ({"decode": str.upper}, {"decode": int}, {"decode": broken}):
            try:
                out.append(await run.request("activity", "x", None, **options))
            except Exception as error:  # noqa: BLE001
                out.append(type(error).__name__)
        return out

    def plain() -> Any:
        run = runtime().run
        out: list[Any] = []
        for options in ({"decode": str.upper}, {"decode": int}):
            pending = run.request("activity", "x", None, **options)
            for _ in range(2):
                try:
                    out.append(pending.result())
                except ValueError as error:
                    out.append(type(error).__name__)
        return out

    assert run_to_end(code, "a", "b", "c") == ("returned", ["A", "ValueMistyped", "ValueMistyped"])
    assert run_to_end(plain, "a", "b") == ("returned", ["A", "A", "ValueMistyped", "ValueMistyped"])


def test_failure_without_a_class_is_raised_as_runtime_error() -> None:
    async def code() -> Any:
        await runtime().run.request("activity", "x", None)

    run = load(code, [Fact("activity", "x#1", False, {"message": "no"}, 1)])
    assert run.advance()
    assert outcome(run) == ("raised", "RuntimeError(\"{'message': 'no'}\")")


def test_code_that_spins_without_waiting_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a task that polls for the result of another would block each worker in turn."""
    monkeypatch.setattr(replay, "MAX_STEPS", 1000)

    async def polls() -> Any:
        received: list[Any] = []

        async def listens() -> None:
            received.append(await signal("go"))

        asyncio.create_task(listens())
        while not received:  # noqa: ASYNC110 - the mistake under test
            await asyncio.sleep(0)
        return received

    run = load(polls, [])
    with pytest.raises(NonDeterminism, match="waits for nothing and does not end"):
        run.advance()
    run.close()


def test_run_leaves_the_worker_loop_unchanged() -> None:
    async def worker() -> Any:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        hooks = sys.get_asyncgen_hooks()
        before = (loop, task, hooks)
        seen = []
        for code in (coordinator, plain_coordinator):
            run = load(code, [])
            assert not run.advance()
            seen.append(
                (asyncio.get_running_loop(), asyncio.current_task(), sys.get_asyncgen_hooks())
            )
            await asyncio.sleep(0)
            run.journal.append(Fact("activity", "plus#1", True, 2, run.journal.now, "plus"))
            loop.call_soon(run.advance)  # from a callback, outside of any task
            await asyncio.sleep(0)
            assert run.advance()
            seen.append(
                (asyncio.get_running_loop(), asyncio.current_task(), sys.get_asyncgen_hooks())
            )
            assert outcome(run) == ("returned", 2)
        async with asyncio.timeout(5):
            await asyncio.sleep(0.001)
        return all(now == before for now in seen)

    assert asyncio.run(worker())


async def coordinator() -> Any:
    assert asyncio.get_running_loop().time() == 0.0
    return await step(plus, 1)


def plain_coordinator() -> Any:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    return step(plus, 1)


def test_runs_in_several_threads_are_independent() -> None:
    ended: list[Any] = []

    def work() -> None:
        ended.extend(run_to_end(coordinator, 2) for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [("returned", 2)] * 200


def test_code_finds_its_own_runtime() -> None:
    async def code() -> Any:
        return current.get() is runtime()

    assert run_to_end(code) == ("returned", True)
    assert current.get(None) is None


def test_random_streams_and_uuids_are_independent() -> None:
    async def few() -> Any:
        run = runtime().run
        return [run.random().random(), str(run.uuid())]

    async def more() -> Any:
        run = runtime().run
        run.random()
        first = str(run.uuid())
        return [run.random().random(), first]

    one, other = run_to_end(few)[1], run_to_end(more)[1]
    assert one[1] == other[1]
    assert one[0] != other[0]
    assert run_to_end(few)[1] == one


def test_plain_function_gets_a_sync_run() -> None:
    assert isinstance(load(plain_coordinator, []), SyncRun)


def test_loop_lets_go_of_tasks_that_are_done() -> None:
    """A coordinator that runs for long makes many."""

    async def nothing() -> None: ...

    async def code() -> None:
        for _ in range(1000):
            await asyncio.create_task(nothing())
        await asyncio.sleep(1)

    run: Any = load(code, [])
    assert not run.advance()
    assert len(run._loop._tasks) < 200
    run.close()
