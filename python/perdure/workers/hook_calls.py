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
from perdure.workflow.context import SHIELDED, Info, Runtime, is_shielded
from perdure.workflow.operations import Operation, expiring, in_words, waited
from perdure.workflow.work import Transaction

from .activities import AttemptOutcome, PriorAttempts, begin_attempt
from .hook_journal import OWN, key_prefix
from .turns import Json
from .waits import OpenWait

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

    def request(self, operation: Operation, limit: float | None = None) -> Any:
        """Ask when it is awaited. If it never is, Python warns of it by its name."""
        answer: Any = self._answer(self._protected(operation), limit)
        of_memory = "memory." if operation.kind in ("command", "read") else ""
        answer.__qualname__ = of_memory + operation.name
        return answer

    def _protected(self, operation: Operation) -> Operation:
        if self._guard is None:
            return operation
        try:
            kept: Operation = self._guard.protect(operation)
        except ValueSealed as error:  # first the task is given back, then its code may end
            self.turn.engine.loop.call_soon_threadsafe(self.turn.release, error)
            raise
        return kept

    def start(self, operation: Operation) -> Any:
        """Ask now."""
        operation, loop = self._protected(operation), self.turn.engine.loop
        if not (isinstance(operation.spec, dict) and operation.spec.get("detached")):
            asked = self._answer(operation)
            return loop.create_task(asked) if self.is_async else ThreadCall(self.turn, asked)
        key = self.turn.claim_key(key_prefix(operation))
        if self.is_async:
            self._send_request(operation, key)
        else:
            loop.call_soon_threadsafe(self._send_request, operation, key)
        return None

    def give(self, pending: Any) -> Any:
        """Wait in plain code. Code that must leave and catches that waits for ever."""
        turn = self.turn
        if not turn.is_leaving():
            return pending if self.is_async else ThreadCall(turn, pending).result()
        pending.close()
        if not turn.stays_for_ever():
            turn.check_alive()
        return _never() if self.is_async else Future().result()

    async def _answer(self, operation: Operation, limit: float | None = None) -> Any:
        turn = self.turn
        key = turn.claim_key(key_prefix(operation))
        fact = turn.journal.fact(key)
        if fact is None:
            fact = await self._execute(operation, key, limit)
        elif operation.kind == "command" and fact.fingerprint != operation.fingerprint:
            logger.warning("%r: %s differs from its first run, which is kept", turn, key)
        if fact.kind == "timer":
            raise waited(limit, in_words(operation))
        if fact.ok:
            return read_as(operation.decode, fact.value, operation.name, operation.kind)
        raise operation.failure(fact.value)

    async def _execute(self, operation: Operation, key: str, limit: float | None) -> Fact:
        if operation.kind == "answer":
            return await self._ask(operation, key, limit)
        await self.turn.cancel.reach()
        if operation.kind == "activity":
            return await self._perform_activity(operation, key)
        if operation.kind == "send":
            await asyncio.sleep(0)  # earlier starts ask first: a signal may be meant for them
        return await self.turn.outbox.command(operation, key)

    async def _ask(self, operation: Operation, key: str, limit: float | None) -> Fact:
        """Send a request and wait for its answer; withdraw it if time is up.

        Code that is cancelled here withdraws the request, which an earlier run may have sent.
        Requests that are left when the hook ends are ended with it, or as their policy says.
        Another attempt finds them again.
        """
        try:
            await self._reach_wait()
            deadline = self._end(key, limit)
            asked = operation if deadline is None else expiring(operation, deadline)
            self._send_request(asked, key)
            fact = await self.turn.waits.wait(OpenWait(key, None, deadline, is_asked=True))
        except asyncio.CancelledError:
            if not (self.turn.is_leaving() or self.turn.has_ended):
                self.turn.outbox.withdraw(key)
            raise
        if fact.kind == "timer":
            self.turn.outbox.withdraw(key)
        return fact

    async def _reach_wait(self) -> None:
        """Let the code be cancelled before it waits.

        Where it waited before, it is told first what came first.
        """
        if not (self.turn.was_begun() and self.turn.waits.keeps_cancel()):
            await self.turn.cancel.reach()

    def end_shield(self) -> None:
        """Let code that was cancelled meanwhile notice it."""
        self.turn.cancel.end_shield()

    # Other work.

    def _send_request(self, operation: Operation, key: str) -> None:
        request: dict[str, Any] = {"key": key} | operation.spec
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

    async def _perform_activity(self, operation: Operation, key: str) -> Fact:
        """Make attempts of an activity, each one recorded before the next begins."""
        turn = self.turn
        end = self._end(f"{key}/end", operation.spec.activity.limits.within)
        while True:
            prior = turn.journal.attempts(key)
            if prior.again_at is not None:
                await turn.waits.wait(OpenWait(f"{key}/again", None, prior.again_at))
            if end is not None:
                prior = PriorAttempts(prior.made, prior.failure, end)
            outcome = await self._attempt(operation, key, prior)
            if outcome.is_recorded and (fact := turn.journal.fact(key)) is not None:
                return fact
            name, fingerprint = operation.name, operation.fingerprint
            ok, value = outcome.ok, outcome.value
            if outcome.again_in is None:
                turn.submit()  # the code may do anything next, unseen from here
                return turn.outbox.append("activity", key, name, fingerprint, ok=ok, value=value)
            again_at = turn.engine.clock.now() + microseconds(outcome.again_in)
            failure = value | {"again_at": to_iso(again_at)}
            turn.outbox.append("attempt", key, name, fingerprint, ok=False, value=failure)

    async def _attempt(
        self, operation: Operation, key: str, prior: PriorAttempts
    ) -> AttemptOutcome:
        turn, call = self.turn, operation.spec
        turn.acting += 1
        try:
            if isinstance(call.activity, Transaction):
                outcome = await self._transact(operation, key, prior)
            else:
                await turn.outbox.flushed()
                turn.check_alive()
                outcome = await begin_attempt(turn, call, key, prior)
            turn.check_alive()
        finally:
            turn.acting -= 1
        return outcome

    async def _transact(
        self, operation: Operation, key: str, prior: PriorAttempts
    ) -> AttemptOutcome:
        """Run a transaction. Nothing else of the hook is recorded meanwhile.

        So the locks of its function can block others, but not the hook itself.
        """
        turn = self.turn

        def record(value: Any) -> Json:
            at = turn.outbox.next_at()
            return turn.record(
                Fact(operation.kind, key, True, value, at, operation.name, operation.fingerprint)
            )

        if prior.end is not None:
            await turn.outbox.flushed()
        try:
            async with turn.transacting:
                while turn.in_flight:
                    await turn.until_answered()
                turn.check_alive()
                return await begin_attempt(turn, operation.spec, key, prior, record=record)
        finally:
            turn.flush()

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
            await self._reach_wait()
            await self.turn.waits.wait(OpenWait(key, None, deadline))

    async def wait_for(self, signal: str, limit: float | None, decode: Decode) -> Any:
        """Wait for a signal; the limit counts from the first time this call was made."""
        turn = self.turn
        key = turn.claim_key(f"wait:{signal}")
        fact = turn.journal.fact(key)
        if fact is None:
            await self._reach_wait()
            fact = await turn.waits.wait(OpenWait(key, signal, self._end(key, limit)))
        if fact.kind == "timer":
            raise waited(limit, f"signal {signal}")
        return read_as(decode, fact.value, signal, "signal")

    def within(self, operation: Operation, limit: float | None) -> Any:
        """Wait for an answer; the limit counts from the first time this call was made."""
        return self.request(operation, limit)

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
        deadline = self.turn.journal.deadline(key)
        if deadline is None:
            deadline = self.turn.engine.clock.now() + length
            self._note(key, deadline)
        return deadline

    def _note(self, key: str, instant: int) -> None:
        self.turn.outbox.append("note", key, value={"until": to_iso(instant)})

    def heartbeat(self, progress: Any) -> None:
        """Note the progress of the hook. Raises CancelledError if it was asked to cancel."""
        self.turn.check_alive()
        self.turn.cancel.check()
        if progress is not None:
            self.turn.progress.note(OWN, progress)

    def time(self) -> int:
        """Return the time at which this call was first made.

        What the hook asks for may depend on the time, and is recognized by its arguments when the
        hook runs again.
        """
        turn = self.turn
        key = turn.claim_key("$now")
        told = turn.journal.deadline(key)
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

    def is_replaying(self) -> bool:
        """Tell whether the code has not yet reached the place where it was."""
        return self.turn.is_leaving() or not self.turn.is_there()


_NEVERS: list[asyncio.Future[None]] = []
"""Futures that code waits for if it does not end. A task that nobody holds would be ended by the
garbage collector, anywhere; such code would catch that too, and continue there."""


async def _never() -> None:
    never = asyncio.get_running_loop().create_future()
    _NEVERS.append(never)
    await never


class ThreadCall:
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
                self._turn.cancel.note_told()
            raise asyncio.CancelledError("the hook was asked to cancel, or withdrew this") from None
        finally:
            self._turn.thread_waits.discard(self)
            self._turn.shielded_waits -= shields

    def is_interruptible(self) -> bool:
        """Tell whether a thread that waits for it is interrupted when it is cancelled."""
        return not (self._is_shielded or self._future.done())

    def is_quiescent(self) -> bool:
        """Tell whether it has begun, so that the request is known, and has no answer yet."""
        return self._asked.cr_await is not None and not self._future.done()
