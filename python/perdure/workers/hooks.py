"""Hooks: ordinary code on the worker's loop or in a thread, beside a journal of what it was told.

A wait is a plain future. A hook that does nothing but wait leaves memory: an async one is parked
first and then cancelled, a plain one is unwound first and then parked. It runs again from the top,
with its journal, when there is something for it.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from perdure.basics.durations import from_iso, microseconds, to_iso
from perdure.basics.faults import crash_point
from perdure.basics.limits import too_late
from perdure.errors import PerdureError
from perdure.failures import failure_of
from perdure.replay.journal import MAX_REFUSED_CALLS
from perdure.replay.replay import Evicted, Fact, Suspend, current
from perdure.workflow.operations import stored_result
from perdure.workflow.work import Hook

from .activities import FinalError
from .hook_calls import HookRuntime, ThreadCall
from .hook_cancel import HookCancel
from .hook_journal import OWN, HookJournal
from .inbox import UNREAD, InboxSnapshot, inbox_of_claim
from .outbox import Outbox
from .quiescence import is_quiescent
from .turns import DROPPED, ENDED, Json, Turn, facts_of, log_failure, refusal
from .waits import AT_ONCE, Waits

if TYPE_CHECKING:
    from perdure.tracing import AttemptSpan

    from .engine import Engine

logger = logging.getLogger("perdure.worker")

MAX_TIMERS = 64
"""Number of timers that a hook's code may leave, before those that have fired are forgotten."""
KEEP = {"state": "keep"}
PARK = {"state": "park"}
DROP = {"state": "drop"}


