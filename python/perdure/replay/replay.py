"""Replay: run a coordinator against its journal, now and again, always to the same place.

`AsyncRun` drives `async def` functions on a loop without I/O and without a clock, `SyncRun` plain
ones, which run again from the top. Both are told one fact at a time, and only when the code has
nothing left to run. The caller is the worker:

    run = AsyncRun(function, identity=…, journal=facts, started_at=…, runtime=…)
    journal = run.journal
    while not run.advance():                # until the code waits for what the journal lacks
        ...                                 # flush journal.take_facts(), start .take_requested() …
        journal.append(fact)                # what happened next, an answer to journal.operations
    value = run.outcome()
    run.close()                             # always, also when the run has finished

Pure: no I/O, no clock, no database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, Protocol, Self

from perdure.errors import NonDeterminism
from perdure.failures import OURS, last_own
from perdure.values.decoding import read_as

from .awaitables import Durable, Task, Wait
from .differences import no_rest
from .facts import Evicted, Fact, OpenOperation, Suspend
from .loop import Loop
from .run import Run, current
from .running_loop import RunningLoop

__all__ = [
    "AsyncRun",
    "Durable",
    "Evicted",
    "Fact",
    "OpenOperation",
    "Pending",
    "Run",
    "Suspend",
    "SyncRun",
    "Waitable",
    "current",
]


MAX_STEPS = 10_000_000
"""Steps that code may take before it waits. Code that takes more never rests, and would hold up one
worker after the other. A count, unlike a time, is the same at every replay."""


class AsyncRun(Run[Durable]):
    """Run an `async def` function; what it awaits are durables, tasks and timers."""

    def _prepare(self) -> None:
        # Abstract only to the type checker: forbidden calls are refused by name.
        self._loop = Loop(self.journal)  # type: ignore[abstract]
        self._root: Task | None = None

    def unawaited_errors(self) -> list[BaseException]:
        """Return what tasks and calls have raised, and nobody has awaited until now."""
        return self._loop.unawaited_errors()

    def unawaited_waits(self) -> list[str]:
        """Name the sleeps and waits for signals that nobody has awaited."""
        return list(self._loop.unawaited_waits.values())

    def advance(self) -> bool:
        """Run until the code has finished (True) or waits for what the journal lacks (False).

        Raises NonDeterminism if the code does not fit the journal; close the run then.
        """
        self._check_open()
        try:
            return self._advance()
        except NonDeterminism as error:
            error.place = self.waits_at()
            raise

    def _advance(self) -> bool:
        journal, loop, root = self.journal, self._loop, self._root
        if root is not None and not (loop.ready or journal.has_pending or root.done()):
            return False  # nothing has happened since
        with RunningLoop(loop):
            if root is None:
                root = self._root = loop.create_root(self._main(), self._new_context())
            while True:
                loop.run_ready(MAX_STEPS)
                if loop.ready:
                    raise journal.refuse(no_rest(journal.identity, MAX_STEPS))
                if journal.broken is not None:
                    raise journal.broken
                if root.done() or self.continuation is not None:
                    journal.finish(_raised_by(root))
                    return True
                if not journal.apply_next():
                    return False

    async def _main(self) -> Any:
        return await self._function()

    def waits_at(self) -> str | None:
        """Return the line of the user's code in which the function waits; None if it does not."""
        lines: list[tuple[str, int]] = []
        awaited: Any = None if self._root is None else self._root.get_coro()
        while awaited is not None:
            frame = getattr(awaited, "cr_frame", None)
            if frame is not None and not frame.f_code.co_filename.startswith(OURS):
                lines.append((frame.f_code.co_filename, frame.f_lineno))
            awaited = getattr(awaited, "cr_await", None)
        return last_own(lines)

    def outcome(self) -> Any:
        """Return what the code returned, or raise what it raised (any BaseException).

        There is no outcome if the run has a `continuation`.
        """
        if self._root is None:
            raise asyncio.InvalidStateError("the run has not finished")
        return self._root.result()

    def _waiter(self, kind: str) -> Durable:
        return (Wait if kind in ("timer", "signal") else Durable)(self._loop)

    def _unwind(self) -> None:
        if self._root is not None:
            with RunningLoop(self._loop):
                self._loop.unwind()
            self._root = None

    def _place(self) -> str:
        return self._loop.place()

    def _cancelled(self, fact: Fact) -> None:
        if self._root is not None:
            self._root.cancel(fact.value if isinstance(fact.value, str) else None)


def _raised_by(root: Task) -> BaseException | None:
    return root.exception() if root.done() and not root.cancelled() else None


