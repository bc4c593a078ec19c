"""Every SQL text of the package, and nothing else: a Call is a statement with its parameters, made
here, sent by whoever holds a connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.rows import TupleRow, tuple_row

from .errors import InvalidName, InvalidValue, translated

PROTOCOL = 1
JOURNAL_PAGE = 10_000
COMMIT_WITHIN = "10 s"
"""How long a transaction that has recorded its result may keep others waiting for its commit."""

Shape = Literal["value", "row", "rows"]
Task = dict[str, Any]
"""What names a held task in heartbeats and releases: `{"job", "task", "token"}`, and maybe its
`progress`."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of one SQL function; `again` is set when a claim is repeated after a lost reply.

    `read` makes the answer of what the server has sent.
    """

    function: str
    query: bytes
    params: tuple[Any, ...]
    shape: Shape = "value"
    again: Call | None = None
    read: Callable[[Any], Any] | None = None

    def reading(self, read: Callable[[Any], Any]) -> Call:
        """Give the same call with a way to read its answer."""
        return replace(self, read=read)


def to_text(value: Any) -> str:
    """Write a value as JSON for the server. Raises InvalidValue for what JSON cannot hold."""
    try:
        return _write(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue(
            f"this value cannot be written as JSON: {error}",
            hint="Use text, numbers, booleans, None, lists, dicts, dataclasses or pydantic models.",
        ) from error


_write = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


class Calls:
    """The statements of one app: `Calls("my_app").claim(…)`."""

    def __init__(self, schema: str):
        if not schema or "\0" in schema or len(schema.encode()) > 63:
            raise InvalidName(f"{schema!r} is no name for a schema")
        self.schema = schema
        self._quoted = '"' + schema.replace('"', '""') + '"'
        self._texts: dict[tuple[str, ...], bytes] = {}

    def _call(self, function: str, shape: Shape = "value", /, **arguments: Any) -> Call:
        """Call with the arguments that are not None; SQL has defaults for the others."""
        given = {name: value for name, value in arguments.items() if value is not None}
        place = (function, shape, *given)
        query = self._texts.get(place)
        if query is None:
            named = ", ".join(f'"{name}" => %s' for name in given)
            start = "select" if shape == "value" else "select * from"
            query = self._texts[place] = f"{start} {self._quoted}.{function}({named})".encode()
        return Call(function, query, tuple(given.values()), shape)

    # Jobs.
    def start(self, workflow: str, args: Any, **options: Any) -> Call:
        """Start a job; answers (id, is_new)."""
        for name in ("context", "headers"):
            if options.get(name) is not None:
                options[name] = to_text(options[name])
        return self._call("start", "row", workflow=workflow, args=to_text(args), **options)

    def signal_with_start(
        self, workflow: str, args: Any, job: str, name: str, payload: Any, **options: Any
    ) -> Call:
        """Send a signal to a job that is started if it is not there; answers (id, is_new)."""
        for option in ("context", "headers"):
            if options.get(option) is not None:
                options[option] = to_text(options[option])
        written = None if payload is None else to_text(payload)
        return self._call(
            "signal_with_start",
            "row",
            workflow=workflow,
            args=to_text(args),
            id=job,
            name=name,
            payload=written,
            **options,
        )

    def start_many(self, starts: Sequence[dict[str, Any]]) -> Call:
        """Start jobs; answers a row (id, is_new) for each."""
        return self._call("start_many", "rows", starts=to_text(starts))

    def hook(self, job: str, name: str, args: Any, **options: Any) -> Call:
        """Start a hook from outside; answers the task's name."""
        return self._call("hook", id=job, name=name, args=to_text(args), **options)

    def register_sql_hook(self, name: str, function: str, **options: Any) -> Call:
        """Let a function of the database be a hook."""
        return self._call("register_sql_hook", name=name, function=function, **options)

    def drop_sql_hook(self, name: str) -> Call:
        """Let a function be a hook no more; answers false where it was none."""
        return self._call("drop_sql_hook", name=name)

    def sql_hooks(self) -> Call:
        """Read which functions of the database are hooks."""
        query = "select name, schema, function, attempts, retry_in, timeout, within"
        query = f"{query} from {self._quoted}.sql_hooks order by name"
        return Call("sql_hooks", query.encode(), (), "rows")

    def sql_hook_timeout(self, name: str) -> Call:
        """Ask how many seconds an attempt of a hook in SQL may take; answers None for any."""
        query = f"select extract(epoch from timeout) from {self._quoted}.sql_hooks where name = %s"
        return Call("sql_hook_timeout", query.encode(), (name,))

    def signal(self, job: str, name: str, payload: Any, key: str | None) -> Call:
        """Send a signal; answers false where the key was seen before."""
        written = None if payload is None else to_text(payload)
        return self._call("signal", id=job, name=name, payload=written, key=key)

    def cancel(self, job: str, reason: str | None) -> Call:
        """Ask a job to cancel."""
        return self._call("cancel", id=job, reason=reason)

    def cancel_hook(self, job: str, task: str, reason: str | None) -> Call:
        """Ask a hook or activity of a job to cancel."""
        return self._call("cancel_hook", id=job, task=task, reason=reason)

    def family(self, job: str, max_rows: int) -> Call:
        """Read who descends from a job; answers a row for each, itself first."""
        return self._call("family", "rows", id=job, max_rows=max_rows)

    def terminate(self, job: str, reason: str | None) -> Call:
        """End a job on the spot."""
        return self._call("terminate", id=job, reason=reason)

    def resume(self, job: str, task: str | None, accept_changes: bool) -> Call:
        """Wake what is stuck; answers how many tasks."""
        return self._call("resume", id=job, task=task, accept_changes=accept_changes)

    def repin(self, job: str, version: str | None) -> Call:
        """Let a job keep to another version of the code, or to none; answers how many tasks."""
        query = f"select {self._quoted}.repin(%s, %s)"
        return Call("repin", query.encode(), (job, version))

    def pause(self, job: str) -> Call:
        """Keep the tasks of a job from workers."""
        return self._call("pause", id=job)

    def retry(self, job: str, args: Any, timeout: str | None, key: str) -> Call:
        """Run a job again that has failed or was cancelled; answers false where it did not."""
        written = None if args is None else to_text(args)
        return self._call("retry", id=job, args=written, timeout=timeout, key=key)

    def fork(self, job: str, new_id: str, seq: int | None, context: Any, key: str) -> Call:
        """Start a job where another stood; answers (id, is_new)."""
        written = None if context is None else to_text(context)
        return self._call("fork", "row", id=job, new_id=new_id, seq=seq, context=written, key=key)

    def timeline(self, job: str, after: list[Any] | None, max_rows: int) -> Call:
        """Read what belongs to a job, after a place; answers a row for each item."""
        place = None if after is None else to_text(after)
        return self._call("timeline", "rows", id=job, after=place, max_rows=max_rows)

    def forget_old_runs(self, job: str, max_rows: int) -> Call:
        """Drop what old runs were told; answers how many facts."""
        return self._call("forget_old_runs", id=job, max_rows=max_rows)

    def result(self, job: str) -> Call:
        """Read how a job ended: (status, result, error)."""
        return self._call("result", "row", id=job)

    def status(self, job: str) -> Call:
        """Read where a job stands."""
        return self._call("status", "row", id=job)

    # Queues.
    def set_queue(
        self,
        queue: str,
        max_running: int | None,
        max_per_key: int | None,
        rate_per_second: Any,
        burst: Any,
    ) -> Call:
        """Limit a queue; what is None is not limited."""
        return self._call(
            "set_queue",
            queue=queue,
            max_running=max_running,
            max_per_key=max_per_key,
            rate_per_second=_number(rate_per_second),
            burst=_number(burst),
        ).reading(lambda _: None)

    def pause_queue(self, queue: str) -> Call:
        """Keep the tasks of a queue from workers."""
        return self._call("pause_queue", queue=queue)

    def resume_queue(self, queue: str) -> Call:
        """Give the tasks of a queue to workers again."""
        return self._call("resume_queue", queue=queue)

    def queue_depths(self, queue: str | None) -> Call:
        """Count the tasks of each queue, or of one."""
        return self._call("queue_depths", "rows", queue=queue)

    # Memory.
    def read(self, job: str, path: str) -> Call:
        """Read from the memory."""
        return self._call("entity_get", id=job, path=path)

    def create(self, job: str, entity: str, context: Any, key: str) -> Call:
        """Make a memory without a workflow."""
        return self._call("entity_create", id=job, entity=entity, context=to_text(context), key=key)

    def command(self, job: str, op: str, path: str, value: Any, options: dict[str, Any]) -> Call:
        """Change the memory; `value` is the command's argument, named as SQL names it."""
        arguments = {name: _argument(name, given) for name, given in value.items()}
        return self._call(f"entity_{op}", id=job, path=path, **arguments, **options)

    def apply(self, job: str, commands: Any, options: dict[str, Any]) -> Call:
        """Carry out several commands, all or none; answers an array of their answers."""
        return self._call("entity_apply", id=job, commands=to_text(commands), **options)

    def restore(self, job: str, version: int, options: dict[str, Any]) -> Call:
        """Make a memory again what it was."""
        return self._call("entity_restore", id=job, version=version, **options)

    def meets(self, job: str, condition: str) -> Call:
        """Tell whether a condition holds: answers the version, or None."""
        return self._call("entity_meets", id=job, condition=condition)

    def watch(self, job: str, listener: str) -> Call:
        """Say that somebody waits for changes of a memory; answers its version."""
        return self._call("entity_watch", id=job, listener=listener)

    def changes(self, job: str, path: str, after: int, max_rows: int) -> Call:
        """Read changes of a memory after a version."""
        return self._call(
            "entity_history", "rows", id=job, path=path, after=after, max_rows=max_rows
        )

    def memory_at(self, job: str, version: int | None, at: Any, path: str) -> Call:
        """Read what a memory was at a version or a time."""
        return self._call("entity_at", id=job, version=version, at=at, path=path)

    def diff(self, job: str, version: int, to_version: int | None) -> Call:
        """Read where a memory differs between versions."""
        return self._call("entity_diff", "rows", id=job, version=version, to_version=to_version)

    def blame(self, job: str, path: str) -> Call:
        """Read who wrote what stands in a memory."""
        return self._call("entity_blame", "rows", id=job, path=path)

    def items(self, job: str, path: str, after: int, max_rows: int) -> Call:
        """Read items of a log after a version."""
        return self._call("entity_items", "rows", id=job, path=path, after=after, max_rows=max_rows)

    def publish(self, task: Task, stream: str, items: Any, key: str, source: str) -> Call:
        """Add items to a stream for a held task; answers the version."""
        given = {"stream": stream, "items": to_text(items), "key": key, "source": source}
        return self._call("publish", **task, **given)

    def stream_items(self, job: str, stream: str, after: int, place: int | None) -> Call:
        """Read the items of a stream behind a place."""
        return self._call("stream_items", "rows", id=job, stream=stream, after=after, place=place)

    def forget(self, job: str) -> Call:
        """Delete a finished job or an entity with all that belongs to it."""
        return self._call("forget", id=job)

    # Schedules.
    def create_schedule(self, name: str, workflow: str, args: Any, **options: Any) -> Call:
        """Make or change a schedule; answers when it is due next."""
        if options.get("headers") is not None:
            options["headers"] = to_text(options["headers"])
        return self._call(
            "create_schedule", name=name, workflow=workflow, args=to_text(args), **options
        )

    def pause_schedule(self, name: str) -> Call:
        """Let a schedule start nothing; answers false where it was so."""
        return self._call("pause_schedule", name=name)

    def resume_schedule(self, name: str) -> Call:
        """Let a schedule go on; answers false where it was not paused."""
        return self._call("resume_schedule", name=name)

    def trigger_schedule(self, name: str, key: str) -> Call:
        """Start what a schedule starts; answers (id, is_new)."""
        return self._call("trigger_schedule", "row", name=name, key=key)

    def drop_schedule(self, name: str) -> Call:
        """Forget a schedule; answers false where there is none."""
        return self._call("drop_schedule", name=name)

    def schedules(self) -> Call:
        """Read the schedules, a row each."""
        query = f"select * from {self._quoted}.schedules order by name"
        return Call("schedules", query.encode(), (), "rows")

    # What jobs ask of people.
    def list_items(
        self,
        assignee: str | None,
        name: str | None,
        status: str,
        after: list[Any] | None,
        max_rows: int,
    ) -> Call:
        """List items; answers a row for each."""
        return self._call(
            "list_items",
            "rows",
            assignee=assignee,
            name=name,
            status=status,
            after=None if after is None else to_text(after),
            max_rows=max_rows,
        )

    def read_item(self, item: str) -> Call:
        """Read an item, open or resolved."""
        return self._call("read_item", "row", item=item)

    def claim_item(self, item: str, by: str) -> Call:
        """Take an item for a person; answers it, as all these do."""
        return self._call("claim_item", "row", item=item, by=by)

    def release_item(self, item: str, by: str | None) -> Call:
        """Give an item back."""
        return self._call("release_item", "row", item=item, by=by)

    def assign_item(self, item: str, assignee: str | None) -> Call:
        """Give an item to somebody else, or to anybody."""
        return self._call("assign_item", "row", item=item, assignee=assignee)

    def resolve_item(self, item: str, resolution: Any, by: str | None) -> Call:
        """Answer an item."""
        written = None if resolution is None else to_text(resolution)
        return self._call("resolve_item", "row", item=item, resolution=written, by=by)

    # Contracts.
    def define_contract(self, entity: str, schema: Any) -> Call:
        """Define what memories of an entity must look like."""
        return self._call("define_contract", entity=entity, schema=to_text(schema))

    def drop_contract(self, entity: str) -> Call:
        """Let memories of an entity be free; answers false when there was no contract."""
        return self._call("drop_contract", entity=entity)

    def contract(self, entity: str) -> Call:
        """Read the contract of an entity."""
        return self._call("contract_of", entity=entity)

    def broken_contracts(self, entity: str, schema: Any, after: str, max_rows: int) -> Call:
        """Find memories that do not fit; answers a row (id, path, rule, message) for each."""
        written = None if schema is None else to_text(schema)
        return self._call(
            "broken_contracts",
            "rows",
            entity=entity,
            schema=written,
            after=after,
            max_rows=max_rows,
        )

    # Memories of an entity.
    def find(self, entity: str, asked: dict[str, Any]) -> Call:
        """Find memories; answers a row for each."""
        json = ("conditions", "order_by", "after")
        written = {
            name: to_text(value) if name in json and value is not None else value
            for name, value in asked.items()
        }
        return self._call("find", "rows", entity=entity, **written)

    def count_found(self, entity: str, conditions: Any) -> Call:
        """Count memories."""
        return self._call("count_found", entity=entity, conditions=to_text(conditions))

    def signal_found(
        self,
        entity: str,
        conditions: Any,
        name: str,
        payload: Any,
        key: str,
        after: str,
        max_jobs: int,
    ) -> Call:
        """Send a signal to jobs of an entity; answers a row (id, is_new) for each."""
        return self._call(
            "signal_found",
            "rows",
            entity=entity,
            conditions=to_text(conditions),
            name=name,
            payload=None if payload is None else to_text(payload),
            key=key,
            after=after,
            max_jobs=max_jobs,
        )

    def cancel_found(
        self, entity: str, conditions: Any, reason: str | None, after: str, max_jobs: int
    ) -> Call:
        """Ask jobs of an entity to cancel; answers a row (id, is_new) for each."""
        return self._call(
            "cancel_found",
            "rows",
            entity=entity,
            conditions=to_text(conditions),
            reason=reason,
            after=after,
            max_jobs=max_jobs,
        )

    def statements_to_create_index(self, entity: str, path: str, kind: str) -> Call:
        """Answers the statements, a row each, that make an index while others write."""
        return self._call("statements_to_create_index", "rows", entity=entity, path=path, kind=kind)

    def statements_to_drop_index(self, entity: str, path: str, kind: str) -> Call:
        """Answers the statements, a row each, that drop an index while others write."""
        return self._call("statements_to_drop_index", "rows", entity=entity, path=path, kind=kind)

    def index_name(self, entity: str, path: list[str], kind: str) -> Call:
        """Name an index as the catalogue does."""
        return self._call("index_name", entity=entity, path=path, kind=kind)

    def index_work_is_running(self) -> Call:
        """Ask whether another session builds or drops an index."""
        return self._call("index_work_is_running")

    def indexes(self) -> Call:
        """Read which indexes are wanted, and what the catalogue says of them."""
        query = "select entity, path, kind, state, bytes, scans, name"
        query = f"{query} from {self._quoted}.indexes order by entity, path, kind"
        return Call("indexes", query.encode(), (), "rows")

    @staticmethod
    def statement(text: str) -> Call:
        """Run a statement that the server has written."""
        return Call("statement", text.encode(), (), "rows")

    @staticmethod
    def lock_timeout(seconds: float) -> Call:
        """Give up waiting for a lock after a time; for a connection of its own."""
        milliseconds = max(1, round(seconds * 1000))
        return Call("lock_timeout", b"set lock_timeout = %d" % milliseconds, (), "rows")

    # Work.
    def claim(
        self,
        queues: list[str],
        worker: str,
        claim_id: str,
        max_tasks: int,
        lease_for: float,
        *,
        since: str | None = None,
        idle: bool = False,
        instance: str | None = None,
    ) -> Call:
        """Take tasks that are due."""
        arguments: dict[str, Any] = {
            "queues": queues,
            "worker": worker,
            "claim_id": claim_id,
            "max_tasks": max_tasks,
            "lease_for": f"{lease_for} s",
            "since": since,
            "idle": idle or None,
            "protocol": PROTOCOL,
            "instance": instance,
        }
        return self._repeatable("claim", arguments)

    def advance(
        self,
        turns: str,
        *,
        queues: list[str] | None = None,
        worker: str | None = None,
        claim_id: str | None = None,
        max_tasks: int = 0,
        lease_for: float | None = None,
        since: str | None = None,
        waiting: bool = False,
        instance: str | None = None,
    ) -> Call:
        """Send turns (a JSON array), and take tasks in the same round trip when `max_tasks` > 0."""
        arguments: dict[str, Any] = {
            "turns": turns,
            "queues": queues,
            "worker": worker,
            "claim_id": claim_id,
            "max_tasks": max_tasks,
            "lease_for": f"{lease_for} s" if lease_for else None,
            "since": since,
            "waiting": waiting or None,
            "protocol": PROTOCOL,
            "instance": instance,
        }
        return (
            self._repeatable("advance", arguments)
            if max_tasks
            else self._call("advance", **arguments)
        )

    def _repeatable(self, function: str, arguments: dict[str, Any]) -> Call:
        again = self._call(function, **arguments, again=True)
        call = self._call(function, **arguments)
        return Call(function, call.query, call.params, again=again)

    def extend(self, tasks: list[Task], lease_for: float) -> Call:
        """Move the end of leases."""
        return self._call("extend", tasks=to_text(tasks), lease_for=f"{lease_for} s")

    def release(self, tasks: list[Task]) -> Call:
        """Give leases back before their time."""
        return self._call("release", tasks=to_text(tasks))

    @staticmethod
    def transaction_began() -> Call:
        """Ask when the open transaction began: any other one began at another time."""
        return Call("now", b"select extract(epoch from now())::text", ())

    def record(self, turn: Any, began: str) -> Call:
        """Send a turn as the last statement of the transaction that began then; null in another.

        From here on rows are locked that others need: a commit that never comes is not waited for.
        """
        query = (
            "select case when extract(epoch from now())::text = %s"
            f" and set_config('idle_in_transaction_session_timeout', '{COMMIT_WITHIN}', true) <> ''"
            f" then {self._quoted}.advance(turns => %s, waiting => true, protocol => %s) end"
        )
        return Call("record", query.encode(), (began, to_text([turn]), PROTOCOL))

    @staticmethod
    def reset() -> Call:
        """Undo what was set for a session."""
        return Call("reset", b"reset all", (), "rows")

    def run_task(self, job: str, task: str, token: str) -> Call:
        """Run a held task of the queue `$sql` in the database; answers what became of it."""
        return self._call("run_task", job=job, task=task, token=token)

    def time_out_task(self, job: str, task: str, token: str) -> Call:
        """Say that a call of run_task was given up, since it took too long; answers as that."""
        return self._call("time_out_task", job=job, task=task, token=token)

    def read_journal(self, job: str, task: str, after: int) -> Call:
        """Read a page of what a task has been told."""
        return self._call("read_journal", job=job, task=task, after=after, max_rows=JOURNAL_PAGE)

    def running_coordinators(self, after: str, max_rows: int, workflow: str | None) -> Call:
        """Read a page of what replays of running jobs need; answers a row (json) for each."""
        query = f"select to_jsonb(r) from {self._quoted}.running_coordinators(%s, %s, %s) as r"
        return Call("running_coordinators", query.encode(), (after, max_rows, workflow), "rows")

    def recording_of(self, job: str) -> Call:
        """Read what the replay of one job needs."""
        query = f"select to_jsonb(r) from {self._quoted}.recording_of(%s) as r"
        return Call("recording_of", query.encode(), (job,))

    def adopt_instance(self, copied_at: str | None) -> Call:
        """Let the app execute where it stands; answers who it is from now on."""
        return self._call("adopt_instance", copied_at=copied_at)

    def register_worker(
        self,
        worker: str,
        queues: list[str],
        details: dict[str, Any],
        version: str | None = None,
        functions: list[str] | None = None,
        instance: str | None = None,
    ) -> Call:
        """Say hello; answers {"instance", "version", "at", "queues"}."""
        return self._call(
            "register_worker",
            worker=worker,
            queues=queues,
            details=to_text(details),
            protocol=PROTOCOL,
            version=version,
            functions=functions,
            instance=instance,
        )

    def has_worker(self, queue: str, version: str | None, kind: str, name: str) -> Call:
        """Ask whether some worker serves a queue and version, and has a function."""
        query = f"select {self._quoted}.has_worker(%s, %s, %s, %s)"
        return Call("has_worker", query.encode(), (queue, version, kind, name))

    def served_queues(self, queues: list[str], version: str | None) -> Call:
        """Name the queues that a worker of a version claims from."""
        query = f"select {self._quoted}.served_queues(%s, %s)"
        return Call("served_queues", query.encode(), (queues, version))

    def forget_worker(self, worker: str) -> Call:
        """Say goodbye."""
        return self._call("forget_worker", worker=worker)

    # Waking.
    def listen_for(self, topic: str, listener: str) -> Call:
        """Say that somebody waits for a topic."""
        return self._call("listen_for", topic=topic, listener=listener)

    def stop_listening(self, listener: str) -> Call:
        """Say that nobody waits any more."""
        return self._call("stop_listening", listener=listener)

    def channel(self) -> Call:
        """Name the channel of this app's notifications."""
        return self._call("channel")

    @staticmethod
    def unlisten() -> Call:
        """Hear nothing more on this connection."""
        return Call("unlisten", b"unlisten *", (), "rows")

    # Tests.
    def clock(self) -> Call:
        """Tell the time of the app."""
        return self._call("clock")

    def move_clock(self, seconds: float) -> Call:
        """Move the clock of the app forward; answers the new time."""
        return self._call("move_clock", by=f"{seconds} s")

    def skip_time(self, up_to: datetime | None) -> Call:
        """Move the clock to when the next task is due; answers None where none will be."""
        return self._call("skip_time", up_to=up_to)

    def at_work(self, queues: list[str]) -> Call:
        """Find a task that is held, or due on one of these queues: (job, name, state, worker)."""
        query = f"""select job_id, name, state, worker from {self._quoted}.waiting
                     where state = 'leased' or (state = 'ready'
                       and {self._quoted}.versioned_queue(queue, pinned_version) = any(%s))
                     limit 1"""
        return Call("waiting", query.encode(), (queues,), "row")

    def will_be_due(self, queues: list[str], up_to: datetime | None) -> Call:
        """Tell whether anything happens by itself: now on these queues, or until then on any."""
        query = f"""select exists (
            select from {self._quoted}.tasks
             where due_at < 'infinity' and due_at <= coalesce(%s, 'infinity'::timestamptz)
               and not paused
               and (due_at > {self._quoted}.clock() or queue = any(%s)))"""
        return Call("tasks", query.encode(), (up_to, queues))

    def drop_schema(self) -> Call:
        """Drop the app, with all that is in it."""
        return Call("drop", f"drop schema if exists {self._quoted} cascade".encode(), (), "rows")

    def workflows(self) -> Call:
        """Name the jobs that have a workflow: rows (id, workflow)."""
        query = f"select id, workflow from {self._quoted}.jobs where workflow is not null"
        return Call("jobs", f"{query} order by id".encode(), (), "rows")

    # For people.
    def broken_histories(self) -> Call:
        """Make every memory of the app again; answers a row (json) for whatever is wrong."""
        query = f"select to_jsonb(b) from {self._quoted}.assert_histories(max_jobs => null) as b"
        return Call("assert_histories", query.encode(), (), "rows")

    def broken_invariants(self) -> Call:
        """Check the app's tables; answers a row (json) for whatever is wrong."""
        query = f"select to_jsonb(b) from {self._quoted}.assert_invariants() as b"
        return Call("assert_invariants", query.encode(), (), "rows")

    @staticmethod
    def listen(channel: str) -> Call:
        """Hear the app's notifications on this connection."""
        quoted = channel.replace('"', '""')
        return Call("listen", f'listen "{quoted}"'.encode(), (), "rows")


