"""What a durable call returns before it is awaited, whatever kind of awaitable it is."""

from __future__ import annotations

import sys
from asyncio import base_tasks
from typing import Any, NoReturn

ANSWERS = (str, int, float, list, dict, tuple)
"""Types of answers. With None nothing is wrong: lists of futures may hold it."""


class Unawaited:
    """What is to be awaited, and refuses to be used as if it were the answer: it would be true."""

    __slots__ = ()

    def _called(self) -> str:
        """Say what was called."""
        raise NotImplementedError

    def _give_up(self) -> None:
        """Note that it will not be awaited: the code has met an error."""

    def _is_not_awaited(self, *_: Any) -> NoReturn:
        raise TypeError(f"{given_up(self)} was not awaited: await it, and use its answer")

    def __str__(self) -> str:
        """Say what was called."""
        return self._called()

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse an attribute that the answer may have: this has none of that name."""
        if name.startswith("_"):  # what was not set yet, or what Python asks everything for
            raise AttributeError(name, name=name, obj=self)
        told = f"{self._called()} was not awaited: await it, and use .{name} of its answer"
        raise AttributeError(told, name=name, obj=self)

    def __bool__(self) -> bool:
        """Refuse to all but asyncio, which asks a task that it describes for its coroutine."""
        return sys._getframe(1).f_globals is vars(base_tasks) or self._is_not_awaited()

    __iter__ = __len__ = __contains__ = __getitem__ = _is_not_awaited
    __add__ = __radd__ = __lt__ = __le__ = __gt__ = __ge__ = __format__ = _is_not_awaited

    def __eq__(self, other: object) -> bool:
        """Compare with other calls by identity; refuse a value that an answer might equal."""
        if isinstance(other, ANSWERS):
            self._is_not_awaited()
        return True if self is other else NotImplemented

    __hash__ = object.__hash__  # __eq__() would take it away


def given_up(unawaited: Unawaited) -> str:
    """Give up what was used as if it were the answer, and say what was called."""
    unawaited._give_up()
    return str(unawaited)
