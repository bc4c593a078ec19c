"""Crash points: places where a test may kill this process. They do nothing unless armed by
`PERDURE_CRASH_AT=point:n` (the n-th passage dies as by `kill -9`)."""

from __future__ import annotations

import os
import signal
from collections import Counter

_armed, _, _nth = os.environ.get("PERDURE_CRASH_AT", "").rpartition(":")
_passed: Counter[str] = Counter()


def _die_when_due(name: str) -> None:
    _passed[name] += 1
    if name == _armed and _passed[name] == int(_nth):
        os.kill(os.getpid(), signal.SIGKILL)


def _pass(name: str) -> None:
    """Continue: no crash is armed in this process."""


crash_point = _die_when_due if _armed else _pass
