"""Requests: what both kinds of clients have in common. Makes calls and reads their answers.

A call has a key, so that it can be sent again when its connection breaks. [P12] Verbs without a key
(`cancel`, `terminate`, `pause`, `resume`, `forget`, `drop_...`) do nothing twice either. But what
they return is then true of the second call: that there was nothing left to do.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from perdure.basics.arguments import check_arguments, listed, of_a_call
from perdure.basics.durations import Duration, as_interval, aware
from perdure.basics.names import as_id
from perdure.basics.paths import write_path
from perdure.codecs import Codec
from perdure.database.calls import Call, Calls
from perdure.database.connections import Source
from perdure.errors import (
    HookFailed,
    InvalidArgument,
    InvalidValue,
    JobCancelled,
    JobFailed,
    ResultTimeout,
    among,
)
from perdure.values import wire
from perdure.values.decoding import read_as
from perdure.values.items import Decode, unchanged
from perdure.values.shapes import bind_unknown
from perdure.values.stored import check_awaited
from perdure.workflow.operations import as_memory, stored
from perdure.workflow.work import Coordinator, Hook, Work, Workflow, check_kind

from .caller_connection import check_outside
from .past import keyed, row_of, rows_of
from .polling import Pages, Steps

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Status:
    """Where a job stands.

    - `waiting_for`: what it waits for, in words.
    - `stuck`: a task that waits for other code or for somebody to resume it, and why.
    - `failure`: why the job has failed or was cancelled. If a codec has encrypted it, `result()`
      raises all of it.
    """

    id: str
    entity: str | None
    workflow: str | None
    status: str | None
    version: int
    run: int
    waiting_for: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    stuck: str | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Relative:
    """A job of a family. `depth` is how far it stands beneath the first.

    `asked_as` names the request: the asking task and its key. `on_parent_end` is None if the job
    has no parent, or was asked to cancel because its parent has ended.
    """

    id: str
    parent: str | None
    depth: int
    workflow: str | None
    status: str | None
    asked_as: str | None
    on_parent_end: str | None
    created_at: datetime
    finished_at: datetime | None


class Requests:
    """Makes the calls of both kinds of clients."""

    def __init__(self, schema: str, codec: Codec | None):
        self.calls = Calls(schema, codec)

    def start(self, workflow: Workflow, args: tuple[Any, ...], options: dict[str, Any]) -> Call:
        """Return the call that starts a job."""
        given = dict(options)
        name, bound, known = _start_of(workflow, args, options)
        _check_key(given, "id")
        return self.calls.start(name, bound, id=_new_id(known.pop("id", None)), **known)

    def signal_with_start(
        self,
        workflow: Workflow,
        job: str | UUID,
        signal: str,
        payload: Any,
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Call:
        """Return the call that signals a job, and starts it if it does not exist."""
        if "due_at" in options:
            raise InvalidArgument(
                "signal_with_start() does not take due_at",
                hint="It starts a missing job at once; use start() and signal() instead.",
            )
        name, bound, known = _start_of(workflow, args, options)
        return self.calls.signal_with_start(
            name, bound, as_id(job), signal, stored(payload), **known
        )

    def status(self, job: str) -> Call:
        """Return the call that reads where a job stands."""
        return self.calls.status(job).reading(row_of(Status))

    def jobs(
        self,
        workflow: Workflow[Any] | str | None,
        status: str | None,
        times: tuple[datetime | None, datetime | None],
        after: str | UUID | None,
        max_rows: int,
    ) -> Call:
        """Return the call that lists jobs that were started between two times."""
        name = workflow if workflow is None or isinstance(workflow, str) else workflow.name
        since, until = (None if time is None else aware(time) for time in times)
        last = None if after is None else as_id(after)
        asked = self.calls.list_jobs(
            workflow=name, status=status, since=since, until=until, after=last, max_rows=max_rows
        )
        return asked.reading(rows_of(Status))

    def hook(self, job: str, hook: Hook[..., Any] | str, args: Any, options: Any) -> Call:
        """Return the call that starts a hook."""
        check_kind(hook, Hook)
        known = {name: options.pop(name) for name in list(options) if name in HOOK_OPTIONS}
        bound = _bound(hook, args, options, known)
        if isinstance(hook, Work):
            known = hook.own_options(args, options) | known
        _check_options(known)
        known["key"] = known.get("key") or uuid.uuid4().hex
        return self.calls.hook(job, hook if isinstance(hook, str) else hook.name, bound, **known)

    def family(self, job: str, max_rows: int) -> Call:
        """Return the call that reads who descends from a job."""
        return self.calls.family(job, max_rows).reading(rows_of(Relative))

    def retry(self, job: str, args: Any, timeout: Duration | None, key: str | None) -> Call:
        """Return the call that runs a job again."""
        limit = None if timeout is None else as_interval(timeout)
        bound = args if args is None or isinstance(args, Mapping) else listed("args", args)
        return self.calls.retry(job, stored(bound), limit, key or uuid.uuid4().hex)

    def fork(
        self,
        job: str | UUID,
        new_id: str | UUID | None,
        at: int | None,
        context: Any,
        key: str | None,
    ) -> Call:
        """Return the call that forks a job."""
        memory = None if context is None else as_memory(context)
        _check_key({"id": new_id, "key": key}, "new_id")
        return self.calls.fork(as_id(job), _new_id(new_id), at, memory, key or uuid.uuid4().hex)

    def signal(self, job: str, name: str, payload: Any, key: str | None) -> Call:
        """Return the call that sends a signal.

        A key that was drawn here can be in use only if the reply was lost, so the signal was sent.
        """
        call = self.calls.signal(job, name, stored(payload), key or uuid.uuid4().hex)
        return call if key else call.reading(lambda _: True)

    def command(self, job: str, op: str, path: list[str], named: Any, options: Any) -> Call:
        """Return the call that changes a memory."""
        if op == "increment":
            check_number(named["by"])
        argument = {name: stored(value) for name, value in named.items()}
        return self.calls.command(job, op, write_path(path), argument, keyed(options))

    def create(self, id: str | UUID, entity: str, context: Any) -> Call:
        """Return the call that creates a memory without a workflow."""
        return self.calls.create(
            as_id(id), entity, stored({} if context is None else context), uuid.uuid4().hex
        )

    def read(self, job: str, path: list[str]) -> Call:
        """Return the call that reads from a memory."""
        return self.calls.read(job, write_path(path))


START_OPTIONS = frozenset(
    {
        "id",
        "entity",
        "queue",
        "priority",
        "due_at",
        "limit_key",
        "context",
        "headers",
        "pinned_version",
        "key",
        "if_exists",
        "timeout",
    }
)
HOOK_OPTIONS = frozenset({"queue", "priority", "due_at", "key", "limit_key", "pinned_version"})


def _own(workflow: Coordinator[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the options that a coordinator itself gives a start with these arguments."""
    pin = workflow.pinned_version
    own = workflow.own_options(args, kwargs)
    return own if pin is None else own | {"pinned_version": pin}


