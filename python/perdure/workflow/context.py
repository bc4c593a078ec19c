"""The place of the running code: which coordinator, hook or activity it is, and what serves it."""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from perdure.errors import InvalidArgument, IoInCoordinator
from perdure.replay.replay import current

from . import operations
from .memory import AsyncEntity, Entity

if TYPE_CHECKING:
    from perdure.values.items import Decode

    from .app import App
    from .work import Pending, Work


@dataclass(frozen=True, slots=True)
class Info:
    """What the running code is: `perdure.info().job`.

    - `attempt`: how many attempts have failed, so 0 at first. With `Retry(attempts=3)` the last
      attempt sees 2, and the log calls it attempt 3.
    - `run`: the number of the run of the job, from 1.
    - `headers`: what the job was started with; `{}` if that was nothing.
    - `key`: names this call of an activity for ever. Use it as an idempotency key for other
      systems.
    - `progress`: what an earlier attempt last reported by `heartbeat()`, as far as it was sent.
    - `signal`: the name under which a hook was asked to answer.
    - `pinned_version`: the version of the code that the job stays with.
    """

    job: str
    task: str
    name: str
    kind: str
    attempt: int = 0
    signal: str | None = None
    entity: str | None = None
    workflow: str | None = None
    queue: str = "default"
    parent: str | None = None
    headers: Any = field(default_factory=dict, hash=False)
    key: str | None = None
    progress: Any = field(default=None, hash=False)
    pinned_version: str | None = None
    run: int = 1


def info_of(row: dict[str, Any], kind: str) -> Info:
    """Return the Info of the task of a claimed row."""
    known = {name: row[name] for name in _OF_A_ROW}
    if known["headers"] is None:
        del known["headers"]
    return Info(kind=kind, **known)


_OF_A_ROW = [each.name for each in fields(Info) if each.name not in ("kind", "key", "progress")]


class Runtime(ABC):
    """What serves the durable calls of one coordinator or hook.

    Async code awaits what `request`, `sleep_until` and `wait_for` return. Plain code passes it
    through `give`, which waits.
    """

    app: App
    info: Info
    job: str
    is_async: bool

    @property
    def memory(self) -> AsyncEntity | Entity:
        """Return a handle of the job's memory.

        It is not kept, since the two would refer to each other.
        """
        handle = AsyncEntity if self.is_async else Entity
        return handle(TaskMemoryAccess(self), self.job)

    def pin_of(self, work: Work[..., Any] | str) -> str | None:
        """Return the version to which requested work is pinned.

        The functions of one app are one body of code, so they stay with the version of the asker.
        Work that is only named, or belongs to another app, may have versions of its own.
        """
        if isinstance(work, str):
            return None
        own = self.info.pinned_version
        return own if own is not None and self.app.registers(work) else work.pinned_version

    @abstractmethod
    def request(self, operation: operations.Operation) -> Any:
        """Ask for something durable; returns what will have the answer."""

    @abstractmethod
    def start(self, operation: operations.Operation) -> Pending[Any]:
        """Ask for something that begins at once, whether or not anybody waits for it."""

    @abstractmethod
    def give(self, pending: Any) -> Any:
        """Return to user code what a call gives it: a value in plain code, else the awaitable."""

    def end_shield(self) -> None:  # noqa: B027 - an async coordinator has nothing to say
        """Raise CancelledError if the code was cancelled while something was shielded."""

    @abstractmethod
    def sleep(self, length: int) -> Any:
        """Wait for some microseconds."""

    @abstractmethod
    def sleep_until(self, deadline: int) -> Any:
        """Wait until an instant (µs since 1970)."""

    @abstractmethod
    def wait_for(self, signal: str, limit: float | None, decode: Decode) -> Any:
        """Wait for a signal, at most `limit` seconds (TimeoutError)."""

    @abstractmethod
    def within(self, operation: operations.Operation, limit: float | None) -> Any:
        """Wait for the answer of others, at most `limit` seconds (TimeoutError)."""

    @abstractmethod
    def heartbeat(self, progress: Any) -> None:
        """Note the progress of the code. Raises CancelledError if it was asked to cancel."""

    @abstractmethod
    def continue_as_new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
        """End this run and begin the next. Raises InvalidArgument in a hook, which has none."""

    @abstractmethod
    def time(self) -> int:
        """Return the time as this code sees it (µs)."""

    @abstractmethod
    def random(self) -> random.Random:
        """Return a random generator that is the same when the code runs again."""

    @abstractmethod
    def uuid(self) -> UUID:
        """Return a UUID that is the same when the code runs again."""

    @abstractmethod
    def patched(self, name: str) -> bool:
        """Tell whether this run takes the new way."""

    @abstractmethod
    def is_replaying(self) -> bool:
        """Tell whether the code repeats what it did before, or is leaving memory."""


