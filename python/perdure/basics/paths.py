"""Paths: places in a memory, as people write them and as lists of keys."""

from __future__ import annotations

import re
from collections.abc import Sequence

from perdure.errors import InvalidPath
from perdure.failures import storable

from .names import is_text

Path = str | Sequence[str | int]
"""`"user.email"`, `"items.0"`, `"items.-1"`, `'"key.with.dots".x'`, or the keys: `["a.b", 0]`."""

MAX_KEYS = 50

_QUOTED = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^".]+))(?:\.(?!$)|$)', re.DOTALL)
_PLAIN_KEY = re.compile(r'[^".\\]+')
_IN_QUOTES = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_JSON_PATH = re.compile(r"\A\$(?:\Z|[.[])|\[(?:-?[0-9]+|\*)\](?:\Z|[.[])")


def parse_path(path: Path | None) -> list[str]:
    """Split a written path into its keys, by the rules of SQL's parse_path. Raises InvalidPath."""
    if path in (None, "", [], ()):
        return []
    if isinstance(path, str):
        _refuse_json_path(path)
        keys = _quoted_keys(path) if '"' in path else path.split(".")
        is_path = '"' in path or "" not in keys
    elif isinstance(path, list | tuple):
        keys = [str(key) for key in path]
        is_path = all(isinstance(key, str | int) for key in path)
    else:
        raise InvalidPath(
            f"this is not a path: {storable(str(path), 100)}",
            detail=f"A path is a str or a list of keys, not of type {type(path).__name__}.",
            hint="set(value, path) and merge(patch, path) take the path last, all others first.",
        )
    if not (is_path and 0 < len(keys) <= MAX_KEYS and all(map(is_text, keys))):
        raise InvalidPath(
            f"this is not a path: {storable(str(path), 100)}",
            detail=f"A path is at most {MAX_KEYS} keys with dots between them; a key with dots or"
            " quotes is written in double quotes. No key has a NUL or half of a surrogate pair.",
            hint='Write user.email, items.0, items.-1 or "key.with.dots".x.',
        )
    return keys


def _refuse_json_path(path: str) -> None:
    """Raise InvalidPath if a path begins with $ or has brackets, outside of keys in quotes."""
    if _JSON_PATH.search(_IN_QUOTES.sub("", path)):
        raise InvalidPath(
            f"this is a JSON path: {storable(path, 100)}",
            detail="A path is keys with dots between them, without $ and brackets.",
            hint="Write user.email for $.user.email, and items.0 for items[0]. Put a key that is"
            " written so in double quotes.",
        )


def _quoted_keys(path: str) -> list[str]:
    keys, place = [], 0
    while place < len(path):
        key = _QUOTED.match(path, place)
        if key is None:
            return []
        quoted, plain = key.groups()
        keys.append(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL) if plain is None else plain)
        place = key.end()
    return keys


def write_path(keys: Sequence[str]) -> str:
    """Write keys as a path that SQL reads."""
    return ".".join(
        key
        if _PLAIN_KEY.fullmatch(key) and not _JSON_PATH.search(key)
        else '"' + re.sub(r'(["\\])', r"\\\1", key) + '"'
        for key in keys
    )
