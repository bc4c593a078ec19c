"""(T15) The disk is full for a while: calls wait or fail cleanly, and everything continues by
itself."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest

import perdure
from perdure.installation.install import install
from tests.amount import amount
from tests.cluster.disks import Disk, disk
from tests.cluster.load import BOOK, PAGES, Load, T
from tests.cluster.machines import Machine, wait_for
from tests.storms.figures import Figures
from tests.worker.processes import worker_process

FULL_FOR = 1.0  # seconds
QUICK = json.dumps({"poll": 0.2})


@pytest.fixture
def small() -> Iterator[Disk]:
    """Provide a disk with room for one app."""
    with disk(40) as made:
        yield made


def app_on(machine: Machine, disk: Disk) -> str:
    """Install the app in a database whose tables are on that disk."""
    with psycopg.connect(machine.url(), autocommit=True) as connection:
        connection.execute(f"create tablespace small location '{disk.folder}'".encode())
        connection.execute("create database app tablespace small strategy file_copy")
    with psycopg.connect(machine.url("app"), autocommit=True) as connection:
        install(connection, "perdure")
    return machine.url("app")


def is_full(dsn: str) -> bool:
    """Return whether the tables cannot grow; then even a new session may fail."""
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create table growth as select 1 from generate_series(1, 100000)")
            connection.execute("drop table growth")
    except psycopg.OperationalError as error:
        return "No space left" in str(error)
    return False


def test_calls_wait_for_room_on_a_full_disk(
    primary: Machine, small: Disk, figures: Callable[..., Figures]
) -> None:
    """[P1] [P2] [P12] (T34) Workers and clients wait while the disk is full; nothing acknowledged
    is lost or done twice."""
    dsn, row = app_on(primary, small), figures("T15 disk")
    with ExitStack() as stack:
        workers = [
            stack.enter_context(worker_process(dsn, lease=2, WORKER=QUICK)) for _ in range(2)
        ]
        primary.await_workers(2, "app")
        load = stack.enter_context(Load(dsn))
        for _ in range(amount(1)):
            load.go_on(50)
            small.fill()
            wait_for(lambda: is_full(dsn))
            time.sleep(FULL_FOR)
            small.free()
            load.go_on(50)
            row.faults += 1
        load.stop()
        load.tell(row)
        with perdure.connect(dsn, provision=False) as client:
            load.check(client)
        assert [worker.poll() for worker in workers] == [None, None]
    assert load.slowest > FULL_FOR / 2
    primary.check("app")


def test_impatient_client_gets_disk_full_and_can_repeat_its_call(
    primary: Machine, small: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P12] The failed call has no effect, and the same call succeeds later."""
    monkeypatch.setattr("perdure.clients.pools.PATIENCE", 0.3)
    dsn = app_on(primary, small)
    with perdure.connect(dsn, provision=False) as client:
        memory = client.create_entity("m", "note", {"pages": []})
        written = []

        def write(number: int) -> None:
            memory.append("pages", "x" * 2000, key=f"page {number}")
            written.append(number)

        small.fill()
        with pytest.raises(psycopg.errors.DiskFull):
            deque(map(write, range(2000)), maxlen=0)
        small.free()
        assert len(memory.get("pages")) == len(written)
        for _ in range(2):
            memory.append("pages", "y", key=f"page {len(written)}")
        assert len(memory.get("pages")) == len(written) + 1
    primary.check("app")


def test_full_disk_beneath_the_log_loses_nothing_acknowledged(
    machines: Callable[..., Machine], example: Machine
) -> None:
    """[P1] [P12] (T34) A full disk beneath pg_wal makes the server panic."""
    with disk(80) as log, ExitStack() as stack:
        server = machines()
        server.begin_as(example)
        server.move_log(log.folder / "wal")
        server.start()
        dsn = server.url()
        workers = [
            stack.enter_context(worker_process(dsn, lease=2, WORKER=QUICK)) for _ in range(2)
        ]
        server.await_workers(2)
        load = stack.enter_context(Load(dsn))
        load.go_on(50)
        log.fill()
        wait_for(lambda: not server.writes())
        time.sleep(FULL_FOR)
        log.free()
        if not server.writes():
            server.kill()
            server.start()
        load.go_on(50)
        load.stop()
        with perdure.connect(dsn, provision=False) as client:
            load.check(client)
            assert client.start("book", PAGES).result(T) == BOOK
        assert [worker.poll() for worker in workers] == [None, None]
        server.check()
