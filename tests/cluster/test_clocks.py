"""(T11) Clocks that jump, drift or are wrong: the time of the database counts, and no timer is
early, lost or stuck."""

from __future__ import annotations

import asyncio
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
from tests.amount import amount, seed
from tests.cluster.clocks import Clock
from tests.cluster.load import Load, T
from tests.cluster.machines import Machine, wait_for
from tests.storms.figures import Figures
from tests.worker.processes import worker_process

HOUR = 3600
SLOW = 15  # additional seconds for a busy machine
PAGE = Path(__file__).parent.parent.parent / "sql" / "servers.md"


@pytest.fixture
def clock() -> Iterator[Clock]:
    """Provide a clock that can be set."""
    with tempfile.TemporaryDirectory(prefix="perdure-") as folder:
        Path(folder).chmod(0o711)
        yield Clock(Path(folder) / "clock")


@pytest.fixture
def server(machines: Callable[..., Machine], example: Machine, clock: Clock) -> Machine:
    """Provide a server with that clock."""
    made = machines()
    made.begin_as(example)
    with clock.told():
        made.start()
    return made


@pytest.fixture
def client(server: Machine) -> Iterator[perdure.Client]:
    with perdure.connect(server.url(), provision=False) as client:
        yield client


@pytest.fixture
def app() -> perdure.App:
    """Provide an app whose code sleeps, and returns the length by the time of its workflow."""
    app = perdure.App()

    @app.activity
    async def step() -> None:
        await asyncio.sleep(0.01)

    @app.coordinator
    async def sleep(memory: perdure.AsyncEntity, seconds: float) -> float:
        began = perdure.now()
        await perdure.sleep(seconds)
        return (perdure.now() - began).total_seconds()

    @app.coordinator
    async def naps(memory: perdure.AsyncEntity, count: int) -> bool:
        honest = True
        for _ in range(count):
            began = perdure.now()
            await perdure.sleep(0.05)
            honest &= perdure.now() - began >= timedelta(seconds=0.05)
            await step()
            await memory.increment("naps")
        return honest

    @app.coordinator
    async def hear(memory: perdure.AsyncEntity) -> Any:
        return await perdure.wait_for("go")

    return app


@pytest.fixture
def work(app: perdure.App, server: Machine) -> Iterator[Callable[..., perdure.Worker]]:
    with ExitStack() as stack:

        def start(**options: Any) -> perdure.Worker:
            usual = {"poll": 0.2, "lease": 5, "dsn": server.url(), "provision": False}
            return stack.enter_context(perdure.Worker(app, **usual | options))

        yield start


def is_ended(handle: perdure.Handle) -> bool:
    return handle.status().status != "running"


def parked(server: Machine, jobs: int) -> bool:
    with server.connect() as connection:
        query = (
            "select count(*) from tasks where token is null and position = 0 and awaits is not null"
        )
        return connection.execute(query).fetchall() == [(jobs,)]


def test_jump_ahead_fires_only_the_timers_that_it_passes(
    server: Machine, clock: Clock, client: perdure.Client, work: Callable[..., perdure.Worker]
) -> None:
    """[P8] [P9] Timers that the clock passes fire, and a later one does not."""
    work()
    passed = [client.start("sleep", HOUR) for _ in range(3)]
    later = client.start("sleep", 3 * HOUR)
    wait_for(lambda: parked(server, 4))
    clock.set("+7200")
    for handle in passed:
        assert HOUR <= handle.result(T) < 2 * HOUR + 60
    assert not is_ended(later)
    clock.set("+14400")
    assert 3 * HOUR <= later.result(T) < 4 * HOUR + 60
    server.check()


def test_jump_back_delays_timers_by_at_most_the_jump(
    server: Machine, clock: Clock, client: perdure.Client, work: Callable[..., perdure.Worker]
) -> None:
    """[P8] New jobs are not delayed, and workflow time never goes back."""
    clock.set("+3")
    waiting = [client.start("sleep", 0.5) for _ in range(5)]  # due by the later clock
    work()
    napping = [client.start("naps", 20) for _ in range(5)]
    wait_for(lambda: (napping[0].memory.get("naps") or 0) > 2)
    began = time.monotonic()
    clock.set("+0")
    assert client.start("naps", 1).result(T) is True
    assert time.monotonic() - began < 3  # a new job is not delayed
    for handle in waiting:
        assert handle.result(T) >= 0.5
    for handle in napping:
        assert handle.result(T) is True
    assert time.monotonic() - began < 3 + 20 * 0.1 + SLOW
    server.check()


