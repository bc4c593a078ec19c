"""The load of the storms: callers that write memories, and customers that start jobs and serve
them.

Callers speak SQL on a plain connection, as a client in any language does, and repeat a call without
an answer under the same key. Customers use the Python client, which does that by itself.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, TypeVar

import psycopg
import pytest

import perdure
from perdure.database.connections import can_be_repeated
from tests.races.linearizability import Event, violations
from tests.races.memory_model import Command, State
from tests.races.sessions import Session
from tests.races.test_random_history import JOBS, Writer, any_command, with_versions
from tests.storms.history import Asked, History
from tests.storms.storm_app import NAP, TIDY
from tests.storms.workers import GRACE
from tests.worker.test_recovery import RESULT

T = TypeVar("T")

BOUND = 60.0
"""Seconds after the last fault in which everything must have ended."""
FOR_EVER = 1e6
LOOK = 5.0
BOOK = 3
LETTERS = 6
WORDS = 20


@dataclass
class Wind:
    """The state of the storm that callers and customers share."""

    dsn: str
    history: History
    ends: threading.Event = field(default_factory=threading.Event)
    """Set when no further work is to begin."""
    healed_at: float | None = None
    jobs: Counter[str] = field(default_factory=Counter)
    """Jobs that have ended right, by workflow."""
    wrong: list[str] = field(default_factory=list)
    """The violations that were found."""

    def seconds_left(self) -> float:
        """Return how long a wait may still last: without a limit while faults go on."""
        return FOR_EVER if self.healed_at is None else self.healed_at + BOUND - time.monotonic()

    def wait(self, look: Callable[[float], T]) -> T:
        """Wait in steps of a few seconds, until the limit after the last fault."""
        while True:
            try:
                return look(max(0.0, min(self.seconds_left(), LOOK)))
            except (TimeoutError, psycopg.OperationalError):
                if self.seconds_left() <= 0:
                    raise

    def must_be(self, is_so: bool, what: str) -> None:
        """Record a violation unless a condition is true; the storm goes on."""
        if not is_so:
            self.wrong.append(what)


class Line(Session):
    """A session that is set up by its connection string; each statement on it is a call."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.name = "perdure caller"


class Caller(Writer):
    """Sends commands to hot memories on its own connection, which breaks."""

    def __init__(self, number: int, wind: Wind, chance: random.Random) -> None:
        self.client = number
        self.chance = chance
        self.told: list[tuple[str, str | None, Event]] = []
        self.seen = dict.fromkeys(JOBS, 0)
        self.repeats = 0
        self.name = f"caller {number}"
        self._wind = wind
        self._connection: psycopg.Connection[Any] | None = None

    def run_until_the_end(self) -> None:
        """Write and read until the storm is over."""
        number = 0
        while not self._wind.ends.is_set():
            number += 1
            job = self.chance.choice(JOBS)
            if self.chance.random() < 0.1:
                self.read(job)
            else:
                self.write(job, any_command(self.chance, self.seen[job]), f"{self.name} {number}")
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def read(self, job: str) -> None:
        """Read document and version at one moment."""
        began = time.monotonic()
        context, version = self._asked("read", job, lambda: self.session.memory(job))
        self.seen[job] = version
        self.note(job, None, None, began, time.monotonic(), context, version)

    def call(self, job: str, it: Command, key: str) -> Any:
        """Send a command, again and again under the same key, until there is an answer."""
        tries = count()

        def call() -> Any:
            return super(Caller, self).call(job, it, self.key_of(key, next(tries)))

        return self._asked(it.op, job, call)

    def key_of(self, key: str, tries: int) -> str:
        """Return the key of a command after so many tries."""
        return key

    def _asked(self, verb: str, job: str, ask: Callable[[], Any]) -> Any:
        with self._wind.history.asked(self.name, verb, job) as asked:
            refused = self._answered(ask, asked)
        if refused is not None:
            raise refused
        return asked.answer

    def _answered(self, ask: Callable[[], Any], asked: Asked) -> psycopg.Error | None:
        """Send until there is an answer; return the error if that is the answer."""
        while True:
            try:
                self._connect()
                asked.answer = ask()
            except psycopg.Error as error:
                if not can_be_repeated(error, self._is_connected()):
                    asked.answer = error.sqlstate
                    return error
                asked.lost(error)
                if self._wind.seconds_left() < 0:
                    raise
                time.sleep(self.chance.uniform(0.005, 0.05))
            else:
                return None

    def _is_connected(self) -> bool:
        return self._connection is not None and not self._connection.closed

    def _connect(self) -> None:
        if self._is_connected():
            return
        self._connection = psycopg.connect(
            self._wind.dsn,
            autocommit=True,
            application_name="perdure caller",
            options="-c search_path=pg_catalog,perdure,public",
        )
        self.session = Line(self._connection)


