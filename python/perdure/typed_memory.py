"""Typed memories: a handle whose `get`, `set` and `merge` speak the user's own type. All else is as
in the handle that it was made of, and the database holds the same JSON.

They take less than the verbs they stand for, on purpose: whoever has a typed handle wants to be
told of a wrong value by the type checker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any, Generic, TypeVar, Unpack, overload

from .memory import AsyncEntity, Door, Entity, Options, Path
from .typed import Decode, decoder, is_model

T = TypeVar("T")


class TypedEntity(Entity, Generic[T]):
    """A memory of a type in plain code: `memory.typed(ResearchState)`.

    What does not fit the type raises where it is read, as the type itself does (pydantic's
    ValidationError); what must not be written is for a contract to say.
    """

    def __init__(self, door: Door, job: str, kind: type[T]):
        super().__init__(door, job)
        self.kind = kind
        self._decode: Decode = decoder(kind)

    @overload  # type: ignore[override]
    def get(self) -> T: ...
    @overload
    def get(self, path: Path) -> Any: ...
    def get(self, path: Path = "") -> Any:
        """Read everything as the type, or what stands at a path as it is stored."""
        return super().get(path) if path else self._decode(super().get())

    @overload  # type: ignore[override]
    def set(self, value: T, **options: Unpack[Options]) -> int: ...
    @overload
    def set(self, value: Any, path: Path, **options: Unpack[Options]) -> int: ...
    def set(self, value: Any, path: Path = "", **options: Unpack[Options]) -> int:
        """Replace everything by a value of the type, or what stands at a path."""
        return super().set(value, path, **options)

    @overload  # type: ignore[override]
    def merge(self, patch: T | Mapping[str, Any], **options: Unpack[Options]) -> int: ...
    @overload
    def merge(self, patch: Any, path: Path, **options: Unpack[Options]) -> int: ...
    def merge(self, patch: Any, path: Path = "", **options: Unpack[Options]) -> int:
        """Merge a patch; of a pydantic model, what was set in it and not its defaults."""
        return super().merge(patch_of(patch), path, **options)


class TypedAsyncEntity(AsyncEntity, Generic[T]):
    """A memory of a type in async code: `await memory.typed(ResearchState).get()`.

    As TypedEntity, awaited.
    """

    def __init__(self, door: Door, job: str, kind: type[T]):
        super().__init__(door, job)
        self.kind = kind
        self._decode: Decode = decoder(kind)

    @overload  # type: ignore[override]
    def get(self) -> Coroutine[Any, Any, T]: ...
    @overload
    def get(self, path: Path) -> Coroutine[Any, Any, Any]: ...
    def get(self, path: Path = "") -> Coroutine[Any, Any, Any]:
        """Read everything as the type, or what stands at a path as it is stored."""
        return super().get(path) if path else _decoded(super().get(), self._decode)

    @overload  # type: ignore[override]
    def set(self, value: T, **options: Unpack[Options]) -> Coroutine[Any, Any, int]: ...
    @overload
    def set(
        self, value: Any, path: Path, **options: Unpack[Options]
    ) -> Coroutine[Any, Any, int]: ...
    def set(
        self, value: Any, path: Path = "", **options: Unpack[Options]
    ) -> Coroutine[Any, Any, int]:
        """Replace everything by a value of the type, or what stands at a path."""
        return super().set(value, path, **options)

    @overload  # type: ignore[override]
    def merge(
        self, patch: T | Mapping[str, Any], **options: Unpack[Options]
    ) -> Coroutine[Any, Any, int]: ...
    @overload
    def merge(
        self, patch: Any, path: Path, **options: Unpack[Options]
    ) -> Coroutine[Any, Any, int]: ...
    def merge(
        self, patch: Any, path: Path = "", **options: Unpack[Options]
    ) -> Coroutine[Any, Any, int]:
        """Merge a patch; of a pydantic model, what was set in it and not its defaults."""
        return super().merge(patch_of(patch), path, **options)


async def _decoded(reading: Awaitable[Any], decode: Decode) -> Any:
    """Wait for what was asked for already: in a coordinator a call is known by when it is made."""
    return decode(await reading)


def patch_of(value: Any) -> Any:
    """Give what a merge writes: of a pydantic model what was set, not its defaults."""
    if is_model(type(value)):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return value
