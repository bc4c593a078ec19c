"""The worker's event loop: that of uvloop if it is installed, else that of asyncio.

It is made here, run until the worker ends, and closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from contextvars import Context
from typing import Any

from perdure.errors import InvalidArgument

from .hook_tasks import note_timer

logger = logging.getLogger("perdure.worker")

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


def run_to_end(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, object]) -> None:
    """Run a loop until its main task has ended.

    A task of user code keeps a SystemExit or KeyboardInterrupt like any other error, for whoever
    awaits it. asyncio would end the loop for it, with everything that other tasks have in hand.
    Ctrl-C raises neither: it is heard as a signal, or by the thread that has started this one.
    """
    task = loop.create_task(main)
    while not task.done():
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt):
            if not task.done():
                logger.exception(
                    "a task of a hook or activity was told to exit: only that task ends"
                )
    task.result()


def close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Close a loop; code that refuses to be cancelled is left behind."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        run_to_end(loop, asyncio.wait(tasks, timeout=1))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


class AsyncioLoop(asyncio.SelectorEventLoop):
    """The loop of asyncio, whose `call_later()` calls `call_at()`. It notes the timers of hooks."""

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call at a time of the loop's clock."""
        timer = super().call_at(when, callback, *args, context=context)
        note_timer(timer, context)
        return timer
