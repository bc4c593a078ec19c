"""The open waits of a hook: what ends them, and when the hook may leave memory."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perdure.basics.durations import from_iso
from perdure.replay.replay import Fact

from .deadlines import Deadlines
from .inbox import UNREAD, InboxSnapshot
from .quiescence import DurableWait
from .turns import CANCEL, Json

if TYPE_CHECKING:
    from .hooks import HookTurn

FIRST_TICK, LONGEST_TICK = 0.02, 1.0
"""Seconds between looks at what a hook waits for: from the first on, twice as many each time."""
GRACE = 1.0
"""Seconds that a hook may wait in memory, while slots are free, before it leaves."""
AT_ONCE = 0.001
"""Seconds after which something happens that only has to follow what is ready to run."""


@dataclass(slots=True, eq=False)
class OpenWait:
    """A wait for an answer (`is_asked`), for a signal, or only for a deadline (µs).

    `offered`: the signal that ends it, until the code continues, or is cancelled at that very
    moment.
    """

    key: str
    signal: str | None = None
    deadline: int | None = None
    is_asked: bool = False
    offered: Json | None = None
    future: DurableWait = field(default_factory=DurableWait)

    def signals(self) -> tuple[str, ...]:
        """Return the signal that is waited for, if any."""
        return () if self.signal is None else (self.signal,)

    def competes(self) -> bool:
        """Tell whether a message may end it, perhaps before its deadline."""
        return self.signal is not None or self.is_asked

    def end(self, fact: Fact) -> None:
        """Let the code continue."""
        if not self.future.done():
            self.future.set_result(fact)

    def offer(self, message: Json) -> None:
        """Let the code continue, and take a signal then."""
        self.offered = message
        self.future.set_result(None)


class Waits:
    """Keep the waits of a hook and tick while there are any."""

    def __init__(self, turn: HookTurn):
        self._turn = turn
        self._open: dict[str, OpenWait] = {}
        self._deadlines: Deadlines[OpenWait] = Deadlines()
        self._left: list[OpenWait] = []
        self._inbox = UNREAD
        self._keeps_cancel = False
        self._tick_in = FIRST_TICK
        self._timer: asyncio.TimerHandle | None = None
        self._ticks_at = 0.0
        self._quiescent_since: float | None = None
        self.hurries = False

    async def wait(self, wait: OpenWait) -> Fact:
        """Wait here, or elsewhere."""
        self._open[wait.key] = wait
        if wait.deadline is not None:
            self._deadlines.add(wait.key, wait.deadline, wait)
        self._quiescent_since = None
        self._tick_in = AT_ONCE if self._is_short() else FIRST_TICK
        self._take_messages()
        self.arm()
        try:
            fact: Fact | None = await wait.future
        except asyncio.CancelledError:
            self._close(wait)  # or it would be offered its signal again
            self._offer_again(wait)
            raise
        finally:
            self._close(wait)
        return self._take_offered(wait) if fact is None else fact

    def _close(self, wait: OpenWait) -> None:
        self._open.pop(wait.key, None)
        self._deadlines.discard(wait.key)

    def _take_offered(self, wait: OpenWait) -> Fact:
        self._turn.check_alive()
        message, append = wait.offered or {}, self._turn.outbox.append
        value, number = message["payload"], message["id"]
        return append("signal", wait.key, wait.signal, value=value, message=number)

    def _offer_again(self, wait: OpenWait) -> None:
        """Keep a signal whose wait was cancelled before the code continued, for the next wait."""
        if wait.offered is None or self._turn.is_leaving():
            return
        messages = [*self._inbox.messages, wait.offered]
        self._inbox = self._inbox._replace(messages=sorted(messages, key=lambda each: each["id"]))
        self._take_messages()

    def offered(self) -> set[Any]:
        """Name the messages that are offered, and not taken yet."""
        return {wait.offered["id"] for wait in self._open.values() if wait.offered is not None}

    def _is_short(self) -> bool:
        engine = self._turn.engine
        return self.hurries or engine.hurries or engine.room() <= 0

    # What ends a wait.

    def take(self, inbox: InboxSnapshot, *, runs_again: bool = False) -> None:
        """Take the open messages of the inbox.

        Code that runs again first reaches the place where it was: messages that were sent to its
        waits before a request to cancel are told before that.
        """
        self._inbox, self._keeps_cancel = inbox, runs_again
        self._take_messages()
        self._take_due()

    def take_cancel(self) -> None:
        """Take a request to cancel that was kept."""
        if self._keeps_cancel:
            self._keeps_cancel = False
            self._take_messages()

    def keeps_cancel(self) -> bool:
        """Tell whether there is a request to cancel that the code is to hear where it waits."""
        return self._keeps_cancel and any(each["key"] == CANCEL for each in self._inbox.messages)

    def _take_messages(self) -> None:
        """Take what is for this hook: answers always, signals that somebody waits for."""
        left: list[Json] = []
        self._keeps_cancel = self._keeps_cancel and not self._turn.is_there()
        for place, message in enumerate(self._inbox.messages):
            if message["key"] == CANCEL:
                is_kept = self._keeps_cancel
                left += self._inbox.messages[place if is_kept else place + 1 :]
                if not is_kept:
                    self._take_cancel(message)
                break  # later signals are for later waits
            if message["key"] is not None:
                self._take_addressed(message)
            elif (wait := self._waiting_for(message)) is not None:
                wait.offer(message)
            else:
                left.append(message)
        self._inbox = self._inbox._replace(messages=left)

    def _take_addressed(self, message: Json) -> None:
        key, ok, value, number = (message[name] for name in ("key", "ok", "payload", "id"))
        append, journal = self._turn.outbox.append, self._turn.journal
        if journal.fact(key) is None and self._is_late(message):
            self._end(append("timer", key))
        if journal.fact(key) is not None:
            append("dropped", key, ok=ok, value=value, message=number)
        else:
            self._end(append("answer", key, ok=ok, value=value, message=number))

    def _take_cancel(self, message: Json) -> None:
        self._end_overdue(from_iso(message["sent_at"]))
        ok, value, number = (message[name] for name in ("ok", "payload", "id"))
        self._turn.outbox.append("cancel", CANCEL, ok=ok, value=value, message=number)
        if any(wait.future.done() for wait in self._open.values()):
            self._turn.cancel.soon()  # first the code continues there
        else:
            self._turn.cancel.now()

    def _end_overdue(self, cancelled_at: int) -> None:
        """End the waits whose deadline had passed when the hook was asked to cancel.

        Only if all that was sent before the request is known.
        """
        for wait in self._open.values():
            if wait.deadline is None or wait.deadline >= cancelled_at or wait.future.done():
                continue
            if not wait.competes() or self._inbox.signals.issuperset(wait.signals()):
                self._time_out(wait)

    def _time_out(self, wait: OpenWait) -> None:
        """End a wait at its deadline, and record that this came before any message."""
        outbox = self._turn.outbox
        if wait.competes():
            wait.end(outbox.append("timer", wait.key, wait.signal))
        else:
            wait.end(Fact("timer", wait.key, True, None, outbox.next_at()))

    def _is_late(self, message: Json) -> bool:
        """Tell whether an answer came after the deadline of its wait.

        Code that has since lost its limit has none, though its journal knows one.
        """
        wait = self._open.get(message["key"])
        deadline = self._turn.journal.deadline(message["key"]) if wait is None else wait.deadline
        return deadline is not None and from_iso(message["sent_at"]) > deadline

    def _end(self, fact: Fact) -> None:
        """End the wait that a fact answers, if it is open here."""
        wait = self._open.get(fact.key or "")
        if wait is not None:
            wait.end(fact)

    def _waiting_for(self, message: Json) -> OpenWait | None:
        for wait in self._open.values():
            if wait.signal == message["name"] and not wait.future.done():
                in_time = wait.deadline is None or from_iso(message["sent_at"]) <= wait.deadline
                if in_time:
                    return wait
        return None

    def _take_due(self) -> None:
        """End waits whose deadline has passed, if all that was sent before it is known."""
        now = self._turn.outbox.next_at()
        for wait in list(self._open.values()):
            if wait.deadline is None or wait.deadline > now or wait.future.done():
                continue
            if wait.competes():
                is_known = self._inbox.covers(wait.deadline, wait.signals())
            else:
                is_known = self._inbox.was_read(wait.deadline)
            if is_known:
                self._time_out(wait)
            else:
                self._turn.submit()

    def fail(self, error: BaseException) -> None:
        """End all waits with an error; what they waited for is remembered."""
        self._left = [wait for wait in self._open.values() if not wait.future.done()]
        for wait in self._left:
            wait.future.set_exception(error)

    # While waits are open.

    def hurry(self) -> None:
        """Leave as soon as possible."""
        self.hurries = True
        self._tick_in = AT_ONCE
        self.arm()

    def arm(self) -> None:
        """Tick again at the next deadline, or soon."""
        engine, timer, self._timer = self._turn.engine, self._timer, None
        if timer is not None:
            timer.cancel()
        if not self._open:
            return
        delay = self._tick_in
        if (deadline := self.next_deadline()) is not None:
            delay = min(delay, engine.clock.seconds_until(deadline) + AT_ONCE)
        ticks_at = engine.loop.time() + delay
        if timer is not None:  # or a series of short waits would postpone it for ever
            ticks_at = min(ticks_at, self._ticks_at)
        self._ticks_at = ticks_at
        self._timer = engine.call_later(ticks_at - engine.loop.time(), self._turn.tick)

    def tick(self) -> None:
        """End what is due, leave memory if that is possible, or ask for messages."""
        self._timer = None
        if self._turn.is_busy():
            return
        self._keeps_cancel = False
        self._take_messages()
        self._take_due()
        waiting = [wait for wait in self._open.values() if not wait.future.done()]
        if not waiting:
            return
        self._tick_in = min(2 * self._tick_in, LONGEST_TICK)
        if len(waiting) == len(self._open) and self._may_leave():
            self._turn.leave()
        elif any(wait.competes() for wait in waiting):
            self._turn.submit()
        else:
            self.arm()

    def _may_leave(self) -> bool:
        if not self._turn.is_quiescent():
            self._quiescent_since = None
            return False
        if self._quiescent_since is None:
            self._quiescent_since = time.monotonic()
        return self._is_short() or time.monotonic() - self._quiescent_since >= GRACE

    # What a parked hook waits for.

    def awaits(self) -> list[str]:
        """Name the signals that are waited for; also by a thread that has just been unwound."""
        return self._turn.ask_for(name for wait in self._all() for name in wait.signals())

    def next_deadline(self) -> int | None:
        """Return the earliest deadline (µs)."""
        if self._open:
            return self._deadlines.earliest()
        deadlines = (wait.deadline for wait in self._left if wait.deadline is not None)
        return min(deadlines, default=None)

    def _all(self) -> list[OpenWait]:
        return list(self._open.values()) or self._left
