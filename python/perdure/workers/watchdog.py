"""The watchdog: it ends a process whose loop hangs, when all leases of the worker have ended.

Without it the process would stay, do nothing, and ignore SIGTERM. Its supervisor saw it alive.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from asyncio import AbstractEventLoop
from types import FrameType

logger = logging.getLogger("perdure.worker")

TICK = 1.0
"""Seconds between two looks at the loop."""
STDERR = 2
"""Where the stacks are written, whatever `sys.stderr` is."""
DEBUGGERS = ("bdb", "pdb", "pydevd", "_pydevd_bundle", "debugpy")
"""Packages and modules in which a loop is stopped on purpose."""


class Watchdog:
    """End this process if the loop has given no sign of life for some seconds.

    Code that hangs and lets other threads run is found by the thread of the watchdog. Code in C
    that keeps the interpreter's lock stops that thread too: then the timer of `faulthandler` ends
    the process, which needs no lock.
    """

    def __init__(self, loop: AbstractEventLoop, limit: float):
        self._loop = loop
        self._limit = limit
        self._seen_at = time.monotonic()
        self._stopped = threading.Event()
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="perdure-watchdog", daemon=True)

    def start(self) -> None:
        """Begin, in the thread of the loop."""
        self._wind_up()
        self._thread.start()

    def stop(self) -> None:
        """Stop, even if it has not begun."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            while not self._stopped.wait(min(TICK, self._limit / 4)):
                self._wind_up()
                self._watch()
        except RuntimeError:  # the loop has ended
            pass
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _wind_up(self) -> None:
        faulthandler.dump_traceback_later(self._limit, exit=True, file=STDERR)

    def _watch(self) -> None:
        self._loop.call_soon_threadsafe(self._sign)
        frame = sys._current_frames().get(self._loop_thread)
        if time.monotonic() - self._seen_at > self._limit and not is_debugged(frame):
            logger.critical(
                "the worker's loop hangs, and its leases have ended: the process ends, for its"
                " supervisor to start another"
            )
            faulthandler.dump_traceback(file=STDERR)
            os._exit(1)

    def _sign(self) -> None:
        self._seen_at = time.monotonic()


def is_debugged(frame: FrameType | None) -> bool:
    """Tell whether a debugger has stopped the code of a frame."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in DEBUGGERS:
            return True
        frame = frame.f_back
    return False
