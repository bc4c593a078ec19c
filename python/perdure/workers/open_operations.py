"""The open operations of a coordinator, sorted by what ends the wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from perdure.basics.durations import from_iso
from perdure.replay.journal import Journal
from perdure.replay.replay import Fact, OpenOperation
from perdure.workflow.operations import OF_OTHERS, outlives
from perdure.workflow.work import Transaction

from .activities import NO_ATTEMPTS, AttemptOutcome, PriorAttempts

SHORT_PAUSE = 5_000_000
"""Microseconds: a longer pause between two attempts parks the coordinator."""


@dataclass(slots=True, eq=False)
class OpenActivity:
    """An activity that the code has asked for: its attempts so far, and when the next may begin."""

    operation: OpenOperation
    is_transaction: bool
    prior: PriorAttempts
    again_at: int | None
    task: asyncio.Task[AttemptOutcome] | None = None

    def needs_record(self) -> bool:
        """Tell whether all facts must be recorded before it begins.

        A transaction records them itself, unless they include its time limit.
        """
        return not self.is_transaction or self.prior.end is not None

    def needs_end(self) -> bool:
        """Tell whether it is not yet known when all attempts have to end."""
        return self.prior.end is None and self.operation.spec.activity.limits.within is not None


class OpenOperations:
    """Operations that the code waits for, by kind.

    Timers and signals come from outside, commands and requests need a flush, activities run here.
    """

    def __init__(self, journal: Iterable[Fact] = (), asked_before: int = 0):
        self._asked_before = asked_before
        self.commands: list[OpenOperation] = []
        self.requests: dict[str, OpenOperation] = {}
        self.cancels: list[str] = []
        self.signals: dict[str, OpenOperation] = {}
        self.to_start: list[OpenActivity] = []
        self._activities: dict[str, OpenActivity] = {}
        self._awaited: set[str] = set()
        self.timers: dict[str, OpenOperation] = {}
        self._attempts: dict[str, PriorAttempts] = {}
        self._ends: dict[str, int] = {}
        for fact in journal:
            key = fact.key or ""
            if fact.kind == "attempt":
                self._attempts[key] = self._attempts.get(key, NO_ATTEMPTS).and_failed(fact.value)
            elif fact.kind == "note":
                self._ends[key] = from_iso(fact.value["until"])

    # What the code asks for and withdraws.

    def take(self, journal: Journal) -> None:
        """Add what the code has asked for, and remove what it has withdrawn."""
        for operation in journal.take_withdrawn():
            self._withdraw(operation)
        for operation in journal.take_requested():
            self._enter(operation)

    def _enter(self, operation: OpenOperation) -> None:
        kind, key = operation.kind, operation.key
        if kind == "activity":
            activity, prior = operation.spec.activity, self._attempts.get(key, NO_ATTEMPTS)
            again_at, end = prior.again_at, self._ends.get(key)
            # Code that has since lost its limit has none.
            if end is not None and activity.limits.within is not None:
                prior = PriorAttempts(prior.made, prior.failure, end)
            is_transaction = isinstance(activity, Transaction)
            call = OpenActivity(operation, is_transaction, prior, again_at)
            self._activities[key] = call
            if again_at is None:
                self.to_start.append(call)
        elif kind == "timer":
            self.timers[key] = operation
        elif kind == "signal":
            self.signals[key] = operation
        elif kind == "answer":
            self.requests[key] = operation
            if operation.spec["kind"] in OF_OTHERS:
                self._awaited.add(key)
        else:
            self.commands.append(operation)

    def _withdraw(self, operation: OpenOperation) -> None:
        key = operation.key
        if operation.kind == "activity":
            self._end_activity(self._activities.pop(key, None))
        elif operation.kind == "answer":
            is_unsent = self.requests.pop(key, None) is not None
            if not is_unsent or self._was_asked_before(operation):
                self.cancels.append(key)
        self.close(operation)

    def _was_asked_before(self, operation: OpenOperation) -> bool:
        """Tell whether an earlier holder of the task may have sent what is unsent here."""
        return operation.serial <= self._asked_before

    def _end_activity(self, call: OpenActivity | None) -> None:
        if call is not None and call.task is not None:
            call.task.cancel()
        elif call in self.to_start:
            self.to_start.remove(call)

    def close(self, operation: OpenOperation) -> None:
        """Remove what was answered."""
        self.timers.pop(operation.key, None)
        self.signals.pop(operation.key, None)
        self._awaited.discard(operation.key)

    # Signals and time.

    def expects_messages(self) -> bool:
        """Tell whether a message may come that competes with a deadline."""
        return bool(self.signals or self._awaited)

    def awaited_signals(self) -> Iterator[str]:
        """Name the signals that are awaited."""
        return (each.name for each in self.signals.values())

    def waiting_for(self, signal: str) -> OpenOperation | None:
        """Return the oldest wait for a signal."""
        return next((each for each in self.signals.values() if each.name == signal), None)

    def first_timer(self) -> OpenOperation | None:
        """Return the timer with the earliest deadline."""
        return min(self.timers.values(), key=deadline_of) if self.timers else None

    def next_deadline(self) -> int | None:
        """Return the earliest of the deadlines and the pauses between attempts."""
        return min(self._deadlines(), default=None)

    def _deadlines(self) -> Iterator[int]:
        yield from map(deadline_of, self.timers.values())
        for call in self._activities.values():
            if call.again_at is not None:
                yield call.again_at

    # Activities.

    def activity_without_end(self) -> OpenActivity | None:
        """Return an activity to start whose end must be recorded first."""
        for call in self.to_start:
            if call.needs_end():
                return call
        return None

    def end_pauses(self, now: int) -> None:
        """Let attempts begin whose pause is over."""
        for call in self._activities.values():
            if call.again_at is not None and call.again_at <= now:
                call.again_at = None
                self.to_start.append(call)

    def is_under_way(self, now: int, short_pause: int) -> bool:
        """Tell whether something runs here: an attempt, or a short pause (µs) before one."""
        soon = now + short_pause
        for call in self._activities.values():
            if call.task is not None or (call.again_at or soon) < soon:
                return True
        return False

    def has_all_begun(self) -> bool:
        """Tell whether there are activities, and each has an attempt under way."""
        calls = self._activities
        return bool(calls) and all(call.task is not None for call in calls.values())

    def holds_all(self, journal: Journal) -> bool:
        """Tell whether all that the code waits for happens here. Then nobody sends messages."""
        return len(journal.operations) == len(self._activities) + len(self.timers)

    def is_open(self, call: OpenActivity) -> bool:
        """Tell whether the code still waits for this call."""
        return self._activities.get(call.operation.key) is call

    def finish(self, call: OpenActivity) -> None:
        """Remove an activity that has its answer."""
        del self._activities[call.operation.key]

    def never_begun(self) -> list[str]:
        """Name what was asked for in the last step, and ends before it has begun."""
        unsent = [each for each in self.requests.values() if not outlives(each.spec)]
        never_begun = (*(call.operation for call in self.to_start), *unsent)
        return [each.key for each in never_begun if not self._was_asked_before(each)]

    def stop(self) -> None:
        """End all attempts; nobody waits for them any more."""
        for call in self._activities.values():
            if call.task is not None:
                call.task.cancel()
        self._activities.clear()
        self.to_start.clear()

    # Flushing.

    def needs_flush(self) -> bool:
        """Tell whether something must be sent to the database."""
        return bool(self.commands or self.requests or self.cancels)

    def take_requests(self, final: bool) -> list[dict[str, Any]]:
        """Return the requests to send; at the end only those whose work outlives their asker."""
        requested = self.requests.values()
        requests = [_request(each) for each in requested if not final or outlives(each.spec)]
        self.requests = {}
        return requests


def _request(operation: OpenOperation) -> dict[str, Any]:
    """Write a request. Its answer repeats the fingerprint."""
    given: dict[str, Any] = {"key": operation.key} | operation.spec
    hashed = operation.fingerprint
    return given if hashed is None else given | {"fingerprint": hashed}


def deadline_of(timer: OpenOperation) -> int:
    """Return the deadline of a timer (µs)."""
    return timer.deadline or 0
