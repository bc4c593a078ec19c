"""Shields: code that a cancel must not interrupt, and that learns of the cancel afterwards."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, overload

from perdure.errors import InvalidArgument
from perdure.replay.awaitables import Durable

from .context import SHIELDED, Runtime, is_shielded, required

T = TypeVar("T")


@overload
def shielded(work: Awaitable[T]) -> Coroutine[Any, Any, T]: ...
@overload
def shielded(work: Callable[[], T]) -> T: ...
def shielded(work: Any) -> Any:
    """Run what a cancel must not interrupt: `await perdure.shielded(pay(memory, order))`.

    In plain code, give a function: `perdure.shielded(lambda: pay(memory, order))`. If the code is
    cancelled meanwhile, CancelledError is raised when the shielded work has ended, in place of its
    result.
    """
    serving = required("shielded")
    if serving.is_async:
        if not inspect.isawaitable(work):
            raise InvalidArgument(
                f"shielded() was given {work!r}, not something to be awaited"[:500],
                hint="await perdure.shielded(pay(memory, order))",
            )
        return _awaited(serving, work)
    if not callable(work):
        raise InvalidArgument(
            f"shielded() was given {work!r} in plain code, not a function"[:500],
            detail="What is between its parentheses has already run, without a shield.",
            hint="perdure.shielded(lambda: pay(memory, order))",
        )
    return _called(serving, work)


def _called(serving: Runtime, work: Callable[[], T]) -> T:
    before = is_shielded.set(True)
    try:
        answer = work()
    except Exception:
        is_shielded.reset(before)
        _end_shield(serving)
        raise
    except BaseException:  # it leaves memory, and comes here again
        is_shielded.reset(before)
        raise
    is_shielded.reset(before)
    _end_shield(serving)
    return answer


def _end_shield(serving: Runtime) -> None:
    if not is_shielded.get():  # of two shields, the outer one reports
        serving.end_shield()


async def _awaited(serving: Runtime, work: Awaitable[T]) -> T:
    before = is_shielded.set(True)
    try:
        inner = asyncio.ensure_future(work)
    finally:
        is_shielded.reset(before)
    if isinstance(inner, Durable):
        inner.amend("answer", SHIELDED)
    interrupted: asyncio.CancelledError | None = None
    while not inner.done():
        try:
            await asyncio.wait([inner])
        except asyncio.CancelledError as error:
            if asyncio.get_running_loop().is_closed():  # it leaves memory, and comes here again
                raise
            interrupted = error
    if interrupted is None:
        _end_shield(serving)
        return inner.result()
    raise interrupted from (None if inner.cancelled() else inner.exception())
