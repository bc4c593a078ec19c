"""Typed values on the wire: pydantic models, dataclasses, TypedDicts, enums, dates and UUIDs become
JSON, and come back by annotation. What has no such annotation is handed on as it is stored."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import logging
import sys
import types
import typing
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from functools import lru_cache, partial
from typing import Any
from uuid import UUID

from .errors import ValueTooDeep
from .typed_models import is_model, is_pydantic_dataclass, model_decoder, model_json
from .typed_schemas import found_at, places_of, put
from .typed_unions import Member, union_decoder

if sys.version_info >= (3, 13):
    from typing import TypeVar
else:
    from typing_extensions import TypeVar

logger = logging.getLogger("perdure.types")

Result = TypeVar("Result", default=Any)
Result_co = TypeVar("Result_co", covariant=True, default=Any)
"""What comes of work in the end: any type, where only a name is known of it, or nothing is said."""

Decode = Callable[[Any], Any]

NOTHING: Mapping[Any, Any] = types.MappingProxyType({})

_PLAIN = (str, int, float, bool, type(None))
_AS_ISO = (datetime, date, time)
_DICTS = (dict, defaultdict, OrderedDict, Counter)
_BEGINNINGS = {kind: kind for kind in (list, dict, set, str, int, float, bool)}
"""What a defaultdict begins a value with, by the annotation of its values."""


def is_typed_dict(thing: object) -> bool:
    """Tell whether a type is a TypedDict, of `typing` or of `typing_extensions`."""
    return isinstance(thing, type) and issubclass(thing, dict) and hasattr(thing, "__total__")


def to_json(value: Any) -> Any:
    """Turn a typed value into lists, dicts, text and numbers; leave unknown types as they are.

    Raises InvalidValue where a model cannot be written, and ValueTooDeep.
    """
    try:
        return _json(value)
    except RecursionError:
        raise ValueTooDeep(
            "the value is nested too deeply",
            detail="It holds itself, or goes deeper than Python can follow.",
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
    if is_model(type(value)):
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
    written = {each.name: _json(getattr(value, each.name)) for each in dataclasses.fields(value)}
    kind: Any = type(value)
    places = places_of(kind)
    if not places:
        return written
    made: dict[str, Any] = {}
    for name, item in written.items():
        known = places.get(name, ((name,),))
        put(made, (name,) if (name,) in known else known[0], item)
    return made


def unchanged(value: Any) -> Any:
    """Hand a stored value on as it is."""
    return value


def decoder(annotation: Any) -> Decode:
    """Give the function that makes a stored value of the annotated type.

    `decoder(list[Page])(stored)`; an annotation that says nothing gives `unchanged`.
    """
    if isinstance(annotation, type):
        return _decoder(annotation, None)
    if _is_alias(annotation):
        return _alias_decoder(annotation)
    known = _ordered(annotation)
    try:
        hash(known)
    except TypeError:  # as of Annotated[Page, {"a": "note"}]
        return _made_decoder(annotation)
    return _decoder(annotation, known)


def _ordered(annotation: Any) -> Any:
    """Tell `A | B` from `B | A`, at every level: they are equal, and mean different things here."""
    parts = typing.get_args(annotation)
    return (typing.get_origin(annotation), *map(_ordered, parts)) if parts else annotation


@lru_cache(maxsize=1024)
def _decoder(annotation: Any, known: Any) -> Decode:  # noqa: ARG001 - it is what is remembered
    return _made_decoder(annotation)


def _made_decoder(annotation: Any) -> Decode:
    if is_model(annotation):
        return model_decoder(annotation)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _enum_decoder(annotation)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return _dataclass_decoder(annotation)
    if is_typed_dict(annotation):
        return _typed_dict_decoder(annotation)
    if isinstance(annotation, type) and issubclass(annotation, tuple):
        return _named_tuple_decoder(annotation)
    if isinstance(annotation, type) and issubclass(annotation, UUID):
        return lambda value: annotation(_an(str, value))
    if isinstance(annotation, type) and issubclass(annotation, _AS_ISO):
        return annotation.fromisoformat
    if annotation is timedelta:
        return lambda value: timedelta(seconds=value)
    if isinstance(annotation, typing.NewType):
        return decoder(annotation.__supertype__)
    return _generic_decoder(typing.get_origin(annotation), typing.get_args(annotation))


def _generic_decoder(origin: Any, arguments: tuple[Any, ...]) -> Decode:
    if _is_alias(origin):
        return _later(lambda: origin.__value__[arguments])
    if origin in (typing.Annotated, typing.Required, typing.NotRequired):
        return decoder(arguments[0])
    if origin is typing.Union or origin is types.UnionType:
        return _union_decoder(arguments)
    if dataclasses.is_dataclass(origin) and isinstance(origin, type):
        known = dict(zip(_variables(origin), arguments, strict=False))
        return _dataclass_decoder(origin, known)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping_decoder(origin, arguments)
    if origin is tuple:
        return _tuple_decoder(arguments)
    if origin is list or (isinstance(origin, type) and issubclass(origin, Iterable)):
        item = decoder(arguments[0])
        if item is not unchanged:
            return lambda value: [item(each) for each in _an(list, value)]
    return unchanged


def _an(kind: type, value: Any) -> Any:
    """Refuse to make of a text what is made of a list. Raises TypeError."""
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} was stored, not a {kind.__name__}")
    return value


def _later(annotation: Callable[[], Any]) -> Decode:
    """Read a type when a value comes: it may name itself."""

    def decode(value: Any) -> Any:
        return decoder(annotation())(value)

    return decode


def _is_alias(annotation: Any) -> bool:
    return type(annotation).__name__ == "TypeAliasType"  # of typing_extensions before Python 3.12


def _alias_decoder(alias: Any) -> Decode:
    """Read what `type Tree = list[Tree] | Page` names; within itself, when it is met."""
    if alias in _aliases_in_hand:
        return _later(lambda: alias)
    _aliases_in_hand.add(alias)
    try:
        return decoder(alias.__value__)
    finally:
        _aliases_in_hand.discard(alias)


_aliases_in_hand: set[Any] = set()


def _union_decoder(annotations: Sequence[Any]) -> Decode:
    makers = [decoder(annotation) for annotation in annotations]
    members = [
        Member(annotation, None if make is unchanged else make)
        for annotation, make in zip(annotations, makers, strict=True)
    ]
    if all(member.make is None for member in members):
        return unchanged
    return union_decoder(members, _is_written_as)


def _mapping_decoder(kind: type[Any], arguments: tuple[Any, ...]) -> Decode:
    """Make the values of a dict, and of other kinds of it that kind, as far as JSON tells."""
    item = decoder(arguments[-1]) if len(arguments) > 1 else unchanged  # Counter[str]
    make: Decode = kind if kind in _DICTS else dict
    if make is dict and item is unchanged:
        return unchanged
    if kind is defaultdict:
        make = partial(
            defaultdict, _BEGINNINGS.get(typing.get_origin(arguments[-1]) or arguments[-1])
        )
    return lambda value: make({key: item(each) for key, each in _an(dict, value).items()})


def _enum_decoder(kind: type[enum.Enum]) -> Decode:
    """Find a member by what it is written as; most are by their values."""
    if all(isinstance(member.value, _PLAIN) for member in kind):
        return kind
    known = [(to_json(member), member) for member in kind]

    def decode(value: Any) -> Any:
        for written, member in known:
            if written == value:
                return member
        return kind(value)

    return decode


def _is_written_as(stored: Any, made: Any) -> bool:
    """Tell whether a value is written so: one that knows less of it would lose the rest."""
    try:
        return bool(to_json(made) == stored)
    except ValueError:
        return False


def _tuple_decoder(arguments: tuple[Any, ...]) -> Decode:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        item = decoder(arguments[0])
        return lambda value: tuple(item(each) for each in _an(list, value))
    items = [decoder(argument) for argument in arguments]
    return lambda value: tuple(
        item(each) for item, each in zip(items, _an(list, value), strict=True)
    )


def _named_tuple_decoder(kind: type[tuple[Any, ...]]) -> Decode:
    """Make the tuple with names that a list was; a plain `tuple` says nothing of its items."""
    hints = _hints(kind)
    items = [decoder(hints.get(name)) for name in getattr(kind, "_fields", ())]
    if not items:
        return unchanged
    return lambda value: kind(
        *(item(each) for item, each in zip(items, _an(list, value), strict=False))
    )


def _dataclass_decoder(kind: type, known: Mapping[Any, Any] = NOTHING) -> Decode:
    fields = {name: _filled(hint, known) for name, hint in _hints(kind).items()}
    names = {field.name for field in dataclasses.fields(kind) if field.init}
    if is_pydantic_dataclass(kind):
        return _aliased_decoder(kind, fields, names)

    def decode(value: Any) -> Any:
        given = _an(dict, value)
        known = {name: decoder(fields.get(name))(given[name]) for name in names if name in given}
        return kind(**known)

    return decode


def _aliased_decoder(kind: type, fields: Mapping[str, Any], names: Iterable[str]) -> Decode:
    """Make a dataclass of pydantic, of what stands where it reads, else by the fields' names."""

    def decode(value: Any) -> Any:
        given = _an(dict, value)
        known: dict[str, Any] = {}
        for name in names:
            places = places_of(kind).get(name, ((name,),))
            for found in found_at(given, (*places, (name,))):
                put(known, places[0], decoder(fields.get(name))(found))
        return kind(**known)

    return decode


