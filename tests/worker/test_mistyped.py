"""What is given as a model and is none."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field

import perdure

T = 30


class Bill(BaseModel):
    """A result that its own class can refuse."""

    total: float = Field(default=0, ge=0)


def broken() -> Bill:
    """Give what pydantic takes without a look: an assigned value."""
    bill = Bill()
    bill.total = -1.5
    return bill


def test_a_job_whose_result_is_no_valid_model_fails(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """(C37) It was completed, and its result could never be read."""

    @app.coordinator
    async def bill(memory: perdure.AsyncEntity) -> Bill:
        return broken()

    work()
    with pytest.raises(perdure.JobFailed, match="cannot be read back") as raised:
        client.start(bill).result(T)
    assert raised.value.failure["code"] == "PD103"


def test_an_attempt_that_gives_no_valid_model_is_tried_again(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """(C37) Its result was recorded as a success, and the job failed where it read it."""
    made: list[int] = []

    @app.activity(retry=perdure.Retry(attempts=3, delay=0))
    async def measure() -> Bill:
        made.append(1)
        return Bill(total=3) if len(made) == 3 else broken()

    @app.coordinator
    async def bill(memory: perdure.AsyncEntity) -> Bill:
        return await measure()

    work()
    assert client.start(bill).result(T) == Bill(total=3)
    assert len(made) == 3
