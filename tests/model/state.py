"""The state of the model: the rows of all tables as Python dicts, and the rules that all verbs
share.

Times are whole microseconds since the model's clock began. Messages, waking and the memory behave
as `sql/README.md` promises; each verb of the model uses them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.races.memory_model import Command, Refused, as_json, join_path
from tests.races.memory_model import State as Document

Row = dict[str, Any]
Name = tuple[str, str]

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)
NEVER = 2**62  # `infinity`
SECOND = 1_000_000
MAX_DELIVERIES, SUSPICIOUS = 4, 2
"""Lower than usual, so that short games reach them."""
ENDS = ("done", "failed", "cancelled")

CONDITIONS: dict[str, Callable[[Any], bool]] = {
    "$.n > 2": lambda doc: any(is_more(number, 2) for number in listed(doc.get("n"))),
    "exists($.list[1])": lambda doc: len(listed(doc.get("list"))) > 1,
    "$.on == true": lambda doc: doc.get("on") is True,
}
CONTRACT = {"properties": {"n": {"maximum": 6}}}


def listed(value: Any) -> list[Any]:
    """Return a value as JSON path does: one that is not an array as an array of one."""
    return value if isinstance(value, list) else [value]


def is_more(value: Any, than: int) -> bool:
    """Return whether a value is a number greater than another."""
    return isinstance(value, int | Decimal) and not isinstance(value, bool) and value > than


def stamp(moment: int) -> str:
    """Write a time as the database reads it."""
    if moment == NEVER:
        return "infinity"
    return (BEGINNING + timedelta(microseconds=moment)).isoformat()


def moment(stamp: str | None) -> int | None:
    """Read a time as the database writes it."""
    if stamp is None or stamp == "infinity":
        return None if stamp is None else NEVER
    return (datetime.fromisoformat(stamp) - BEGINNING) // timedelta(microseconds=1)


def failure(code: str) -> Row:
    """Return a failure of the engine; the model does not predict its texts."""
    return {"code": code}


@dataclass
class State:
    """All rows, as the model has them."""

    now: int = 0
    count: int = 0
    jobs: dict[str, Row] = field(default_factory=dict)
    tasks: dict[Name, Row] = field(default_factory=dict)
    journal: dict[tuple[str, str, int], Row] = field(default_factory=dict)
    inbox: dict[int, Row] = field(default_factory=dict)
    conditions: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    items: dict[int, Row] = field(default_factory=dict)
    queues: dict[str, Row] = field(default_factory=dict)
    key_tokens: dict[tuple[str, str], Row] = field(default_factory=dict)
    lines: dict[tuple[str, int, str], Row] = field(default_factory=dict)
    contracts: frozenset[str] = frozenset()
    sql_hooks: frozenset[str] = frozenset()
    past: dict[str, list[Any]] = field(default_factory=dict)

    TABLES = ("jobs", "tasks", "journal", "inbox", "conditions", "items", "queues")
    TABLES += ("key_tokens", "lines")

    def saved(self) -> dict[str, Any]:
        """Save the state, to restore it after a refusal."""
        kept = {name: {k: dict(v) for k, v in getattr(self, name).items()} for name in self.TABLES}
        past = {job: list(documents) for job, documents in self.past.items()}
        rest = {"count": self.count, "contracts": self.contracts, "sql_hooks": self.sql_hooks}
        return kept | rest | {"past": past}

    def restore(self, kept: dict[str, Any]) -> None:
        """Restore a saved state."""
        for name, value in kept.items():
            setattr(self, name, value)

    def number(self) -> int:
        """Return the next number, in whose order messages and items are made."""
        self.count += 1
        return self.count

    # Queries

    def job(self, job: str) -> Row:
        """Return a job."""
        if job not in self.jobs:
            raise Refused("PD401")
        return self.jobs[job]

    def tasks_of(self, job: str) -> list[tuple[str, Row]]:
        """Return the live tasks of a job in order of name."""
        return sorted((name, row) for (owner, name), row in self.tasks.items() if owner == job)

    def user_tasks(self, job: str) -> bool:
        """Return whether a job has a live task that is not only the database's."""
        return any(not row["name"].startswith("$") for _, row in self.tasks_of(job))

    def open_messages(self, job: str, task: str, awaits: Iterable[str] | None) -> list[Row]:
        """Return the open messages for a task, in order of acceptance."""
        names = set(awaits or ())
        return [
            message
            for _, message in sorted(self.inbox.items())
            if message["job_id"] == job
            and message["consumed_at"] is None
            and (message["task"] == task or (message["task"] is None and message["name"] in names))
        ]

    def message(self, job: str, task: str, key: str) -> Row | None:
        """Return the message to a task under a key."""
        for message in self.inbox.values():
            if (message["job_id"], message["task"], message["key"]) == (job, task, key):
                return message
        return None

    def is_answered(self, job: str, task: str, key: str) -> bool:
        """Return whether a request has an answer, consumed or not."""
        return self.message(job, task, key) is not None or any(
            row["is_answer"] and row["key"] == key
            for (owner, name, _), row in self.journal.items()
            if (owner, name) == (job, task)
        )

    def cancel_is_open(self, job: str, task: str) -> bool:
        """Return whether a task has a request to cancel that it has not consumed."""
        message = self.message(job, task, "$cancel")
        return message is not None and message["consumed_at"] is None

    def is_cleaning_up(self, job: str, task: str, beneath: str) -> bool:
        """Return whether a task, or one between it and another above it, was asked to cancel."""
        return any(
            is_beneath(message["task"], beneath)
            and (message["task"] == task or is_beneath(task, message["task"]))
            for message in self.inbox.values()
            if message["job_id"] == job and message["key"] == "$cancel"
        )

    def has_ended(self, job: str, task: str) -> bool:
        """Return whether a task without an asker has ended."""
        return any(
            row["kind"] == "end"
            for (owner, name, _), row in self.journal.items()
            if (owner, name) == (job, task)
        )

    # Messages, and the tasks that they wake

    def leave(self, job: str, **message: Any) -> bool:
        """Leave a message; the first answer to a request stays."""
        empty = ("id", "task", "key", "name", "payload", "sender", "dedupe_key", "fingerprint")
        row = dict.fromkeys(empty)
        row |= {"job_id": job, "ok": True, "sent_at": self.now, "consumed_at": None, **message}
        if row["key"] is not None and self.is_answered(job, row["task"], row["key"]):
            return False
        self.inbox[self.number()] = row
        return True

    def insert_cancel_requests(self, job: str, tasks: Iterable[str], reason: Any) -> bool:
        """Ask tasks to cancel; return false if all were asked before."""
        left = [
            self.leave(job, task=task, key="$cancel", ok=False, payload=reason) for task in tasks
        ]
        if any(left):
            self.jobs[job]["updated_at"] = self.now
        return any(left)

    def wake(self, *jobs: str) -> None:
        """Make parked tasks with messages due."""
        for (job, name), task in self.tasks.items():
            is_parked = task["token"] is None and task["awaits"] is not None
            if job not in jobs or not is_parked or task["stuck_reason"] is not None:
                continue
            if task["due_at"] > self.now and self.open_messages(job, name, task["awaits"]):
                task["due_at"] = self.now

    def wake_cancelled(self, job: str, tasks: Iterable[str]) -> None:
        """Make tasks due that were asked to cancel, even if they wait for nothing."""
        for name in tasks:
            task = self.tasks.get((job, name))
            if task is None or task["token"] is not None:
                continue
            if task["stuck_reason"] is None:
                task["due_at"] = min(task["due_at"], self.now)
            task["awaits"] = [] if task["awaits"] is None else task["awaits"]

    def lift_pause(self, job: str) -> int:
        """Resume the tasks of a paused job; count those that are not stuck."""
        if not self.jobs[job]["paused"]:
            return 0
        self.jobs[job]["paused"] = False
        lifted = [task for _, task in self.tasks_of(job) if task["paused"]]
        for task in lifted:
            task.update(paused=False, in_line=False)
        return sum(task["stuck_reason"] is None for task in lifted)

    # The memory

    def check_and_apply(self, job: str, op: str, keys: list[str], argument: Any) -> Any:
        """Apply a command to the memory of a job; return the answer."""
        row = self.jobs[job]
        if op == "log":
            if not isinstance(argument, list) or not keys:
                raise Refused("PD103")
            context, answer = row["context"], row["version"] + 1
        else:
            before = Document(row["context"], row["version"])
            after, answer = before.after(Command(op, join_path(keys), argument))
            context = after.context
            self.check_contract(row["entity"], context)
        row |= {"context": context, "version": row["version"] + 1, "updated_at": self.now}
        self.past[job].append(context)
        if row["watched"]:
            row["watched"] = self.heed(job)
        return answer

    def check_version(self, job: str, expects: int | None) -> None:
        """Refuse a command that expects another version of the memory."""
        if expects not in (None, self.jobs[job]["version"]):
            raise Refused("PD105")

    def check_contract(self, entity: str | None, context: Any) -> None:
        """Refuse a document that breaks the one contract that the model knows."""
        if entity in self.contracts and is_more(context.get("n"), 6):
            raise Refused("PD109")

    def heed(self, job: str) -> bool:
        """Wake those that wait for a memory; return whether it stays watched."""
        self.meet(job)
        if self.jobs[job]["entity"] == "$schedule":
            task = self.tasks[job, "$hook/$schedule"]
            if task["token"] is None and task["due_at"] > self.now:
                task |= {"due_at": self.now, "stuck_reason": None, "deliveries": 0}
            return True
        return any(owner == job for owner, _, _ in self.conditions)

    def meet(self, job: str) -> None:
        """Answer the tasks whose conditions are true, with the version, and wake them."""
        row = self.jobs[job]
        met = sorted(
            place
            for place, condition in self.conditions.items()
            if place[0] == job and CONDITIONS[condition["condition"]](row["context"])
        )
        for place in met:
            fingerprint = self.conditions.pop(place)["fingerprint"]
            answer = {"payload": row["version"], "fingerprint": fingerprint}
            self.leave(job, task=place[1], key=place[2], **answer)
        if met:
            self.wake(job)

    def tell(self, job: str, task: str, seq: int, kind: str, **fact: Any) -> None:
        """Write a row of a journal."""
        columns = ("key", "name", "fingerprint", "value", "version", "op", "path", "argument")
        row = dict.fromkeys(columns) | {"kind": kind, "ok": True, "at": self.now}
        row |= {"is_answer": False}
        self.journal[job, task, seq] = row | fact

    def length(self, job: str, task: str) -> int:
        """Return the number of facts of a task."""
        return max(
            (seq for owner, name, seq in self.journal if (owner, name) == (job, task)), default=0
        )


