"""A hook that runs again sees the same times: its requests are recognized by their arguments."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import perdure

T = "20 s"
of_both_kinds = pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])


@pytest.fixture
def stamps(app: perdure.App) -> list[str]:
    """The stamped times; the app gets hooks that are parked and run again from the top."""
    stamped: list[str] = []

    @app.activity
    async def stamp(at: str) -> int:
        stamped.append(at)
        return len(stamped)

    @app.activity
    def plain_stamp(at: str) -> int:
        stamped.append(at)
        return len(stamped)

    @app.hook
    async def asks(memory: perdure.AsyncEntity) -> list[Any]:
        first = perdure.now()
        number = await stamp(first.isoformat())
        await perdure.sleep(1.5)
        return [number, (perdure.now() - first).total_seconds() >= 1.5]

    @app.hook
    def plain_asks(memory: perdure.Entity) -> list[Any]:
        first = perdure.now()
        number = plain_stamp(first.isoformat())
        perdure.sleep(1.5)
        return [number, (perdure.now() - first).total_seconds() >= 1.5]

    @app.hook
    async def sleeps(memory: perdure.AsyncEntity) -> str:
        await perdure.sleep_until(perdure.now() + timedelta(seconds=1.5))
        return "awake"

    @app.hook
    def plain_sleeps(memory: perdure.Entity) -> str:
        perdure.sleep_until(perdure.now() + timedelta(seconds=1.5))
        return "awake"

    return stamped


@of_both_kinds
def test_activity_that_gets_the_current_time_runs_once(
    client: perdure.Client, work: Any, stamps: list[str], is_async: bool
) -> None:
    """[P4] A hook that runs again requests it with the same time."""
    work(slots=1)
    client.create_entity("e", "thing")
    hook = "asks" if is_async else "plain_asks"
    assert client.handle("e").run_hook(hook, timeout=T) == [1, True]
    assert len(stamps) == 1


@of_both_kinds
def test_hook_that_sleeps_until_a_time_from_now_wakes_up(
    client: perdure.Client, work: Any, stamps: list[str], is_async: bool
) -> None:
    """[P7] A hook that runs again does not move the end of its sleep."""
    work(slots=1)
    client.create_entity("e", "thing")
    hook = "sleeps" if is_async else "plain_sleeps"
    assert client.handle("e").run_hook(hook, timeout=T) == "awake"
    assert stamps == []


@of_both_kinds
def test_time_limit_counts_anew_for_each_attempt(
    app: perdure.App, client: perdure.Client, work: Any, is_async: bool
) -> None:
    """The second attempt begins when the limit of the first one is over."""

    async def tries_async(memory: perdure.AsyncEntity) -> None:
        if perdure.info().attempt == 0:
            raise LookupError("not yet")
        await perdure.sleep(0.1)

    def tries_plain(memory: perdure.Entity) -> None:
        if perdure.info().attempt == 0:
            raise LookupError("not yet")
        perdure.sleep(0.1)

    retry = perdure.Retry(attempts=2, delay=5, jitter=0)
    code: Any = tries_async if is_async else tries_plain
    app.hook(name="tries", retry=retry, timeout=4)(code)
    work()
    client.create_entity("shop", "shop")
    assert client.handle("shop").run_hook("tries", timeout=T) is None