def _argument(name: str, value: Any) -> Any:
    """Write a command's argument: all but an index is JSON (the text of a number is one)."""
    return value if name == "index" else to_text(value)


def _number(value: Any) -> Decimal | None:
    """Give a number as it is written: 0.1 is a tenth."""
    return None if value is None else Decimal(str(value))


def _taken(cursor: Any, shape: Shape) -> Any:
    if cursor.description is None:
        return None
    if shape == "rows":
        return cursor.fetchall()
    row = cursor.fetchone()
    return row if shape == "row" or row is None else row[0]


_ADAPTERS = AdaptersMap(psycopg.adapters)


class PlainCursor(psycopg.Cursor[TupleRow]):
    """A cursor that reads and writes as this package does, whatever its connection makes of rows,
    parameters and types."""

    adapters = _ADAPTERS


class PlainAsyncCursor(psycopg.AsyncCursor[TupleRow]):
    """The same on an asynchronous connection."""

    adapters = _ADAPTERS


def send(connection: psycopg.Connection[Any], call: Call) -> Any:
    """Send a call and give its answer. Raises this package's errors for PDxxx.

    The connection may be the caller's, with rows, parameters and types of another kind.
    """
    cursor = PlainCursor(connection, row_factory=tuple_row)
    with translated():
        answer = _taken(cursor.execute(call.query, call.params or None), call.shape)
    return answer if call.read is None else call.read(answer)


def plain_cursor(connection: psycopg.AsyncConnection[Any]) -> psycopg.AsyncCursor[TupleRow]:
    """Give a cursor for `send_async`, whatever the caller's connection makes of rows."""
    return PlainAsyncCursor(connection, row_factory=tuple_row)


async def send_async(cursor: psycopg.AsyncCursor[TupleRow], call: Call) -> Any:
    """Send a call and give its answer. Raises this package's errors for PDxxx."""
    with translated():
        await cursor.execute(call.query, call.params or None)
        answer = await _taken_async(cursor, call.shape)
    return answer if call.read is None else call.read(answer)


async def _taken_async(cursor: psycopg.AsyncCursor[TupleRow], shape: Shape) -> Any:
    if cursor.description is None:
        return None
    if shape == "rows":
        return await cursor.fetchall()
    row = await cursor.fetchone()
    return row if shape == "row" or row is None else row[0]
