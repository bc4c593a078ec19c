"""Code that differs from its journal is stopped before it has any effect, with an error in
words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from replay_driver import command, load, outcome, signal, step
from replay_programs import double, picky, plus

from perdure.errors import NonDeterminism
from perdure.replay.replay import Fact


async def before() -> Any:
    a = await step(double, 1)
    b = await step(plus, a)
    return [a, b, await signal("go")]


JOURNAL = [
    Fact("activity", "double#1", True, 2, 1, "double", "(1,)"),
    Fact("activity", "plus#1", True, 3, 2, "plus", "(2,)"),
]


async def swapped() -> Any:
    b = await step(plus, 1)
    return [await step(double, b), b, await signal("go")]


async def inserted() -> Any:
    a = await step(double, 1)
    await step(picky, 7)
    return [a, await step(plus, a), await signal("go")]


async def dropped() -> Any:
    return [await step(double, 1), await signal("go")]


async def renamed() -> Any:
    a = await step(double, 1)
    return [a, await step(picky, a), await signal("go")]


async def other_argument() -> Any:
    a = await step(double, 1)
    return [a, await step(plus, a + 1), await signal("go")]


async def other_kind() -> Any:
    a = await step(double, 1)
    return [a, await signal("plus")]


async def ends_early() -> Any:
    return await step(double, 1)


async def ends_without_an_answer() -> Any:
    step(plus, 2)
    return await step(double, 1)


async def fails_early() -> Any:
    await step(double, 1)
    raise ValueError("new code, new bug")


async def cancels() -> Any:
    answer = step(plus, 2)
    a = await step(double, 1)
    answer.cancel()
    return [a, await signal("go")]


def plain_swapped() -> Any:
    b = step(plus, 1)
    return [step(double, b), b]


def plain_swallowing() -> Any:
    try:
        step(plus, 1)
    except BaseException:  # noqa: BLE001
        return "swallowed"


def plain_ends_early() -> Any:
    return step(double, 1)


def plain_fails_early() -> Any:
    step(double, 1)
    raise ValueError("new code, new bug")


@pytest.mark.parametrize(
    ("code", "position", "waits"),
    [
        (swapped, 1, "waits for activity plus#1 (arguments (1,))"),
        (inserted, 2, "waits for activity picky#1 (arguments (7,))"),
        (dropped, 2, "waits for signal go#1"),
        (renamed, 2, "waits for activity picky#1"),
        (other_argument, 2, "calls activity plus#1 (arguments (3,)): other arguments"),
        (other_kind, 2, "waits for signal plus#1"),
        (ends_early, 2, "has finished"),
        (ends_without_an_answer, 2, "has finished"),
        (fails_early, 2, "but the code raised ValueError"),
        (cancels, 2, "waits for signal go#1"),
        (plain_swapped, 1, "waits for activity plus#1"),
        (plain_swallowing, 1, "waits for activity plus#1"),
        (plain_ends_early, 2, "has finished"),
        (plain_fails_early, 2, "but the code raised ValueError"),
    ],
)
def test_changed_code_raises_nondeterminism(
    code: Callable[..., Any], position: int, waits: str
) -> None:
    run = load(code, JOURNAL)
    with pytest.raises(NonDeterminism) as raised:
        run.advance()
    run.close()
    fact = JOURNAL[position - 1]
    assert f"at position {position} the journal tells activity {fact.key}" in raised.value.detail
    assert waits in raised.value.detail
    assert "job/1/main" in raised.value.message
    assert "patched()" in raised.value.hint
    is_error_of_code = "the code raised" in raised.value.detail
    assert is_error_of_code == isinstance(raised.value.__cause__, ValueError)


async def longer() -> Any:
    return [*await before(), await step(picky, 7)]


async def parallel_tail() -> Any:
    a = await step(double, 1)
    b = await step(plus, a)
    return [a, b, *await asyncio.gather(signal("go"), step(picky, 7))]


@pytest.mark.parametrize("code", [before, longer, parallel_tail])
def test_code_after_the_recorded_part_may_change(code: Callable[..., Any]) -> None:
    run = load(code, JOURNAL)
    assert not run.advance()
    assert "go#1" in {key.rpartition("/")[2] for key in run.journal.operations}
    run.close()


def test_changed_arguments_can_be_accepted() -> None:
    run = load(other_argument, JOURNAL, accept_changes=True)
    assert not run.advance()
    assert list(run.journal.operations) == ["go#1"]
    run.close()


def test_accepting_changes_does_not_accept_another_order() -> None:
    run = load(swapped, JOURNAL, accept_changes=True)
    with pytest.raises(NonDeterminism):
        run.advance()
    run.close()


def test_unexpected_answer_is_rejected_live_too() -> None:
    run = load(before, [])
    run.advance()
    run.journal.append(Fact("activity", "plus#1", True, 3, run.journal.now, "plus"))
    with pytest.raises(NonDeterminism, match="does not match"):
        run.advance()
    with pytest.raises(NonDeterminism):
        run.advance()
    run.close()


@pytest.mark.parametrize(("value", "fits"), [(1, True), (2, False)])
def test_answer_of_a_cancelled_command_must_match_the_code_too(value: int, fits: bool) -> None:
    """The command was sent, and a cancellation withdrew it before its answer arrived."""

    async def code() -> None:
        await command("set", value)

    cancel = Fact("cancel", "$cancel", True, None, 1)
    run = load(code, [cancel, Fact("command", "set#1", True, 1, 2, "set", "1")])
    if fits:
        assert run.advance()
    else:
        with pytest.raises(NonDeterminism, match="does not match"):
            run.advance()
    run.close()


def test_long_list_of_waits_is_shortened() -> None:
    async def wide() -> Any:
        return await asyncio.gather(*(step(plus, i) for i in range(30)))

    run = load(wide, JOURNAL)
    with pytest.raises(NonDeterminism) as raised:
        run.advance()
    assert str(raised.value.detail).endswith("and 20 more")
    run.close()


def test_silent_facts_after_the_end_of_the_code_are_accepted() -> None:
    silent = [Fact(kind, "x#1", True, None, 3) for kind in ("dropped", "note", "attempt")]
    run = load(ends_early, [JOURNAL[0], *silent])
    assert run.advance()
    assert outcome(run) == ("returned", 2)
