"""What coordinators and hooks call besides their memory: waiting, other work, time and chance.

In `async def` code, await every call that waits. In `def` code the same calls block.
"""

from __future__ import annotations

import random as randoms
from datetime import datetime
from typing import Any, Literal, NoReturn, TypeVar, get_args
from uuid import UUID

from perdure.basics.durations import Duration, from_micros, micros, microseconds, seconds
from perdure.basics.names import as_id, check_name, check_text
from perdure.basics.paths import Path, parse_path
from perdure.errors import InvalidArgument
from perdure.values.items import unchanged
from perdure.values.wire import Result, decoder

from . import operations
from .context import (
    ANYWHERE,
    Info,
    Runtime,
    activity_info,
    misplaced,
    required,
    runtime,
)
from .progress import AttemptReporter, reporter
from .work import Coordinator, Hook, Pending, Work, Workflow, check_kind

Fate = Literal["continue", "cancel", "terminate"]
"""What happens to a child when the coordinator or hook that asked for it ends."""

T = TypeVar("T")


def sleep(duration: Duration) -> Any:
    """Sleep durably: `await perdure.sleep("1 h")`. A sleeping workflow needs no worker.

    `duration` is a text such as "90 s", a number of seconds, or a timedelta.
    """
    serving = required("sleep")
    return serving.give(serving.sleep(microseconds(seconds(duration))))


def sleep_until(instant: datetime) -> Any:
    """Sleep until a datetime with a time zone: `await perdure.sleep_until(tomorrow)`."""
    serving = required("sleep_until")
    return serving.give(serving.sleep_until(micros(instant)))


def wait_for(signal: str, timeout: Duration | None = None, *, type: Any = None) -> Any:
    """Wait for a signal and return its payload: `await perdure.wait_for("approve", timeout="2 d")`.

    `type` (a model, dataclass, TypedDict, `list[Page]` ...) converts the payload. Without a
    `timeout` the call waits for ever. Raises TimeoutError, and ValueMistyped if the payload does
    not fit the type.
    """
    serving = required("wait_for")
    check_name(signal, "a signal")
    limit = None if timeout is None else seconds(timeout)
    decode = unchanged if type is None else decoder(type)
    return serving.give(serving.wait_for(signal, limit, decode))


def ask_people(
    name: str,
    payload: Any = None,
    *,
    assignee: str | None = None,
    priority: int | None = None,
    timeout: Duration | None = None,
    type: Any = None,
) -> Any:
    """Ask people for something and return what one of them resolves.

    `await perdure.ask_people("approve invoice", {"amount": 900}, assignee="finance")` makes an
    *item*. People find it with `client.items()`, most urgent first: `priority` is 0 (first) to 9,
    default 5. `type` converts the resolution. Raises TimeoutError, and ValueMistyped for a
    resolution that does not fit; the item is then gone.
    """
    serving = required("ask_people")
    limit = None if timeout is None else seconds(timeout)
    decode = unchanged if type is None else decoder(type)
    asked = operations.item_operation(name, payload, decode, assignee=assignee, priority=priority)
    return serving.give(serving.within(asked, limit))


def exec_hook(
    hook: Hook[..., Any] | str,
    *args: Any,
    signal: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    limit_key: str | None = None,
    **kwargs: Any,
) -> Any:
    """Run a hook on a worker and return its answer: `await perdure.exec_hook(check, ref)`.

    The hook answers by returning. With `signal`, it may answer earlier by `memory.signal(name,
    data)` under that name. `queue`, `priority` (0 first, 9 last) and `limit_key` replace those of
    the hook. Raises HookFailed.
    """
    serving = required("exec_hook")
    options = {"queue": queue, "priority": priority, "signal": signal, "limit_key": limit_key}
    return serving.give(serving.request(_hook(serving, hook, args, kwargs, options)))


def start_hook(
    hook: Hook[..., Any] | str,
    *args: Any,
    queue: str | None = None,
    priority: int | None = None,
    due_at: datetime | None = None,
    limit_key: str | None = None,
    **kwargs: Any,
) -> None:
    """Start a hook without waiting for it. It may outlive its coordinator.

    `due_at` (a datetime with a time zone) is when it may begin; the other options are those of
    `exec_hook()`.
    """
    serving = required("start_hook")
    options = {
        "queue": queue,
        "priority": priority,
        "due_at": due_at,
        "limit_key": limit_key,
    }
    asked = _hook(serving, hook, args, kwargs, options)
    serving.start(asked._replace(spec=asked.spec | {"detached": True}))


