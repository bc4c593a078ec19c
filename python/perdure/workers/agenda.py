"""The agenda of a coordinator: what its code waits for, sorted by what ends the wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

from perdure.basics.durations import from_iso
from perdure.errors import Failed
from perdure.replay.journal import Journal
from perdure.replay.replay import Fact, Op
from perdure.workflow.asks import OF_OTHERS, outlives
from perdure.workflow.work import Transaction

from .activities import NOTHING, Before, Outcome

SHORT_PAUSE = 5_000_000
"""Microseconds: a longer pause between two attempts parks the coordinator."""


class Call:
    """An activity that the code has asked for: its attempts so far, and when the next may begin."""

    __slots__ = ("again_at", "before", "is_transaction", "made", "op", "task")

    def __init__(self, op: Op, made: int, again_at: int | None, before: Before):
        self.op = op
        self.made = made
        self.again_at = again_at
        self.before = before
        self.is_transaction = isinstance(op.spec.activity, Transaction)
        self.task: asyncio.Task[Outcome] | None = None

    def needs_record(self) -> bool:
        """Tell whether all facts must be recorded before it begins.

        A transaction records them itself, unless they include its time limit.
        """
        return not self.is_transaction or self.before.end is not None

    def needs_end(self) -> bool:
        """Tell whether it is not yet known when all attempts have to end."""
        return self.before.end is None and self.op.spec.activity.limits.within is not None


class Agenda:
    """Open ops by kind.

    Timers and signals come from outside, commands and requests need a flush, activities run here.
    """

    def __init__(self, journal: Iterable[Fact] = (), asked_before: int = 0):
        self._asked_before = asked_before
        self.commands: list[Op] = []
        self.requests: dict[str, Op] = {}
        self.cancels: list[str] = []
        self.signals: dict[str, Op] = {}
        self.to_start: list[Call] = []
        self._calls: dict[str, Call] = {}
        self._awaited: set[str] = set()
        self.timers: dict[str, Op] = {}
        self._attempts: dict[str, tuple[int, int | None, Failed]] = {}
        self._ends: dict[str, int] = {}
        for fact in journal:
            if fact.kind == "attempt":
                self._note_attempt(fact)
            elif fact.kind == "note" and fact.key is not None:
                self._ends[fact.key] = from_iso(fact.value["until"])

    def _note_attempt(self, fact: Fact) -> None:
        key, failure = fact.key or "", fact.value
        made, *_ = self._attempts.get(key, (0,))
        again_at = failure.get("again_at")
        self._attempts[key] = made + 1, again_at and from_iso(again_at), failure

    # What the code asks for and withdraws.

    def take(self, journal: Journal) -> None:
        """Add what the code has asked for, and remove what it has withdrawn."""
        for op in journal.take_withdrawn():
            self._withdraw(op)
        for op in journal.take_requested():
            self._enter(op)

    def _enter(self, op: Op) -> None:
        kind, key = op.kind, op.key
        if kind == "activity":
            made, again_at, failure = self._attempts.get(key, (0, None, None))
            # Code that has since lost its limit has none.
            end = None if op.spec.activity.limits.within is None else self._ends.get(key)
            before = NOTHING if end is None and failure is None else Before(end, failure)
            call = self._calls[key] = Call(op, made, again_at, before)
            if call.again_at is None:
                self.to_start.append(call)
        elif kind == "timer":
            self.timers[key] = op
        elif kind == "signal":
            self.signals[key] = op
        elif kind == "answer":
            self.requests[key] = op
            if op.spec["kind"] in OF_OTHERS:
                self._awaited.add(key)
        else:
            self.commands.append(op)

    def _withdraw(self, op: Op) -> None:
        key = op.key
        if op.kind == "activity":
            self._end_call(self._calls.pop(key, None))
        elif op.kind == "answer":
            is_unsent = self.requests.pop(key, None) is not None
            if not is_unsent or self._was_asked_before(op):
                self.cancels.append(key)
        self.close(op)

    def _was_asked_before(self, op: Op) -> bool:
        """Tell whether an earlier holder of the task may have sent what is unsent here."""
        return op.serial <= self._asked_before

    def _end_call(self, call: Call | None) -> None:
        if call is not None and call.task is not None:
            call.task.cancel()
        elif call in self.to_start:
            self.to_start.remove(call)

    def close(self, op: Op) -> None:
        """Remove what was answered."""
        self.timers.pop(op.key, None)
        self.signals.pop(op.key, None)
        self._awaited.discard(op.key)

    # Signals and time.

    def expects_mail(self) -> bool:
        """Tell whether a message may come that competes with a deadline."""
        return bool(self.signals or self._awaited)

    def awaited_signals(self) -> Iterator[str]:
        """Name the signals that are awaited."""
        return (op.name for op in self.signals.values())

    def waiting_for(self, signal: str) -> Op | None:
        """Return the oldest wait for a signal."""
        return next((op for op in self.signals.values() if op.name == signal), None)

    def first_timer(self) -> Op | None:
        """Return the timer with the earliest deadline."""
        return min(self.timers.values(), key=deadline_of) if self.timers else None

    def next_deadline(self) -> int | None:
        """Return the earliest of the deadlines and the pauses between attempts."""
        return min(self._deadlines(), default=None)

    def _deadlines(self) -> Iterator[int]:
        yield from map(deadline_of, self.timers.values())
        for call in self._calls.values():
            if call.again_at is not None:
                yield call.again_at

    # Activities.

    def call_without_end(self) -> Call | None:
        """Return an activity to start whose end must be recorded first."""
        for call in self.to_start:
            if call.needs_end():
                return call
        return None

    def end_pauses(self, now: int) -> None:
        """Let attempts begin whose pause is over."""
        for call in self._calls.values():
            if call.again_at is not None and call.again_at <= now:
                call.again_at = None
                self.to_start.append(call)

    def is_under_way(self, now: int, short_pause: int) -> bool:
        """Tell whether something runs here: an attempt, or a short pause (µs) before one."""
        soon = now + short_pause
        for call in self._calls.values():
            if call.task is not None or (call.again_at or soon) < soon:
                return True
        return False

    def has_all_begun(self) -> bool:
        """Tell whether there are activities, and each has an attempt under way."""
        calls = self._calls
        return bool(calls) and all(call.task is not None for call in calls.values())

    def holds_all(self, journal: Journal) -> bool:
        """Tell whether everything that the code waits for happens here. Then nobody sends mail."""
        return len(journal.ops) == len(self._calls) + len(self.timers)

    def is_open(self, call: Call) -> bool:
        """Tell whether the code still waits for this call."""
        return self._calls.get(call.op.key) is call

    def finish(self, call: Call) -> None:
        """Remove an activity that has its answer."""
        del self._calls[call.op.key]

    def begun_by_nobody(self) -> list[str]:
        """Name what was asked for in the last step, and ends before it has begun."""
        unsent = [op for op in self.requests.values() if not outlives(op.spec)]
        begun_by_none = (*(call.op for call in self.to_start), *unsent)
        return [op.key for op in begun_by_none if not self._was_asked_before(op)]

    def stop(self) -> None:
        """End all attempts; nobody waits for them any more."""
        for call in self._calls.values():
            if call.task is not None:
                call.task.cancel()
        self._calls.clear()
        self.to_start.clear()

    # Flushing.

    def needs_flush(self) -> bool:
        """Tell whether something must be sent to the database."""
        return bool(self.commands or self.requests or self.cancels)

    def take_requests(self, final: bool) -> list[dict[str, Any]]:
        """Return the requests to send; at the end only those whose work outlives their asker."""
        requests = [_request(op) for op in self.requests.values() if not final or outlives(op.spec)]
        self.requests = {}
        return requests


def _request(op: Op) -> dict[str, Any]:
    """Write a request. Its answer repeats the fingerprint."""
    given: dict[str, Any] = {"key": op.key} | op.spec
    return given if op.fingerprint is None else given | {"fingerprint": op.fingerprint}


def deadline_of(timer: Op) -> int:
    """Return the deadline of a timer (µs)."""
    return timer.deadline or 0
