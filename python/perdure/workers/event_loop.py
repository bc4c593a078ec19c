"""The worker's event loop: that of uvloop if it is installed, else that of asyncio."""

from __future__ import annotations

import asyncio
import os
from contextvars import Context
from typing import Any

from perdure.errors import InvalidArgument

from .hooks import note_timer

LOOP = "PERDURE_LOOP"
"""The variable that names a loop, `asyncio` or `uvloop`; by default the faster one is used."""


def new_loop() -> asyncio.AbstractEventLoop:
    """Make a loop. Raises InvalidArgument if `$PERDURE_LOOP` names an unknown one."""
    wanted = os.environ.get(LOOP)
    if wanted not in (None, "", "asyncio", "uvloop"):
        raise _no_loop(wanted)
    if wanted != "asyncio":
        try:
            from .uvloops import UvLoop
        except ImportError as error:
            if wanted:
                raise _no_loop(wanted) from error
        else:
            return UvLoop()
    return AsyncioLoop()


def _no_loop(wanted: str) -> InvalidArgument:
    return InvalidArgument(
        f"there is no event loop {wanted!r}"[:500],
        detail=f"It is the value of ${LOOP}.",
        hint="Use asyncio, or uvloop if it is installed: pip install 'perdure[uvloop]'.",
    )


class AsyncioLoop(asyncio.SelectorEventLoop):
    """The loop of asyncio, whose `call_later()` calls `call_at()`. It notes the timers of hooks."""

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call at a time of the loop's clock."""
        timer = super().call_at(when, callback, *args, context=context)
        note_timer(timer, context)
        return timer
