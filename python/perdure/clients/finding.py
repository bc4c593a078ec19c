"""Conditions on memories as they are sent, and what `find()` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from perdure.basics.durations import aware
from perdure.errors import InvalidArgument
from perdure.values.stored import as_stored
from perdure.values.wire import to_json

Order = str | Mapping[str, Any]
"""By what to order: `"user.name"`, `"-$created_at"`,
`{"path": "score", "as": "number", "descending": True}`; the best answers to a search first,
`{"path": "notes", "search": "solar"}`; the nearest vectors, `{"path": "embedding", "near": v}`."""


@dataclass(frozen=True, slots=True)
class Found:
    """A memory that was found. `place` is where the next page begins: `find(..., after=place)`."""

    id: str
    entity: str
    status: str | None
    version: int
    context: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    place: list[Any]


def on_the_wire(asked: Any) -> Any:
    """Write conditions as JSON: a time becomes {"$time": ...}, a date its midnight in UTC.

    Raises InvalidArgument for a time without a zone, InvalidValue for text that JSON cannot hold.
    """
    if isinstance(asked, datetime):
        return {"$time": _written(asked)}
    if isinstance(asked, date):
        return {"$time": _written(datetime.combine(asked, time(), UTC))}
    if isinstance(asked, Mapping):
        return {as_text(key): on_the_wire(value) for key, value in asked.items()}
    if isinstance(asked, list | tuple | set | frozenset):
        return [on_the_wire(value) for value in asked]
    if isinstance(asked, str):
        return as_stored(asked)
    return to_json(asked)


def as_text(key: Any) -> str:
    """Return a path or an operator as text. Raises InvalidArgument."""
    if isinstance(key, str):
        return str(as_stored(key))
    raise InvalidArgument(
        f"{key!r} is not a path in conditions",
        hint='Write paths as text: {"user.name": "Jane"}.',
    )


def _written(at: datetime) -> str:
    return aware(at).astimezone(UTC).isoformat()
