"""The memory handle: the same commands in async and plain code, inside and outside of jobs.

`Verbs` says what each command does. A *memory access* carries it out: the runtime of a coordinator
or hook, where a command is a fact of the task, or the connection of a client.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NoReturn,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from perdure.basics.durations import Duration, seconds
from perdure.basics.paths import Path, parse_path
from perdure.replay.awaitables import Durable, LaterAnswer

if TYPE_CHECKING:
    from .typed_memory import TypedAsyncEntity, TypedEntity

_Json = TypeVar("_Json")
_Int = TypeVar("_Int")
_Float = TypeVar("_Float")
_Bool = TypeVar("_Bool")
_State = TypeVar("_State")
A = TypeVar("A")
Default = TypeVar("Default")

Awaited = Coroutine[Any, Any, A]
"""What a method returns in async code: its answer, once it is awaited."""

OF_CLIENTS = frozenset({"apply", "at", "blame", "diff", "history", "items", "restore", "watch"})
"""What only the memory of a client does, if it has no type."""


class Options(TypedDict, total=False):
    """What every command also takes. None is the same as leaving it out."""

    expected_version: int | None
    key: str | None


def given_options(verb: str, options: Options) -> dict[str, Any]:
    """Return the options that are not None. Raises TypeError for an unknown option."""
    for name in options.keys() - Options.__annotations__.keys():
        raise TypeError(f"{verb}() takes expected_version and key, not {name!r}")
    return {name: value for name, value in options.items() if value is not None}


class MemoryAccess(Protocol):
    """Carry out the commands of the handle of one job."""

    def command(
        self, op: str, path: list[str], named: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        """Change the memory; `named` holds the argument under its name."""

    def read(self, path: list[str]) -> Any:
        """Read from the memory."""

    def until(self, condition: str, timeout: float | None) -> Any:
        """Wait until the memory meets a condition, at most `timeout` seconds."""

    def signal(self, name: str, payload: Any, key: str | None) -> Any:
        """Send a signal to the job."""


class Verbs(Generic[_Json, _Int, _Float, _Bool]):
    """The memory of a job: a JSON document that changes by atomic commands.

    Missing parents of a path are created. Every command takes `expected_version=` (the command is
    refused at any other version) and, outside of coordinators and hooks, `key=` (a repeated call is
    applied once). Commands raise InvalidPath, WrongType, InvalidValue, VersionConflict, KeyReused,
    ContractBroken, JobNotFound and the errors of limits (PD301 to PD304).
    """

    # No __dict__, so that `memory.status = "done"` is refused.
    __slots__ = ("__weakref__", "_access", "id")

    def __init__(self, access: MemoryAccess, job: str):
        self._access = access
        self.id = job

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.id}>"

    @overload
    def get(self, path: Path = "") -> _Json: ...
    @overload
    def get(
        self: Verbs[Any, Awaited[int], Any, Any], path: Path, default: Default
    ) -> Awaited[Any | Default]: ...
    @overload
    def get(self: Verbs[Any, int, Any, Any], path: Path, default: Default) -> Any | Default: ...
    def get(self, path: Path = "", default: Any = None) -> Any:
        """Return the value at a path, or the whole memory; `default` instead of null.

        A log is read as a list, and a path where nothing is as null.
        """
        told = self._access.read(parse_path(path))
        return told if default is None else self._or_default(told, default)

    def _or_default(self, told: Any, default: Any) -> Any:
        """Return the answer of a read, or the default if that is null."""
        return default if told is None else told

    def set(self, value: Any, path: Path = "", **options: Unpack[Options]) -> _Int:
        """Replace the value at a path, or the whole memory; return the version."""
        return self._do("set", path, options, value=value)

    def merge(self, patch: Any, path: Path = "", **options: Unpack[Options]) -> _Int:
        """Merge an object into the object at a path, to any depth; return the version.

        Arrays and scalars are replaced.
        """
        return self._do("merge", path, options, patch=patch)

    def append(self, path: Path, *items: Any, **options: Unpack[Options]) -> _Int:
        """Add items at the end of the array at a path; return its new length."""
        return self._do("append", path, options, items=items)

    def prepend(self, path: Path, *items: Any, **options: Unpack[Options]) -> _Int:
        """Add items at the beginning of the array at a path; return its new length."""
        return self._do("prepend", path, options, items=items)

    def remove(self, path: Path, index: int, **options: Unpack[Options]) -> _Json:
        """Remove an element of the array at a path and return it; index -1 is the last one."""
        return self._do("remove", path, options, index=index)

    @overload
    def increment(self, path: Path, by: int = 1, **options: Unpack[Options]) -> _Int: ...
    @overload
    def increment(self, path: Path, by: float, **options: Unpack[Options]) -> _Float: ...
    def increment(self, path: Path, by: float = 1, **options: Unpack[Options]) -> Any:
        """Add `by` to the number at a path (0 if nothing is there); return the sum."""
        return self._do("increment", path, options, by=by)

    def toggle(self, path: Path, **options: Unpack[Options]) -> _Bool:
        """Invert the boolean at a path (True if nothing is there); return the new value."""
        return self._do("toggle", path, options)

    def set_if_not_exists(self, path: Path, value: Any, **options: Unpack[Options]) -> _Json:
        """Set a value at a path if nothing is there; return the value that is there now."""
        return self._do("set_if_not_exists", path, options, value=value)

    def delete(self, path: Path, **options: Unpack[Options]) -> _Json:
        """Delete what is at a path and return it, or None."""
        return self._do("delete", path, options)

    def log(self, path: Path, *items: Any, **options: Unpack[Options]) -> _Int:
        """Add items to a log, a list of any length beside the document; return the version.

        An item costs the same however long the log is. `get(path)` reads it as a list.
        """
        return self._do("log", path, options, items=items)

    def until(self, condition: str, timeout: Duration | None = None) -> _Int:
        """Wait until the memory meets a JSON path predicate: `await memory.until("$.n > 3")`.

        Returns the version that met it first; it may have changed since. Raises TimeoutError, and
        in a client InvalidCondition. A condition that cannot be read fails a hook; a coordinator is
        stuck until its code is mended. With `timeout=0` a client looks once. In a coordinator or
        hook, time is then up before anybody has looked: use `get()`.
        """
        limit = None if timeout is None else seconds(timeout)
        version: _Int = self._access.until(condition, limit)
        return version

    def signal(self, name: str, payload: Any = None, key: str | None = None) -> _Bool:
        """Send a signal to the job.

        In a hook that was given a signal name, that signal is its answer. `key` (only outside of
        jobs) makes a repeated call harmless. Returns False if the key was used before.
        """
        sent: _Bool = self._access.signal(name, payload, key)
        return sent

    def _do(self, op: str, path: Path, options: Options, **named: Any) -> A:  # type: ignore[type-var]
        done: A = self._access.command(op, parse_path(path), named, given_options(op, options))
        return done

    if not TYPE_CHECKING:  # for a type checker it has no other attributes

        def __getattr__(self, name: str) -> NoReturn:
            """Say whose methods those are that read the past."""
            told = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name in OF_CLIENTS:
                told += (
                    f": use a client, client.entity(id).{name}(); in a job, let an activity do that"
                )
            raise AttributeError(told, name=name, obj=self)


class AsyncEntity(Verbs[Awaited[Any], Awaited[int], Awaited[float], Awaited[bool]]):
    """The memory of a job in async code: `await memory.merge({"status": "done"})`."""

    __slots__ = ()

    def typed(self, kind: type[_State]) -> TypedAsyncEntity[_State]:
        """Return this memory with a type: `state = await memory.typed(State).get()`."""
        from .typed_memory import TypedAsyncEntity

        return TypedAsyncEntity(self._access, self.id, kind)

    def _or_default(self, told: Any, default: Any) -> Any:
        answer: Any = self._awaited_or_default(told, default)
        answer.__qualname__ = "memory.get"  # so Python names it if nobody awaits it
        return LaterAnswer(answer, "get") if isinstance(told, Durable) else answer

    async def _awaited_or_default(self, told: Any, default: Any) -> Any:
        return super()._or_default(await told, default)


class Entity(Verbs[Any, int, float, bool]):
    """The memory of a job in plain code: `memory.merge({"status": "done"})`."""

    __slots__ = ()

    def typed(self, kind: type[_State]) -> TypedEntity[_State]:
        """Return this memory with a type: `state = memory.typed(State).get()`."""
        from .typed_memory import TypedEntity

        return TypedEntity(self._access, self.id, kind)
