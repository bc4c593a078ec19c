"""A worker takes requests, withdrawals and facts from a run, and gives it facts and
cancellations."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any

import pytest
from replay_driver import command, hook, load, outcome, runtime, signal, step
from replay_programs import double, plus

from perdure.replay.replay import Fact, OpenOperation


def keys(ops: list[OpenOperation]) -> list[str]:
    """Return the keys of operations."""
    return [op.key for op in ops]


def answer_to(run: Any, kind: str, name: str, value: Any = None, ok: bool = True) -> Fact:
    """Make the fact that answers the first operation of a name."""
    return Fact(kind, f"{name}#1", ok, value, run.journal.now + 1, name)


def test_requests_are_taken_once_and_in_order() -> None:
    async def code() -> None:
        b, a = step(plus, 1), step(double, 1)
        await a
        await hook(plus, 3)
        await b

    run = load(code, [])
    run.advance()
    assert keys(run.journal.take_requested()) == ["plus#1", "double#1"]
    assert run.journal.take_requested() == []
    run.journal.append(answer_to(run, "activity", "double", 2))
    run.advance()
    assert keys(run.journal.take_requested()) == ["plus#2"]
    assert keys(list(run.journal.operations.values())) == ["plus#1", "plus#2"]
    assert run.journal.asked == 3
    run.close()


def test_operation_answered_by_the_journal_is_not_requested() -> None:
    async def code() -> None:
        await step(plus, 1)
        await step(double, 1)

    run = load(code, [Fact("activity", "plus#1", True, 2, 1, "plus")])
    run.advance()
    assert keys(run.journal.take_requested()) == ["double#1"]
    run.close()


async def withdrawing() -> Any:
    answer = hook(plus, 1)
    await signal("first")
    answer.cancel()
    hook(double, 1).cancel()
    await signal("second")


def test_request_withdrawn_before_it_is_taken_is_never_taken() -> None:
    run = load(withdrawing, [])
    run.advance()
    run.journal.append(answer_to(run, "signal", "first"))
    run.advance()
    assert keys(run.journal.take_requested()) == ["second#1"]
    assert run.journal.take_withdrawn() == []
    run.close()


def test_withdrawal_of_a_taken_request_is_taken_once() -> None:
    run = load(withdrawing, [])
    run.advance()
    assert keys(run.journal.take_requested()) == ["plus#1", "first#1"]
    run.journal.append(answer_to(run, "signal", "first"))
    run.advance()
    assert keys(run.journal.take_withdrawn()) == ["plus#1"]
    assert run.journal.take_withdrawn() == []
    run.close()


def test_withdrawal_is_repeated_for_a_request_of_an_earlier_worker() -> None:
    run = load(withdrawing, [Fact("signal", "first#1", True, None, 1, "first")], asked=2)
    run.advance()
    assert keys(run.journal.take_withdrawn()) == ["plus#1"]
    run.close()


def test_withdrawals_include_signals() -> None:
    async def code() -> None:
        try:
            async with asyncio.timeout(5):
                await signal("go")
        except TimeoutError:
            await signal("late")

    run = load(code, [])
    run.advance()
    assert keys(run.journal.take_requested()) == ["$timer#1", "go#1"]
    run.journal.append(
        Fact("timer", "$timer#1", True, None, run.journal.operations["$timer#1"].deadline or 0)
    )
    run.advance()
    assert keys(run.journal.take_withdrawn()) == ["go#1"]
    assert keys(run.journal.take_requested()) == ["late#1"]
    run.close()


def test_answered_operation_cannot_be_withdrawn() -> None:
    async def code() -> Any:
        answer = step(plus, 1)
        handle = asyncio.get_running_loop().call_later(1, print)
        await answer
        await asyncio.sleep(2)
        handle.cancel()
        return [answer.cancel(), answer.cancelled(), await answer]

    journal = [
        Fact("activity", "plus#1", True, 2, 1, "plus"),
        Fact("timer", "$timer#1", True, None, 1_000_000),
        Fact("timer", "$timer#2", True, None, 2_000_000),
    ]
    run = load(code, journal)
    assert run.advance()
    assert run.journal.take_withdrawn() == []
    assert outcome(run) == ("returned", [False, False, 2])


async def racing() -> Any:
    sets = [command("set", i) for i in range(3)]
    done, pending = await asyncio.wait(sets, return_when=asyncio.FIRST_COMPLETED)
    for answer in pending:
        answer.cancel()
    return [await answered for answered in done]


def test_recorded_answer_of_a_withdrawn_command_is_accepted() -> None:
    run = load(racing, [])
    run.advance()
    assert len(run.journal.take_requested()) == 3
    for number in (1, 2, 3):
        run.journal.append(
            Fact("command", f"set#{number}", True, number, run.journal.now, "set"), recorded=True
        )
    assert run.advance()
    assert run.journal.take_facts() == []
    assert run.journal.position == 3
    assert outcome(run) == ("returned", [1])


def test_answer_of_a_withdrawn_hook_is_rejected() -> None:
    run = load(withdrawing, [])
    run.advance()
    run.journal.append(answer_to(run, "signal", "first"))
    run.journal.append(answer_to(run, "answer", "plus", 2))
    with pytest.raises(Exception, match="does not match"):
        run.advance()
    run.close()


def test_facts_are_taken_in_the_order_of_the_journal() -> None:
    async def code() -> Any:
        return await asyncio.gather(step(plus, 1), command("set", 1), step(double, 2))

    run = load(code, [])
    run.advance()
    first = Fact("activity", "plus#1", True, 2, run.journal.now, "plus", extra={"message": 7})
    run.journal.append(first)
    with pytest.raises(ValueError, match="not flushed"):
        run.journal.append(answer_to(run, "command", "set"), recorded=True)
    assert run.journal.take_facts() == [first]
    run.journal.append(answer_to(run, "command", "set"), recorded=True)
    run.journal.append(last := answer_to(run, "activity", "double", 4))
    assert run.advance()
    assert run.journal.take_facts() == [last]
    assert run.journal.position == 3
    assert outcome(run) == ("returned", [2, None, 4])


def test_cancellation_arrives_as_a_fact() -> None:
    async def code() -> Any:
        out = []
        for _ in range(2):
            try:
                await hook(plus, 1)
            except asyncio.CancelledError as error:
                out.append(str(error))
        out.append(await step(double, 1))
        return out

    run = load(code, [])
    run.advance()
    run.journal.take_requested()
    run.journal.append(Fact("cancel", "$cancel", True, "too long", run.journal.now))
    run.advance()
    assert keys(run.journal.take_withdrawn()) == ["plus#1"]
    run.journal.append(Fact("cancel", "$cancel", True, {"why": 1}, run.journal.now))
    run.journal.append(Fact("activity", "double#1", True, 2, run.journal.now, "double"))
    assert run.advance()
    assert outcome(run) == ("returned", ["too long", "", 2])


def test_cancelled_run_raises_cancelled_error_as_its_outcome() -> None:
    async def code() -> Any:
        try:
            await signal("go")
        finally:
            await step(plus, 1)

    run = load(code, [])
    run.advance()
    run.journal.append(Fact("cancel", "$cancel", True, None, run.journal.now))
    assert not run.advance()
    run.journal.append(answer_to(run, "activity", "plus", 2))
    assert run.advance()
    with pytest.raises(asyncio.CancelledError):
        run.outcome()
    run.close()


def test_plain_function_is_cancelled_where_it_waits() -> None:
    def code() -> Any:
        pending = runtime().run.request("answer", "plus", (plus, (1,)))
        try:
            signal("go")
        except asyncio.CancelledError as error:
            return [str(error), step(double, 1), pending.result()]

    run = load(code, [])
    run.advance()
    run.journal.append(Fact("cancel", "$cancel", True, "stop", run.journal.now))
    assert not run.advance()
    run.journal.append(answer_to(run, "activity", "double", 2))
    run.journal.append(answer_to(run, "answer", "plus", 3))
    assert run.advance()
    assert outcome(run) == ("returned", ["stop", 2, 3])


def test_plain_function_requests_each_operation_once() -> None:
    started = []

    def code() -> Any:
        started.append(1)
        run = runtime().run
        pending = [run.request("answer", "plus", (plus, (i,))) for i in range(3)]
        pending[1].cancel()
        out = [step(double, 1), pending[0].result()]
        assert pending[2].cancel()
        assert not pending[2].cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            pending[2].result()
        return [*out, signal("go")]

    run = load(code, [])
    assert not run.advance()
    assert not run.advance()
    assert len(started) == 1
    assert keys(run.journal.take_requested()) == ["plus#1", "plus#3", "double#1"]
    run.journal.append(answer_to(run, "activity", "double", 2))
    assert not run.advance()
    assert run.journal.take_requested() == []
    assert run.journal.take_withdrawn() == []
    run.journal.append(answer_to(run, "answer", "plus", 1))
    assert not run.advance()
    assert keys(run.journal.take_requested()) == ["go#1"]
    assert keys(run.journal.take_withdrawn()) == ["plus#3"]
    run.journal.append(answer_to(run, "signal", "go", "yes"))
    assert run.advance()
    assert run.advance()
    assert len(started) == 4
    assert run.journal.take_withdrawn() == []
    assert outcome(run) == ("returned", [2, 1, "yes"])


def test_suspended_plain_function_has_no_further_effect() -> None:
    def code() -> Any:
        run = runtime().run
        try:
            signal("go")
        except BaseException:  # noqa: BLE001
            for attempt in (
                lambda: step(plus, 1),
                lambda: run.journal.patched("x"),
                lambda: signal("on"),
            ):
                with pytest.raises(BaseException):  # noqa: B017, PT011
                    attempt()
            return "swallowed"
        finally:
            run.journal.patched("y")

    run = load(code, [])
    assert not run.advance()
    assert list(run.journal.operations) == ["go#1"]
    assert run.journal.asked == 1
    assert run.journal.take_facts() == []
    with pytest.raises(asyncio.InvalidStateError):
        run.outcome()
    run.journal.append(answer_to(run, "signal", "go"))
    assert run.advance()
    assert outcome(run) == ("returned", None)


def test_outcome_before_the_end_raises() -> None:
    for code in (withdrawing, lambda: signal("go")):
        run = load(code, [])
        with pytest.raises(asyncio.InvalidStateError):
            run.outcome()
        run.advance()
        with pytest.raises(asyncio.InvalidStateError):
            run.outcome()
        run.close()
