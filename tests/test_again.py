"""The second run of what has failed: only a test that holds a clock against a limit may pass it."""

from __future__ import annotations

import pytest

pytest_plugins = "pytester"

AGAIN = ("-p", "tests.again", "--last-failed", "--last-failed-no-failures", "none")

# Each fails in the first run, and passes in the second.
TESTS = """
import pytest, pathlib

def fails_once(name):
    seen = pathlib.Path(name)
    if not seen.exists():
        seen.touch()
        raise AssertionError(name)

@pytest.mark.timed("it holds a clock")
def test_of_time():
    fails_once("time")

def test_of_chance():
    fails_once("chance")
"""


@pytest.fixture
def runs(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Give what runs these tests, with no plugin but pytest's own."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nmarkers = timed(why): it may be late")
    pytester.makepyfile(TESTS)
    return pytester


@pytest.mark.parametrize(
    ("chosen", "is_green"), [("of_time", True), ("of_chance", False), ("of", False)]
)
def test_only_what_holds_a_clock_may_pass_in_a_second_run(
    runs: pytest.Pytester, chosen: str, is_green: bool
) -> None:
    first = runs.runpytest_inprocess("-k", chosen)
    again = runs.runpytest_inprocess(*AGAIN)
    assert first.ret == pytest.ExitCode.TESTS_FAILED
    assert (again.ret == pytest.ExitCode.OK) == is_green
    told = "which counts: test_only_what_holds_a_clock_may_pass_in_a_second_run.py::test_of_chance"
    assert (told in again.stdout.str()) == (not is_green)


def test_a_second_run_of_nothing_is_not_green(runs: pytest.Pytester) -> None:
    """The first run may have died before it could write down what had failed."""
    assert runs.runpytest_inprocess(*AGAIN).ret == pytest.ExitCode.NO_TESTS_COLLECTED
