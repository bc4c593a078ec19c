"""A model of the memory in plain Python: the result of each command on a document.

It is written from the promises (C26-C35), not from the SQL. A document is never changed in place,
so the documents of all versions can be kept side by side. Numbers are ints and Decimals, and are
added exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any

MISSING: Any = object()
EXACT = Context(prec=2000)
MAX_NUMBER = 10**308
MAX_INDEX = 10**9
MAX_KEYS = 50
NUMBERS = (int, Decimal)


@dataclass(frozen=True)
class Command:
    """One command: its operation, path, argument and expected version."""

    op: str
    path: str = ""
    value: Any = None
    expected_version: int | None = None

    @property
    def keys(self) -> list[str]:
        """Split the path."""
        return split_path(self.path)


class Refused(Exception):
    """The command does not fit the document; the code is that of the error."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class State:
    """A document at a version."""

    context: Any
    version: int

    def after(self, command: Command) -> tuple[State, Any]:
        """Run a command; return the next state and the answer, or raise Refused."""
        if command.expected_version not in (None, self.version):
            raise Refused("PD105")
        check_argument(command)
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

    def get(self, path: str) -> Any:
        """Read a path: None if it leads nowhere."""
        here = found(self.context, split_path(path))
        return None if here is MISSING else here


@dataclass(frozen=True)
class Line:
    """An entry of the history: a command with its answer."""

    version: int
    op: str
    keys: list[str]
    argument: Any
    answer: Any


@dataclass
class Memory:
    """A document with its history, and the keys of its commands."""

    state: State
    history: list[Line] = field(default_factory=list)
    told: dict[str, Line] = field(default_factory=dict)

    def run(self, command: Command, key: str | None = None) -> Any:
        """Run a command, only once for each key; return the answer, or raise Refused."""
        keys = command.keys
        if key is not None and not is_a_name(key):
            raise Refused("PD104")
        if key in self.told:
            first = self.told[key]
            given = (command.op, keys, command.value)
            if not alike((first.op, first.keys, first.argument), given):
                raise Refused("PD106")
            return first.answer
        self.state, answer = self.state.after(command)
        line = Line(self.state.version, command.op, keys, command.value, answer)
        self.history.append(line)
        if key is not None:
            self.told[key] = line
        return answer


def is_a_name(text: str) -> bool:
    """Tell whether a text may be the key of a command."""
    return 0 < len(text.encode()) <= 200 and not re.search(r"[\x00-\x1f\x7f]", text)


KEY = r'(?:"(?:[^"\\]|\\.)*"|[^".]+)'


def split_path(path: str) -> list[str]:
    """Split a path into its keys; a quoted key may hold anything.

    An invalid path raises Refused.
    """
    if path and not re.fullmatch(rf"{KEY}(\.{KEY})*", path, re.DOTALL):
        raise Refused("PD101")
    plain = re.sub(r'"(\\.|[^"])*"', "", path, flags=re.DOTALL)
    if re.match(r"\$([.[]|\Z)", plain) or re.search(r"\[(-?[0-9]+|\*)\]([.[]|\Z)", plain):
        raise Refused("PD101")
    parts = re.findall(r'(?:^|\.)(?:"((?:[^"\\]|\\.)*)"|([^".]+))', path, re.DOTALL)
    if len(parts) > MAX_KEYS:
        raise Refused("PD101")
    return [plain or re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL) for quoted, plain in parts]


def join_path(keys: list[str]) -> str:
    """Write a path; keys are quoted only where they must be."""
    return ".".join(
        '"' + re.sub(r'(["\\])', r"\\\1", key) + '"' if re.search(r'[".[]|^[$]?$', key) else key
        for key in keys
    )


def alike(one: Any, other: Any) -> bool:
    """Compare values as JSON does: true differs from 1, and 1 equals 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def as_json(value: Any) -> str:
    """Write a value as JSON, with every digit of its numbers."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_json, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)}: {as_json(value[key])}' for key in value)}}}"
    return json.dumps(value)


