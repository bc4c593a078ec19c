"""Limits and pauses of queues, in Python. (E13)"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.cli.main import main
from tests.amount import seed
from tests.worker.processes import worker_process

T = "60 s"


@pytest.fixture
def echo(app: perdure.App) -> Any:
    @app.coordinator(queue="q")
    async def echo(memory: perdure.AsyncEntity, what: Any = None) -> Any:
        return what

    return echo


def depth(client: perdure.Client, queue: str = "q") -> perdure.QueueDepth:
    """Give the depth of one queue."""
    (depth,) = client.queue_depths(queue)
    return depth


def test_limits_of_a_queue_are_set_and_reported(client: perdure.Client, echo: Any) -> None:
    client.set_queue("q", max_running=2, max_per_key=1, rate_per_second=0.1, rate_per_key=20 / 60)
    for number in range(3):
        client.start(echo, number, limit_key="k")
    found = depth(client)
    assert (found.ready, found.held_back, found.leased, found.paused) == (1, 2, 0, False)
    assert (found.max_running, found.max_per_key) == (2, 1)
    assert (found.rate_per_second, found.burst) == (Decimal("0.1"), 1)
    assert (found.rate_per_key, found.burst_per_key) == (Decimal(str(20 / 60)), 1)
    client.set_queue("q")
    found = depth(client)
    assert (found.ready, found.held_back, found.max_running, found.burst) == (3, 0, None, None)
    assert [d.queue for d in client.queue_depths()] == ["q"]
    with pytest.raises(perdure.InvalidArgument):
        client.set_queue("q", max_running=0)


def test_limit_key_comes_from_the_function_or_from_the_call(
    client: perdure.Client, app: perdure.App, work: Any, connection: Any
) -> None:
    """It is a text, or a function of the arguments. A key that is given with a call comes first."""

    @app.activity(queue="far", limit_key=lambda user, *, about: f"{user} {about}")
    async def dispatched(user: str, *, about: str) -> None:
        pass

    @app.hook(queue="far", limit_key=lambda user: user)
    async def hook(memory: perdure.AsyncEntity, user: str) -> None:
        pass

    @app.coordinator(queue="far", limit_key="one for all")
    async def child(memory: perdure.AsyncEntity, user: str) -> None:
        pass

    @app.coordinator(queue="near")
    async def asks(memory: perdure.AsyncEntity) -> None:
        dispatched.start("a", about="b")
        hook.start("c")
        perdure.start_hook(hook, "d")
        perdure.start_hook(hook, "no", limit_key="e")
        perdure.start_child(child, "f", id="f")
        perdure.start_child(child, "g", id="g", limit_key="g")
        child.start("h")
        await perdure.wait_for("never")

    work(queues=["near"])
    client.start(asks)
    client.start(child, "i")
    client.start(child, "j", limit_key="j")
    client.start_many(child, [{"args": ["k"]}, {"args": {"user": "l"}, "limit_key": "l"}])
    client.signal_with_start(child, "m", "go", None, "m")
    client.create_schedule(child, "0 0 29 2 *", args=["n"])
    client.trigger_schedule("child")
    client.create_entity("e", "note")
    client.handle("e").hook(hook, "o")
    client.handle("e").hook(hook, user="no", limit_key="p")
    query = "select array_agg(limit_key order by limit_key) from tasks where queue = 'far'"
    want = sorted(["a b", *"cdegjlop", *["one for all"] * 6])
    end = time.monotonic() + 20
    while (found := connection.execute(query).fetchone()[0]) is None or len(found) < len(want):
        assert time.monotonic() < end, found
        time.sleep(0.01)
    assert sorted(found) == want

    wrong = app.hook(limit_key=lambda user: 5)(lambda memory, user: None)  # type: ignore[arg-type]
    with pytest.raises(perdure.InvalidArgument, match="not a text"):
        client.handle("e").hook(wrong, "q")
    with pytest.raises(perdure.InvalidArgument, match="no queue"):
        app.activity(limit_key="k")(lambda: None)


def test_limit_per_key_holds_for_activities(
    client: perdure.Client, app: perdure.App, work: Any
) -> None:
    """(E13) No two activities of the same key run at the same time."""
    running: list[str] = []
    most = 0

    @app.activity(queue="far", limit_key=lambda user: user)
    async def call(user: str) -> None:
        nonlocal most
        running.append(user)
        most = max(most, running.count(user))
        await asyncio.sleep(0.02)
        running.remove(user)

    @app.coordinator
    async def calls(memory: perdure.AsyncEntity) -> None:
        await asyncio.gather(*(call(user) for user in "ababab"))

    client.set_queue("far", max_per_key=1)
    work()
    client.start(calls).result(T)
    assert most == 1


def test_a_paused_queue_waits_until_it_is_resumed(
    client: perdure.Client, echo: Any, work: Any
) -> None:
    assert client.pause_queue("q") is True
    assert client.pause_queue("q") is False
    work()
    handle = client.start(echo, 1)
    assert handle.status().waiting_for == "somebody to resume queue q: it is paused"
    with pytest.raises(perdure.ResultTimeout):
        handle.result(0.3)
    assert client.resume_queue("q") is True
    assert handle.result(T) == 1


def test_a_paused_job_waits_until_it_is_resumed(
    client: perdure.Client, app: perdure.App, work: Any
) -> None:
    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await perdure.wait_for("go")

    handle = client.start(asks)
    assert handle.pause() is True
    assert handle.pause() is False
    handle.signal("go", 1)
    work()  # only now: a task that a worker already holds would not be paused
    with pytest.raises(perdure.ResultTimeout):
        handle.result(0.3)
    assert handle.status().waiting_for == "somebody to resume it: its job is paused"
    assert handle.resume() == 1
    assert handle.result(T) == 1


def test_async_client_limits_pauses_and_resumes_queues(
    dsn: str, app: perdure.App, echo: Any
) -> None:
    async def steer() -> None:
        async with await perdure.connect_async(dsn) as client:
            await client.set_queue("q", max_running=1)
            assert await client.pause_queue("q") is True
            handle = await client.start(echo, 1)
            assert await handle.pause() is True
            (found,) = await client.queue_depths("q")
            assert (found.paused, found.paused_tasks, found.max_running) == (True, 1, 1)
            assert await client.resume_queue("q") is True
            assert await handle.resume() == 1
            assert await handle.result(T) == 1

    with perdure.Worker(app, dsn=dsn):
        asyncio.run(steer())


def test_commands_limit_pause_and_resume_queues_and_jobs(
    dsn: str, client: perdure.Client, echo: Any, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setenv("PERDURE_DATABASE_URL", dsn)

    def run(*arguments: str) -> list[Any]:
        monkeypatch.setattr(sys, "argv", ["perdure", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None)
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    client.start(echo, id="j")
    rates = ("--rate", "0.5", "--rate-per-key", "0.25")
    assert run("queue", "set", "q", "--max-running", "2", *rates) == []
    assert run("queue", "pause", "q") == [True]
    (found,) = run("queue", "list")
    assert (found["queue"], found["paused"], found["held_back"]) == ("q", True, 1)
    assert (found["max_running"], found["rate_per_second"]) == (2, "0.5")
    assert (found["rate_per_key"], found["burst_per_key"]) == ("0.25", "1")
    assert run("queue", "resume", "q") == [True]
    assert run("pause", "j") == [True]
    assert run("resume", "j") == [1]


def test_limits_hold_for_workers_that_share_a_queue(
    client: perdure.Client, app: perdure.App, work: Any
) -> None:
    running = most = 0

    @app.hook(queue="q")
    async def slow(memory: perdure.AsyncEntity, number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    @app.coordinator
    async def many(memory: perdure.AsyncEntity) -> None:
        await asyncio.gather(*(slow(memory, n) for n in range(30)))

    client.set_queue("q", max_running=3)
    handle = client.start(many)
    for _ in range(3):
        work(slots=10)
    assert handle.result(T) is None
    assert 1 <= most <= 3


def test_a_slot_that_becomes_free_is_taken_at_once(
    client: perdure.Client, app: perdure.App, work: Any
) -> None:
    """(E13) A worker that waits for a slot is notified, long before its next poll."""

    @app.coordinator(queue="q")
    async def waits(memory: perdure.AsyncEntity) -> None:
        await asyncio.sleep(0)

    client.set_queue("q", max_running=1, rate_per_second=20, burst=1)
    work(slots=1, poll=600)
    work(slots=1, poll=600)
    began = time.monotonic()
    for handle in [client.start(waits) for _ in range(40)]:
        handle.result(T)
    # Without a notification, a full search once a second would find each of them, too.
    assert 39 / 20 - 0.1 < time.monotonic() - began < 39 / 4


def test_each_key_begins_at_its_rate_without_polls(
    client: perdure.Client, app: perdure.App, work: Any
) -> None:
    """(E13) An idle worker wakes up when a key has its next token."""

    @app.coordinator(queue="q")
    async def waits(memory: perdure.AsyncEntity) -> None:
        await asyncio.sleep(0)

    client.set_queue("q", rate_per_key=20, burst_per_key=1)
    work(slots=1, poll=600)
    work(slots=1, poll=600)
    began = time.monotonic()
    for handle in [client.start(waits, limit_key=key) for _ in range(20) for key in "ab"]:
        handle.result(T)
    assert 19 / 20 - 0.1 < time.monotonic() - began < 19 / 4


def kill_workers_at_random(dsn: str, path: Path, rounds: int) -> None:
    """Run pairs of workers that write what they do into a ledger, and kill them, pair by pair."""
    chance = random.Random(seed())
    for _ in range(rounds):
        with (
            worker_process(dsn, lease=3, LEDGER=str(path)) as one,
            worker_process(dsn, lease=3, LEDGER=str(path)) as other,
        ):
            time.sleep(chance.uniform(0.8, 1.6))
            for process in (one, other):
                process.kill()
                process.wait()
                with path.open("a") as ledger:
                    ledger.write(f"killed {process.pid} 0 {time.time()}\n")


def test_killed_workers_occupy_no_slots(client: perdure.Client, dsn: str, tmp_path: Path) -> None:
    """[P6] [P8] (C42) After kill -9, all work is done, and no limit is ever exceeded."""
    path = tmp_path / "ledger"
    client.set_queue("slots", max_running=4, max_per_key=2)
    handle = client.start("count_many", 60)
    kill_workers_at_random(dsn, path, 4)
    with worker_process(dsn, lease=3, LEDGER=str(path)):
        assert handle.result(T) == 60
    most, most_of_a_key = 0, 0
    for running in running_at(path):
        most = max(most, len(running))
        keys = [number % 3 for _, number in running]
        most_of_a_key = max([most_of_a_key, *map(keys.count, keys)])
    assert 1 <= most <= 4
    assert most_of_a_key <= 2


def test_killed_workers_gain_no_tokens(client: perdure.Client, dsn: str, tmp_path: Path) -> None:
    """[P6] [P8] (C42) After kill -9, all work is done, and no key has begun faster than its rate.

    A hook whose worker was lost begins again without a token, so only its first begin counts.
    """
    path = tmp_path / "ledger"
    client.set_queue("slots", rate_per_key=4, burst_per_key=2)
    began_at = time.time()
    handle = client.start("count_many", 60)
    kill_workers_at_random(dsn, path, 3)
    with worker_process(dsn, lease=3, LEDGER=str(path)):
        assert handle.result(T) == 60
    first: dict[int, float] = {}
    for line in path.read_text().splitlines():
        what, _, number, at = line.split()
        if what == "begin":
            first.setdefault(int(number), float(at) - began_at)
    for key in range(3):
        times = sorted(at for number, at in first.items() if number % 3 == key)
        assert len(times) == 20
        assert all(place < 2 + 4 * at for place, at in enumerate(times))


def running_at(path: Path) -> Iterator[set[tuple[str, int]]]:
    """Give the running hooks after each line of the ledger, by process and number."""
    running: set[tuple[str, int]] = set()
    for line in path.read_text().splitlines():
        what, process, number, _ = line.split()
        if what == "begin":
            running.add((process, int(number)))
        elif what == "end":
            running.discard((process, int(number)))
        else:
            running = {(p, n) for p, n in running if p != process}
        yield running
