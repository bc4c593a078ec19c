"""Cron expressions compared with two oracles: `cronsim`, which follows Debian's cron, and a walk
over minutes.

Only zones in which the server and Python agree are used: governments change their minds, and one of
the two may know it later.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import psycopg
import pytest
from cronsim import CronSim, CronSimError

from tests.amount import amount, seed

pytestmark = pytest.mark.stress

EASY = ["UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "Asia/Kolkata"]
ODD = [
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "America/Havana",
    "Asia/Beirut",
    "Pacific/Apia",
    "Pacific/Chatham",
]
BEGIN = datetime(2012, 1, 1, tzinfo=UTC)
YEARS = 22
PAGE = 2000
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]

Case = tuple[str, str, datetime]


def drawn_part(chance: random.Random, low: int, high: int, names: list[str]) -> str:
    def written(number: int) -> str:
        is_named = names and number - low < len(names) and chance.random() < 0.5
        return names[number - low] if is_named else str(number)

    first, last = sorted(chance.randint(low, high) for _ in range(2))
    step = chance.randint(1, high - low - 1)
    kinds = [f"*/{step}", written(first), written(first), f"{first}/{step}"]
    if first < last:
        kinds += [f"{written(first)}-{written(last)}", f"{first}-{last}/{step}"]
    return chance.choice(kinds)


def drawn_field(
    chance: random.Random, low: int, high: int, star: float, names: list[str] | None = None
) -> str:
    if chance.random() < star:
        return "*"
    parts = chance.choice([1, 1, 1, 2, 3])
    return ",".join(drawn_part(chance, low, high, names or []) for _ in range(parts))


def drawn_expression(chance: random.Random) -> str:
    return " ".join(
        [
            drawn_field(chance, 0, 59, 0.1),
            drawn_field(chance, 0, 23, 0.3),
            drawn_field(chance, 1, 31, 0.4),
            drawn_field(chance, 1, 12, 0.5, MONTHS),
            drawn_field(chance, 0, 7, 0.6, WEEKDAYS),
        ]
    )


def is_counted(expression: str) -> bool:
    """Return whether time is counted as it passes: the minute or hour begins with a star."""
    return any(field.startswith("*") for field in expression.split()[:2])


@cache
def changes(zone: str) -> list[datetime]:
    """Return the days on which the clocks of a zone change."""
    days = [BEGIN + timedelta(days=n) for n in range(YEARS * 365)]
    offsets = [day.astimezone(ZoneInfo(zone)).utcoffset() for day in days]
    return [
        day for day, one, other in zip(days, offsets, offsets[1:], strict=False) if one != other
    ]


def agreed(connection: psycopg.Connection, zones: list[str]) -> list[str]:
    """Return the zones in which the server and Python agree, week by week."""
    weeks = [BEGIN + timedelta(weeks=n) for n in range((YEARS + 1) * 53)]
    query = """
        select z.zone, array_agg(w.week at time zone z.zone order by w.week)
          from unnest(%s::text[]) as z (zone)
         cross join unnest(%s::timestamptz[]) as w (week)
         group by z.zone"""
    clocks: dict[str, list[datetime]] = dict(connection.execute(query, [zones, weeks]).fetchall())
    return [
        zone
        for zone in zones
        if clocks[zone] == [week.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for week in weeks]
    ]


def drawn_time(chance: random.Random, zone: str) -> datetime:
    if changes(zone) and chance.random() < 0.6:
        return chance.choice(changes(zone)) + timedelta(seconds=chance.randint(-86_400, 172_800))
    return BEGIN + timedelta(seconds=chance.randint(0, YEARS * 365 * 86_400))


def drawn_cases(
    chance: random.Random, count: int, zones: list[str], fits: Callable[[str], bool]
) -> Iterator[Case]:
    while count:
        expression, zone = drawn_expression(chance), chance.choice(zones)
        if fits(expression):
            count -= 1
            yield expression, zone, drawn_time(chance, zone)


def by_cronsim(expression: str, zone: str, after: datetime) -> datetime | None:
    """Ask cronsim; for named times, begin earlier, because the wall clock may have gone back."""
    place = UTC if zone == "UTC" else ZoneInfo(zone)
    begin = after if is_counted(expression) else after - timedelta(days=2)
    for due in CronSim(expression, begin.astimezone(place)):
        if due > after:
            return due.astimezone(UTC)
    return None


def by_walking(expression: str, zone: str, after: datetime) -> datetime | None:
    """Check each minute of the next two days, without fields of days; None if none is due."""
    place = ZoneInfo(zone)
    minutes, hours = (CronSim(expression, BEGIN).minutes, CronSim(expression, BEGIN).hours)
    here = after.replace(second=0, microsecond=0)
    for _ in range(2880):
        here += timedelta(minutes=1)
        wall = here.astimezone(place)
        if wall.minute in minutes and wall.hour in hours:
            return here
    return None


def by_perdure(connection: psycopg.Connection, cases: list[Case]) -> list[datetime | None]:
    """Ask the database, for many cases at once."""
    query = """
        select next_cron_time(c.expression, c.zone, c.after)
          from unnest(%s::text[], %s::text[], %s::timestamptz[])
          with ordinality as c (expression, zone, after, place)
         order by c.place"""
    pages = [cases[n : n + PAGE] for n in range(0, len(cases), PAGE)]
    return [
        row[0]
        for page in pages
        for row in connection.execute(query, list(map(list, zip(*page, strict=True))))
    ]


def known(
    cases: Iterator[Case], oracle: Callable[..., datetime | None]
) -> Iterator[tuple[Case, datetime]]:
    """Leave out cases that are never due, or not soon enough for the oracle."""
    for case in cases:
        try:
            due_at = oracle(*case)
        except CronSimError:
            continue
        if due_at is not None:
            yield case, due_at


@pytest.mark.parametrize(
    ("count", "zones", "oracle", "fits"),
    [
        (4000, EASY + ODD, by_cronsim, lambda expression: not is_counted(expression)),
        (6000, EASY, by_cronsim, is_counted),
        (600, ODD, by_walking, lambda text: is_counted(text) and text.endswith(" * * *")),
    ],
    ids=["named times", "counted times", "counted times in odd zones"],
)
def test_next_cron_time_agrees_with_the_oracle(
    connection: psycopg.Connection,
    count: int,
    zones: list[str],
    oracle: Callable[..., datetime | None],
    fits: Callable[[str], bool],
) -> None:
    """(E14) Random expressions and times are compared, often near a change of clocks."""
    chance, settled = random.Random(seed()), agreed(connection, zones)
    assert len(settled) >= len(zones) / 2
    wanted = list(known(drawn_cases(chance, amount(count), settled, fits), oracle))
    assert len(wanted) > count / 2

    given = by_perdure(connection, [case for case, _ in wanted])

    wrong = [
        (case, want, have) for (case, want), have in zip(wanted, given, strict=True) if want != have
    ]
    assert wrong == []
