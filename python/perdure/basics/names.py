"""Names that the database would refuse are refused where they are written."""

from __future__ import annotations

import re
from uuid import UUID

from perdure.errors import InvalidArgument, InvalidName

MAX_BYTES = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_text(given: object) -> bool:
    """Tell whether this is a text that the database can store."""
    if not isinstance(given, str) or "\0" in given:
        return False
    try:
        return given.isascii() or bool(given.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def check_name(name: object, what: str) -> None:
    """Refuse what is not a name: `check_name(signal, "a signal")`. Raises InvalidName."""
    if not isinstance(name, str) or not name:
        raise InvalidName(
            f"{what} must have a name, not {name!r}"[:500],
            detail=f"A name is a text of 1 to {MAX_BYTES} bytes.",
            hint="Give it a name.",
        )
    size = len(name.encode("utf-8", "replace"))
    if size > MAX_BYTES or _CONTROL.search(name) or not is_text(name):
        other, detail = "printable", "It holds a control character, or half of a surrogate pair."
        if size > MAX_BYTES:
            other, detail = "shorter", f"It has {size} bytes; at most {MAX_BYTES} are allowed."
        raise InvalidName(
            f"{what} cannot have the name {name[:40]!r}",
            detail=detail,
            hint=f"Choose a {other} name; put data into the arguments.",
        )


def is_own(name: str) -> bool:
    """Tell whether a name is like those of perdure's own things: `$schedule`."""
    return name.startswith("$")


def check_own_name(name: object, what: str) -> None:
    """Refuse what is not a name, or is reserved for perdure. Raises InvalidName."""
    check_name(name, what)
    if is_own(str(name)):
        raise InvalidName(
            f"{what} cannot have the name {str(name)[:40]!r}: it is reserved for perdure",
            detail="Names of its own jobs, entities and functions begin with $, such as $schedule.",
            hint="Choose another name.",
        )


def check_queue(queue: object) -> None:
    """Refuse what is not the name of a queue. Raises InvalidName."""
    check_name(queue, "a queue")
    if "@" in str(queue):
        raise InvalidName(
            f"the name of a queue must not contain @: {queue!r}",
            detail="An @ separates a queue from the version of the code its tasks are pinned to.",
            hint="Use another character; give a version as pinned_version, or to the worker.",
        )


def as_id(given: str | UUID) -> str:
    """Return an id as text.

    Raises InvalidArgument for what is neither text nor a UUID, and InvalidName for text that the
    database cannot store.
    """
    known: object = given
    if not isinstance(known, str | UUID):
        raise InvalidArgument(f"{given!r} is not an id"[:500], hint="Give text, or a UUID.")
    return check_text(str(known))


def check_text(text: str) -> str:
    """Return a text of a request unchanged. Raises InvalidName if the database cannot store it."""
    if not isinstance(text, str):
        raise InvalidName(f"{text!r} is not a text"[:500], hint="Give str.")
    if not is_text(text):
        raise InvalidName(
            f"{text!r:.80} is not a text that the database can store",
            detail="A text must not have a NUL character or half of a surrogate pair.",
            hint="Replace such characters: text.encode(errors='replace').decode().",
        )
    return text
