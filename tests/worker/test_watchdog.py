"""The process of a worker whose code hangs ends, so that its supervisor starts another. [P10]"""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

import perdure
from perdure.workers.watchdog import Watchdog, is_debugged
from tests.patience import wait_until
from tests.worker.processes import ROOT

HANGING = """
import re, sys, threading, time
import perdure
from perdure.workers import heartbeats

heartbeats.HUNG_AFTER = 0.6
app = perdure.App()

@app.coordinator
async def keep_the_lock(memory):
    re.match(r"(a+)+$", "a" * 60 + "b")  # code in C that lets no other thread run

@app.coordinator
async def block_the_loop(memory):
    time.sleep(1000)

@app.coordinator
async def block_for_a_while(memory):
    time.sleep(0.4)
    return "alive"

@app.coordinator
async def block_the_end(memory):
    try:
        await perdure.wait_for("never")
    finally:
        time.sleep(1000)

@app.coordinator
def block_a_thread(memory):
    return block()

@app.activity
def block():
    time.sleep(2.5)
    return "alive"

perdure.Worker(app, dsn=sys.argv[1], lease=0.2).run()
"""


@contextmanager
def worker_process(dsn: str) -> Iterator[subprocess.Popen[str]]:
    """Run a worker whose process may be silent for 0.8 s, and kill it if it still runs."""
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": os.fspath(ROOT / "python")}
    command = [sys.executable, "-c", HANGING, dsn]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("workflow", ["keep_the_lock", "block_the_loop"])
def test_process_whose_code_hangs_ends_and_names_the_code(
    client: perdure.Client, dsn: str, workflow: str
) -> None:
    """[P10] The supervisor sees the end, and the log shows the function that hangs."""
    client.start(workflow)
    with worker_process(dsn) as process:
        _, log = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"in {workflow}" in log


@pytest.mark.parametrize("workflow", ["block_for_a_while", "block_a_thread"])
def test_process_whose_loop_comes_back_in_time_continues(
    client: perdure.Client, dsn: str, workflow: str
) -> None:
    job = client.start(workflow)
    with worker_process(dsn) as process:
        assert job.result("30 s") == "alive"
        time.sleep(1)
        assert process.poll() is None


def test_process_that_hangs_while_it_stops_ends(
    client: perdure.Client, connection: psycopg.Connection[Any], dsn: str
) -> None:
    """[P10] The code of parked coordinators runs at the end of their worker."""
    client.start("block_the_end")
    with worker_process(dsn) as process:
        wait_until(lambda: connection.execute("select from tasks where awaits <> '{}'").rowcount)
        process.terminate()
        _, log = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "in block_the_end" in log


ALONE = """
import asyncio, faulthandler, os, sys, time
from perdure.workers import watchdog

async def main():
    dog = watchdog.Watchdog(asyncio.get_running_loop(), 0.5)
    time.sleep(1)  # a start that takes long
    dog.start()
    await asyncio.sleep(1)
    {then}

watchdog.TELL_WITHIN = 0.5
asyncio.run(main())
"""

HANG_WITH_A_FULL_LOG = """os.set_blocking(2, False)
    while True:
        try:
            os.write(2, b"x" * 1024)
        except BlockingIOError:
            break
    os.set_blocking(2, True)
    time.sleep(1000)"""

FORK = """child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(100)
        faulthandler.cancel_dump_traceback_later()
        os._exit(7)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"""


@pytest.mark.parametrize(
    ("then", "code"),
    [("sys.exit(5)", 5), (HANG_WITH_A_FULL_LOG, 1), (FORK, 7)],
    ids=["starts late", "full log", "fork"],
)
def test_process_with_a_watchdog_ends(then: str, code: int) -> None:
    """[P10] Nobody reads its log, so a full pipe would hold it up."""
    program = ALONE.format(then=then)
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) as process:
        try:
            assert process.wait(30) == code
        finally:
            process.kill()


def test_timer_is_left_alone_if_a_debugger_may_stop_all_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_for: list[float] = []
    monkeypatch.setattr(
        faulthandler, "dump_traceback_later", lambda seconds, **_: set_for.append(seconds)
    )
    dog = Watchdog(SimpleNamespace(), 90)  # type: ignore[arg-type]
    dog._wind_up()
    monkeypatch.setitem(sys.modules, "pydevd", SimpleNamespace())
    dog._wind_up()
    assert set_for == [90]


def test_code_that_a_debugger_has_stopped_does_not_hang() -> None:
    def frame(module: str, back: Any = None) -> Any:
        return SimpleNamespace(f_globals={"__name__": module}, f_back=back)

    assert is_debugged(frame("selectors", frame("pdb", frame("my_app"))))
    assert is_debugged(frame("debugpy.server.api"))
    assert not is_debugged(frame("pdbs", frame("my_app")))
    assert not is_debugged(None)
