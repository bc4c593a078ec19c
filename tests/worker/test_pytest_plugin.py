"""The pytest plugin, as users meet it: in runs of pytest that pass, and that fail readably."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import AnyServer

ROOT = Path(__file__).parents[2]

CONFTEST = """
import random, pytest, perdure

app = perdure.App()

@app.activity
async def search(query: str) -> list[str]:
    raise ConnectionError("there is no network in tests")

@app.coordinator
async def research(memory: perdure.AsyncEntity, query: str) -> str:
    found = await search(query)
    await memory.set({"found": found})
    await perdure.sleep("30 days")
    return found[0]

@app.coordinator
async def random_number(memory: perdure.AsyncEntity) -> float:
    number = random.random()
    await memory.set(number, "number")
    return number

@pytest.fixture
def perdure_app():
    return app
"""


def run_pytest(
    folder: Path, server: AnyServer, test: str, *options: str, conftest: str = CONFTEST
) -> str:
    """Run a file of tests in a process of its own; give what it prints."""
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_it.py").write_text(f"from conftest import *\n{test}")
    environment = os.environ | {
        "PYTHONPATH": os.fspath(ROOT / "python"),
        "PERDURE_DATABASE_URL": server.url(),
    }
    command = [sys.executable, "-m", "pytest", "-p", "perdure.pytest_plugin", "-q", *options]
    ran = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return ran.stdout + ran.stderr


def test_tests_with_a_lab_pass(tmp_path: Path, server: AnyServer) -> None:
    printed = run_pytest(tmp_path, server, """
def test_research(perdure_lab):
    perdure_lab.mock(search, lambda query: [query.upper()])
    assert perdure_lab.run(research, "subsidies", id="j") == "SUBSIDIES"
    assert perdure_lab.memory("j").get("found") == ["SUBSIDIES"]

def test_the_next_lab_is_empty(perdure_lab):
    assert perdure_lab.client.send(perdure_lab.client.calls.workflows()) == []
    assert search.is_async

def test_others_have_no_lab():
    pass
""")  # fmt: skip
    assert "3 passed" in printed


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("perdure_lab.run(random_number)", ["NonDeterminism: the code does not replay", "set#1"]),
        ("perdure_lab.run(research, 'q')", ["JobFailed: ConnectionError: there is no network"]),
        ("perdure_lab.result(perdure_lab.start(research, 'q', queue='nowhere'))",
         ["ResultTimeout: job", "nothing is due", "queue nowhere"]),
        ("assert perdure_lab.now() is None", ["assert datetime.datetime("]),
    ],
)  # fmt: skip
def test_failing_test_prints_the_reason(
    tmp_path: Path, server: AnyServer, test: str, expected: list[str]
) -> None:
    printed = run_pytest(tmp_path, server, f"def test_it(perdure_lab):\n    {test}\n")
    assert "1 failed" in printed
    assert "error" not in printed.splitlines()[-1]  # the test failed, not its teardown
    for part in expected:
        assert part in printed


def test_missing_fixture_of_the_app_is_explained(tmp_path: Path, server: AnyServer) -> None:
    printed = run_pytest(tmp_path, server, "def test_it(perdure_lab): pass", conftest="")
    assert "define a fixture perdure_app" in printed


def test_fixtures_of_the_plugin_are_listed(tmp_path: Path, server: AnyServer) -> None:
    printed = run_pytest(tmp_path, server, "def test_it(): pass", "--fixtures")
    for name in ("perdure_app", "perdure_dsn", "perdure_lab"):
        assert name in printed
