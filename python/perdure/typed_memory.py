"""Typed memories: a handle whose `get`, `set` and `merge` speak the user's own type. All else is as
in the handle that it was made of, and the database holds the same JSON.

They take less than the verbs they stand for, on purpose: whoever has a typed handle wants to be
told of a wrong value by the type checker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Generic, TypeVar, Unpack, overload

from .memory import AsyncEntity, Awaited, Door, Entity, Options, Verbs
from .paths import Path
from .typed import decoder
from .typed_models import is_model, patch_json

T = TypeVar("T")
_State = TypeVar("_State")
_Json = TypeVar("_Json")
_Int = TypeVar("_Int")
_Float = TypeVar("_Float")
_Bool = TypeVar("_Bool")


class TypedVerbs(Verbs[_Json, _Int, _Float, _Bool], Generic[T, _State, _Json, _Int, _Float, _Bool]):
    """The verbs that speak a type, in plain and in async code."""

    def __init__(self, door: Door, job: str, kind: type[T]):
        super().__init__(door, job)
        self.kind = kind
        self._decode = decoder(kind)

    @overload  # type: ignore[override]
    def get(self) -> _State: ...
    @overload
    def get(self, path: Path) -> _Json: ...
    def get(self, path: Path = "") -> Any:
        """Read everything as the type, or what stands at a path as it is stored."""
        return super().get(path) if path else self._decoded(super().get())

    def _decoded(self, told: Any) -> Any:
        return self._decode(told)

    @overload  # type: ignore[override]
    def set(self, value: T, **options: Unpack[Options]) -> _Int: ...
    @overload
    def set(self, value: Any, path: Path, **options: Unpack[Options]) -> _Int: ...
    def set(self, value: Any, path: Path = "", **options: Unpack[Options]) -> _Int:
        """Replace everything by a value of the type, or what stands at a path."""
        return super().set(value, path, **options)

    @overload  # type: ignore[override]
    def merge(self, patch: T | Mapping[str, Any], **options: Unpack[Options]) -> _Int: ...
    @overload
    def merge(self, patch: Any, path: Path, **options: Unpack[Options]) -> _Int: ...
    def merge(self, patch: Any, path: Path = "", **options: Unpack[Options]) -> _Int:
        """Merge a patch; of a pydantic model, what was set in it and not its defaults."""
        given = patch_json(patch) if is_model(type(patch)) else patch
        return super().merge(given, path, **options)


class TypedEntity(TypedVerbs[T, T, Any, int, float, bool], Entity, Generic[T]):
    """A memory of a type in plain code: `memory.typed(ResearchState)`.

    What does not fit the type raises where it is read, as the type itself does (pydantic's
    ValidationError); what must not be written is for a contract to say.
    """


class TypedAsyncEntity(
    TypedVerbs[T, Awaited[T], Awaited[Any], Awaited[int], Awaited[float], Awaited[bool]],
    AsyncEntity,
    Generic[T],
):
    """A memory of a type in async code: `await memory.typed(ResearchState).get()`.

    As TypedEntity, awaited.
    """

    async def _decoded(self, told: Awaitable[Any]) -> Any:
        """Wait for what was asked for already: a coordinator's call is known by when it is made."""
        return self._decode(await told)
