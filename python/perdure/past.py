"""The past of a memory, seen by a client: its versions, what it was, who wrote what, and back."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar, Unpack

from .asks import stored
from .calls import Call, Calls
from .durations import from_micros, micros
from .errors import InvalidArgument
from .memory import Options, Path, given_options, parse_path, write_path

_Changes = TypeVar("_Changes")
_Differences = TypeVar("_Differences")
_Authors = TypeVar("_Authors")
_Items = TypeVar("_Items")
_Json = TypeVar("_Json")
_Int = TypeVar("_Int")

PAGE = 1000
"""Changes or items that are read at a time."""


@dataclass(frozen=True, slots=True)
class Change:
    """A version of a memory: the command that made it, by whom and when.

    `task` is that of the coordinator or hook, `$outside` for clients; `answer` what it was told.
    """

    version: int
    at: datetime
    task: str
    op: str
    path: str
    argument: Any
    answer: Any
    key: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A place in which two versions differ; `change` is added, removed or changed."""

    path: str
    change: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Authorship:
    """A value that stands in a memory, with the command that wrote it last."""

    path: str
    value: Any
    version: int
    at: datetime
    task: str
    op: str


@dataclass(frozen=True, slots=True)
class LogItem:
    """An item of a log; `place` counts those that one command has added."""

    version: int
    place: int
    item: Any
    at: datetime
    task: str


class Client(Protocol):
    """Whoever sends the calls."""

    calls: Calls

    def send(self, call: Call, connection: Any = None) -> Any:
        """Send a call."""


class Past(Generic[_Changes, _Differences, _Authors, _Items, _Json, _Int]):
    """The verbs that a client's handle of a memory has besides; each is one SQL function."""

    id: str
    _client: Client
    _connection: Any

    def history(self, path: Path = "", *, after: int = 0, limit: int = PAGE) -> _Changes:
        """Read the changes of the memory, or of what is at a path, oldest first.

        Page with the last version: `memory.history(after=changes[-1].version)`.
        """
        call = self._client.calls.changes(self.id, written(path), after, limit)
        changes: _Changes = self._send(call.reading(rows_of(Change)))
        return changes

    def at(
        self, version: int | None = None, *, time: datetime | None = None, path: Path = ""
    ) -> _Json:
        """Read what the memory was at a version or a time with a zone: `memory.at(12)`.

        Raises VersionNotFound, and InvalidArgument for a time without a zone.
        """
        if time is not None:
            time = from_micros(micros(time))
        document: _Json = self._send(
            self._client.calls.memory_at(self.id, version, time, written(path))
        )
        return document

    def diff(self, version: int, to_version: int | None = None) -> _Differences:
        """Read in what the memory differs between two versions, or from one to now."""
        call = self._client.calls.diff(self.id, version, to_version)
        differences: _Differences = self._send(call.reading(rows_of(Difference)))
        return differences

    def blame(self, path: Path = "") -> _Authors:
        """Read who wrote what stands in the memory, or beneath a path."""
        call = self._client.calls.blame(self.id, written(path))
        authors: _Authors = self._send(call.reading(rows_of(Authorship)))
        return authors

    def items(self, path: Path, *, after: int = 0, limit: int = PAGE) -> _Items:
        """Read items of a log that were added after a version: `items[-1].version` for the next.

        A page ends with all items of a version, even beyond `limit`.
        """
        call = self._client.calls.items(self.id, written(path), after, limit)
        items: _Items = self._send(call.reading(rows_of(LogItem)))
        return items

    def restore(self, version: int, **options: Unpack[Options]) -> _Int:
        """Make the memory again what it was, as a new version; gives that.

        Options: expected_version, key. Raises VersionNotFound, VersionConflict.
        """
        known = keyed(given_options("restore", options))
        restored: _Int = self._send(self._client.calls.restore(self.id, version, known))
        return restored

    def apply(self, commands: Sequence[Mapping[str, Any]], **options: Unpack[Options]) -> _Json:
        """Carry out several commands, all or none: `[{"op": "merge", "path": "a", "value": {}}]`.

        Gives their answers in a list. Each has a version; the row is written once. Options:
        expected_version, key.
        """
        if isinstance(commands, Mapping | str):
            raise _no_command(commands)
        given = [_as_stored(command) for command in commands]
        known = keyed(given_options("apply", options))
        answers: _Json = self._send(self._client.calls.apply(self.id, given, known))
        return answers

    def _send(self, call: Call) -> Any:
        return self._client.send(call, self._connection)


def _as_stored(command: Any) -> dict[str, Any]:
    if not isinstance(command, Mapping) or "op" not in command:
        raise _no_command(command)
    given = {**command, "path": written(command.get("path", ""))}
    return given | {"value": stored(command["value"])} if "value" in command else given


def _no_command(given: object) -> InvalidArgument:
    return InvalidArgument(
        f"this is no list of commands: {given!r}"[:200],
        hint='Write [{"op": "merge", "path": "user", "value": {"name": "Jane"}}].',
    )


def keyed(options: dict[str, Any]) -> dict[str, Any]:
    """Give a call that changes something a key, so that it may be repeated. [P12]"""
    return {"key": uuid.uuid4().hex} | options


def row_of(kind: Any, *before: Any) -> Callable[[Any], Any]:
    """Give what makes an object of a row. A newer schema tells more, at the end, which is left
    out. [P13]"""
    width = len(fields(kind)) - len(before)
    return lambda row: kind(*before, *row[:width])


def rows_of(kind: Any, *before: Any) -> Callable[[Any], Any]:
    """Give what makes a list of the rows of an answer."""
    make = row_of(kind, *before)
    return lambda rows: [make(row) for row in rows]


def written(path: Path) -> str:
    """Write a path as SQL reads it. Raises InvalidPath."""
    return write_path(parse_path(path))
