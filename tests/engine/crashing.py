"""A stage for crashes: workers live and die on one event loop, at any point that a test names.

A life is an engine on connections of the stage. A point is passed at each `crash_point` of the
package and whenever a call is committed. A kill there raises `Killed`, which stops the loop on the
spot, as `kill -9` stops a process: no code of the worker runs any more, but calls that it has sent
are sent. The next life has a new engine, and the owner makes the dead worker's leases due.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

import perdure
from perdure.basics import faults
from perdure.database import connections
from perdure.database.call import Call
from perdure.database.connections import AsyncLink
from perdure.database.sending import send_async
from perdure.database.source import Source
from perdure.workers import waits
from perdure.workers.engine import Engine
from perdure.workers.event_loop import new_loop
from perdure.workers.hook_tasks import make_task
from tests.databases import PLAIN, POOLED, find_app
from tests.engine.ledger import Ledger
from tests.engine.outside import Outside, Step

Json = dict[str, Any]
SCHEMA = "perdure"
QUEUES = ["default", "far"]
TICK = 0.003  # seconds between two steps of the outside world
PATIENCE = 8.0  # seconds that a life may last
TABLES = (
    "tasks", "journal", "inbox", "snapshots", "conditions", "items", "workers", "listeners", "jobs"
)  # fmt: skip

# In the lock order of the laws, and without waiting for locks.
END_LEASES = """
with held as materialized (
    select job_id, task
      from tasks
     where token is not null
       and {}
     order by job_id, task
       for no key update skip locked
)
update tasks as t
   set due_at = clock()
  from held as h
 where (t.job_id, t.task) = (h.job_id, h.task)
"""


class Killed(KeyboardInterrupt):
    """The worker is dead. (A KeyboardInterrupt, because an event loop lets that through.)"""


class Wedged(AssertionError):
    """A life does not end."""


@dataclass(frozen=True)
class Faults:
    """The faults of one life of a worker."""

    kill_at: int | None = None
    """The point at which the worker is killed; None: it lives to the end."""
    kill_when: Callable[[Outside], bool] | None = None
    """Checked at each point and between points; the worker is killed once it is true."""
    orderly: bool = False
    """Whether the worker is stopped at that point instead of killed."""
    lose_every: int | None = None
    """One reply of so many committed calls is lost."""
    slots: int = 100
    cache: int = 100
    """How many parked coordinators stay in memory."""
    grace: float = 1.0
    """Seconds that a waiting hook stays in memory."""
    workers: int = 1
    steal_at: frozenset[int] = frozenset()
    """Points at which all leases end although their holders live on."""


@dataclass
class Life:
    """The state of one life of a worker."""

    faults: Faults
    name: str
    passed: int = 0
    calls: int = 0
    lost: dict[psycopg.AsyncCursor[Any], list[Any]] = field(default_factory=dict)
    """The tasks of claims whose replies were lost, until the claims are repeated."""
    is_dead: bool = False
    stops: asyncio.Event = field(default_factory=asyncio.Event)
    engines: list[Engine] = field(default_factory=list)


class Kept(psycopg.AsyncConnection[Any]):
    """A connection that returns to the stage when it is closed, because its plans are costly."""

    pool: Pool

    async def close(self) -> None:
        """Return the connection to the pool."""
        self.pool.take_back(self)


class Pool(Source):
    """A source whose connections survive the workers."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn, SCHEMA)
        self._idle: list[Kept] = []
        self._taken: list[Kept] = []

    async def connect_async(self, name: str, *, is_lent: bool = False) -> Kept:
        """Return an idle connection, or a new one."""
        if self._idle:
            connection = self._idle.pop()
        else:
            connection = await Kept.connect(self.dsn, autocommit=True, client_encoding="utf8")
            connection.pool = self
            connection.prepare_threshold = None if POOLED else 0
        self._taken.append(connection)
        return connection

    def take_back(self, connection: Kept) -> None:
        """Keep an idle connection; close one with a call on its way. Its socket is removed from the
        loop before, because libuv aborts the process if a socket is closed while it is awaited."""
        if connection in self._taken:
            self._taken.remove(connection)
            if connection.pgconn.transaction_status == TransactionStatus.IDLE:
                self._idle.append(connection)
            else:
                if not connection.closed:
                    asyncio.get_running_loop().remove_reader(connection.fileno())
                    asyncio.get_running_loop().remove_writer(connection.fileno())
                connection.pgconn.finish()

    def take_all_back(self) -> None:
        """Take back the connections of a dead worker."""
        for connection in list(self._taken):
            self.take_back(connection)

    def end(self) -> None:
        """Close them all."""
        for connection in self._idle:
            connection.pgconn.finish()


