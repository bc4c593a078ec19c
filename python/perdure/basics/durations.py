"""Time as the package counts it.

Instants are whole microseconds since 1970 (UTC), exact. Durations are seconds as a float. On the
wire, instants are ISO 8601 text.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from perdure.errors import InvalidArgument

Duration = str | float | timedelta
"""A length of time: `"2 min"`, `"1 h 30 min"`, `3.5` or `"3.5"` (seconds), or a timedelta."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MICROSECONDS = 1_000_000
"""In a second."""
MAX_SECONDS = 100 * 365 * 86_400.0
FOREVER = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
"""The last instant: the end of the year 9999."""
_FIRST = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND

_UNITS = {
    "ms": 0.001, "millisecond": 0.001,
    "s": 1.0, "sec": 1.0, "second": 1.0,
    "m": 60.0, "min": 60.0, "minute": 60.0,
    "h": 3600.0, "hour": 3600.0,
    "d": 86_400.0, "day": 86_400.0,
    "w": 604_800.0, "week": 604_800.0,
}  # fmt: skip
_NUMBER = re.compile(r"\s*\d+(?:\.\d+)?\s*")
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.IGNORECASE)


def seconds(duration: Duration) -> float:
    """Return a duration in seconds: `seconds("1 h 30 min") == 5400.0`. Raises InvalidArgument."""
    if isinstance(duration, str):
        length = _read(duration)
    elif isinstance(duration, timedelta):
        length = duration.total_seconds()
    elif isinstance(duration, bool):
        raise _unreadable(duration)
    else:
        try:
            length = float(duration)
        except (TypeError, ValueError):
            raise _unreadable(duration) from None
    if not 0 <= length <= MAX_SECONDS:
        raise InvalidArgument(
            f"a duration of {length} s is out of range",
            hint=f"Give between 0 and {MAX_SECONDS:.0f} seconds (100 years).",
        )
    return length


def _read(text: str) -> float:
    if _NUMBER.fullmatch(text):
        return float(text)
    total, place = 0.0, 0
    while place < len(text):
        part = _PART.match(text, place)
        if part is None:
            raise _unreadable(text)
        name = part[2].lower()
        unit = _UNITS.get(name) or _UNITS.get(name.removesuffix("s"))
        if unit is None:
            raise _unreadable(text)
        total += float(part[1]) * unit
        place = part.end()
    if not place:
        raise _unreadable(text)
    return total


def _unreadable(given: object) -> InvalidArgument:
    return InvalidArgument(
        f"{given!r} is not a duration"[:500],
        hint='Write a number of seconds, a timedelta, or text like "2 min" or "1 h 30 min".',
    )


def as_interval(duration: Duration) -> str:
    """Write a duration as SQL reads it, exactly."""
    return f"{microseconds(seconds(duration))} microseconds"


def microseconds(length: float) -> int:
    """Return seconds as whole microseconds; a positive duration is never rounded to 0."""
    return max(round(length * MICROSECONDS), 1 if length > 0 else 0)


def micros(instant: datetime) -> int:
    """Return an aware datetime as microseconds since 1970. Raises InvalidArgument for another."""
    return (aware(instant) - EPOCH) // MICROSECOND


def aware(instant: datetime) -> datetime:
    """Return a datetime with a time zone unchanged. Raises InvalidArgument for anything else.

    So it does for a datetime that is not between the years 1 and 9999 in UTC.
    """
    given: object = instant
    if not isinstance(given, datetime):
        raise InvalidArgument(
            f"{given!r} is not an instant"[:500],
            hint="Give a datetime with a time zone, such as datetime.now(UTC), and add or subtract"
            " a timedelta.",
        )
    if instant.utcoffset() is None:
        raise InvalidArgument(
            f"{instant} has no time zone", hint="Give one: datetime(…, tzinfo=UTC)."
        )
    if not _FIRST <= (instant - EPOCH) // MICROSECOND <= FOREVER:
        raise InvalidArgument(
            f"{instant} is not between the years 1 and 9999",
            detail="Instants are stored in UTC, where it has no date.",
            hint="Give an earlier time.",
        )
    return instant


def from_micros(instant: int) -> datetime:
    """Return microseconds since 1970 as a datetime in UTC."""
    return EPOCH + timedelta(microseconds=instant)


def from_iso(text: str) -> int:
    """Read an instant as SQL writes it in JSON."""
    return (datetime.fromisoformat(text) - EPOCH) // MICROSECOND


def to_iso(instant: int) -> str:
    """Write an instant as SQL reads it."""
    return from_micros(instant).isoformat()
