"""Compares a value with what comes back after it was written and read. Another value is refused."""

from __future__ import annotations

import sys
import typing
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from itertools import starmap
from typing import Any, NamedTuple

from perdure.errors import InvalidValue

from .hints import types_of

_ARRAYS = (list, tuple, deque)
_SILENT = (Any, object, dict, list, tuple, set, frozenset, deque, Mapping, Sequence)


class Hints(NamedTuple):
    """What to do about a value that cannot be read back, and about one that would change."""

    unread: str
    changed: str


def check_round_trip(
    value: Any, read: Callable[[], Any], hints: Hints, *, is_compared: bool = True
) -> None:
    """Read a value back before it is given. Raises InvalidValue."""
    name = type(value).__name__
    try:
        back = read()
        changed = change_of(value, back) if is_compared else None
    except Exception as error:  # noqa: BLE001 - a type's validators raise what they like
        refused = InvalidValue(
            f"a {name} cannot be read back from the JSON that it is written as",
            detail=_told(error)[:1000],
            hint=hints.unread,
        )
        refused.is_chance = True
        raise refused from None
    if changed is not None:
        raise InvalidValue(
            f"a {name} would not come back from JSON unchanged",
            detail=f"The value at {changed.lstrip('.') or 'its top'} would be another one.",
            hint=hints.changed,
        )


def _told(error: Exception) -> str:
    """Say what is wrong without the values, which may be secret."""
    pydantic = sys.modules.get("pydantic_core")
    if pydantic is None or not isinstance(error, pydantic.ValidationError):
        return type(error).__name__
    return "; ".join(
        f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
        for each in error.errors(include_url=False, include_context=False, include_input=False)
    )


def change_of(given: Any, back: Any, place: str = "") -> str | None:
    """Return the first place where they differ: `change_of(Page(n=1), Page(n=2)) == ".n"`.

    What a model leaves out on purpose does not count, and neither does what its annotations do not
    name: that is plain JSON everywhere.
    """
    kind: Any = type(given)
    pairs: list[tuple[Any, Any, str]]
    if hasattr(kind, "model_fields") or is_dataclass(given):
        names = _compared(kind)
        if type(back) is not kind:
            return place
        pairs = [(getattr(given, n, None), getattr(back, n, None), f"{place}.{n}") for n in names]
    elif isinstance(given, _ARRAYS) and isinstance(back, _ARRAYS):
        if len(given) != len(back):
            return place
        items = enumerate(zip(given, back, strict=True))
        pairs = [(one, other, f"{place}[{number}]") for number, (one, other) in items]
    elif isinstance(given, Mapping) and isinstance(back, Mapping):
        if given.keys() != back.keys():
            return place
        pairs = [(item, back[key], f"{place}[{key!r}]") for key, item in given.items()]
    else:
        return None if _is_same(given, back) else place
    return next((found for found in starmap(change_of, pairs) if found is not None), None)


@lru_cache(maxsize=1024)
def _compared(kind: Any) -> tuple[str, ...]:
    known = getattr(kind, "model_fields", None) or getattr(kind, "__pydantic_fields__", None)
    if known is None:
        types = types_of(kind)
        return tuple(each.name for each in fields(kind) if not _is_silent(types.get(each.name)))
    return tuple(
        name for name, each in known.items() if not each.exclude and not _is_silent(each.annotation)
    )


def _is_silent(annotation: Any) -> bool:
    """Tell whether an annotation, or a part of it, does not say what the value may be."""
    return (
        any(annotation is each for each in _SILENT)
        or isinstance(annotation, typing.TypeVar)
        or any(map(_is_silent, typing.get_args(annotation)))
    )


def _is_same(given: Any, back: Any) -> bool:
    kind: Any = type(given)
    if kind.__eq__ is object.__eq__:  # equal only to itself
        return type(back) is kind
    try:
        return bool(given == back) or given != given  # noqa: PLR0124 - as NaN
    except Exception:  # noqa: BLE001 - of a user's type, as arrays of numbers that cannot tell
        return type(back) is kind
