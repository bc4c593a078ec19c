"""The event loop of uvloop, for a worker, if it is installed."""

from __future__ import annotations

import asyncio
import math
from contextvars import Context
from typing import Any

import uvloop

from .hook_tasks import note_timer

LONGEST = 86_400.0
"""Seconds from which on milliseconds do not matter."""


class UvLoop(uvloop.Loop):
    """The loop of uvloop, whose `call_at()` calls `call_later()`. It notes the timers of hooks.

    uvloop counts whole milliseconds. What it would round down is rounded up, so that half a
    millisecond is a timer and not an immediate call, which code that polls would make a thousand
    times.
    """

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call in so many seconds."""
        if 0 < delay < LONGEST:
            delay = math.ceil(delay * 1000) / 1000
        timer = super().call_later(delay, callback, *args, context=context)
        if delay > 0:  # otherwise it is called at once
            note_timer(timer, context)
        return timer
