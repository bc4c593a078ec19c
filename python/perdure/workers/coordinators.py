"""Coordinators: what happens between two steps of the code.

The run says what the code asks for, and this turn brings it about. Outcomes that are known here (an
activity, a message, a deadline) are told to the code at once and recorded with the next flush.
Whatever needs the database (commands, requests) makes a flush, and everything is flushed before a
new outside effect starts. When nothing is under way any more, the task is parked.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from perdure.basics.durations import from_iso, microseconds, to_iso
from perdure.basics.faults import crash_point
from perdure.errors import NonDeterminism, PerdureError, ValueSealed
from perdure.failures import failure_of
from perdure.replay.replay import Fact, OpenOperation, SyncRun
from perdure.workflow.operations import stored_result
from perdure.workflow.work import Coordinator

from .activities import UNSTORABLE, AttemptOutcome, begin_attempt
from .coordinator_calls import AnyRun, open_run
from .inbox import UNREAD, InboxSnapshot, inbox_of_claim
from .open_operations import OpenActivity, OpenOperations
from .pending_events import PendingEvents
from .turns import (
    DROPPED,
    ENDED,
    Json,
    Turn,
    command_body,
    fact_body,
    facts_of,
    log_failure,
    reason_of,
    refusal,
)

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("perdure.worker")

EMPTY = OpenOperations()
"""The operations if no code runs; nothing is ever added to them."""

FIRST_POLL, FIRST_POLL_ALONE, LONGEST_POLL = 0.02, 0.25, 1.0
"""Seconds between looks into the inbox while something is under way here: from the first on, twice
as many each time; at first more where nothing but a cancel is to be expected."""

SHORT_PAUSE = 5_000_000
"""Microseconds: a longer pause between two attempts parks the coordinator."""

PARK = "park"


class CoordinatorTurn(Turn):
    """A coordinator that this worker holds."""

    kind = "coordinator"
    takes_messages = True

    def __init__(self, engine: Engine, row: Json, function: Coordinator[..., Any]):
        super().__init__(engine, row)
        self.function = function
        self._run: AnyRun | None = None
        self._poll_in = FIRST_POLL
        self._poll_at: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._plan: Json | None = None
        self._operations = EMPTY
        self._is_unproven = False

    def _begin_with(self, journal: list[Fact]) -> None:
        """Begin with the facts of the journal, and with nothing of an earlier run."""
        self._operations = OpenOperations(journal, self.row["asked"])
        began = from_iso(self.row["started_at"])
        self._events = PendingEvents(journal, self._operations, self.engine.clock, began)
        self._seen = len(journal)
        self._plan = None
        self._unflushed: list[Fact] = []
        self._withdrawn: list[str] = []
        self._open: asyncio.Task[AttemptOutcome] | None = None
        self._recording: tuple[OpenActivity, Fact] | None = None
        self._sent_facts: list[Fact] = []
        self._sent_commands: list[OpenOperation] = []
        self._sent_at = 0

    # Beginning.

    def begin(self) -> None:
        """Run the code against the journal that came with the claim, or read it."""
        if self.row["journal"] is None:
            self.engine.spawn(self._reload(inbox_of_claim(self.row)), self)
        else:
            self._load(self.row["journal"], inbox_of_claim(self.row))

    async def _reload(self, inbox: InboxSnapshot = UNREAD) -> None:
        rows = await self.engine.read_journal(self.job, self.task)
        if not self.is_over:
            self._load(rows, inbox)

    def _load(self, rows: list[list[Any]], inbox: InboxSnapshot) -> None:
        journal = facts_of(rows)
        self.position = len(journal)
        self._begin_with(journal)
        self._events.take_messages(inbox)
        run = self._run = open_run(self.engine.app, self.function, self.row, journal)
        self._is_unproven = self.row["asked"] > 0
        if isinstance(run, SyncRun):
            run.more = partial(self._append_next, run)
        self._step()

    def is_as_parked(self, row: Json) -> bool:
        """Tell whether the run in memory is at the same place as the claimed task."""
        journal = row["journal"]
        is_fresh = journal is None or (not journal and row["position"] == 0)
        told = ("started_at", "attempt", "args", "pinned_version")
        same = all(self.row[name] == row[name] for name in told)
        told_at = from_iso(row["told_at"] or row["started_at"])
        there = (row["position"], row["asked"], told_at)
        here = (self.position, self.asked_before, self._events.told_at)
        return is_fresh and same and there == here and not row["accept_changes"]

    def resume(self, row: Json) -> None:
        """Continue with the run in memory: nothing was told to the task meanwhile."""
        self.row = row
        self.token = row["token"]
        self.is_over = False
        self.progress.take_stored(row["progress"])
        self._events.take_messages(inbox_of_claim(row))
        self._step()

    # Running.

    def _step(self) -> None:
        """Run the code as far as possible with what is known here, then send what is needed."""
        run = self._run
        if run is None or self.in_flight or self.is_over or self._is_ending():
            return
        self.engine.running = self
        try:
            while not run.advance():
                if not self._append_next(run):
                    self._settle(run)
                    return
            self._finish(run)
        except NonDeterminism as error:
            self._mark_stuck(error)
        except ValueSealed as error:
            self.engine.seal(self, error)
        finally:
            self.engine.running = None

    def _append_next(self, run: AnyRun) -> bool:
        """Append the next thing that has happened to the journal, if anything has."""
        self._operations.take(run.journal)
        return self._events.append_next(run.journal)

    def _is_ending(self) -> bool:
        return self._plan is not None and not self._is_parking()

    def _is_parking(self) -> bool:
        return self._plan is not None and self._plan["state"] == PARK

    # What is needed now.

    def _settle(self, run: AnyRun) -> None:
        operations, journal, now = self._operations, run.journal, self.engine.clock.now()
        if journal.position != self._seen:
            self._seen = journal.position
            self._poll_in = FIRST_POLL_ALONE if operations.holds_all(journal) else FIRST_POLL
        self._unflushed += journal.take_facts()
        self._plan = None
        operations.end_pauses(now)
        is_under_way = operations.is_under_way() or self._stays_for_pause(now)
        must_flush = self._must_flush_first() or self._events.is_timer_unsure(now)
        if self.engine.is_stopping and operations.to_start and not is_under_way:
            self._plan = {"state": "release"}
            self.submit()
        elif must_flush and not self._is_transacting():
            self.submit()
        elif operations.to_start or is_under_way:
            self._start_activities()
            self._wait_here()
        else:
            self._plan = {"state": PARK}
            self.submit()

    def _stays_for_pause(self, now: int) -> bool:
        """Tell whether to wait here for the end of a pause between two attempts.

        If all slots are taken, other tasks would wait for it too: all the more when a service is
        down, and most of what this worker holds pauses.
        """
        until, engine = self._operations.end_of_pause(), self.engine
        is_short = until is not None and until < now + SHORT_PAUSE
        return is_short and engine.room() > 0 and not engine.hurries

    def _must_flush_first(self) -> bool:
        """Tell whether the database must know more before anything begins."""
        operations = self._operations
        if operations.needs_flush() or (self._is_unproven and operations.to_start):
            return True
        return bool(self._unflushed) and any(call.needs_record() for call in operations.to_start)

    def _start_activities(self) -> None:
        """Begin what can begin: one transaction at a time, so that none waits for another."""
        if self._must_flush_first():
            return
        waiting, self._operations.to_start = self._operations.to_start, []
        for call in waiting:
            if call.is_transaction and self._is_transacting():
                self._operations.to_start.append(call)
            else:
                self._start_activity(call)

    def _start_activity(self, call: OpenActivity) -> None:
        def done(outcome: AttemptOutcome) -> None:
            if not outcome.is_recorded:
                self._events.add(call, outcome)
            self._step()

        operation = call.operation
        record = partial(self._record, call) if call.is_transaction else None
        call.task = begin_attempt(self, operation.spec, operation.key, call.prior, done, record)
        if call.is_transaction:
            self._open = call.task

    def _wait_here(self) -> None:
        """Look again at the next deadline, or when it is time to look into the inbox."""
        delay = self._poll_in
        self._poll_in = min(2 * delay, LONGEST_POLL)
        deadline = self._operations.next_deadline()
        if deadline is not None:
            delay = min(delay, self.engine.clock.seconds_until(deadline) + 0.001)
        self._poll_at = poll_at = self.engine.loop.time() + delay
        if self._alarm is None or self._alarm.when() > poll_at:
            self._set_alarm(delay)

    def _set_alarm(self, delay: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self.engine.call_later(delay, self._on_alarm)

    def _on_alarm(self) -> None:
        """Look if it is time. Most flights are so short that the alarm may ring early."""
        self._alarm = None
        if self._poll_at is not None:
            delay = self._poll_at - self.engine.loop.time()
            if delay > 0:
                self._set_alarm(delay)
                return
            try:
                self._poll()
            except Exception as error:  # noqa: BLE001 - it is logged there
                self.engine.spoil(self, error)

    def _poll(self) -> None:
        """Tell the code what is due; if there is nothing new, ask for messages."""
        run, self._poll_at = self._run, None
        if run is None:
            return
        before = run.journal.position
        self._step()
        if run.journal.position == before:
            self.check_inbox()

    # Transactions: while one is open nothing else is recorded, so that the locks of its function
    # can block others, but not this task.

    def _is_transacting(self) -> bool:
        """Tell whether a transaction is open that may still record its result."""
        return self._open is not None and not (self._open.done() or self._open.cancelling())

    def _record(self, call: OpenActivity, value: Any) -> Json:
        """Return the turn that records a result, behind all that was told before."""
        operation, at = call.operation, self._events.next_at()
        fact = Fact(
            operation.kind, operation.key, True, value, at, operation.name, operation.fingerprint
        )
        self._recording = call, fact
        facts = [fact_body(each) for each in (*self._unflushed, fact)]
        return self.body("keep", facts=facts, awaits=self._awaits(), asked=self._count_asked())

    def take_back(self) -> None:
        """Continue: what was told must still be recorded."""
        self._recording = None
        super().take_back()
        self._step()

    def _take_recorded(self) -> None:
        """Tell the code the result that its transaction has committed."""
        assert self._recording is not None
        call, fact = self._recording
        self._recording = self._open = call.task = None
        self._sent_facts, self._sent_commands = [*self._unflushed, fact], []
        self._unflushed = []
        self._operations.finish(call)
        self._events.told_at = fact.at
        if self._run is not None:
            self._run.journal.append(fact, recorded=True)

    # Sending.

    def build(self) -> Json:
        """Return what has accumulated; while a transaction is open, only a request for messages."""
        if self._plan is None and self._is_transacting():
            self._poll_at = None
            self._sent_facts, self._sent_commands = [], []
            return self.body("keep", awaits=self._awaits())
        plan = self._plan or {"state": "keep"}
        state = plan["state"]
        crash_point(f"coordinator: before {_PHASES.get(state, 'final flush')}")
        self._poll_at = None
        operations, at = self._operations, self._events.next_at()
        facts = [fact_body(fact) for fact in self._unflushed]
        facts += [command_body(operation, operation.key, at) for operation in operations.commands]
        self._sent_facts, self._unflushed = self._unflushed, []
        self._sent_commands, operations.commands = operations.commands, []
        self._sent_at = at
        body = self.body(**plan, facts=facts or None, asked=self._count_asked())
        if requests := operations.take_requests(final=state not in _PHASES):
            body["requests"] = self.engine.traced(requests, self)
        self._withdrawn, operations.cancels = operations.cancels, []
        if self._withdrawn:
            body["cancels"] = self._withdrawn
        if state in _PHASES:
            body["awaits"] = self._awaits()
        if state == PARK and (until := operations.next_deadline()) is not None:
            body["until"] = to_iso(until)
        if self._is_unproven and self._run is not None and state != "stuck":
            body["open"] = self._open_requests(self._run)
        return body

    def _open_requests(self, run: AnyRun) -> Json:
        """Return the requests that the code waits for.

        The journal does not say what an earlier holder of the task has asked for, so the database
        compares.
        """
        operations = run.journal.operations.values()
        return {each.key: each.fingerprint for each in operations if each.kind == "answer"}

    def _count_asked(self) -> int | None:
        """Return how much the code has asked for; a run that begins anew must get as far."""
        if self._run is None:
            return None
        asked = self.row["asked"] = self._run.journal.asked
        return asked

    def _awaits(self) -> list[str]:
        return self.ask_for(self._operations.awaited_signals())

    def answered(self, answer: Json) -> None:
        """Continue with the answer of the database."""
        state = answer["state"]
        self._is_unproven = self._is_unproven and state not in ("keep", "parked")
        if state == "keep":
            if self._recording is not None:
                self._take_recorded()
            self._kept(answer)
        elif state == "parked" and self._is_parking():
            crash_point("coordinator: after park")
            self.applied(self.position + len(self._sent_facts))
            self._plan = None
            self.engine.park(self, self._operations.next_deadline())
        elif state in DROPPED:
            crash_point("coordinator: after final flush")
            for _, ok, value in answer.get("answers") or ():
                if not ok:
                    log_failure(self, UNAWAITED, value)
            self.drop()
        elif state in ("stale", "replay"):
            logger.info("%r starts over from its journal: %s", self, state)
            self._discard_run()
            self.engine.spawn(self._reload(), self)
        else:
            self._refused(refusal(answer))

    def _kept(self, answer: Json) -> None:
        self._plan = None
        position = self.position + len(self._sent_facts)
        self.applied(position + len(self._sent_commands))
        told = {seq: (ok, value) for seq, ok, value in answer.get("answers") or ()}
        for seq, operation in enumerate(self._sent_commands, position + 1):
            self._append_recorded(operation, *told.get(seq, (True, None)))
        self._sent_facts, self._sent_commands = [], []
        taken = {fact.extra for fact in self._unflushed}
        self._events.take_messages(self.inbox_of(answer, taken))
        self._start_activities()
        crash_point("coordinator: after advance")
        if self._has_seen_all():
            self._wait_here()
        else:
            self._step()

    def _has_seen_all(self) -> bool:
        """Tell whether there is nothing to tell the code, and all it waits for is under way."""
        has_pending = self._run is not None and self._run.journal.has_pending
        return not (has_pending or self._events.may_come()) and self._operations.has_all_begun()

    def _append_recorded(self, operation: OpenOperation, ok: bool, value: Any) -> None:
        at = self._events.told_at = self._sent_at
        fact = Fact(
            operation.kind, operation.key, ok, value, at, operation.name, operation.fingerprint
        )
        if self._run is not None:
            self._run.journal.append(fact, recorded=True)

    def _refused(self, error: PerdureError) -> None:
        """Park the task, or fail the job if it is the result that was refused.

        What has happened is sent again, without the requests, so that it does not happen twice. If
        that is refused as well, the facts themselves are at fault. A task that parks before its
        code is known to be the right one records nothing; a job that fails withdraws its requests
        as usual.
        """
        facts, self._sent_facts = self._sent_facts, []
        if isinstance(error, NonDeterminism):  # something else is under way
            self._mark_stuck(error)
            return
        logger.error("%r is refused: %s", self, error)
        state = self._plan["state"] if self._plan is not None else "keep"
        if state == "stuck" and not facts:
            self.drop()
            return
        parks = state not in _ENDS
        self._unflushed = [] if state in _LAST or (parks and self._is_unproven) else facts
        self._operations.stop()
        self._operations.cancels = [] if parks else self._withdrawn
        self._plan = _stuck(error) if parks else _failed(error)
        self.submit()

    # Ending.

    def _finish(self, run: AnyRun) -> None:
        self._operations.take(run.journal)
        self._unflushed += run.journal.take_facts()
        self._plan = plan = self._ending(run)
        if plan["state"] == "failed":
            log_failure(self, "the job", plan["value"])
        elif plan["state"] == "done":
            self._warn_of_unawaited(run)
        elif "failure" in plan:
            log_failure(self, "a run", plan["failure"], f"again at {plan['until']}")
        for error in run.unawaited_errors():
            if isinstance(error, Exception):  # what ends a process, or unwinds, is no news
                log_failure(self, UNAWAITED, failure_of(error))
        self._operations.stop()
        self._trace(plan)
        self.submit()

    def _warn_of_unawaited(self, run: AnyRun) -> None:
        """Report what the code has called in vain."""
        if lost := self._operations.never_begun():
            logger.warning(
                "%r has ended: these calls were not awaited and never began: %s", self, lost
            )
        if waits := run.unawaited_waits():
            logger.warning("%r has ended: it has never awaited %s", self, ", ".join(waits))

    def _trace(self, plan: Json) -> None:
        """Make the span of the run that ends."""
        tracing, state = self.engine.app.tracing, plan["state"]
        if tracing is not None:
            failure = plan["value"] if state == "failed" else plan.get("failure")
            began = from_iso(self.row["started_at"])
            tracing.ended(self.info(), self.engine.instance, began, state, failure)

    def _ending(self, run: AnyRun) -> Json:
        if run.continuation is not None:
            return {"state": "continue", "value": run.continuation}
        try:
            value = stored_result(self.function, run.outcome())
            return {
                "state": "done",
                "value": self.engine.calls.sealable(value),
                "awaits": self.function.again_for or None,
            }
        except asyncio.CancelledError as error:
            state = "cancelled" if self._events.is_cancelled else "failed"
            return {"state": state, "value": failure_of(error)}
        except UNSTORABLE as error:
            return _failed(error)
        except BaseException as error:  # noqa: BLE001 - whatever the code raised, so the run ended
            return self._retry_or_fail(error)

    def _retry_or_fail(self, error: BaseException) -> Json:
        """Begin a new run after a pause, if the retry policy of the coordinator allows one more."""
        retry, made = self.function.retry, self.row["attempt"] + 1
        try:
            if self._events.is_cancelled or not retry.allows(error, made):
                return _failed(error)
            until = to_iso(self.engine.clock.now() + microseconds(retry.pause_after(error, made)))
        except Exception as broken:  # noqa: BLE001 - a policy of the user's that cannot judge
            return _failed(broken)
        return {"state": "continue", "until": until, "failure": failure_of(error)}

    def _mark_stuck(self, error: NonDeterminism) -> None:
        raised = error.__cause__  # raised by changed code instead of following the journal
        place = f"\nplace: {error.place}" if error.place else ""
        logger.error("%r is stuck: %s%s", self, error, place, exc_info=raised)
        last = () if self._run is None else self._run.journal.take_facts()
        told = [*self._unflushed, *last]
        self._discard_run()
        # Facts told to code that had no effect yet are left for the code that comes after it.
        self._unflushed = [] if self._is_unproven else told
        self._plan = _stuck(error)
        self.submit()

    def _discard_run(self) -> None:
        self._poll_at = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._operations.stop()
        self._operations = EMPTY
        self._unflushed = []
        self._recording = None
        run, self._run = self._run, None
        if run is not None:
            run.close()

    def drop(self) -> None:
        """End the run without any further effect."""
        self._discard_run()
        self.over()

    def check_inbox(self) -> None:
        """Ask for messages."""
        if self._run is not None:
            self.submit()


UNAWAITED = "a call or task that nobody awaited"

_PHASES = {"keep": "flush", PARK: "park"}
"""States in which the task continues, and the name of the crash point before each."""


_ENDS = ENDED | {"continue"}
"""States of a turn with which a run ends."""

_LAST = ("stuck", "failed")
"""States of a turn that only reports what has happened, and why it ends."""


def _stuck(error: BaseException) -> Json:
    return {"state": "stuck", "value": reason_of(error)}


def _failed(error: BaseException) -> Json:
    return {"state": "failed", "value": failure_of(error)}