class Stage(Outside):
    """Runs jobs through several lives, and records what they did."""

    def __init__(self, dsn: str) -> None:
        super().__init__(psycopg.connect(dsn, autocommit=True, client_encoding="utf8", **PLAIN))
        find_app(self.connection)
        self.ledger = Ledger(self)
        self.rows: dict[tuple[str, str], Json] = {}
        self.asked: dict[str, int] = {}
        self.points: Counter[str] = Counter()
        self.passed = 0
        self.lives = 0
        self._pool = Pool(dsn)
        self._loop = new_loop()
        self._loop.set_task_factory(make_task)
        self._loop.set_exception_handler(self._unhandled)
        self._errors: list[str] = []
        self._life = Life(Faults(), "nobody", is_dead=True)

    def clear(self) -> None:
        """Empty the tables, so that the next run has the same ids and finds no old rows."""
        for table in TABLES:
            self.many(f"delete from {table}")
        self.ledger.clear()
        self.rows.clear()
        self.asked.clear()

    def close(self) -> None:
        """Close all connections."""
        self._pool.end()
        self._loop.close()
        self.connection.close()

    @property
    def is_dead(self) -> bool:
        """Return whether no worker is alive: code that still runs belongs to a dead worker."""
        return self._life.is_dead

    # Lives.

    def live(self, app: perdure.App, faults: Faults, steps: list[Step]) -> bool:
        """Let a worker live; return true if everything is done, false if it died before."""
        self.lives += 1
        life = self._life = Life(faults, f"life {self.lives}")
        main = self._loop.create_task(self._live(life, app, steps))
        try:
            is_done = self._loop.run_until_complete(main)
        except Killed:
            is_done = False
        finally:
            life.is_dead = True
            self.passed = life.passed
            self.ledger.next_life()
            self._end(self._loop.create_task(self._bury(life)))
        wrong = [*self._errors, *self.broken(), *self.ledger.violations]
        assert wrong == [], wrong
        return is_done

    def _end(self, burial: asyncio.Task[None]) -> None:
        """Wait for the burial of a life; tasks that awaited dead code are killed again."""
        while not burial.done():
            with suppress(Killed):
                self._loop.run_until_complete(burial)
        burial.result()

    async def _live(self, life: Life, app: perdure.App, steps: list[Step]) -> bool:
        for number in range(life.faults.workers):
            life.engines.append(
                Engine(
                    app, self._pool, queues=QUEUES, name=f"{life.name} {number}",
                    slots=life.faults.slots, lease_for=30, poll=TICK, cache=life.faults.cache,
                )
            )  # fmt: skip
        workers = [asyncio.create_task(one.committer.run()) for one in life.engines]
        until = time.monotonic() + PATIENCE
        while not life.stops.is_set():
            await asyncio.sleep(TICK)
            if life.is_dead:  # while a transaction was rolled back, a cancel can outrun the kill
                raise Killed
            self._die_if_due(life)
            for worker in workers:
                if worker.done():
                    worker.result()
            while steps and steps[0](self):
                steps.pop(0)
            if not (steps or any(one.held for one in life.engines)) and self.is_over():
                return True
            if time.monotonic() > until:
                raise Wedged(self.description())
            self._end_leases("worker not like %s", f"{life.name} %")
        await self._stop(life)
        return False

    async def _stop(self, life: Life) -> None:
        """Stop as a worker does when it is asked to."""
        for one in life.engines:
            one.begin_stopping()
        for _ in range(50):
            if any(one.held for one in life.engines):
                await asyncio.sleep(0.001)
        link = AsyncLink(self._pool, "release")
        for one in life.engines:
            given_back = await one.end_turns()
            if given_back:
                await link.call(one.calls.release(given_back))
        await link.close()

    async def _bury(self, life: Life) -> None:
        """End everything that would have ended with the process, without any effect."""
        for one in life.engines:
            await one.close()
        me = asyncio.current_task()
        for _ in range(100):
            left = [task for task in asyncio.all_tasks() if task is not me]
            if not left:
                break
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        for one in life.engines:
            for threads in (one.hook_threads, one.activity_threads):
                await asyncio.to_thread(threads.shutdown)
        self._pool.take_all_back()

    def is_over(self) -> bool:
        """Return whether no task is left. Raises Wedged if a task is stuck."""
        running, stuck = self.many(
            "select count(*), count(stuck_reason) from tasks"
        )[0]  # fmt: skip
        if stuck:
            raise Wedged(self.description())
        return not running

    def description(self) -> str:
        """Describe the tasks and messages that are left."""
        tasks = self.many(
            "select job_id, task, name, due_at - clock(), worker, position, deliveries, awaits,"
            " stuck_reason from tasks order by 1, 2"
        )
        inbox = self.many("select * from inbox where consumed_at is null order by job_id, id")
        return "\n".join(["", *map(repr, tasks), "open messages:", *map(repr, inbox)])

    def _end_leases(self, whose: str = "true", *params: str) -> None:
        """Make leases due, as if their time were up."""
        self.many(END_LEASES.format(whose), *params)

    # Points.

    def pass_point(self, name: str) -> None:
        """Go on, or kill the worker."""
        life = self._life
        if life.is_dead:
            return
        life.passed += 1
        self.points[name] += 1
        if life.passed in life.faults.steal_at:
            self._end_leases()
        if life.passed == life.faults.kill_at and life.faults.orderly:
            life.stops.set()
        elif life.passed == life.faults.kill_at:
            self._die(life)
        else:
            self._die_if_due(life)

    def _die_if_due(self, life: Life) -> None:
        if life.faults.kill_when is not None and life.faults.kill_when(self):
            self._die(life)

    @staticmethod
    def _die(life: Life) -> None:
        life.is_dead = True
        raise Killed

    async def send(self, cursor: psycopg.AsyncCursor[Any], call: Call) -> Any:
        """Stand between the package and its connections."""
        life = self._life
        await self._nothing_more(life)
        answer = await send_async(cursor, call)
        await self._nothing_more(life)
        if call.function not in ("advance", "claim") or not self._has_effect(call, answer):
            return answer
        self._note(call, answer)
        self.pass_point(f"{call.function} committed")
        self._compare(life, cursor, answer)
        if self._is_lost(life, cursor):
            life.lost[cursor] = claimed_in(answer)
            raise psycopg.errors.ConnectionFailure("the reply was lost")
        return answer

    @staticmethod
    def _is_lost(life: Life, cursor: psycopg.AsyncCursor[Any]) -> bool:
        """Return whether this reply is lost; that of a repeated call is not."""
        every = life.faults.lose_every
        if every is None or life.lost.pop(cursor, None) is not None:
            return False
        life.calls += 1
        return life.calls % every == 0

    def _compare(self, life: Life, cursor: psycopg.AsyncCursor[Any], answer: Json) -> None:
        """Check that a repeated claim returns its tasks, except those that others have claimed
        since because their leases were ended, and without another delivery."""
        held = "select token = %s from tasks where job_id = %s and task = %s"
        kept = [
            (job, task, deliveries)
            for job, task, deliveries in life.lost.get(cursor) or ()
            if self.one(held, answer["token"], job, task)
        ]
        if kept and self.ledger.is_strict and kept != claimed_in(answer):
            self.ledger.violations.append(f"{kept} were claimed, then {claimed_in(answer)}")

    @staticmethod
    async def _nothing_more(life: Life) -> None:
        if life.is_dead:
            await asyncio.get_running_loop().create_future()

    @staticmethod
    def _has_effect(call: Call, answer: Json) -> bool:
        return call.function == "advance" or bool(answer["tasks"])

    def _note(self, call: Call, answer: Json) -> None:
        """Record the claimed tasks, and the number of requests of coordinators at their end."""
        for row in answer["tasks"]:
            self.rows[row["job"], row["task"]] = row
        if call.function == "advance":
            turns = json.loads(call.params[0])
            for turn, verdict in zip(turns, answer["turns"], strict=True):
                kind = self.rows[turn["job"], turn["task"]]["kind"]
                if kind == "coordinator" and verdict["state"] in (
                    "done",
                    "failed",
                    "cancelled",
                ):
                    self.asked[turn["job"]] = turn["asked"]

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: Json) -> None:
        error = context.get("exception")
        if not isinstance(error, Killed) and not self._life.is_dead:
            self._errors.append(f"{context.get('message')}: {error!r}")


