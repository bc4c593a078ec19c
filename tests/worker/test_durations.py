"""Lengths and instants of time, where a microsecond or a year is too much or too little."""

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
    """Give a lab of the app."""
    with Lab(app, dsn=dsn) as lab:
        yield lab


@pytest.mark.parametrize(
    "instant", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
def test_an_instant_comes_back_as_it_was(instant: datetime) -> None:
    assert from_micros(micros(instant)) == instant


class Nowhere(tzinfo):
    """A zone that does not know its offset."""

    def utcoffset(self, at: datetime | None) -> None:
        """Tell nothing."""


@pytest.mark.parametrize("zone", [None, Nowhere()], ids=["none", "unknown"])
def test_an_instant_without_an_offset_is_none(zone: tzinfo | None) -> None:
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
def test_an_instant_beyond_the_years_is_refused(
    client: perdure.Client, verb: str, instant: datetime
) -> None:
    """`OverflowError` came, of Python, for what UTC cannot write in four digits of a year."""
    with pytest.raises(
        perdure.InvalidArgument, match="not between the years 1 and 9999"
    ) as refused:
        REFUSED[verb](client, instant)
    assert refused.value.hint


def test_a_sleep_beyond_the_years_fails_the_job(lab: Lab) -> None:
    with pytest.raises(perdure.JobFailed, match=r"InvalidArgument: .*not between the years"):
        lab.run(sleeps_too_long)


def test_a_little_time_is_more_than_none(lab: Lab) -> None:
    """It became 0 microseconds, which the database refuses, with all that the code had said."""
    assert as_interval(LITTLE) == as_timeout(LITTLE) == "1 microseconds"
    assert as_interval(0) == "0 microseconds"
    assert limits_of(LITTLE, None).until(5, 5) == 6
    assert limits_of(None, LITTLE).end(5) == 6
    assert lab.run(gives_little_time) == "TimeoutError"


def test_a_hook_and_a_child_begin_when_they_are_due(lab: Lab) -> None:
    job = lab.start(asks_for_later)
    began = datetime.fromisoformat(lab.result(job))
    assert "hook" not in lab.memory(job).get()
    lab.pass_time("3 h")
    told = datetime.fromisoformat(lab.memory(job).get("hook"))
    child = datetime.fromisoformat(lab.result("in-two-hours"))
    waited = [(at - began) // timedelta(hours=1) for at in (told, child)]
    assert waited == [1, 2]
    assert lab.memory("in-two-hours").get() == {"kept": True, "entity": "note"}
