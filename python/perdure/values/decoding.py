"""Stored values are read as the types that their readers name.

If one does not fit, the error says whose value it is; the error of the type itself does not know
that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.errors import ValueMistyped
from perdure.failures import text_of

SHOWN, TOLD = 200, 1000


def read_as(decode: Callable[[Any], Any], value: Any, name: str, kind: str = "") -> Any:
    """Return a stored value as its type: `read_as(Page, stored, "go", "signal")`.

    `kind` is that of the fact which brings it. Raises ValueMistyped.
    """
    try:
        return decode(value)
    except Exception as error:
        raise ValueMistyped(
            f"{_in_words(name, kind)} is not of the type that its reader names",
            detail=f"It is {value!r:.{SHOWN}}: {text_of(error)}"[:TOLD],
            hint="Give a type that fits, or catch this error (a ValueError) and ask again.",
        ) from error


def argument_as(decode: Callable[[Any], Any], value: Any, name: str, function: str) -> Any:
    """Return a stored argument as its type. Raises ValueMistyped.

    The caller is elsewhere, so the message says all that he will see of the error.
    """
    try:
        return decode(value)
    except Exception as error:
        raise ValueMistyped(
            f"argument {name} of {function}() is not of its type: {text_of(error)}"[:TOLD],
            detail=f"It is {value!r:.{SHOWN}}",
            hint="Give a fitting argument: in SQL, and by name, it is not checked before.",
        ) from error


def _in_words(name: str, kind: str) -> str:
    if kind == "signal":
        return f"the payload of signal {name}"
    if name.startswith("item:"):
        return f"the resolution of item {name.removeprefix('item:')}"
    return f"the result of {name}" if kind else name