class Shop:
    """The orders of customers, each with its own id, and how each must end."""

    def __init__(self, name: str, wind: Wind, client: perdure.Client, chance: random.Random):
        self.name = name
        self.wind = wind
        self.client = client
        self.chance = chance
        self._orders = 0
        self.orders: dict[str, Callable[[str], None]] = {
            "book": self.book,
            "mailbox": self.mailbox,
            "naps": self.naps,
            "patient": self.patient,
            "counts_on": self.counts_on,
            "sums": self.sums,
            "laps": self.laps,
            "one_slow": self.one_slow,
            "speaks": self.speaks,
            "speaks_far": self.speaks_far,
        }

    def avoid(self, workflows: frozenset[str]) -> None:
        """Remove these workflows from the orders."""
        for workflow in workflows:
            del self.orders[workflow]

    def run_until_the_end(self) -> None:
        """Place one order after the other until the storm is over."""
        while not self.wind.ends.is_set():
            self._orders += 1
            workflow = self.chance.choice(list(self.orders))
            job = f"{self.name} {self._orders} {workflow}"
            self.orders[workflow](job)
            self.wind.jobs[workflow] += 1

    # Some calls are made twice, as after a lost reply.

    def _ask(self, verb: str, about: str, call: Callable[[], Any]) -> Any:
        with self.wind.history.asked(self.name, verb, about) as asked:
            asked.answer = call()
            if self.chance.random() < 0.1:
                call()
        return asked.answer

    def start(self, job: str, workflow: str, *args: Any) -> perdure.Handle:
        """Start a job."""

        def start() -> str:
            return self.client.start(workflow, *args, id=job, key=f"start {job}").id

        self.wind.must_be(self._ask("start", job, start) == job, f"{job} has another id")
        return self.client.handle(job)

    def ends(self, job: str, wanted: Any, version: int) -> None:
        """Wait for a job to end, and compare its result and version."""
        with self.wind.history.asked(self.name, "result", job) as asked:
            result = asked.answer = self.wind.wait(self.client.handle(job).result)
        self.wind.must_be(result == wanted, f"{job} gave {result}, not {wanted}")
        self.has_version(job, version)

    def has_version(self, job: str, wanted: int) -> None:
        """Compare the version of a memory, which shows a command too many or too few."""
        have = self.client.handle(job).status().version
        self.wind.must_be(have == wanted, f"{job} is at version {have}, not {wanted}")

    def book(self, job: str) -> None:
        """Hooks in parallel, with activities and signals."""
        memory = self.start(job, "book", BOOK).memory
        self.ends(job, RESULT, 2 + 4 * BOOK)
        pages = sorted(memory.get("pages"))
        self.wind.must_be(pages == list(range(2 * BOOK)), f"{job} has the pages {pages}")

    def mailbox(self, job: str) -> None:
        """Signals: each is received once, in order."""
        handle = self.start(job, "mailbox", LETTERS)
        for number in range(LETTERS):
            key = f"letter {number}"
            call = lambda n=number, k=key: handle.signal("letter", n, key=k)  # noqa: E731
            self._ask("signal", job, call)
        self.ends(job, list(range(LETTERS)), LETTERS // 3)

    def naps(self, job: str) -> None:
        """A timer: it is not early, and fires once."""
        handle = self.start(job, "naps")
        slept = self.wind.wait(handle.result)
        self.wind.must_be(slept >= NAP, f"{job} slept for {slept} s")
        self.has_version(job, 0)

    def patient(self, job: str) -> None:
        """A request to cancel: parked hooks receive it too, and each cleans up once."""
        handle = self.start(job, "patient")
        memory = handle.memory
        self.wind.wait(partial(memory.until, f"$.begun == {TIDY}"))
        time.sleep(self.chance.uniform(0, 4 * GRACE))
        self._ask("cancel", job, handle.cancel)
        with pytest.raises(perdure.JobCancelled):
            self.wind.wait(handle.result)
        self.wind.wait(partial(memory.until, f"$.cleaned == {TIDY}"))
        self.has_version(job, 2 * TIDY)

    def counts_on(self, job: str) -> None:
        """A condition that commands from outside make true."""
        memory = self.start(job, "counts_on", 3).memory
        for number in range(3):
            call = lambda n=number: memory.increment("n", key=f"count {n}")  # noqa: E731
            told = self._ask("increment", job, call)
            self.wind.must_be(told == number + 1, f"{job} counts {told}, not {number + 1}")
        self.ends(job, "counted", 3)

    def sums(self, job: str) -> None:
        """Children, and a signal to the own job."""
        self.start(job, "sums", [1, 2, 3])
        self.ends(job, ["begun", 6], 0)

    def laps(self, job: str) -> None:
        """Runs that continue, one of which fails once."""
        self.start(job, "laps", 1, 3)
        self.ends(job, 4, 4)

    def one_slow(self, job: str) -> None:
        """A hook that works for longer than a heartbeat."""
        memory = self.start(job, "one_slow").memory
        self.ends(job, "slow", 3)
        log = memory.get("log")
        self.wind.must_be(log == ["begun", "done"], f"{job} has the log {log}")

    def speaks(self, job: str) -> None:
        """A stream: the last attempt has published all items, in order."""
        handle = self.start(job, job.rpartition(" ")[2], WORDS)
        with self.wind.history.asked(self.name, "stream", job):
            said: dict[str | None, list[int]] = {}
            for item in handle.stream("words", timeout=self.wind.seconds_left()):
                said.setdefault(item.attempt, []).append(item.item)
        for attempt, words in said.items():
            in_order = words == list(range(1, len(words) + 1))
            self.wind.must_be(in_order, f"{job} has said {words} in attempt {attempt}")
        whole = [len(words) for words in said.values()][-1:]
        self.wind.must_be(whole == [WORDS], f"{job} has said {said}")

    speaks_far = speaks


def broken_memories(look: Session, callers: list[Caller]) -> list[str]:
    """Return the memories whose answers no order of commands explains.

    Acknowledged commands are in the history once, versions have no gap, each answer is right, and
    the order agrees with the clock.
    """
    wrong: list[str] = []
    for job in JOBS:
        events = with_versions(look, job, list(callers))
        wrong += violations(events, State({}, 0), State(*look.memory(job)))
    return wrong
