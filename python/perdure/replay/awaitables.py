"""What code on the deterministic loop awaits: futures, durables, tasks and timers.

They hash by order of creation, not by address: asyncio keeps them in sets, and the order of a set
must be the same in every process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, NoReturn, Self

from perdure.values.decoding import read_as
from perdure.values.unawaited import Unawaited

from .facts import Fact, OpenOperation

if TYPE_CHECKING:
    from .loop import Loop


class Numbered:
    """Hash by order of creation, so that sets iterate alike in every process."""

    __slots__ = ()
    number: int

    def __hash__(self) -> int:
        return self.number


class Future(Numbered, asyncio.Future[Any]):
    """An asyncio future that hashes by number."""

    __slots__ = ("number",)

    def __init__(self, loop: Loop):
        self.number = loop.next_number()
        super().__init__(loop=loop)


class Durable(Unawaited, Future):
    """What a durable call returns: an answer, requested when the call was made.

    It may be awaited twice, put in sets, and given to `gather`, `wait`, `wait_for`, `shield`,
    `as_completed`, `ensure_future`, `create_task` and `TaskGroup.create_task`.
    """

    __slots__ = ("_loop_of_run", "_operation")

    def __init__(self, loop: Loop):
        super().__init__(loop)
        self._loop_of_run = loop
        self._operation: OpenOperation | None = None

    def _called(self) -> str:
        operation = self._operation
        return "a durable call" if operation is None else f"the durable call {operation.name}"

    __hash__ = Numbered.__hash__

    def attach(self, operation: OpenOperation) -> Self:
        """Wait for this operation."""
        self._operation = operation
        return self

    def answer(self, operation: OpenOperation, fact: Fact, /) -> None:
        """Take the answer in the form that the code sees."""
        self._operation = None
        try:
            if fact.ok:
                self.set_result(
                    read_as(operation.decode, fact.value, operation.name, operation.kind)
                )
            else:
                self.set_exception(operation.failure(fact.value))
        except Exception as error:  # noqa: BLE001 - a decoder's, for the code
            self.set_exception(error)
        if self._log_traceback:
            self._loop_of_run.failed.add(self)

    @property
    def result(self) -> Callable[[], Any]:
        """Say how to get the answer that has come; in plain code it would be waited for.

        A method would be in the traceback of each failure. Its frame would hold those of the
        worker, and by these the call itself, until the collector runs.
        """
        return super().result if self.done() else self._has_no_result

    def _has_no_result(self) -> NoReturn:
        told = f"{self._called()} was not awaited: await it, without .result()"
        raise asyncio.InvalidStateError(told)

    def cancel(self, msg: Any | None = None) -> bool:
        """Withdraw the operation, unless it was answered."""
        operation, self._operation = self._operation, None
        if operation is not None:
            self._loop_of_run.withdraw(operation)
        return super().cancel(msg)

    def amend(self, kind: str, more: dict[str, Any]) -> None:
        """Add to what is asked of this kind. It has no effect if it was already sent."""
        if self._operation is not None and self._operation.kind == kind:
            self._operation.spec |= more

    def close(self) -> None:
        """Withdraw, as closing a coroutine does (a task group that takes no more closes it)."""
        self.cancel()


class Wait(Durable):
    """A durable call that only waits. If nobody awaits it, it is in vain, and the log says so."""

    __slots__ = ()

    def attach(self, operation: OpenOperation) -> Self:
        """Wait for this operation."""
        what = "sleep" if operation.kind == "timer" else f"wait_for({operation.name!r})"
        self._loop_of_run.unawaited_waits[self] = what
        return super().attach(operation)

    def _is_heeded(self) -> None:
        self._loop_of_run.unawaited_waits.pop(self, None)

    def __await__(self) -> Generator[Any, Any, Any]:
        self._is_heeded()
        return super().__await__()

    def add_done_callback(self, *given: Any, **named: Any) -> None:
        """Call back when the wait is over; `gather()` and others await in this way."""
        self._is_heeded()
        super().add_done_callback(*given, **named)

    @property
    def result(self) -> Callable[[], Any]:
        """Say how to get the answer that has come."""
        self._is_heeded()
        return super().result

    def cancel(self, msg: Any | None = None) -> bool:
        """Withdraw the wait."""
        self._is_heeded()
        return super().cancel(msg)


class FutureCoroutine(Coroutine[Any, Any, Any]):
    """Awaits a future, as a coroutine, since tasks accept nothing else."""

    __slots__ = ("_future", "_steps")

    def __init__(self, future: asyncio.Future[Any]):
        self._future = future
        self._steps: Generator[Any, Any, Any] | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._future.__await__()

    def send(self, value: Any) -> Any:
        """Take a step."""
        if self._steps is None:
            self._steps = self._future.__await__()
        return self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        """Pass on what the task is thrown. Before the first step, nobody will await the future."""
        if self._steps is None:
            self._future.cancel()
            self._steps = self._future.__await__()
        return self._steps.throw(*error)

    def close(self) -> None:
        """Withdraw what nobody has begun to await."""
        if self._steps is None:
            self._future.cancel()


class LaterAnswer(Unawaited, Coroutine[Any, Any, Any]):
    """A coroutine that makes an answer of those of durable calls."""

    __slots__ = ("_coroutine", "_name")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], name: str):
        self._coroutine = coroutine
        self._name = name

    def _called(self) -> str:
        return f"the durable call {self._name}"

    def _give_up(self) -> None:
        self.close()  # or Python would warn of it too

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """Take a step."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """Pass on what the task is thrown."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """Close the coroutine."""
        self._coroutine.close()


class Task(Numbered, asyncio.Task[Any]):
    """An asyncio task that hashes by number and knows its place in the lineage."""

    __slots__ = ("_loop_of_run", "number", "place")

    def __init__(self, coroutine: Any, loop: Loop, place: str, **options: Any):
        # An eager task takes its first step inside the constructor, so these come first.
        self.number = loop.next_number()
        self.place = place
        self._loop_of_run = loop
        super().__init__(coroutine, loop=loop, **options)

    def set_name(self, value: object, /) -> None:
        """Name the task; also its place, if it was just made (`create_task(..., name=...)`)."""
        super().set_name(value)
        self._loop_of_run.places.rename(self, str(value))


class Timer(asyncio.TimerHandle):
    """A callback that waits for a deadline of workflow time."""

    __slots__ = ("_loop_of_run", "operation")

    def __init__(self, loop: Loop, when: float, callback: Any, args: Any, context: Any):
        super().__init__(when, callback, args, loop, context)
        self._loop_of_run = loop
        self.operation: OpenOperation | None = None

    def answer(self, _operation: OpenOperation, _fact: Fact, /) -> None:
        """Run the callback: the deadline has passed."""
        self.operation = None
        self._loop_of_run.ready.append(self)
