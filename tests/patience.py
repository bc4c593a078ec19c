"""Waiting in a test for what somebody else does, and has no event of it."""

from __future__ import annotations

import time
from collections.abc import Callable

IN_TIME = 20.0
"""Seconds that a busy machine has for it."""


def wait_until(is_so: Callable[[], object]) -> None:
    """Look again and again, until it is so."""
    until = time.monotonic() + IN_TIME
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)
