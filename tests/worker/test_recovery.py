"""Recovery: when workers, servers or connections fail, every job still ends correctly. [C3] [C4]"""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from perdure.embedded.server import Server
from perdure.workers.worker import ONE_REQUEST
from tests.amount import amount, seed
from tests.databases import PLAIN
from tests.patience import wait_until
from tests.storms.points import worker_points
from tests.worker.processes import worker_process

T = "40 s"
PAGES = 3
RESULT = [list(range(2 * PAGES)), list(range(PAGES)), 2 * PAGES]
ORDERLY_STOP = {"worker: before release", "worker: after release"}
"""Points that only an orderly stop passes."""
ELSEWHERE = {
    "activity: before final flush", "activity: after final flush",
    "hook: before park", "hook: after park",
}  # fmt: skip
"""Points that other tests cover: those of dispatched activities `test_dispatched.py`, and those of
parked hooks `tests/storms` and `tests/engine`."""


def ledger(path: Path) -> Counter[str]:
    return Counter(path.read_text().splitlines()) if path.exists() else Counter()


class Bank:
    """Accounts in the user's tables, and transfers between them of three transactions each."""

    ACCOUNTS = 5

    def __init__(self, client: perdure.Client, dsn: str):
        self._client = client
        self._dsn = dsn
        self._transfers: dict[str, tuple[int, int, int]] = {}
        self._run("create table accounts (id integer primary key, balance bigint not null)")
        self._run(f"insert into accounts select n, 1000 from generate_series(1, {self.ACCOUNTS}) n")
        self._run("create table transfers (job text)")

    def _run(self, query: str) -> list[Any]:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def begin(self, transfers: int) -> None:
        """Start this many transfers."""
        for _ in range(transfers):
            number = len(self._transfers)
            source, target = 1 + number % self.ACCOUNTS, 1 + (number + 1) % self.ACCOUNTS
            given = source, target, 1 + number
            self._transfers[self._client.start("transfer", *given).id] = given

    def wait(self, timeout: str | float = T) -> None:
        """Wait until all transfers are done."""
        for job in self._transfers:
            self._client.handle(job).result(timeout)

    def check(self) -> None:
        """Check that each transfer was made once: balances are right, and their sum is the same."""
        wanted = dict.fromkeys(range(1, self.ACCOUNTS + 1), 1000)
        for source, target, moved in self._transfers.values():
            wanted[source] -= moved
            wanted[target] += moved
        assert dict(self._run("select id, balance from accounts")) == wanted
        assert sum(wanted.values()) == 1000 * self.ACCOUNTS
        assert sorted(self._run("select job from transfers")) == sorted(
            (job,) for job in self._transfers
        )


@pytest.mark.parametrize("point", sorted(worker_points() - ORDERLY_STOP - ELSEWHERE))
def test_worker_killed_at_any_point_loses_and_repeats_nothing(
    client: perdure.Client, dsn: str, tmp_path: Path, point: str
) -> None:
    """Another worker finishes every job with the right result and memory, and repeats no step."""
    path = tmp_path / "ledger"
    handle = client.start("book", PAGES)
    slow = client.start("one_slow")  # keeps a task busy for so long that its lease must be renewed
    bank = Bank(client, dsn)
    bank.begin(4)
    with worker_process(dsn, crash_at=f"{point}:2", SLOW="3") as process:
        assert process.wait(timeout=30) == -signal.SIGKILL
    with worker_process(dsn, LEDGER=str(path)):
        assert handle.result(T) == RESULT
        assert slow.result(T) == "slow"
        bank.wait()
    bank.check()
    memory = handle.memory.get()
    assert sorted(memory["pages"]) == list(range(2 * PAGES))
    assert memory["done"] == 2 * PAGES
    assert memory["complete"] is True
    assert slow.memory.get("log") == ["begun", "done"]
    assert max(ledger(path).values(), default=0) <= 1  # the second process repeats nothing


FLUSHES = [
    "coordinator: before final flush", "coordinator: after final flush", "activity: after function",
]  # fmt: skip


@pytest.mark.parametrize("time", range(1, 5))
@pytest.mark.parametrize("point", FLUSHES)
def test_worker_killed_between_runs_skips_and_repeats_no_run(
    client: perdure.Client, dsn: str, tmp_path: Path, point: str, time: int
) -> None:
    """[P6] [P12] (E17) (E4) Of four runs, the first and the third continue as new, and the second
    fails and is retried."""
    path = tmp_path / "ledger"
    handle = client.start("laps", 1, 3)
    with worker_process(dsn, crash_at=f"{point}:{time}") as process:
        assert process.wait(timeout=30) == -signal.SIGKILL
    with worker_process(dsn, LEDGER=str(path)):
        assert handle.result(T) == 4
    assert handle.status().run == 4
    assert max(ledger(path).values(), default=0) <= 1
    begun = [item.body["name"] for item in handle.timeline() if item.task == "$run"]
    assert begun == ["continue", "retry", "continue"]


