"""A mass of timers: when each was due, which were cancelled, and how they fired.

All times are the database's. A timer whose cancel was answered before it was due must not fire; one
that was cancelled later may have fired.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import psycopg

import perdure

TABLE = "create table fired (job text not null, due_at timestamptz, at timestamptz)"
AT_ONCE = 20
"""Timers that are set between two readings of the clock; then two of the latest are cancelled."""
LATEST = 5 * AT_ONCE
LEAST = 0.2
"""Seconds until a timer is due, at least."""


@dataclass
class Timer:
    """A timer that was set."""

    job: str
    due_at: datetime
    """It must not fire before this time."""
    cancel: Callable[[], bool] = lambda: False
    counts: frozenset[int] = frozenset({1})
    """The permitted numbers of times that it has fired in the end."""


Firing = tuple[str, datetime, datetime]
"""The job, its due time as its own code computed it, and the time when it fired."""


def misfires(timers: Iterable[Timer], firings: Iterable[Firing]) -> list[str]:
    """Return what is wrong with the firings of each timer."""
    wrong = []
    fired: dict[str, list[Firing]] = defaultdict(list)
    for firing in firings:
        fired[firing[0]].append(firing)
    for timer in timers:
        its = fired.pop(timer.job, [])
        if len(its) not in timer.counts:
            wrong.append(f"{timer.job} has fired {len(its)} times, not {set(timer.counts)}")
        for _, due_at, at in its:
            if at < max(due_at, timer.due_at):
                wrong.append(f"{timer.job} has fired at {at}, before {max(due_at, timer.due_at)}")
    return wrong + [f"{job} has fired, and is no timer" for job in fired]


@dataclass
class Clockmaker:
    """Sets timers of all kinds, and cancels some, whatever happens to the server meanwhile."""

    client: perdure.Client
    url: str
    chance: random.Random
    within: float
    """Seconds in which a timer is due, at most."""
    timers: list[Timer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ask(TABLE)
        self._numbers = count(1)
        self._now = self.now()
        self._kinds = (
            self._sleep, self._wait_in_vain, self._sleep_until, self._begin_later, self._ring,
        )  # fmt: skip

    def set(self, many: int) -> None:
        """Set so many timers, and cancel about every tenth of them."""
        while len(self.timers) < many:
            self._now = self.now()
            for _ in range(min(AT_ONCE, many - len(self.timers))):
                seconds = self.chance.uniform(LEAST, self.within)
                name = f"timer {next(self._numbers)}"
                self.timers.append(self.chance.choice(self._kinds)(name, seconds))
            self._cancel(self.chance.sample(self.timers[-LATEST:], AT_ONCE // 10))

    def set_for_one_second(self, many: int) -> datetime:
        """Set so many timers that are due within one later second; return its beginning."""
        begin = self.now() + timedelta(seconds=self.within)
        names = [f"timer {number}" for number in range(many)]
        dues = [begin + timedelta(seconds=self.chance.random()) for _ in names]
        for first in range(0, many, AT_ONCE):
            batch = list(zip(names, dues, strict=True))[first : first + AT_ONCE]
            self._many("sleeps_until", batch[0::3])
            self._many("begins_later", batch[1::3], is_late=True)
            for name, due_at in batch[2::3]:
                self._hook(name, due_at)
        self.timers += [Timer(name, due_at) for name, due_at in zip(names, dues, strict=True)]
        return begin

    def _many(self, workflow: str, some: list[tuple[str, datetime]], is_late: bool = False) -> None:
        self.client.start_many(
            workflow,
            [
                {"id": job, "args": [due_at.isoformat()]} | ({"due_at": due_at} if is_late else {})
                for job, due_at in some
            ],
        )

    def _cancel(self, some: list[Timer]) -> None:
        for timer in some:
            timer.cancel()
        now = self.now()
        for timer in some:
            timer.counts = frozenset({0} if now < timer.due_at else timer.counts | {0})

    def await_time(self, time_: datetime) -> None:
        """Wait until that time by the database's clock."""
        time.sleep(max(0.0, (time_ - self.now()).total_seconds()))

    def wait(self, seconds: float) -> None:
        """Wait until all timers have ended, after the last fault."""
        until = time.monotonic() + seconds
        while left := self._ask("select job_id, task from perdure.tasks where job_id ~ '^timer '"):
            assert time.monotonic() < until, left
            time.sleep(0.1)

    def now(self) -> datetime:
        """Return the time of the database."""
        (row,) = self._ask("select clock_timestamp()")
        return row[0]

    def firings(self) -> list[Firing]:
        """Return the firings."""
        return self._ask("select job, due_at, at from fired")

    def lateness(self) -> str:
        """Describe by how much timers were late."""
        late = sorted((at - due_at).total_seconds() for _, due_at, at in self.firings())
        half, most = late[len(late) // 2], late[len(late) * 99 // 100]
        return f"late by {half:.3f} s (half), {most:.3f} s (99 %), at most {late[-1]:.3f} s"

    def _ask(self, query: str) -> list[Any]:
        """Run a query on a new connection until there is an answer."""
        while True:
            with (
                suppress(psycopg.OperationalError),
                psycopg.connect(self.url, autocommit=True) as connection,
            ):
                cursor = connection.execute(query.encode())
                return cursor.fetchall() if cursor.description else []
            time.sleep(0.01)

    # The kinds of timers.

    def _start(self, workflow: str, job: str, seconds: float, *args: Any, **options: Any) -> Timer:
        handle = self.client.start(workflow, *args, id=job, **options)
        return Timer(job, self._due_at(seconds), handle.cancel)

    def _due_at(self, seconds: float) -> datetime:
        return self._now + timedelta(seconds=seconds)

    def _sleep(self, job: str, seconds: float) -> Timer:
        return self._start("sleeps", job, seconds, seconds)

    def _wait_in_vain(self, job: str, seconds: float) -> Timer:
        return self._start("waits_in_vain", job, seconds, seconds)

    def _sleep_until(self, job: str, seconds: float) -> Timer:
        return self._start("sleeps_until", job, seconds, self._due_at(seconds).isoformat())

    def _begin_later(self, job: str, seconds: float) -> Timer:
        due_at = self._due_at(seconds)
        return self._start("begins_later", job, seconds, due_at.isoformat(), due_at=due_at)

    def _ring(self, job: str, seconds: float) -> Timer:
        due_at = self._due_at(seconds)
        return Timer(job, due_at, self._hook(job, due_at))

    def _hook(self, job: str, due_at: datetime) -> Callable[[], bool]:
        """Set a hook from outside; return the function that cancels it."""
        self.client.create_entity(job, "bell")
        handle = self.client.handle(job)
        task = handle.hook("rings", due_at.isoformat(), due_at=due_at, key="ring")
        return lambda: handle.cancel_hook(task)
