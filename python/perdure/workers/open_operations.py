"""The open operations of a coordinator, sorted by what ends the wait for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from perdure.basics.durations import from_iso
from perdure.replay.journal import Journal
from perdure.replay.replay import Fact, OpenOperation
from perdure.workflow.operations import OF_OTHERS, outlives
from perdure.workflow.work import Transaction

from .activities import NO_ATTEMPTS, AttemptOutcome, PriorAttempts
from .deadlines import Deadlines


@dataclass(slots=True, eq=False)
class OpenActivity:
    """An activity that the code has asked for, and its attempts so far."""

    operation: OpenOperation
    is_transaction: bool
    prior: PriorAttempts
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

    Timers and signals come from outside, commands and requests need a flush, activities run here:
    each is to start, pauses between two attempts, or is under way. No step of the code looks at all
    that is open, however much that is; only transactions that wait for another one are looked at.
    """

    def __init__(self, journal: Iterable[Fact] = (), asked_before: int = 0):
        self._asked_before = asked_before
        self.commands: list[OpenOperation] = []
        self.requests: dict[str, OpenOperation] = {}
        self.cancels: list[str] = []
        self.signals: dict[str, OpenOperation] = {}
        self.to_start: list[OpenActivity] = []
        self._activities: dict[str, OpenActivity] = {}
        self._endless: deque[OpenActivity] = deque()
        self._pauses: Deadlines[OpenActivity] = Deadlines()
        self._awaited: set[str] = set()
        self.timers: Deadlines[OpenOperation] = Deadlines()
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
            call = OpenActivity(operation, isinstance(activity, Transaction), prior)
            self._activities[key] = call
            if call.needs_end():
                self._endless.append(call)
            if again_at is None:
                self.to_start.append(call)
            else:
                self.pause(call, again_at)
        elif kind == "timer":
            self.timers.add(key, deadline_of(operation), operation)
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
            self._pauses.discard(key)
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
        self.timers.discard(operation.key)
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
        return self.timers.first()

    def next_deadline(self) -> int | None:
        """Return the earliest of the deadlines and the ends of pauses between attempts."""
        timer, pause = self.timers.earliest(), self.end_of_pause()
        return pause if timer is None else timer if pause is None else min(timer, pause)

    # Activities.

    def activity_without_end(self) -> OpenActivity | None:
        """Return an activity whose end must be recorded before its next attempt begins."""
        endless = self._endless
        while endless and not (self.is_open(endless[0]) and endless[0].needs_end()):
            endless.popleft()
        return endless[0] if endless else None

    def pause(self, call: OpenActivity, until: int) -> None:
        """Let the next attempt of an activity wait."""
        self._pauses.add(call.operation.key, until, call)

    def end_pauses(self, now: int) -> None:
        """Let attempts begin whose pause is over."""
        self.to_start += self._pauses.take_due(now)

    def is_under_way(self) -> bool:
        """Tell whether an attempt runs here."""
        return len(self._activities) > len(self.to_start) + len(self._pauses)

    def end_of_pause(self) -> int | None:
        """Return when the next of the pauses between attempts is over."""
        return self._pauses.earliest()

    def has_all_begun(self) -> bool:
        """Tell whether there are activities, and each has an attempt under way."""
        return bool(self._activities) and not (self.to_start or self._pauses)

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
        self._pauses.clear()
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
