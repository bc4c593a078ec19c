"""Typed values on the wire.

Pydantic models, dataclasses, TypedDicts, enums, dates and UUIDs become JSON, and come back by
annotation. Values without such an annotation are passed on as they are stored.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any
from uuid import UUID

from perdure.errors import ValueTooDeep

from .dataclass_fields import construction_of, make
from .hints import bare, is_alias, is_typed_dict, logger, types_of
from .items import Decode, an, items_decoder, unchanged
from .models import is_of_pydantic, model_decoder, model_json, types_unknown_to_pydantic
from .round_trips import Hints, check_round_trip
from .stored import as_stored
from .unions import UnionMember, union_decoder

if sys.version_info >= (3, 13):
    from typing import TypeVar
else:
    from typing_extensions import TypeVar

Result = TypeVar("Result", default=Any)
Result_co = TypeVar("Result_co", covariant=True, default=Any)
"""The result of work: any type, if only a name is known of it, or nothing is said."""

_PLAIN = (str, int, float, bool, type(None))
_AS_ISO = (datetime, date, time)


def to_json(value: Any) -> Any:
    """Turn a typed value into lists, dicts, text and numbers; leave unknown types as they are.

    Raises InvalidValue if a model cannot be written, and ValueTooDeep.
    """
    try:
        return _json(value)
    except RecursionError:
        raise ValueTooDeep(
            "the value is nested too deeply",
            detail="It contains itself, or is deeper than Python can follow.",
            hint="Flatten it, or store it as text.",
        ) from None


def _json(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return {key: _json(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [_json(item) for item in value]
    return _special(value)


def _special(value: Any) -> Any:
    if is_of_pydantic(type(value)):
        return model_json(value)
    if isinstance(value, enum.Enum):
        return _json(value.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _dataclass_json(value)
    if isinstance(value, _AS_ISO):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return value


def _dataclass_json(value: Any) -> Any:
    kind: Any = type(value)
    construction = construction_of(kind)
    known = ((name, getattr(value, name)) for name in construction.names if hasattr(value, name))
    written = {name: _json(item) for name, item in known}
    if construction.is_by_code:
        check_round_trip(value, partial(decoder(kind), as_stored(written)), _HINTS)
    return written


_HINTS = Hints(
    "If the value is wrong, refuse it where it is made; else let the class take what its fields"
    " hold, or give plain values.",
    "Let the class, its __post_init__ and what it takes by default, make the same of its fields"
    " again; or give plain values.",
)


def decoder(annotation: Any) -> Decode:
    """Return the function that makes a stored value of the annotated type.

    `decoder(list[Page])(stored)`; an annotation that says nothing gives `unchanged`.
    """
    if isinstance(annotation, type):
        return _decoder(annotation, None)
    if is_alias(annotation):
        return _alias_decoder(annotation)
    known = _ordered(annotation)
    try:
        hash(known)
    except TypeError:  # for example Annotated[Page, {"a": "note"}]
        return _made_decoder(annotation)
    return _decoder(annotation, known)


def _ordered(annotation: Any) -> Any:
    """Distinguish `A | B` from `B | A` at every level.

    They are equal, but mean different things here.
    """
    parts = typing.get_args(annotation)
    return (typing.get_origin(annotation), *map(_ordered, parts)) if parts else annotation


@lru_cache(maxsize=1024)
def _decoder(annotation: Any, known: Any) -> Decode:  # noqa: ARG001 - it is what is remembered
    return _made_decoder(annotation)


def _made_decoder(annotation: Any) -> Decode:
    origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if is_alias(origin):
        return _later(lambda: origin.__value__[arguments])
    if isinstance(annotation, str | typing.ForwardRef):
        logger.warning("%r looks like a type but is not one: values stay plain JSON", annotation)
    if (named := bare(annotation)) is not annotation:
        return decoder(named)
    if origin in (typing.Union, types.UnionType):
        return _union_decoder(arguments)
    if origin is typing.Literal:
        return _choice_decoder(arguments, _refused)
    return _class_decoder(origin, arguments) if isinstance(origin, type) else unchanged


def _class_decoder(kind: type[Any], arguments: tuple[Any, ...]) -> Decode:
    """Return what makes instances of a class, with these types for its type variables."""
    if is_of_pydantic(kind):
        return _model_decoder(kind, arguments)
    if issubclass(kind, enum.Enum):
        return _enum_decoder(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass_decoder(kind, arguments)
    if is_typed_dict(kind):
        return _typed_dict_decoder(kind, arguments)
    if issubclass(kind, tuple) and kind is not tuple:
        return _named_tuple_decoder(kind, arguments)
    if issubclass(kind, UUID):
        return lambda value: kind(an(str, value))
    if issubclass(kind, _AS_ISO):
        return kind.fromisoformat
    if kind is timedelta:
        return lambda value: timedelta(seconds=value)
    if kind is Decimal:
        return _decimal
    return items_decoder(kind, arguments, decoder)


def _model_decoder(kind: type[Any], arguments: tuple[Any, ...]) -> Decode:
    decode = model_decoder(kind[arguments] if arguments else kind)
    others = types_unknown_to_pydantic(kind)

    def decode_all(value: Any) -> Any:
        made = decode(value)
        for name, hint in others.items():
            object.__setattr__(made, name, decoder(hint)(getattr(made, name)))
        return made

    return decode_all if others else decode


def _decimal(value: Any) -> Decimal:
    """Make a Decimal of its text, `str(value)`, or of a JSON number."""
    return Decimal(value if isinstance(value, str) else repr(value))


def _later(annotation: Callable[[], Any]) -> Decode:
    """Read a type when a value comes: it may name itself."""

    def decode(value: Any) -> Any:
        return decoder(annotation())(value)

    return decode


def _alias_decoder(alias: Any) -> Decode:
    """Read what `type Tree = list[Tree] | Page` names; inside itself, when it is met."""
    in_hand = _aliases_in_hand.get()
    if alias in in_hand:
        return _later(lambda: alias)
    before = _aliases_in_hand.set(in_hand | {alias})
    try:
        return decoder(alias.__value__)
    finally:
        _aliases_in_hand.reset(before)


_aliases_in_hand: ContextVar[frozenset[Any]] = ContextVar("perdure aliases", default=frozenset())


def _union_decoder(annotations: Sequence[Any]) -> Decode:
    makers = [decoder(annotation) for annotation in annotations]
    members = [
        UnionMember(annotation, None if make is unchanged or _is_of_plain(annotation) else make)
        for annotation, make in zip(annotations, makers, strict=True)
    ]
    if all(make is unchanged for make in makers):
        return unchanged
    return union_decoder(members, _is_written_as)


def _is_of_plain(annotation: Any) -> bool:
    """Tell whether this is a Literal of text and numbers, which are read as they are stored."""
    literal = bare(annotation)
    return typing.get_origin(literal) is typing.Literal and all(
        type(each) in _PLAIN for each in typing.get_args(literal)
    )


def _enum_decoder(kind: type[enum.Enum]) -> Decode:
    """Find a member by the form in which it is written; most are found by their values."""
    if all(isinstance(member.value, _PLAIN) for member in kind):
        return kind
    return _choice_decoder(kind, kind)


def _choice_decoder(members: Iterable[Any], otherwise: Decode) -> Decode:
    known = [(to_json(member), member) for member in members]

    def decode(value: Any) -> Any:
        for written, member in known:
            if written == value and isinstance(written, bool) is isinstance(value, bool):
                return member
        return otherwise(value)

    return decode


def _refused(value: Any) -> Any:
    raise ValueError(f"{value!r} is not one of the Literal's values")


def _is_written_as(stored: Any, made: Any) -> bool:
    """Tell whether a value is written like this; a smaller type would lose the rest."""
    try:
        return bool(as_stored(to_json(made)) == stored)
    except ValueError:
        return False


class _Fields(dict[str, Decode]):
    """What makes the fields of a class, found out when a value comes.

    A class may contain itself.
    """

    def __init__(self, kind: type, arguments: tuple[Any, ...]):
        super().__init__()
        self._types = types_of(kind, arguments)

    def __missing__(self, name: str) -> Decode:
        """Find out what makes a field; a field that the class does not know is dropped."""
        if name not in self._types:
            return unchanged
        made = self[name] = decoder(self._types[name])
        return made


def _named_tuple_decoder(kind: type[Any], arguments: tuple[Any, ...]) -> Decode:
    """Make the named tuple that a list was."""
    fields = _Fields(kind, arguments)
    names = getattr(kind, "_fields", ())

    def decode(value: Any) -> Any:
        items = zip(names, an(list, value), strict=False)
        return kind(*(fields[name](item) for name, item in items))

    return decode if names else unchanged


def _dataclass_decoder(kind: Any, arguments: tuple[Any, ...]) -> Decode:
    fields = _Fields(kind, arguments)

    def decode(value: Any) -> Any:
        given, construction = an(dict, value), construction_of(kind)
        if missing := construction.needed - given.keys():  # before its parts are made
            raise TypeError(f"{kind.__name__} lacks {', '.join(sorted(missing))}")
        names = (name for name in construction.names if name in given)
        return make(kind, {name: fields[name](given[name]) for name in names})

    return decode


def _typed_dict_decoder(kind: type, arguments: tuple[Any, ...]) -> Decode:
    fields = _Fields(kind, arguments)
    return lambda value: {key: fields[key](item) for key, item in an(dict, value).items()}
