"""Activities: an attempt of a function with side effects, and the turn of a dispatched activity."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from perdure.basics.durations import from_iso, microseconds, to_iso
from perdure.basics.faults import crash_point
from perdure.basics.limits import too_late
from perdure.errors import Failed, InvalidValue, NumberOutOfRange, ValueTooDeep, ValueTooLarge
from perdure.failures import failure_of
from perdure.workflow.context import Info, activity_info
from perdure.workflow.operations import ActivityCall, stored_result
from perdure.workflow.progress import AttemptReporter
from perdure.workflow.progress import reporter as running_reporter
from perdure.workflow.publishing import Publisher
from perdure.workflow.work import Activity, Transaction

from .turns import CANCEL, DROPPED, Json, Turn, log_failure

if TYPE_CHECKING:
    from .engine import Engine

UNSTORABLE = (InvalidValue, ValueTooLarge, ValueTooDeep, NumberOutOfRange)
"""Errors that another attempt would not fix."""


class AttemptOutcome(NamedTuple):
    """The end of an attempt: a stored value, or a failure and the seconds until the next attempt.

    `is_recorded`: a transaction has recorded its turn, and the commit was answered.
    """

    ok: bool
    value: Any
    again_in: float | None = None
    is_recorded: bool = False

    def in_words(self) -> tuple[str, Failed | None]:
        """Return the state of the attempt, and its failure."""
        if self.ok:
            return "done", None
        return "failed" if self.again_in is None else "retry", self.value


@dataclass(frozen=True, slots=True)
class PriorAttempts:
    """What came before an attempt: how many others, and the failure of the last one.

    `end`: when all attempts have to end (µs). `again_at`: when the next one may begin.
    """

    made: int = 0
    failure: Failed | None = None
    end: int | None = None
    again_at: int | None = None

    def and_failed(self, failure: Failed) -> PriorAttempts:
        """Add an attempt that failed, as the journal has it; the end is recorded by itself."""
        again_at = failure.get("again_at")
        at = None if again_at is None else from_iso(again_at)
        return PriorAttempts(self.made + 1, failure, again_at=at)


NO_ATTEMPTS = PriorAttempts()


Record = Callable[[Any], Json]
"""What a transaction calls with its value: it returns the body of the turn that records this, with
all that has accumulated before it. `take_back()` of the turn undoes that."""


class FinalError(Exception):
    """Carries an error that another attempt would not fix, or that no task of a loop may raise."""

    def __init__(self, error: BaseException):
        self.error = error


class Attempt:
    """One attempt of an activity for a turn.

    `key` names it among the activities that run in the same task; a dispatched one has none.
    """

    def __init__(
        self,
        turn: Turn,
        call: ActivityCall,
        key: str | None,
        prior: PriorAttempts,
        record: Record | None,
    ):
        self._turn = turn
        self._engine = turn.engine
        self._call = call
        self._activity = call.activity
        self._key = key
        self._prior = prior
        self._record = record
        self._progress = turn.progress.of(key)
        self._is_last = False
        self.reporter = AttemptReporter(turn, key)

    def info(self) -> Info:
        """Return what `info()` tells the code."""
        place = self._turn.place if self._key is None else (*self._turn.place, self._key)
        return replace(
            self._turn.info(),
            kind="activity",
            name=self._activity.name,
            attempt=self._prior.made,
            key="/".join(place),
            progress=self._progress,
        )

    @property
    def _what(self) -> str:
        return f"activity {self._activity.name}"

    async def run(self) -> AttemptOutcome:
        """Make the attempt, and return its outcome when all that it has published is stored.

        Raises only CancelledError.
        """
        activity_info.set(self.info)
        running_reporter.set(self.reporter)
        try:
            outcome = await self._outcome()
        except (Exception, GeneratorExit) as error:  # noqa: BLE001 - a policy that cannot judge
            # A task of the user raised GeneratorExit. Thrown here, it would close the code within.
            outcome = AttemptOutcome(False, self._failure(error))
        self.reporter.close()  # or a thread that continues would never let it end
        if self.reporter.publisher is not None:
            outcome = await self._published(outcome, self.reporter.publisher)
        if not outcome.ok:
            self._log(outcome)
        return outcome

    def _log(self, outcome: AttemptOutcome) -> None:
        pause = outcome.again_in
        again = None if pause is None else f"again in {pause:.{1 if pause >= 1 else 3}f} s"
        which = f"attempt {self._prior.made + 1}"
        if self._turn.kind != "activity":  # else the turn says which activity it is
            which += f" of {self._what}"
        log_failure(self._turn, which, outcome.value, again)

    async def _published(self, outcome: AttemptOutcome, publisher: Publisher) -> AttemptOutcome:
        """Return the outcome, or the failure to publish what belongs to it."""
        try:
            await publisher.flushed()
        except Exception as error:  # noqa: BLE001 - what comes of the attempt is not all there
            failed = AttemptOutcome(False, failure_of(error, self._what))
            return failed if outcome.ok and not outcome.is_recorded else outcome
        return outcome

    async def _outcome(self) -> AttemptOutcome:
        if self._time_left() == 0:
            return self._too_late(self._prior.made, self._prior.failure)
        crash_point("activity: before function")
        limit = self._limit()
        try:
            outcome = await self._result(limit)
        except UNSTORABLE as error:
            lasts = not getattr(error, "is_chance", False)
            outcome = AttemptOutcome(False, self._failure(error)) if lasts else self._failed(error)
        except TimeoutError as error:
            is_late = limit is not None and limit.expired()
            outcome = self._timed_out(error) if is_late else self._failed(error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            outcome = self._failed(error)
        except FinalError as last:
            outcome = AttemptOutcome(False, self._failure(last.error))
        except BaseException as error:  # noqa: BLE001 - nothing a function raises may end the worker
            outcome = self._failed(error)
        crash_point("activity: after function")
        return outcome

    def _time_left(self) -> float | None:
        """Return the seconds that are left for all attempts."""
        end = self._prior.end
        return None if end is None else self._engine.clock.seconds_until(end)

    def _allowed(self) -> float | None:
        """Return the seconds that this attempt may take, and note whether it is the last one."""
        own, left = self._activity.limits.timeout, self._time_left()
        self._is_last = left is not None and (own is None or left <= own)
        return left if self._is_last else own

    def _limit(self) -> asyncio.Timeout | None:
        """Return the time limit, from now on for a coroutine, else from when the code begins."""
        allowed = self._allowed()
        if self._record is not None or not self._activity.is_async:
            return asyncio.timeout(self._time_left())
        return None if allowed is None else asyncio.timeout(allowed)

    async def _result(self, limit: asyncio.Timeout | None) -> AttemptOutcome:
        if limit is None:
            return self._succeeded(await self._called())
        async with limit:
            if self._record is not None:
                return await self._engine.transactions.run(
                    self._turn, self._call, limit, self._allowed, self._record
                )
            if self._activity.is_async:
                return self._succeeded(await self._called())
            return self._succeeded(await self._called_in_thread(limit))

    def _succeeded(self, value: Any) -> AttemptOutcome:
        value = stored_result(self._activity, value)
        return AttemptOutcome(True, self._engine.calls.sealable(value))

    def _called(self) -> Awaitable[Any]:
        given, named = self._activity.shape.arguments(self._call.args)
        called: Awaitable[Any] = self._activity.function(*given, **named)
        return called

    async def _called_in_thread(self, limit: asyncio.Timeout) -> Any:
        activity, engine = self._activity, self._engine
        given, named = activity.shape.arguments(self._call.args)
        inside = contextvars.copy_context()

        def begin() -> None:  # time counts from when a thread is free
            allowed = self._allowed()
            if allowed is not None:
                with suppress(RuntimeError):  # the attempt has ended already
                    limit.reschedule(engine.loop.time() + allowed)

        def call() -> Any:
            engine.loop.call_soon_threadsafe(begin)
            return inside.run(activity.function, *given, **named)

        answer = await engine.in_thread(engine.activity_threads, self._turn.place, call)
        return await answer if inspect.iscoroutine(answer) else answer  # a decorated async def

    def _failure(self, error: BaseException) -> Failed:
        return failure_of(error, self._what) | {"attempts": self._prior.made + 1}

    def _failed(self, error: BaseException) -> AttemptOutcome:
        """Return the failure, and the pause before the next attempt if there is one."""
        failure, made, retry = self._failure(error), self._prior.made + 1, self._activity.retry
        if not retry.allows(error, made):
            return AttemptOutcome(False, failure)
        pause, left = retry.pause_after(error, made), self._time_left()
        if left is not None and pause >= left:
            return self._too_late(made, failure)
        return AttemptOutcome(False, failure, pause)

    def _timed_out(self, error: TimeoutError) -> AttemptOutcome:
        if self._is_last:
            return self._too_late(self._prior.made + 1, self._prior.failure)
        late = f"{self._what} took longer than {self._activity.limits.timeout:g} s"
        cut_short = error.__cause__ or error  # the CancelledError knows where the code was
        return self._failed(TimeoutError(late).with_traceback(cut_short.__traceback__))

    def _too_late(self, made: int, last: Failed | None) -> AttemptOutcome:
        return AttemptOutcome(False, too_late(self._what, self._activity.limits, made, last))


def begin_attempt(
    turn: Turn,
    call: ActivityCall,
    key: str | None,
    prior: PriorAttempts,
    done: Callable[[AttemptOutcome], None] | None = None,
    record: Record | None = None,
) -> asyncio.Task[AttemptOutcome]:
    """Make an attempt beside others and report its outcome, unless its task is cancelled."""
    engine = turn.engine
    attempt = Attempt(turn, call, key, prior, record)
    context = engine.context.copy()
    span = engine.begin_span(attempt.info, context)
    task = asyncio.Task(attempt.run(), loop=engine.loop, context=context)
    engine.attempts.add(task)

    def ended(task: asyncio.Task[AttemptOutcome]) -> None:
        engine.attempts.discard(task)
        attempt.reporter.close()
        try:
            outcome = None if task.cancelled() else task.result()
            if outcome is not None and outcome.again_in is None:
                attempt.reporter.forget()
            if span is not None:
                span.end(*("cancelled",) if outcome is None else outcome.in_words())
            if done is not None and outcome is not None:
                done(outcome)
        except Exception as error:  # noqa: BLE001 - it is logged there
            engine.spoil(turn, error)

    task.add_done_callback(ended, context=engine.context)
    return task


class ActivityTurn(Turn):
    """An activity that was sent to a queue of its own. Each attempt is a turn."""

    kind = "activity"

    def __init__(self, engine: Engine, row: Json, activity: Activity[..., Any]):
        super().__init__(engine, row)
        self._call = ActivityCall(activity, row["args"])
        self._task: asyncio.Task[AttemptOutcome] | None = None
        self._final: Json = {}

    def begin(self) -> None:
        """Make the attempt, unless the task was asked to cancel before."""
        if any(message["key"] == CANCEL for message in self.row["messages"]):
            self._cancelled()
            return
        end = self._call.activity.limits.end(from_iso(self.row["started_at"]))
        prior = PriorAttempts(self.row["attempt"], self.row["failure"], end)
        record = self._record if isinstance(self._call.activity, Transaction) else None
        self._task = begin_attempt(self, self._call, None, prior, self._done, record)

    def _record(self, value: Any) -> Json:
        """Return the turn with which a transaction ends the task."""
        self._final = self.body("done", value=value)
        return self._final

    def _done(self, outcome: AttemptOutcome) -> None:
        if self.is_over or outcome.is_recorded:
            return
        if outcome.ok:
            self._final = self.body("done", value=outcome.value)
        elif outcome.again_in is None:
            self._final = self.body("failed", value=outcome.value)
        else:
            due = self.engine.clock.now() + microseconds(outcome.again_in)
            self._final = self.body("retry", value=outcome.value, until=to_iso(due))
            self.engine.spawn(self._submit_retry(), self)
            return
        self.submit()

    async def _submit_retry(self) -> None:
        """Store the progress of this attempt for the next one, wherever it runs."""
        await self.engine.keep_progress(self)
        self.submit()

    def build(self) -> Json:
        """Return the outcome."""
        crash_point("activity: before final flush")
        return self._final

    def answered(self, answer: Json) -> None:
        """Take the answer to the outcome."""
        crash_point("activity: after final flush")
        if answer["state"] not in DROPPED and self._final["state"] != "failed":
            error: Failed = answer.get("error") or {"type": "Refused", "message": answer["state"]}
            self._final = self.body("failed", value=error)
            self.submit()
            return
        self.drop()

    def error_body(self, error: BaseException) -> Json:
        """Give the error to the task that waits for the activity."""
        return self.body("failed", value=failure_of(error))

    def check_inbox(self) -> None:
        """End the attempt: it is asked to cancel."""
        if self._task is not None and not self._task.done() and not self.in_flight:
            self._task.cancel()
            self._cancelled()

    def take_hint(self) -> None:
        """Ask soon whether the task is to cancel: no other message can have come."""
        self.engine.wants_heartbeat = True

    def _cancelled(self) -> None:
        cancelled = failure_of(asyncio.CancelledError("the activity was cancelled"))
        self._final = self.body("cancelled", value=cancelled)
        self.submit()

    def drop(self) -> None:
        """End the attempt, if it can be ended."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.over()
