"""Sessions that interleave: each has one connection, and a test runs their steps line by line.

A session calls the SQL core as a worker or a client does; no Python worker is involved. The server
says whether a call waits for another one (`pg_blocking_pids`); no test guesses that by sleeping.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, ParamSpec, TypeVar

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.amount import seed
from tests.databases import POOLED
from tests.races.memory_model import split_path

Connection = psycopg.Connection[Any]
Json = Mapping[str, Any]
P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 20.0  # seconds for which a test may be stuck before it fails
JSON_ARGUMENTS = frozenset(
    (
        "args",
        "conditions",
        "context",
        "headers",
        "items",
        "patch",
        "payload",
        "starts",
        "tasks",
        "turns",
        "value",
    )
)
TABLES = (
    "tasks",
    "journal",
    "inbox",
    "snapshots",
    "conditions",
    "items",
    "contracts",
    "queues",
    "key_tokens",
    "lines",
    "jobs",  # last, since other rows refer to it
)


@dataclass(frozen=True)
class Task:
    """A task held under a lease; it makes the turns of its holder."""

    job: str
    task: str
    token: str
    position: int = 0
    row: Json = field(default_factory=dict, compare=False, repr=False)

    @property
    def messages(self) -> list[Any]:
        """Give the payloads of the messages that were open when the task was claimed."""
        return [message["payload"] for message in self.row["messages"]]

    def turn(self, state: str, *facts: Json, **more: Any) -> dict[str, Any]:
        """Make a turn that ends in this state, with these facts."""
        turn = {**self.lease, "position": self.position, "state": state, **more}
        return {**turn, "facts": list(facts)} if facts else turn

    def keep(self, *facts: Json, **more: Any) -> dict[str, Any]:
        """Make a turn after which the task goes on."""
        return self.turn("keep", *facts, **more)

    def park(self, *awaits: str, facts: Sequence[Json] = (), **more: Any) -> dict[str, Any]:
        """Make a turn that waits for these signals, or for answers."""
        return self.turn("park", *facts, awaits=list(awaits), **more)

    def done(self, value: Any = None, *facts: Json, **more: Any) -> dict[str, Any]:
        """Make a turn that returns a value."""
        return self.turn("done", *facts, value=value, **more)

    def told(self, facts: int = 1) -> Task:
        """Give the same lease after some more facts."""
        return replace(self, position=self.position + facts)

    @property
    def lease(self) -> dict[str, str]:
        """Give the lease as extend() and release() expect it."""
        return {"job": self.job, "task": self.task, "token": self.token}


@dataclass(frozen=True)
class Answer:
    """The answer of advance() to one turn."""

    state: str
    answers: list[Any]
    messages: list[Json]
    error: Json | None
    again: bool = field(default=False, compare=False)
    """Whether the turn was applied before; a repeated turn has the same answer otherwise."""

    @property
    def payloads(self) -> list[Any]:
        """Give the payloads of the messages, in order."""
        return [message["payload"] for message in self.messages]

    @property
    def values(self) -> list[Any]:
        """Give the answers of commands, reads and signals, in order."""
        return [value for _, _, value in self.answers]


@dataclass(frozen=True)
class Reply:
    """The answer of advance() to a batch, and the tasks that it claimed."""

    turns: list[Answer]
    tasks: list[Task]

    @property
    def states(self) -> list[str]:
        """Give the states of the turns, in order."""
        return [answer.state for answer in self.turns]


class Later(Generic[T]):
    """A call on a thread of its own: it may have to wait for another session."""

    def __init__(self, session: Session, call: Callable[[], T]) -> None:
        self._session = session
        self._call = call
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def waits(self) -> bool:
        """Tell whether the call is blocked until another session goes on; false if it has ended."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if not self._thread.is_alive():
                return False
            if self._session.is_blocked():
                return True
            self._thread.join(0.001)
        raise AssertionError("the call neither ended nor waited for a lock")

    def get(self) -> T:
        """Wait for the end of the call; return its value or raise its error."""
        if (error := self.error()) is not None:
            raise error
        return self._value[0]

    def error(self) -> BaseException | None:
        """Wait for the end of the call; return its error, if it raised one."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the call has not ended"
        return self._error

    def _run(self) -> None:
        try:
            self._value.append(self._call())
        except BaseException as error:  # noqa: BLE001  raised in the caller's thread
            self._error = error


# Blocked: all sessions that it waits for are idle in a transaction, or wait for a lock themselves.
# Behind a pooler the process of a session is unknown, so the session is found by its name.
_IS_BLOCKED = """
select count(*) > 0 and bool_and(a.state like 'idle in transaction%%' or a.wait_event_type = 'Lock')
  from pg_stat_activity as waiting
 cross join unnest(pg_blocking_pids(waiting.pid)) as blocking
  join pg_stat_activity as a on a.pid = blocking
 where case when %s then waiting.application_name = %s else waiting.pid = %s end
   and waiting.datname = current_database()
   and waiting.state = 'active'
