"""The running loop: code runs inside a callback of the worker, and neither sees the other's loop.

The running loop, the current task and the hooks of async generators belong to the thread.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.events import _get_running_loop, _set_running_loop
from asyncio.tasks import _enter_task, _leave_task
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .loop import Loop


class RunningLoop:
    """Make `loop` the running loop of this thread; afterwards the previous one is restored.

    `with RunningLoop(loop): loop.run_ready()`. None hides the running loop from a plain function.
    """

    __slots__ = ("_hooks", "_loop", "_outer", "_outer_task")

    def __init__(self, loop: Loop | None):
        self._loop = loop

    def __enter__(self) -> None:
        self._outer = outer = _get_running_loop()
        self._outer_task = asyncio.current_task(outer) if outer is not None else None
        if outer is not None and self._outer_task is not None:
            _leave_task(outer, self._outer_task)
        self._hooks = sys.get_asyncgen_hooks()
        loop = self._loop
        if loop is None:
            sys.set_asyncgen_hooks(None, None)
        else:
            sys.set_asyncgen_hooks(loop.generator_begins, loop.generator_dropped)
        _set_running_loop(loop)

    def __exit__(self, *_: object) -> None:
        _set_running_loop(self._outer)
        sys.set_asyncgen_hooks(*self._hooks)
        if self._outer is not None and self._outer_task is not None:
            _enter_task(self._outer, self._outer_task)
