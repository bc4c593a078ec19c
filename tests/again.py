"""A second run of what has failed, as a plugin of pytest: `-p tests.again --last-failed`.

It is green only where all that failed are tests that hold a clock against a limit, and say so
(`@pytest.mark.timed("why")`): those a busy machine may fail. What else has failed is run for its
trace, but has failed: a fault that chance or the order of sessions brings is a fault, and a run in
which it does not come proves nothing.
"""

from __future__ import annotations

from typing import Any

import pytest

FAILED_BEFORE = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where anything else than a test of time was to be run again."""
    untimed = [item.nodeid for item in session.items if not item.get_closest_marker("timed")]
    session.config.stash[FAILED_BEFORE] = untimed
    if untimed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Name what has failed before, whatever it has done now."""
    for test in config.stash.get(FAILED_BEFORE, []):
        terminalreporter.write_line(f"FAILED in the run before, which counts: {test}", red=True)
