"""Retry policies: how often failed work is tried again, and after which pauses."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from perdure.errors import Failure, InvalidArgument

from .durations import Duration, seconds

Kind = type[BaseException] | str
logger = logging.getLogger("perdure.worker")

LONGEST = 60.0
"""Seconds to which pauses grow, unless a policy says otherwise."""


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry policy: `Retry(attempts=5, delay="2 s", never=(ValueError,))`.

    - `attempts`: the first one included.
    - `delay`, `factor`: the pause before attempt n is `delay * factor ** (n - 2)`. `delay` alone is
      in seconds.
    - `max_delay`: the longest pause. Default: a minute, or `delay` if that is longer.
    - `jitter`: the share by which a pause is made longer or shorter at random.
    - `never`: exception types, or their names, that fail at once, also in an exception group.
    - `after`: a function of the exception that returns how long the next attempt has to wait at
      least, or None: what a server answers as Retry-After.

    Raises InvalidArgument if the values make no sense.
    """

    attempts: int = 1
    delay: Duration = 1.0
    factor: float = 2.0
    max_delay: Duration | None = None
    jitter: float = 0.1
    never: Kind | tuple[Kind, ...] = ()
    after: Callable[[BaseException], Duration | None] | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense here: when work has failed it would be too late."""
        if not _are_numbers(self.attempts, self.factor, self.jitter) or not self._is_sensible():
            raise InvalidArgument(
                f"{self} makes no sense",
                hint="attempts and factor must be at least 1, jitter between 0 and 1.",
            )
        if self.after is not None and not callable(self.after):
            raise InvalidArgument(
                f"after={self.after!r} is not a function"[:500],
                hint="Give a function of the exception; a pause of a fixed length is a delay.",
            )
        object.__setattr__(self, "delay", seconds(self.delay))
        if self.max_delay is not None:
            object.__setattr__(self, "max_delay", seconds(self.max_delay))
        object.__setattr__(self, "never", _kinds(self.never))

    def _is_sensible(self) -> bool:
        is_count = self.attempts >= 1 and self.attempts % 1 == 0
        return is_count and self.factor >= 1 and 0 <= self.jitter <= 1

    def allows(self, error: BaseException, made: int) -> bool:
        """Tell whether work is tried again after an error, when `made` attempts were made."""
        if made >= self.attempts or not isinstance(error, Exception):
            return False
        return not any(map(self._forbids, _with_members(error)))

    def _forbids(self, error: BaseException) -> bool:
        names = {kind.__name__ for kind in type(error).__mro__}
        names |= {error.type} if isinstance(error, Failure) else set()
        return any(
            kind in names if isinstance(kind, str) else isinstance(error, kind)
            for kind in _kinds(self.never)
        )

    def pause(self, made: int) -> float:
        """Return the seconds to wait after `made` attempts."""
        delay = seconds(self.delay)
        longest = max(delay, LONGEST) if self.max_delay is None else seconds(self.max_delay)
        try:
            pause = min(delay * self.factor ** min(made - 1, 64), longest)
        except OverflowError:
            pause = longest
        return pause * random.uniform(1 - self.jitter, 1 + self.jitter)

    def pause_after(self, error: BaseException, made: int) -> float:
        """Return the seconds to wait after `made` attempts, the last of which raised an error."""
        return max(self.pause(made), self._asked(error))

    def _asked(self, error: BaseException) -> float:
        """Return how long an error asks to wait. A function that fails must not fail the work."""
        try:
            asked = None if self.after is None else self.after(error)
            return 0.0 if asked is None else seconds(asked)
        except Exception:
            logger.warning("the after=%r of a retry policy has failed", self.after, exc_info=True)
            return 0.0


def policy_of(retry: Retry | None) -> Retry:
    """Return the policy that a decorator was given, or the default. Raises InvalidArgument."""
    if retry is None:
        return Retry()
    if not isinstance(retry, Retry):
        raise InvalidArgument(
            f"retry={retry!r} is not a retry policy"[:500],
            hint="Write retries=3, or retry=perdure.Retry(attempts=4).",
        )
    return retry


def _kinds(never: Kind | tuple[Kind, ...]) -> tuple[Kind, ...]:
    """Return what is never tried again as a tuple. Raises InvalidArgument."""
    given = never if isinstance(never, tuple | list) else (never,)
    for kind in given:
        if not isinstance(kind, str) and not _is_exception_type(kind):
            raise InvalidArgument(
                f"never={never!r} does not name exceptions"[:500],
                hint='Give exception types or their names: never=(ValueError, "CardRefused").',
            )
    return tuple(given)


def _with_members(error: BaseException) -> Iterator[BaseException]:
    """Yield an error; if it is a group, such as a TaskGroup raises, also all errors in it."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _with_members(member)


def _is_exception_type(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def _are_numbers(*given: object) -> bool:
    return all(
        isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each)
        for each in given
    )
