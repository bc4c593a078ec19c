"""What is given as a model and is none; what was stored and is not of the type that is read."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest
from pydantic import BaseModel, Field

import perdure

T = 30


class Bill(BaseModel):
    """A result that its own class can refuse."""

    total: float = Field(default=0, ge=0)


@dataclass
class Approval:
    """What people are to answer."""

    by: str


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


def test_a_result_of_another_type_is_told_as_an_error_of_ours(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """The type's own error came, which is none of this package."""

    @app.coordinator
    async def older(memory: perdure.AsyncEntity) -> Any:
        return {"total": -1.5}

    @app.coordinator
    async def newer(memory: perdure.AsyncEntity) -> Bill:
        return Bill()

    @app.hook
    async def count(memory: perdure.AsyncEntity) -> Any:
        return "no bill"

    @app.hook
    async def counted(memory: perdure.AsyncEntity) -> Bill:
        return Bill()

    work()
    client.start(older, id="j").result(T)
    handle = client.handle("j", newer)
    with pytest.raises(perdure.ValueMistyped, match="the result of job j ") as raised:
        handle.result(T)
    assert isinstance(raised.value.__cause__, pydantic.ValidationError)
    assert "total" in (raised.value.detail or "")
    task = handle.hook(count)
    with pytest.raises(perdure.ValueMistyped, match=f"the answer of {re.escape(task)} of job j "):
        handle.hook_result(task, counted, timeout=T)


ASKED: dict[str, Any] = {"type": Approval, "timeout": T}


async def ask() -> list[Any]:
    """Ask people twice, and wait for a signal; tell what came."""
    told: list[Any] = []
    for wait in (perdure.ask_people, perdure.ask_people, perdure.wait_for):
        try:
            told.append((await wait("it", **ASKED)).by)
        except perdure.ValueMistyped as error:
            told.append(str(error))
    return told


def ask_plainly() -> list[Any]:
    """Do the same in plain code."""
    told: list[Any] = []
    for wait in (perdure.ask_people, perdure.ask_people, perdure.wait_for):
        try:
            told.append(wait("it", **ASKED).by)
        except perdure.ValueMistyped as error:
            told.append(str(error))
    return told


@pytest.mark.parametrize("inside", ["coordinator", "plain coordinator", "hook", "plain hook"])
def test_what_people_answer_amiss_says_whose_answer_it_is(
    app: perdure.App, client: perdure.Client, work: Any, inside: str
) -> None:
    """(C37) The job failed of "a str was stored, not a dict". It may catch it and ask again."""

    @app.hook
    async def hook(memory: perdure.AsyncEntity) -> list[Any]:
        return await ask()

    @app.hook
    def plain_hook(memory: perdure.Entity) -> list[Any]:
        return ask_plainly()

    @app.coordinator
    async def coordinator(memory: perdure.AsyncEntity) -> list[Any]:
        if inside == "coordinator":
            return await ask()
        return await (hook(memory) if inside == "hook" else plain_hook(memory))

    @app.coordinator
    def plain_coordinator(memory: perdure.Entity) -> list[Any]:
        return ask_plainly()

    work()
    handle = client.start(plain_coordinator if inside == "plain coordinator" else coordinator)
    handle.signal("it", 5)
    for answer in ("yes", {"by": "jane"}):
        [item] = until_asked(client)
        item.resolve(answer)
    first, second, third = handle.result(T)
    assert first.startswith("the resolution of item it is not of the type")
    assert "It is 'yes': a str was stored, not a dict" in first
    assert second == "jane"
    assert third.startswith("the payload of signal it is not of the type")
    assert "It is 5: " in third


def until_asked(client: perdure.Client) -> list[Any]:
    """Wait until somebody is asked for something."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if found := list(client.items()):
            return found
        time.sleep(0.01)
    return []


@pytest.mark.parametrize("kind", ["coordinator", "plain coordinator", "hook", "activity"])
def test_an_argument_that_is_none_is_named(
    app: perdure.App, client: perdure.Client, work: Any, kind: str
) -> None:
    """The job failed of "a int was stored, not a dict", as if all arguments were one."""

    @app.activity(name="activity")
    async def activity(bill: Bill, *by: Approval) -> None: ...

    @app.hook(name="hook")
    async def hook(memory: perdure.AsyncEntity, bill: Bill, *by: Approval) -> None: ...

    @app.coordinator(name="coordinator")
    async def coordinator(memory: perdure.AsyncEntity, bill: Bill, *by: Approval) -> None: ...

    @app.coordinator(name="plain coordinator")
    def plain(memory: perdure.Entity, bill: Bill, *by: Approval) -> None: ...

    @app.coordinator(name="asks")
    async def asks(memory: perdure.AsyncEntity, *given: Any) -> None:
        ask: Any = hook
        await (activity(*given) if kind == "activity" else ask(memory, *given))

    work()
    started = kind if "coordinator" in kind else "asks"
    for given, wrong in [
        ([5], "argument bill of .* not of its type: .* valid dictionary"),
        ([{"total": -1}], "argument bill of .* greater than or equal to 0"),
        ([{"total": 1}, {"by": "jane"}, "joe"], "argument 3 of .* a str was stored"),
    ]:
        with pytest.raises(perdure.JobFailed, match=f"(?s)ValueMistyped: {wrong}") as raised:
            client.start(started, *given).result(T)
        assert repr(given[-1]) in raised.value.failure["detail"]


def test_an_argument_is_named_that_was_given_by_its_name(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def pays(memory: perdure.AsyncEntity, bill: Bill, **more: Approval) -> None: ...

    work()
    for given, wrong in [({"bill": 5}, "bill"), ({"bill": {"total": 1}, "by": 3}, "by")]:
        with pytest.raises(perdure.JobFailed, match=rf"argument {wrong} of pays\(\)"):
            client.start("pays", **given).result(T)