def test_hook_of_a_killed_worker_is_finished_by_another(
    client: perdure.Client, dsn: str, tmp_path: Path
) -> None:
    """The recorded activity is not repeated; the one without a record runs again."""
    path = tmp_path / "ledger"
    handle = client.start("one_slow")
    with worker_process(dsn, LEDGER=str(path), SLOW="60"):
        while ledger(path)["unrecorded"] == 0:
            time.sleep(0.02)
        time.sleep(0.3)
    with worker_process(dsn, LEDGER=str(path)):
        assert handle.result(T) == "slow"
    assert handle.memory.get("log") == ["begun", "done"]
    assert ledger(path) == {"step before": 1, "unrecorded": 2}


def test_two_processes_share_a_queue(client: perdure.Client, dsn: str, tmp_path: Path) -> None:
    """Together, two workers run each step of ten jobs exactly once."""
    path = tmp_path / "ledger"
    with worker_process(dsn, LEDGER=str(path)), worker_process(dsn, LEDGER=str(path)):
        handles = [client.start("book", PAGES) for _ in range(10)]
        for handle in handles:
            assert handle.result(T) == RESULT
    assert ledger(path) == dict.fromkeys(
        ["step first", "step last"]
        + [f"step page {n}" for n in range(PAGES)]
        + [f"plain_step page {n}" for n in range(PAGES, 2 * PAGES)],
        10,
    )


def test_sigterm_gives_back_a_task_that_does_not_end_in_time(
    client: perdure.Client, dsn: str, tmp_path: Path
) -> None:
    """Another worker takes it at once, although the lease is a minute."""
    path = tmp_path / "ledger"
    handle = client.start("one_slow")
    with worker_process(dsn, lease=60, LEDGER=str(path), SLOW="60") as process:
        while ledger(path)["unrecorded"] == 0:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    began = time.monotonic()
    with worker_process(dsn, lease=60, LEDGER=str(path)):
        assert handle.result(T) == "slow"
    assert time.monotonic() - began < 20  # sooner than the lease would end


def test_second_sigterm_ends_the_worker_at_once(
    client: perdure.Client, dsn: str, tmp_path: Path
) -> None:
    path = tmp_path / "ledger"
    client.start("one_slow", id="slow")
    with worker_process(dsn, LEDGER=str(path), SLOW="60") as process:
        while ledger(path)["unrecorded"] == 0:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        time.sleep(2 * ONE_REQUEST)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=1) == 1
    client.handle("slow").terminate()


def test_zombie_that_wakes_up_changes_nothing(
    client: perdure.Client, dsn: str, tmp_path: Path
) -> None:
    """A worker that was frozen while another finished its task changes nothing when it wakes up,
    and takes new tasks."""
    path = tmp_path / "ledger"
    handle = client.start("one_slow")
    with worker_process(dsn, LEDGER=str(path), SLOW="0.5") as zombie:
        while ledger(path)["unrecorded"] == 0:
            time.sleep(0.02)
        zombie.send_signal(signal.SIGSTOP)
        with worker_process(dsn, LEDGER=str(path)):
            assert handle.result(T) == "slow"
        before = (handle.memory.get(), handle.status())
        other = client.start("trivial", 7)
        zombie.send_signal(signal.SIGCONT)
        assert other.result(T) == 7  # the zombie works on, and knows that it has lost its task
        assert (handle.memory.get(), handle.status()) == before


def test_workers_killed_at_random_lose_and_repeat_no_write(
    client: perdure.Client, dsn: str, tmp_path: Path
) -> None:
    """Every job ends with its result, and its memory has as many versions as without kills."""
    path = tmp_path / "ledger"
    chance = random.Random(seed())
    handles = [client.start("book", PAGES) for _ in range(15)]
    for _ in range(6):
        with worker_process(dsn, LEDGER=str(path)), worker_process(dsn, LEDGER=str(path)):
            time.sleep(chance.uniform(0.6, 1.6))
    with worker_process(dsn, LEDGER=str(path)):
        for handle in handles:
            assert handle.result(T) == RESULT
            memory = handle.memory.get()
            assert sorted(memory["pages"]) == list(range(2 * PAGES))
            assert memory["done"] == 2 * PAGES
            # one set at the beginning and one at the end; append and increment for each page
            assert handle.status().version == 2 + 4 * PAGES


