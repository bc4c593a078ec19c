"""Logs of user code: a line is written once, however often code is replayed, and names its task."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from tests.patience import wait_until

T = 20.0

log = perdure.logger("code")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Give a function that lists the log lines of user code."""
    caplog.set_level(logging.INFO, "code")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "code"]


@pytest.mark.parametrize("is_async", [True, False])
def test_replayed_coordinator_writes_each_line_once(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    lines: Callable[[], list[str]],
    is_async: bool,
) -> None:
    """[P3] It continues in memory, and is then replayed by a worker that has not run it before."""

    @app.activity
    async def step(number: int) -> int:
        return number

    if is_async:

        @app.coordinator(name="talks")
        async def talks(memory: perdure.AsyncEntity) -> None:
            log.info("begins")
            log.info("has %d", await step(1))
            log.info("heard %s", await perdure.wait_for("go"))
            await perdure.sleep(0.01)
            log.info("has %d", await step(2))
            log.info("ends")
    else:

        @app.coordinator(name="talks")
        def talks(memory: perdure.Entity) -> None:
            log.info("begins")
            log.info("has %d", step(1))
            log.info("heard %s", perdure.wait_for("go"))
            perdure.sleep(0.01)
            log.info("has %d", step(2))
            log.info("ends")

    first = work()
    handle = client.start(talks)
    wait_until(lambda: "has 1" in lines())
    first.stop()
    work(cache=0)
    handle.signal("go", "it")
    handle.result(T)
    assert lines() == ["begins", "has 1", "heard it", "has 2", "ends"]


@pytest.mark.parametrize("is_async", [True, False])
def test_replayed_hook_writes_each_line_once(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    lines: Callable[[], list[str]],
    is_async: bool,
) -> None:
    """[P3] The `finally` block of a hook that leaves memory writes no line."""
    if is_async:

        @app.hook(name="waits")
        async def waits(memory: perdure.AsyncEntity) -> None:
            try:
                await memory.set(1, "n")
                log.info("set")
                log.info("heard %s", await perdure.wait_for("go"))
            finally:
                log.info("finally")
    else:

        @app.hook(name="waits")
        def waits(memory: perdure.Entity) -> None:
            try:
                memory.set(1, "n")
                log.info("set")
                log.info("heard %s", perdure.wait_for("go"))
            finally:
                log.info("finally")

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> None:
        await waits(memory)

    worker = work(slots=1)
    handle = client.start(parent)
    wait_until(lambda: "set" in lines())
    worker.stop()
    work(slots=1)
    handle.signal("go", "it")
    handle.result(T)
    assert lines() == ["set", "heard it", "finally"]


def test_line_names_its_job_task_and_attempt(
    app: perdure.App, client: perdure.Client, work: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It does so in a thread, too, and keeps the fields that the code itself adds."""
    caplog.set_level(logging.INFO, "code")

    @app.activity
    def step() -> None:
        log.info("step", extra={"mine": 7})

    @app.hook
    async def add(memory: perdure.AsyncEntity) -> None:
        log.info("hook")
        await step()

    @app.coordinator
    async def whole(memory: perdure.AsyncEntity) -> None:
        log.info("coordinator")
        await add(memory)

    work()
    client.start(whole, id="j").result(T)
    log.info("outside")
    found = {record.getMessage(): vars(record) for record in caplog.records}
    task = "1/main/add#1"
    for line, name, place in (
        ("coordinator", "whole", "1/main"),
        ("hook", "add", task),
        ("step", "step", task),
    ):
        fields = {key: value for key, value in found[line].items() if key.startswith("perdure_")}
        assert fields == {
            "perdure_job": "j",
            "perdure_task": place,
            "perdure_name": name,
            "perdure_workflow": "whole",
            "perdure_run": 1,
            "perdure_attempt": 0,
        }
    assert found["step"]["mine"] == 7
    assert found["step"]["funcName"] == "step"
    assert "perdure_job" not in found["outside"]
