"""Threads for plain code that end with the process.

At exit, Python waits for the threads of its own executors, daemons or not, as long as their code
takes. Code that hangs in one would keep a worker that was told to stop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Given = tuple[Future[Any], Callable[[], Any]]


class Threads(ThreadPoolExecutor):
    """Run functions, at most so many at a time: `Threads(100, "perdure-hook").submit(function)`.

    It is a ThreadPoolExecutor because asyncio accepts no other as the default executor of a loop.
    """

    def __init__(self, most: int, name: str):
        super().__init__(most, name)
        self._most = most
        self._name = name
        self._all: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)
        self._waiting: SimpleQueue[_Given | None] = SimpleQueue()
        self._is_closed = False
        self._closing = threading.Lock()

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in a thread, once one is free. Raises RuntimeError after the end."""
        future: Future[T] = Future()
        with self._closing:
            if self._is_closed:
                raise RuntimeError("these threads have ended")
            if not self._idle.acquire(blocking=False) and len(self._all) < self._most:
                self._begin()
            self._waiting.put((future, lambda: function(*args, **kwargs)))
        return future

    def _begin(self) -> None:
        name, given = f"{self._name}_{len(self._all)}", (self._waiting, self._idle)
        thread = threading.Thread(name=name, target=_work, args=given, daemon=True)
        thread.start()
        self._all.append(thread)

    def replace_one(self) -> None:
        """Add a thread: the code in one of them never ends."""
        with self._closing:
            self._most += 1
            if not (self._is_closed or self._waiting.empty()):
                self._begin()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more; cancel what has not begun, and wait for the rest if told to."""
        with self._closing:
            self._is_closed = True
            while cancel_futures and not self._waiting.empty():
                if (given := self._taken()) is not None:
                    given[0].cancel()
            self._waiting.put(None)
        for thread in self._all if wait else ():
            thread.join()

    def _taken(self) -> _Given | None:
        try:
            return self._waiting.get_nowait()
        except Empty:  # a thread was faster
            return None


def begun(function: Callable[[], T]) -> Future[T]:
    """Start a blocking function in a thread of its own, which ends with it."""
    threads = Threads(1, "perdure-beside")
    running = threads.submit(function)
    threads.shutdown(wait=False)
    return running


def in_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Run a blocking function in a thread of its own, which ends with it."""
    return asyncio.wrap_future(begun(function))


async def beside(function: Callable[[], T], on_cancel: Callable[[], object] | None = None) -> T:
    """Run a blocking function in a thread of its own, to its end.

    If the caller is cancelled meanwhile, the cancel is raised then. `on_cancel` may tell the
    function to come to an end.
    """
    running = in_thread(function)
    interrupted: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            interrupted = error
            if on_cancel is not None:
                on_cancel()
    if interrupted is not None:
        raise interrupted from running.exception()
    return running.result()


def _work(waiting: SimpleQueue[_Given | None], idle: threading.Semaphore) -> None:
    """Run what is given, until there will be no more.

    The first item is what the thread was made for: it is not idle before, or that would count
    twice.
    """
    given = waiting.get()
    while given is not None:
        _run(*given)
        del given  # an idle thread must hold nothing
        try:
            given = waiting.get_nowait()
        except Empty:
            idle.release()
            given = waiting.get()
    waiting.put(None)  # for the next thread


def _run(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        value = function()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the one who waits is told
        future.set_exception(error)
        del future  # the traceback holds this frame
    else:
        future.set_result(value)
