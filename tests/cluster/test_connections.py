"""(T33) (T34) No connection is available for a while, or none at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from tests.amount import amount
from tests.cluster.load import Load
from tests.cluster.machines import Machine, wait_for
from tests.worker.processes import worker_process
from tests.worker.test_recovery import Bank

TAKEN_FOR = 1.0  # seconds
QUICK = json.dumps({"poll": 0.2})
TERMINATE = """
select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'perdure%'
"""


def try_to_connect(server: Machine) -> psycopg.Connection[Any] | None:
    """Return a connection, if one is available."""
    with suppress(psycopg.OperationalError):
        return server.connect()
    return None


def take_all(server: Machine) -> None:
    """Take every connection of the server for a while, after ending those of others."""
    with ExitStack() as stack:
        first = stack.enter_context(wait_for(lambda: try_to_connect(server)))
        until = time.monotonic() + TAKEN_FOR
        while time.monotonic() < until:
            first.execute(TERMINATE)
            with suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(psycopg.connect(server.url()))
            time.sleep(0.02)
        with pytest.raises(psycopg.OperationalError, match=r"clients already|remaining connection"):
            psycopg.connect(server.url())


def test_workers_and_clients_wait_for_free_connections(
    machines: Callable[..., Machine], example: Machine
) -> None:
    """[P2] [P4] [P8] [P12] All of them lose their connections and come back; no transaction loses
    an attempt. At times workers need all connections, and later they release them."""
    server = machines(settings={"max_connections": "30"})
    server.begin_as(example)
    server.start()
    with ExitStack() as stack:
        client = stack.enter_context(perdure.connect(server.url(), provision=False))
        bank = Bank(client, server.url())
        workers = [
            stack.enter_context(worker_process(server.url(), lease=2, WORKER=QUICK))
            for _ in range(2)
        ]
        server.await_workers(2)
        load = stack.enter_context(Load(server.url()))
        for _ in range(amount(1)):
            load.go_on(30)
            bank.begin(6)
            take_all(server)
            load.go_on(30)
        load.stop()
        load.check(client)
        bank.wait()
        wait_for(lambda: try_to_connect(server)).close()
        bank.check()
        assert [worker.poll() for worker in workers] == [None, None]
    server.check()


def test_worker_that_cannot_connect_ends_with_an_error(tmp_path: Path) -> None:
    """(T34) Its supervisor can start it again."""
    with worker_process(f"postgresql://postgres@/nothing?host={tmp_path}") as process:
        assert process.wait(timeout=20) == 1