def claimed_in(answer: Json) -> list[Any]:
    """Return the tasks in a reply, with their deliveries."""
    return sorted((row["job"], row["task"], row["deliveries"]) for row in answer["tasks"])


@contextmanager
def stage_on(dsn: str) -> Iterator[Stage]:
    """Open a stage; the package passes its points while it is open."""
    stage = Stage(dsn)
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if (
                name.startswith("perdure.")
                and module is not faults
                and hasattr(module, "crash_point")
            ):
                patch.setattr(module, "crash_point", stage.pass_point)
        patch.setattr(connections, "send_async", stage.send)
        patch.setattr(connections, "FIRST_PAUSE", 0.0005)
        try:
            yield stage
        finally:
            stage.close()


@contextmanager
def with_settings(life: Faults) -> Iterator[None]:
    """Apply the faults that are settings of the whole package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waits, "GRACE", life.grace)
        yield


def some_faults(chance: random.Random, points: int) -> Faults:
    """Draw the faults of one life, for a run that passes so many points without faults."""
    workers = chance.choice([1, 1, 1, 2])
    stolen = chance.sample(range(1, points + 1), min(points, 3)) if workers == 2 else []
    return Faults(
        kill_at=chance.randint(1, chance.choice([8, 1 + points // 2, points])),
        orderly=chance.random() < 0.2,
        lose_every=chance.choice([None, None, 1, 2, 3, 5]),
        slots=chance.choice([100, 100, 3]),
        cache=chance.choice([100, 0]),
        grace=chance.choice([1.0, 0.0, 0.01]),
        workers=workers,
        steal_at=frozenset(stolen),
    )
