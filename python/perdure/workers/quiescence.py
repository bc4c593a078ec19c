"""Quiescence: whether a hook only waits, so that it can leave memory and run again later.

A task is quiescent if it is blocked in one of our waits, or in `gather`, `wait` or a task group on
tasks that are so themselves. Anything else may be unrecorded work that would be lost: whoever
releases a lock, or fills a queue, may not be part of the hook, and would not bring it back.
"""

from __future__ import annotations

import asyncio
import asyncio.taskgroups
import asyncio.tasks
from collections.abc import Collection
from types import CodeType
from typing import Any

_WAIT_CODE: CodeType = asyncio.tasks._wait.__code__  # type: ignore[attr-defined]
_Gathering: Any = asyncio.tasks._GatheringFuture  # type: ignore[attr-defined]


class DurableWait(asyncio.Future[Any]):
    """A durable wait: what it waits for is in the database, so it may begin again elsewhere."""


def is_quiescent(
    tasks: Collection[asyncio.Task[Any]], timers: Collection[asyncio.TimerHandle]
) -> bool:
    """Tell whether all tasks of a hook only wait, with no timer of their own."""
    return not any(map(_is_running, timers)) and all(
        _is_task_quiescent(task, tasks) for task in tasks
    )


def _is_running(timer: asyncio.TimerHandle) -> bool:
    return not timer.cancelled() and timer.when() > asyncio.get_running_loop().time()


def _is_task_quiescent(task: asyncio.Task[Any], family: Collection[asyncio.Task[Any]]) -> bool:
    if task.done():
        return True
    waiter = getattr(task, "_fut_waiter", None)
    if waiter is None:  # it is about to run
        return False
    return _is_future_quiescent(waiter, family) or _waits_for_family(task, family)


def _is_future_quiescent(future: Any, family: Collection[asyncio.Task[Any]]) -> bool:
    if isinstance(future, _Gathering):
        return all(_is_future_quiescent(child, family) for child in future._children)
    return isinstance(future, DurableWait) or future in family or future.done()


def _waits_for_family(task: asyncio.Task[Any], family: Collection[asyncio.Task[Any]]) -> bool:
    frame = _innermost_frame(task.get_coro())
    if frame is None:
        return False
    if frame.f_code is _WAIT_CODE:
        return all(_is_future_quiescent(future, family) for future in frame.f_locals["fs"])
    place: str = frame.f_code.co_filename
    return place == asyncio.taskgroups.__file__


def _innermost_frame(coroutine: Any) -> Any:
    """Return the frame in which a coroutine is blocked, going down what it awaits."""
    frame = None
    while coroutine is not None:
        for kind in ("cr", "gi", "ag"):
            found = getattr(coroutine, f"{kind}_frame", None)
            if found is not None:
                frame = found
                below = "gi_yieldfrom" if kind == "gi" else f"{kind}_await"
                coroutine = getattr(coroutine, below, None)
                break
        else:
            return frame
    return frame