"""


def limits(patience: float = PATIENCE) -> dict[str, str]:
    """Give the settings of sessions that must not be stuck for long."""
    return {"deadlock_timeout": "10 ms", "statement_timeout": f"{patience} s"}


class Session:
    """One connection of one worker or client."""

    def __init__(
        self, connection: Connection, watcher: Connection, name: str, patience: float = PATIENCE
    ) -> None:
        self.connection = connection
        self.name = name
        self._watcher = watcher
        settings = {"application_name": name, **limits(patience)}
        for setting, value in settings.items():
            connection.execute("select set_config(%s, %s, false)", [setting, value])

    # Statements and transactions

    def run(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement; return its rows, if it has any."""
        cursor = self.connection.execute(query.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def one(self, query: str, *values: Any) -> Any:
        """Run a statement that gives one value."""
        return self.run(query, *values)[0][0]

    def begin(self) -> None:
        """Begin a transaction."""
        self.run("begin")

    def commit(self) -> None:
        """Commit the transaction."""
        self.run("commit")

    def rollback(self) -> None:
        """Roll the transaction back."""
        self.run("rollback")

    def end(self, how: str) -> None:
        """End the transaction with `commit` or `rollback`."""
        self.run(how)

    @contextmanager
    def open(self, how: str = "commit") -> Iterator[None]:
        """Hold a transaction open during a block, then end it."""
        self.begin()
        yield
        self.end(how)

    def later(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Later[T]:
        """Make a call of this session on its own thread."""
        return Later(self, lambda: call(*args, **kwargs))

    def is_blocked(self) -> bool:
        """Ask the server whether this session waits for sessions that do nothing."""
        whom = [POOLED, self.name, self.connection.info.backend_pid]
        row = self._watcher.execute(_IS_BLOCKED, whom).fetchone()
        return bool(row and row[0])

    # Functions of the core

    def rows(self, function: str, /, **arguments: Any) -> list[tuple[Any, ...]]:
        """Call a function with named arguments; return its rows."""
        call = sql.SQL("select * from {}({})").format(
            sql.Identifier(function),
            sql.SQL(", ").join(
                sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder())
                for name in arguments
            ),
        )
        values = [
            Jsonb(value) if name in JSON_ARGUMENTS and (value, name) != (None, "payload") else value
            for name, value in arguments.items()
        ]
        return self.connection.execute(call, values).fetchall()

    def call(self, function: str, /, **arguments: Any) -> Any:
        """Call a function with named arguments; return its one value."""
        return self.rows(function, **arguments)[0][0]

    def start(self, job: str, **options: Any) -> bool:
        """Start a workflow, by default on a queue named like the job; tell whether it is new."""
        options = {"workflow": "w", "queue": job, **options}
        return bool(self.rows("start", id=job, **options)[0][1])

    def claim(self, *queues: str, max_tasks: int = 100, **options: Any) -> list[Task]:
        """Claim tasks that are due on these queues."""
        options = {"claim_id": uuid.uuid4(), "worker": self.name, **options}
        return claimed(self.call("claim", queues=list(queues), max_tasks=max_tasks, **options))

    def claim_one(self, queue: str, **options: Any) -> Task:
        """Claim the one task that is due on a queue."""
        (task,) = self.claim(queue, **options)
        return task

    def held(self, job: str, **options: Any) -> Task:
        """Start a workflow and claim its coordinator."""
        self.start(job, **options)
        return self.claim_one(options.get("queue", job))

    def parked(self, job: str, *awaits: str, **more: Any) -> Task:
        """Start a workflow and park its coordinator; return the lease that parked it."""
        task = self.held(job)
        assert self.advance(task.park(*awaits, **more)).state == "parked"
        return task

    def advance(self, turn: Json, *, waiting: bool = False) -> Answer:
        """Send one turn."""
        return self.advance_all([turn], waiting=waiting).turns[0]

    def advance_all(self, turns: Sequence[Json], **options: Any) -> Reply:
        """Send a batch of turns, and claim more tasks if `max_tasks` is given."""
        reply = self.call("advance", turns=list(turns), worker=self.name, **options)
        return Reply([answered(turn) for turn in reply["turns"]], claimed(reply))

    def signal(self, job: str, name: str, payload: Any = None, key: str | None = None) -> bool:
        """Send a signal; return false if its key was sent before."""
        return bool(self.call("signal", id=job, name=name, payload=payload, key=key))

    def item_of(self, job: str, key: str = "i#1") -> str:
        """Give the id of the item that a request has created."""
        return str(self.one("select id from items where job_id = %s and key = %s", job, key))

    def resolve(self, item: str, resolution: Any = "yes", by: str | None = None) -> str:
        """Resolve an item; return who has resolved it."""
        query = "select (resolve_item(%s, %s, by => %s)).resolved_by"
        return str(self.one(query, item, Jsonb(resolution), by or self.name))

    def extend(self, *tasks: Task, lease_for: str = "1 h") -> list[str]:
        """Renew leases; give the state of each."""
        reply = self.call("extend", tasks=[task.lease for task in tasks], lease_for=lease_for)
        return [lease["state"] for lease in reply]

    def release(self, *tasks: Task) -> list[str]:
        """Give tasks back; give the state of each."""
        return [lease["state"] for lease in self.call("release", tasks=[t.lease for t in tasks])]

    # What tests read and write as the owner of the tables

    def memory(self, job: str) -> tuple[Any, int]:
        """Read the document and its version."""
        ((context, version),) = self.run("select context, version from jobs where id = %s", job)
        return context, version

    def status(self, job: str) -> Any:
        """Read the status of a job."""
        return self.one("select status from jobs where id = %s", job)

    def tasks(self, job: str) -> dict[str, str]:
        """Give the state of each task of a job: held, ready or parked."""
        query = """
            select task, case when token is not null then 'held'
                              when due_at <= clock() then 'ready' else 'parked' end
              from tasks where job_id = %s order by task"""
        return dict(self.run(query, job))

    def state(self, job: str, task: str = "1/main") -> str | None:
        """Give the state of a task: held, ready or parked; None when it is gone."""
        return self.tasks(job).get(task)

    def deliveries(self, task: Task) -> int:
        """Give the number of claims of a task since its last successful turn."""
        query = "select deliveries from tasks where job_id = %s and task = %s"
        return int(self.one(query, task.job, task.task))

    def expire(self, task: Task) -> None:
        """Let a lease end now."""
        self.run(
            "update tasks set due_at = clock() where job_id = %s and task = %s", task.job, task.task
        )

    def stolen(self, task: Task) -> Task:
        """Let a lease end and claim the task again, as another worker would."""
        self.expire(task)
        queue = self.one(
            "select queue from tasks where job_id = %s and task = %s", task.job, task.task
        )
        (again,) = [t for t in self.claim(queue) if (t.job, t.task) == (task.job, task.task)]
        return again

    def everything(self) -> dict[str, list[Any]]:
        """Read all rows of all tables."""
        return {
            table: [row[0] for row in self.run(f"select to_jsonb(t) from {table} as t order by 1")]
            for table in TABLES
        }

    def broken(self) -> list[tuple[Any, ...]]:
        """List the broken invariants."""
        return self.run("select * from assert_invariants()")


def claimed(reply: Json) -> list[Task]:
    """Read the tasks of a reply of claim() or advance()."""
    return [
        Task(row["job"], row["task"], reply["token"], row["position"], row)
        for row in reply["tasks"]
    ]


def answered(turn: Json) -> Answer:
    """Read the answer of advance() to a turn."""
    return Answer(
        turn["state"],
        turn.get("answers") or [],
        turn.get("messages") or [],
        turn.get("error"),
        turn.get("again") or False,
    )


class Stage:
    """Opens the sessions of a test, and one more connection that watches them."""

    def __init__(self, connect: Callable[[], Connection], patience: float = PATIENCE) -> None:
        self._connect = connect
        self._watcher = connect()
        self._patience = patience

    def session(self, name: str) -> Session:
        """Open one more session."""
        return Session(self._connect(), self._watcher, name, self._patience)

    def sessions(self, count: int) -> list[Session]:
        """Open some more sessions."""
        return [self.session(f"worker {number}") for number in range(count)]


def together(*calls: Callable[[], T], patience: float = 3 * PATIENCE) -> list[T]:
    """Make calls at the same time, each on its own thread; return their values in order."""
    barrier = threading.Barrier(len(calls))
    values: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(place: int, call: Callable[[], T]) -> None:
        try:
            barrier.wait(PATIENCE)
            values[place] = call()
        except BaseException as error:  # noqa: BLE001  raised in the caller's thread
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=(place, call), daemon=True)
        for place, call in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + max(patience, 3 * PATIENCE)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), "a call has not ended"
    if errors:
        raise errors[0]
    return [values[place] for place in range(len(calls))]


