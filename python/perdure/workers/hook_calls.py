"""What serves the durable calls of a hook.

They are coroutines in async code. In a thread the same coroutines run on the loop of the worker
while the thread waits.
"""

from __future__ import annotations

import asyncio
import logging
import random
from asyncio.events import _get_running_loop
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import NAMESPACE_OID, UUID, uuid5

from perdure.basics.durations import microseconds, to_iso
from perdure.errors import InvalidArgument, ValueSealed
from perdure.replay.replay import Fact
from perdure.values.decoding import read_as
from perdure.values.items import Decode
from perdure.workflow.asks import Ask, expiring, in_words, waited
from perdure.workflow.context import SHIELDED, Info, Runtime, is_shielded
from perdure.workflow.work import Transaction

from .activities import Before, Outcome, Recorder, begin_attempt
from .memo import OWN_ATTEMPTS as OWN
from .memo import what_is_asked
from .turns import Json
from .waits import Open

if TYPE_CHECKING:
    from .hooks import HookTurn

logger = logging.getLogger("perdure.worker")

MAX_ID = 200
"""Maximum bytes of the id of a job."""


class HookRuntime(Runtime):
    """Serve one run of a hook: return what was told before, or bring it about."""

    def __init__(self, turn: HookTurn):
        self.turn = turn
        self.app = turn.engine.app
        self.job = turn.job
        self.is_async = turn.hook.is_async
        self._known = turn.progress.of(OWN)
        self._guard = turn.row.get("guard")

    @cached_property
    def info(self) -> Info:  # type: ignore[override]
        """Return what `info()` tells the code."""
        return replace(self.turn.info(), progress=self._known)

    # The calls.

    def ask(self, ask: Ask) -> Any:
        """Ask when it is awaited."""
        return self._ask(self._protected(ask))

    def _protected(self, ask: Ask) -> Ask:
        if self._guard is None:
            return ask
        try:
            kept: Ask = self._guard.protect(ask)
        except ValueSealed as error:  # first the task is given back, then its code may end
            self.turn.engine.loop.call_soon_threadsafe(self.turn.give_back, error)
            raise
        return kept

    def start(self, ask: Ask) -> Any:
        """Ask now."""
        ask, loop = self._protected(ask), self.turn.engine.loop
        if not (isinstance(ask.spec, dict) and ask.spec.get("detached")):
            asked = self._ask(ask)
            return loop.create_task(asked) if self.is_async else InThread(self.turn, asked)
        if self.is_async:
            self._request(ask, self.turn.claim_key(what_is_asked(ask)))
        else:
            key = self.turn.claim_key(what_is_asked(ask))
            loop.call_soon_threadsafe(self._request, ask, key)
        return None

    def give(self, pending: Any) -> Any:
        """Wait in plain code. Code that must leave and does not let go waits for ever."""
        turn = self.turn
        if not turn.is_leaving():
            return pending if self.is_async else InThread(turn, pending).result()
        pending.close()
        if not turn.stays_for_ever():
            turn.check_alive()
        return _never() if self.is_async else Future().result()

    async def _ask(self, ask: Ask) -> Any:
        turn = self.turn
        key = turn.claim_key(what_is_asked(ask))
        fact = turn.memo.told(key)
        if fact is None:
            is_request = ask.kind == "answer"
            await self._hear_cancel(key, is_request=is_request, waits=is_request)
            fact = await self._bring_about(ask, key)
        elif ask.kind == "command" and fact.fingerprint != ask.fingerprint:
            logger.warning("%r: %s differs from its first run, which is kept", turn, key)
        if fact.ok:
            return read_as(ask.decode, fact.value, ask.name, ask.kind)
        raise ask.failure(fact.value)

    async def _bring_about(self, ask: Ask, key: str) -> Fact:
        if ask.kind == "activity":
            return await self._perform(ask, key)
        if ask.kind == "send":
            await asyncio.sleep(0)  # earlier starts ask first: a signal may be meant for them
        if ask.kind != "answer":
            return await self.turn.outbox.command(ask, key)
        self._request(ask, key)
        return await self._answered(Open(key))

    async def _answered(self, wait: Open) -> Fact:
        """Wait for an answer. Code that no longer wants it withdraws the request.

        Requests that are left when the hook ends are ended with it, or as their policy says.
        Another attempt finds them again.
        """
        try:
            return await self.turn.waits.wait(wait)
        except asyncio.CancelledError:
            self._withdraw(wait.key)
            raise

    async def _hear_cancel(self, key: str, *, waits: bool, is_request: bool = False) -> None:
        """Let the code be cancelled. An earlier run may have sent the request.

        With `waits`, code that waits at the place where it waited before is told there first what
        came first.
        """
        if waits and self.turn.was_begun() and self.turn.waits.keeps_cancel():
            return
        try:
            await self.turn.hear_cancel()
        except asyncio.CancelledError:
            if is_request:
                self._withdraw(key)
            raise

    def _withdraw(self, key: str) -> None:
        if not (self.turn.is_leaving() or self.turn.has_ended):
            self.turn.outbox.withdraw(key)

    def end_shield(self) -> None:
        """Let code that was cancelled meanwhile notice it."""
        self.turn.end_shield()

    # Other work.

    def _request(self, ask: Ask, key: str) -> None:
        request: dict[str, Any] = {"key": key} | ask.spec
        if is_shielded.get():
            request |= SHIELDED
        if request["kind"] == "job":
            request.setdefault("id", self._child_id(key))
        self.turn.outbox.request(*self.turn.engine.traced([request], self.turn))

    def _child_id(self, key: str) -> str:
        """Name a child of this hook; other hooks and runs may have one with the same key."""
        turn = self.turn
        own = turn.task.removeprefix("1/main/")
        named = f"{turn.job}/{own}/{key}"
        short = f"{turn.job}/{blake2b(named.encode(), digest_size=8).hexdigest()}"
        return named if len(named.encode()) <= MAX_ID else short

    async def _perform(self, ask: Ask, key: str) -> Fact:
        """Make attempts of an activity, each one recorded before the next begins."""
        turn, within = self.turn, ask.spec.activity.limits.within
        made, again_at, failure = turn.memo.attempts(key)
        end = self._end(f"{key}/end", within)
        while True:
            if again_at is not None:
                await turn.waits.wait(Open(f"{key}/again", None, again_at))
            outcome = await self._attempt(ask, key, made, Before(end, failure))
            made += 1
            if outcome.is_told and (fact := turn.memo.told(key)) is not None:
                return fact
            name, fingerprint, ok, value = ask.name, ask.fingerprint, outcome.ok, outcome.value
            if outcome.again_in is None:
                turn.submit()  # the code may do anything next, unseen from here
                return turn.outbox.tell("activity", key, name, fingerprint, ok=ok, value=value)
            again_at = turn.engine.clock.now() + microseconds(outcome.again_in)
            failure, value = value, value | {"again_at": to_iso(again_at)}
            turn.outbox.tell("attempt", key, name, fingerprint, ok=False, value=value)

    async def _attempt(self, ask: Ask, key: str, made: int, before: Before) -> Outcome:
        turn, call = self.turn, ask.spec
        turn.acting += 1
        try:
            if isinstance(call.activity, Transaction):
                return await self._transact(ask, key, made, before)
            await turn.outbox.flushed()
            turn.check_alive()
            outcome = await begin_attempt(turn, call, key, made, before)
            turn.check_alive()
        finally:
            turn.acting -= 1
        return outcome

    async def _transact(self, ask: Ask, key: str, made: int, before: Before) -> Outcome:
        """Run a transaction. Nothing else of the hook is recorded meanwhile.

        So the locks of its function can block others, but not the hook itself.
        """
        turn = self.turn

        def record(value: Any) -> Json:
            at = turn.outbox.next_at()
            return turn.record(Fact(ask.kind, key, True, value, at, ask.name, ask.fingerprint))

        if before.end is not None:
            await turn.outbox.flushed()
        try:
            async with turn.transacting:
                while turn.flying:
                    await turn.landing()
                turn.check_alive()
                recorder = Recorder(turn, record)
                outcome = await begin_attempt(turn, ask.spec, key, made, before, recorder=recorder)
        finally:
            turn.flush()
        turn.check_alive()
        return outcome

    # Time and signals.

    async def sleep(self, length: int) -> None:
        """Wait for some µs, counted from the first time this call was made."""
        key = self.turn.claim_key(f"$sleep:{length}")
        await self._wait_until(key, self._deadline(key, length))

    async def sleep_until(self, deadline: int) -> None:
        """Wait until an instant."""
        await self._wait_until(self.turn.claim_key(f"$until:{deadline}"), deadline)

    async def _wait_until(self, key: str, deadline: int) -> None:
        if deadline > self.turn.outbox.next_at():
            await self._hear_cancel(key, waits=True)
            await self.turn.waits.wait(Open(key, None, deadline))

    async def wait_for(self, signal: str, limit: float | None, decode: Decode) -> Any:
        """Wait for a signal; the limit counts from the first time this call was made."""
        turn = self.turn
        key = turn.claim_key(f"wait:{signal}")
        fact = turn.memo.told(key)
        if fact is None:
            await self._hear_cancel(key, waits=True)
            fact = await turn.waits.wait(Open(key, signal, self._end(key, limit)))
        if fact.kind == "timer":
            raise waited(limit, f"signal {signal}")
        return read_as(decode, fact.value, signal, "signal")

    def within(self, ask: Ask, limit: float | None) -> Any:
        """Wait for an answer; the limit counts from the first time this call was made."""
        return self._within(self._protected(ask), limit)

    async def _within(self, ask: Ask, limit: float | None) -> Any:
        turn = self.turn
        key = turn.claim_key(what_is_asked(ask))
        fact = turn.memo.told(key)
        if fact is None:
            await self._hear_cancel(key, is_request=True, waits=True)
            deadline = self._end(key, limit)
            self._request(ask if deadline is None else expiring(ask, deadline), key)
            fact = await self._answered(Open(key, None, deadline, is_asked=True))
            if fact.kind == "timer":
                turn.outbox.withdraw(key)
        if fact.kind == "timer":
            raise waited(limit, in_words(ask))
        return read_as(ask.decode, fact.value, ask.name, ask.kind)

    def continue_as_new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:  # noqa: ARG002
        """Refuse: a hook has no runs."""
        raise InvalidArgument(
            "continue_as_new() was called in a hook",
            detail="Only coordinators have runs.",
            hint="Let the coordinator call it.",
        )

    def _end(self, key: str, limit: float | None) -> int | None:
        """Return the deadline of a wait of so many seconds; None without a limit."""
        return None if limit is None else self._deadline(key, microseconds(limit))

    def _deadline(self, key: str, length: int) -> int:
        """Return the deadline that the first call has set, or set it."""
        deadline = self.turn.memo.deadline(key)
        if deadline is None:
            deadline = self.turn.engine.clock.now() + length
            self._note(key, deadline)
        return deadline

    def _note(self, key: str, instant: int) -> None:
        self.turn.outbox.tell("note", key, value={"until": to_iso(instant)})

    def beat(self, progress: Any) -> None:
        """Note the progress of the hook. Raises CancelledError if it was asked to cancel."""
        self.turn.check_alive()
        self.turn.check_cancelled()
        if progress is not None:
            self.turn.progress.note(OWN, progress)

    def time(self) -> int:
        """Return the time at which this call was first made.

        What the hook asks for may depend on the time, and is recognized by its arguments when the
        hook runs again.
        """
        turn = self.turn
        key = turn.claim_key("$now")
        told = turn.memo.deadline(key)
        if told is not None:
            return told
        now = turn.engine.clock.now()
        if _get_running_loop() is turn.engine.loop:
            self._note(key, now)
        else:
            turn.engine.loop.call_soon_threadsafe(self._note, key, now)
        return now

    def random(self) -> random.Random:
        """Return a stream that is the same when the hook runs again."""
        return random.Random(self._seed("$random"))

    def uuid(self) -> UUID:
        """Return an id that is the same when the hook runs again."""
        return uuid5(NAMESPACE_OID, self._seed("$uuid"))

    def _seed(self, stream: str) -> str:
        return f"{self.turn.job}/{self.turn.task}|{self.turn.claim_key(stream)}"

    def patched(self, name: str) -> bool:  # noqa: ARG002
        """Take the new way: a hook may change at any time."""
        return True

    def was_here(self) -> bool:
        """Tell whether the code has not yet reached the place where it was."""
        return self.turn.is_leaving() or not self.turn.is_there()


