"""Values that are not of the type they should have: results, answers, payloads and arguments."""

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
    """A model that can hold a value that its class rejects."""

    total: float = Field(default=0, ge=0)


@dataclass
class Approval:
    """The type of the answers of people."""

    by: str


def broken() -> Bill:
    """Give an invalid model, because pydantic does not validate an assignment."""
    bill = Bill()
    bill.total = -1.5
    return bill


def test_job_whose_result_is_an_invalid_model_fails(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """(C37) Otherwise the job would complete with a result that nobody can read."""

    @app.coordinator
    async def bill(memory: perdure.AsyncEntity) -> Bill:
        return broken()

    work()
    with pytest.raises(perdure.JobFailed, match="cannot be read back") as raised:
        client.start(bill).result(T)
    assert raised.value.failure["code"] == "PD103"


def test_attempt_whose_result_is_an_invalid_model_is_retried(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """(C37) Otherwise the result would be recorded, and fail the job where it is read."""
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


def test_result_of_another_type_raises_value_mistyped(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """The error of the type itself is the cause."""

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
    """Ask people twice, and wait for a signal; give the answers, and the errors as texts."""
    answers: list[Any] = []
    for wait in (perdure.ask_people, perdure.ask_people, perdure.wait_for):
        try:
            answers.append((await wait("it", **ASKED)).by)
        except perdure.ValueMistyped as error:
            answers.append(str(error))
    return answers


def ask_plainly() -> list[Any]:
    """Do the same in plain code."""
    answers: list[Any] = []
    for wait in (perdure.ask_people, perdure.ask_people, perdure.wait_for):
        try:
            answers.append(wait("it", **ASKED).by)
        except perdure.ValueMistyped as error:
            answers.append(str(error))
    return answers


@pytest.mark.parametrize("inside", ["coordinator", "plain coordinator", "hook", "plain hook"])
def test_error_of_a_mistyped_answer_names_its_item_or_signal(
    app: perdure.App, client: perdure.Client, work: Any, inside: str
) -> None:
    """(C37) The code can catch the error and ask again."""

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
        [item] = wait_for_items(client)
        item.resolve(answer)
    first, second, third = handle.result(T)
    assert first.startswith("the resolution of item it is not of the type")
    assert "It is 'yes': a str was stored, not a dict" in first
    assert second == "jane"
    assert third.startswith("the payload of signal it is not of the type")
    assert "It is 5: " in third


def wait_for_items(client: perdure.Client) -> list[Any]:
    """Wait until people are asked something, and give the open items."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if found := list(client.items()):
            return found
        time.sleep(0.01)
    return []


@pytest.mark.parametrize("kind", ["coordinator", "plain coordinator", "hook", "activity"])
def test_error_of_a_mistyped_argument_names_the_argument(
    app: perdure.App, client: perdure.Client, work: Any, kind: str
) -> None:
    """The detail of the error contains the value."""

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


def test_error_of_a_mistyped_keyword_argument_names_it(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def pays(memory: perdure.AsyncEntity, bill: Bill, **more: Approval) -> None: ...

    work()
    for given, wrong in [({"bill": 5}, "bill"), ({"bill": {"total": 1}, "by": 3}, "by")]:
        with pytest.raises(perdure.JobFailed, match=rf"argument {wrong} of pays\(\)"):
            client.start("pays", **given).result(T)


@pytest.mark.parametrize("wrong", ["1", 1.0, True, 2**63], ids=str)
def test_mistyped_expected_version_is_rejected_inside_a_job(
    app: perdure.App, client: perdure.Client, work: Any, wrong: Any
) -> None:
    """The database would read another version from it, and report a conflict with that."""

    @app.coordinator
    async def sets(memory: perdure.AsyncEntity) -> None:
        await memory.set(1, "n", expected_version=wrong)

    work()
    with pytest.raises(
        perdure.JobFailed, match=r"InvalidArgument: expected_version=.* not a whole"
    ):
        client.start(sets).result(T)