def chances(count: int) -> list[random.Random]:
    """Give random generators; PERDURE_RACE_SEED repeats those of a run that failed."""
    drawn = seed()
    return [random.Random(f"{drawn} {number}") for number in range(count)]


# Facts and requests of turns


def command(op: str, path: str = "", value: Any = None, **more: Any) -> dict[str, Any]:
    """Make a fact that changes the memory, or reads it (`get`)."""
    kind = "read" if op == "get" else "command"
    return {"kind": kind, "op": op, "path": split_path(path), "value": value, **more}


def increment(path: str, by: int = 1) -> dict[str, Any]:
    """Make a fact that adds to a number of the memory."""
    return command("increment", path, by)


def activity(key: str, value: Any = None) -> dict[str, Any]:
    """Make a fact with the result of an activity."""
    return {"kind": "activity", "key": key, "name": key, "value": value}


def send(name: str, payload: Any = None, target: str | None = None) -> dict[str, Any]:
    """Make a fact that sends a signal, to another job or to the own one."""
    fact = {"kind": "send", "signal": name, "value": payload}
    return {**fact, "target": target} if target else fact


def take(message: Json) -> dict[str, Any]:
    """Make a fact that consumes a message: a signal, an answer or a request to cancel."""
    kind = {None: "signal", "$cancel": "cancel"}.get(message["key"], "answer")
    return {
        "kind": kind,
        "message": message["id"],
        "key": message["key"] or message["name"],
        "name": message["name"],
    }


def until(condition: str, key: str = "u#1") -> dict[str, Any]:
    """Make a request to be woken when the memory meets a condition."""
    return {"key": key, "kind": "until", "condition": condition}


def item(key: str = "i#1", **more: Any) -> dict[str, Any]:
    """Make a request for an item."""
    return {"key": key, "kind": "item", "name": "sign", **more}


def hook(key: str, queue: str = "hooks", **more: Any) -> dict[str, Any]:
    """Make a request for a hook."""
    return {"key": key, "kind": "hook", "name": "hook", "queue": queue, **more}


def child(key: str, queue: str = "children", **more: Any) -> dict[str, Any]:
    """Make a request for a child."""
    return {"key": key, "kind": "job", "name": "w", "queue": queue, **more}
