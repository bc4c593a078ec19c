"""Crash points: places where a test may kill this process. They do nothing unless armed by
`PERDURE_CRASH_AT=point:n` (the n-th passage dies as by `kill -9`)."""

from __future__ import annotations

import os
import signal
from collections import Counter

POINTS = frozenset(
    {
        "activity: after final flush",
        "activity: after function",
        "activity: before final flush",
        "activity: before function",
        "async client: after call",
        "async client: before call",
        "client: after call",
        "client: before call",
        "committer: after claim",
        "committer: before send",
        "coordinator: after advance",
        "coordinator: after final flush",
        "coordinator: after park",
        "coordinator: before final flush",
        "coordinator: before flush",
        "coordinator: before park",
        "heartbeat: before send",
        "hook: after advance",
        "hook: after final flush",
        "hook: after function",
        "hook: after park",
        "hook: before final flush",
        "hook: before flush",
        "hook: before function",
        "hook: before park",
        "index: before statement",
        "transaction: after commit",
        "transaction: after function",
        "transaction: before commit",
        "worker: after release",
        "worker: before release",
    }
)
"""Every name that `crash_point` is called with, each in one place; sweeps kill at each of them."""

_armed, _, _nth = os.environ.get("PERDURE_CRASH_AT", "").rpartition(":")
_passed: Counter[str] = Counter()


def _die_when_due(name: str) -> None:
    _passed[name] += 1
    if name == _armed and _passed[name] == int(_nth):
        os.kill(os.getpid(), signal.SIGKILL)


def _pass(name: str) -> None:
    """Go on: no crash is armed in this process."""


crash_point = _die_when_due if _armed else _pass
