"""The run of a coordinator, and what serves its durable calls: each is an operation of the run."""

from __future__ import annotations

import asyncio
import random
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from perdure.basics.durations import MICROSECONDS, from_iso, microseconds
from perdure.errors import InvalidArgument, ValueSealed
from perdure.replay.replay import AsyncRun, Fact, SyncRun
from perdure.values.items import Decode
from perdure.workflow import operations
from perdure.workflow.context import SHIELDED, Info, Runtime, info_of, is_shielded
from perdure.workflow.operations import Operation
from perdure.workflow.work import Coordinator

if TYPE_CHECKING:
    from perdure.workflow.app import App

AnyRun = AsyncRun | SyncRun


class CoordinatorRuntime(Runtime):
    """Serve one run of a coordinator."""

    run: AnyRun

    def __init__(self, app: App, function: Coordinator[..., Any], row: dict[str, Any]):
        self._row = row
        self.job = row["job"]
        self._guard = row.get("guard")
        self._shape = function.shape
        self.app = app
        self.is_async = function.is_async

    @cached_property
    def info(self) -> Info:  # type: ignore[override]
        """Return what `info()` tells the code."""
        return info_of(self._row, "coordinator")

    def request(self, operation: Operation) -> Any:
        """Open an operation; its key is fixed now."""
        if self._guard is not None:
            try:
                operation = self._guard.protect(operation)
            except ValueSealed as error:
                raise self.run.journal.refuse(error) from error.__cause__
        is_request = operation.kind == "answer" and is_shielded.get()
        return self.run.request(
            operation.kind,
            operation.name,
            operation.spec | SHIELDED if is_request else operation.spec,
            fingerprint=operation.fingerprint,
            decode=operation.decode,
            failure=operation.failure,
        )

    start = request

    def give(self, pending: Any) -> Any:
        """Wait in plain code."""
        return pending if self.is_async else pending.result()

    def sleep(self, length: int) -> Any:
        """Open a timer, from workflow time on."""
        return self.sleep_until(self.run.journal.now + length)

    def sleep_until(self, deadline: int) -> Any:
        """Open a timer."""
        return self.run.request("timer", "$timer", None, deadline=deadline)

    def wait_for(self, signal: str, limit: float | None, decode: Decode) -> Any:
        """Open a wait for a signal, and a timer beside it if there is a limit."""
        waiting = self.run.request("signal", signal, None, decode=decode)
        return self._limited(waiting, limit, f"signal {signal}")

    def within(self, operation: Operation, limit: float | None) -> Any:
        """Open a wait for an answer, and a timer beside it if there is a limit."""
        if limit is not None:
            operation = operations.expiring(operation, self.run.journal.now + microseconds(limit))
        return self._limited(self.request(operation), limit, operations.in_words(operation))

    def continue_as_new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
        """End this run. Arguments that the function does not take are refused here."""
        self.run.continue_with(operations.stored(self._shape.bind(args, kwargs)))

    def _limited(self, waiting: Any, limit: float | None, what: str) -> Any:
        if limit is None:
            return waiting
        late = operations.waited(limit, what)
        if isinstance(waiting, asyncio.Future):
            return _within(waiting, limit, late)
        return LimitedWait(self.run, waiting, self.sleep(microseconds(limit)), late)

    def end_shield(self) -> None:
        """Let plain code that was cancelled meanwhile notice it."""
        if isinstance(self.run, SyncRun):
            self.run.end_shield()

    def heartbeat(self, progress: Any) -> None:  # noqa: ARG002
        """Refuse: a coordinator does nothing that takes long."""
        raise InvalidArgument(
            "heartbeat() was called in a coordinator",
            hint="Call it in an activity or hook; a coordinator can report progress in its memory.",
        )

    def time(self) -> int:
        """Return workflow time."""
        return self.run.journal.now

    def random(self) -> random.Random:
        """Return a stream of its own."""
        return self.run.random()

    def uuid(self) -> UUID:
        """Return an unique id."""
        return self.run.uuid()

    def patched(self, name: str) -> bool:
        """Tell whether to take the new way."""
        return self.run.journal.patched(name)

    def is_replaying(self) -> bool:
        """Tell whether the code is replayed here."""
        return self.run.journal.is_replaying()


async def _within(waiting: asyncio.Future[Any], seconds: float, late: TimeoutError) -> Any:
    # Without any time, asyncio would end it before anybody has looked for a message.
    limit = asyncio.timeout(max(seconds, 1 / MICROSECONDS))
    try:
        async with limit:
            return await waiting
    except TimeoutError:
        if limit.expired():
            raise late from None
        raise


class LimitedWait:
    """A wait for a message that is limited by a timer, in plain code."""

    def __init__(self, run: Any, message: Any, timer: Any, late: TimeoutError):
        self._run = run
        self._message = message
        self._timer = timer
        self._late = late

    @property
    def done(self) -> bool:
        """Tell whether one of the two has come."""
        return bool(self._message.done or self._timer.done)

    def take(self) -> Any:
        """Return the payload. Raises TimeoutError."""
        if self._message.done:
            self._timer.cancel()
            return self._message.take()
        self._message.cancel()
        raise self._late

    def cancel(self) -> bool:
        """Withdraw both; return False if the message has come."""
        self._timer.cancel()
        return bool(self._message.cancel())

    def result(self) -> Any:
        """Wait for one of the two."""
        return self._run.wait(self)


def open_run(
    app: App, function: Coordinator[..., Any], row: dict[str, Any], journal: list[Fact]
) -> AnyRun:
    """Prepare a run of a coordinator with the row of its task and its journal.

    No code of it runs yet.
    """
    runtime = CoordinatorRuntime(app, function, row)

    def begin() -> Any:
        args, kwargs = function.shape.arguments(row["args"])
        return function.function(runtime.memory, *args, **kwargs)

    make = AsyncRun if function.is_async else SyncRun
    runtime.run = make(
        begin,
        identity=f"{row['job']}/{row['task']}",
        journal=journal,
        started_at=from_iso(row["started_at"]),
        asked=row["asked"],
        accept_changes=row["accept_changes"],
        runtime=runtime,
        past=[
            (f"{one['job']}/{one['task']}", one["position"]) for one in row.get("forked_from") or ()
        ],
    )
    if isinstance(runtime.run, SyncRun):
        runtime.run.is_shielded = is_shielded.get
    return runtime.run