def from_json(text: str | bytes) -> Any:
    """Read JSON with every digit of its numbers."""
    return json.loads(text, parse_float=Decimal)


WANTED: dict[str, type | tuple[type, ...]] = {
    "merge": dict,
    "append": list,
    "prepend": list,
    "remove": list,
    "increment": NUMBERS,
    "toggle": bool,
}


def is_a(value: Any, wanted: type | tuple[type, ...]) -> bool:
    """Compare types as JSON does: a boolean is no number."""
    return isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool)


def check_argument(command: Command) -> None:
    """Refuse an argument that is wrong for the command on any document."""
    needs = {"merge": dict, "append": list, "prepend": list, "increment": NUMBERS, "remove": int}
    if command.op in ("set", "set_if_not_exists") and not command.keys:
        needs |= {command.op: dict}
    wanted = needs.get(command.op)
    if wanted and not is_a(command.value, wanted):
        raise Refused("PD103")
    if command.op == "remove" and abs(command.value) >= MAX_INDEX:
        raise Refused("PD103")


def index_of(key: str, array: list[Any]) -> int | None:
    """Read a key as the place of an element that exists."""
    if not re.fullmatch(r"\s*[+-]?[0-9]+", key) or not -len(array) <= int(key) < len(array):
        return None
    return int(key) % len(array)


def check_way(context: Any, keys: list[str]) -> None:
    """Refuse a path through a scalar, or to an element that does not exist."""
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
    """Read the value at a path; MISSING if it leads nowhere."""
    here = context
    for key in keys:
        if isinstance(here, dict):
            here = here.get(key, MISSING)
        elif isinstance(here, list) and (place := index_of(key, here)) is not None:
            here = here[place]
        else:
            return MISSING
    return here


def put(context: Any, keys: list[str], value: Any) -> Any:
    """Put a value at a path; missing parents are created as objects."""
    if not keys:
        return value
    key, *rest = keys
    if isinstance(context, list):
        place = int(key) % len(context)
        return [*context[:place], put(context[place], rest, value), *context[place + 1 :]]
    here = {} if context is MISSING else context
    return {**here, key: put(here.get(key, MISSING), rest, value)}


def without(context: Any, keys: list[str]) -> Any:
    """Remove the value at a path, if there is one."""
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
    """Merge objects to any depth; other values are replaced."""
    if not isinstance(old, dict) or not isinstance(patch, dict):
        return patch
    deeper = {key: merged(old.get(key, MISSING), value) for key, value in patch.items()}
    return {**old, **deeper}


def removed(old: list[Any], index: int) -> tuple[Any, Any]:
    """Remove one element, which is the answer."""
    place = index_of(str(index), old)
    if place is None:
        raise Refused("PD102")
    return [*old[:place], *old[place + 1 :]], old[place]


def incremented(old: Any, by: Any) -> tuple[Any, Any]:
    """Add exactly; the sum is the answer."""
    total = EXACT.add(Decimal(old), Decimal(by))
    if total.copy_abs() > MAX_NUMBER:
        raise Refused("PD304")
    return total, total


def sized(array: list[Any]) -> tuple[Any, Any]:
    """Return an array, with its length as the answer."""
    return array, len(array)


def same(value: Any) -> tuple[Any, Any]:
    """Return a value, with itself as the answer."""
    return value, value


def some(old: Any, default: Any) -> Any:
    """Return the old value, or a default if there is none."""
    return default if old is MISSING else old


# The new value and the answer, from old value and argument; MISSING answers with the version.
CHANGES: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "set": lambda old, value: (value, MISSING),
    "merge": lambda old, value: (merged(old, value), MISSING),
    "append": lambda old, value: sized([*some(old, []), *value]),
    "prepend": lambda old, value: sized([*value, *some(old, [])]),
    "remove": removed,
    "increment": lambda old, value: incremented(some(old, 0), value),
    "toggle": lambda old, value: same(not some(old, False)),
    "set_if_not_exists": lambda old, value: same(some(old, value)),
    "delete": lambda old, value: (MISSING, None if old is MISSING else old),
}
