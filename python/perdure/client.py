"""Clients for plain code: start jobs, wait for them, signal them, use their memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from . import resealing
from .borrowing import borrowed
from .calls import Call, send
from .codecs import Codec
from .connections import PATIENCE, Link, Source
from .contracts import BrokenContract
from .durations import Duration, seconds
from .entities import Entities
from .errors import VersionConflict
from .finding import Found
from .indexing import LOCK_TIMEOUT, Index, create_index, drop_index
from .items import Item, Items
from .looks import Look, change_of, condition_on, end_of
from .memory import Entity, Path
from .past import Authorship, Change, Difference, LogItem, Past, row_of, written
from .queues import QueueDepth, Queues
from .requests import (
    BaseHandle,
    Door,
    Relative,
    Requests,
    Status,
    Workflow,
    check_outside,
    decoder_of,
    ending,
    one_of_many,
    unfinished,
    unfulfilled,
    until_of,
)
from .schedules import Schedule, Schedules
from .sqlregistry import RegisteredSqlHook, SqlRegistry
from .streams import END, After, StreamItem, items_behind, place_of
from .timeline import BATCH, TimelineItem, page_of
from .waiting import Ear
from .work import Hook


class Memory(
    Entity,
    Past[
        list[Change],
        list[Difference],
        list[Authorship],
        list[LogItem],
        Any,
        int,
    ],
):
    """A memory, seen from plain code outside of jobs; it has a past to look into."""

    def __init__(self, client: Client, job: str, connection: Any):
        super().__init__(Door(client, job, connection), job)
        self._client: Client = client
        self._connection = connection

    def watch(
        self, path: Path = "", *, after: int = 0, timeout: Duration | None = None
    ) -> Iterator[Change]:
        """Give the changes after a version as they happen: `for change in memory.watch(): …`.

        Every change comes once, in order, from the first on; resume with `after=change.version`,
        or begin now with `after=handle.status().version`. Ends when nothing has changed for
        `timeout`. Raises JobNotFound.
        """
        check_outside("watch", self._connection)
        limit, last = None if timeout is None else seconds(timeout), after
        while True:
            until = None if limit is None else time.monotonic() + limit
            look = change_of(self._client.calls, self.id, written(path), last)
            changes: list[Change] | None = self._client.hear(look, until)
            if changes is None:
                return
            for change in changes:
                last = change.version
                yield change


class Handle(BaseHandle["Client"]):
    """A job, seen from plain code: `handle.result(timeout="10 min")`."""

    @property
    def memory(self) -> Memory:
        """Give the job's memory."""
        return self._client.entity(self.id)

    def result(self, timeout: Duration | None = None) -> Any:
        """Wait until the job has ended and give its result.

        Raises JobFailed, JobCancelled, ResultTimeout and JobNotFound.
        """
        limit, until = until_of(timeout)
        row = self._client.hear(end_of(self._client.calls, self.id), until)
        if row is None:
            raise unfinished(self.id, limit, self.status())
        return ending(row, self._decode)

    def status(self) -> Status:
        """Tell where the job stands. Raises JobNotFound."""
        status: Status = self._client.send(
            self._client.calls.status(self.id).reading(row_of(Status))
        )
        return status

    def signal(
        self, name: str, payload: Any = None, *, key: str | None = None, connection: Any = None
    ) -> bool:
        """Send a signal; false where its key was seen before. Raises JobNotFound, JobFinished."""
        call = self._client.requests.signal(self.id, name, payload, key)
        return bool(self._client.send(call, connection))

    def stream(
        self, name: Path, *, after: After = 0, timeout: Duration | None = None
    ) -> Iterator[StreamItem]:
        """Follow a stream: `for item in handle.stream("tokens"): print(item.item)`.

        Begins with the first item; goes on with `after=item`, or with what you kept of it:
        `after=(item.version, item.place)`. Ends when somebody has said that nothing more comes,
        when the job has ended, or when nothing has come for `timeout`. Raises JobNotFound.
        """
        limit, last = None if timeout is None else seconds(timeout), place_of(after)
        while True:
            until = None if limit is None else time.monotonic() + limit
            look = items_behind(self._client.calls, self.id, written(name), last)
            items: list[StreamItem] | None = self._client.hear(look, until)
            for item in items or ():
                if item.place == END:
                    return
                last = item.version, item.place
                yield item
            if items is None:
                return

    def cancel(self, reason: str | None = None, *, connection: Any = None) -> bool:
        """Ask the job to cancel; false where it is finished or was asked before."""
        call = self._client.calls.cancel(self.id, reason)
        return bool(self._client.send(call, connection))

    def cancel_hook(self, task: str, reason: str | None = None, *, connection: Any = None) -> bool:
        """Ask a hook of the job to cancel, by what `hook()` gave; false where that is in vain."""
        call = self._client.calls.cancel_hook(self.id, task, reason)
        return bool(self._client.send(call, connection))

    def family(self, max_rows: int = 10_000) -> list[Relative]:
        """List the job and all that descend from it, each after its parent. Raises JobNotFound."""
        family: list[Relative] = self._client.send(self._client.requests.family(self.id, max_rows))
        return family

    def children(self) -> list[Handle]:
        """Give handles of the jobs that this one has asked for. Raises JobNotFound."""
        return [self._client.handle(each.id) for each in self.family() if each.depth == 1]

    def terminate(self, reason: str | None = None, *, connection: Any = None) -> bool:
        """End the job on the spot; none of its code runs any more."""
        call = self._client.calls.terminate(self.id, reason)
        return bool(self._client.send(call, connection))

    def pause(self) -> bool:
        """Keep its tasks from workers until it is resumed; what is held ends its turn.

        False where it was paused before. Raises JobNotFound.
        """
        return bool(self._client.send(self._client.calls.pause(self.id)))

    def resume(
        self, task: str | None = None, *, accept_changes: bool = False, connection: Any = None
    ) -> int:
        """End a pause, and wake what is stuck; gives how many tasks go on.

        `task` names a stuck one alone. `accept_changes` lets arguments differ.
        """
        call = self._client.calls.resume(self.id, task, accept_changes)
        return int(self._client.send(call, connection))

    def repin(self, version: str | None) -> int:
        """Let the job keep to another version of the code, or to none; gives how many tasks."""
        return int(self._client.send(self._client.calls.repin(self.id, version)))

    def retry(
        self,
        args: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        timeout: Duration | None = None,
        key: str | None = None,
        connection: Any = None,
    ) -> bool:
        """Run the job again, if it has failed or was cancelled: with its last arguments, or `args`.

        The new run has the memory as it is. False where the job runs or has completed. `timeout` is
        as that of the last start, unless given. Raises JobNotFound.
        """
        call = self._client.requests.retry(self.id, args, timeout, key)
        return bool(self._client.send(call, connection))

    def timeline(self) -> Iterator[TimelineItem]:
        """Give all that belongs to the job but its memory: itself, facts, tasks, open messages.

        `for item in handle.timeline(): print(item.at, item.task, item.body)`. Facts come in
        order of time. Raises JobNotFound.
        """
        place: list[Any] | None = None
        while True:
            call = page_of(self._client.calls, self.id, place)
            items: list[TimelineItem] = self._client.send(call)
            if not items:
                return
            yield from items
            place = items[-1].place

    def forget_old_runs(self) -> int:
        """Drop what the runs before the last one were told; gives how many facts.

        The changes they made of the memory stay in its history. Raises JobNotFound.
        """
        dropped = 0
        while some := self._client.send(self._client.calls.forget_old_runs(self.id, BATCH)):
            dropped += some
        return dropped

    def hook(
        self, hook: Hook[..., Any] | str, *args: Any, connection: Any = None, **options: Any
    ) -> str:
        """Start a hook on the job's memory, and give the name of its task.

        Options: queue, priority, due_at, key (the same is the same hook, once), limit_key,
        pinned_version; other keywords are the hook's own. Raises JobNotFound.
        """
        call = self._client.requests.hook(self.id, hook, args, options)
        return str(self._client.send(call, connection))


