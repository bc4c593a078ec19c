"""Lineage: the place of every task below the root, from which its keys are made.

The root's place is empty, its children are `.1`, `.2`, a named one `.search`, the next of that
name `.search~2`, and their children `.1.1`, … A place depends on the parent alone, so a step added
in one branch leaves the keys of all others as they were.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Collection
from enum import Enum, auto
from hashlib import blake2b
from types import FrameType

from .awaitables import Task

MAX_PLACE = 100
"""The longest place, in bytes; a longer one is replaced by a hash of it."""

_NUMBERED = re.compile("/.*#[0-9]+(/|$)")


class Lineage:
    """Number the children of every place."""

    __slots__ = ("_children", "_newest", "_parent_of_newest")

    def __init__(self) -> None:
        self._children: dict[str, int] = {}
        self._newest: Task | None = None
        self._parent_of_newest = ""

    def of(self, task: asyncio.Task[object] | None) -> str:
        """Return the place of a running task; callbacks that no task runs belong to the root."""
        self._newest = None
        return task.place if isinstance(task, Task) else ""

    def child(self, parent: str, name: str | None) -> str:
        """Return the place of the next child."""
        prefix = f"{parent}." if name is None else f"{parent}.{_label(name)}"
        number = self._children.get(prefix, 0) + 1
        self._children[prefix] = number
        if name is None:
            return _shortened(f"{prefix}{number}")
        return _shortened(prefix if number == 1 else f"{prefix}~{number}")

    def may_be_renamed(self, task: Task, parent: str) -> None:
        """Let this task, made without a name, take a named place until others ask."""
        self._newest, self._parent_of_newest = task, parent

    def rename(self, task: Task, name: str) -> None:
        """Move the newest task to the place of its name, as if it had been made with it.

        Python 3.11 and 3.12 name a task just after making it, later ones while making it.
        """
        if task is self._newest:
            parent = self._parent_of_newest
            self._children[f"{parent}."] -= 1
            task.place = self.child(parent, name)
        self._newest = None


def _label(name: str) -> str:
    """Make the name of a task fit for a key: the database refuses control characters."""
    return name if name.isprintable() else ascii(name)[1:-1]


def _shortened(place: str) -> str:
    """Keep a place short enough for keys (200 bytes in SQL), and different from all others.

    It must not look as if it led beneath a key either, which the database refuses.
    """
    is_short = len(place) <= MAX_PLACE // 4 or len(place.encode()) <= MAX_PLACE
    if is_short and not ("/" in place and _NUMBERED.search(place)):
        return place
    return f".~{blake2b(place.encode(), digest_size=8).hexdigest()}"


class TaskCreator(Enum):
    """What inside asyncio makes a task of a coroutine, if that matters to its place."""

    AS_COMPLETED = auto()
    """`as_completed()` iterates over a set of coroutines, which hash by address: the order in which
    they become tasks, and so their places, would differ between two processes."""
    WAIT_FOR = auto()
    """`wait_for()` makes a task in Python 3.11 and none in later versions: the place must be the
    caller's."""


_TASKS = asyncio.tasks.__dict__
_CREATORS = {
    asyncio.as_completed.__code__: TaskCreator.AS_COMPLETED,
    asyncio.wait_for.__code__: TaskCreator.WAIT_FOR,
}
if sys.version_info >= (3, 13):
    _CREATORS[asyncio.tasks._AsCompletedIterator.__init__.__code__] = TaskCreator.AS_COMPLETED


def creator_of_task() -> TaskCreator | None:
    """Return who calls `create_task` with a coroutine (with several, in the case of a set)."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals is _TASKS:
        creator = _CREATORS.get(frame.f_code)
        if creator is TaskCreator.AS_COMPLETED:
            given = frame.f_locals.get("fs", frame.f_locals.get("aws"))
            return creator if _are_several(given) else None
        if creator is not None:
            return creator
        frame = frame.f_back
    return None


def _are_several(given: object) -> bool:
    if not isinstance(given, Collection):
        return True
    return sum(1 for one in given if asyncio.iscoroutine(one)) > 1
