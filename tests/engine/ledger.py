"""The ledger: the real executions of activities, written down outside of PostgreSQL as they
happen."""

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
    """A place where activities record their executions."""

    def note(self) -> None:
        """Record an execution of the running activity."""


def running_call() -> Call:
    """Return the call of the running activity."""
    info = perdure.info()
    key = (info.key or "").removeprefix(f"{info.job}/{info.task}").removeprefix("/")
    return info.job, info.task, key, info.attempt


class Ledger:
    """The executions of activities by call, and those that violate a promise."""

    def __init__(self, stage: Stage) -> None:
        self.executions: Counter[Call] = Counter()
        self.violations: list[str] = []
        self.is_strict = True
        self._stage = stage
        self._lock = stage.lock
        self._in_this_life: Counter[Call] = Counter()

    def clear(self) -> None:
        """Start a new run."""
        self.executions.clear()
        self.violations.clear()
        self.next_life()
        self.is_strict = True

    def next_life(self) -> None:
        """Start counting the executions of one worker."""
        with self._lock:
            self._in_this_life.clear()

    def note(self) -> None:
        """[P4] Record an execution of the running activity.

        It must not run if its result is recorded, nor twice in one worker, which knows what it did.
        (A worker whose lease was stolen cannot know: the ledger is not strict then.)
        """
        call, stage = running_call(), self._stage
        with self._lock:
            if stage.is_dead:  # a thread of a dead worker runs on
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
    """A ledger that survives the process: one line for each execution."""

    def __init__(self, path: str) -> None:
        self.path = path

    def note(self) -> None:
        """Write a line, which survives an immediate kill of the process."""
        with Path(self.path).open("a") as file:
            file.write(f"{running_call()}\n")

    def read(self) -> Counter[str]:
        """Return the executions by call."""
        path = Path(self.path)
        return Counter(path.read_text().splitlines() if path.exists() else ())
