"""An asyncio event loop without I/O and without a clock: it runs what is ready, nothing else.

`gather`, `TaskGroup`, `timeout`, `wait`, `as_completed`, `Queue`, `sleep` work on it as they are.
Its timers are operations of a journal and its time is the time of the last fact, so the same facts
make the same steps in every process. Anything that wants a socket, a thread or a signal is refused.

Pure: no I/O, no clock, no database.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from asyncio.events import _get_running_loop
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextvars import Context
from typing import Any, NoReturn, TypeVarTuple, Unpack
from zlib import crc32

from perdure.basics.durations import FOREVER, MICROSECONDS
from perdure.errors import IoInCoordinator

from .awaitables import Durable, Future, FutureCoroutine, Task, Timer, Wait
from .differences import no_order
from .facts import OpenOperation
from .journal import Journal
from .lineage import Lineage, TaskCreator, creator_of_task

Arguments = TypeVarTuple("Arguments")

MAX_ERRORS = 100
MAX_CLOSING_ROUNDS = 100

_unending: list[Loop] = []
"""Loops whose code refused to end. Collecting them would run that code in another job."""


class Loop(asyncio.AbstractEventLoop):
    """Run the ready callbacks of one coordinator; `run_ready()` returns when it is quiescent."""

    def __init__(self, journal: Journal):
        self._journal = journal
        self.places = Lineage()
        self.ready: deque[asyncio.Handle] = deque()
        self.errors: list[BaseException] = []
        self.failed: weakref.WeakSet[Durable] = weakref.WeakSet()  # while the code holds them
        self.unawaited_waits: dict[Wait, str] = {}
        self._tasks: list[Task] = []
        self._prune_at = 64
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] | None = None
        self._dropped: list[AsyncGenerator[Any, Any]] = []
        # Numbers are hashes: asyncio keeps the tasks of all runs in one set, where runs that all
        # counted from 0 would collide. The start is the same whenever this task is replayed.
        self._made = crc32(journal.seed().encode())

    def next_number(self) -> int:
        """Return the number of the next future or task."""
        self._made += 1
        return self._made

    def place(self) -> str:
        """Return the place of the running code: empty in the root task, `.1` in its first child."""
        return self.places.of(asyncio.current_task(self))

    # Tasks and futures.

    def create_task(
        self, coro: Any, *, name: object = None, context: Context | None = None, **options: Any
    ) -> Task:
        """Make a task at the next place below the running one."""
        if context is not None:
            options["context"] = context
        place = self.place()
        if isinstance(coro, asyncio.Future):
            coro = FutureCoroutine(coro)
        elif name is None:
            creator = creator_of_task()
            if creator is TaskCreator.AS_COMPLETED:
                raise self._journal.refuse(no_order(self._journal.identity))
            if creator is TaskCreator.WAIT_FOR:
                return self._hold(Task(coro, self, place, name=place or "main", **options))
        return self._add_task(place, coro, None if name is None else str(name), options)

    def create_root(self, coro: Any, context: Context) -> Task:
        """Make the root task."""
        return self._hold(Task(coro, self, "", name="main", context=context))

    def _add_task(self, parent: str, coro: Any, name: str | None, options: dict[str, Any]) -> Task:
        place = self.places.child(parent, name)
        task = Task(coro, self, place, name=name or place, **options)
        if name is None and not options.get("eager_start"):
            self.places.may_be_renamed(task, parent)
        return self._hold(task)

    def _hold(self, task: Task) -> Task:
        """Hold a task until it is done. Otherwise the collector could take it."""
        self._tasks.append(task)
        if len(self._tasks) > self._prune_at:
            self._tasks = self._unfinished()
            self._prune_at = 2 * len(self._tasks) + 64
        return task

    def create_future(self) -> Future:
        """Make a future."""
        return Future(self)

    # Callbacks and timers.

    def call_soon(
        self,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Run the callback after those that are ready."""
        handle = asyncio.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> Timer:
        """Run the callback when workflow time has moved on by `delay` seconds."""
        deadline = self._journal.now + _microseconds(delay)
        return self._add_timer(deadline, callback, args, context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> Timer:
        """Run the callback when `time()` has reached `when`."""
        deadline = self._journal.started_at + _microseconds(when)
        return self._add_timer(deadline, callback, args, context)

    def _add_timer(self, deadline: int, callback: Any, args: Any, context: Context | None) -> Timer:
        deadline = min(deadline, FOREVER)
        timer = Timer(self, self._seconds(deadline), callback, args, context)
        place = self.place()
        timer.operation = self._journal.open_operation(
            place, "timer", "$timer", None, timer, deadline=deadline
        )
        return timer

    def _timer_handle_cancelled(self, timer: asyncio.TimerHandle) -> None:
        if isinstance(timer, Timer) and timer.operation is not None:
            self.withdraw(timer.operation)
            timer.operation = None

    def withdraw(self, operation: OpenOperation) -> None:
        """Close an operation that the code no longer waits for."""
        self._journal.withdraw(operation)

    def time(self) -> float:
        """Return workflow time in seconds since the workflow began: a loop's clock has no date."""
        return self._seconds(self._journal.now)

    def _seconds(self, instant: int) -> float:
        return (instant - self._journal.started_at) / MICROSECONDS

    # What asyncio asks of a loop besides.

    def get_debug(self) -> bool:
        """Tell that debug mode is off."""
        return False

    def is_running(self) -> bool:
        """Tell whether this loop is the one that runs in this thread."""
        return _get_running_loop() is self

    def is_closed(self) -> bool:
        """Tell whether the run was closed."""
        return self._journal.closed

    def get_task_factory(self) -> None:
        """Say that tasks are made in only one way."""
        return

    def get_exception_handler(self) -> None:
        """Say that errors are collected."""
        return

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Collect an error that nobody awaits, instead of printing it."""
        if len(self.errors) < MAX_ERRORS:
            error = context.get("exception")
            self.errors.append(error or RuntimeError(str(context.get("message"))))

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Collect an error that nobody awaits."""
        self.call_exception_handler(context)

    # Running and ending.

    def run_ready(self, steps: int) -> None:
        """Run until nothing is ready, or so many callbacks were run. Enter the loop first."""
        ready = self.ready
        while ready and steps > 0:
            try:
                while ready and steps > 0:
                    steps -= 1
                    handle = ready.popleft()
                    if not handle._cancelled:
                        handle._run()
            except (SystemExit, KeyboardInterrupt) as error:  # the task keeps it like others
                self.call_exception_handler({"exception": error})

    def unwind(self) -> None:
        """End every task and async generator, so that the collector never runs their code."""
        for _ in range(MAX_CLOSING_ROUNDS):
            left = self._unfinished() or self._close_generators()
            if not left:
                self._drop_tasks()
                return
            for task in left:
                task.cancel()
            self._run_closing(len(left))
        for task in self._unfinished():
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        _unending.append(self)

    def _drop_tasks(self) -> None:
        """Drop the tasks, and the tracebacks of what they have raised.

        Tracebacks hold the frames that have run the tasks, and so the tasks themselves.
        """
        for task in self._tasks:
            is_unretrieved = task._log_traceback
            try:
                error = task.exception()
            except asyncio.CancelledError as cancelled:
                error = cancelled
            _drop_tracebacks(error)
            if is_unretrieved:
                self.call_exception_handler({"exception": error})
        self._tasks.clear()
        self.unawaited_waits.clear()

    def unawaited_errors(self) -> list[BaseException]:
        """Return what was raised, and nobody has awaited until now.

        What the code has dropped has reported its error itself, as asyncio's futures do.
        """
        calls = sorted(self.failed, key=hash)  # in order of creation
        ended = [each for each in (*calls, *self._tasks) if each.done()]
        left = [each.exception() for each in ended if each._log_traceback]
        return [*self.errors, *filter(None, left)]

    def _unfinished(self) -> list[Task]:
        return [task for task in self._tasks if not task.done()]

    def _close_generators(self) -> list[Task]:
        generators = [*(self._generators or ()), *self._dropped]
        self._generators = None
        self._dropped = []
        for generator in generators:
            if generator.ag_frame is not None:
                self._add_task("", generator.aclose(), "$generator", {})
        self._run_closing(len(generators))
        return self._unfinished()

    def _run_closing(self, tasks: int) -> None:
        try:
            self.run_ready(1000 + 20 * tasks)
        except BaseException as error:  # noqa: BLE001 - whatever the code raises, others must end too
            self.call_exception_handler({"exception": error})

    def generator_begins(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Remember an async generator: it may have to be closed."""
        if self._generators is None:
            self._generators = weakref.WeakSet()
        self._generators.add(generator)

    def generator_dropped(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Close an async generator that was left half-way, in this loop and in no other."""
        if self.is_running() and not self.is_closed():
            self._add_task(self.place(), generator.aclose(), "$generator", {})
        else:
            self._dropped.append(generator)


def _drop_tracebacks(error: BaseException | None) -> None:
    """Drop the traceback of an error, and those of its causes."""
    left, seen = [error], set()
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            left += [one.__cause__, one.__context__]
            if isinstance(one, BaseExceptionGroup):
                left += one.exceptions


def _microseconds(seconds: float) -> int:
    if math.isnan(seconds):
        raise ValueError("a delay cannot be NaN")
    if seconds >= FOREVER / MICROSECONDS:
        return FOREVER
    return max(0, round(seconds * MICROSECONDS))


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise IoInCoordinator(
            f"a coordinator has no loop.{name}()",
            detail="it runs again from its journal, so it can have no I/O, threads or signals",
            hint="do this in an activity or a hook, and await that",
        )

    return refuse


for _name in vars(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in vars(Loop):
        setattr(Loop, _name, _refusal(_name))
