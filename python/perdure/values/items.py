"""Lists, tuples, sets and dicts on the wire.

They are made of their items, and of the text that keys are in JSON, by the types that are named for
them.
"""

from __future__ import annotations

import enum
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from .hints import bare, unpacked
from .stored import as_stored

Decode = Callable[[Any], Any]

_ARRAYS: tuple[type[Any], ...] = (list, set, frozenset, deque)
_DICTS = (dict, defaultdict, OrderedDict, Counter)
_SAY_ENOUGH = frozenset({tuple, set, frozenset, deque, defaultdict, OrderedDict, Counter})
"""Types that say what a value is, even if they say nothing of its items."""

_BEGINNINGS: dict[Any, Any] = {kind: kind for kind in (list, dict, set, str, int, float, bool)}
"""What a defaultdict starts a value with, by the annotation of its values."""


def unchanged(value: Any) -> Any:
    """Pass a stored value on as it is."""
    return value


def an(kind: type, value: Any) -> Any:
    """Refuse to make a collection of a text. Raises TypeError."""
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} was stored, not a {kind.__name__}")
    return value


def items_decoder(
    kind: type[Any], arguments: Sequence[Any], decoder: Callable[[Any], Decode]
) -> Decode:
    """Return what makes a kind of list, tuple, set or dict, of items of these types."""
    if not arguments and kind not in _SAY_ENOUGH:
        return unchanged
    if issubclass(kind, Mapping):
        return _mapping_decoder(kind, arguments, decoder)
    if kind is tuple:
        return _tuple_decoder(arguments or (Any, ...), decoder)
    item = decoder(arguments[0]) if arguments else unchanged
    make = next((each for each in _ARRAYS if issubclass(each, kind)), list)
    if not issubclass(kind, Iterable) or (make is list and item is unchanged):
        return unchanged
    return lambda value: make([item(each) for each in an(list, value)])


def _tuple_decoder(arguments: Sequence[Any], decoder: Callable[[Any], Decode]) -> Decode:
    """Make a tuple; in `tuple[int, *tuple[Page, ...]]` one item stands for any number of them."""
    items = [*_unpacked(arguments)]
    place = items.index(Ellipsis) - 1 if Ellipsis in items else len(items)
    before, many, after = items[:place], items[place : place + 1], items[place + 2 :]
    first, middle, last = ([*map(decoder, part)] for part in (before, many, after))

    def decode(value: Any) -> Any:
        makers = first + middle * (len(an(list, value)) - len(first) - len(last)) + last
        return tuple(make(each) for make, each in zip(makers, value, strict=True))

    return decode


def _unpacked(arguments: Iterable[Any]) -> Iterator[Any]:
    for each in arguments:
        inner = unpacked(each)
        if inner is None:
            yield each
        else:  # nothing is known of a variable
            yield from _unpacked(typing.get_args(inner) or (Any, ...))


def _mapping_decoder(
    kind: type[Any], arguments: Sequence[Any], decoder: Callable[[Any], Decode]
) -> Decode:
    """Make the keys and values of a dict, and the mapping type that was named."""
    key = _key_decoder(arguments[0]) if arguments else unchanged
    item = decoder(arguments[-1]) if len(arguments) > 1 else unchanged  # Counter[str]
    make: Decode = kind if kind in _DICTS else dict
    if make is dict and item is unchanged and key is unchanged:
        return unchanged
    if kind is defaultdict:
        make = partial(defaultdict, _beginning(arguments))
    return lambda value: make({key(each): item(one) for each, one in an(dict, value).items()})


def _beginning(arguments: Sequence[Any]) -> Any:
    last = bare(arguments[-1]) if arguments else None
    return _BEGINNINGS.get(typing.get_origin(last) or last)


def _key_decoder(annotation: Any) -> Decode:
    """Make a key of its text: a number, a boolean, a member of an enum or of a Literal."""
    kind = bare(annotation)
    if kind is int or kind is float:
        return kind
    members: Iterable[Any] = ()
    if kind is bool:
        members = (True, False)
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        members = kind
    elif typing.get_origin(kind) is typing.Literal:
        members = typing.get_args(kind)
    known = {text: each for each in members for text in _texts(each)}
    return known.__getitem__ if known else unchanged


def _texts(member: Any) -> Iterable[str]:
    """Return the text of a key, or nothing if JSON has no such key."""
    key = member.value if isinstance(member, enum.Enum) else member
    return as_stored({key: None}) if isinstance(key, str | int | float | None) else ()
