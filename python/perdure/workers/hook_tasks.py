"""Tasks and timers of the worker's loop: each is noted by the hook whose code has made it."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Any

from perdure.replay.replay import current

from .hook_calls import HookRuntime

if TYPE_CHECKING:
    from .hooks import HookTurn


def make_task(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a task of the worker's loop, and note to which hook it belongs."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    turn = _turn_of(options.get("context"))
    if turn is not None:
        turn.note_task(task)
    return task


def _turn_of(context: Context | None) -> HookTurn | None:
    """Return the hook whose code runs here, or in that context."""
    serving = current.get(None) if context is None else context.get(current)
    return serving.turn if isinstance(serving, HookRuntime) else None


def note_timer(timer: asyncio.TimerHandle, context: Context | None) -> None:
    """Note to which hook a timer of the worker's loop belongs."""
    turn = _turn_of(context)
    if turn is not None:
        turn.note_timer(timer)