def test_jump_of_half_an_hour_back_delays_neither_starts_nor_signals(
    server: Machine, clock: Clock, client: perdure.Client, work: Callable[..., perdure.Worker]
) -> None:
    """[P8] A timer of the old time fires when the clock reaches it."""
    worker = work()
    hearing = client.start("hear")
    sleeping = client.start("sleep", 60)
    wait_for(lambda: parked(server, 2))
    clock.set("-1800")
    assert client.start("sleep", 0.2).result(T) >= 0.2
    hearing.signal("go", "now")
    assert hearing.result(T) == "now"
    left = client.start("hear")
    wait_for(lambda: parked(server, 2))
    worker.stop()  # its lease is released by the present clock
    work()
    left.signal("go", "again")
    assert left.result(T) == "again"
    assert not is_ended(sleeping)
    clock.set("+61")
    assert sleeping.result(T) >= 60
    server.check()


def test_documented_update_makes_tasks_due_after_a_jump_back(
    server: Machine, clock: Clock, client: perdure.Client, work: Callable[..., perdure.Worker]
) -> None:
    """[P8] The statement in `sql/servers.md` makes tasks of the later time due, and ends no sleep
    early."""
    worker = work()
    sleeping = client.start("sleep", 60)
    wait_for(lambda: parked(server, 1))
    worker.stop()
    clock.set("+7200")
    ready = client.start("naps", 1)
    clock.set("+0")
    work()
    time.sleep(0.5)
    assert not is_ended(ready)
    (remedy,) = re.findall(r"```sql\n(update .*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    with server.connect() as connection:
        assert connection.execute(remedy.replace("my_app.", "perdure.")).rowcount == 2
    assert ready.result(T) is True
    wait_for(lambda: parked(server, 1))
    assert not is_ended(sleeping)
    clock.set("+61")
    assert sleeping.result(T) >= 60
    server.check()


def test_documented_resume_resets_a_schedule_after_a_jump_back(
    server: Machine, clock: Clock
) -> None:
    """[P7] The statement in `sql/servers.md` makes a schedule count from the present again."""
    is_held_up = "select next_due_at - clock() > '1 hour' from schedules"
    with server.connect() as connection:
        connection.execute("select create_schedule('hourly', 'naps', '0 * * * *')")
        clock.set("+86400")
        connection.execute("call run_sql_hooks()")
        clock.set("+0")
        assert connection.execute(is_held_up).fetchone() == (True,)
        (remedy,) = re.findall(r"```sql\n(select name, .*?)```", PAGE.read_text("utf-8"), re.DOTALL)
        connection.execute(remedy.replace("my_app.", "perdure."))
        assert connection.execute(is_held_up).fetchone() == (False,)
    server.check()


def test_lease_of_a_dead_worker_ends_after_at_most_the_jump(
    server: Machine, clock: Clock, client: perdure.Client
) -> None:
    """[P6] [P8] A lease that was taken by the later clock ends by that clock."""
    clock.set("+3")
    with worker_process(server.url(), lease=1, SLOW="60") as doomed:
        handle = client.start("one_slow")
        wait_for(lambda: handle.memory.get("log") == ["begun"])
        clock.set("+0")
        doomed.kill()
        doomed.wait()
        began = time.monotonic()
    with worker_process(server.url(), lease=1, WORKER='{"poll": 0.2}'):
        assert handle.result(T) == "slow"
    assert time.monotonic() - began < 3 + 1 + SLOW
    server.check()


def test_clocks_of_workers_do_not_matter(server: Machine, client: perdure.Client) -> None:
    """[P9] One worker is a day ahead, one a day behind: every fact has the time of the database."""
    began: datetime = client.send(client.calls.clock())
    with (
        worker_process(server.url(), lease=1, SKEW="86400"),
        worker_process(server.url(), lease=1, SKEW="-86400"),
        Load(server.url()) as load,
    ):
        load.go_on(60)
        load.stop()
        load.check(client)
    with server.connect() as connection:
        told = connection.execute("select min(at), max(at), clock() from journal").fetchall()
    ((first, last, now),) = told
    assert began <= first <= last <= now
    server.check()


def test_random_jumps_and_drifts_break_no_promise(
    server: Machine,
    clock: Clock,
    client: perdure.Client,
    work: Callable[..., perdure.Worker],
    figures: Callable[..., Figures],
) -> None:
    """[P2] [P8] [P9] No sleep is shorter than asked, and every job completes."""
    drawn = seed()
    chance, row = random.Random(drawn), figures("T11 clocks", drawn)
    work()
    work(lease=1)
    handles = [client.start("naps", 10) for _ in range(10)]
    ahead = 0.0
    for _ in range(amount(12)):
        ahead = chance.choice([ahead, ahead + 7200, max(0, ahead - chance.choice([0.3, 2]))])
        clock.set(f"{ahead:+.1f}{chance.choice(['', '', ' x10', ' x0.2'])}")
        time.sleep(chance.uniform(0.1, 0.4))
        handles.append(client.start("naps", 3))
        row.faults += 1
    clock.set(f"{ahead + 7200:+.1f}")  # ahead of a clock that ran ten times as fast
    for handle in handles:
        assert handle.result(T) is True
        row.operations += handle.memory.get("naps")
    row.jobs = len(handles)
    server.check()
