"""The process of a worker whose code hangs ends, so that its supervisor starts another. [P10]"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

import perdure
from perdure.workers.watchdog import is_debugged
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


def test_code_that_a_debugger_has_stopped_does_not_hang() -> None:
    def frame(module: str, back: Any = None) -> Any:
        return SimpleNamespace(f_globals={"__name__": module}, f_back=back)

    assert is_debugged(frame("selectors", frame("pdb", frame("my_app"))))
    assert is_debugged(frame("debugpy.server.api"))
    assert not is_debugged(frame("pdbs", frame("my_app")))
    assert not is_debugged(None)
