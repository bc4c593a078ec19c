"""Time limits on one attempt of an activity or hook, and on all of them with their pauses.

Both count from the beginning: of the attempt, or of the first one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perdure.errors import Failed, InvalidArgument

from .durations import Duration, microseconds, seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """`timeout`: seconds for one attempt; `within`: seconds for all attempts and pauses."""

    timeout: float | None = None
    within: float | None = None

    def until(self, first_at: int, began_at: int) -> int | None:
        """Return when an attempt has to end (µs), given when it and the first one began."""
        ends = [
            at + microseconds(length)
            for at, length in ((began_at, self.timeout), (first_at, self.within))
            if length is not None
        ]
        return min(ends, default=None)

    def end(self, first_at: int) -> int | None:
        """Return when all attempts have to end (µs), given when the first one began."""
        return None if self.within is None else first_at + microseconds(self.within)


def limits_of(timeout: Duration | None, within: Duration | None) -> Limits:
    """Read the limits that a decorator was given. Raises InvalidArgument."""
    read = [None if given is None else seconds(given) for given in (timeout, within)]
    if 0 in read:
        raise InvalidArgument(
            "a limit of 0 seconds lets nothing begin", hint="Give more than 0 seconds, or no limit."
        )
    return Limits(*read)


def too_late(what: str, limits: Limits, made: int, last: Failed | None) -> Failed:
    """Describe work that was not done within its limit, with its last failure if it had one."""
    tried = f"{made} attempt" if made == 1 else f"{made} attempts"
    message = f"{what} was not done within {limits.within:g} s, in {tried}"
    if last is not None:
        message += f"; the last failed with {last.get('type')}: {last.get('message')}"
    failure: Failed = {"type": "TimeoutError", "message": message[:2000], "attempts": made}
    kept: dict[str, Any] = {} if last is None else dict(last)
    return {name: kept[name] for name in ("traceback", "through") if name in kept} | failure
