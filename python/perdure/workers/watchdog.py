"""The watchdog: it ends a process whose loop hangs, when all leases of the worker have ended.

Without it the process would stay, do nothing, and ignore SIGTERM. Its supervisor saw it alive.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import select
import sys
import threading
import time
from asyncio import AbstractEventLoop
from contextlib import suppress
from types import FrameType

logger = logging.getLogger("perdure.worker")

TICK = 1.0
"""Seconds between two looks at the loop."""
TELL_WITHIN = 5.0
"""Seconds that the log may take for the last line: whoever reads it may hang, too."""
STDERR = 2
"""Where the stacks are written, whatever `sys.stderr` is."""
DEBUGGERS = ("bdb", "pdb", "pydevd", "_pydevd_bundle", "debugpy")
"""Packages and modules in which a loop is stopped on purpose."""
STOPS_ALL_THREADS = "pydevd"
"""The debugger of editors: it stops the thread of the watchdog, too."""


class Watchdog:
    """End this process if the loop has given no sign of life for some seconds.

    Code that hangs and lets other threads run is found by the thread of the watchdog. Code in C
    that keeps the interpreter's lock stops that thread too: then the timer of `faulthandler` ends
    the process, which needs no lock.
    """

    def __init__(self, loop: AbstractEventLoop, limit: float):
        self._loop = loop
        self._limit = limit
        self._seen_at = 0.0
        self._stopped = threading.Event()
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="perdure-watchdog", daemon=True)

    def start(self) -> None:
        """Begin, in the thread of the loop."""
        self._sign()
        _running.add(self)
        self._wind_up()
        self._thread.start()

    def stop(self) -> None:
        """Stop, even if it has not begun."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._leave()

    def _leave(self) -> None:
        if self in _running:
            _running.discard(self)
            faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        try:
            while not self._stopped.wait(min(TICK, self._limit / 4)):
                self._wind_up()
                self._watch()
        finally:
            self._leave()

    def _wind_up(self) -> None:
        """Set the timer anew. If it cannot be set, the thread of the watchdog is all there is."""
        if STOPS_ALL_THREADS not in sys.modules:
            with suppress(RuntimeError):  # there can be no more threads
                faulthandler.dump_traceback_later(self._limit, exit=True, file=STDERR)

    def _watch(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._sign)
        except RuntimeError:  # the loop has ended
            self._stopped.set()
            return
        frame = sys._current_frames().get(self._loop_thread)
        if time.monotonic() - self._seen_at > self._limit and not is_debugged(frame):
            _end_process()

    def _sign(self) -> None:
        self._seen_at = time.monotonic()


_running: set[Watchdog] = set()


def _end_process() -> None:
    hangs = (
        "the worker's loop hangs, and its leases have ended: the process ends, for its supervisor"
        " to start another"
    )
    telling = threading.Thread(target=logger.critical, args=(hangs,), daemon=True)
    telling.start()
    telling.join(TELL_WITHIN)
    with suppress(OSError, ValueError):  # it is closed
        if select.select([], [STDERR], [], 0)[1]:  # a full pipe would hold up the end
            faulthandler.dump_traceback(file=STDERR)
    os._exit(1)


def is_debugged(frame: FrameType | None) -> bool:
    """Tell whether the code of a frame runs in a debugger, which may have stopped it."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in DEBUGGERS:
            return True
        frame = frame.f_back
    return False


def _cancel_timer() -> None:
    """Cancel the timer before a fork; the child would wait for its thread, which it has not."""
    if _running:
        faulthandler.cancel_dump_traceback_later()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_cancel_timer)
