"""There is no connection to be had for a while, or none at all. (T33) (T34)"""

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


def let_in(server: Machine) -> psycopg.Connection[Any] | None:
    """Give a connection, if there is one to be had."""
    with suppress(psycopg.OperationalError):
        return server.connect()
    return None


def take_all(server: Machine) -> None:
    """Take every connection that the server has for a while, those of others first."""
    with ExitStack() as stack:
        first = stack.enter_context(wait_for(lambda: let_in(server)))
        until = time.monotonic() + TAKEN_FOR
        while time.monotonic() < until:
            first.execute(TERMINATE)
            with suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(psycopg.connect(server.url()))
            time.sleep(0.02)
        with pytest.raises(psycopg.OperationalError, match=r"clients already|remaining connection"):
            psycopg.connect(server.url())


def test_workers_and_clients_wait_until_there_are_connections_again(
    machines: Callable[..., Machine], example: Machine
) -> None:
    """[P2] [P4] [P8] [P12] Each of them has lost those that it had; no transaction loses an
    attempt. Workers take all there are at times, and leave them when they have no use for them."""
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
        wait_for(lambda: let_in(server)).close()
        bank.check()
        assert [worker.poll() for worker in workers] == [None, None]
    server.check()


def test_a_worker_that_cannot_begin_ends_with_an_error(tmp_path: Path) -> None:
    """(T34) Whoever supervises it begins it again."""
    with worker_process(f"postgresql://postgres@/nothing?host={tmp_path}") as process:
        assert process.wait(timeout=20) == 1