class Pending:
    """What a request in a plain function returns: an answer, requested when the call was made."""

    __slots__ = ("_error", "_operation", "_run", "_value", "done")

    def __init__(self, run: SyncRun):
        self._run = run
        self._operation: OpenOperation | None = None
        self._value: Any = None
        self._error: BaseException | None = None
        self.done = False

    def result(self) -> Any:
        """Wait for the answer: give it, or raise the failure."""
        return self._run.wait(self)

    def cancel(self) -> bool:
        """Withdraw the request; return False if it was answered. A later `result()` raises."""
        if self._operation is None:
            return False
        self._run.withdraw(self._operation)
        self._finish(None, CancelledError("the request was withdrawn"))
        return True

    def take(self) -> Any:
        """Return the answer that has come, or raise the failure."""
        if self._error is not None:
            raise self._error
        return self._value

    def attach(self, operation: OpenOperation) -> Self:
        """Wait for this operation."""
        self._operation = operation
        return self

    def answer(self, operation: OpenOperation, fact: Fact, /) -> None:
        """Take the answer in the form that the code sees."""
        try:
            if fact.ok:
                self._finish(
                    read_as(operation.decode, fact.value, operation.name, operation.kind), None
                )
            else:
                self._finish(None, operation.failure(fact.value))
        except Exception as error:  # noqa: BLE001 - a decoder's, for the code
            self._finish(None, error)

    def _finish(self, value: Any, error: BaseException | None) -> None:
        self._operation, self._value, self._error, self.done = None, value, error, True


class Waitable(Protocol):
    """What a plain function can wait for: a Pending, or something made of several."""

    @property
    def done(self) -> bool:
        """Tell whether there is something to take."""

    def take(self) -> Any:
        """Return it, or raise."""

    def cancel(self) -> bool:
        """Withdraw it; return False if it was answered."""


class SyncRun(Run[Pending]):
    """Run a plain function: from the top at each `advance()` that has something new to tell.

    `more` is asked before the code has to unwind: it may append a fact, and returns whether it did.
    Without it, a thousand answers would be a thousand runs from the top. Code for which
    `is_shielded` is true is not interrupted by a cancel; `end_shield()` reports it afterwards.
    """

    _rereads = True
    more: Callable[[], bool] = staticmethod(lambda: False)
    is_shielded: Callable[[], bool] = staticmethod(lambda: False)

    def _prepare(self) -> None:
        self._interrupted: asyncio.CancelledError | None = None
        self._seen = -1
        self._finished = False
        self._value: Any = None
        self._error: BaseException | None = None

    def advance(self) -> bool:
        """Run until the code has finished (True) or waits for what the journal lacks (False).

        Raises NonDeterminism if the code does not fit the journal; close the run then.
        """
        self._check_open()
        if not self._finished and self._seen != self.journal.position:
            self._finished = self._run_from_the_top()
            self._seen = self.journal.position
        return self._finished

    def _run_from_the_top(self) -> bool:
        journal = self.journal
        journal.rewind()
        self._value, self._error, self._interrupted = None, None, None
        try:
            with RunningLoop(None):
                self._value = self._new_context().run(self._function)
        except BaseException as error:  # noqa: BLE001 - whatever it is, `outcome()` raises it
            self._error = error
        if journal.broken is not None:
            raise journal.broken
        if journal.closed and self.continuation is None:  # suspended, whatever the code did
            self._value, self._error = None, None
            return False
        journal.finish(self._error)
        return True

    def outcome(self) -> Any:
        """Return what the code returned, or raise what it raised (any BaseException)."""
        if not self._finished:
            raise asyncio.InvalidStateError("the run has not finished")
        if self._error is not None:
            raise self._error
        return self._value

    def _waiter(self, _kind: str) -> Pending:
        return Pending(self)

    def _unwind(self) -> None:
        self.more = SyncRun.more
        self._value = self._error = self._interrupted = None
        self._finished = False

    def wait(self, pending: Waitable) -> Any:
        """Apply facts until the wait is over and return its answer; without facts, suspend.

        Code that is cancelled here no longer waits: its request is withdrawn, as asyncio does it.
        """
        try:
            while not pending.done:
                self._apply_or_suspend()
        except asyncio.CancelledError:
            pending.cancel()
            raise
        return pending.take()

    def _apply_or_suspend(self) -> None:
        journal = self.journal
        try:
            has_applied = not journal.closed and (journal.apply_next() or self.more())
        except NonDeterminism:  # remembered by the journal; the code must not catch it
            has_applied = False
        if not has_applied:
            journal.close(Suspend)
            raise Suspend

    def withdraw(self, operation: OpenOperation) -> None:
        """Close an operation that nobody waits for. Code that is suspended comes back."""
        if not self.journal.is_suspended:
            self.journal.withdraw(operation)

    def _cancelled(self, fact: Fact) -> None:
        error = asyncio.CancelledError(*([fact.value] if isinstance(fact.value, str) else []))
        if not self.is_shielded():
            raise error
        self._interrupted = error

    def end_shield(self) -> None:
        """Raise CancelledError if a cancel was kept back by something shielded."""
        error, self._interrupted = self._interrupted, None
        if error is not None:
            raise error
