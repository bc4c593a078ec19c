"""Contracts: what the memories of an entity must look like, given as JSON Schema or as a type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perdure.errors import InvalidArgument

Surface = Mapping[str, Any] | type[Any]
"""A JSON Schema, or the type that it is made of: a pydantic model, dataclass or TypedDict."""


@dataclass(frozen=True, slots=True)
class BrokenContract:
    """A memory that breaks a contract: its id, the path, the rule, and the same in words."""

    id: str
    path: str
    rule: str
    message: str


def schema_of(surface: Surface) -> dict[str, Any]:
    """Return the JSON Schema of a type, or a schema as it is. Raises InvalidArgument."""
    if isinstance(surface, Mapping):
        return dict(surface)
    if isinstance(surface, str):  # pydantic would take it for the name of a type
        raise InvalidArgument(
            f"{surface!r} is not a contract"[:500],
            hint="Give a type, or a JSON Schema as a dict: json.loads(…).",
        )
    try:
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUserError
    except ImportError as error:
        raise InvalidArgument(
            f"the contract of {_name_of(surface)} needs pydantic",
            detail="Pydantic makes the JSON Schema of a type, and is not installed.",
            hint="Run: pip install pydantic. Or give the JSON Schema as a dict.",
        ) from error
    try:
        return TypeAdapter(surface).json_schema()
    except PydanticUserError as error:
        raise InvalidArgument(
            f"{_name_of(surface)} has no JSON Schema",
            detail=error.message,
            hint="Change the type, or give the JSON Schema as a dict.",
        ) from error


def _name_of(surface: Any) -> str:
    return str(getattr(surface, "__qualname__", surface))
