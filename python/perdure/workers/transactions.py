"""Transactions: activities whose rows and whose result are committed together, exactly once.

The function works in an open transaction of the app's database. When it has returned, the turn that
records its result is the last statement of that transaction. Nobody is told before the commit was
answered. A turn that is not applied is rolled back, and so is a function that raises or is
cancelled. One that met a conflict or lost its connection runs again. If the answer to the commit
was lost, the database is asked whether the turn was applied: it was, exactly if the rows were. [P4]
[P6] [P12]
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg

from perdure.basics.faults import crash_point
from perdure.database.call import Call, to_text
from perdure.database.connections import FATAL, REFUSALS, AsyncLink, can_be_repeated, pauses
from perdure.database.sending import plain_cursor, send, send_async
from perdure.errors import InvalidArgument
from perdure.workflow.operations import ActivityCall, stored_result
from perdure.workflow.work import Transaction

from .activities import AttemptOutcome, FinalError, Record
from .lent_connections import NAME, AsyncConnection, Connection, LentConnections
from .turns import Json, Turn, refusal

if TYPE_CHECKING:
    from .engine import Engine


logger = logging.getLogger("perdure.worker")

MAX_RUNS = 10
"""How often a function runs in one attempt that meets conflicts or loses its connection."""
CONFLICTS = frozenset({"40001", "40P01"})
"""SQLSTATEs after which a function runs again: a failed serialization, and a deadlock."""
LIMITS = frozenset({"25P03", "25P04"})
"""SQLSTATEs of a session that the server has ended because its transaction took too long."""
CANCEL_WITHIN = 5.0
"""Seconds for asking the server to give up a statement that nobody waits for."""


class Transactions:
    """Runs the transactions of a worker, on connections of their own."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.connections = LentConnections(engine)
        self.link = AsyncLink(engine.source, NAME, tells=True)

    async def run(
        self,
        turn: Turn,
        call: ActivityCall,
        limit: asyncio.Timeout,
        allowed: Callable[[], float | None],
        record: Record,
    ) -> AttemptOutcome:
        """Run one attempt, for as many seconds as are `allowed()` when its function begins.

        Raises what the function raises; everything else is reported by its turn.
        """
        attempt = TransactionAttempt(self, turn, call, limit, allowed, record)
        run = self.engine.loop.create_task(attempt.run())
        self.engine.attempts.add(run)
        run.add_done_callback(self.engine.attempts.discard)
        try:
            return await asyncio.shield(run)
        except asyncio.CancelledError:
            attempt.abandon(run)
            raise

    async def close(self) -> None:
        """Close the connections."""
        self.connections.close()
        await self.link.close()


class Unapplied(Exception):
    """The turn was not applied.

    Without an answer it was not even sent: the function had ended the transaction that it was
    given.
    """

    def __init__(self, answer: Json | None):
        self.answer = answer


