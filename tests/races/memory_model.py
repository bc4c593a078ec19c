"""A model of the memory in plain Python: what each command makes of a document.

It is written from the promises (C26-C35), not from the SQL. A document is never changed in place,
so the documents of all versions can be kept side by side.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MISSING: Any = object()


@dataclass(frozen=True)
class Command:
    """One command: where it works, what it is given, and the version that it expects."""

    op: str
    path: str = ""
    value: Any = None
    expected_version: int | None = None

    @property
    def keys(self) -> list[str]:
        """Split the path; these tests use no quoted keys."""
        return self.path.split(".") if self.path else []


class Refused(Exception):
    """The command does not fit the document; the code says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class State:
    """A document at a version."""

    context: Any
    version: int

    def after(self, command: Command) -> tuple[State, Any]:
        """Carry out a command; return the next state and the answer, or raise Refused."""
        if command.expected_version not in (None, self.version):
            raise Refused("PD105")
        check_way(self.context, command.keys)
        old = found(self.context, command.keys)
        wanted = WANTED.get(command.op)
        if wanted and (old is not MISSING or command.op == "remove") and not is_a(old, wanted):
            raise Refused("PD102")
        new, answer = CHANGES[command.op](old, command.value)
        if new is MISSING:
            context = without(self.context, command.keys)
        else:
            context = put(self.context, command.keys, new)
        version = self.version + 1
        return State(context, version), version if answer is MISSING else answer


WANTED: dict[str, type] = {
    "merge": dict,
    "append": list,
    "prepend": list,
    "remove": list,
    "increment": int,
    "toggle": bool,
}


def is_a(value: Any, wanted: type) -> bool:
    """Compare types as JSON has them: a boolean is no number."""
    return isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool)


def index_of(key: str, array: list[Any]) -> int | None:
    """Read a key as the place of an element that exists."""
    if not re.fullmatch(r"-?\d+", key) or not -len(array) <= int(key) < len(array):
        return None
    return int(key) % len(array)


def check_way(context: Any, keys: list[str]) -> None:
    """Refuse a path that leads through a scalar, or to an element that is not there."""
    here = context
    for key in keys:
        if isinstance(here, dict):
            here = here.get(key, MISSING)
        elif isinstance(here, list) and (place := index_of(key, here)) is not None:
            here = here[place]
        else:
            raise Refused("PD102")
        if here is MISSING:
            return


def found(context: Any, keys: list[str]) -> Any:
    """Find what is at a path whose way is good."""
    here = context
    for key in keys:
        here = here.get(key, MISSING) if isinstance(here, dict) else here[int(key)]
        if here is MISSING:
            break
    return here


def put(context: Any, keys: list[str], value: Any) -> Any:
    """Put a value at a path; parents that are missing are created as objects."""
    if not keys:
        return value
    key, *rest = keys
    if isinstance(context, list):
        place = int(key) % len(context)
        return [*context[:place], put(context[place], rest, value), *context[place + 1 :]]
    here = {} if context is MISSING else context
    return {**here, key: put(here.get(key, MISSING), rest, value)}


def without(context: Any, keys: list[str]) -> Any:
    """Leave out what is at a path; nothing happens where nothing is."""
    if not keys:
        return {}
    key, *rest = keys
    if isinstance(context, list):
        place = int(key) % len(context)
        kept = [] if not rest else [without(context[place], rest)]
        return [*context[:place], *kept, *context[place + 1 :]]
    if key not in context:
        return context
    if not rest:
        return {other: value for other, value in context.items() if other != key}
    return {**context, key: without(context[key], rest)}


def merged(old: Any, patch: Any) -> Any:
    """Merge objects to any depth; anything else is replaced."""
    if not isinstance(old, dict) or not isinstance(patch, dict):
        return patch
    deeper = {key: merged(old.get(key, MISSING), value) for key, value in patch.items()}
    return {**old, **deeper}


def removed(old: list[Any], index: int) -> tuple[Any, Any]:
    """Remove one element; the answer is what was removed."""
    place = index_of(str(index), old)
    if place is None:
        raise Refused("PD102")
    return [*old[:place], *old[place + 1 :]], old[place]


def sized(array: list[Any]) -> tuple[Any, Any]:
    """Answer the length."""
    return array, len(array)


def same(value: Any) -> tuple[Any, Any]:
    """Answer the value itself."""
    return value, value


def some(old: Any, default: Any) -> Any:
    """Begin with a default where nothing is."""
    return default if old is MISSING else old


# What is written in place of what was found, and the answer; MISSING answers with the version.
CHANGES: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "set": lambda old, value: (value, MISSING),
    "merge": lambda old, value: (merged(old, value), MISSING),
    "append": lambda old, value: sized([*some(old, []), *value]),
    "prepend": lambda old, value: sized([*value, *some(old, [])]),
    "remove": removed,
    "increment": lambda old, value: same(some(old, 0) + value),
    "toggle": lambda old, value: same(not some(old, False)),
    "set_if_not_exists": lambda old, value: same(some(old, value)),
    "delete": lambda old, value: (MISSING, None if old is MISSING else old),
}
