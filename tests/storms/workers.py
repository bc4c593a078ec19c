"""Worker processes that die: forked from one that has all modules loaded, so that they are cheap.

The process that forks is Python's own fork server. It starts with a fixed PYTHONHASHSEED, as the
command line starts workers.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from perdure.database import connections, source, worker_calls
from perdure.workers import heartbeats, waits
from perdure.workers.engine import Engine
from perdure.workers.turns import Turn
from tests.databases import SCHEMA
from tests.storms.faulty import meet_faults
from tests.storms.points import ORDERLY, Fuse, Passages, pass_through

ROOT = Path(__file__).parents[2]
LATE = "late turns"
"""The file in which workers record that they have lost a task."""
LEASE = 0.8
"""Seconds until the task of a dead worker is due again."""
LONGEST_PAUSE = 0.2
"""Seconds between two tries of a call in storms; otherwise up to 5."""
GRACE = 0.05
"""Seconds that a hook waits in memory before it parks; otherwise 1."""
LONGEST_STOP = 600
"""Seconds for which a storm may stop a worker that then continues; otherwise 60, and a lease."""
AT_WORK = 0.4
"""Seconds that a worker lives before it is asked to stop, if its fuse needs that."""


def work(dsn: str, folder: str, fuse: Fuse | None) -> None:
    """Run a worker in this process until it is killed."""
    log = os.open(f"{folder}/worker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.WARNING, format="%(process)d %(asctime)s %(message)s")
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    os.environ |= {"LEDGER": f"{folder}/ledger", "SLOW": str(LEASE / 2)}
    connections.LONGEST_PAUSE = LONGEST_PAUSE
    waits.GRACE = GRACE
    heartbeats.HUNG_AFTER = LONGEST_STOP
    worker_calls.COMMIT_WITHIN = f"{2 * LEASE} s"
    if fuse is not None:
        pass_through(Passages(fuse, f"{folder}/points"))
    note_late_turns(Path(folder) / LATE)
    if "PERDURE_FAULTS" in os.environ:
        meet_faults()
    from tests.storms.storm_app import app

    provide(dsn)
    perdure.Worker(app, dsn=dsn, lease=LEASE, poll=1, grace=1, provision=False).run()


def note_late_turns(path: Path) -> None:
    """Record each turn of this worker whose answer says that its task is lost."""
    answer = Engine.answer

    def noting(engine: Engine, turn: Turn, told: dict[str, Any]) -> None:
        if told["state"] in ("fenced", "gone"):
            with path.open("a") as file:
                file.write(f"{os.getpid()} {turn}\n")
        answer(engine, turn, told)

    Engine.answer = noting  # type: ignore[method-assign]


def provide(dsn: str) -> None:
    """Check that the app is installed, as a worker does first. Its caller repeats that, as a storm
    may leave its sessions no time for it."""
    while True:
        with suppress(psycopg.OperationalError, perdure.InvalidArgument):
            source.Source(dsn, SCHEMA).provision()
            return
        time.sleep(LONGEST_PAUSE)


def _end_with(parent: int) -> None:
    """End when the process that has forked this one has ended."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def prepared() -> Any:
    """Return the context that forks workers, with all modules loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.storms.storm_app", "tests.storms.workers"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONHASHSEED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "python"), str(ROOT)]))
        patch.chdir(ROOT)
        forkserver.ensure_running()
    return context


@dataclass
class Hand:
    """A worker process, and its fuse."""

    process: BaseProcess
    fuse: Fuse | None
    began: float
    is_asked_to_stop: bool = False

    @property
    def pid(self) -> int:
        """Return its process id."""
        assert self.process.pid is not None
        return self.process.pid

    @property
    def age(self) -> float:
        """Return the seconds that it has lived."""
        return time.monotonic() - self.began

    def tell(self, number: int) -> None:
        """Send it a signal, if it lives."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Crew:
    """So many worker processes: a dead one is replaced, as by a service manager.

    As long as there are fuses, each new worker gets the next one.
    """

    def __init__(self, dsn: str, folder: Path, size: int, fuses: Sequence[Fuse] = ()) -> None:
        self.size = size
        self.hands: list[Hand] = []
        self.fuses = deque(fuses)
        self.deaths = 0
        self.failures: list[str] = []
        self._dsn = dsn
        self._folder = folder
        self._context = prepared()
        self._lock = threading.RLock()
        self._ends = threading.Event()

    # Faults.

    def kill(self, chance: random.Random) -> None:
        """Kill a worker by `kill -9`."""
        self._any(chance).tell(signal.SIGKILL)

    def retire(self, chance: random.Random) -> None:
        """Ask a worker to stop."""
        hand = self._any(chance)
        if not hand.is_asked_to_stop:  # a second signal would stop it at once
            hand.is_asked_to_stop = True
            hand.tell(signal.SIGTERM)

    def wake(self) -> None:
        """Continue the stopped workers."""
        for hand in list(self.hands):
            hand.tell(signal.SIGCONT)

    def stop(self, chance: random.Random, seconds: float) -> None:
        """Stop a worker for longer than its leases, then let it continue as a zombie."""
        hand = self._any(chance)
        hand.tell(signal.SIGSTOP)
        threading.Timer(seconds, hand.tell, [signal.SIGCONT]).start()

    def _any(self, chance: random.Random) -> Hand:
        with self._lock:
            return chance.choice(self.hands)

    # Replacement.

    @contextmanager
    def at_work(self) -> Iterator[Crew]:
        """Keep the number of workers during a block; then kill all."""
        tender = threading.Thread(target=self._tend_all, daemon=True)
        tender.start()
        try:
            yield self
        finally:
            self._ends.set()
            tender.join()
            self._close()

    def _tend_all(self) -> None:
        while not self._ends.wait(0.02):
            with self._lock:
                for hand in list(self.hands):
                    self._tend(hand)
                while len(self.hands) < self.size:
                    self._start()

    def _tend(self, hand: Hand) -> None:
        """Replace a dead worker, or ask a worker to stop when it is time."""
        if hand.process.exitcode is not None:
            self.hands.remove(hand)
            self.deaths += 1
            if hand.process.exitcode not in (0, -signal.SIGKILL, -signal.SIGTERM):
                self.failures.append(f"a worker has ended by itself: {hand.process.exitcode}")
            if hand.fuse is not None and hand.process.exitcode != -signal.SIGKILL:
                self.fuses.append(hand.fuse)  # it has not burnt
        elif (
            hand.fuse is not None
            and hand.fuse.point in ORDERLY
            and hand.age > AT_WORK
            and not hand.is_asked_to_stop
        ):
            hand.is_asked_to_stop = True
            hand.tell(signal.SIGTERM)

    def _start(self) -> None:
        fuse = self.fuses.popleft() if self.fuses else None
        process = self._context.Process(
            target=work, args=(self._dsn, str(self._folder), fuse), daemon=True
        )
        process.start()
        self.hands.append(Hand(process, fuse, time.monotonic()))

    def _close(self) -> None:
        for hand in self.hands:
            hand.process.kill()
            hand.process.join(5)
