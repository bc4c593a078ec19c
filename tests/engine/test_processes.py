"""[P4] [P6] [P9] (C3) (C4) Workers in processes: killed by `kill -9`, stopped and woken as zombies,
with their own hash seeds."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from tests.engine.crashing import QUEUES
from tests.engine.ledger import Paper
from tests.engine.outcomes import differences, outcome_of
from tests.engine.outside import Outside
from tests.engine.process_app import NAMES
from tests.engine.processes import worker_process
from tests.engine.programs import PROGRAMS
from tests.engine.references import References

T = "40 s"
APP = "tests.engine.process_app:app"
DEATHS = int(os.environ.get("PERDURE_FUZZ_SEEDS", "3"))

# Activities whose results are recorded must not be executed again.
RECORDED = "select job_id, task, key from journal where kind = 'activity'"


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    until = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_set_of_strings_iterates_alike_in_two_processes(client: perdure.Client, dsn: str) -> None:
    """[P9] The command line fixes PYTHONHASHSEED, so a set has the same order in each process."""
    handle = client.start("greets")
    with worker_process(dsn, app=APP, lease="1 s"):
        wait_until(lambda: handle.memory.get("first half") is not None)
    handle.signal("go")
    with worker_process(dsn, app=APP, lease="1 s"):
        result = handle.result(T)
    assert sorted(result) == [f"hello {name}" for name in NAMES]
    assert result[: len(NAMES) // 2] == handle.memory.get("first half")


@pytest.mark.parametrize("then", ["parked", "ended"])
@pytest.mark.parametrize("zombie_by", ["standing still", "starving"])
def test_zombie_that_wakes_changes_nothing(
    client: perdure.Client,
    dsn: str,
    then: str,
    zombie_by: str,
    connection: psycopg.Connection[Any],
    tmp_path: Path,
) -> None:
    """[P6] (T10) A worker was stopped, or its code starved its threads, so its leases ended.
    Another worker claimed its task and parked or ended it. When the first worker wakes, it changes
    nothing."""
    handle = client.start("one_slow")
    own: dict[str, str] = {}
    if zombie_by == "starving":
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        own = {"STARVE": str(pipe)}
    parked = "select token is null from tasks where kind = 'hook' and awaits = '{go}'"
    with worker_process(dsn, app=APP, lease="1 s", NAME="a", SLOW="0.5", **own) as zombie:
        wait_until(lambda: handle.memory.get("workers") == ["a"])
        if not own:
            zombie.send_signal(signal.SIGSTOP)
        with worker_process(dsn, app=APP, lease="1 s", NAME="b", SLOW="0"):
            wait_until(lambda: connection.execute(parked.encode()).fetchall() == [(True,)])
            if then == "ended":
                handle.signal("go")
                assert handle.result(T) == ["b", ["begun", "done", "gone"]]
            before = handle.memory.get(), handle.status().version
            if own:
                os.close(os.open(pipe, os.O_WRONLY))
            else:
                zombie.send_signal(signal.SIGCONT)
            time.sleep(1.0)
            assert (handle.memory.get(), handle.status().version) == before
            if then == "parked":
                zombie.kill()
                handle.signal("go")
                assert handle.result(T) == ["b", ["begun", "done", "gone"]]
    assert handle.memory.get() == {"log": ["begun", "done", "gone"], "workers": ["a"]}


def test_all_programs_survive_kill_9(
    client: perdure.Client,
    dsn: str,
    connection: psycopg.Connection[Any],
    references: References,
    tmp_path: Path,
) -> None:
    """All programs in one process that is killed again and again have the outcomes of their
    references."""
    chance = random.Random(DEATHS)
    jobs = [Outside(connection, program.workflow) for program in PROGRAMS]
    steps = {program.workflow: list(program.steps) for program in PROGRAMS}
    wants = [references.of(program)[0] for program in PROGRAMS]
    for job in jobs:
        job.start(job.job)

    def is_over() -> bool:
        for job in jobs:
            while steps[job.job] and steps[job.job][0](job):
                steps[job.job].pop(0)
        return jobs[0].one("select not exists (select from tasks)") is True

    calls: set[str] = set()
    options: dict[str, Any] = {"app": "tests.engine.process_app:programs", "queues": QUEUES}
    for life in range(DEATHS + 1):
        recorded = {repr(row)[:-1] for row in jobs[0].many(RECORDED)}
        paper = Paper(str(tmp_path / f"ledger {life}"))
        with worker_process(dsn, lease="1 s", LEDGER=paper.path, **options):
            if life == DEATHS:
                wait_until(is_over)
            else:
                until = time.monotonic() + 3  # in case no activity is left to run
                while time.monotonic() < until and not paper.read():
                    time.sleep(0.01)
                until = time.monotonic() + chance.uniform(0.0, 0.25)
                while time.monotonic() < until and not is_over():
                    time.sleep(0.01)
        executed = paper.read()
        assert not [call for call in executed if call.rpartition(",")[0] in recorded]
        assert [call for call, count in executed.items() if count > 1] == []
        calls |= set(executed)
    for job, want in zip(jobs, wants, strict=True):
        own = [call for call in calls if call.startswith((f"('{job.job}'", f"('{job.job}/"))]
        assert differences(outcome_of(job, own), want) == []
