"""Envelopes: the form of an encrypted value, which is text like any other to the database.

`$c1:key:base64`: since it is text, an encrypted leaf of a memory behaves as a scalar under every
command and contract. JSON is searched for the mark as bytes before anything looks into it; without
a mark and a codec, nothing else is spent.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg.adapt import AdaptersMap, Loader

from perdure.errors import InvalidValue, ValueSealed

MARK = b'"$c1:'
SEALED = "sealed"
"""The field of a failure that contains its encrypted part, beside the message."""

MAIN = "main"
"""The name of a coordinator among the tasks of its job."""

_START = "$c1:"
_HEAD = re.compile(r"\$c1:([A-Za-z0-9._-]{1,40}):")
_MIN_BYTES = 12
_RUN = re.compile(r"\d+/")


class Envelope(NamedTuple):
    """An encrypted value: the id of its key, and the rest."""

    key: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """What a value is, and to whom it belongs. It can be decrypted nowhere else."""

    kind: str
    job: str
    name: Any

    def to_bytes(self) -> bytes:
        """Write it as what the codec binds a value to."""
        return json.dumps(["perdure", 1, self.kind, self.job, self.name]).encode()


def request_place(task: str, key: str | None = None) -> str:
    """Name a request (or a task, if there is no key) without the run, as forks keep it."""
    named = task if key is None else f"{task}/{key}"
    return _RUN.sub("", named, count=1) if _RUN.match(named) else named


def field_place(path: list[str]) -> list[str]:
    """Name a field of a memory by its keys, without indexes of arrays, whose elements move."""
    return [key for key in path if not key.lstrip("+-").isdecimal()]


def written(key: str, data: bytes) -> str:
    """Write an envelope. Raises InvalidValue if it could not be recognized again."""
    head = f"{_START}{key}:"
    if _HEAD.fullmatch(head) is None or len(data) < _MIN_BYTES:
        raise InvalidValue(
            f"the codec returned {len(data)} bytes for the key {key!r}, which is not valid"[:500],
            hint="encode() must return the id of a key (1 to 40 letters, digits and . _ -) and at"
            f" least {_MIN_BYTES} bytes.",
        )
    return f"{head}{b64encode(data).decode()}"


def envelope_of(value: Any) -> Envelope | None:
    """Read an envelope; return None if the value is not one."""
    if not (isinstance(value, str) and value.startswith(_START)):
        return None
    head = _HEAD.match(value)
    if head is None:
        return None
    try:
        data = b64decode(value[head.end() :], validate=True)
    except ValueError:
        return None
    return Envelope(head[1], data) if len(data) >= _MIN_BYTES else None


def leaves(value: Any, path: list[str]) -> Iterator[tuple[list[str], Any]]:
    """Yield the scalars of a document, each with its path."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, [*path, key])
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from leaves(part, [*path, str(place)])
    else:
        yield path, value


def no_codec() -> ValueSealed:
    """Return the error that a value is encrypted and there is no codec."""
    return ValueSealed(
        "a value is encrypted, and there is no codec here",
        detail="It was written by a process with a codec.",
        hint="Give that codec: App(codec=…) for workers and replays, connect(codec=…) for clients.",
    )


def no_key(key: str) -> ValueSealed:
    """Return the error that a value is encrypted with a key that the codec does not know."""
    return ValueSealed(
        f"a value is encrypted with the key {key!r}, which this codec does not know",
        detail="Nothing was lost: the value is unchanged.",
        hint="Add the key to the codec; it need not be the current key.",
    )


def codec_failed(error: Exception) -> ValueSealed:
    """Return the error that the codec has raised something that no codec should."""
    return ValueSealed(
        f"the codec has failed: {type(error).__name__}",  # its text may quote the value
        detail="Nothing was lost: encrypted values are unchanged.",
        hint="decode() must raise LookupError for an unknown key and ValueError for a value"
        " that it cannot open, digest() must return at least 8 bytes, encode() must not raise.",
    )


class Marked:
    """JSON that may contain an envelope, so that nobody uses it as a value by accident."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value


def unmarked(cell: Any) -> Any:
    """Return a cell of an answer as it is in the database."""
    return cell.value if cell.__class__ is Marked else cell


class _Json(Loader):
    """Reads JSON as psycopg does, and marks what may contain an envelope."""

    def load(self, data: Any) -> Any:
        data = bytes(data)
        value = json.loads(data)
        return Marked(value) if MARK in data else value


def mark_envelopes(adapters: AdaptersMap) -> None:
    """Let cursors of these adapters mark what they read."""
    adapters.register_loader("json", _Json)
    adapters.register_loader("jsonb", _Json)