class TransactionAttempt:
    """One attempt of a transaction: its function runs once, or again after a conflict."""

    def __init__(
        self,
        transactions: Transactions,
        turn: Turn,
        call: ActivityCall,
        limit: asyncio.Timeout,
        allowed: Callable[[], float | None],
        record: Record,
    ):
        assert isinstance(call.activity, Transaction)
        self._transactions = transactions
        self._connections = transactions.connections
        self._engine = transactions.engine
        self._turn = turn
        self._activity: Transaction[..., Any] = call.activity
        self._arguments = call.activity.shape.arguments(call.args)
        self._limit = limit
        self._allowed = allowed
        self._ends_at: float | None = None
        self._record = record
        self._caller = asyncio.current_task()
        self._runs = 0
        self._was_too_long = False  # a run before this one met a limit of the server
        self._read_at = 0
        self._body: Json = {}
        self._is_final = False
        self._is_committing = False
        self._is_abandoned = False
        self._is_inside = False  # its function runs: errors raised now are its own
        self._is_lost: bool | None = None  # whether the connection was lost; None: there was none
        self._connection: Connection | AsyncConnection | None = None
        self._leaving = threading.Lock()

    async def run(self) -> AttemptOutcome:
        """Run until it is committed, or fails."""
        for pause in pauses():
            outcome = await self._outcome()
            if outcome is not None:
                return outcome
            await asyncio.sleep(pause)
        raise AssertionError("pauses never end")

    def abandon(self, run: asyncio.Task[AttemptOutcome]) -> None:
        """Roll back; a commit that has begun ends as the database says."""
        if not self._is_final:
            self._is_abandoned = True
            run.cancel()

    # What becomes of it.

    async def _outcome(self) -> AttemptOutcome | None:
        """Run once; return None if it must run again. Raises what the function raises."""
        self._read_at = self._engine.clock.now()
        self._is_lost = None
        try:
            async with self._connections.place():
                answer = await (self._here() if self._activity.is_async else self._in_thread())
        except Unapplied as unapplied:
            return self._unapplied(unapplied.answer)
        except Exception as error:
            if isinstance(error, FATAL) and not self._is_inside:
                raise self._give_up(error) from error
            found = await self._what_became() if self._is_committing else None
            if found is not None:
                return self._told(found)
            may_run_again = self._may_run_again(error)
            self._take_back()
            if may_run_again:
                return None
            raise
        crash_point("transaction: after commit")
        return self._told(answer)

    def _told(self, answer: Json) -> AttemptOutcome:
        self._engine.answer(self._turn, answer)
        return AttemptOutcome(True, None, is_recorded=True)

    def _unapplied(self, answer: Json | None) -> AttemptOutcome | None:
        if answer is None:
            self._take_back()
            raise FinalError(_ended_by_itself(self._activity.name))
        if answer["state"] == "refused":
            self._take_back()
            raise FinalError(refusal(answer))
        if answer["state"] == "busy":  # its task has ended meanwhile: the next answer says so
            self._take_back()
            return None
        return self._told(answer | {"state": "replay"} if answer.get("again") else answer)

    def _take_back(self) -> None:
        if self._is_final:
            self._is_final = self._is_committing = False
            self._turn.take_back()

    def _may_run_again(self, error: Exception) -> bool:
        """Tell whether nothing is wrong with the function.

        That is a conflict, a lost connection, or a statement of the worker's own that a limit or an
        operator has ended. A transaction may be too long once, because the worker was held up; the
        second time its function is too slow for the server.
        """
        if self._is_abandoned or self._runs >= MAX_RUNS:
            return False
        if not self._is_committing and _has_cause(error, LIMITS):
            was_too_long, self._was_too_long = self._was_too_long, True
            return not was_too_long
        if self._is_lost is None:
            return isinstance(error, psycopg.OperationalError)
        if self._is_lost or _has_cause(error, CONFLICTS):
            return True
        is_answer = isinstance(error, psycopg.Error) and can_be_repeated(error, is_connected=True)
        return is_answer and not self._is_inside

    async def _what_became(self) -> Json | None:
        """Ask whether a turn was applied whose commit has no answer; None if it was not.

        The question waits for the lock on the task, and so for the end of the transaction that is
        in doubt. If the question is refused, the task is given up: its next holder finds out.
        """
        names = ("job", "task", "token", "position", "awaits")
        turn = {name: self._body[name] for name in names if name in self._body}
        body = turn | {"state": "keep"}
        call = self._engine.calls.advance(to_text([body]), [body], waiting=True)
        try:
            answer: Json = (await self._transactions.link.call(call))["turns"][0]
        except REFUSALS as error:
            raise self._give_up(error) from error
        return answer if answer.get("again") or answer["state"] != "keep" else None

    def _give_up(self, error: Exception) -> asyncio.CancelledError:
        """Leave the task to its next holder; return what ends this attempt."""
        self._turn.give_up(error)
        return asyncio.CancelledError("whoever holds the task next finds out what became of it")

    # One run: the same steps for a coroutine and for a thread.

    async def _here(self) -> Json:
        given, named = self._arguments
        async with self._connections.lent_async(self._activity.isolation) as connection:
            try:
                async with connection.transaction():
                    began = await send_async(plain_cursor(connection), self._beginning(connection))
                    self._set_limit()
                    with self._inside():
                        value = await self._activity.function(connection, *given, **named)
                    call = await self._ending(self._stored(value), began)
                    answer = self._judged(await send_async(plain_cursor(connection), call))
            finally:
                self._leave(connection)
            return answer

    async def _in_thread(self) -> Json:
        """Run in a thread; a caller that is cancelled waits for its end all the same."""
        engine, inside = self._engine, contextvars.copy_context()
        place = self._turn.place
        work = engine.in_thread(engine.activity_threads, place, lambda: inside.run(self._there))
        thread = asyncio.ensure_future(work)
        try:
            answer: Json = await asyncio.shield(thread)
        except asyncio.CancelledError:
            if not thread.done():
                await asyncio.to_thread(self._interrupt)
            await asyncio.wait([thread])
            thread.exception()  # nobody else needs to see it
            raise
        return answer

    def _there(self) -> Json:
        (given, named), loop = self._arguments, self._engine.loop
        with self._connections.lent(self._activity.isolation) as connection:
            try:
                with connection.transaction():
                    began = send(connection, self._beginning(connection))
                    loop.call_soon_threadsafe(self._set_limit)
                    with self._inside():
                        value = self._activity.function(connection, *given, **named)
                    ending = self._ending(self._stored(value), began)
                    call = asyncio.run_coroutine_threadsafe(ending, loop).result()
                    answer = self._judged(send(connection, call))
            finally:
                self._leave(connection)
            return answer

    def _stored(self, value: Any) -> Any:
        return self._engine.calls.sealable(stored_result(self._activity, value))

    def _beginning(self, connection: Connection | AsyncConnection) -> Call:
        self._connection = connection
        self._runs += 1
        self._is_inside = False
        return self._engine.calls.transaction_began()

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Run the function: what it raises is its own, and ends nothing else."""
        self._is_inside = True
        try:
            yield
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            # These would end the worker's loop, or the awaiting code.
            raise FinalError(error) from error
        self._is_inside = False
        connection = self._connection
        if connection is not None and connection.closed and not connection.broken:
            raise Unapplied(None)  # closed by the function: with another it would do so again

    async def _ending(self, value: Any, began: str) -> Call:
        """Take the turn, and return the call that records the result: nothing else is sent now."""
        crash_point("transaction: after function")
        turn = self._turn
        while turn.in_flight:
            self._check_wanted()
            await turn.until_answered()
        self._check_wanted()
        self._body = self._record(value)
        turn.in_flight = self._is_final = True
        turn.asked_at = self._read_at
        self._limit.reschedule(None)
        return self._engine.calls.record(self._body, turn.row, began)

    def _check_wanted(self) -> None:
        """Stop if nobody waits for the result any more. Raises CancelledError."""
        caller = self._caller
        is_left = caller is None or caller.done() or caller.cancelling()
        if self._is_abandoned or is_left or self._turn.is_over:
            raise asyncio.CancelledError("nobody waits for this transaction any more")

    def _judged(self, reply: Json | None) -> Json:
        """Return the answer to an applied turn; from here on only the commit decides."""
        if reply is None:
            raise Unapplied(None)
        answer: Json = reply["turns"][0]
        if answer["state"] not in ("keep", "done") or answer.get("again"):
            raise Unapplied(answer)
        crash_point("transaction: before commit")
        self._is_committing = True
        return answer

    # Limits.

    def _set_limit(self) -> None:
        """Let the time of the attempt count from here, at its first run."""
        length = self._allowed()
        if length is not None:
            now = self._engine.loop.time()
            self._ends_at = now + length if self._ends_at is None else self._ends_at
            with suppress(RuntimeError):  # the attempt has ended already
                self._limit.reschedule(self._ends_at)

    def _interrupt(self) -> None:
        """End the statement for which a thread waits, if it does."""
        with self._leaving, suppress(psycopg.Error):
            if isinstance(self._connection, psycopg.Connection):
                self._connection.cancel_safe(timeout=CANCEL_WITHIN)

    def _leave(self, connection: Connection | AsyncConnection) -> None:
        """Make sure that no request to cancel meets the next user of the connection."""
        with self._leaving:
            self._connection = None
            self._is_lost = connection.broken  # and not closed by the function
            if self._is_abandoned:
                connection.pgconn.finish()


def _has_cause(error: BaseException, states: frozenset[str]) -> bool:
    """Tell whether an error has one of these SQLSTATEs, or comes from one, through other errors.

    Errors may be causes of each other in a circle.
    """
    cause: BaseException | None = error
    passed: set[int] = set()
    while cause is not None and id(cause) not in passed:
        if getattr(cause, "sqlstate", None) in states:
            return True
        passed.add(id(cause))
        cause = cause.__cause__
    return False


def _ended_by_itself(name: str) -> InvalidArgument:
    return InvalidArgument(
        f"transaction {name} has ended the transaction that it was given",
        detail="What it committed stays, but its result could not be recorded with it.",
        hint="Do not commit, roll back or close; connection.transaction() makes a savepoint.",
    )
