"""Closing a run removes it from memory without a trace, whatever its code does.

The worker evicts runs in this way.
"""

# ruff: noqa: RUF006 - the loop holds its tasks itself

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from replay_driver import command, load, patched, runtime, signal, state_of, step
from replay_programs import ASYNC, CANCELLED, plus

from perdure.replay import loop as loops
from perdure.replay.replay import Evicted, Fact
from perdure.workflow import durable


@pytest.fixture(autouse=True)
def clean() -> Any:
    """Check that the garbage collector finds nothing to complain about."""
    unraisable: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()
    sys.unraisablehook = hook
    assert unraisable == []


def closed_run(code: Callable[..., Any], journal: list[Fact] | None = None) -> Any:
    """Advance a run and close it."""
    run = load(code, journal or [])
    run.advance()
    run.close()
    return run


@pytest.mark.parametrize("program", dict.fromkeys([*ASYNC, *CANCELLED]), ids=lambda f: f.__name__)
def test_waiting_program_can_be_closed(program: Callable[..., Any]) -> None:
    run = closed_run(program)
    assert run.journal.take_requested() == []
    assert run.journal.operations == {}
    run.close()
    with pytest.raises(RuntimeError, match="closed"):
        run.advance()


def test_run_that_never_started_can_be_closed() -> None:
    load(ASYNC[0], []).close()
    run = load(lambda: step(plus, 1), [])
    run.close()


def test_cleanup_code_of_a_closed_run_has_no_durable_effect() -> None:
    seen: list[Any] = []

    async def code() -> None:
        try:
            await signal("go")
        except asyncio.CancelledError:
            for attempt in (
                lambda: step(plus, 1),
                lambda: command("set", 1),
                lambda: asyncio.get_running_loop().call_later(1, print),
                lambda: patched("x"),
            ):
                try:
                    attempt()
                except Evicted as error:
                    seen.append(type(error))
            raise
        finally:
            seen.append("left")
            await asyncio.sleep(3)

    run = closed_run(code)
    assert seen == [Evicted, Evicted, Evicted, Evicted, "left"]
    assert run.journal.take_facts() == []
    assert run.journal.take_requested() == []


def test_tasks_generators_and_callbacks_end_with_the_run() -> None:
    left: list[str] = []

    async def numbers() -> Any:
        try:
            while True:
                yield await step(plus, 1)
        finally:
            left.append("generator")

    async def child() -> None:
        try:
            async for _ in numbers():
                await asyncio.sleep(100)
        finally:
            left.append("child")

    async def code() -> None:
        kept = numbers()
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            asyncio.ensure_future(child())
            await anext(kept)
            runtime().kept = kept  # type: ignore[attr-defined]
            await asyncio.Event().wait()

    run = load(code, [])
    run.advance()
    for key in list(run.journal.operations):
        run.journal.append(Fact("activity", key, True, 2, run.journal.now, "plus"))
    run.advance()
    run.close()
    assert sorted(left) == ["child", "child", "generator", "generator", "generator"]


def test_no_code_of_a_closed_run_runs_in_another_loop() -> None:
    where: list[Any] = []

    async def numbers() -> Any:
        try:
            yield 1
        finally:
            where.append(asyncio.get_running_loop())

    async def code() -> None:
        holder: list[Any] = [numbers()]
        holder.append(holder)  # a cycle, which only the collector can free
        await anext(holder[0])
        del holder
        await signal("go")

    async def worker() -> list[Any]:
        run = load(code, [])
        run.advance()
        gc.collect()
        await asyncio.sleep(0)
        assert where == []
        run.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return where

    [loop] = asyncio.run(worker())
    assert isinstance(loop, loops.Loop)
    where.clear()


async def ignores_cancellation() -> None:
    while True:
        try:
            await signal("go")
        except asyncio.CancelledError:
            continue


async def ignores_every_exception_in_sleep() -> None:
    while True:
        try:
            await asyncio.sleep(1)
        except BaseException:  # noqa: BLE001
            continue


async def spins_when_cancelled() -> None:
    try:
        await signal("go")
    except asyncio.CancelledError:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def ignores_every_exception() -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except BaseException:  # noqa: BLE001
            continue


async def spins_for_ever() -> None:
    try:
        await signal("go")
    finally:
        while True:
            try:
                await asyncio.sleep(0)
            except BaseException:  # noqa: BLE001
                continue


async def interrupts() -> None:
    try:
        await signal("go")
    finally:
        raise KeyboardInterrupt


async def raises() -> None:
    try:
        await signal("go")
    finally:
        raise ValueError("on the way out")


async def starts_more_tasks() -> None:
    async def more(n: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            if n:
                asyncio.create_task(more(n - 1))

    await more(20)


async def shields() -> None:
    inner: Any = signal("go")
    await durable._awaited(Any, inner)  # as perdure.shielded() does


@pytest.mark.parametrize(
    "code",
    [ignores_cancellation, spins_when_cancelled, interrupts, raises, starts_more_tasks, shields],
    ids=lambda f: f.__name__,
)
def test_code_that_resists_closing_ends(code: Callable[..., Any]) -> None:
    kept = len(loops._unending)
    closed_run(code)
    assert len(loops._unending) == kept


@pytest.mark.parametrize(
    "code",
    [ignores_every_exception_in_sleep, ignores_every_exception, spins_for_ever],
    ids=lambda f: f.__name__,
)
def test_endless_code_is_kept_alive_instead_of_collected(code: Callable[..., Any]) -> None:
    """Its tasks are kept in `loops._unending`, since the collector would try to close them."""
    kept = len(loops._unending)
    closed_run(code)
    gc.collect()
    assert len(loops._unending) == kept + 1


def test_closing_a_run_does_not_cancel_the_worker() -> None:
    async def worker() -> str:
        for code in (ignores_cancellation, raises, starts_more_tasks):
            closed_run(code)
        await asyncio.sleep(0)
        return "alive"

    assert asyncio.run(worker()) == "alive"


def test_closed_run_is_garbage_collected() -> None:
    run = closed_run(ASYNC[0])
    reference = weakref.ref(run)
    del run
    gc.collect()
    assert reference() is None


def test_evicted_run_can_be_loaded_again() -> None:
    run = load(ASYNC[0], [])
    run.advance()
    before = state_of(run)
    run.close()
    again = load(ASYNC[0], [])
    again.advance()
    assert state_of(again) == before
    again.close()
