"""Side connections, on which busy turns wait for their jobs, so that other turns need not.

Connections on which the database runs tasks share the base class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import chain
from typing import TYPE_CHECKING

from perdure.database.connections import REFUSALS, AsyncLink

from .turns import ENDED, Json, Turn

if TYPE_CHECKING:
    from .engine import Engine

MAX_SIDE_CONNECTIONS = 4
"""Number of connections of each kind."""


class EncodedTurn:
    """A turn on its way: its text."""

    __slots__ = ("body", "is_final", "text", "turn")

    def __init__(self, turn: Turn, body: Json):
        self.turn = turn
        self.body = body
        self.text = turn.engine.calls.turn(body, turn.row)
        self.is_final = body["state"] != "keep"

    def contended(self) -> str:
        """Name the job that most others may need too: of its asker, of a signal, or its own."""
        signalled = (fact["target"] for fact in self.body.get("facts", ()) if fact.get("target"))
        return next(chain(self.body.get("touches", ()), signalled), self.turn.job)

    def makes_tasks_due(self) -> bool:
        """Tell whether it may make a task due by requests, signals, answers or giving back."""
        body, state = self.body, self.body["state"]
        if "requests" in body or any("signal" in fact for fact in body.get("facts", ())):
            return True
        is_answer = state in ENDED and self.turn.row["asker"] is not None
        return is_answer or not (state in ENDED or state in ("keep", "park"))


class SideConnections(ABC):
    """A few connections, and what is done on them, one thing after another."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._idle: list[AsyncLink] = []
        self._running = 0

    def _begin(self) -> None:
        """Open another connection, if one more is allowed."""
        if self._running < MAX_SIDE_CONNECTIONS:
            self._running += 1
            self._engine.spawn(self._run())

    async def _run(self) -> None:
        link = self._idle.pop() if self._idle else self._made()
        try:
            await self._work(link)
        finally:
            self._running -= 1
            self._idle.append(link)

    @abstractmethod
    def _made(self) -> AsyncLink:
        """Make a connection."""

    @abstractmethod
    async def _work(self, link: AsyncLink) -> None:
        """Do what waits, until nothing is left."""

    async def close(self) -> None:
        """Close the connections."""
        for link in self._idle:
            await link.close()
        self._idle.clear()


class BusyConnections(SideConnections):
    """Send busy turns again, waiting: in a call, all that need the same job.

    Children that end together all answer their parent, and many jobs may signal one. One by one
    they would hold its lock in turn, and make whatever else needs it busy.
    """

    def __init__(self, engine: Engine):
        super().__init__(engine)
        self._waiting: dict[str, list[EncodedTurn]] = {}

    def send(self, encoded: EncodedTurn) -> None:
        """Send a turn when the job that it needs is free."""
        job = encoded.contended()
        is_new = job not in self._waiting
        self._waiting.setdefault(job, []).append(encoded)
        if is_new:
            self._begin()

    def _made(self) -> AsyncLink:
        return AsyncLink(self._engine.source, "perdure waits", tells=True)

    async def _work(self, link: AsyncLink) -> None:
        while self._waiting:
            job = next(iter(self._waiting))
            await self._send_all(link, self._waiting.pop(job))

    async def _send_all(self, link: AsyncLink, batch: list[EncodedTurn]) -> None:
        committer = self._engine.committer
        try:
            reply = await link.call(committer.advance_call(batch, waiting=True))
        except REFUSALS as error:
            await committer.isolate(batch, error)
            return
        committer.distribute(batch, reply)
