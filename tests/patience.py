"""Wait in a test for a change that sends no event."""

from __future__ import annotations

import time
from collections.abc import Callable

IN_TIME = 20.0
"""Seconds that a busy machine may need."""


def wait_until(is_so: Callable[[], object]) -> None:
    """Check a condition again and again until it holds; fail after IN_TIME."""
    until = time.monotonic() + IN_TIME
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)
