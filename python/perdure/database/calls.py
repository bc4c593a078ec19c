"""Every SQL text of the package, and nothing else.

A Call is a statement with its parameters. It is made here and sent by the holder of a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Literal, NamedTuple

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.rows import TupleRow, tuple_row

from perdure.basics.arguments import check_arguments
from perdure.basics.durations import as_interval
from perdure.basics.paths import parse_path
from perdure.codecs import Codec, check_codec
from perdure.errors import InvalidArgument, InvalidName, InvalidValue, translated
from perdure.values.envelopes import MAIN, mark_envelopes, request_place

from . import unsealers
from .sealing import (
    Fields,
    NullSealer,
    Sealer,
    check_command,
    check_size,
    condition_paths,
    order_paths,
    write_json,
)
from .unsealing import Origin, Unseal, Unsealer, UnsealSteps, as_it_is, unseal_answer

PROTOCOL = 1
JOURNAL_PAGE = 10_000
_OF_WORKERS = frozenset({"advance", "claim", "register_worker"})
"""Functions that only workers call, with arguments of their own making."""

COMMIT_WITHIN = "10 s"
"""How long a transaction that has recorded its result may keep others waiting for its commit."""

Shape = Literal["value", "row", "rows"]
Task = dict[str, Any]
"""What names a held task in heartbeats and releases: `{"job", "task", "token"}`, perhaps with its
`progress`."""


class Call(NamedTuple):
    """A call of one SQL function; `again` is set when a claim is repeated after a lost reply.

    `opens` decrypts what the server has sent, `read` makes the answer from that.
    """

    function: str
    query: bytes
    params: tuple[Any, ...]
    shape: Shape = "value"
    again: Call | None = None
    read: Callable[[Any], Any] | None = None
    unseals: Callable[[Any], UnsealSteps] | None = None

    def as_it_is(self) -> Call:
        """Return the same call with an answer that leaves encrypted values as they are."""
        return self._replace(unseals=None)

    def reading(self, read: Callable[[Any], Any]) -> Call:
        """Return the same call with a way to read its answer."""
        return self._replace(read=read)


def to_text(value: Any) -> str:
    """Write a value as JSON for the server. Raises InvalidValue for what JSON cannot hold."""
    try:
        return write_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue(
            f"this value cannot be written as JSON: {error}",
            hint="Use text, numbers, booleans, None, lists, dicts, dataclasses or pydantic models.",
        ) from error


class Calls:
    """The statements of one app: `Calls("my_app").claim(...)`.

    With a codec, values are encrypted here on their way in and decrypted on their way out, and
    nowhere else. `shows_envelopes` leaves them encrypted, for people who only look.
    """

    def __init__(self, schema: str, codec: Codec | None = None):
        if not schema or "\0" in schema or len(schema.encode()) > 63:
            raise InvalidName(f"{schema!r} is not a name for a schema")
        self.schema = schema
        check_codec(codec)
        self.codec = codec
        self.fields = Fields(() if codec is None else codec.memory)
        self.shows_envelopes = False
        self._quoted = '"' + schema.replace('"', '""') + '"'
        self._texts: dict[tuple[str, ...], bytes] = {}

    def _seal(self, key: str | None = None) -> Sealer:
        """Return what encrypts the values of a call, which may be repeated under `key`."""
        return NULL_SEALER if self.codec is None else Sealer(self.codec, self.fields, key)

    def _unsealing(self, unseal: Unseal) -> Callable[[Any], UnsealSteps] | None:
        if self.shows_envelopes:
            return None
        return partial(unseal_answer, self.codec, self.fields, self.origins, unseal)

    def _unsealed(self, call: Call, unseal: Unseal) -> Call:
        """Return the same call with a way to decrypt its answer."""
        return call._replace(unseals=self._unsealing(unseal))

    def origins(self, jobs: Iterable[str]) -> Call:
        """Read of which jobs some jobs come; returns an Origin for each that has any."""
        call = self._call("origins_of", "rows", ids=sorted(jobs))
        return call.reading(lambda rows: {job: Origin(*others) for job, *others in rows})

    def _call(self, function: str, shape: Shape = "value", /, **arguments: Any) -> Call:
        """Call with the arguments that are not None. SQL has defaults for the others.

        Raises InvalidArgument for a wrong type where SQL takes text or a number.
        """
        if function not in _OF_WORKERS:
            check_arguments(function, arguments)
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
        """Start a job; returns (id, is_new)."""
        return self._call(
            "start", "row", **self._started({"workflow": workflow, "args": args} | options)
        )

    def _started(self, start: dict[str, Any]) -> dict[str, Any]:
        """Write the arguments of a start."""
        written = self._sealed_start(start)
        for name in ("args", "context", "headers"):
            if written.get(name) is not None:
                written[name] = to_text(written[name])
        return written

    def _sealed_start(self, start: dict[str, Any]) -> dict[str, Any]:
        seal, job = self._seal(start.get("key")), start["id"]
        sealed = start | {"args": seal.args(job, MAIN, start["args"])}
        if start.get("context") is not None:
            sealed["context"] = seal.document(job, [], start["context"])
        return sealed

    def signal_with_start(
        self, workflow: str, args: Any, job: str, name: str, payload: Any, **options: Any
    ) -> Call:
        """Send a signal to a job, which is started if it does not exist; returns (id, is_new)."""
        start = self._started({"workflow": workflow, "args": args, "id": job} | options)
        sealed = self._seal(options.get("key")).whole("signal", job, name, payload)
        return self._call("signal_with_start", "row", name=name, payload=_or_null(sealed), **start)

    def start_many(self, starts: Sequence[dict[str, Any]]) -> Call:
        """Start jobs; returns a row (id, is_new) for each."""
        sealed = [self._sealed_start(start) for start in starts]
        return self._call("start_many", "rows", starts=to_text(sealed))

    def hook(self, job: str, name: str, args: Any, **options: Any) -> Call:
        """Start a hook from outside; returns the task's name."""
        sealed = self._seal(options.get("key")).args(job, name, args)
        return self._call("hook", id=job, name=name, args=to_text(sealed), **options)

    def register_sql_hook(self, name: str, function: str, **options: Any) -> Call:
        """Register a function of the database as a hook."""
        call = self._call("register_sql_hook", name=name, function=function, **options)
        named = b'"function" => pg_catalog.to_regproc(%s)'  # null if there is none
        return call._replace(query=call.query.replace(b'"function" => %s', named))

    def drop_sql_hook(self, name: str) -> Call:
        """Unregister a hook in SQL; returns False if there was none."""
        return self._call("drop_sql_hook", name=name)

    def sql_hooks(self) -> Call:
        """Read which functions of the database are hooks."""
        query = "select name, schema, function, attempts, retry_in, timeout, within"
        query = f"{query} from {self._quoted}.sql_hooks order by name"
        return Call("sql_hooks", query.encode(), (), "rows")

    def sql_hook_timeout(self, name: str) -> Call:
        """Ask how many seconds an attempt of a hook in SQL may take; returns None for no limit."""
        query = f"select extract(epoch from {self._quoted}.sql_hook_timeout(%s))"
        return Call("sql_hook_timeout", query.encode(), (name,))

    def signal(self, job: str, name: str, payload: Any, key: str | None) -> Call:
        """Send a signal; returns False if the key was used before."""
        sealed = self._seal(key).whole("signal", job, name, payload)
        return self._call("signal", id=job, name=name, payload=_or_null(sealed), key=key)

    def _reason(self, job: str, reason: str | None) -> Any:
        return self._seal().whole("reason", job, "", reason)

    def cancel(self, job: str, reason: str | None) -> Call:
        """Ask a job to cancel."""
        return self._call("cancel", id=job, reason=self._reason(job, reason))

    def cancel_hook(self, job: str, task: str, reason: str | None) -> Call:
        """Ask a hook or activity of a job to cancel."""
        return self._call("cancel_hook", id=job, task=task, reason=self._reason(job, reason))

    def family(self, job: str, max_rows: int) -> Call:
        """Read the descendants of a job; returns a row for each, itself first."""
        return self._call("family", "rows", id=job, max_rows=max_rows)

    def terminate(self, job: str, reason: str | None) -> Call:
        """End a job at once."""
        return self._call("terminate", id=job, reason=self._reason(job, reason))

    def resume(self, job: str, task: str | None, accept_changes: bool) -> Call:
        """Wake stuck tasks; returns how many."""
        return self._call("resume", id=job, task=task, accept_changes=accept_changes)

    def repin(self, job: str, version: str | None) -> Call:
        """Pin a job to another version of the code, or to none; returns how many tasks moved."""
        check_arguments("repin", {"pinned_version": version})
        query = f"select {self._quoted}.repin(%s, %s)"
        return Call("repin", query.encode(), (job, version))

    def pause(self, job: str) -> Call:
        """Keep the tasks of a job from workers."""
        return self._call("pause", id=job)

    def retry(self, job: str, args: Any, timeout: str | None, key: str) -> Call:
        """Run a failed or cancelled job again; returns False if it does not run again."""
        sealed = self._seal(key).args(job, MAIN, args)
        return self._call("retry", id=job, args=_or_null(sealed), timeout=timeout, key=key)

    def fork(self, job: str, new_id: str, seq: int | None, context: Any, key: str) -> Call:
        """Start a job from a place in the journal of another; returns (id, is_new)."""
        sealed = self._seal(key).document(new_id, [], context)
        written = _or_null(sealed)
        return self._call("fork", "row", id=job, new_id=new_id, seq=seq, context=written, key=key)

    def timeline(self, job: str, after: list[Any] | None, max_rows: int) -> Call:
        """Read what belongs to a job, after a place; returns a row for each item."""
        call = self._call("timeline", "rows", id=job, after=_or_null(after), max_rows=max_rows)
        return self._unsealed(call, partial(unsealers.timeline, job))

    def forget_finished(self, before: datetime, entity: str | None, max_jobs: int) -> Call:
        """Delete jobs that finished before a time; returns how many."""
        return self._call("forget_finished", before=before, entity=entity, max_jobs=max_jobs)

    def forget_old_runs(self, job: str, max_rows: int) -> Call:
        """Delete what old runs were told; returns how many facts."""
        return self._call("forget_old_runs", id=job, max_rows=max_rows)

    def result(self, job: str) -> Call:
        """Read how a job ended: (status, result, error)."""
        return self._unsealed(self._call("result", "row", id=job), partial(unsealers.result, job))

    def await_result(self, job: str, timeout: float) -> Call:
        """Let the server wait for the end of a job, for so many seconds, and read it."""
        call = self._call("await_result", "row", id=job, timeout=as_interval(timeout))
        return self._unsealed(call, partial(unsealers.result, job))

    def hook_result(self, job: str, task: str) -> Call:
        """Read how a hook from outside ended: (status, result, error)."""
        call = self._call("hook_result", "row", id=job, task=task)
        return self._unsealed(call, partial(unsealers.hook_result, job, task))

    def status(self, job: str) -> Call:
        """Read where a job stands."""
        return self._call("status", "row", id=job)

    def task_reason(self, job: str, task: str) -> Call:
        """Read in words what a task waits for; None if it has ended."""
        return self._call("task_reason", job=job, task=task)

    def list_jobs(self, **asked: Any) -> Call:
        """List jobs; returns a row for each."""
        return self._call("list_jobs", "rows", **asked)

    # Queues.
    def set_queue(self, queue: str, rate_per_second: Any, burst: Any, **limits: Any) -> Call:
        """Limit a queue; a limit that is None is removed."""
        limits["rate_per_second"] = _number("rate_per_second", rate_per_second)
        limits["burst"] = _number("burst", burst)
        return self._call("set_queue", queue=queue, **limits).reading(lambda _: None)

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
        return self._part(job, path, self._call("entity_get", id=job, path=path))

    def _part(self, job: str, path: str, call: Call) -> Call:
        """Return the same call with a way to decrypt the part of a memory that it returns."""
        return self._unsealed(call, partial(unsealers.document, job, parse_path(path)))

    def create(self, job: str, entity: str, context: Any, key: str) -> Call:
        """Create a memory without a workflow."""
        sealed = self._seal(key).document(job, [], context)
        return self._call("entity_create", id=job, entity=entity, context=to_text(sealed), key=key)

    def command(self, job: str, op: str, path: str, value: Any, options: dict[str, Any]) -> Call:
        """Change the memory; `value` is the command's argument, named as SQL names it."""
        seal, keys = self._seal(options.get("key")), parse_path(path)
        check_command(self.fields, op, keys)
        sealed = {name: seal.argument(job, op, keys, given) for name, given in value.items()}
        arguments = {name: _argument(name, given) for name, given in sealed.items()}
        call = self._call(f"entity_{op}", id=job, path=path, **arguments, **options)
        return self._part(job, path, call)

    def apply(self, job: str, commands: Any, options: dict[str, Any]) -> Call:
        """Apply several commands, all or none; returns an array of their answers."""
        seal = self._seal(options.get("key"))
        sealed = [seal.command(job, command) for command in commands]
        call = self._call("entity_apply", id=job, commands=to_text(sealed), **options)
        return self._unsealed(
            call, partial(unsealers.answers, job, [each["path"] for each in commands])
        )

    def restore(self, job: str, version: int, options: dict[str, Any]) -> Call:
        """Make a memory again what it was at a version."""
        return self._call("entity_restore", id=job, version=version, **options)

    def meets(self, job: str, condition: str) -> Call:
        """Check whether a memory meets a condition; returns the version, or None."""
        return self._call("entity_meets", id=job, condition=condition)

    def watch(self, job: str, listener: str) -> Call:
        """Record that somebody waits for changes of a memory; returns its version."""
        return self._call("entity_watch", id=job, listener=listener)

    def changes(self, job: str, path: str, after: int, max_rows: int) -> Call:
        """Read changes of a memory after a version."""
        call = self._call(
            "entity_history", "rows", id=job, path=path, after=after, max_rows=max_rows
        )
        return self._unsealed(call, partial(unsealers.changes, job))

    def memory_at(self, job: str, version: int | None, at: Any, path: str) -> Call:
        """Read a memory as it was at a version or a time."""
        call = self._call("entity_at", id=job, version=version, at=at, path=path)
        return self._part(job, path, call)

    def diff(self, job: str, version: int, to_version: int | None) -> Call:
        """Read where a memory differs between versions."""
        call = self._call("entity_diff", "rows", id=job, version=version, to_version=to_version)
        return self._unsealed(call, partial(unsealers.parts, job, (2, 3)))

    def blame(self, job: str, path: str) -> Call:
        """Read who wrote each value in a memory."""
        call = self._call("entity_blame", "rows", id=job, path=path)
        return self._unsealed(call, partial(unsealers.parts, job, (1,)))

    def items(self, job: str, path: str, after: int, max_rows: int) -> Call:
        """Read items of a log after a version."""
        call = self._call("entity_items", "rows", id=job, path=path, after=after, max_rows=max_rows)
        return self._unsealed(call, partial(unsealers.items, job, parse_path(path)))

    def publish(self, task: Task, stream: str, items: Any, key: str, source: str) -> Call:
        """Add items to a stream for a held task; returns the version."""
        sealed = self._seal(key).items(task["job"], parse_path(stream), items)
        given = {"stream": stream, "items": to_text(sealed), "key": key, "source": source}
        return self._call("publish", **task, **given)

    def stream_items(self, job: str, stream: str, after: int, place: int | None) -> Call:
        """Read the items of a stream after a place."""
        call = self._call("stream_items", "rows", id=job, stream=stream, after=after, place=place)
        return self._unsealed(call, partial(unsealers.items, job, parse_path(stream)))

    def forget(self, job: str) -> Call:
        """Delete a finished job or an entity with all that belongs to it."""
        return self._call("forget", id=job)

    # Schedules.
    def create_schedule(self, name: str, workflow: str, args: Any, **options: Any) -> Call:
        """Create or change a schedule; returns when it is due next."""
        if options.get("headers") is not None:
            options["headers"] = to_text(options["headers"])
        sealed = self._seal(f"schedule {name}").args("", workflow, args)
        return self._call(
            "create_schedule", name=name, workflow=workflow, args=to_text(sealed), **options
        )

    def pause_schedule(self, name: str) -> Call:
        """Pause a schedule; returns False if it was paused."""
        return self._call("pause_schedule", name=name)

    def resume_schedule(self, name: str) -> Call:
        """Resume a schedule; returns False if it was not paused."""
        return self._call("resume_schedule", name=name)

    def trigger_schedule(self, name: str, key: str) -> Call:
        """Start the job of a schedule now; returns (id, is_new)."""
        return self._call("trigger_schedule", "row", name=name, key=key)

    def drop_schedule(self, name: str) -> Call:
        """Delete a schedule; returns False if there is none."""
        return self._call("drop_schedule", name=name)

    def schedules(self) -> Call:
        """Read the schedules, a row each."""
        query = f"select * from {self._quoted}.schedules order by name"
        return Call("schedules", query.encode(), (), "rows")

    # What jobs ask of people.
    def list_items(self, after: list[Any] | None, **asked: Any) -> Call:
        """List items; returns a row for each."""
        call = self._call("list_items", "rows", after=_or_null(after), **asked)
        return self._unsealed(call, unsealers.asked_items)

    def _item(self, verb: str, item: str, **given: Any) -> Call:
        return self._unsealed(self._call(verb, "row", item=item, **given), unsealers.asked_item)

    def read_item(self, item: str) -> Call:
        """Read an item, open or resolved."""
        return self._item("read_item", item)

    def claim_item(self, item: str, by: str) -> Call:
        """Claim an item for a person; returns the item, as the other calls on items do."""
        return self._item("claim_item", item, by=by)

    def release_item(self, item: str, by: str | None) -> Call:
        """Release an item."""
        return self._item("release_item", item, by=by)

    def assign_item(self, item: str, assignee: str | None) -> Call:
        """Assign an item to somebody else, or to anybody."""
        return self._item("assign_item", item, assignee=assignee)

    def resolve_item(
        self, item: str, asked_by: tuple[str, str, str], resolution: Any, by: str | None
    ) -> Call:
        """Resolve an item, which belongs to a job, a task of it and a key."""
        job, task, key = asked_by
        # A repeated call is recognized by this alone.
        sealed = self._seal(f"item {item}").result(job, request_place(task, key), resolution)
        return self._item("resolve_item", item, resolution=_or_null(sealed), by=by)

    # Contracts.
    def define_contract(self, entity: str, schema: Any) -> Call:
        """Define the contract of an entity."""
        return self._call("define_contract", entity=entity, schema=to_text(schema))

    def drop_contract(self, entity: str) -> Call:
        """Remove the contract of an entity; returns False if there was none."""
        return self._call("drop_contract", entity=entity)

    def contract(self, entity: str) -> Call:
        """Read the contract of an entity."""
        return self._call("contract_of", entity=entity)

    def broken_contracts(self, entity: str, schema: Any, **page: Any) -> Call:
        """Find memories that break a contract; returns a row (id, path, rule, message) for each."""
        written = _or_null(schema)
        return self._call("broken_contracts", "rows", entity=entity, schema=written, **page)

    # Memories of an entity.
    def find(
        self, entity: str, conditions: Any, order_by: list[Any], after: Any, max_rows: int
    ) -> Call:
        """Find memories; returns a row for each."""
        self._check_readable(order_paths(order_by))
        call = self._call(
            "find",
            "rows",
            entity=entity,
            conditions=self._written(conditions),
            order_by=to_text(order_by),
            max_rows=max_rows,
            after=_or_null(after),
        )
        return self._unsealed(call, unsealers.found)

    def _written(self, conditions: Any) -> str:
        """Write conditions. Raises InvalidArgument if they ask for an encrypted value."""
        self._check_readable(condition_paths(conditions))
        return to_text(conditions)

    def _check_readable(self, paths: Iterator[str]) -> None:
        for path in paths if self.codec is not None else ():
            if self.fields.has(parse_path(path)):
                raise InvalidArgument(
                    f"{path} is encrypted: nothing can be found by it",
                    hint="Keep what you search for, or a hash of it, in another field.",
                )

    def count_found(self, entity: str, conditions: Any) -> Call:
        """Count memories."""
        return self._call("count_found", entity=entity, conditions=self._written(conditions))

    def signal_found(
        self, entity: str, conditions: Any, name: str, payload: Any, key: str, **page: Any
    ) -> Call:
        """Send a signal to jobs of an entity; returns a row (id, is_new) for each."""
        sealed = self._seal(key).whole("signal", "", name, payload)
        told = {"name": name, "payload": _or_null(sealed), "key": key}
        asked = self._written(conditions)
        return self._call("signal_found", "rows", entity=entity, conditions=asked, **told, **page)

    def cancel_found(self, entity: str, conditions: Any, reason: str | None, **page: Any) -> Call:
        """Ask jobs of an entity to cancel; returns a row (id, is_new) for each."""
        asked, why = self._written(conditions), self._reason("", reason)
        return self._call(
            "cancel_found", "rows", entity=entity, conditions=asked, reason=why, **page
        )

    def statements_to_create_index(self, entity: str, path: str, kind: str) -> Call:
        """Return the statements, a row each, that create an index while others write."""
        return self._call("statements_to_create_index", "rows", entity=entity, path=path, kind=kind)

    def statements_to_drop_index(self, entity: str, path: str, kind: str) -> Call:
        """Return the statements, a row each, that drop an index while others write."""
        return self._call("statements_to_drop_index", "rows", entity=entity, path=path, kind=kind)

    def index_name(self, entity: str, path: list[str], kind: str) -> Call:
        """Name an index as the catalogue does."""
        return self._call("index_name", entity=entity, path=path, kind=kind)

    def index_work_is_running(self) -> Call:
        """Ask whether another session builds or drops an index."""
        return self._call("index_work_is_running")

    def indexes(self) -> Call:
        """Read the indexes that are wanted, with their state in the catalogue."""
        query = "select entity, path, kind, state, bytes, scans, name"
        query = f"{query} from {self._quoted}.indexes order by entity, path, kind"
        return Call("indexes", query.encode(), (), "rows")

    @staticmethod
    def statement(text: str) -> Call:
        """Run a statement that the server has written."""
        return Call("statement", text.encode(), (), "rows")

    @staticmethod
    def lock_timeout(seconds: float) -> Call:
        """Set how long this session waits for a lock."""
        milliseconds = max(1, round(seconds * 1000))
        return Call("lock_timeout", b"set lock_timeout = %d" % milliseconds, (), "rows")

    # Work.
    def claim(self, **asked: Any) -> Call:
        """Claim due tasks.

        If the server crashes it may forget the claim, and the tasks are due again.
        """
        return self._repeatable("claim", Unsealer.claimed, durable=False, **asked)

    def sealable(self, value: Any) -> Any:
        """Return a value that can be sealed. Raises ValueTooLarge."""
        if self.codec is not None:
            check_size(value)
        return value

    def turn(self, body: Any, row: Task) -> str:
        """Write a turn of a claimed task for advance()."""
        return to_text(self._seal().turn(body, row))

    def advance(self, turns: str, bodies: Sequence[Any], **asked: Any) -> Call:
        """Send turns (a JSON array), and claim up to `max_tasks` tasks in the same round trip.

        `bodies` are those of which the turns were written; the other arguments are those of
        `claim()`.
        """

        def unseal(unsealer: Unsealer, reply: Any) -> Any:
            return unsealer.advanced(bodies, reply)

        if "max_tasks" in asked:
            return self._repeatable("advance", unseal, turns=turns, **asked)
        return self._unsealed(
            self._call("advance", turns=turns, **asked, protocol=PROTOCOL), unseal
        )

    def _repeatable(self, function: str, unseal: Unseal, **arguments: Any) -> Call:
        call = self._unsealed(self._call(function, **arguments, protocol=PROTOCOL), unseal)
        again = self._call(function, **arguments, protocol=PROTOCOL, again=True)
        return call._replace(again=self._unsealed(again, unseal))

    def extend(self, tasks: list[Task], lease_for: float) -> Call:
        """Renew leases."""
        sealed = self._leases(tasks)
        return self._call("extend", tasks=to_text(sealed), lease_for=as_interval(lease_for))

    def _leases(self, tasks: list[Task]) -> list[Task]:
        """Encrypt the progress of tasks."""
        if self.codec is None:
            return tasks
        seal = self._seal()
        return [
            task | {"progress": seal.progress(task)} if "progress" in task else task
            for task in tasks
        ]

    def release(self, tasks: list[Task]) -> Call:
        """Give leases back before their time."""
        return self._call("release", tasks=to_text(self._leases(tasks)))

    @staticmethod
    def transaction_began() -> Call:
        """Ask when the open transaction began, which tells it from any other."""
        return Call("now", b"select extract(epoch from now())::text", ())

    def record(self, turn: Any, row: Task, began: str) -> Call:
        """Send a turn as the last statement of the transaction that began then; else null.

        From here on rows are locked that others need, so a commit that does not come is given up.
        """
        query = (
            "select case when extract(epoch from now())::text = %s"
            f" and set_config('idle_in_transaction_session_timeout', '{COMMIT_WITHIN}', true) <> ''"
            f" then {self._quoted}.advance(turns => %s, waiting => true, protocol => %s) end"
        )
        params = began, f"[{self.turn(turn, row)}]", PROTOCOL
        unseals = self._unsealing(
            lambda unsealer, reply: reply and unsealer.advanced([turn], reply)
        )
        return Call("record", query.encode(), params, unseals=unseals)

    @staticmethod
    def reset() -> Call:
        """Undo the settings of a session."""
        return Call("reset", b"reset all", (), "rows")

    def run_task(self, job: str, task: str, token: str) -> Call:
        """Run a held task of the queue `$sql` in the database; returns what became of it."""
        return self._call("run_task", job=job, task=task, token=token)

    def time_out_task(self, job: str, task: str, token: str) -> Call:
        """Report that run_task() was given up as too slow; returns what became of the task."""
        return self._call("time_out_task", job=job, task=task, token=token)

    def read_journal(self, job: str, task: str, after: int) -> Call:
        """Read a page of what a task has been told."""
        call = self._call("read_journal", job=job, task=task, after=after, max_rows=JOURNAL_PAGE)
        return self._unsealed(call, partial(unsealers.journal, job, task))

    def running_coordinators(self, after: str, max_rows: int, workflow: str | None) -> Call:
        """Read a page of what replays of running jobs need; returns a row (json) for each."""
        query = f"select to_jsonb(r) from {self._quoted}.running_coordinators(%s, %s, %s) as r"
        return Call("running_coordinators", query.encode(), (after, max_rows, workflow), "rows")

    def recording_of(self, job: str) -> Call:
        """Read what the replay of one job needs."""
        query = f"select to_jsonb(r) from {self._quoted}.recording_of(%s) as r"
        return Call("recording_of", query.encode(), (job,))

    def adopt_instance(self, copied_at: datetime | None) -> Call:
        """Let a copy of the app execute; returns its new instance."""
        return self._call("adopt_instance", copied_at=copied_at)

    def register_worker(self, worker: str, details: dict[str, Any], **more: Any) -> Call:
        """Register a worker; returns {"instance", "version", "at", "queues"}."""
        known = {"worker": worker, "details": to_text(details), "protocol": PROTOCOL}
        return self._call("register_worker", **known, **more)

    def has_worker(self, queue: str, version: str | None, kind: str, name: str) -> Call:
        """Ask whether some worker serves a queue and version, and has a function."""
        query = f"select {self._quoted}.has_worker(%s, %s, %s, %s)"
        return Call("has_worker", query.encode(), (queue, version, kind, name))

    def served_queues(self, queues: list[str], version: str | None) -> Call:
        """Name the queues that a worker of a version claims from."""
        query = f"select {self._quoted}.served_queues(%s, %s)"
        return Call("served_queues", query.encode(), (queues, version))

    def forget_worker(self, worker: str) -> Call:
        """Unregister a worker."""
        return self._call("forget_worker", worker=worker)

    # Waking.
    def listen_for(self, topic: str, listener: str) -> Call:
        """Record that somebody waits for a topic."""
        return self._call("listen_for", topic=topic, listener=listener)

    def stop_listening(self, listener: str) -> Call:
        """Record that nobody waits any more."""
        return self._call("stop_listening", listener=listener)

    def channel(self) -> Call:
        """Name the channel of this app's notifications."""
        return self._call("channel")

    @staticmethod
    def backend() -> Call:
        """Ask which process of the server answers, and how its transactions are isolated."""
        query = b"select pg_backend_pid(), current_setting('default_transaction_isolation')"
        return Call("backend", query, (), "row")

    @staticmethod
    def isolate() -> Call:
        """Let each statement of this session see what was committed before it."""
        query = b"set default_transaction_isolation = 'read committed'"
        return Call("isolate", query, (), "rows")

    @staticmethod
    def write_times() -> Call:
        """Let this session write times in the form that psycopg reads."""
        return Call("write_times", b"set datestyle = 'ISO'", (), "rows")

    @staticmethod
    def unlisten() -> Call:
        """Hear nothing more on this connection."""
        return Call("unlisten", b"unlisten *", (), "rows")

    # Tests.
    def clock(self) -> Call:
        """Tell the time of the app."""
        return self._call("clock")

    def move_clock(self, seconds: float) -> Call:
        """Move the clock of the app forward; returns the new time."""
        return self._call("move_clock", by=f"{seconds} s")

    def skip_time(self, up_to: datetime | None) -> Call:
        """Move the clock to when the next task is due; returns None if none will be."""
        return self._call("skip_time", up_to=up_to)

    @property
    def _kept_back(self) -> str:
        """Write why a due task `t` cannot be claimed."""
        return f"{self._quoted}.queue_reason(t.queue, t.limit_key, {self._quoted}.clock())"

    def at_work(self, queues: list[str]) -> Call:
        """Find a task that is held, or is due on one of these queues and not kept back by a limit.

        Returns (job, name, state, worker).
        """
        query = f"""select w.job_id, w.name, w.state, w.worker
                      from {self._quoted}.waiting as w
                      join {self._quoted}.tasks as t using (job_id, task)
                     where w.state = 'leased' or (w.state = 'ready' and t.queue = any(%s)
                       and {self._kept_back} is null)
                     limit 1"""
        return Call("waiting", query.encode(), (queues,), "row")

    def will_be_due(self, queues: list[str], up_to: datetime | None) -> Call:
        """Tell whether anything happens by itself: now on these queues, or by a time on any."""
        query = f"""select exists (
            select from {self._quoted}.tasks as t
             where due_at < 'infinity' and due_at <= coalesce(%s, 'infinity'::timestamptz)
               and not paused
               and (due_at > {self._quoted}.clock()
                    or queue = any(%s) and {self._kept_back} is null))"""
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
        """Recompute every memory of the app; returns a row (json) for whatever is wrong."""
        query = f"select to_jsonb(b) from {self._quoted}.assert_histories(max_jobs => null) as b"
        return Call("assert_histories", query.encode(), (), "rows")

    def broken_invariants(self) -> Call:
        """Check the app's tables; returns a row (json) for whatever is wrong."""
        query = f"select to_jsonb(b) from {self._quoted}.assert_invariants() as b"
        return Call("assert_invariants", query.encode(), (), "rows")

    @staticmethod
    def listen(channel: str) -> Call:
        """Hear the app's notifications on this connection."""
        quoted = channel.replace('"', '""')
        return Call("listen", f'listen "{quoted}"'.encode(), (), "rows")


