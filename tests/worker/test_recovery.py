"""Recovery: workers are killed, servers restarted, replies lost; every job ends right. [C3] [C4]"""

from __future__ import annotations

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
from tests.amount import amount, seed
from tests.databases import PLAIN
from tests.storms.points import worker_points
from tests.worker.processes import worker_process

T = "40 s"
PAGES = 3
RESULT = [list(range(2 * PAGES)), list(range(PAGES)), 2 * PAGES]
NEVER = {"worker: before release", "worker: after release"}
"""Points that only an orderly stop passes."""
ELSEWHERE = {
    "activity: before final flush", "activity: after final flush",
    "hook: before park", "hook: after park",
}  # fmt: skip
"""Those of an activity that has a queue of its own: `test_dispatched.py`; and of a hook that waits
for long: `tests/storms`, `tests/engine`."""


def ledger(path: Path) -> Counter[str]:
    return Counter(path.read_text().splitlines()) if path.exists() else Counter()


class Bank:
    """Accounts of the user's, and transfers between them: three transactions each."""

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
        """Start so many transfers."""
        for _ in range(transfers):
            number = len(self._transfers)
            source, target = 1 + number % self.ACCOUNTS, 1 + (number + 1) % self.ACCOUNTS
            given = source, target, 1 + number
            self._transfers[self._client.start("transfer", *given).id] = given

    def wait(self, timeout: str | float = T) -> None:
        """Wait until all are done."""
        for job in self._transfers:
            self._client.handle(job).result(timeout)

    def check(self) -> None:
        """Each was made once: every balance is what it must be, and the sum is what it was."""
        wanted = dict.fromkeys(range(1, self.ACCOUNTS + 1), 1000)
        for source, target, moved in self._transfers.values():
            wanted[source] -= moved
            wanted[target] += moved
        assert dict(self._run("select id, balance from accounts")) == wanted
        assert sum(wanted.values()) == 1000 * self.ACCOUNTS
        assert sorted(self._run("select job from transfers")) == sorted(
            (job,) for job in self._transfers
        )


@pytest.mark.parametrize("point", sorted(worker_points() - NEVER - ELSEWHERE))
def test_a_worker_killed_anywhere_harms_nothing(
    client: perdure.Client, dsn: str, tmp_path: Path, point: str
) -> None:
    path = tmp_path / "ledger"
    handle = client.start("book", PAGES)
    slow = client.start("one_slow")  # so that there is something to keep a lease of
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
    assert max(ledger(path).values(), default=0) <= 1  # nothing twice in the second process


FLUSHES = [
    "coordinator: before final flush", "coordinator: after final flush", "activity: after function",
]  # fmt: skip


@pytest.mark.parametrize("time", range(1, 5))
@pytest.mark.parametrize("point", FLUSHES)
def test_a_worker_killed_between_two_runs_skips_and_doubles_none(
    client: perdure.Client, dsn: str, tmp_path: Path, point: str, time: int
) -> None:
    """[P6] [P12] (E17) (E4) Three runs go on as the next, one fails and is tried again."""
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


def test_a_hook_killed_half_way_is_finished_by_another(
    client: perdure.Client, dsn: str, tmp_path: Path
) -> None:
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


def test_sigterm_gives_back_what_cannot_end(
    client: perdure.Client, dsn: str, tmp_path: Path
) -> None:
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
    assert time.monotonic() - began < 20  # not the lease


def test_a_second_signal_ends_at_once(client: perdure.Client, dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    client.start("one_slow", id="slow")
    with worker_process(dsn, LEDGER=str(path), SLOW="60") as process:
        while ledger(path)["unrecorded"] == 0:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=1) == 1
    client.handle("slow").terminate()


def test_a_zombie_has_no_effect(client: perdure.Client, dsn: str, tmp_path: Path) -> None:
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
        assert other.result(T) == 7  # it works again, and has learned that its turn is over
        assert (handle.memory.get(), handle.status()) == before


def test_random_kills_under_load(client: perdure.Client, dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    seed = random.randrange(1_000_000)
    print("seed", seed)
    chance = random.Random(seed)
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
            # set, append and increment for each page, set
            assert handle.status().version == 2 + 4 * PAGES


@pytest.mark.stress
def test_money_is_neither_lost_nor_made_while_workers_are_killed(
    client: perdure.Client, dsn: str
) -> None:
    """(E8): PERDURE_TEST_AMOUNT scales how often workers are killed, and the transfers."""
    bank = Bank(client, dsn)
    chance = random.Random(seed())
    for _ in range(amount(5)):
        bank.begin(20)
        with worker_process(dsn), worker_process(dsn):
            time.sleep(chance.uniform(0.5, 1.5))
    with worker_process(dsn):
        bank.wait()
    bank.check()


def test_work_goes_on_after_the_server_restarts(app: perdure.App, own_server: Server) -> None:
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


@pytest.mark.direct("without hints a wait sends one call at a time")
def test_a_wait_goes_on_though_its_connection_breaks_in_the_midst_of_answers(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P12]: the driver says then that it is busy, and takes the connection for a good one."""

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


def test_storms_of_broken_connections_lose_and_double_nothing(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
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