def _hook(
    serving: Runtime,
    hook: Hook[..., Any] | str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> operations.Operation:
    check_kind(hook, Hook)
    if isinstance(hook, str):
        hook = serving.app.hooks.get(hook, hook)
    return operations.hook_operation(hook, args, kwargs, **_completed(serving, hook, args, options))


def _completed(
    serving: Runtime, work: Work[..., Any] | str, args: Any, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the options of a request, with those that follow from the asker.

    Raises InvalidArgument for an option that could be meant as an argument.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(work, str):
        given.setdefault("queue", serving.info.queue)
    else:
        work.refuse_options(args, given)
    return given | {"pinned_version": serving.pin_of(work)}


def child(
    workflow: Workflow,
    *args: Any,
    id: str | UUID | None = None,
    entity: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    due_at: datetime | None = None,
    limit_key: str | None = None,
    context: dict[str, Any] | None = None,
    detached: bool = False,
    on_parent_end: Fate | None = None,
    timeout: Duration | None = None,
    **kwargs: Any,
) -> Any:
    """Run a workflow as a child job and return its result: `await perdure.child(research, "q")`.

    The id is by default that of the parent with a suffix. `on_parent_end` says what happens to the
    child when its parent ends first: "cancel" (default), "terminate" or "continue" (default if
    `detached`). A detached child is started and not awaited: the call returns None. With `timeout`
    it fails if it takes longer. The other options are those of `client.start()`. Raises
    ChildFailed.
    """
    serving = required("child")
    options: dict[str, Any] = {
        "id": id,
        "entity": entity,
        "queue": queue,
        "priority": priority,
        "due_at": due_at,
        "limit_key": limit_key,
        "context": context,
        "detached": detached or None,
        "on_parent_end": on_parent_end,
        "timeout": timeout,
    }
    asked = _child(serving, workflow, args, kwargs, options)
    return serving.start(asked) if detached else serving.give(serving.request(asked))


def start_child(
    workflow: Workflow[Result],
    *args: Any,
    id: str | UUID | None = None,
    entity: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    due_at: datetime | None = None,
    limit_key: str | None = None,
    context: dict[str, Any] | None = None,
    on_parent_end: Fate | None = None,
    timeout: Duration | None = None,
    **kwargs: Any,
) -> Pending[Result]:
    """Start a child job beside others: `reviews = [perdure.start_child(review, r) for r in refs]`.

    Await the result later (`.result()` in plain code), or `.cancel()` it, which asks the child to
    cancel. Options as for `child()`.
    """
    serving = required("start_child")
    options = {
        "id": id,
        "entity": entity,
        "queue": queue,
        "priority": priority,
        "due_at": due_at,
        "limit_key": limit_key,
        "context": context,
        "on_parent_end": on_parent_end,
        "timeout": timeout,
    }
    return serving.start(_child(serving, workflow, args, kwargs, options))


def _child(
    serving: Runtime,
    workflow: Workflow,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> operations.Operation:
    fate = options["on_parent_end"]
    if fate not in (None, *get_args(Fate)):
        raise InvalidArgument(
            f"on_parent_end={fate!r} is not known",
            hint='Use "continue", "cancel" or "terminate".',
        )
    check_kind(workflow, Coordinator)
    if options["id"] is not None:
        options["id"] = as_id(options["id"])
    if isinstance(workflow, str):
        workflow = serving.app.coordinators.get(workflow, workflow)
    return operations.child_operation(
        workflow, args, kwargs, **_completed(serving, workflow, args, options)
    )


def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """End this run and begin the next with these arguments: `perdure.continue_as_new(page + 1)`.

    The next run keeps the memory, the signals that nobody has taken and the time limit of the job,
    and begins with an empty journal. Nothing that the code does after this call has an effect.
    """
    required("continue_as_new").continue_as_new(args, kwargs)


def signal(job: str | UUID, name: str, payload: Any = None) -> Any:
    """Send a signal to another job: `await perdure.signal("agent-jane-001", "go", {"n": 1})`."""
    serving = required("signal")
    return serving.give(serving.request(operations.send_operation(as_id(job), name, payload)))


def memory() -> Any:
    """Return the memory of this job, for code that was not given it as an argument."""
    return required("memory").memory


def now() -> datetime:
    """Return the time (UTC), which is the same on replay.

    In a coordinator it is the time of the last fact that the code was told; in a hook, the time of
    the call.
    """
    return from_micros(required("now").time())


def random() -> randoms.Random:
    """Return a random generator that gives the same numbers on replay."""
    return required("random").random()


def uuid() -> UUID:
    """Return a UUID that is the same on replay."""
    return required("uuid").uuid()


def patched(name: str) -> bool:
    """Tell whether this run takes the new way: `if perdure.patched("two-reviews"): ...`

    It is False in a coordinator that had passed this place before the code changed. The first
    answer holds for the run.
    """
    return required("patched").patched(check_text(name))


def heartbeat(progress: Any = None) -> None:
    """Report how far the running activity or hook is: `perdure.heartbeat({"page": 12})`.

    It sends nothing by itself: the next heartbeat of the worker (each third of the lease) carries
    the latest value. The next attempt finds it in `info().progress`. In plain code this is also
    where a cancel is noticed: the call raises CancelledError when nobody waits for the code any
    more. Raises ValueTooLarge.
    """
    _running("heartbeat").heartbeat(progress)


def publish(stream: Path, *items: Any) -> Any:
    """Add items to a stream that clients follow: `await perdure.publish("tokens", token)`.

    In an activity, items are gathered for up to 50 ms and then sent. Another attempt publishes
    anew, and readers can tell attempts apart. In a coordinator or hook it is `memory.log()`: once,
    also on replay. Without items it ends the stream. It waits if the database cannot keep up.
    """
    keys = parse_path(stream)
    running = _running("publish")
    if isinstance(running, AttemptReporter):
        return running.publish(keys, items)
    return running.give(
        running.request(operations.command_operation("log", keys, list(items), None))
    )


def info() -> Info:
    """Return which job, task and attempt is running. Activities may call it too."""
    serving = runtime()
    if serving is not None:
        return serving.info
    tell = activity_info.get()
    if tell is None:
        raise misplaced("info", where=ANYWHERE)
    return tell()


def _running(call: str) -> AttemptReporter | Runtime:
    """Return what serves a call that activities may make too."""
    running = reporter.get() or runtime()
    if running is None:
        raise misplaced(call, where=ANYWHERE)
    return running