class HookTurn(Turn):
    """A hook that this worker holds."""

    kind = "hook"
    takes_messages = True

    def __init__(self, engine: Engine, row: Json, hook: Hook[..., Any]):
        super().__init__(engine, row)
        self.hook = hook
        self.journal = HookJournal(())
        # Its parts do not refer back to it, so that an ended turn leaves memory at once.
        self._itself: HookTurn = weakref.proxy(self)
        self.outbox = Outbox(self._itself, 0)
        self.waits = Waits(self._itself)
        self.cancel = HookCancel(self._itself)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.acting = 0
        self.thread_waits: set[ThreadCall] = set()
        self.shielded_waits = 0
        self.transacting = asyncio.Lock()
        self._timers: list[asyncio.TimerHandle] = []
        self.root: asyncio.Task[Any] | None = None
        self._span: AttemptSpan | None = None
        self._plan: Json | None = None
        self._sent_plan: Json = KEEP
        self.has_ended = False
        self._until: int | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._is_late = False
        self._is_evicted = False
        self._is_unwinding = False
        self._is_abandoned = False
        self._refused_calls = 0
        self.has_begun = False
        self._asked: int = row["asked"]
        self._begun: int = self._asked
        self.inbox = inbox_of_claim(row)

    # Beginning and ending.

    def begin(self) -> None:
        """Run the function beside what its journal tells."""
        if self.row["journal"] is None:
            self.engine.spawn(self._reload(), self)
        else:
            self._load(self.row["journal"])

    async def _reload(self) -> None:
        rows = await self.engine.read_journal(self.job, self.task)
        if not self.is_over:
            self._load(rows)

    def _load(self, rows: list[list[Any]]) -> None:
        facts = facts_of(rows)
        self.position = len(facts)
        self.journal = HookJournal(facts)
        first_at = from_iso(self.row["started_at"])
        self.outbox = Outbox(self._itself, facts[-1].at if facts else first_at)
        again_at = self.journal.attempts(OWN).again_at
        self._until = self.hook.limits.until(first_at, again_at or first_at)
        self._run()
        self.waits.take(self.inbox, runs_again=True)

    def _run(self) -> None:
        """Run the function from the top."""
        self.journal.restart()
        self._begun = self._asked
        self._is_late = self._until is not None and self._until <= self.engine.clock.now()
        self.cancel.restart(is_due=self.journal.is_cancelled or self._is_late)
        self._is_unwinding = self.has_begun = False
        self._set_alarm()
        runtime = HookRuntime(self)
        context = self.engine.context.copy()
        context.run(current.set, runtime)
        self._span = self.engine.begin_span(self.info, context)
        crash_point("hook: before function")
        self.root = self.engine.loop.create_task(self._main(runtime, context), context=context)
        self.root.add_done_callback(self._ended, context=self.engine.context)

    async def _main(self, runtime: HookRuntime, context: Context) -> Any:
        self.has_begun = True
        hook = self.hook
        args, kwargs = hook.shape.arguments(self.row["args"])

        def call() -> Any:
            return context.copy().run(hook.function, runtime.memory, *args, **kwargs)

        try:
            if hook.is_async:
                value = await hook.function(runtime.memory, *args, **kwargs)
            else:
                threads = self.engine.hook_threads
                value = await self.engine.in_thread(threads, self.place, call)
            return self.engine.calls.sealable(stored_result(hook, value))
        except (SystemExit, KeyboardInterrupt) as error:  # these would end the worker's loop
            raise FinalError(error) from error

    def _ended(self, root: asyncio.Task[Any]) -> None:
        try:
            self._report_end(root)
        except Exception as error:  # noqa: BLE001 - it is logged there
            self.engine.spoil(self, error)

    def _report_end(self, root: asyncio.Task[Any]) -> None:
        """Report how the function has ended."""
        _retrieve(root)
        if self._is_evicted or self._is_abandoned:
            self._end_span(PARK if self._sent_plan is PARK else DROP)
            return
        crash_point("hook: after function")
        self.has_ended = not self._is_unwinding
        for task in list(self.tasks):  # tasks that the hook has begun and not awaited
            task.cancel()
        plan: Json = PARK if self._is_unwinding else self._final_plan(root)
        self._plan = plan
        if plan["state"] in ("failed", "retry"):
            again = f"again at {plan['until']}" if "until" in plan else None
            log_failure(self, f"attempt {self.row['attempt'] + 1}", plan["value"], again)
        self._end_span(plan)
        self.submit()

    def _end_span(self, plan: Json) -> None:
        span, self._span = self._span, None
        if span is not None:
            state = plan["state"]
            span.end(state, plan["value"] if state in ("failed", "retry") else None)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._until is not None:
            delay = self.engine.clock.seconds_until(self._until)
            self._alarm = self.engine.call_later(delay, self._time_is_up)

    def _time_is_up(self) -> None:
        """Cancel an attempt that takes too long.

        An attempt that began too late is told at its first call, or here if it makes none.
        """
        if (
            self.is_leaving()
            or self.journal.is_cancelled
            or (self._is_late and not self.cancel.is_due)
        ):
            return
        self._is_late = True
        if self._plan is PARK:  # not sent yet: it would have no time at which to wake up
            self._plan = None
        self.cancel.now()

    def _next_deadline(self) -> int | None:
        """Return the earliest deadline of its waits and its own, unless that has passed."""
        own = None if self._is_late else self._until
        deadlines = (self.waits.next_deadline(), own)
        return min((at for at in deadlines if at is not None), default=None)

    def _final_plan(self, root: asyncio.Task[Any]) -> Json:
        if root.cancelled():
            return self._failed(asyncio.CancelledError("the hook was cancelled"))
        error = root.exception()
        if isinstance(error, FinalError):
            error = error.error
        if error is None:
            return {"state": "done", "value": root.result()}
        try:
            return self._failed(error)
        except Exception as broken:  # noqa: BLE001 - a policy of the user's that cannot judge
            return {"state": "failed", "value": failure_of(broken, f"hook {self.hook.name}")}

    def _failed(self, error: BaseException) -> Json:
        name, limits, made = f"hook {self.hook.name}", self.hook.limits, self.row["attempt"] + 1
        now, end = self.engine.clock.now(), limits.end(from_iso(self.row["started_at"]))
        if isinstance(error, asyncio.CancelledError) and self.journal.is_cancelled:
            return {"state": "cancelled", "value": failure_of(error, name)}
        if isinstance(error, asyncio.CancelledError) and self._is_late:
            if self._until == end:
                last = self.journal.attempts(OWN).failure
                return {"state": "failed", "value": too_late(name, limits, made, last)}
            late = TimeoutError(f"{name} took longer than {limits.timeout:g} s")
            error = late.with_traceback(error.__traceback__)
        failure = failure_of(error, name) | {"attempts": made}
        if not self.hook.retry.allows(error, made):
            return {"state": "failed", "value": failure}
        again_at = now + microseconds(self.hook.retry.pause_after(error, made))
        if end is not None and again_at >= end:
            return {"state": "failed", "value": too_late(name, limits, made, failure)}
        due = to_iso(again_at)
        value = failure | {"again_at": due}
        self.outbox.append("attempt", OWN, ok=False, value=value)
        return {"state": "retry", "value": failure, "until": due}

    # What its calls ask of it.

    def claim_key(self, what: str) -> str:
        """Return the key of the next call. Raises Evicted or Suspend if the hook is leaving."""
        self.check_alive()
        key = self.journal.key(what)
        if not (self.journal.is_cancelled or self._is_late):
            self._asked = max(self._asked, self.journal.asked)
        return key

    def is_leaving(self) -> bool:
        """Tell whether what the code does now has no effect any more.

        Code is evicted before its turn is over.
        """
        return self._is_evicted or self._is_unwinding

    def check_alive(self) -> None:
        """Raise if the hook is leaving memory, so that nothing has an effect."""
        if self._is_evicted:
            raise self._count_refusal(Evicted())
        if self._is_unwinding:
            raise self._count_refusal(Suspend())

    def _count_refusal(self, error: Evicted | Suspend) -> Evicted | Suspend:
        """Count how often code that is leaving has made calls nevertheless."""
        self._refused_calls += 1
        if self._refused_calls == MAX_REFUSED_CALLS:
            logger.error(
                "%r does not end: its code catches the exception that should end it, and waits"
                " again. It is abandoned, and starts over from its journal. Let it catch Exception"
                " instead of BaseException",
                self,
            )
            self.engine.loop.call_soon_threadsafe(self._park_abandoned)
        return error

    def stays_for_ever(self) -> bool:
        """Tell whether its code would make calls for ever if they raised."""
        return self._refused_calls >= MAX_REFUSED_CALLS

    def _park_abandoned(self) -> None:
        """Park a plain hook whose thread does not unwind."""
        if not self.hook.is_async:
            self.engine.hook_threads.replace_one()
        if self._is_unwinding and self._plan is None and not self._is_evicted:
            self._is_abandoned, self._plan = True, PARK
            self._end_span(PARK)
            self.submit()

    def is_there(self) -> bool:
        """Tell whether code that runs again has asked for all that it had asked for before."""
        return self.journal.asked >= self._asked

    def was_begun(self) -> bool:
        """Tell whether the call that was made last had been made when the code ran before."""
        return self.journal.asked <= self._begun

    def soon(self, action: Callable[[], None]) -> None:
        """Do something after the code has moved on from where it waits, if it is here then."""
        self.engine.call_later(AT_ONCE, partial(self._if_here, action))

    def _if_here(self, action: Callable[[], None]) -> None:
        if not (self.is_leaving() or self.has_ended):
            action()

    # Its tasks and timers.

    def tick(self) -> None:
        """Check the waits."""
        try:
            self.waits.tick()
        except Exception as error:  # noqa: BLE001 - it is logged there
            self.engine.spoil(self, error)

    def flush(self) -> None:
        """Send what has gathered."""
        if self.outbox.has_more() and not self.is_over:
            self.submit()

    def note_timer(self, timer: asyncio.TimerHandle) -> None:
        """Remember a timer of the hook's own code: until it fires, the hook is not still."""
        self._timers.append(timer)
        if len(self._timers) > MAX_TIMERS:
            now = self.engine.loop.time()
            self._timers = [t for t in self._timers if not t.cancelled() and t.when() > now]

    def note_task(self, task: asyncio.Task[Any]) -> None:
        """Remember a task of the hook."""
        self.tasks.add(task)
        self.cancel.note_task(task)
        task.add_done_callback(self._task_done, context=self.engine.context)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if self.is_leaving():
            _retrieve(task)

    def is_quiescent(self) -> bool:
        """Tell whether the code only waits, and nothing of it is being sent."""
        if self.acting or self.outbox.is_waited_for():
            return False
        if not self.hook.is_async:
            waits = tuple(self.thread_waits)
            return bool(waits) and all(call.is_quiescent() for call in waits)
        return is_quiescent(self.tasks, self._timers)

    def is_busy(self) -> bool:
        """Tell whether a tick has to wait: something is being sent, or the code has ended."""
        return self.is_leaving() or self.in_flight or self.queued or self._plan is not None

    # Leaving memory.

    def leave(self) -> None:
        """Park an async hook and then cancel it; unwind a thread and then park it."""
        if self.hook.is_async:
            self._plan = PARK
            self.submit()
        else:
            self._is_unwinding = True
            self.waits.fail(Suspend())

    def _evict(self) -> None:
        """End the code in memory without any further effect."""
        self._is_evicted = True
        self.outbox.end(Evicted())
        if not self.hook.is_async:
            self.waits.fail(Evicted())
        for task in list(self.tasks):
            task.cancel()

    def release(self, error: PerdureError) -> None:
        """End the code here, and give the task back when nothing of it is being sent."""
        if not self._is_evicted:
            self._evict()
            self.engine.spawn(self._release(error), self)

    async def _release(self, error: PerdureError) -> None:
        while self.in_flight:  # the database would take the next turn for a repetition of this one
            await self.until_answered()
        raise error  # the engine gives it back, if it is still held

    # Sending.

    def body(self, state: str, **more: Any) -> Json:
        """Return a turn, and how much the code had asked for before it was cancelled."""
        return super().body(state, asked=self._asked, **more)

    def record(self, fact: Fact) -> Json:
        """Return the turn that records a transaction's fact, after all that has accumulated."""
        self._sent_plan = KEEP
        return self.body("keep", awaits=self.waits.awaits()) | self.outbox.send_with(fact)

    def take_back(self) -> None:
        """Continue: what has accumulated must still be recorded."""
        self.outbox.take_back()
        super().take_back()
        if self._plan is not None:  # its code has ended meanwhile and could send nothing
            self.submit()
        elif not self.is_over:
            self.waits.arm()

    def build(self) -> Json:
        """Return what has accumulated; while a transaction is open, only a request for messages."""
        if self._plan is None and self.transacting.locked():
            self._sent_plan = KEEP
            return self.body("keep", awaits=self.waits.awaits())
        plan, self._plan = self._plan or KEEP, None
        self._sent_plan, state = plan, plan["state"]
        crash_point(f"hook: before {_PHASES.get(state, 'final flush')}")
        body = self.body(**plan) | self.outbox.send(final=state in ENDED)
        if state in _PHASES:
            body["awaits"] = self.waits.awaits()
        if plan is PARK and (until := self._next_deadline()) is not None:
            body["until"] = to_iso(until)
        return body

    def answered(self, answer: Json) -> None:
        """Continue with the answer of the database."""
        state = answer["state"]
        if state == "keep":
            self._kept(answer)
        elif state == "parked":
            crash_point("hook: after park")
            self.engine.due_at(self._next_deadline())
            self.drop()
        elif state in DROPPED:
            crash_point("hook: after final flush")
            self.drop()
        elif state in ("stale", "replay"):
            self._start_over(state, UNREAD)
        else:
            self._refused(refusal(answer))

    def _start_over(self, why: str, inbox: InboxSnapshot) -> None:
        logger.info("%r starts over from its journal: %s", self, why)
        self._evict()
        again = HookTurn(self.engine, self.row | {"journal": None, "asked": self._asked}, self.hook)
        again.asked_before = self.asked_before
        again.progress = self.progress
        again.inbox = inbox
        self.engine.replace(self, again)

    def _kept(self, answer: Json) -> None:
        self.applied(self.outbox.acknowledge(self.position, answer))
        crash_point("hook: after advance")
        if self._is_abandoned:
            self._start_over("its code does not let go", self.inbox_of(answer, set()))
            return
        runs_again = self._sent_plan is PARK and not self.hook.is_async
        if runs_again:
            self._run()
        has_more = self.outbox.has_more()  # its reaction to what it is told now is sent together
        if self._plan is None and not self._is_unwinding:  # or it would park with open messages
            inbox = self.inbox_of(answer, self.outbox.taken() | self.waits.offered())
            self.waits.take(inbox, runs_again=runs_again)
        if self._plan is not None or (has_more and not self.transacting.locked()):
            self.submit()
        else:
            self.waits.arm()

    def _refused(self, error: PerdureError) -> None:
        logger.error("%r is refused: %s", self, error)
        if self._sent_plan["state"] == "failed":
            self.drop()
            return
        self._evict()
        self._plan = {"state": "failed", "value": failure_of(error)}
        self.submit()

    def error_body(self, error: BaseException) -> Json:
        """Give the error to the task that waits for the hook."""
        return self.body("failed", value=failure_of(error))

    def check_inbox(self) -> None:
        """Ask for messages."""
        if self.root is not None:
            self.submit()

    def drop(self) -> None:
        """End the code without any further effect."""
        self._evict()
        self.over()

    def over(self) -> None:
        """Tell the engine that the task is not held any more, and drop its code."""
        super().over()
        self._until = self.root = None
        self._set_alarm()

    def drain(self) -> None:
        """Leave memory as soon as the code only waits."""
        self.waits.hurry()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Keep asyncio from reporting an error that nobody needs to see."""
    if not task.cancelled():
        task.exception()


_PHASES = {"keep": "flush", "park": "park"}
"""States in which the task continues, and the name of the crash point before each."""
