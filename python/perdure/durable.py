"""What coordinators and hooks call besides their memory: waiting, other work, time and chance.

In `async def` code everything that waits is awaited; in `def` code the same calls wait themselves.
"""

from __future__ import annotations

import random as randoms
from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID

from . import asks
from .context import Info, Runtime, activity_info, required, runtime
from .durations import Duration, from_micros, micros, seconds
from .errors import InvalidArgument
from .memory import AsyncEntity, Entity
from .typed import decoder, unchanged
from .work import Coordinator, Hook

MICROSECONDS = 1_000_000


def sleep(duration: Duration) -> Any:
    """Sleep durably; a sleeping workflow costs nothing: `await perdure.sleep("1 h")`."""
    serving = required("sleep")
    return serving.give(serving.sleep(round(seconds(duration) * MICROSECONDS)))


def sleep_until(instant: datetime) -> Any:
    """Sleep until an instant with a time zone: `await perdure.sleep_until(tomorrow)`."""
    serving = required("sleep_until")
    return serving.give(serving.sleep_until(micros(instant)))


def wait_for(signal: str, timeout: Duration | None = None, *, type: Any = None) -> Any:
    """Wait for a signal and give its payload: `await perdure.wait_for("approve", timeout="2 d")`.

    With `type` (a model, dataclass, TypedDict, `list[Page]` …) the payload becomes one; what does
    not fit raises here. Raises TimeoutError.
    """
    serving = required("wait_for")
    limit = None if timeout is None else seconds(timeout)
    decode = unchanged if type is None else decoder(type)
    return serving.give(serving.wait_for(signal, limit, decode))


def exec_hook(
    hook: Hook[..., Any] | str,
    *args: Any,
    signal: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    **kwargs: Any,
) -> Any:
    """Run a hook on a worker and wait for it: `await perdure.exec_hook(check, ref, signal="ok")`.

    It answers by returning, or earlier by `memory.signal(name, data)` under the name given as
    `signal`. Raises HookFailed if it raises.
    """
    serving = required("exec_hook")
    options = {"queue": queue, "priority": priority, "signal": signal}
    return serving.give(serving.ask(_hook(serving, hook, args, kwargs, options)))


def start_hook(
    hook: Hook[..., Any] | str,
    *args: Any,
    queue: str | None = None,
    priority: int | None = None,
    due_at: datetime | None = None,
    **kwargs: Any,
) -> None:
    """Begin a hook that nobody waits for; it outlives its coordinator."""
    serving = required("start_hook")
    options = {
        "queue": queue,
        "priority": priority,
        "due_at": None if due_at is None else micros(due_at),
        "detached": True,
    }
    serving.start(_hook(serving, hook, args, kwargs, options))


def _hook(
    serving: Runtime,
    hook: Hook[..., Any] | str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> asks.Ask:
    if isinstance(hook, str):
        hook = serving.app.hooks.get(hook, hook)
    if isinstance(hook, str) and options["queue"] is None:
        options["queue"] = serving.info.queue
    return asks.hook_ask(hook, args, kwargs, **options)


def child(
    workflow: Coordinator[..., Any] | str,
    *args: Any,
    id: str | None = None,
    entity: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    due_at: datetime | None = None,
    context: dict[str, Any] | None = None,
    detached: bool = False,
    timeout: Duration | None = None,
    **kwargs: Any,
) -> Any:
    """Run another workflow as a child job and wait for it: `await perdure.child(research, "q")`.

    Its id is the parent's id with a suffix unless given. A detached child is only begun: the call
    gives None. With `timeout` it fails if it takes longer, in whatever runs. Raises ChildFailed.
    """
    serving = required("child")
    if isinstance(workflow, str):
        workflow = serving.app.coordinators.get(workflow, workflow)
    if isinstance(workflow, str) and queue is None:
        queue = serving.info.queue
    options: dict[str, Any] = {
        "id": id,
        "entity": entity,
        "queue": queue,
        "priority": priority,
        "due_at": None if due_at is None else micros(due_at),
        "context": context,
        "detached": detached or None,
        "timeout": timeout,
    }
    asked = asks.child_ask(workflow, args, kwargs, **options)
    return serving.start(asked) if detached else serving.give(serving.ask(asked))


def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """End this run and begin the next with these arguments: `perdure.continue_as_new(page + 1)`.

    The next run has the memory, the signals that nobody took and the job's time limit, and begins
    with an empty journal. Nothing that the code does after it has any effect.
    """
    required("continue_as_new").continue_as_new(args, kwargs)


def signal(job: str, name: str, payload: Any = None) -> Any:
    """Send a signal to another job: `await perdure.signal("agent-jane-001", "go", {"n": 1})`."""
    serving = required("signal")
    return serving.give(serving.ask(asks.send_ask(job, name, payload)))


def memory() -> Any:
    """Give the handle of the own memory, without arguments."""
    handle: AsyncEntity | Entity = required("memory").memory
    return handle


def now() -> datetime:
    """Give the time (UTC); in a coordinator that of the last thing it was told."""
    return from_micros(required("now").time())


def random() -> randoms.Random:
    """Give a random generator that makes the same numbers when the code runs again."""
    return required("random").random()


def uuid() -> UUID:
    """Give a UUID that is the same when the code runs again."""
    return required("uuid").uuid()


def patched(name: str) -> bool:
    """Tell whether this run takes the new way: `if perdure.patched("two-reviews"): …`.

    False in a coordinator that was beyond this place before the change; the first answer holds.
    """
    return required("patched").patched(name)


def info() -> Info:
    """Tell which job, task and attempt is running; also inside of an activity."""
    serving = runtime()
    known = activity_info.get() if serving is None else serving.info
    if known is None:
        raise InvalidArgument("info() was called outside of a coordinator, hook or activity")
    return known
