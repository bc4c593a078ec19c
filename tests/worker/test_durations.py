"""Durations and times at their limits: a microsecond, and years that cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest

import perdure
from perdure.basics.durations import as_interval, from_micros, micros
from perdure.basics.limits import limits_of
from perdure.testing import Lab
from perdure.workflow.operations import as_timeout

WEST, EAST = timezone(timedelta(hours=-5)), timezone(timedelta(hours=5))
TOO_LATE = datetime(9999, 12, 31, 23, 59, tzinfo=WEST)
TOO_EARLY = datetime(1, 1, 1, tzinfo=EAST)
LITTLE = 1e-7

app = perdure.App()


@app.coordinator
async def sleeps_too_long(memory: perdure.AsyncEntity) -> None:
    await perdure.sleep_until(TOO_LATE)


@app.coordinator
async def gives_little_time(memory: perdure.AsyncEntity) -> str:
    try:
        await perdure.child(ends, id="in-no-time", timeout=LITTLE)
    except perdure.ChildFailed as error:
        return error.type
    return "in time"


@app.coordinator
async def ends(memory: perdure.AsyncEntity) -> None:
    await perdure.sleep("1 d")


@app.hook
async def notes_the_time(memory: perdure.AsyncEntity, name: str) -> None:
    await memory.set(perdure.now().isoformat(), name)


@app.coordinator
async def asks_for_later(memory: perdure.AsyncEntity) -> str:
    began = perdure.now()
    perdure.start_hook(notes_the_time, "hook", due_at=began + timedelta(hours=1))
    perdure.start_child(
        notes,
        id="in-two-hours",
        entity="note",
        priority=3,
        context={"kept": True},
        due_at=began + timedelta(hours=2),
        on_parent_end="continue",
    )
    return began.isoformat()


@app.coordinator
async def notes(memory: perdure.AsyncEntity) -> str:
    await memory.set(perdure.info().entity, "entity")
    return perdure.now().isoformat()


@pytest.fixture
def lab(dsn: str) -> Any:
    """A lab of the app."""
    with Lab(app, dsn=dsn) as lab:
        yield lab


@pytest.mark.parametrize(
    "instant", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
def test_extreme_times_survive_conversion(instant: datetime) -> None:
    assert from_micros(micros(instant)) == instant


class Nowhere(tzinfo):
    """A zone that does not know its offset."""

    def utcoffset(self, at: datetime | None) -> None:
        """Return None."""


@pytest.mark.parametrize("zone", [None, Nowhere()], ids=["none", "unknown"])
def test_time_without_an_offset_is_rejected(zone: tzinfo | None) -> None:
    with pytest.raises(perdure.InvalidArgument, match="has no time zone"):
        micros(datetime(2030, 1, 1, tzinfo=zone))


REFUSED: dict[str, Callable[[perdure.Client, datetime], Any]] = {
    "sleep_until": lambda _, instant: micros(instant),
    "start": lambda client, instant: client.start("some", due_at=instant),
    "find": lambda client, instant: client.find("note", {"$created_at": {"lt": instant}}),
    "at": lambda client, instant: client.entity("note").at(time=instant),
}


@pytest.mark.parametrize("instant", [TOO_LATE, TOO_EARLY], ids=["late", "early"])
@pytest.mark.parametrize("verb", REFUSED)
def test_time_outside_of_the_years_of_utc_is_rejected(
    client: perdure.Client, verb: str, instant: datetime
) -> None:
    """The error is one of perdure, and not Python's OverflowError."""
    with pytest.raises(
        perdure.InvalidArgument, match="not between the years 1 and 9999"
    ) as refused:
        REFUSED[verb](client, instant)
    assert refused.value.hint


def test_sleep_until_a_time_outside_of_the_years_fails_the_job(lab: Lab) -> None:
    with pytest.raises(perdure.JobFailed, match=r"InvalidArgument: .*not between the years"):
        lab.run(sleeps_too_long)


def test_tiny_duration_is_rounded_up_to_a_microsecond(lab: Lab) -> None:
    """A limit of 0 microseconds would be refused by the database, and with it the whole turn."""
    assert as_interval(LITTLE) == as_timeout(LITTLE) == "1 microseconds"
    assert as_interval(0) == "0 microseconds"
    assert limits_of(LITTLE, None).until(5, 5) == 6
    assert limits_of(None, LITTLE).end(5) == 6
    assert lab.run(gives_little_time) == "TimeoutError"


def test_hook_and_child_begin_when_they_are_due(lab: Lab) -> None:
    job = lab.start(asks_for_later)
    began = datetime.fromisoformat(lab.result(job))
    assert "hook" not in lab.memory(job).get()
    lab.pass_time("3 h")
    hook = datetime.fromisoformat(lab.memory(job).get("hook"))
    child = datetime.fromisoformat(lab.result("in-two-hours"))
    waited = [(at - began) // timedelta(hours=1) for at in (hook, child)]
    assert waited == [1, 2]
    assert lab.memory("in-two-hours").get() == {"kept": True, "entity": "note"}