_NEVERS: list[asyncio.Future[None]] = []
"""Futures that code waits for if it does not let go. A task that nobody holds would be ended by the
garbage collector, anywhere; such code would catch that too, and continue there."""


async def _never() -> None:
    never = asyncio.get_running_loop().create_future()
    _NEVERS.append(never)
    await never


class InThread:
    """A durable call of a thread, under way on the loop of the worker."""

    def __init__(self, turn: HookTurn, asked: Any):
        self._turn = turn
        self._asked = asked
        self._is_shielded = is_shielded.get()
        self._is_withdrawn = False
        self._future: Future[Any] = asyncio.run_coroutine_threadsafe(asked, turn.engine.loop)

    def cancel(self) -> bool:
        """Withdraw the request; false if it was answered. A later `result()` raises."""
        self._is_withdrawn = self._future.cancel()
        return self._is_withdrawn

    def result(self) -> Any:
        """Wait for the answer; meanwhile the hook can leave memory."""
        shields = int(is_shielded.get())
        self._turn.thread_waits.add(self)
        self._turn.shielded_waits += shields
        try:
            return self._future.result()
        except CancelledError:  # concurrent.futures has its own
            if not self._is_withdrawn:
                self._turn.heard_cancel()
            raise asyncio.CancelledError("the hook was asked to cancel, or withdrew this") from None
        finally:
            self._turn.thread_waits.discard(self)
            self._turn.shielded_waits -= shields

    def hears_cancel(self) -> bool:
        """Tell whether a thread that waits for it is interrupted when it is cancelled."""
        return not (self._is_shielded or self._future.done())

    def is_still(self) -> bool:
        """Tell whether it has begun, so that the request is known, and has no answer yet."""
        return self._asked.cr_await is not None and not self._future.done()