is_shielded: ContextVar[bool] = ContextVar("perdure shielded", default=False)
"""Whether the running code is not to be interrupted by a cancel; see `durable.shielded()`."""

SHIELDED = {"shielded": True}
"""The field of a request that begins as usual although its asker was asked to cancel."""

activity_info: ContextVar[Callable[[], Info] | None] = ContextVar("perdure activity", default=None)
"""Says which activity runs here; it is rarely asked."""


def runtime() -> Runtime | None:
    """Return what serves the running coordinator or hook, or None outside of any."""
    serving: Runtime | None = current.get(None)
    return serving


def refuse_clients() -> None:
    """Refuse a client in a coordinator, which would use it again at each replay.

    Raises IoInCoordinator.
    """
    serving = runtime()
    if serving is not None and serving.info.kind == "coordinator":
        raise IoInCoordinator(
            "a coordinator cannot use a client",
            detail="it runs again from its journal, and would start, signal or write once more",
            hint="await a child, a hook, perdure.signal() or a command of its memory;"
            " or use the client in an activity",
        )


ANYWHERE = "coordinator, hook or activity"
_CLIENT = "Call it in code that a worker runs. Outside, start and signal with perdure.connect()."


def required(call: str, hint: str = _CLIENT) -> Runtime:
    """Return what serves the running code. Raises InvalidArgument outside of any."""
    serving = runtime()
    if serving is None:
        raise misplaced(call, hint)
    return serving


def misplaced(
    call: str, hint: str = _CLIENT, where: str = "coordinator or hook"
) -> InvalidArgument:
    """Return the error of a call that nothing serves; `hint` is for code outside of jobs."""
    if activity_info.get() is not None:
        return InvalidArgument(
            f"{call}() was called in an activity",
            detail="An activity is ordinary code; only its result is recorded.",
            hint="Call it in the coordinator or hook; in an activity use the clock, random"
            " numbers and waits of Python.",
        )
    if threading.current_thread() is not threading.main_thread():
        return InvalidArgument(
            f"{call}() was called in a thread that belongs to no {where}",
            detail="The context says what code belongs to, and that of a new thread is empty.",
            hint="A thread of an activity or plain hook takes the context along if you begin it by"
            " pool.submit(contextvars.copy_context().run, function) or asyncio.to_thread(function)."
            " Elsewhere in a job, let the coordinator or hook make the call. Outside of jobs:"
            f" {hint}",
        )
    return InvalidArgument(f"{call}() was called outside of a {where}", hint=hint)


class TaskMemoryAccess:
    """Carries out the commands of a memory handle inside a coordinator or hook. Each is a fact."""

    __slots__ = ("_serving",)

    def __init__(self, serving: Runtime):
        self._serving = serving

    def command(
        self, op: str, path: list[str], named: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        """Change the own memory."""
        expected = options.pop("expected_version", None)
        if options:
            raise _given_inside(", ".join(options))
        argument = next(iter(named.values()), None)
        serving = self._own()
        return serving.give(
            serving.request(operations.command_operation(op, path, argument, expected))
        )

    def read(self, path: list[str]) -> Any:
        """Read from the own memory."""
        serving = self._own()
        return serving.give(serving.request(operations.read_operation(path)))

    def until(self, condition: str, timeout: float | None) -> Any:
        """Wait for the own memory to fulfil a condition."""
        serving = self._own()
        return serving.give(serving.within(operations.until_operation(condition), timeout))

    def signal(self, name: str, payload: Any, key: str | None) -> Any:
        """Send the own job a signal; in a hook, this may be its answer."""
        if key is not None:
            raise _given_inside("key")
        serving = self._own()
        return serving.give(serving.request(operations.send_operation(None, name, payload)))

    def _own(self) -> Runtime:
        """Return what serves this code. Raises InvalidArgument if the memory was given to other."""
        serving, running = self._serving, runtime()
        if running is not None and running is not serving:
            raise InvalidArgument(
                f"this memory was given to {serving.info.name} of job {serving.job}",
                detail=f"It is used by {running.info.name} of job {running.job}.",
                hint="Keep no memory in a global or an object: use the one that the code was given,"
                " or perdure.memory().",
            )
        return serving


def _given_inside(names: str) -> InvalidArgument:
    return InvalidArgument(
        f"{names} cannot be given inside a coordinator or hook",
        detail="There a command is applied once anyway: its place in the code identifies it.",
        hint="Leave it out.",
    )
