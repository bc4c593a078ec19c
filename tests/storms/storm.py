"""A storm: load, faults drawn from a seed, then calm, and a judgment of the result.

Every given answer holds, nothing is done twice, versions have no gaps, the invariants hold after
every fault, everything ends in time after the last fault, tables and indexes are undamaged, and the
server's log has no errors that the faults do not explain.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import perdure
from tests.amount import seed
from tests.databases import broken_invariants, connected
from tests.races.sessions import Session
from tests.races.test_random_history import JOBS
from tests.storms.cluster import Cluster
from tests.storms.damage import damage
from tests.storms.figures import Figures
from tests.storms.history import History
from tests.storms.load import Caller, Shop, Wind, broken_memories
from tests.storms.points import Fuse
from tests.storms.workers import LATE, Crew
from tests.worker.test_recovery import Bank

CALLERS = 2
CUSTOMERS = 4

Deed = Callable[[random.Random], object]

EXPECTED = {
    "57014",
    "57P01",
    "57P02",
    "57P03",
    "55P03",
    "40001",
    "25P03",
    "08006",
    "08P01",
    "F0001",
}
"""Errors in the server's log that faults explain, besides refusals (PD...): limits and operators,
stops and starts, connections that break, and files and memory of a postmaster that was killed."""


@dataclass
class Faults:
    """The possible faults and their frequency; the seed decides which is next, and when."""

    deeds: dict[str, Deed]
    pause: tuple[float, float]
    """The least and the most seconds between two faults."""
    each: int = 1
    """Invariants are checked after so many faults: more than one if faults follow quickly."""
    chance: random.Random = field(default_factory=random.Random)

    def draw(self) -> tuple[str, float]:
        """Return the next fault, and the pause before it."""
        return self.chance.choice(list(self.deeds)), self.chance.uniform(*self.pause)


@dataclass
class Storm:
    """One storm on one database of a cluster."""

    name: str
    cluster: Cluster
    direct: str
    """The DSN that only faults of the server itself disturb."""
    dsn: str
    """The DSN of workers and clients."""
    folder: Path
    seed: str = field(default_factory=seed)
    callers: int = CALLERS
    customers: int = CUSTOMERS
    promises: str = ""
    """The promises that it tests."""
    avoid: frozenset[str] = frozenset()
    """The workflows that customers do not order."""
    looks: Callable[[str], list[Any]] = broken_invariants
    """Returns the broken invariants."""

    def __post_init__(self) -> None:
        self.figures = Figures(self.name, self.seed, self.promises)
        self.history = History(self.folder / "history")
        self.wind = Wind(self.dsn, self.history)
        self.cluster.begin_log()
        self._crew: Crew | None = None
        self._callers = [
            Caller(number, self.wind, self.random(f"caller {number}"))
            for number in range(self.callers)
        ]

    def random(self, what: str) -> random.Random:
        """Return a random generator that depends on the seed."""
        return random.Random(f"{self.seed} {self.name} {what}")

    # Faults.

    def blow(self, faults: Faults, amount: int) -> None:
        """Make the faults, one after the other."""
        faults.chance = self.random("faults")
        for number in range(amount):
            deed, pause = faults.draw()
            time.sleep(pause)
            faults.deeds[deed](faults.chance)
            self.history.fault(deed)
            if (number + 1) % faults.each == 0:
                self.look(f"after {deed}")

    def look(self, when: str) -> None:
        """Check the invariants, which must hold at any moment."""
        broken = self.cluster.when_it_answers(lambda: self.looks(self.direct))
        self.wind.wrong.extend(f"{when}: {law}" for law in broken)

    # The load.

    @contextmanager
    def crew(self, size: int, fuses: Sequence[Fuse] = ()) -> Iterator[Crew]:
        """Keep so many worker processes at work during a block."""
        self._crew = Crew(self.dsn, self.folder, size, fuses)
        with self._crew.at_work() as crew:
            yield crew

    @contextmanager
    def load(self) -> Iterator[None]:
        """Run callers and customers; they end after the block."""
        with connected(self.direct) as connection:
            for job in JOBS:
                connection.execute("select entity_create(%s, 'hot')", [job])
        began = time.monotonic()
        with perdure.connect(self.dsn) as client:
            shops = [
                Shop(f"customer {number}", self.wind, client, self.random(f"customer {number}"))
                for number in range(self.customers)
            ]
            for shop in shops:
                shop.avoid(self.avoid)
            self._bank = Bank(client, self.direct)
            works = [one.run_until_the_end for one in (*self._callers, *shops)]
            threads = [
                threading.Thread(target=self._run, args=[work], daemon=True)
                for work in (*works, self._transfer)
            ]
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                self.wind.healed_at = time.monotonic()
                self.wind.ends.set()
                for thread in threads:
                    thread.join(max(0.0, self.wind.seconds_left() + 5))
                late = [thread.name for thread in threads if thread.is_alive()]
                self.wind.must_be(late == [], f"not over in time: {late}")
                self.figures.seconds = time.monotonic() - began

    def _transfer(self) -> None:
        """Transfer money in transactions of jobs until the storm is over."""
        while not self.wind.ends.is_set():
            self._bank.begin(4)
            self.wind.wait(self._bank.wait)
            self.wind.jobs["transfer"] += 4

    def _run(self, what: Callable[[], None]) -> None:
        try:
            what()
        except BaseException as error:  # noqa: BLE001 - the storm reports it
            self.wind.wrong.append(repr(error))

    # Judgment.

    def late_turns(self) -> int:
        """Count the turns of workers that had lost their tasks; none was applied."""
        path = self.folder / LATE
        return len(path.read_text().splitlines()) if path.exists() else 0

    def judge(self) -> list[str]:
        """Return all violations."""
        self.look("in the calm")
        wrong = self.wind.wrong
        with connected(self.direct) as connection:
            look = Session(connection, connection, "storm")
            if not wrong:
                wrong += broken_memories(look, self._callers)
            wrong += [f"stuck: {row}" for row in look.run(STUCK)]
            wrong += [f"recorded twice: {row}" for row in look.run(TWICE)]
            wrong += damage(connection)
        wrong += self.cluster.wrong_lines() + self._broken_bank()
        wrong += [] if self._crew is None else self._crew.failures
        wrong += [
            f"{count} times {code} in the log"
            for code, count in self.cluster.errors().items()
            if code not in EXPECTED and not code.startswith("PD")
        ]
        self._count(wrong)
        return wrong

    def _broken_bank(self) -> list[str]:
        try:
            self._bank.check()
        except AssertionError as error:
            return [f"money is lost or made: {error}"]
        return []

    def _count(self, wrong: list[str]) -> None:
        operations = self.history.operations()
        self.figures.faults += self.history.faults().total()
        self.figures.operations += len(operations)
        self.figures.unknown = sum(operation.unknown for operation in operations)
        self.figures.jobs = self.wind.jobs.total()
        self.figures.violations = len(wrong)
        self.figures.deaths = 0 if self._crew is None else self._crew.deaths


STUCK = "select job_id, task, name, stuck_reason from tasks where stuck_reason is not null"

# No code runs the workflow `w`: sessions of the tests report any facts about its tasks.
TWICE = """
select f.job_id, f.task, f.key, count(*)
  from journal as f
  join jobs as j on j.id = f.job_id and j.workflow <> 'w'
 where f.kind in ('activity', 'answer')
 group by f.job_id, f.task, f.key
having count(*) > 1
"""
