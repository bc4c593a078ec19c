"""Typed memories: handles whose `get`, `set` and `merge` use your own type.

Everything else is as in the handle they were made of, and the database holds the same JSON. They
accept less than the methods they override, on purpose: a type checker is to report a wrong value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Generic, TypeVar, Unpack, overload

from perdure.basics.paths import Path
from perdure.values.models import is_model, patch_json
from perdure.values.wire import decoder

from .memory import AsyncEntity, Awaited, Default, Entity, MemoryAccess, Options, Verbs

T = TypeVar("T")
_State = TypeVar("_State")
_Json = TypeVar("_Json")
_Int = TypeVar("_Int")
_Float = TypeVar("_Float")
_Bool = TypeVar("_Bool")


class TypedVerbs(Verbs[_Json, _Int, _Float, _Bool], Generic[T, _State, _Json, _Int, _Float, _Bool]):
    """The methods that use a type, in plain and in async code."""

    __slots__ = ("_decode", "kind")

    def __init__(self, access: MemoryAccess, job: str, kind: type[T]):
        super().__init__(access, job)
        self.kind = kind
        self._decode = decoder(kind)

    @overload  # type: ignore[override]
    def get(self) -> _State: ...
    @overload
    def get(self, path: Path) -> _Json: ...
    @overload
    def get(
        self: TypedVerbs[Any, Any, Any, Awaited[int], Any, Any], path: Path, default: Default
    ) -> Awaited[Any | Default]: ...
    @overload
    def get(
        self: TypedVerbs[Any, Any, Any, int, Any, Any], path: Path, default: Default
    ) -> Any | Default: ...
    def get(self, path: Path = "", default: Any = None) -> Any:
        """Return the whole memory as the type, or the value at a path as it is stored.

        `default` is as in the handle without a type.
        """
        if not path:
            return self._decoded(super().get())
        return super().get(path, default)  # type: ignore[call-arg]

    def _decoded(self, told: Any) -> Any:
        return self._decode(told)

    @overload  # type: ignore[override]
    def set(self, value: T, **options: Unpack[Options]) -> _Int: ...
    @overload
    def set(self, value: Any, path: Path, **options: Unpack[Options]) -> _Int: ...
    def set(self, value: Any, path: Path = "", **options: Unpack[Options]) -> _Int:
        """Replace the whole memory by a value of the type, or the value at a path."""
        return super().set(value, path, **options)

    @overload  # type: ignore[override]
    def merge(self, patch: T | Mapping[str, Any], **options: Unpack[Options]) -> _Int: ...
    @overload
    def merge(self, patch: Any, path: Path, **options: Unpack[Options]) -> _Int: ...
    def merge(self, patch: Any, path: Path = "", **options: Unpack[Options]) -> _Int:
        """Merge a patch: of a pydantic model, the fields that were set, not the defaults."""
        given = patch_json(patch) if is_model(type(patch)) else patch
        return super().merge(given, path, **options)


class TypedEntity(TypedVerbs[T, T, Any, int, float, bool], Entity, Generic[T]):
    """A memory with a type in plain code: `memory.typed(ResearchState)`.

    A memory that does not fit raises when it is read, with the error of the type itself (pydantic's
    ValidationError). To prevent such a memory from being written, define a contract.
    """

    __slots__ = ()


class TypedAsyncEntity(
    TypedVerbs[T, Awaited[T], Awaited[Any], Awaited[int], Awaited[float], Awaited[bool]],
    AsyncEntity,
    Generic[T],
):
    """A memory with a type in async code: `await memory.typed(ResearchState).get()`.

    See TypedEntity.
    """

    __slots__ = ()

    async def _decoded(self, told: Awaitable[Any]) -> Any:
        """Await an answer that was already requested.

        A call of a coordinator is known by when it is made.
        """
        return self._decode(await told)
