"""The ledger: what activities really did, written down outside of PostgreSQL as it happens."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import perdure

if TYPE_CHECKING:
    from tests.engine.crashing import Stage

Call = tuple[str, str, str, int]
"""A call of an activity: job, task, key, and the attempt (0 first)."""

RECORDED = """
select exists (
    select from journal
     where job_id = %s and task = %s and key = %s
       and kind = 'activity')
    or %s < (
    select count(*) from journal
     where job_id = %s and task = %s and key = %s
       and kind = 'attempt')
"""

ENDED = """
select not exists (
    select from tasks
     where (job_id, task, '') = (%s, %s, %s)
       and attempt = %s
       and (job_id, task, '') = (%s, %s, %s))
"""


class Book(Protocol):
    """Where activities write."""

    def note(self) -> None:
        """Write down that the running activity is executed."""


def running_call() -> Call:
    """Name the call of the activity that runs."""
    info = perdure.info()
    key = (info.key or "").removeprefix(f"{info.job}/{info.task}").removeprefix("/")
    return info.job, info.task, key, info.attempt


class Ledger:
    """Executions of activities by call, and those that should not have been."""

    def __init__(self, stage: Stage) -> None:
        self.executions: Counter[Call] = Counter()
        self.violations: list[str] = []
        self.is_strict = True
        self._stage = stage
        self._lock = stage.lock
        self._in_this_life: Counter[Call] = Counter()

    def clear(self) -> None:
        """Begin a new run."""
        self.executions.clear()
        self.violations.clear()
        self.next_life()
        self.is_strict = True

    def next_life(self) -> None:
        """Begin to count what one worker does."""
        with self._lock:
            self._in_this_life.clear()

    def note(self) -> None:
        """Write down that the running activity is executed. [P4]

        It must not be if its result is recorded; nor twice by one worker, which knows what it did.
        (A worker whose lease was stolen cannot know: the ledger is not strict then.)
        """
        call, stage = running_call(), self._stage
        with self._lock:
            if stage.is_dead:  # what runs on in a thread is not there any more
                return
            self.executions[call] += 1
            self._in_this_life[call] += 1
            if not self.is_strict:
                return
            if self._in_this_life[call] > 1:
                self.violations.append(f"{call} is executed twice by one worker")
            if stage.one(RECORDED if call[2] else ENDED, *call[:3], call[3], *call[:3]):
                self.violations.append(f"{call} is executed though its outcome is recorded")


class Paper:
    """A ledger that outlives the process: one line an execution."""

    def __init__(self, path: str) -> None:
        self.path = path

    def note(self) -> None:
        """Write a line: it is there even if the process is killed at once."""
        with Path(self.path).open("a") as file:
            file.write(f"{running_call()}\n")

    def read(self) -> Counter[str]:
        """Give the executions by call."""
        path = Path(self.path)
        return Counter(path.read_text().splitlines() if path.exists() else ())
