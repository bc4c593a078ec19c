"""The past of a memory, read by a client: its versions, earlier states and authors."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

from perdure.basics.arguments import listed
from perdure.basics.durations import Duration, from_micros, micros
from perdure.basics.paths import Path, parse_path, write_path
from perdure.database.call import Call
from perdure.database.calls import Calls
from perdure.errors import InvalidArgument, among
from perdure.workflow.memory import Options, given_options
from perdure.workflow.operations import stored

from .caller_connection import check_outside
from .polling import Pages, Poll, until_of

if TYPE_CHECKING:
    from .base_client import BaseClient

A = TypeVar("A")
_Changes = TypeVar("_Changes")
_Differences = TypeVar("_Differences")
_Authors = TypeVar("_Authors")
_Items = TypeVar("_Items")
_Json = TypeVar("_Json")
_Int = TypeVar("_Int")
_Watch = TypeVar("_Watch")

PAGE = 1000
"""Number of changes or items that are read at a time."""


@dataclass(frozen=True, slots=True)
class Change:
    """A version of a memory: the command that made it, by whom and when.

    `task` is that of the coordinator or hook, or `$outside` for clients. `answer` is what the
    command returned.
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
    """A value in a memory, with the last command that wrote it."""

    path: str
    value: Any
    version: int
    at: datetime
    task: str
    op: str


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an item of a log or stream is; `place` counts the items that one command has added."""

    version: int
    place: int


@dataclass(frozen=True, slots=True)
class LogItem(Placed):
    """An item of a log; `place` counts the items that one command has added."""

    item: Any
    at: datetime
    task: str


Place = int | tuple[int, int] | Placed
"""A version, a version and a place in it, or an item that was read."""


class Past(Generic[_Changes, _Differences, _Authors, _Items, _Json, _Int, _Watch]):
    """The methods by which a client reads the past of a memory."""

    __slots__ = ()

    id: str
    is_new: bool | None
    """Whether `create_entity()` has created it; None for other calls."""
    _client: BaseClient
    _connection: Any

    def history(self, path: Path = "", *, after: int = 0, limit: int = PAGE) -> _Changes:
        """Return the changes of the memory, or of what is at a path, oldest first.

        For the next page: `memory.history(after=changes[-1].version)`.
        """
        call = self._client.calls.changes(self.id, written(path), after, limit)
        return self._give(call.reading(rows_of(Change)))

    def at(
        self, version: int | None = None, *, time: datetime | None = None, path: Path = ""
    ) -> _Json:
        """Return the memory as it was at a version, or at a time with a zone: `memory.at(12)`.

        Raises VersionNotFound, and InvalidArgument for a time without a zone.
        """
        if time is not None:
            time = from_micros(micros(time))
        return self._give(self._client.calls.memory_at(self.id, version, time, written(path)))

    def diff(self, version: int, to_version: int | None = None) -> _Differences:
        """Return where the memory differs between two versions, or between one and now."""
        call = self._client.calls.diff(self.id, version, to_version)
        return self._give(call.reading(rows_of(Difference)))

    def blame(self, path: Path = "") -> _Authors:
        """Return who wrote each value in the memory, or beneath a path."""
        call = self._client.calls.blame(self.id, written(path))
        return self._give(call.reading(rows_of(Authorship)))

    def items(
        self,
        path: Path,
        *,
        after: int = 0,
        limit: int = PAGE,
        last: int | None = None,
        before: Place | None = None,
    ) -> _Items:
        """Return the items of a log that were added after a version, oldest first.

        For the next page: `memory.items(path, after=items[-1].version)`. A page ends with all items
        of a version, even beyond `limit`. With `last=20`, return exactly the last 20 instead, at a
        cost that does not depend on the others. For the page before that: `memory.items(path,
        last=20, before=items[0])`. `before` is an item, its version, or its `(version, place)`.
        """
        version, place = (None, None) if before is None else place_of("before", before)
        call = self._client.calls.items(
            self.id, written(path), after, limit, last=last, before=version, place=place
        )
        return self._give(call.reading(rows_of(LogItem)))

    def restore(self, version: int, **options: Unpack[Options]) -> _Int:
        """Make the memory again what it was at a version, as a new version; return the new version.

        Options: expected_version, key. Raises VersionNotFound and VersionConflict.
        """
        known = keyed(given_options("restore", options))
        return self._give(self._client.calls.restore(self.id, version, known))

    def apply(self, commands: Sequence[Mapping[str, Any]], **options: Unpack[Options]) -> _Json:
        """Apply several commands, all or none: `[{"op": "merge", "path": "a", "value": {}}]`.

        Returns their answers in a list. Each command has a version; the row is written once.
        Options: expected_version, key.
        """
        given = listed("commands", commands)
        for place, command in enumerate(given):
            with among("command", place + 1, len(given)):
                given[place] = _as_stored(command)
        known = keyed(given_options("apply", options))
        return self._give(self._client.calls.apply(self.id, given, known))

    def watch(self, path: Path = "", *, after: int = 0, timeout: Duration | None = None) -> _Watch:
        """Yield the changes after a version as they happen: `for change in memory.watch(): ...`

        Every change comes once and in order, by default from the first on. Resume with
        `after=change.version`, or begin now with `after=handle.status().version`. Ends when nothing
        has changed for `timeout`. Raises JobNotFound.
        """
        changes: _Watch = self._client.each(self._watched(path, after, timeout))
        return changes

    def _watched(self, path: Path, after: int, timeout: Duration | None) -> Pages[Change]:
        check_outside("watch", self._connection)
        calls, place = self._client.calls, written(path)
        while changes := (yield change_of(calls, self.id, place, after, until_of(timeout)[1])):
            yield changes
            after = changes[-1].version

    def _give(self, call: Call) -> A:  # type: ignore[type-var]
        return self._client.give(call, self._connection)


def change_of(calls: Calls, job: str, path: str, after: int, until: float | None = None) -> Poll:
    """Look for changes of a memory after a version."""
    cursor = ChangeCursor(calls, job, path, after)
    return Poll(f"$memory/{job}", cursor.register, cursor.call, bool, until)


class ChangeCursor:
    """How far the changes of a memory have been read. Changes at other paths are read once."""

    def __init__(self, calls: Calls, job: str, path: str, after: int):
        self._calls = calls
        self._job = job
        self._path = path
        self._after = after
        self._version = after

    def register(self, listener: str) -> Call:
        """Ask for notifications; returns the version that a later poll sees at least."""
        return self._calls.watch(self._job, listener).reading(self._note)

    def call(self) -> Call:
        """Read what is new."""
        return self._calls.changes(self._job, self._path, self._after, PAGE).reading(self._read)

    def _note(self, version: int | None) -> None:
        self._version = max(self._version, version or 0)

    def _read(self, rows: Any) -> list[Change]:
        changes: list[Change] = rows_of(Change)(rows)
        if not changes:
            self._after = self._version
        return changes


def _as_stored(command: Any) -> dict[str, Any]:
    if not isinstance(command, Mapping) or not isinstance(command.get("op"), str):
        raise InvalidArgument(
            f"this is not a list of commands: {command!r}"[:200],
            hint='Write [{"op": "merge", "path": "user", "value": {"name": "Jane"}}].',
        )
    given = {**command, "path": written(command.get("path", ""))}
    return given | {"value": stored(command["value"])} if "value" in command else given


def place_of(name: str, given: Place) -> tuple[int, int | None]:
    """Return a version and the place in it. Raises InvalidArgument."""
    if isinstance(given, Placed):
        return given.version, given.place
    place: object = (given, None) if isinstance(given, int) else given
    if not (isinstance(place, tuple) and len(place) == 2):
        raise InvalidArgument(
            f"{name}={given!r} is not a place in a log or stream"[:500],
            hint="Give an item, its version, or (item.version, item.place).",
        )
    return place


def keyed(options: dict[str, Any]) -> dict[str, Any]:
    """Return options with a key, so that the call may be repeated. [P12]"""
    return {"key": uuid.uuid4().hex} | options


def row_of(kind: Any, *before: Any) -> Callable[[Any], Any]:
    """Return what makes an object of a row.

    A newer schema has more columns at the end, which are ignored. [P13]
    """
    width = len(fields(kind)) - len(before)
    return lambda row: kind(*before, *row[:width])


def rows_of(kind: Any, *before: Any) -> Callable[[Any], Any]:
    """Return what makes a list of the rows of an answer."""
    make = row_of(kind, *before)
    return lambda rows: [make(row) for row in rows]


def written(path: Path) -> str:
    """Write a path as SQL reads it. Raises InvalidPath."""
    return write_path(parse_path(path))
