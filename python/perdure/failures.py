"""Failures: exceptions described as JSON, for the database and for whoever waits for the work.

A description has the text of the exception, where the user's code has raised it, and what it came
through. It can be stored whatever the exception is.
"""

from __future__ import annotations

import json
import re
import sysconfig
import traceback as tracebacks
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import dropwhile
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg

from perdure.errors import Failed, Failure, PerdureError

MAX_MESSAGE = 10_000
MAX_TRACEBACK = 20_000
MAX_FRAMES = 40
MAX_CAUSES = 4
MAX_MEMBERS = 10

OURS = f"{Path(__file__).parent}/"
"""Where this package is: frames of its own around those of the user tell nothing of a mistake."""

OF_OTHERS = tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "purelib", "platlib")})
"""Where Python and installed packages are."""

_FRAME = re.compile(r'^  File "(.+)", line (\d+), in ', re.MULTILINE)


def failure_of(error: BaseException, through: str | None = None) -> Failed:
    """Describe an exception as failure JSON: `{"type", "message", "traceback", ...}`.

    A Failure keeps the type and message of its origin. `through` ("activity search") is added to
    the list of the work it passed. Never raises: an error that cannot describe itself must not end
    the worker and all that it holds.
    """
    try:
        failure = _carried(error) or _described(error)
    except Exception:  # noqa: BLE001 - properties and comparisons of the user's
        name = storable(type(error).__name__, MAX_MESSAGE)
        failure = {"type": name, "message": f"<{name} without a readable description>"}
    way = failure.pop("through", [])
    way += [through] if through else []
    return failure | ({"through": way} if way else {})


def _carried(error: BaseException) -> Failed | None:
    """Return what a Failure carries; None for any other error, or if it is no JSON."""
    if not (isinstance(error, Failure) and error.failure):
        return None
    failure = dict(error.failure) | {"type": error.type, "message": error.message}
    try:
        failure["through"] = [*failure.get("through", ()), type(error).__name__]
        written = json.dumps(failure, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):  # half a surrogate pair fails here too
        return None
    return None if b"\\u0000" in written else failure


def _described(error: BaseException) -> Failed:
    message = str(error.message) if isinstance(error, PerdureError) else text_of(error)
    failure: Failed = {
        "type": storable(type(error).__name__, MAX_MESSAGE),
        "message": storable(message, MAX_MESSAGE),
        "traceback": storable(_traceback_of(error)[-MAX_TRACEBACK:], MAX_TRACEBACK),
    }
    if isinstance(error, PerdureError):
        failure["code"] = error.code
        extra = {"detail": error.detail, "hint": error.hint}
        failure |= {name: storable(str(text), MAX_MESSAGE) for name, text in extra.items() if text}
    if isinstance(error, BaseExceptionGroup):
        members = [failure_of(member) for member in error.exceptions[:MAX_MEMBERS]]
        told = "; ".join(f"{member['type']}: {member['message']}" for member in members)
        failure["message"] = storable(f"{message}: {told}", MAX_MESSAGE)
        failure["errors"] = [_brief(member) for member in members]
    return failure


def _brief(failure: Failed) -> Failed:
    return {name: failure[name] for name in ("type", "message", "code") if name in failure}


def _traceback_of(error: BaseException) -> str:
    """Write the tracebacks of an error and its causes, as Python does but without carets.

    To mark columns, Python parses the source, which is slow, and not thread-safe before Python
    3.12.
    """
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < MAX_CAUSES:
        frames = _frames_of(cause)
        last = f"{type(cause).__name__}: {text_of(cause)}\n"
        notes = [f"{note}\n" for note in getattr(cause, "__notes__", ())]
        lines = ["Traceback (most recent call last):\n", *frames.format(), last, *notes]
        parts.append("".join(lines))
        if cause.__cause__ is None and not cause.__suppress_context__:
            cause = cause.__context__
        else:
            cause = cause.__cause__
    return "\nThe error before led to this one:\n\n".join(reversed(parts))


def _frames_of(error: BaseException) -> tracebacks.StackSummary:
    """Return the frames of an error, from that of the user's function on.

    An error of this package ends where the user's code has called it, or begins the function whose
    result it refuses.
    """
    if isinstance(error, PerdureError) and error.returned_by is not None:
        code = error.returned_by
        place = (code.co_filename, code.co_firstlineno, code.co_name, None)
        return tracebacks.StackSummary.from_list([place])
    walked = list(tracebacks.walk_tb(error.__traceback__))
    theirs = list(dropwhile(_is_ours, walked))
    while isinstance(error, PerdureError) and theirs and _is_ours(theirs[-1]):
        theirs.pop()
    # Without any it was raised here, for instance because a function has ended its transaction.
    return tracebacks.StackSummary.extract(iter(theirs or walked), limit=-MAX_FRAMES)


def _is_ours(walked: tuple[FrameType, int]) -> bool:
    return walked[0].f_code.co_filename.startswith(OURS)


def place_of(failure: Mapping[str, Any]) -> str | None:
    """Return the last line of the user's code that a failure came through: `app/agent.py:12`.

    If only installed code is known, it is the last line of that.
    """
    _, _, last = str(failure.get("traceback") or "").rpartition("Traceback (most recent call last)")
    came_through = [each for each in _FRAME.findall(last) if not each[0].startswith(OURS)]
    return last_own(came_through)


def last_own(lines: Sequence[tuple[str, object]]) -> str | None:
    """Return the last of some lines (path, number) that is not in installed code, if possible."""
    own = [each for each in lines if not each[0].startswith(OF_OTHERS)] or lines
    if not own:
        return None
    path, line = own[-1]
    with suppress(OSError):  # the working directory may be gone
        path = path.removeprefix(f"{Path.cwd()}/")
    return f"{path}:{line}"


def text_of(error: BaseException) -> str:
    """Return the message of an exception, whatever it is."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return error.diag.message_primary
    try:
        return str(str(error))  # __str__ may return a subclass of str
    except BaseException:  # noqa: BLE001 - a broken __str__ must not hide that the work failed
        return f"<{type(error).__name__} without a readable message>"


def storable(text: str, limit: int) -> str:
    """Cut a text and replace what PostgreSQL's JSON cannot hold (NUL, lone surrogates)."""
    return text[:limit].replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
