"""The engine: what the event loop of a worker holds.

It admits claimed tasks, gives them what they need, and keeps parked coordinators in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any

from perdure.basics.names import is_own
from perdure.basics.threads import Threads
from perdure.database.calls import Calls
from perdure.database.clock import Clock
from perdure.database.connections import AsyncLink
from perdure.database.source import Home, Source, home
from perdure.database.unsealing import UNSEALING_ERROR
from perdure.database.worker_calls import Task
from perdure.errors import PerdureError, SealBroken, ValueSealed
from perdure.workflow.app import App
from perdure.workflow.publishing import StreamLinks
from perdure.workflow.sql_hook import SQL_QUEUE
from perdure.workflow.work import Work

from .activities import ActivityTurn, AttemptOutcome
from .committer import Committer
from .coordinators import CoordinatorTurn
from .hooks import HookTurn
from .sql_hooks import SqlConnections, SqlHookTurn
from .transactions import Transactions
from .turns import Json, Turn
from .unservable import ErrorTurn, LateTurn, MissingCode, MissingCodeTurn, SealedTurn

if TYPE_CHECKING:
    from perdure.tracing import AttemptSpan
    from perdure.workflow.context import Info

logger = logging.getLogger("perdure.worker")

Place = tuple[str, str]

END_WITHIN = 1.0
"""Seconds that code may take to end when its worker ends."""

SUSPECT_AFTER = 5
"""After how many claims without a successful turn a task may be what ends its workers, as the
database has it."""

CLOSE_WITHIN = 5.0
"""Seconds that the database may take to cancel what it runs, at the end of a worker."""


class Engine:
    """What all turns of one worker share.

    With `hurries`, whatever only waits leaves memory at once, for tests that skip time.
    """

    def __init__(
        self,
        app: App,
        source: Source,
        *,
        queues: list[str],
        name: str,
        slots: int,
        lease_for: float,
        poll: float,
        cache: int,
    ):
        self.app = app
        self._tables = app.tables()
        self.source = source
        self.queues = list(dict.fromkeys([*queues, SQL_QUEUE]))
        self.name, self.slots, self.lease_for = name, slots, lease_for
        self._max_parked = cache
        self.instance: str | None = None
        self.loop = asyncio.get_running_loop()
        self.context = Context()  # of all code that runs here, but for coordinators
        self.context.run(home.set, Home(source.dsn, source.schema, app.codec))
        self.clock = Clock()
        self.calls = Calls(source.schema, app.codec)
        self.held: dict[Place, Turn] = {}
        self.threads: Counter[Place] = Counter()
        self.running: Turn | None = None
        self.is_stopping = self.hurries = self.wants_heartbeat = False
        self._emptied, self._thread_ended = asyncio.Event(), asyncio.Event()
        self.committer = Committer(self, poll)
        self.hook_threads = Threads(slots, "perdure-hook")
        self.activity_threads = Threads(slots, "perdure-activity")
        self.reader = AsyncLink(source, "perdure reads", tells=True)
        self.sql_connections = SqlConnections(self)
        self.transactions = Transactions(self)
        self.streams = StreamLinks(source, self.calls)
        self._parked: OrderedDict[Place, CoordinatorTurn] = OrderedDict()
        self._spawned: set[asyncio.Task[Any]] = set()
        self.missing = MissingCode(self)
        self.attempts: set[asyncio.Task[AttemptOutcome]] = set()

    # Slots.

    def room(self) -> int:
        """Tell how many more tasks can be held."""
        return self.slots - len(self.held)

    def admit(self, row: Json) -> None:
        """Begin to work on a claimed task."""
        place = (row["job"], row["task"])
        before = self.held.pop(place, None)
        if before is not None:  # its lease had ended, and nobody here noticed
            before.drop()
        parked = self._parked.pop(place, None)
        resumes = UNSEALING_ERROR not in row and not self.is_stopping
        if parked is not None and resumes and parked.is_as_parked(row):
            self.held[place] = parked
            self._guarded(parked, parked.resume, row)
            return
        if parked is not None:
            parked.drop()
        turn = self._turn_for(row)
        if row["deliveries"] > SUSPECT_AFTER:  # before it begins: afterwards may be too late
            told = "%r was claimed %d times without a successful turn: it may end its workers"
            logger.warning(told, turn, row["deliveries"] - 1)
        self.held[place] = turn
        self._guarded(turn, turn.begin)

    def _turn_for(self, row: Json) -> Turn:
        if self.is_stopping and not is_own(row["name"]):  # the database ends its own, and at once
            return LateTurn(self, row)
        if row["queue"] == SQL_QUEUE:
            return SqlHookTurn(self, row)
        if UNSEALING_ERROR in row:
            return SealedTurn(self, row, row[UNSEALING_ERROR])
        kind, name = row["kind"], row["name"]
        work: Work[..., Any] | None = self._tables[kind].get(name)
        if work is None:
            return MissingCodeTurn(self, row)
        if kind == "coordinator":
            return CoordinatorTurn(self, row, work)  # type: ignore[arg-type]
        if kind == "hook":
            return HookTurn(self, row, work)  # type: ignore[arg-type]
        return ActivityTurn(self, row, work)  # type: ignore[arg-type]

    def answer(self, turn: Turn, answer: Json) -> None:
        """Give a turn the answer to what it sent."""
        turn.clear_in_flight()
        if turn.is_over:
            return
        if UNSEALING_ERROR in answer:
            turn.position = answer["position"]
            self.seal(turn, answer[UNSEALING_ERROR])
        else:
            self._guarded(turn, turn.answered, answer)
            if turn.is_hinted and not turn.is_over:
                self._guarded(turn, turn.take_hint)

    def seal(self, turn: Turn, error: PerdureError) -> None:
        """Give back a task if one of its values cannot be decrypted or encrypted here."""
        self._hand_over(SealedTurn(self, turn.row, error), turn)

    def _guarded(self, turn: Turn, step: Callable[..., None], *given: Json) -> None:
        """Let a turn take a step; an error of this package must not stop the others."""
        try:
            step(*given)
        except Exception as error:  # noqa: BLE001 - it is logged there
            self.spoil(turn, error)

    def spoil(self, turn: Turn, error: Exception) -> None:
        """Park a task that met an error of this package; it would be held here for ever.

        While something of it is on its way, nobody knows what is recorded: then its lease ends.
        """
        logger.error("%r is parked: an unforeseen error", turn, exc_info=error)
        if turn.in_flight:
            turn.drop()
        elif not turn.is_over:
            self._hand_over(ErrorTurn(self, turn.row, turn.error_body(error)), turn)

    def _hand_over(self, successor: Turn, turn: Turn) -> None:
        """Let another turn end the task, from the place that this one has reached."""
        successor.position, successor.asked_before = turn.position, turn.asked_before
        turn.drop()
        self.held[turn.place] = successor
        successor.begin()

    def forget(self, turn: Turn) -> None:
        """Note that a task is not held any more."""
        if self.held.get(turn.place) is turn:
            del self.held[turn.place]
            if self.room() == 1:
                self.committer.wake()
            if not self.held:
                self._emptied.set()

    async def emptied(self) -> None:
        """Wait until no task is held."""
        while self.held:
            self._emptied.clear()
            await self._emptied.wait()

    def park(self, turn: CoordinatorTurn, until: int | None) -> None:
        """Keep a parked coordinator in memory; the least recently used one is dropped."""
        turn.over()
        self._parked[turn.place] = turn
        self.due_at(until)
        if len(self._parked) > self._max_parked:
            self._parked.popitem(last=False)[1].drop()

    def due_at(self, instant: int | None) -> None:
        """Look for tasks at an instant (µs): a task that was parked here is due then."""
        if instant is not None:
            self.committer.claim_in(self.clock.seconds_until(instant) + 0.001)

    # What turns need.

    def call_later(self, delay: float, callback: Callable[[], Any]) -> asyncio.TimerHandle:
        """Call later, outside of any context."""
        return self.loop.call_later(delay, callback, context=self.context)

    def spawn(self, work: Coroutine[Any, Any, None], turn: Turn | None = None) -> None:
        """Run something in the background; an error ends the turn that it is for."""
        task = self.loop.create_task(work, context=self.context.copy())
        self._spawned.add(task)

        def done(task: asyncio.Task[Any]) -> None:
            self._spawned.discard(task)
            if task.cancelled() or (error := task.exception()) is None:
                return
            if turn is not None and isinstance(error, ValueSealed | SealBroken):
                if not turn.is_over:  # otherwise its task may be held again
                    self.seal(turn, error)
            else:
                logger.error("an unforeseen error for %r", turn, exc_info=error)
                if turn is not None:
                    turn.drop()

        task.add_done_callback(done)

    async def in_thread(self, threads: Threads, place: Place, function: Callable[[], Any]) -> Any:
        """Run plain code of a task in a thread; it is counted until it has really ended."""

        def ended(_: object) -> None:
            with suppress(RuntimeError):  # the loop has ended
                self.loop.call_soon_threadsafe(self.thread_ended, place)

        future = threads.submit(_raisable, function)
        self.threads[place] += 1
        future.add_done_callback(ended)
        return await asyncio.wrap_future(future)

    def thread_ended(self, place: Place) -> None:
        """Note that code of a task that cannot be stopped has ended."""
        self.threads[place] -= 1
        if not self.threads[place]:
            del self.threads[place]
        self._thread_ended.set()

    def begin_span(self, info: Callable[[], Info], context: Context) -> AttemptSpan | None:
        """Begin the span of an attempt whose code will run in a context; None without a tracer."""
        tracing = self.app.tracing
        return None if tracing is None else tracing.begin(info(), self.instance, context)

    def traced(self, requests: list[Json], turn: Turn) -> list[Json]:
        """Let children belong to the trace of the job that asks for them."""
        if self.app.tracing is not None:
            for request in requests:
                if request["kind"] == "job":
                    request["headers"] = self.app.tracing.carried(turn.row, self.instance)
        return requests

    def replace(self, turn: Turn, again: Turn) -> None:
        """Begin a task anew, under the same lease."""
        turn.is_over = True
        self.held[turn.place] = again
        self._guarded(again, again.begin)

    async def read_journal(self, job: str, task: str) -> list[list[Any]]:
        """Read all that a task has been told, page by page."""
        rows: list[list[Any]] = []
        while True:
            page = await self.reader.call(self.calls.read_journal(job, task, len(rows)))
            rows += page
            if not page:
                return rows

    async def keep_progress(self, turn: Turn) -> None:
        """Store the progress of a task before it is given up."""
        number, unsent = turn.progress.unsent()
        if unsent:
            await self.reader.call(self.calls.extend([turn.lease() | unsent], self.lease_for))
            turn.progress.note_sent(number)

    def messages_arrived(self) -> None:
        """Let held tasks look into their inboxes: a notification says that one has messages."""
        for turn in list(self.held.values()):
            self._guarded(turn, turn.take_hint)

    def heartbeat_answered(self, task: Task, state: str, cancel: bool) -> None:
        """Take what a heartbeat was answered for a task."""
        turn = self.held.get((task["job"], task["task"]))
        if turn is None or turn.token != task["token"]:
            return
        if state == "lost" and not turn.in_flight:
            logger.warning("%r is held by somebody else now: it is dropped", turn)
            turn.drop()
        elif cancel:
            self._guarded(turn, turn.check_inbox)

    # The end.

    def begin_stopping(self) -> None:
        """Claim nothing more, and let turns come to an end."""
        self.is_stopping = True
        for turn in list(self.held.values()):
            self._guarded(turn, turn.drain)

    async def end_turns(self) -> list[Task]:
        """End all turns, and return the tasks whose code no longer runs here.

        Returns a moment later: a thread that waits for one of our calls ends too, but has to wake
        up first.
        """
        turns = list(self.held.values())
        running: set[asyncio.Task[Any]] = set(self.attempts)
        for turn in turns:
            running.update(turn.tasks)
            turn.drop()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_WITHIN):
                await self._code_ended(running, turns)
        ended = [turn for turn in turns if not self.threads[turn.place]]
        for turn in turns:
            if self.threads[turn.place]:
                logger.warning("%r is left behind: its code continues until the process ends", turn)
        return [turn.lease() | turn.progress.unsent()[1] for turn in ended]

    async def _code_ended(self, running: set[asyncio.Task[Any]], turns: list[Turn]) -> None:
        if running:
            await asyncio.wait(running)
        while any(self.threads[turn.place] for turn in turns):
            self._thread_ended.clear()
            await self._thread_ended.wait()

    async def close(self) -> None:
        """Close runs and connections."""
        for turn in list(self._parked.values()) + list(self.held.values()):
            turn.drop()
        self._parked.clear()
        await self._end_spawned()
        await self.committer.close()
        await self.reader.close()
        await self.sql_connections.close()
        await self.streams.close()
        await self.transactions.close()
        self.hook_threads.shutdown(wait=False, cancel_futures=True)
        self.activity_threads.shutdown(wait=False, cancel_futures=True)

    async def _end_spawned(self) -> None:
        """End what runs in the background, so that its connections are returned and closed."""
        spawned = list(self._spawned)
        for task in spawned:
            task.cancel()
        if spawned:
            await asyncio.wait(spawned, timeout=CLOSE_WITHIN)


def _raisable(function: Callable[[], Any]) -> Any:
    """Call plain code.

    An error that no future may hold is replaced by another, as in coroutines.
    """
    try:
        return function()
    except (StopIteration, GeneratorExit) as error:
        raise RuntimeError(f"function raised {type(error).__name__}") from error
