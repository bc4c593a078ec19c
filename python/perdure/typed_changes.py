"""What has become of a value that was written and read again."""

from __future__ import annotations

import typing
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from itertools import starmap
from typing import Any

_ARRAYS = (list, tuple, deque)
_SILENT = (Any, object, dict, list, tuple, set, frozenset, deque, Mapping, Sequence)


def change_of(given: Any, back: Any, place: str = "") -> str | None:
    """Give the first place where they differ: `change_of(Page(n=1), Page(n=2)) == ".n"`.

    What a model leaves out on purpose does not count, nor what its annotations do not name: that
    comes as JSON gives it, everywhere.
    """
    kind: Any = type(given)
    pairs: list[tuple[Any, Any, str]]
    if hasattr(kind, "model_fields") or is_dataclass(given):
        names = _compared(kind)
        if type(back) is not kind:
            return place
        pairs = [(getattr(given, n), getattr(back, n), f"{place}.{n}") for n in names]
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
        return tuple(each.name for each in fields(kind))
    return tuple(
        name for name, each in known.items() if not each.exclude and not _is_silent(each.annotation)
    )


def _is_silent(annotation: Any) -> bool:
    """Tell whether an annotation, or a part of it, says nothing of what may stand there."""
    return (
        any(annotation is each for each in _SILENT)
        or isinstance(annotation, typing.TypeVar)
        or any(map(_is_silent, typing.get_args(annotation)))
    )


def _is_same(given: Any, back: Any) -> bool:
    kind: Any = type(given)
    if kind.__eq__ is object.__eq__:  # equal to itself alone
        return type(back) is kind
    try:
        return bool(given == back) or given != given  # noqa: PLR0124 - as NaN
    except Exception:  # noqa: BLE001 - of a user's type, as arrays of numbers that cannot tell
        return type(back) is kind
