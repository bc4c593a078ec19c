"""A veil: a codec that hides nothing from these tests, but accepts a value only at its place.

Tests that compare runs can read its values anywhere. The package gets a value back only for the
place, key and salt with which it was sealed.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

from perdure.values.envelopes import SEALED, envelope_of


class Veil:
    """A codec: `App(codec=Veil())`."""

    memory = ("veiled",)

    def encode(self, plain: bytes, place: bytes, salt: bytes) -> tuple[str, bytes]:
        """Write the plain value with its place."""
        parts = [b64encode(part).decode() for part in (plain, place, salt)]
        return "veil", json.dumps(parts).encode()

    def decode(self, key: str, sealed: bytes, place: bytes) -> bytes:
        """Return the value that was sealed for this place. Raises ValueError."""
        plain, known, _ = (b64decode(part) for part in json.loads(sealed))
        if (key, known) != ("veil", place):
            raise ValueError(f"sealed for {known!r}, not for {place!r}")
        return plain

    def digest(self, key: str, data: bytes) -> bytes:
        """Return the hash that is used without a codec, because it is part of names, which are
        compared."""
        return bytes.fromhex(data.decode().rpartition("\0")[2])


def unveiled(value: Any) -> Any:
    """Return a value as it would be without a veil."""
    if isinstance(value, str):
        envelope = envelope_of(value)
        return value if envelope is None else _inside(envelope.data)
    if isinstance(value, list):
        sealed = envelope_of(value[0]) if len(value) == 1 else None
        args = None if sealed is None else _inside(sealed.data)
        return args if isinstance(args, list | dict) else [unveiled(part) for part in value]
    if isinstance(value, dict) and envelope_of(value.get(SEALED)) is not None:
        return {key: part for key, part in value.items() if key != SEALED} | unveiled(value[SEALED])
    if isinstance(value, dict):
        return {key: unveiled(part) for key, part in value.items()}
    return value


def _inside(data: bytes) -> Any:
    return json.loads(b64decode(json.loads(data)[0]))
