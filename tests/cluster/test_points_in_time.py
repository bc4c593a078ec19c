"""Recovery to a point in time: a backup that was taken under load, and the write-ahead log since.
[P13] (T20)"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.errors import InstanceNotAdopted
from tests.cluster.load import BOOK, Load, T
from tests.cluster.machines import Machine, wait_for
from tests.worker.kill_app import app
from tests.worker.processes import worker_process

CALLS = 60
A_WHILE = 1.0
"""Seconds in which a copy that executes by itself would change something."""
STATE = """
select (select array_agg(to_jsonb(j) order by j.id) from jobs as j),
       (select array_agg(to_jsonb(t) order by t.job_id, t.task) from tasks as t),
       (select count(*) from journal), (select count(*) from inbox)
"""


@pytest.fixture
def original(machines: Callable[..., Machine], example: Machine) -> Iterator[Machine]:
    """Provide a server that archives its write-ahead log."""
    made = machines()
    kept = made.folder / "kept"
    kept.mkdir()
    made._give(kept)
    made.settings |= {
        "archive_mode": "on",
        "archive_command": f"cp %p {kept}/%f",
        "max_wal_senders": "4",
    }
    made.begin_as(example)
    made.start()
    return made


def back_up(server: Machine, copy: Machine) -> None:
    """Copy the files of a running server."""
    copy.data.mkdir(mode=0o700)
    copy._give(copy.data)
    source = f"host={server.sockets} user=postgres"
    options = ["--checkpoint=fast", "--no-sync", "--wal-method=none"]
    copy._run("pg_basebackup", "-D", str(copy.data), "-d", source, *options)


def restore(copy: Machine, kept: Path, point: str) -> None:
    """Recover a copy to a point in time."""
    copy.settings |= {
        "restore_command": f"cp {kept}/%f %p",
        "recovery_target_time": point,
        "recovery_target_action": "promote",
    }
    (copy.data / "recovery.signal").touch()
    copy._give(copy.data / "recovery.signal")
    copy.start()
    with copy.connect() as connection:
        wait_for(lambda: answer(connection, "select not pg_is_in_recovery()"))


def answer(connection: Any, query: str) -> Any:
    """Return the first column of the only row."""
    return connection.execute(query).fetchone()[0]


def test_recovery_to_a_point_in_time_continues_after_adoption(
    machines: Callable[..., Machine], original: Machine
) -> None:
    """Everything that was acknowledged before that point exists, and nothing of later. The copy
    executes nothing by itself. Once it is adopted, it refuses workers of the original, and every
    job ends right."""
    copy = machines()
    with ExitStack() as stack:
        connection = stack.enter_context(original.connect())
        instance = answer(connection, "select value #>> '{}' from settings where name = 'instance'")
        for _ in range(2):
            stack.enter_context(worker_process(original.url(), lease=2))
        original.await_workers(2)
        load = stack.enter_context(Load(original.url()))
        load.go_on(CALLS)
        back_up(original, copy)
        load.go_on(CALLS)
        acknowledged = {name: len(counted) for name, counted in load.counted.items()}
        started = list(load.started)
        point: datetime = answer(connection, "select clock_timestamp()")
        later = {name: len(counted) + 1 for name, counted in load.counted.items()}
        load.go_on(CALLS)
        load.stop()
        connection.execute("select pg_switch_wal()")
        wait_for(lambda: not list((original.data / "pg_wal/archive_status").glob("*.ready")))
    original.kill()
    restore(copy, original.folder / "kept", str(point))

    with copy.connect() as connection, perdure.connect(copy.url(), provision=False) as client:
        copy.check()
        before = connection.execute(STATE).fetchall()
        for name, least in acknowledged.items():
            assert least <= client.entity(name).get("n") <= later[name] < len(load.counted[name])
        assert any(task["worker"] for task in before[0][1]), "no task was held"
        time.sleep(A_WHILE)
        assert connection.execute(STATE).fetchall() == before

        connection.execute("select adopt_instance(%s)", [point])
        worker = perdure.Worker(app, dsn=copy.url(), instance=instance, provision=False)
        with pytest.raises(InstanceNotAdopted, match="not the instance"):
            worker.start()
        with worker_process(copy.url(), lease=2):
            for job in started:
                assert client.handle(job).result(T) == BOOK
            wait_for(lambda: not answer(connection, "select count(*) from tasks"))
        copy.check()