def _start_of(
    workflow: Workflow, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[str, Any, dict[str, Any]]:
    """Return the name of a workflow, its arguments and the options of its start."""
    check_kind(workflow, Coordinator)
    known = {name: options.pop(name) for name in list(options) if name in START_OPTIONS}
    bound = _bound(workflow, args, options, known)
    if isinstance(workflow, Coordinator):
        known = _own(workflow, args, options) | known
    if known.get("timeout") is not None:
        known["timeout"] = as_interval(known["timeout"])
    _check_options(known)
    known["key"] = known.get("key") or uuid.uuid4().hex
    if "context" in known:
        known["context"] = stored(known["context"])
    return workflow if isinstance(workflow, str) else workflow.name, bound, known


def _new_id(given: str | UUID | None) -> str:
    return as_id(uuid.uuid4() if given is None else given)


def _check_key(options: Mapping[str, Any], id: str) -> None:
    """Refuse a key that would repeat nothing: each call makes an id. Raises InvalidArgument."""
    if options.get("key") is not None and options.get("id") is None:
        raise InvalidArgument(
            f"a key was given without {id}",
            detail="Each repetition of the call would start a job with another id.",
            hint=f"Give {id} too: a job is started once for each id.",
        )


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse what the server would not understand, or would read in its own time zone.

    Raises InvalidArgument.
    """
    check_arguments("start", {name: given for name, given in options.items() if name != "id"})
    if options.get("due_at") is not None:
        aware(options["due_at"])


def _bound(
    work: Work[..., Any] | str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: Iterable[str] = (),
) -> Any:
    """Return the arguments of a call as JSON, beside which these options were given."""
    if isinstance(work, str):
        return stored(bind_unknown(args, kwargs))
    work.refuse_options(args, options)
    return stored(work.shape.bind(args, kwargs))


def ending(job: str, row: Sequence[Any], decode: Decode) -> Any:
    """Return the result of a finished job.

    Raises JobFailed, JobCancelled, ValueMistyped, and InvalidArgument if it is not a job.
    """
    status, result, error, *_ = row
    if status is None:
        raise InvalidArgument("this is a plain entity without a workflow, so it has no result")
    if status == "completed":
        return read_as(decode, result, f"the result of job {job}")
    raise _ended(job, JobCancelled if status == "cancelled" else JobFailed, error)


def _ended(
    job: str, kind: type[JobCancelled | JobFailed], failure: Any
) -> JobCancelled | JobFailed:
    """Make the exception here, so that no frame of its traceback holds it.

    A printed error shows what was raised in the worker, and where.
    """
    ended = kind(failure)
    ended.job = job
    way = " of ".join(step for step in ended.failure.get("through", ()) if " " in step)
    notes = [f"job {job}" + (f", raised in {way}" if way else "")]
    if ended.traceback:  # it ends with message, detail and hint
        notes += ["", ended.traceback.rstrip("\n")]
    else:
        told = {"detail": ended.detail, "hint": ended.hint}
        notes += [f"{name}: {text}" for name, text in told.items() if text]
    ended.add_note("\n".join(notes))
    return ended


TO_BE_RESUMED = "somebody to resume it"
"""What a stuck or paused task waits for, in the words of `task_reason()`."""

RESUME = (
    "Mend what is wrong, then let it go on: handle.resume(). Where code did not fit its journal, it"
    " is tried anyway when workers with mended code have taken the place of others."
)


def unfinished(job: str, timeout: float | None, status: Status) -> ResultTimeout:
    """Return the error that a job was not finished in time, and what helps."""
    hint = "Wait longer, or look at its status and whether a worker serves its queue."
    late = f"job {job} was not finished within {timeout} s"
    return _late(late, status.waiting_for, RESUME if status.stuck else hint)


def _late(message: str, waits_for: str | None, hint: str) -> ResultTimeout:
    is_stuck = waits_for is not None and waits_for.startswith(TO_BE_RESUMED)
    return ResultTimeout(
        message,
        detail=f"It waits for {waits_for.rstrip('.')}." if waits_for else None,
        hint=RESUME if is_stuck else hint,
    )


def answered(job: str, task: str, row: Sequence[Any], decode: Decode) -> Any:
    """Return the answer of a hook from outside. Raises HookFailed and ValueMistyped."""
    status, result, error = row
    if status == "completed":
        return read_as(decode, result, f"the answer of {task} of job {job}")
    failed = HookFailed(error)
    failed.add_note(f"{task} of job {job}")
    raise failed


def unanswered(job: str, task: str, timeout: float | None, reason: str | None) -> ResultTimeout:
    """Return the error that a hook from outside had not answered in time, and what helps."""
    late = f"{task} of job {job} had not answered within {timeout} s"
    return _late(late, reason, "Wait longer, with hook_result(), or mend what it waits for.")


def unfulfilled(job: str, condition: str, timeout: float | None) -> TimeoutError:
    """Return the error that a memory did not meet a condition in time."""
    return TimeoutError(f"the memory of {job} did not fulfil {condition} within {timeout} s")


def check_number(by: Any) -> None:
    """Refuse what cannot be added to a number. Raises InvalidValue."""
    check_awaited(by)
    if isinstance(by, bool) or not isinstance(by, int | float):
        raise InvalidValue(
            f"increment adds numbers, not {by!r}"[:200], hint="Give a number: increment(path, 2)."
        )


def all_of_many(workflow: Workflow, many: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the starts of start_many() from their options; an error says which."""
    check_kind(workflow, Coordinator)
    given = listed("many", many)
    starts = []
    for place, start in enumerate(given, 1):
        if not isinstance(start, Mapping):
            raise InvalidArgument(
                f"start {place} of {len(given)} is not a mapping: {start!r}"[:500],
                hint='Write [{"id": "agent-1", "args": ["a question"]}, …].',
            )
        with among("start", place, len(given), start.get("id")):
            starts.append(one_of_many(workflow, start))
    return starts


def one_of_many(workflow: Workflow, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return one start of start_many() from its options."""
    check_kind(workflow, Coordinator)
    start = dict(given)
    args = start.pop("args", ())
    if unknown := sorted(map(str, start.keys() - START_OPTIONS)):
        raise InvalidArgument(
            f"a start has no option {unknown[0]}",
            hint=f"Put arguments into args; options are {', '.join(sorted(START_OPTIONS))}.",
        )
    _check_key(start, "id")
    called = of_a_call(args)
    bound = _bound(workflow, *called)
    start = {"key": uuid.uuid4().hex} | start | {"id": _new_id(start.get("id"))}
    if isinstance(workflow, Coordinator):
        start = _own(workflow, *called) | start
    _check_options(start)
    if start.get("timeout") is not None:
        start["timeout"] = as_interval(start["timeout"])
    name = workflow if isinstance(workflow, str) else workflow.name
    return wire.to_json(start | {"workflow": name, "args": bound})  # type: ignore[no-any-return]


def decoder_of(
    work: Workflow | Hook[..., Any] | None, kind: type[Work[..., Any]] = Coordinator
) -> Decode:
    """Return what makes the result of a function from its stored form. Raises InvalidArgument."""
    if work is not None:
        check_kind(work, kind)
    return work.shape.result if isinstance(work, Work) else unchanged


class BaseClient:
    """What both kinds of clients have in common."""

    def __init__(self, source: Source, codec: Codec | None = None):
        if not isinstance(source, Source):
            raise InvalidArgument(
                f"a client cannot be made of a {type(source).__name__}",
                hint="Call connect(dsn), or await connect_async(dsn), to make one.",
            )
        self._source = source
        self.requests = Requests(source.schema, codec)
        self.calls = self.requests.calls

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled, and its handles with it. Raises InvalidArgument."""
        raise InvalidArgument(
            "a client cannot be copied or pickled",
            detail="Its connections belong to this process.",
            hint="Pass the id of a job, and connect in each process. A forked process may use it.",
        )

    @property
    def dsn(self) -> str:
        """Return the connection string: `Worker(app, dsn=client.dsn, schema=client.schema)`."""
        return self._source.dsn

    @property
    def schema(self) -> str:
        """Return the name of the app."""
        return self._source.schema

    def send(self, call: Call, connection: Any = None) -> Any:
        """Send a call to the database, inside the transaction of `connection` if one is given."""
        raise NotImplementedError

    def _give(self, call: Call, connection: Any = None) -> A:  # type: ignore[type-var]
        """Send a call, and return its answer in the type of the method that asks."""
        given: A = self.send(call, connection)
        return given

    def follow(self, steps: Steps[Any]) -> Any:
        """Take the steps of a verb one after another and return its result."""
        raise NotImplementedError

    def each(self, pages: Pages[Any]) -> Any:
        """Yield the items of pages, which are read from the database as they are needed."""
        raise NotImplementedError

    def handle(self, job: str | UUID, workflow: Workflow | None = None) -> Any:
        """Return a handle of a job by its id. Nothing is sent to the database."""
        raise NotImplementedError

    def entity(self, job: str | UUID, *, connection: Any = None) -> Any:
        """Return a memory. With `connection`, what it does joins that transaction."""
        raise NotImplementedError


class ClientMemoryAccess:
    """Carries out the commands of a memory handle through a client."""

    def __init__(self, client: Any, job: str, connection: Any):
        self._client = client
        self._job = job
        self._connection = connection

    def command(
        self, op: str, path: list[str], named: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        """Change the memory."""
        call = self._client.requests.command(self._job, op, path, named, options)
        return self._client.send(call, self._connection)

    def read(self, path: list[str]) -> Any:
        """Read from the memory."""
        return self._client.send(self._client.requests.read(self._job, path), self._connection)

    def until(self, condition: str, timeout: float | None) -> Any:
        """Wait until the memory meets a condition."""
        check_outside("until", self._connection)
        return self._client.until(self._job, condition, timeout)

    def signal(self, name: str, payload: Any, key: str | None) -> Any:
        """Send the job a signal."""
        call = self._client.requests.signal(self._job, name, payload, key)
        return self._client.send(call, self._connection)