@pytest.mark.stress
def test_money_is_neither_lost_nor_made_while_workers_are_killed(
    client: perdure.Client, dsn: str
) -> None:
    """(E8) Every transfer is made once. PERDURE_TEST_AMOUNT scales kills and transfers."""
    bank = Bank(client, dsn)
    chance = random.Random(seed())
    for _ in range(amount(5)):
        bank.begin(20)
        with worker_process(dsn), worker_process(dsn):
            time.sleep(chance.uniform(0.5, 1.5))
    with worker_process(dsn):
        bank.wait()
    bank.check()


def test_work_continues_after_the_server_crashes(app: perdure.App, own_server: Server) -> None:
    """Three crashes of the server lose no job and no write, and repeat none."""

    @app.activity
    async def step(number: int) -> int:
        return number

    @app.coordinator
    async def chain(memory: perdure.AsyncEntity) -> Any:
        for number in range(20):
            await memory.increment("n", await step(number))
            await perdure.sleep(0.03)
        return await memory.get("n")

    url = own_server.url()
    with perdure.connect(url) as client, perdure.Worker(app, dsn=url, lease=5):
        handles = [client.start(chain) for _ in range(5)]
        for _ in range(3):
            time.sleep(0.3)
            own_server.crash()
        late = client.start(chain)
        for handle in [*handles, late]:
            assert handle.result(T) == 190
            assert client.handle(handle.id).status().version == 20
        with psycopg.connect(url) as connection:
            broken = connection.execute("select * from perdure.assert_invariants()").fetchall()
    assert broken == []


def test_no_key_gains_tokens_when_the_server_crashes(app: perdure.App, own_server: Server) -> None:
    """[P6] (C42) What a claim has taken is on disk before the task begins.

    No lease ends during the test, so each begin has paid.
    """
    begun: list[str] = []

    @app.activity(queue="q", limit_key=lambda key: key)
    async def begin(key: str) -> None:
        begun.append(key)
        await asyncio.sleep(0.1)

    @app.coordinator
    async def begin_in_turn(memory: perdure.AsyncEntity, key: str) -> None:
        await begin(key)

    url = own_server.url()
    with perdure.connect(url) as client, perdure.Worker(app, dsn=url, lease=60, slots=1):
        client.set_queue("q", rate_per_key=0.001, burst_per_key=4)
        handles = [client.start(begin_in_turn, key) for _ in range(6) for key in "abc"]
        for many in (2, 5, 8):
            while len(begun) < many:
                time.sleep(0.001)
            own_server.crash()
        wait_until(lambda: [h.status().status for h in handles].count("completed") >= 12)
    assert Counter(begun) == {"a": 4, "b": 4, "c": 4}


@pytest.mark.direct("without hints a wait sends one call at a time")
def test_waiting_client_replaces_a_connection_whose_pipeline_broke(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P12] psycopg reports that the pipeline is busy, and still takes the connection for a good
    one. The client closes it and waits on another."""

    @app.coordinator
    async def slow(memory: perdure.AsyncEntity) -> int:
        await perdure.sleep(0.3)
        return 1

    pipeline = psycopg.Connection.pipeline
    broken: list[psycopg.Connection[Any]] = []

    @contextmanager
    def breaks_once(connection: psycopg.Connection[Any]) -> Iterator[psycopg.Pipeline]:
        with pipeline(connection) as opened:
            yield opened
        if not broken:
            broken.append(connection)
            raise psycopg.OperationalError("cannot exit pipeline mode while busy")

    monkeypatch.setattr(psycopg.Connection, "pipeline", breaks_once)
    work()
    assert client.start(slow).result(T) == 1
    assert [connection.closed for connection in broken] == [True]


def test_broken_connections_lose_and_repeat_nothing(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """Another session keeps terminating the connections of the worker and the client at random."""

    @app.activity
    async def step(number: int) -> int:
        return number

    @app.hook
    async def adds(memory: perdure.AsyncEntity, number: int) -> None:
        await memory.increment("n", await step(number))

    @app.coordinator
    async def sums(memory: perdure.AsyncEntity) -> Any:
        for number in range(10):
            await adds(memory, number)
        return await memory.get("n")

    stop = threading.Event()

    def storm() -> None:
        with psycopg.connect(dsn, autocommit=True, application_name="storm", **PLAIN) as connection:
            while not stop.wait(0.05):
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where application_name like 'perdure%' and random() < 0.3"
                )

    storming = threading.Thread(target=storm)
    work(lease=5)
    storming.start()
    try:
        handles = [client.start(sums) for _ in range(10)]
        handles[0].memory.set("outside", "mark")
        results = [handle.result(T) for handle in handles]
    finally:
        stop.set()
        storming.join()
    assert results == [45] * 10
    assert handles[1].status().version == 10
