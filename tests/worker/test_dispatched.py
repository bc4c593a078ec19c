"""Dispatched activities (E3): they run on other workers than their callers, in any language."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from tests.databases import PLAIN
from tests.worker.processes import worker_process
from tests.worker.test_recovery import ledger
from tests.worker.test_until import run, wait_for

T = "40 s"


def test_lost_worker_is_replaced_and_the_result_recorded_once(
    client: perdure.Client, dsn: str, tmp_path: Path
) -> None:
    """[P4] [P6] Another worker of the queue continues after the last reported page."""
    path = tmp_path / "ledger"
    with worker_process(dsn, "default", LEDGER=str(path)):
        handle = client.start("reads_far", 10)
        wait_for(dsn, "select exists (select from perdure.tasks where kind = 'activity')")
        with worker_process(dsn, "far", LEDGER=str(path), STOP_AT="7"):
            wait_for(dsn, "select coalesce(bool_or(progress = '7'), false) from perdure.tasks")
        with worker_process(dsn, "far", LEDGER=str(path)):
            assert handle.result(T) == 10
    assert ledger(path) == {f"page {n}": 1 for n in range(1, 11)}
    answers = "select count(*) from perdure.journal where name = 'read_far' and kind = 'answer'"
    assert run(dsn, answers) == [(1,)]


@pytest.mark.parametrize(
    "point", ["committer: after claim", "activity: before function", "activity: after function",
              "activity: before final flush", "activity: after final flush",
              "heartbeat: before send"],
)  # fmt: skip
def test_worker_killed_at_any_point_harms_nothing(
    client: perdure.Client, dsn: str, tmp_path: Path, point: str
) -> None:
    """[P4] [P12] (C3) Another worker finishes; a result that was sent is not computed again."""
    path = tmp_path / "ledger"
    with worker_process(dsn, "default"):
        handle = client.start("reads_far", 3)
        with worker_process(dsn, "far", crash_at=f"{point}:1", SLOW_FAR="1") as killed:
            killed.wait(timeout=30)
        with worker_process(dsn, "far", LEDGER=str(path)):
            assert handle.result(T) == 3
    if point == "activity: after final flush":
        assert ledger(path) == {}


def test_dispatched_activity_is_retried_after_a_timeout(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """The timeout is for each attempt: two time out, and the third one ends in time."""

    @app.activity(queue="far", retry=perdure.Retry(attempts=3, delay=0.01), timeout=0.3)
    def slow() -> int:
        attempt = perdure.info().attempt
        while attempt < 2:
            perdure.heartbeat()
            time.sleep(0.01)
        return attempt

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await slow()

    for _ in range(2):
        work(queues=["far"])
    work(queues=["default"])
    assert client.start(asks).result(T) == 2


class SqlWorker:
    """A worker written in SQL alone: it claims, reports progress, and finishes or fails."""

    def __init__(self, dsn: str, name: str):
        self._connection = psycopg.connect(dsn, autocommit=True, **PLAIN)
        self._name = name

    def _call(self, query: str, *values: Any) -> Any:
        row = self._connection.execute(query.encode(), values).fetchone()
        return row and row[0]

    def claim(self, queue: str) -> dict[str, Any]:
        """Wait for a task."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            reply = self._call(
                "select perdure.claim(%s, %s, %s)", [queue], self._name, uuid.uuid4()
            )
            if reply["tasks"]:
                return {**reply["tasks"][0], "token": reply["token"]}
            time.sleep(0.01)
        raise AssertionError("nothing came")

    def extend(self, task: dict[str, Any], progress: Any) -> Any:
        lease = {name: task[name] for name in ("job", "task", "token")} | {"progress": progress}
        return self._call("select perdure.extend(%s)", json.dumps([lease]))[0]

    def finish(self, task: dict[str, Any], value: Any) -> Any:
        query = "select perdure.finish_task(%s, %s, %s, %s)"
        return self._call(query, task["job"], task["task"], task["token"], json.dumps(value))

    def fail(self, task: dict[str, Any], message: str, retry_in: str | None) -> Any:
        query = "select perdure.fail_task(%s, %s, %s, %s, perdure.clock() + %s::interval)"
        failure = json.dumps({"type": "OutOfPaper", "message": message})
        return self._call(query, task["job"], task["task"], task["token"], failure, retry_in)

    def close(self) -> None:
        self._connection.close()


def test_worker_can_be_written_in_sql(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """[P6] [P10] (C77) It is fenced, its progress is kept, and its failure reaches the caller."""

    @app.activity(queue="printer")
    def print_page(text: str, copies: int = 1) -> dict[str, int]:
        raise AssertionError("this worker does not serve the queue")

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        outcomes: list[Any] = [await print_page("first", copies=2)]
        try:
            await print_page("second")
        except perdure.ActivityFailed as error:
            outcomes.append([error.type, error.message])
        return outcomes

    work(queues=["default"])
    handle = client.start(asks)
    first, second = SqlWorker(dsn, "one"), SqlWorker(dsn, "two")
    task = first.claim("printer")
    assert (task["name"], task["kind"], task["progress"]) == ("print_page", "activity", None)
    assert task["args"] == {"text": "first", "copies": 2}
    assert first.extend(task, {"pages": 1})["state"] == "held"
    run(dsn, "update perdure.tasks set due_at = perdure.clock() where kind = 'activity'")
    again = second.claim("printer")
    assert again["progress"] == {"pages": 1}
    with pytest.raises(psycopg.Error) as fenced:
        first.finish(task, {"pages": 99})
    assert fenced.value.sqlstate == "PD001"
    assert second.finish(again, {"pages": 2}) == "done"
    assert second.finish(again, {"pages": 2}) == "gone"
    task = first.claim("printer")
    assert first.fail(task, "no paper", "0 s") == "retry"
    task = second.claim("printer")
    assert task["attempt"] == 1
    assert second.fail(task, "still none", None) == "failed"
    assert handle.result(T) == [{"pages": 2}, ["OutOfPaper", "still none"]]
    for each in (first, second):
        each.close()
