"""Resealing: encrypting a memory again, with a new key or with other fields."""

from __future__ import annotations

import uuid
from typing import Any

from perdure.basics.paths import write_path
from perdure.database.calls import Calls
from perdure.errors import InvalidArgument, VersionConflict
from perdure.values.envelopes import envelope_of, leaves

from .polling import Steps

BATCH = 500
"""Number of fields that are written in one call."""


def steps(calls: Calls, job: str) -> Steps[int]:
    """Write every field again that the codec would encrypt differently now, and return how many.

    Others may write meanwhile.
    """
    if calls.codec is None:
        raise InvalidArgument("there is no codec to encrypt with", hint="connect(codec=…)")
    written = 0
    while True:
        version = (yield calls.status(job))[4]
        if version == 0:
            return written
        now = calls.memory_at(job, version, None, "")
        commands = _commands(calls, (yield now.as_it_is()), (yield now))
        if not commands:
            return written
        options = {"expected_version": version, "key": uuid.uuid4().hex}
        try:
            yield calls.apply(job, commands, options)
        except VersionConflict:
            continue
        written += len(commands)


def _commands(calls: Calls, sealed: Any, document: Any) -> list[dict[str, Any]]:
    assert calls.codec is not None
    current, _ = calls.codec.encode(b"", b"", b"")
    pairs = zip(leaves(sealed, []), _opened(sealed, document), strict=True)
    commands = [
        {"op": "set", "path": write_path(path), "value": value}
        for (path, raw), value in pairs
        if _is_due(calls, current, path, raw)
    ]
    return commands[:BATCH]


def _opened(sealed: Any, document: Any) -> Any:
    """Return the leaves of an encrypted document in their order, decrypted."""
    if isinstance(sealed, dict):
        for key, part in sealed.items():
            yield from _opened(part, document[key])
    elif isinstance(sealed, list):
        for part, opened in zip(sealed, document, strict=True):
            yield from _opened(part, opened)
    else:
        yield document


def _is_due(calls: Calls, current: str, path: list[str], raw: Any) -> bool:
    envelope = envelope_of(raw)
    if envelope is not None:
        return envelope.key != current
    return raw is not None and calls.fields.has(path)
