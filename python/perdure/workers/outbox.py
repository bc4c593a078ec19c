"""The outbox of a hook: what it has to send to the database, and what is on its way there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perdure.replay.replay import Fact
from perdure.workflow.operations import Operation, outlives

from .turns import Json, command_body, fact_body

if TYPE_CHECKING:
    from .hooks import HookTurn

FLUSH_WITHIN = 0.02
"""Seconds that a fact may wait for others."""


@dataclass(slots=True, eq=False)
class Command:
    """A command, read or send: a fact whose answer comes from the database."""

    operation: Operation
    key: str
    at: int
    place: int
    future: asyncio.Future[Fact]

    def fact(self, ok: bool, value: Any) -> Fact:
        """Make the fact of its answer."""
        operation = self.operation
        return Fact(
            operation.kind, self.key, ok, value, self.at, operation.name, operation.fingerprint
        )


@dataclass(slots=True, eq=False)
class Batch:
    """What is sent, or gathers to be sent, in one call."""

    facts: list[Json] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    requests: dict[str, Json] = field(default_factory=dict)
    cancels: list[str] = field(default_factory=list)
    acks: list[asyncio.Future[None]] = field(default_factory=list)

    def fields(self) -> Json:
        """Return the fields of a turn."""
        fields = {
            "facts": self.facts,
            "requests": list(self.requests.values()),
            "cancels": self.cancels,
        }
        return {name: value for name, value in fields.items() if value}

    def futures(self) -> Iterator[asyncio.Future[Any]]:
        """Return all futures that somebody may wait for."""
        yield from (command.future for command in self.commands)
        yield from self.acks


class Outbox:
    """Gather facts and requests in order, and hand answers to those who wait for them."""

    def __init__(self, turn: HookTurn, told_at: int):
        self._turn = turn
        self._told_at = told_at
        self._batch = Batch()
        self._sent: Batch | None = None
        self._last: Fact | None = None

    def next_at(self) -> int:
        """Return the time of the next fact: now, and never before the last one."""
        self._told_at = max(self._told_at, self._turn.engine.clock.now())
        return self._told_at

    def append(
        self,
        kind: str,
        key: str,
        name: str | None = None,
        fingerprint: str | None = None,
        *,
        ok: bool = True,
        value: Any = None,
        message: int | None = None,
    ) -> Fact:
        """Record a fact with the next flush."""
        fact = Fact(kind, key, ok, value, self.next_at(), name, fingerprint, extra=message)
        if not self._batch.facts:
            self._turn.engine.call_later(FLUSH_WITHIN, self._turn.flush)
        self._batch.facts.append(fact_body(fact))
        self._turn.journal.record(fact)
        return fact

    def command(self, operation: Operation, key: str) -> asyncio.Future[Fact]:
        """Send a command; return what will have its answer."""
        future: asyncio.Future[Fact] = self._turn.engine.loop.create_future()
        command = Command(operation, key, self.next_at(), len(self._batch.facts), future)
        self._batch.commands.append(command)
        self._batch.facts.append(command_body(operation, key, command.at))
        self._turn.submit()
        return future

    def request(self, request: Json) -> None:
        """Ask others to do something."""
        self._batch.requests[request["key"]] = request
        self._turn.submit()

    def withdraw(self, key: str) -> None:
        """Withdraw a request, and ask its worker to cancel: an earlier run may have sent it."""
        self._batch.requests.pop(key, None)
        self._batch.cancels.append(key)
        self._turn.submit()

    async def flushed(self) -> None:
        """Wait until the database has all that was told so far."""
        ack: asyncio.Future[None] = self._turn.engine.loop.create_future()
        if self._batch.facts:
            self._batch.acks.append(ack)
            self._turn.submit()
        elif self._sent is not None:
            self._sent.acks.append(ack)
        else:
            return
        await ack

    def taken(self) -> set[Any]:
        """Name the messages that were taken and are still open in the inbox."""
        return {fact.get("message") for fact in self._batch.facts}

    def has_more(self) -> bool:
        """Tell whether there is anything to send."""
        batch = self._batch
        return bool(batch.facts or batch.requests or batch.cancels or batch.acks)

    def is_waited_for(self) -> bool:
        """Tell whether the hook waits for the database."""
        return bool(self._batch.commands or self._batch.acks or self._sent)

    def send(self, final: bool = False) -> Json:
        """Return what has gathered, as fields of a turn; it is on its way now.

        At the end, only the requests whose work outlives the hook.
        """
        sent, self._batch = self._batch, Batch()
        if final:
            sent.requests = {key: one for key, one in sent.requests.items() if outlives(one)}
        self._sent = sent
        return sent.fields()

    def send_with(self, last: Fact) -> Json:
        """Return what has gathered, followed by the fact of a transaction."""
        fields = self.send()
        self._last = last
        return fields | {"facts": [*fields.get("facts", ()), fact_body(last)]}

    def take_back(self) -> None:
        """Put back what was sent, before what has gathered since: it was rolled back."""
        sent, later = self._sent or Batch(), self._batch
        for command in later.commands:
            command.place += len(sent.facts)
        for name in ("facts", "commands", "cancels", "acks"):
            getattr(sent, name).extend(getattr(later, name))
        sent.requests |= later.requests
        self._batch, self._sent, self._last = sent, None, None

    def acknowledge(self, position: int, answer: Json) -> int:
        """Hand out the answers to what was sent; return the new position."""
        sent, self._sent = self._sent, None
        if sent is None:
            return position
        told = {seq: (ok, value) for seq, ok, value in answer.get("answers") or ()}
        for command in sent.commands:
            fact = command.fact(*told.get(position + command.place + 1, (True, None)))
            self._turn.journal.record(fact)
            if not command.future.done():
                command.future.set_result(fact)
        for ack in sent.acks:
            if not ack.done():
                ack.set_result(None)
        last, self._last = self._last, None
        if last is not None:
            self._turn.journal.record(last)
        return position + len(sent.facts) + (last is not None)

    def end(self, error: BaseException) -> None:
        """Let nobody wait any more; nothing that has gathered is sent."""
        batches = [self._batch] if self._sent is None else [self._batch, self._sent]
        self._batch = Batch()  # what is on its way stays: its answer says how long the journal is
        for future in [future for batch in batches for future in batch.futures()]:
            if not future.done():
                future.set_exception(error)
                future.exception()  # the waiting code may be gone
