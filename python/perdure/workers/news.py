"""News for a coordinator: what has happened and was not yet told to its code.

Messages, outcomes of activities and deadlines are told one at a time, the earliest first. Of a
signal and a deadline at the same instant, the signal is first.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from perdure.basics.durations import from_iso, microseconds, to_iso
from perdure.database.clock import Clock
from perdure.replay.journal import Journal
from perdure.replay.replay import Fact, Op

from .activities import Before, Outcome
from .agenda import Agenda, Call, deadline_of
from .mail import UNREAD, Mail
from .turns import CANCEL, Json


class News:
    """What waits to be told; `told_at` is the time of the last fact, or of the beginning (µs)."""

    __slots__ = ("_agenda", "_clock", "_mail", "_outcomes", "is_cancelled", "told_at")

    def __init__(self, journal: list[Fact], agenda: Agenda, clock: Clock, began: int):
        self._agenda = agenda
        self._clock = clock
        self._mail = UNREAD
        self._outcomes: deque[tuple[int, Call, Outcome]] = deque()
        self.told_at = journal[-1].at if journal else began
        self.is_cancelled = any(fact.kind == "cancel" for fact in journal)

    def take_mail(self, mail: Mail) -> None:
        """Take the open messages of the inbox."""
        self._mail = mail

    def add(self, call: Call, outcome: Outcome) -> None:
        """Take the outcome of an attempt."""
        self._outcomes.append((self._clock.now(), call, outcome))

    def may_come(self) -> bool:
        """Tell whether there may be something to tell now."""
        return bool(self._mail.messages or self._outcomes or self._agenda.timers)

    def next_at(self) -> int:
        """Return the time of the next fact: now, and never before the last one."""
        return max(self.told_at, self._clock.now())

    def is_timer_unsure(self, now: int) -> bool:
        """Tell whether a deadline has passed that needs another look into the inbox."""
        timer = self._agenda.first_timer()
        return timer is not None and deadline_of(timer) <= now and not self._is_known(timer)

    def _is_known(self, timer: Op) -> bool:
        """Tell whether all that was sent before a deadline is known.

        If no message is awaited, only a request to cancel could be missing; but a worker hears of
        those without asking.
        """
        if not self._agenda.expects_mail():
            return self._mail.was_read(deadline_of(timer))
        return self._mail.tells(deadline_of(timer), self._agenda.awaited_signals())

    def tell_next(self, journal: Journal) -> bool:
        """Append the earliest news to the journal; return False if there is none."""
        if not self.may_come():
            return self._tell_end(journal)
        message, op = self._next_message(journal)
        at = None if message is None else from_iso(message["sent_at"])
        if self._outcomes and (at is None or self._outcomes[0][0] < at):
            at, message = self._outcomes[0][0], None
        timer = self._due_timer()
        if timer is not None and (at is None or deadline_of(timer) < at):
            self._tell(journal, timer, timer.fingerprint, at=deadline_of(timer))
        elif message is not None:
            self._tell_message(journal, message, op)
        elif at is not None:
            self._tell_outcome(journal, *self._outcomes.popleft()[1:])
        else:
            return self._tell_end(journal)
        return True

    def _tell_end(self, journal: Journal) -> bool:
        """Record when all attempts of an activity have to end, before the first one begins."""
        call = self._agenda.call_without_end()
        if call is None:
            return False
        op, at = call.op, self.next_at()
        end = op.spec.activity.limits.end(at)
        call.before = Before(end, call.before.failure)
        self._append(journal, Fact("note", op.key, True, {"until": to_iso(end)}, at, op.name))
        return True

    def _next_message(self, journal: Journal) -> tuple[Json | None, Op | None]:
        """Return the first message that can be told, with the op that it answers."""
        for message in self._mail.messages:
            key = message["key"]
            if key is not None:
                op = journal.ops.get(key)
                return message, op if op is not None and op.kind == "answer" else None
            op = self._agenda.waiting_for(message["name"])
            if op is not None:
                return message, op
        return None, None

    def _due_timer(self) -> Op | None:
        """Return the timer with the earliest deadline, if it has passed.

        What was sent before the deadline comes first.
        """
        first = self._agenda.first_timer()
        if first is None or deadline_of(first) > self._clock.now():
            return None
        return first if self._is_known(first) else None

    def _tell_message(self, journal: Journal, message: Json, op: Op | None) -> None:
        self._mail.messages.remove(message)
        key, ok, payload, number = (message[name] for name in ("key", "ok", "payload", "id"))
        if op is not None:
            # An earlier holder of the task may have asked for something else under this key.
            asked_for = message.get("fingerprint") or op.fingerprint
            self._tell(journal, op, asked_for, ok=ok, value=payload, message=number)
            return
        self.is_cancelled |= key == CANCEL
        self._append(journal, self._unasked(journal, message))

    def _unasked(self, journal: Journal, message: Json) -> Fact:
        """Make the fact of a message that no op waits for: a request to cancel, or an answer.

        An answer that the code has withdrawn is dropped. If the code has never asked for it, or
        does itself what others were asked to do, then other code has asked for it.
        """
        key, ok, payload, number = (message[name] for name in ("key", "ok", "payload", "id"))
        kind = "cancel" if key == CANCEL else "dropped" if journal.has_withdrawn(key) else "answer"
        asked_for = message.get("fingerprint")
        at = self.next_at()
        return Fact(kind, key, ok, payload, at, fingerprint=asked_for, extra=number)

    def _tell_outcome(self, journal: Journal, call: Call, outcome: Outcome) -> None:
        if not self._agenda.is_open(call):
            return
        op, call.task = call.op, None
        call.made += 1
        if outcome.again_in is None:
            self._agenda.finish(call)
            self._tell(journal, op, op.fingerprint, ok=outcome.ok, value=outcome.value)
            return
        at = self.next_at()
        call.again_at = at + microseconds(outcome.again_in)
        call.before = Before(call.before.end, outcome.value)
        failure = outcome.value | {"again_at": to_iso(call.again_at)}
        self._append(journal, Fact("attempt", op.key, False, failure, at, op.name, op.fingerprint))

    def _tell(
        self,
        journal: Journal,
        op: Op,
        fingerprint: str | None,
        *,
        ok: bool = True,
        value: Any = None,
        at: int | None = None,
        message: int | None = None,
    ) -> None:
        self._agenda.close(op)
        at = self.next_at() if at is None else max(at, self.told_at)
        fact = Fact(op.kind, op.key, ok, value, at, op.name, fingerprint, extra=message)
        self._append(journal, fact)

    def _append(self, journal: Journal, fact: Fact) -> None:
        self.told_at = fact.at
        journal.append(fact)
