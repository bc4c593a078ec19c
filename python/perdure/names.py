"""Names: what the database would refuse as one, refused where it is written."""

from __future__ import annotations

import re
from uuid import UUID

from .errors import InvalidArgument, InvalidName

MAX_BYTES = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_name(name: object, what: str) -> None:
    """Refuse what is no name: `check_name(signal, "a signal")`. Raises InvalidName."""
    if not isinstance(name, str) or not name:
        raise InvalidName(
            f"{what} must have a name, not {name!r}"[:500],
            detail=f"A name is a text of 1 to {MAX_BYTES} bytes.",
            hint="Give it a name.",
        )
    size = len(name.encode("utf-8", "replace"))
    if size > MAX_BYTES or _CONTROL.search(name):
        raise InvalidName(
            f"{what} cannot have the name {name[:40]!r}",
            detail=f"It has {size} bytes; at most {MAX_BYTES} are allowed, no control characters.",
            hint="Choose a shorter name; put data into the arguments.",
        )


def check_queue(queue: object) -> None:
    """Refuse what is no name of a queue. Raises InvalidName."""
    check_name(queue, "a queue")
    if "@" in str(queue):
        raise InvalidName(
            f"a queue has no @ in its name: {queue!r}",
            detail="Behind an @ stands the version of the code that pinned tasks keep to.",
            hint="Use another character; a version is given as pinned_version, or to the worker.",
        )


def as_id(given: str | UUID) -> str:
    """Give an id as text. Raises InvalidArgument for what is neither text nor a UUID."""
    known: object = given
    if not isinstance(known, str | UUID):
        raise InvalidArgument(f"{given!r} is no id"[:500], hint="Give text, or a UUID.")
    return str(known)