def _variables(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__parameters__", ())


def _filled(hint: Any, known: Mapping[Any, Any]) -> Any:
    """Put types in the place of the type variables of `Box[Page]`."""
    variables = () if isinstance(hint, type) else _variables(hint)
    if not known or not variables:
        return known.get(hint, hint) if isinstance(hint, typing.TypeVar) else hint
    return hint[tuple(known.get(each, each) for each in variables)]


def _typed_dict_decoder(kind: type) -> Decode:
    fields = _hints(kind)

    def decode(value: Any) -> Any:
        return {key: decoder(fields.get(key))(item) for key, item in _an(dict, value).items()}

    return decode


def _hints(thing: Any, unread: Sequence[str] = ()) -> dict[str, Any]:
    """Read the annotations of a function or class, but for those that nobody reads here."""
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except (NameError, TypeError, AttributeError):  # imported for the type checker only
        return {
            name: _hint(owner, name, annotation)
            for owner in reversed(getattr(thing, "__mro__", (thing,)))
            for name, annotation in inspect.get_annotations(owner).items()
            if name not in unread
        }


def _hint(owner: Any, name: str, annotation: Any) -> Any:
    """Read one annotation, if it can be read: others beside it may be of no use here."""
    module = sys.modules.get(owner.__module__)
    inside = getattr(inspect.unwrap(owner), "__globals__", None) or getattr(module, "__dict__", {})
    alone = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(alone, inside, include_extras=True)["it"]
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        logger.warning(
            "the annotation %s of %r in %s cannot be read, so values come there as JSON gives"
            " them: %s; import its names at run time, at the top of the module",
            annotation,
            name,
            getattr(owner, "__qualname__", owner),
            error,
        )
        return annotation


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """How a function's arguments and its result pass the wire."""

    name: str
    signature: inspect.Signature
    skip: int
    result: Decode
    positional: tuple[Decode, ...]
    rest: Decode
    named: Mapping[str, Decode]
    others: Decode
    is_plain: bool
    fitting: range

    def arguments(self, args: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give stored args (array: positional, object: keyword, null: none) for a call."""
        if isinstance(args, list) and self.is_plain:
            return tuple(args), {}
        if args is None:
            return (), {}
        if isinstance(args, dict):
            get = self.named.get
            return (), {name: get(name, self.others)(value) for name, value in args.items()}
        if not isinstance(args, list):
            return (args,), {}
        known = self.positional
        return tuple(
            (known[place] if place < len(known) else self.rest)(value)
            for place, value in enumerate(args)
        ), {}

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Give a call's arguments as JSON; a wrong call fails where it is made.

        An array where all are positional, else an object. Raises TypeError.
        """
        if not kwargs and len(args) in self.fitting:
            return to_json(args)
        try:
            bound = self.signature.bind(*(None,) * self.skip, *args, **kwargs)
        except TypeError as error:
            leading = ", not counting the first, which it is given" if self.skip else ""
            raise TypeError(f"{self.name}{self.signature}{leading}: {error}") from None
        if not kwargs:
            return to_json(args)
        named: dict[str, Any] = {}
        for place, (name, value) in enumerate(bound.arguments.items()):
            parameter = self.signature.parameters[name]
            is_rest = parameter.kind is parameter.VAR_POSITIONAL
            if place < self.skip and not (is_rest and len(value) > self.skip):
                continue
            if parameter.kind is parameter.VAR_KEYWORD:
                named |= value
            elif is_rest or parameter.kind is parameter.POSITIONAL_ONLY:
                raise TypeError(f"{name} is positional: give keyword arguments or it, not both")
            else:
                named[name] = value
        return to_json(named)


def bind_unknown(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Give the arguments of a function that is only named, as JSON. Raises TypeError."""
    if args and kwargs:
        raise TypeError("a function given by name takes positional or keyword arguments, not both")
    return to_json(kwargs or args)


def shape_of(function: Callable[..., Any], skip: int = 0) -> Shape:
    """Read a function's annotations; `skip` leading parameters (the memory) are not on the wire."""
    signature = inspect.signature(function)
    hints = _hints(function, list(signature.parameters)[:skip])
    positional: list[Decode] = []
    named: dict[str, Decode] = {}
    rest: Decode = unchanged
    others: Decode = unchanged
    for parameter in list(signature.parameters.values())[skip:]:
        decode = decoder(hints.get(parameter.name))
        if parameter.kind is parameter.VAR_POSITIONAL:
            rest = decode
        elif parameter.kind is parameter.VAR_KEYWORD:
            others = decode
        else:
            named[parameter.name] = decode
            if parameter.kind is not parameter.KEYWORD_ONLY:
                positional.append(decode)
    result = decoder(hints.get("return"))
    is_plain = all(decode is unchanged for decode in (*positional, rest))
    fitting = _fitting(list(signature.parameters.values())[skip:])
    name = getattr(function, "__name__", repr(function))
    return Shape(
        name, signature, skip, result, tuple(positional), rest, named, others, is_plain, fitting
    )


def _fitting(parameters: list[inspect.Parameter]) -> range:
    """Tell how many positional arguments fit by their number alone; none where more is needed."""
    if any(one.kind is not one.POSITIONAL_OR_KEYWORD for one in parameters):
        return range(0)
    needed = sum(one.default is one.empty for one in parameters)
    return range(needed, len(parameters) + 1)
