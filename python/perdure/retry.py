"""Retry policies: how often failed work is tried again, and after which pauses."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .durations import Duration, seconds
from .errors import Failure, InvalidArgument


@dataclass(frozen=True, slots=True)
class Retry:
    """How failed work is tried again: `Retry(attempts=5, delay="2 s", never=(ValueError,))`.

    `attempts` counts the first one. The pause before attempt n is `delay * factor ** (n - 2)`
    seconds, at most `max_delay`, give or take the share `jitter`. Exceptions of the types in
    `never` (or types of these names) fail at once.
    """

    attempts: int = 1
    delay: Duration = 1.0
    factor: float = 2.0
    max_delay: Duration = 60.0
    jitter: float = 0.1
    never: tuple[type[BaseException] | str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        if self.attempts < 1 or self.factor < 1 or not 0 <= self.jitter <= 1:
            raise InvalidArgument(
                f"{self} makes no sense",
                hint="attempts and factor are at least 1, jitter is between 0 and 1.",
            )
        object.__setattr__(self, "delay", seconds(self.delay))
        object.__setattr__(self, "max_delay", seconds(self.max_delay))

    def allows(self, error: BaseException, made: int) -> bool:
        """Tell whether work is tried again after an error, when `made` attempts were made."""
        if made >= self.attempts or not isinstance(error, Exception):
            return False
        names = {kind.__name__ for kind in type(error).__mro__}
        names |= {error.type} if isinstance(error, Failure) else set()
        return not any(
            kind in names if isinstance(kind, str) else isinstance(error, kind)
            for kind in self.never
        )

    def pause(self, made: int) -> float:
        """Give the seconds to wait after `made` attempts."""
        longest = seconds(self.max_delay)
        pause = min(seconds(self.delay) * self.factor ** min(made - 1, 64), longest)
        return pause * random.uniform(1 - self.jitter, 1 + self.jitter)
