"""Pending events of a coordinator: what has happened and its code was not yet told.

Messages, outcomes of activities and deadlines are appended one at a time, the earliest first. Of a
signal and a deadline at the same instant, the signal is first.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from perdure.basics.durations import from_iso, microseconds, to_iso
from perdure.database.clock import Clock
from perdure.replay.journal import Journal
from perdure.replay.replay import Fact, OpenOperation

from .activities import AttemptOutcome, PriorAttempts
from .inbox import UNREAD, InboxSnapshot
from .open_operations import OpenActivity, OpenOperations, deadline_of
from .turns import CANCEL, Json


class PendingEvents:
    """What waits to be told; `told_at` is the time of the last fact, or of the beginning (µs)."""

    __slots__ = ("_clock", "_inbox", "_operations", "_outcomes", "is_cancelled", "told_at")

    def __init__(self, journal: list[Fact], operations: OpenOperations, clock: Clock, began: int):
        self._operations = operations
        self._clock = clock
        self._inbox = UNREAD
        self._outcomes: deque[tuple[int, OpenActivity, AttemptOutcome]] = deque()
        self.told_at = journal[-1].at if journal else began
        self.is_cancelled = any(fact.kind == "cancel" for fact in journal)

    def take_messages(self, inbox: InboxSnapshot) -> None:
        """Take the open messages of the inbox."""
        self._inbox = inbox

    def add(self, call: OpenActivity, outcome: AttemptOutcome) -> None:
        """Take the outcome of an attempt."""
        self._outcomes.append((self._clock.now(), call, outcome))

    def may_come(self) -> bool:
        """Tell whether there may be something to tell now."""
        return bool(self._inbox.messages or self._outcomes or self._operations.timers)

    def next_at(self) -> int:
        """Return the time of the next fact: now, and never before the last one."""
        return max(self.told_at, self._clock.now())

    def is_timer_unsure(self, now: int) -> bool:
        """Tell whether a deadline has passed that needs another look into the inbox."""
        timer = self._operations.first_timer()
        return timer is not None and deadline_of(timer) <= now and not self._is_known(timer)

    def _is_known(self, timer: OpenOperation) -> bool:
        """Tell whether all that was sent before a deadline is known.

        If no message is awaited, only a request to cancel could be missing; but a worker is told of
        those without asking.
        """
        if not self._operations.expects_messages():
            return self._inbox.was_read(deadline_of(timer))
        return self._inbox.covers(deadline_of(timer), self._operations.awaited_signals())

    def append_next(self, journal: Journal) -> bool:
        """Append the earliest event to the journal; return False if there is none."""
        if not self.may_come():
            return self._append_end(journal)
        message, operation = self._next_message(journal)
        at = None if message is None else from_iso(message["sent_at"])
        if self._outcomes and (at is None or self._outcomes[0][0] < at):
            at, message = self._outcomes[0][0], None
        timer = self._due_timer()
        if timer is not None and (at is None or deadline_of(timer) < at):
            self._append_answer(journal, timer, timer.fingerprint, at=deadline_of(timer))
        elif message is not None:
            self._append_message(journal, message, operation)
        elif at is not None:
            self._append_outcome(journal, *self._outcomes.popleft()[1:])
        else:
            return self._append_end(journal)
        return True

    def _append_end(self, journal: Journal) -> bool:
        """Record when all attempts of an activity have to end, before the first one begins."""
        call = self._operations.activity_without_end()
        if call is None:
            return False
        operation, at = call.operation, self.next_at()
        end = operation.spec.activity.limits.end(at)
        call.prior = PriorAttempts(call.prior.made, call.prior.failure, end)
        self._append(
            journal, Fact("note", operation.key, True, {"until": to_iso(end)}, at, operation.name)
        )
        return True

    def _next_message(self, journal: Journal) -> tuple[Json | None, OpenOperation | None]:
        """Return the first message that can be told, with the operation that it answers."""
        for message in self._inbox.messages:
            key = message["key"]
            if key is not None:
                operation = journal.operations.get(key)
                return (
                    message,
                    operation if operation is not None and operation.kind == "answer" else None,
                )
            operation = self._operations.waiting_for(message["name"])
            if operation is not None:
                return message, operation
        return None, None

    def _due_timer(self) -> OpenOperation | None:
        """Return the timer with the earliest deadline, if it has passed.

        What was sent before the deadline comes first.
        """
        first = self._operations.first_timer()
        if first is None or deadline_of(first) > self._clock.now():
            return None
        return first if self._is_known(first) else None

    def _append_message(
        self, journal: Journal, message: Json, operation: OpenOperation | None
    ) -> None:
        """Append the fact of a message. Without an operation it is a cancel, or an answer.

        An answer that the code has withdrawn is dropped. If the code has never asked for it, or
        does itself what others were asked to do, then other code has asked for it.
        """
        self._inbox.messages.remove(message)
        key, ok, payload, number = (message[name] for name in ("key", "ok", "payload", "id"))
        asked_for = message.get("fingerprint")
        if operation is not None:
            # An earlier holder of the task may have asked for something else under this key.
            asked_for = asked_for or operation.fingerprint
            self._append_answer(journal, operation, asked_for, ok=ok, value=payload, message=number)
            return
        kind = "cancel" if key == CANCEL else "dropped" if journal.has_withdrawn(key) else "answer"
        self.is_cancelled |= kind == "cancel"
        at = self.next_at()
        self._append(journal, Fact(kind, key, ok, payload, at, fingerprint=asked_for, extra=number))

    def _append_outcome(
        self, journal: Journal, call: OpenActivity, outcome: AttemptOutcome
    ) -> None:
        if not self._operations.is_open(call):
            return
        operation, call.task = call.operation, None
        if outcome.again_in is None:
            self._operations.finish(call)
            self._append_answer(
                journal, operation, operation.fingerprint, ok=outcome.ok, value=outcome.value
            )
            return
        at = self.next_at()
        again_at = at + microseconds(outcome.again_in)
        self._operations.pause(call, again_at)
        call.prior = PriorAttempts(call.prior.made + 1, outcome.value, call.prior.end)
        failure = outcome.value | {"again_at": to_iso(again_at)}
        self._append(
            journal,
            Fact(
                "attempt", operation.key, False, failure, at, operation.name, operation.fingerprint
            ),
        )

    def _append_answer(
        self,
        journal: Journal,
        operation: OpenOperation,
        fingerprint: str | None,
        *,
        ok: bool = True,
        value: Any = None,
        at: int | None = None,
        message: int | None = None,
    ) -> None:
        self._operations.close(operation)
        at = self.next_at() if at is None else max(at, self.told_at)
        fact = Fact(
            operation.kind, operation.key, ok, value, at, operation.name, fingerprint, extra=message
        )
        self._append(journal, fact)

    def _append(self, journal: Journal, fact: Fact) -> None:
        self.told_at = fact.at
        journal.append(fact)
