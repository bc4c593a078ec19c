"""The memory handle: the same verbs in async code and plain code, inside of jobs and outside.

`Verbs` says what each verb is; a door carries it out: the runtime of a coordinator or hook (there a
command is a fact of the task), or a client's connection.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypedDict, TypeVar, Unpack, overload

from .durations import Duration, seconds
from .paths import Path, parse_path

if TYPE_CHECKING:
    from .typed_memory import TypedAsyncEntity, TypedEntity

_Json = TypeVar("_Json")
_Int = TypeVar("_Int")
_Float = TypeVar("_Float")
_Bool = TypeVar("_Bool")
_State = TypeVar("_State")
A = TypeVar("A")

Awaited = Coroutine[Any, Any, A]
"""What a verb gives in async code: its answer, once it is awaited."""


class Options(TypedDict, total=False):
    """What every command takes besides; None is as good as nothing."""

    expected_version: int | None
    key: str | None


def given_options(verb: str, options: Options) -> dict[str, Any]:
    """Give the options that say something. Raises TypeError for what is no option."""
    for name in options.keys() - Options.__annotations__.keys():
        raise TypeError(f"{verb}() takes expected_version and key, not {name!r}")
    return {name: value for name, value in options.items() if value is not None}


class Door(Protocol):
    """Carries out the verbs of the handle of one job."""

    def command(
        self, op: str, path: list[str], named: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        """Change the memory; `named` holds the argument under its name."""

    def read(self, path: list[str]) -> Any:
        """Read from the memory."""

    def until(self, condition: str, timeout: float | None) -> Any:
        """Wait for the memory to fulfil a condition, at most some seconds."""

    def signal(self, name: str, payload: Any, key: str | None) -> Any:
        """Send the job a signal."""


class Verbs(Generic[_Json, _Int, _Float, _Bool]):
    """A job's memory: a JSON document that changes by atomic commands.

    Paths create missing parents. Every command takes `expected_version=` (compare and set) and,
    outside of coordinators and hooks, `key=` (a repeated call is done once). Raises InvalidPath,
    WrongType, InvalidValue, VersionConflict, JobNotFound and limits (PD30.).
    """

    def __init__(self, door: Door, job: str):
        self._door = door
        self.id = job

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.id}>"

    def get(self, path: Path = "") -> _Json:
        """Read what stands at a path, or everything; None where nothing is there.

        A log reads as a list.
        """
        value: _Json = self._door.read(parse_path(path))
        return value

    def set(self, value: Any, path: Path = "", **options: Unpack[Options]) -> _Int:
        """Replace what stands at a path, or everything; gives the version."""
        return self._do("set", path, options, value=value)

    def merge(self, patch: Any, path: Path = "", **options: Unpack[Options]) -> _Int:
        """Merge an object into another, to any depth; gives the version."""
        return self._do("merge", path, options, patch=patch)

    def append(self, path: Path, *items: Any, **options: Unpack[Options]) -> _Int:
        """Add items at the end of an array; gives its new length."""
        return self._do("append", path, options, items=items)

    def prepend(self, path: Path, *items: Any, **options: Unpack[Options]) -> _Int:
        """Add items before the first of an array; gives its new length."""
        return self._do("prepend", path, options, items=items)

    def remove(self, path: Path, index: int, **options: Unpack[Options]) -> _Json:
        """Take an element out of an array and give it; -1 is the last."""
        return self._do("remove", path, options, index=index)

    @overload
    def increment(self, path: Path, by: int = 1, **options: Unpack[Options]) -> _Int: ...
    @overload
    def increment(self, path: Path, by: float, **options: Unpack[Options]) -> _Float: ...
    def increment(self, path: Path, by: float = 1, **options: Unpack[Options]) -> Any:
        """Add to a number (0 where nothing is there); gives the new one."""
        return self._do("increment", path, options, by=by)

    def toggle(self, path: Path, **options: Unpack[Options]) -> _Bool:
        """Turn a boolean round (true where nothing is there); gives the new one."""
        return self._do("toggle", path, options)

    def set_if_not_exists(self, path: Path, value: Any, **options: Unpack[Options]) -> _Json:
        """Set what is not there yet; gives the value that stands."""
        return self._do("set_if_not_exists", path, options, value=value)

    def delete(self, path: Path, **options: Unpack[Options]) -> _Json:
        """Delete what stands at a path and give it."""
        return self._do("delete", path, options)

    def log(self, path: Path, *items: Any, **options: Unpack[Options]) -> _Int:
        """Add items to a log, a list beside the document that may grow for ever; gives the version.

        Each item costs the same however many there are. `get(path)` reads it as a list.
        """
        return self._do("log", path, options, items=items)

    def until(self, condition: str, timeout: Duration | None = None) -> _Int:
        """Wait until the memory fulfils a JSON path predicate: `await memory.until("$.n > 3")`.

        Gives the version that did; once true counts. Raises TimeoutError, and in a client
        InvalidCondition: it fails a hook, and a coordinator is stuck until its code is mended.
        With `timeout=0` a client looks once; in a coordinator or hook time is up before anybody
        has looked: read there with `get()`.
        """
        limit = None if timeout is None else seconds(timeout)
        version: _Int = self._door.until(condition, limit)
        return version

    def signal(self, name: str, payload: Any = None, key: str | None = None) -> _Bool:
        """Send the job a signal; in a hook, the one it was asked for is its answer.

        Outside, `key` makes a repeated call harmless; gives false where it was seen before.
        """
        sent: _Bool = self._door.signal(name, payload, key)
        return sent

    def _do(self, op: str, path: Path, options: Options, **named: Any) -> A:  # type: ignore[type-var]
        done: A = self._door.command(op, parse_path(path), named, given_options(op, options))
        return done


class AsyncEntity(Verbs[Awaited[Any], Awaited[int], Awaited[float], Awaited[bool]]):
    """A job's memory in async code: `await memory.merge({"status": "done"})`."""

    def typed(self, kind: type[_State]) -> TypedAsyncEntity[_State]:
        """Give the same memory as it speaks a type: `state = await memory.typed(State).get()`."""
        from .typed_memory import TypedAsyncEntity

        return TypedAsyncEntity(self._door, self.id, kind)


class Entity(Verbs[Any, int, float, bool]):
    """A job's memory in plain code: `memory.merge({"status": "done"})`."""

    def typed(self, kind: type[_State]) -> TypedEntity[_State]:
        """Give the same memory as it speaks a type: `state = memory.typed(State).get()`."""
        from .typed_memory import TypedEntity

        return TypedEntity(self._door, self.id, kind)
