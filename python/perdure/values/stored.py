"""Stored values: give a Python value the form that PostgreSQL's JSONB returns.

Code sees every answer in this form, the first time too: a result that was computed a moment ago
equals the same result read from the journal years later, down to the order of the keys. What JSONB
cannot return is refused here, with the place in the value.

Pure: no I/O, no clock, no database.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine
from decimal import Decimal
from typing import Any

from perdure.errors import InvalidValue, NumberOutOfRange, PerdureError, ValueTooDeep

from .unawaited import Unawaited, given_up

MAX_LEVELS = 100
"""How deeply values may be nested; the SQL functions have the same limit."""

MAX_NUMBER = 10**308
"""The largest absolute value that every language can read, as in the SQL functions."""

_PLACE_SHOWN = 20
_FLOATS_WITH_EXPONENT = 1e16


def as_stored(value: Any) -> Any:
    """Return the value as JSONB returns it: `as_stored({"bb": 1e16, "a": (1,)})`.

    Keys become text, sorted by length in UTF-8 and then by bytes; of equal keys the last wins.
    Tuples become lists. Floats written with an exponent become integers or lose it, -0.0 its sign.
    The result shares nothing with the value. Raises InvalidValue (PD103), ValueTooDeep (PD302) or
    NumberOutOfRange (PD304).
    """
    try:
        return _stored(value, 0)
    except PerdureError as error:
        error.detail = _sentence(_place(value, 0))
        raise


def _stored(value: Any, level: int) -> Any:
    convert = _CONVERSIONS.get(type(value)) or _conversion_of_subclass(value)
    return convert(value, level)


def _conversion_of_subclass(value: Any) -> Callable[[Any, int], Any]:
    for kind, convert in _CONVERSIONS.items():
        if isinstance(value, kind):
            return convert
    check_awaited(value)
    raise InvalidValue(
        f"a value of type {type(value).__name__} cannot be stored as JSON", hint=_instead_of(value)
    )


def check_awaited(value: Any) -> None:
    """Refuse an awaitable in the place of its answer. Raises InvalidValue."""
    if isinstance(value, Awaitable):
        raise InvalidValue(
            f"{_named(value)} was not awaited",
            hint="Did you forget `await`? Its answer can be stored.",
        )


def _named(value: Any) -> str:
    """Name an awaitable without its address, which differs at each replay."""
    if isinstance(value, Unawaited):
        return given_up(value)
    if isinstance(value, Coroutine):
        return f"the coroutine {getattr(value, '__qualname__', type(value).__name__)}"
    return f"a value of type {type(value).__name__}"


def _instead_of(value: Any) -> str:
    for kind, hint in _INSTEAD.items():
        if isinstance(value, kind):
            return hint
    return "make it text, a number, a list or a dict first"


_INSTEAD: dict[type[Any] | tuple[type[Any], ...], str] = {
    Decimal: "store str(value), which is exact, and read it with Decimal(text)",
    (bytes, bytearray, memoryview): "make it text: base64.b64encode(value).decode()",
    (set, frozenset): "make it a list: sorted(value)",
}


def _same(value: Any, _: int) -> Any:
    return value


def _text(value: str, _: int) -> str:
    if not value.isascii():
        _check_unicode(value)
    if "\0" in value:
        raise InvalidValue("PostgreSQL's JSON has no NUL character", hint="remove it")
    return value if type(value) is str else str.__str__(value)


def _check_unicode(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidValue(
            "half a surrogate pair is not a character", hint="decode the text with errors='replace'"
        ) from error


def _integer(value: int, _: int) -> int:
    if not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise NumberOutOfRange("the number is out of range", hint="store it as text")
    return value if type(value) is int else int(value)


def _float(value: float, _: int) -> float | int:
    if -_FLOATS_WITH_EXPONENT < value < _FLOATS_WITH_EXPONENT:
        return float(value) + 0.0  # numeric has no -0.0
    if value - value != 0.0:
        raise InvalidValue("JSON has no NaN and no infinity", hint="store None or text instead")
    # JSON has the shortest digits of the float; numeric writes them out, not the float's own.
    return _integer(int(Decimal(float.__repr__(value))), 0)


def _array(value: list[Any] | tuple[Any, ...], level: int) -> list[Any]:
    if value:
        level = _deeper(level)
    return [_stored(one, level) for one in value]


def _object(value: dict[Any, Any], level: int) -> dict[str, Any]:
    if not value:
        return {}
    level = _deeper(level)
    ascii_only = True
    for key in value:
        if type(key) is not str:
            return _object(_with_text_keys(value), level - 1)
        if not key.isascii():
            ascii_only = False
            _check_unicode(key)
        if "\0" in key:
            raise InvalidValue("PostgreSQL's JSON has no NUL character", hint="remove it")
    keys = sorted(value)  # code points sort as UTF-8 bytes do
    keys.sort(key=len if ascii_only else _size)
    return {key: _stored(value[key], level) for key in keys}


def _deeper(level: int) -> int:
    if level >= MAX_LEVELS:
        raise ValueTooDeep("the value is nested too deeply", hint="flatten it, or store it as text")
    return level + 1


def _size(text: str) -> int:
    return len(text.encode())


def _with_text_keys(value: dict[Any, Any]) -> dict[str, Any]:
    """Make text of keys as json.dumps does. Raises InvalidValue if two become equal."""
    texts = {_key(key): one for key, one in value.items()}
    if len(texts) < len(value):
        raise InvalidValue("two keys of a dict are the same JSON text", hint="rename one of them")
    return texts


def _key(key: Any) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or key is True or key is False:
        return json.dumps(key)
    if isinstance(key, int):
        return int.__repr__(_integer(key, 0))
    if isinstance(key, float):
        _float(key, 0)
        return float.__repr__(key)
    raise InvalidValue(
        f"a key of type {type(key).__name__} cannot be stored as JSON",
        hint="convert it to text first",
    )


_CONVERSIONS: dict[type, Callable[[Any, int], Any]] = {
    str: _text,
    type(None): _same,
    bool: _same,
    int: _integer,
    float: _float,
    dict: _object,
    list: _array,
    tuple: _array,
}


def _place(value: Any, level: int) -> list[str]:
    """Find the way to the first part that is refused; empty if it is the value itself or a key."""
    for key, part in _parts(value) if level < MAX_LEVELS else ():
        try:
            _stored(part, level + 1)
        except PerdureError:
            return [key, *_place(part, level + 1)]
    return []


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        return [(str(place), part) for place, part in enumerate(value)]
    if not isinstance(value, dict):
        return []
    try:
        return list(_with_text_keys(value).items())
    except PerdureError:
        return []


def _sentence(place: list[str]) -> str:
    if not place:
        return "it is the whole value, or a key of it"
    way = ".".join(place[:_PLACE_SHOWN]) + ("…" if len(place) > _PLACE_SHOWN else "")
    return f"it stands at {way!a}"