class Client(
    Entities[
        list[Found],
        int,
        None,
        bool,
        dict[str, Any] | None,
        list[BrokenContract],
        list[Index],
        list[tuple[str, bool]],
    ],
    SqlRegistry[None, bool, list[RegisteredSqlHook]],
    Schedules[
        datetime | None,
        Handle,
        bool,
        list[Schedule],
    ],
    Items[Item, list[Item]],
    Queues[None, bool, list[QueueDepth]],
):
    """Talk to an app from plain code; threads may share one. `connect()` makes it."""

    _make_item = Item

    def __init__(self, source: Source, codec: Codec | None = None):
        self._source = source
        self.requests = Requests(source.schema, codec)
        self.calls = self.requests.calls
        self._link = Link(source, "perdure client", PATIENCE)
        self._turn = threading.Lock()
        self._ears: list[Ear] = []
        self._is_closed = False

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._is_closed = True
        self._link.close()
        while (ear := self._idle_ear()) is not None:
            ear.close()
        self._source.close()

    def send(self, call: Call, connection: Any = None) -> Any:
        """Send a call, in the transaction of the caller's connection if it is given."""
        if connection is not None:
            return send(borrowed(connection), call)
        with self._turn:
            return self._link.call(call)

    def hear(self, look: Look, until: float | None) -> Any:
        """Give what is looked for, or None when time is up."""
        ear = self._idle_ear() or Ear(self._source, self.calls)
        try:
            return ear.wait(look, until)
        finally:
            if self._is_closed:
                ear.close()
            else:
                self._ears.append(ear)

    def _idle_ear(self) -> Ear | None:
        try:
            return self._ears.pop()
        except IndexError:  # to look first would be a race between threads
            return None

    def until(self, job: str, condition: str, timeout: float | None) -> int:
        """Wait for a memory to fulfil a condition; gives the version. Raises TimeoutError."""
        limit, until = until_of(timeout)
        version: int | None = self.hear(condition_on(self.calls, job, condition), until)
        if version is None:
            raise unfulfilled(job, condition, limit)
        return version

    def start(
        self, workflow: Workflow, *args: Any, connection: Any = None, **options: Any
    ) -> Handle:
        """Start a job: `client.start(research, "subsidies", id="agent-jane-001")`.

        Options: id, entity, queue, priority, due_at, limit_key, context, key, timeout, if_exists
        ("error", "existing", or "new_run" of a job that has ended), connection (joins its
        transaction); other keywords are the workflow's own, and one that might be meant so is
        refused. Raises JobExists, InvalidArgument.
        """
        call = self.requests.start(workflow, args, options)
        started, *_ = self.send(call, connection)
        return self.handle(started, workflow)

    def signal_with_start(
        self,
        workflow: Workflow,
        id: str,
        signal: str,
        payload: Any = None,
        *args: Any,
        connection: Any = None,
        **options: Any,
    ) -> Handle:
        """Send a signal to a job, which is started first where there is none; both or neither.

        `args` and options are those of start(). With `if_exists="new_run"` a job that has ended
        begins a new run, to which the signal goes; otherwise it raises JobFinished.
        """
        call = self.requests.signal_with_start(workflow, id, signal, payload, args, options)
        self.send(call, connection)
        return self.handle(id, workflow)

    def start_many(
        self, workflow: Workflow, many: Sequence[Mapping[str, Any]], *, connection: Any = None
    ) -> list[Handle]:
        """Start many jobs in one call, each given as start()'s options with `args`."""
        starts = [one_of_many(workflow, each) for each in many]
        rows = self.send(self.calls.start_many(starts), connection)
        return [self.handle(row[0], workflow) for row in rows]

    def fork(
        self,
        job: str,
        new_id: str | None = None,
        *,
        at: int | None = None,
        context: dict[str, Any] | None = None,
        workflow: Workflow | None = None,
        key: str | None = None,
        connection: Any = None,
    ) -> Handle:
        """Start a job where another stands, or stood: `client.fork("agent-1", at=12)`.

        It has been told the first `at` facts of the other's coordinator (all, if not given) and has
        the memory that was there then, or `context`. What was asked for and not answered is asked
        for again. Raises JobNotFound, JobExists, InvalidArgument.
        """
        call = self.requests.fork(job, new_id, at, context, key)
        started, *_ = self.send(call, connection)
        return self.handle(started, workflow)

    def handle(self, job: str, workflow: Workflow | None = None) -> Handle:
        """Give a handle of a job; nothing is sent."""
        return Handle(self, job, decoder_of(workflow))

    def entity(self, job: str, *, connection: Any = None) -> Memory:
        """Give the memory of a job or entity; with `connection` inside its transaction."""
        return Memory(self, job, connection)

    def create_entity(
        self, id: str, entity: str, context: Any = None, *, connection: Any = None
    ) -> Memory:
        """Make a memory without a workflow, if it is not there; it joins a `connection`, too."""
        self.send(self.requests.create(id, entity, context), connection)
        return self.entity(id, connection=connection)

    def reseal(self, job: str) -> int:
        """Encrypt a memory anew, with the current key and as the codec says now; gives how many
        fields were not so.

        Its history keeps what it was. Raises InvalidArgument without a codec, and JobNotFound.
        """
        steps, answer = resealing.steps(self.calls, job), None
        try:
            call = next(steps)
            while True:
                try:
                    answer = self.send(call)
                except VersionConflict as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(answer)
        except StopIteration as end:
            return int(end.value)

    def forget(self, job: str) -> bool:
        """Delete a finished job or an entity, with its whole history; false where there is none.

        Raises JobAtWork.
        """
        return bool(self.send(self.calls.forget(job)))

    def create_index(
        self, entity: str, path: Path, kind: str = "text", *, lock_timeout: Duration = LOCK_TIMEOUT
    ) -> Index:
        """Make an index that find() uses, while others write; nothing happens where it is.

        Kinds: text, number, boolean, time, and contains for what is in arrays and objects. Raises
        InvalidName, InvalidPath, InvalidArgument, TooManyIndexes, and psycopg.errors.
        LockNotAvailable where a transaction stays open for longer than `lock_timeout`.
        """
        return create_index(self._source, self.calls, entity, path, kind, lock_timeout)

    def drop_index(
        self, entity: str, path: Path, kind: str = "text", *, lock_timeout: Duration = LOCK_TIMEOUT
    ) -> bool:
        """Drop an index of create_index(), while others write; false where it was not there."""
        return drop_index(self._source, self.calls, entity, path, kind, lock_timeout)


def connect(
    dsn: str | None = None,
    schema: str = "perdure",
    *,
    codec: Codec | None = None,
    prepare_threshold: int | None = 0,
    provision: bool = True,
) -> Client:
    """Connect to an app, making it where it is not there: `with perdure.connect() as client: …`.

    The database is `dsn`, else `$PERDURE_DATABASE_URL`, else the embedded server; the schema is the
    app's name. `codec` encrypts what is sent: the one that the app has. With
    `prepare_threshold=None`, and through a pooler, no statement is prepared.
    """
    source = Source(dsn, schema, prepare_threshold)
    if provision:
        source.provision()
    return Client(source, codec)
