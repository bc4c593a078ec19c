"""Requests: the calls that the verbs of clients make, and the rows that they return.

A call has a key, so that it can be sent again when its connection breaks. [P12] Verbs without a key
(`cancel`, `terminate`, `pause`, `resume`, `forget`, `drop_...`) do nothing twice either. But what
they return is then true of the second call: that there was nothing left to do.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from perdure.basics.arguments import check_arguments, listed, of_a_call
from perdure.basics.durations import as_interval, aware
from perdure.basics.names import as_id
from perdure.basics.paths import write_path
from perdure.codecs import Codec
from perdure.database.call import Call
from perdure.database.calls import Calls
from perdure.errors import InvalidArgument, InvalidValue, among
from perdure.values import wire
from perdure.values.shapes import bind_unknown
from perdure.values.stored import check_awaited
from perdure.workflow.operations import stored
from perdure.workflow.work import Coordinator, Hook, Work, Workflow, check_kind

from .past import keyed, row_of, rows_of


@dataclass(frozen=True, slots=True)
class Status:
    """Where a job stands.

    - `waiting_for`: what it waits for, in words.
    - `needs`: what it, or a hook or child that it waits for, needs that does not come by itself:
      "resume" if it is stuck or paused, "resume_queue" if its queue is paused, "resume_schedule"
      for a paused schedule, "worker" if none has registered for it.
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
    needs: str | None
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
    """Makes the calls that several verbs share, or that take more than a line."""

    def __init__(self, schema: str, codec: Codec | None):
        self.calls = Calls(schema, codec)

    def start(self, workflow: Workflow, args: tuple[Any, ...], options: dict[str, Any]) -> Call:
        """Return the call that starts a job."""
        given = dict(options)
        name, bound, known = _start_of(workflow, args, options)
        check_key(given, "id")
        return self.calls.start(name, bound, id=id_or_new(known.pop("id", None)), **known)

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

    def hook(self, job: str, hook: Hook[..., Any] | str, args: Any, options: Any) -> Call:
        """Return the call that starts a hook."""
        check_kind(hook, Hook)
        known = {name: options.pop(name) for name in list(options) if name in HOOK_OPTIONS}
        bound = _bound(hook, args, options, known, HOOK_OPTIONS)
        if isinstance(hook, Work):
            known = hook.own_options(args, options) | known
        _check_options(known)
        known["key"] = known.get("key") or uuid.uuid4().hex
        return self.calls.hook(job, hook if isinstance(hook, str) else hook.name, bound, **known)

    def family(self, job: str, max_rows: int) -> Call:
        """Return the call that reads who descends from a job."""
        return self.calls.family(job, max_rows).reading(rows_of(Relative))

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


def _start_of(
    workflow: Workflow, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[str, Any, dict[str, Any]]:
    """Return the name of a workflow, its arguments and the options of its start."""
    check_kind(workflow, Coordinator)
    given = {name: options.pop(name) for name in list(options) if name in START_OPTIONS}
    bound = _bound(workflow, args, options, given, START_OPTIONS)
    known = _known(workflow, args, options, given)
    if "context" in known:
        known["context"] = stored(known["context"])
    return workflow if isinstance(workflow, str) else workflow.name, bound, known


def _known(
    workflow: Workflow, args: tuple[Any, ...], kwargs: dict[str, Any], given: dict[str, Any]
) -> dict[str, Any]:
    """Return the options of a start: those given, and those that the coordinator itself gives."""
    own = workflow.own_options(args, kwargs) if isinstance(workflow, Coordinator) else {}
    known = own | given
    _check_options(known)
    if known.get("timeout") is not None:
        known["timeout"] = as_interval(known["timeout"])
    known["key"] = known.get("key") or uuid.uuid4().hex
    return known


def id_or_new(given: str | UUID | None) -> str:
    """Return the id that was given for a job, or a new one."""
    return as_id(uuid.uuid4() if given is None else given)


def check_key(options: Mapping[str, Any], id: str) -> None:
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
    known: Iterable[str] = (),
) -> Any:
    """Return the arguments of a call as JSON, beside which these of its options were given."""
    if isinstance(work, str):
        return stored(bind_unknown(args, kwargs))
    work.refuse_options(args, options)
    try:
        return stored(work.shape.bind(args, kwargs))
    except TypeError as error:
        if known and kwargs.keys() - work.shape.signature.parameters.keys():
            error.add_note(f"The options of this call are {', '.join(sorted(known))}.")
        raise


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
    check_key(start, "id")
    called = of_a_call(args)
    bound = _bound(workflow, *called)
    start["id"] = id_or_new(start.get("id"))
    start = _known(workflow, *called, start)
    name = workflow if isinstance(workflow, str) else workflow.name
    return wire.to_json(start | {"workflow": name, "args": bound})  # type: ignore[no-any-return]
