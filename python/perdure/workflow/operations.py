"""The operations that durable calls ask for, made here for coordinators and hooks alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from perdure.basics.arguments import BIGINT, check_argument, check_asked
from perdure.basics.durations import Duration, as_interval, micros, seconds, to_iso
from perdure.basics.names import check_name, check_own_name, check_text
from perdure.errors import (
    ActivityFailed,
    ChildFailed,
    HookFailed,
    InvalidArgument,
    InvalidValue,
    PerdureError,
    ValueTooLarge,
    from_failure,
)
from perdure.values.items import Decode, unchanged
from perdure.values.shapes import bind_unknown
from perdure.values.stored import as_stored
from perdure.values.wire import to_json

from .functions import code_of

if TYPE_CHECKING:
    from .work import Activity, Hook, Work, Workflow

Json = dict[str, Any]

MAX_BYTES = 1_048_576
"""The size of a value as JSON; the SQL functions have the same limit."""

UNTIL = "$until"
"""The name of every wait for a condition."""

OF_OTHERS = frozenset({"until", "item"})
"""Kinds of requests that somebody answers when he can; a deadline may come first."""

_MAY_BE_LARGE = (str, list, dict)
_write = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_write_as_server = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode


class Operation(NamedTuple):
    """Something durable that code asks for.

    `kind` is that of the fact which answers it. `name` and `fingerprint` tell it from others.
    `spec` is what a fact (command, read, send) or a request (answer) carries besides.
    """

    kind: str
    name: str
    fingerprint: str | None
    spec: Any
    decode: Decode = unchanged
    failure: Callable[[Any], BaseException] = from_failure


class ActivityCall(NamedTuple):
    """A call of an activity that runs on this worker."""

    activity: Activity[..., Any]
    args: Any


def fingerprint_of(stored: Any) -> str:
    """Return a hash of 8 bytes of a stored value, as hexadecimal digits. Raises ValueTooLarge."""
    text = _written(stored)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def stored(value: Any) -> Any:
    """Return a typed value in the form in which the database returns it.

    Raises InvalidValue, ValueTooLarge, ValueTooDeep and NumberOutOfRange at the line that gives the
    value, so that the turn is not refused later.
    """
    value = as_stored(to_json(value))
    if value.__class__ in _MAY_BE_LARGE:
        _written(value)
    return value


def stored_result(work: Work[..., Any], value: Any) -> Any:
    """Return what a function has returned as `stored()` does; errors name the function."""
    try:
        return stored(value)
    except PerdureError as error:
        where = error.detail or ""
        error.detail = f"{work.kind} {work.name} has returned it" + (f"; {where}" if where else "")
        error.returned_by = code_of(work.function)
        raise


def size_of(stored: Any) -> int:
    """Tell how many bytes a stored value has as JSON, as the server counts them."""
    return len(_write_as_server(stored).encode())


def _written(stored: Any) -> str:
    """Write a value as JSON without blanks.

    The server counts blanks: at most as many bytes again.
    """
    text = _write(stored)
    if len(text) > MAX_BYTES // 2:
        size = size_of(stored)
        if size > MAX_BYTES:
            raise ValueTooLarge(
                "a value is too large",
                detail=f"It has {size} bytes as JSON; at most {MAX_BYTES} are allowed.",
                hint="Store it elsewhere and pass a reference.",
            )
    return text


def activity_operation(
    activity: Activity[..., Any],
    args: Any,
    pinned_version: str | None,
    limit_key: str | None,
) -> Operation:
    """Return the operation of an activity: run here, or sent to the queue it names."""
    args = as_stored(args)
    decode, name = activity.shape.result, activity.name
    if activity.queue is None:
        spec: Any = ActivityCall(activity, args)
        return Operation("activity", name, fingerprint_of(args), spec, decode, ActivityFailed)
    spec = {"kind": "activity", "name": name, "queue": activity.queue, "args": args}
    spec |= _given({"pinned_version": pinned_version, "limit_key": limit_key})
    return Operation("answer", name, fingerprint_of(args), spec, decode, ActivityFailed)


def hook_operation(
    hook: Hook[..., Any] | str, args: tuple[Any, ...], kwargs: Json, **options: Any
) -> Operation:
    """Return the operation of a hook.

    Options: queue, priority, due_at, signal, pinned_version, limit_key.
    """
    name, bound, decode = _bound(hook, args, kwargs)
    own = {} if isinstance(hook, str) else hook.own_options(args, kwargs)
    spec = {"kind": "hook", "name": name, "args": bound} | _given(own) | _given(options)
    return Operation("answer", name, fingerprint_of(bound), spec, decode, HookFailed)


def child_operation(
    workflow: Workflow, args: tuple[Any, ...], kwargs: Json, **options: Any
) -> Operation:
    """Return the operation of a child job.

    Options: id, entity, queue, priority, due_at, context, detached, pinned_version, on_parent_end,
    timeout, limit_key.
    """
    name, bound, decode = _bound(workflow, args, kwargs)
    own = {} if isinstance(workflow, str) else workflow.own_options(args, kwargs)
    spec = {"kind": "job", "name": name, "args": bound} | _given(own) | _given(options)
    return Operation("answer", name, fingerprint_of(bound), spec, decode, ChildFailed)


def outlives(request: Json) -> bool:
    """Tell whether the requested work continues when its asker ends.

    If not, it need not begin then.
    """
    return bool(request.get("detached")) or request.get("on_parent_end") == "continue"


def _bound(work: Work[..., Any] | str, args: tuple[Any, ...], kwargs: Json) -> Any:
    if isinstance(work, str):
        check_own_name(work, "what is asked for")
        return work, as_stored(bind_unknown(args, kwargs)), unchanged
    return work.name, as_stored(work.shape.bind(args, kwargs)), work.shape.result


def _given(options: Json) -> Json:
    given = {name: value for name, value in options.items() if value is not None}
    check_asked(given)
    if "due_at" in given:
        given["due_at"] = to_iso(micros(given["due_at"]))
    if "timeout" in given:
        given["timeout"] = as_timeout(given["timeout"])
    if "context" in given:
        given["context"] = as_memory(given["context"])
    return given


def as_timeout(timeout: Duration) -> str:
    """Write a limit of time as SQL reads it. Raises InvalidArgument."""
    if not seconds(timeout):
        raise InvalidArgument(
            f"timeout={timeout!r} leaves no time"[:500],
            hint="Leave it out for work that may take any time.",
        )
    return as_interval(timeout)


def as_memory(context: Any) -> Json:
    """Return the first content of a memory in its stored form.

    Raises InvalidValue if it is no object.
    """
    memory = stored(context)
    if not isinstance(memory, dict):
        raise InvalidValue(
            f"context={context!r} is not a memory"[:500],
            hint='A whole memory is an object: context={"question": "…"}.',
        )
    return memory


def command_operation(
    op: str, path: Sequence[str], value: Any, expected_version: int | None
) -> Operation:
    """Return the operation of a command on the own memory. Raises InvalidArgument and others."""
    argument = stored(value)
    spec = {"op": op, "path": list(path), "value": argument}
    if expected_version is not None:
        check_argument("expected_version", expected_version, BIGINT)
        spec["expected_version"] = expected_version
    return Operation("command", op, fingerprint_of([spec["path"], argument]), spec)


def read_operation(path: Sequence[str]) -> Operation:
    """Return the operation that reads the own memory."""
    return Operation("read", "get", fingerprint_of(list(path)), {"op": "get", "path": list(path)})


def until_operation(condition: str) -> Operation:
    """Return the operation that is answered when the own memory meets a condition."""
    check_text(condition)
    return Operation(
        "answer", UNTIL, fingerprint_of(condition), {"kind": "until", "condition": condition}
    )


def item_operation(name: str, payload: Any, decode: Decode, **options: Any) -> Operation:
    """Return the operation that asks people; options: assignee, priority."""
    check_name(name, "an item")
    value = stored(payload)
    spec = {"kind": "item", "name": name, "payload": value} | _given(options)
    return Operation("answer", f"item:{name}", fingerprint_of(value), spec, decode)


def expiring(operation: Operation, deadline: int) -> Operation:
    """Tell people until when they may answer (µs); a condition is withdrawn by its asker."""
    if operation.spec["kind"] != "item":
        return operation
    return operation._replace(spec=operation.spec | {"expires_at": to_iso(deadline)})


def send_operation(target: str | None, name: str, payload: Any) -> Operation:
    """Return the operation that sends a signal; without a target to the own job."""
    value = stored(payload)
    check_name(name, "a signal")
    spec = {"signal": name, "value": value} | ({} if target is None else {"target": target})
    return Operation("send", f"send:{name}", fingerprint_of([target, value]), spec)


def in_words(operation: Operation) -> str:
    """Name what is waited for: `condition $.n > 3`, `item approve invoice`."""
    spec = operation.spec
    kind = spec["kind"]
    return f"{kind} {spec['name']}" if kind == "item" else f"condition {spec['condition']}"


def waited(seconds: float | None, what: str) -> TimeoutError:
    """Return the TimeoutError of a wait that lasted so long."""
    return TimeoutError(f"waited {seconds or 0:g} s for {what}")
