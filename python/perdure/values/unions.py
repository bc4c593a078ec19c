"""Values of unions: which of several types a stored value has.

JSON does not say. Text, numbers, booleans and null stay what they are if a member is that. For all
others, the member counts that would be written like this.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .hints import bare

Make = Callable[[Any], Any]

_FORMS: tuple[tuple[type, tuple[type, ...]], ...] = (
    (types.NoneType, (types.NoneType,)),
    (bool, (bool,)),
    (int, (int,)),
    (float, (float, int)),
    (str, (str,)),
    (bytes, ()),
    (Mapping, (dict,)),
    (Iterable, (list,)),
)
"""The JSON form of values of these types, the narrow ones first."""


@dataclass(frozen=True, slots=True)
class UnionMember:
    """A type of a union. `make` makes it of JSON, and is None if it is read as it is stored."""

    annotation: Any
    make: Make | None


def union_decoder(
    members: Sequence[UnionMember], is_written_as: Callable[[Any, Any], bool]
) -> Callable[[Any], Any]:
    """Return the function that makes a stored value; it refuses a value that fits no member.

    It raises the error of the member, or a TypeError if there are several.
    """
    makers = [member.make for member in members if member.make is not None]
    others = [member.annotation for member in members if member.make is None]

    def decode(value: Any) -> Any:
        is_plain = any(_takes(each, value) for each in others)
        if is_plain and not isinstance(value, dict | list):
            return value
        fitting, errors = _tried(makers, value)
        if is_plain or len(fitting) > 1:
            exact = [made for made in fitting if is_written_as(value, made)]
            fitting = exact if exact or is_plain else fitting
        if fitting:
            return fitting[0]
        if is_plain or any(_takes(each, value) is None for each in others):
            return value
        raise errors[0] if len(errors) == 1 else _unfit(value, members, errors)

    return decode


def _tried(makers: Sequence[Make], value: Any) -> tuple[list[Any], list[Exception]]:
    fitting: list[Any] = []
    errors: list[Exception] = []
    for make in makers:
        try:
            fitting.append(make(value))
        except Exception as error:  # noqa: BLE001 - of a user's type, which raises what it likes
            errors.append(error)
    return fitting, errors


def _takes(annotation: Any, value: Any) -> bool | None:
    """Tell whether a value already is of a type, or None for a type that JSON does not know."""
    annotation = bare(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return any(type(each) is type(value) and each == value for each in annotation.__args__)
    if origin in (typing.Union, types.UnionType):
        return _any(_takes(each, value) for each in annotation.__args__)
    kind = origin or annotation
    for known, forms in _FORMS if isinstance(kind, type) else ():
        if issubclass(kind, known):
            return isinstance(value, forms)
    return None


def _any(answers: Iterable[bool | None]) -> bool | None:
    told = list(answers)
    return True if True in told else None if None in told else False


def _unfit(value: Any, members: Sequence[UnionMember], errors: Sequence[Exception]) -> TypeError:
    names = (getattr(each.annotation, "__name__", str(each.annotation)) for each in members)
    reasons = "; ".join(f"{type(error).__name__}: {error}" for error in errors)
    return TypeError(f"a {type(value).__name__} fits none of {', '.join(names)}: {reasons}"[:2000])