NULL_SEALER = NullSealer()
"""The sealer if there is no codec."""


def _or_null(value: Any) -> str | None:
    """Write a value as JSON; None is the null of SQL."""
    return None if value is None else to_text(value)


def _argument(name: str, value: Any) -> Any:
    """Write a command's argument: all but an index is JSON (the text of a number is one)."""
    return value if name == "index" else to_text(value)


def _number(name: str, value: Any) -> Decimal | None:
    """Return a number as it is written: 0.1 is a tenth. Raises InvalidArgument."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise InvalidArgument(f"{name}={value!r} is not a number"[:500], hint="Give int or float.")
    return Decimal(str(value))


def _taken(cursor: Any, shape: Shape) -> Any:
    if cursor.description is None:
        return None
    if shape == "rows":
        return cursor.fetchall()
    row = cursor.fetchone()
    return row if shape == "row" or row is None else row[0]


_ADAPTERS = AdaptersMap(psycopg.adapters)
mark_envelopes(_ADAPTERS)


class PlainCursor(psycopg.Cursor[TupleRow]):
    """A cursor that reads and writes as this package does, whatever settings its connection has."""

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
    return _unsealed(connection, call, answer)


def send_together(connection: psycopg.Connection[Any], *calls: Call) -> list[Any]:
    """Send calls in one round trip and one transaction, and return their answers.

    A connection that breaks meanwhile is closed, even if its driver still waits for answers.
    """
    cursors = [PlainCursor(connection, row_factory=tuple_row) for _ in calls]
    with translated():
        try:
            with connection.pipeline():
                for cursor, call in zip(cursors, calls, strict=True):
                    cursor.execute(call.query, call.params or None)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:
                connection.close()
            raise
        answers = [_taken(cursor, call.shape) for cursor, call in zip(cursors, calls, strict=True)]
    return [_unsealed(connection, *one) for one in zip(calls, answers, strict=True)]


def _unsealed(connection: psycopg.Connection[Any], call: Call, answer: Any) -> Any:
    if call.unseals is None:
        answer = as_it_is(answer)
    else:
        unseals, told = call.unseals(answer), None
        try:
            while True:
                told = send(connection, unseals.send(told))
        except StopIteration as end:
            answer = end.value
    return answer if call.read is None else call.read(answer)


def plain_cursor(connection: psycopg.AsyncConnection[Any]) -> psycopg.AsyncCursor[TupleRow]:
    """Return a cursor for `send_async`, whatever settings the caller's connection has."""
    return PlainAsyncCursor(connection, row_factory=tuple_row)


async def send_async(cursor: psycopg.AsyncCursor[TupleRow], call: Call) -> Any:
    """Send a call and give its answer. Raises this package's errors for PDxxx."""
    with translated():
        await cursor.execute(call.query, call.params or None)
        answer = await _taken_async(cursor, call.shape)
    if call.unseals is None:
        answer = as_it_is(answer)
    else:
        unseals, told = call.unseals(answer), None
        try:
            while True:
                told = await send_async(cursor, unseals.send(told))
        except StopIteration as end:
            answer = end.value
    return answer if call.read is None else call.read(answer)


async def _taken_async(cursor: psycopg.AsyncCursor[TupleRow], shape: Shape) -> Any:
    if cursor.description is None:
        return None
    if shape == "rows":
        return await cursor.fetchall()
    row = await cursor.fetchone()
    return row if shape == "row" or row is None else row[0]
