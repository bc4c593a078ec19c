"""Lengths of time, where a microsecond is too much."""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure.asks import as_timeout
from perdure.durations import as_interval
from perdure.limits import limits_of
from perdure.testing import Lab

LITTLE = 1e-7

app = perdure.App()


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


@pytest.fixture
def lab(dsn: str) -> Any:
    """Give a lab of the app."""
    with Lab(app, dsn=dsn) as lab:
        yield lab


def test_a_little_time_is_more_than_none(lab: Lab) -> None:
    """It became 0 microseconds, which the database refuses, with all that the code had said."""
    assert as_interval(LITTLE) == as_timeout(LITTLE) == "1 microseconds"
    assert as_interval(0) == "0 microseconds"
    assert limits_of(LITTLE, None).until(5, 5) == 6
    assert limits_of(None, LITTLE).end(5) == 6
    assert lab.run(gives_little_time) == "TimeoutError"
