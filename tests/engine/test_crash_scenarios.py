"""Named scenarios with a worker that dies at the place that the name says."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import perdure
from tests.engine.crashing import Faults, Stage, with_settings
from tests.engine.outside import Outside

Memory = perdure.AsyncEntity


@pytest.fixture
def app(stage: Stage) -> Iterator[perdure.App]:
    """Provide an empty app, on a stage that is empty too."""
    stage.clear()
    stage.job = "job"
    yield perdure.App()
    stage.clear()


@pytest.fixture
def runs() -> Counter[str]:
    """Provide a counter of runs."""
    return Counter()


def moved_from(before: int) -> Callable[[Outside], bool]:
    """Return a check whether the journal has grown."""
    return lambda outside: outside.one("select count(*) from journal") > before


def lives(stage: Stage, app: perdure.App, *faults: Faults) -> Any:
    """Let workers die of these faults, and one more live to the end; return the result."""
    for each in faults:
        with with_settings(each):
            assert not stage.live(app, each, [])
    assert stage.live(app, Faults(), [])
    status, result, error = stage.ending()
    assert status == "completed", error
    return result


def test_finished_hook_does_not_run_again_after_a_crash(
    stage: Stage, app: perdure.App, runs: Counter[str]
) -> None:
    """[P4] [P8] The coordinator dies with the answer in its inbox, then with the answer in its
    journal; the hook ran once."""

    @app.hook
    async def works(memory: Memory) -> int:
        runs["works"] += 1
        return int(await memory.increment("n"))

    @app.coordinator
    async def waits(memory: Memory) -> Any:
        return [await works(memory), await memory.get("n")]

    def has_answered(outside: Outside) -> bool:
        return bool(outside.one("select exists (select from inbox where key = 'works#1')"))

    def is_told(outside: Outside) -> bool:
        return bool(outside.one("select exists (select from journal where key = 'works#1')"))

    stage.start("waits")
    assert lives(stage, app, Faults(kill_when=has_answered), Faults(kill_when=is_told)) == [1, 1]
    assert runs == {"works": 1}


def test_answer_from_before_a_crash_causes_no_warning(
    stage: Stage, app: perdure.App, caplog: Any
) -> None:
    """A coordinator that runs again finds the answer before it repeats its request; no warning says
    that the hook was not awaited."""

    @app.hook
    async def works(memory: Memory) -> None: ...

    @app.coordinator
    async def waits(memory: Memory) -> None:
        await works(memory)

    def has_answered(outside: Outside) -> bool:
        return bool(outside.one("select exists (select from inbox where key = 'works#1')"))

    stage.start("waits")
    lives(stage, app, Faults(kill_when=has_answered))
    assert "were not awaited" not in caplog.text


def test_calls_with_lost_replies_are_repeated_without_effect(
    stage: Stage, app: perdure.App, runs: Counter[str]
) -> None:
    """[P12] The replies of claim and advance are lost; a repeated claim gets the same tasks, and no
    delivery is counted."""

    @app.activity
    async def step(x: int) -> int:
        runs[f"step {x}"] += 1
        return x

    @app.hook
    async def adds(memory: Memory, x: int) -> int:
        runs[f"hook {x}"] += 1
        return int(await memory.increment("n", await step(x)))

    @app.coordinator
    async def sums(memory: Memory) -> Any:
        for x in range(3):
            await adds(memory, x)
            await perdure.sleep(0.002)
        return await memory.get("n")

    stage.start("sums")
    assert stage.live(app, Faults(lose_every=1), [])
    assert stage.ending()[:2] == ("completed", 3)
    assert set(runs.values()) == {1}
    assert stage.one("select version from jobs") == 3
    assert {row["deliveries"] for row in stage.rows.values()} == {1}


def test_hook_that_runs_again_in_its_sleep_wakes_at_the_first_deadline(
    stage: Stage, app: perdure.App, runs: Counter[str]
) -> None:
    """[P7] The deadline of a sleep is that of the first run."""
    length = 0.8

    @app.hook
    async def naps(memory: Memory) -> None:
        runs["naps"] += 1
        await memory.set(True, "begun")
        await perdure.sleep(length)
        await memory.set(True, "woken")

    @app.coordinator
    async def waits(memory: Memory) -> None:
        await naps(memory)

    asleep = "select now() - at > '0.6 s' from journal where kind = 'note'"
    late = Faults(kill_when=lambda outside: bool(outside.one(asleep)))
    stage.start("waits")
    lives(stage, app, late)
    began, deadline = stage.many(
        "select extract(epoch from at)::float8,"
        " extract(epoch from (value ->> 'until')::timestamptz)::float8"
        " from journal where kind = 'note'"
    )[0]
    woken = stage.one("select extract(epoch from at)::float8 from journal where path = '{woken}'")
    assert runs["naps"] == 2
    assert deadline - began == pytest.approx(length, abs=0.05)
    assert deadline <= woken < deadline + 0.5  # a second sleep would take 0.6 s more


def test_hook_that_runs_again_differently_keeps_its_first_write(
    stage: Stage, app: perdure.App, runs: Counter[str]
) -> None:
    """[P2] A hook whose unrecorded work differs keeps its first write, goes on from there, and
    completes."""

    @app.hook
    async def drifts(memory: Memory) -> Any:
        runs["drifts"] += 1
        answer = await memory.append("words", f"run {runs['drifts']}")
        await memory.set(runs["drifts"], "second")
        return [answer, await memory.get("words")]

    @app.coordinator
    async def waits(memory: Memory) -> Any:
        return await drifts(memory)

    stage.start("waits")
    has_written = Faults(kill_when=lambda outside: outside.memory("words") is not None)
    assert lives(stage, app, has_written) == [1, ["run 1"]]
    assert stage.memory() == {"words": ["run 1"], "second": 2}
    assert stage.one("select version from jobs") == 2


@pytest.mark.parametrize("faults", [Faults(), Faults(cache=0)], ids=["live", "replayed"])
def test_keys_of_a_result_keep_their_order_in_replay(
    stage: Stage, app: perdure.App, faults: Faults
) -> None:
    """[P4] [P9] Code gets a result in its stored form from the first time on, so its keys keep
    their order."""
    given = {"bb": 1, "a": {"z": 1.0, "y": [(2,)], "é": 1e300}, "ccc": 10**20, "B": -0.0, "aa": 2}

    @app.activity
    async def found() -> Any:
        return given

    @app.coordinator
    async def iterates(memory: Memory) -> Any:
        result = await found()
        first = repr(result)
        await memory.set(list(result), "keys")
        await perdure.sleep(0.002)
        return [first, repr(result), await memory.get("keys"), [*result["a"]]]

    stage.start("iterates")
    assert stage.live(app, faults, [])
    first, again, keys, inner = stage.ending()[1]
    assert first == again
    assert keys == ["B", "a", "aa", "bb", "ccc"]
    assert inner == ["y", "z", "é"]


def test_stolen_leases_change_no_outcome(
    stage: Stage, app: perdure.App, runs: Counter[str]
) -> None:
    """[P6] Two workers steal each other's tasks at every other point, and every command is applied
    once."""

    @app.activity
    async def step(x: int) -> int:
        runs[f"step {x}"] += 1
        return x

    @app.hook
    async def adds(memory: Memory, x: int) -> None:
        await memory.increment("n", await step(x))
        await memory.append(f"log{x}", "done")

    @app.coordinator
    async def sums(memory: Memory) -> Any:
        for x in range(4):
            await adds(memory, x)
        return await memory.get("n")

    stage.ledger.is_strict = False
    stage.start("sums")
    thieves = Faults(workers=2, steal_at=frozenset(range(2, 60, 2)))
    assert stage.live(app, thieves, [])
    assert stage.ending()[:2] == ("completed", 6)
    assert stage.memory() == {"n": 6, **{f"log{x}": ["done"] for x in range(4)}}
    assert stage.one("select version from jobs") == 8


def test_thirty_deaths_do_not_park_a_task_that_makes_progress(
    stage: Stage, app: perdure.App
) -> None:
    """[P10] A task may be delivered any number of times as long as it makes progress."""

    @app.activity
    async def step(x: int) -> int:
        return x

    @app.coordinator
    async def long(memory: Memory) -> Any:
        return sum([await step(x) for x in range(40)])

    stage.start("long")
    began = time.monotonic()
    for deaths in range(30):
        done = stage.one("select count(*) from journal")
        moves = Faults(kill_when=moved_from(done))
        assert not stage.live(app, moves, []), (deaths, time.monotonic() - began)
    assert stage.live(app, Faults(), [])
    assert stage.ending()[:2] == ("completed", 780)