def is_beneath(task: str | None, above: str) -> bool:
    """Return whether a task is beneath another, by its name."""
    return task is not None and task.startswith(above + "/")


def is_of(task: str, above: str) -> bool:
    """Return whether a task is another, or beneath it."""
    return task == above or is_beneath(task, above)


# Checks of arguments


def check_name(name: Any) -> None:
    """Refuse an invalid name."""
    if not name or len(name.encode()) > 200 or re.search(r"[\x00-\x1f\x7f]", name):
        raise Refused("PD104")


def check_own_name(name: Any) -> None:
    """Refuse an invalid or reserved name."""
    if name and name.startswith("$"):
        raise Refused("PD104")
    check_name(name)


def depth(value: Any) -> int:
    """Count the levels of a value."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth, inner), default=0)
    return 0


def check_value(value: Any) -> None:
    """Refuse a value that is too large or too deep."""
    size = 0 if value is None else len(as_json(value))
    if size > 1_048_576:
        raise Refused("PD301")
    if size > 200 and depth(value) > 101:
        raise Refused("PD302")


def check_queue(queue: str) -> None:
    """Refuse an invalid queue, or one with a version."""
    if "@" in (queue or ""):
        raise Refused("PD104")
    check_name(queue)


def check_call(
    name: str | None, args: Any, queue: str, priority: Any, *, is_run: bool = False
) -> None:
    """Refuse a wrong call of a function; the database's queues take no workflow."""
    check_own_name(name)
    check_queue(queue)
    if is_run and queue.startswith("$"):
        raise Refused("PD107")
    check_value(args)
    if not isinstance(args, list | dict):
        raise Refused("PD103")
    if priority is None or not 0 <= priority <= 9:
        raise Refused("PD107")


def check_pin(version: str | None, queue: str | None) -> None:
    """Refuse an invalid version, and one for a task of the database."""
    if version is not None:
        if (queue or "").startswith("$"):
            raise Refused("PD107")
        check_name(version)


def versioned(queue: str, version: str | None) -> str:
    """Return the queue of a version."""
    return queue.split("@", maxsplit=1)[0] + ("" if version is None else f"@{version}")


def seconds(interval: str | None) -> int | None:
    """Read an interval as the model writes it: `90 s`."""
    return None if interval is None else round(float(interval.removesuffix(" s")) * SECOND)
