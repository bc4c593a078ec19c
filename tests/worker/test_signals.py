"""Signals from Python: typed payloads, signals to many jobs, signals that start their job. [P5]"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict

import psycopg
import pydantic
import pytest

import perdure
from perdure.testing import Lab
from perdure.workers.turns import Turn


@dataclass
class Approval:
    """A payload as a dataclass."""

    by: str
    amount: int


class Model(pydantic.BaseModel):
    """The same payload as a pydantic model."""

    by: str
    amount: int


class Note(TypedDict):
    """The same payload as a TypedDict."""

    by: str
    amount: int


SENT = {"by": "jane", "amount": 3}


@pytest.mark.parametrize(
    ("type_", "payload", "expected"),
    [
        (Approval, Approval("jane", 3), Approval("jane", 3)),
        (Model, Model(by="jane", amount=3), Model(by="jane", amount=3)),
        (Note, SENT, SENT),
        (list[Approval], [SENT], [Approval("jane", 3)]),
        (None, Approval("jane", 3), SENT),
    ],
    ids=["dataclass", "model", "dictionary", "list", "no type"],
)
def test_payload_arrives_as_the_awaited_type(
    app: perdure.App, client: perdure.Client, work: Any, type_: Any, payload: Any, expected: Any
) -> None:
    """[P4] (C37) Coordinators and hooks get the same value the first time and on replay."""
    received: list[Any] = []

    @app.coordinator
    async def coordinator(memory: perdure.AsyncEntity) -> None:
        received.append(await perdure.wait_for("go", type=type_))
        await perdure.wait_for("again")

    @app.coordinator
    def plain(memory: perdure.Entity) -> None:
        received.append(perdure.wait_for("go", type=type_, timeout="1 h"))
        perdure.wait_for("again")

    @app.hook
    async def hook(memory: perdure.AsyncEntity) -> None:
        received.append(await perdure.wait_for("go", type=type_, timeout="1 h"))
        await perdure.wait_for("again")

    @app.coordinator
    async def with_hook(memory: perdure.AsyncEntity) -> None:
        await hook(memory)

    handles = [client.start(workflow) for workflow in (coordinator, plain, with_hook)]
    worker = work()
    for handle in handles:
        handle.signal("go", payload)
        wait_until_job_waits_for(client, handle.id, "again")
    worker.stop()
    work()
    for handle in handles:
        handle.signal("again")
        handle.result(timeout=30)

    assert len(received) > len(handles)
    assert all(each == expected for each in received)


def wait_until_job_waits_for(client: perdure.Client, job: str, signal: str) -> None:
    """Return once a task of the job waits for the signal."""
    while f"signal {signal}" not in str(waiting(client, job)):
        time.sleep(0.005)


def waiting(client: perdure.Client, job: str) -> Any:
    """Read what the tasks of the job wait for."""
    with client._source.connect("test") as connection:
        return connection.execute(
            "select waits_for from perdure.waiting where job_id = %s", [job]
        ).fetchall()


def test_payload_of_another_type_raises_where_it_is_awaited(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def workflow(memory: perdure.AsyncEntity) -> str:
        try:
            await perdure.wait_for("go", type=Model)
        except perdure.ValueMistyped:
            return "does not fit"
        return "fits"

    work()
    handle = client.start(workflow)
    handle.signal("go", {"by": "jane"})
    assert handle.result(timeout=30) == "does not fit"


def test_signal_found_and_cancel_found_select_jobs_by_memory(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """(E15) Both reach the running jobs whose memories meet the conditions, page by page."""

    @app.coordinator(entity="agent")
    async def agent(memory: perdure.AsyncEntity) -> Any:
        return await perdure.wait_for("go")

    work()
    for number in range(4):
        client.start(agent, id=f"a{number}", context={"n": number % 2})
    signalled = client.signal_found("agent", {"n": 1}, "go", {"x": [1]}, key="k")
    assert signalled == [("a1", True), ("a3", True)]
    assert client.handle("a3").result(timeout=30) == {"x": [1]}
    assert client.handle("a1").result(timeout=30) == {"x": [1]}
    assert client.signal_found("agent", {"n": {"$exists": True}}, "go", after="a1") == [
        ("a2", True)
    ]
    assert client.cancel_found("agent", {}, "enough", limit=1) == [("a0", True)]
    with pytest.raises(perdure.JobCancelled):
        client.handle("a0").result(timeout=30)


def test_repeated_call_without_key_reports_its_signals_as_sent(
    client: perdure.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P12] A client repeats a call whose reply is lost. Without a key of the caller's, the
    repetition reports the signals as sent, as with one signal. With one, it reports that they were
    sent before."""
    call = client._pool.call

    def call_twice(request: Any) -> Any:
        call(request)
        return call(request)

    jobs = [client.start("agent", id=f"a{number}", entity="agent") for number in range(2)]
    monkeypatch.setattr(client._pool, "call", call_twice)
    assert client.signal_found("agent", {}, "go") == [("a0", True), ("a1", True)]
    assert client.signal_found("agent", {}, "go", key="k") == [("a0", False), ("a1", False)]
    assert [job.signal("go") for job in jobs] == [True, True]


def test_signal_with_start_starts_a_job_or_signals_the_running_one(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """[P1] [P5] Two calls start one job, which gets both signals in order. A finished job refuses
    the call, unless it may begin a new run."""

    @app.coordinator
    async def cart(memory: perdure.AsyncEntity, owner: str, size: int = 1) -> Any:
        items = [await perdure.wait_for("add") for _ in range(size)]
        return [owner, *items]

    first = client.signal_with_start(cart, "jane", "add", "pen", "Jane", size=2)
    client.signal_with_start(cart, "jane", "add", "ink", "Jane", size=2)
    work()
    assert first.result(timeout=30) == ["Jane", "pen", "ink"]
    with pytest.raises(perdure.JobFinished):
        client.signal_with_start("cart", "jane", "add", "cap", "Jane")
    again = client.signal_with_start(
        cart, "jane", "add", "cap", "Jane", size=1, if_exists="new_run"
    )
    assert again.result(timeout=30) == ["Jane", "cap"]
    for wrong in ({"if_exists": "error"}, {"due_at": datetime.now(UTC)}):
        with pytest.raises(perdure.InvalidArgument):
            client.signal_with_start(cart, "jane", "add", "cap", "Jane", **wrong)


def test_async_client_signals_and_cancels_many_jobs(
    dsn: str, app: perdure.App, work: Any, connection: psycopg.Connection[Any]
) -> None:
    """The async client has `signal_with_start`, `signal_found` and `cancel_found`, too."""

    @app.coordinator(entity="agent")
    async def agent(memory: perdure.AsyncEntity) -> Any:
        return [await perdure.wait_for("go", type=Approval), await perdure.wait_for("go")]

    async def main() -> Any:
        async with await perdure.connect_async(dsn) as client:
            handle = await client.signal_with_start(agent, "j", "go", Approval("jane", 3))
            assert await client.signal_found("agent", {}, "go", 4) == [("j", True)]
            result = await handle.result(timeout=30)
            assert await client.cancel_found("agent", {}) == []
            return result

    work()
    assert asyncio.run(main()) == [SENT, 4]


BACKLOG = 250


def test_signal_backlog_arrives_in_order_in_parts_of_a_hundred(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P5] (C37) No answer brings a turn more than a hundred signals, in any kind of code."""
    parts: list[int] = []
    inbox_of = Turn.inbox_of

    def counted(turn: Turn, answer: Any, taken: set[Any]) -> Any:
        parts.append(len(answer.get("messages") or ()))
        return inbox_of(turn, answer, taken)

    monkeypatch.setattr(Turn, "inbox_of", counted)

    @app.activity
    async def settle(number: int) -> int:
        return number

    @app.hook
    async def in_a_hook(memory: perdure.AsyncEntity) -> list[int]:
        return [await perdure.wait_for("to the hook") for _ in range(BACKLOG)]

    @app.coordinator
    def in_plain_code(memory: perdure.Entity) -> list[int]:
        return [perdure.wait_for("go") for _ in range(BACKLOG)]

    @app.coordinator
    async def in_async_code(memory: perdure.AsyncEntity) -> list[int]:
        hook = in_a_hook.start()
        received = [await settle(await perdure.wait_for("go")) for _ in range(BACKLOG)]
        return received if received == await hook else []

    handles = [client.start(in_plain_code), client.start(in_async_code)]
    for handle in handles:
        for number in range(BACKLOG):
            for name in ("go", "to the hook"):
                handle.signal(name, number)
    work()
    assert [handle.result("60 s") for handle in handles] == [[*range(BACKLOG)]] * 2
    assert max(parts) <= 100


@pytest.mark.parametrize("then", ["next", "other"])
def test_signal_of_a_cancelled_wait_goes_to_the_next_wait(
    app: perdure.App, client: perdure.Client, work: Any, then: str
) -> None:
    """[P5] The hook cancels a wait that has its answer before the code behind it continues. The
    signal then goes to the next wait, or to another one that already waits."""

    async def cancel_when_answered(waiting: asyncio.Task[Any]) -> None:
        while not getattr(getattr(waiting, "_fut_waiter", None), "done", bool)():  # noqa: ASYNC110
            await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting

    @app.hook
    async def listens(memory: perdure.AsyncEntity) -> Any:
        first = asyncio.ensure_future(perdure.wait_for("go", timeout="1 h"))
        if then == "next":
            await cancel_when_answered(first)
            await memory.set(True, "is_cancelled")
            return [await perdure.wait_for("go", timeout="20 s") for _ in range(2)]
        await asyncio.sleep(0)
        others = [asyncio.ensure_future(perdure.wait_for("go", timeout="20 s")) for _ in range(2)]
        await cancel_when_answered(first)
        await memory.set(True, "is_cancelled")
        return await asyncio.gather(*others)

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await listens(memory)

    handle = client.start(asks)
    work()
    time.sleep(0.2)
    handle.signal("go", 1)
    handle.memory.until("$.is_cancelled == true", timeout="20 s")
    handle.signal("go", 2)
    assert handle.result("40 s") == [1, 2]


def test_short_waits_in_a_row_receive_a_signal(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P5] A hook looks into its inbox even if it begins a new wait every 3 ms. Hints are lost
    here, so that only this look can find the signal."""
    monkeypatch.setattr(Turn, "take_hint", lambda turn: None)

    @app.hook
    async def listens(memory: perdure.AsyncEntity) -> Any:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.003):
                    return await perdure.wait_for("go")

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await listens(memory)

    handle = client.start(asks)
    work()
    time.sleep(0.2)
    handle.signal("go", 1)
    assert handle.result("20 s") == 1


@pytest.mark.parametrize("names", ["go", ("stop", "go")])
def test_job_runs_again_for_signal_that_nobody_has_taken(dsn: str, names: Any) -> None:
    """[P5] With the same arguments and the same memory; the last run gives the result."""
    app = perdure.App()

    @app.coordinator(again_for=names)
    async def takes_one(memory: perdure.AsyncEntity, word: str) -> str:
        number = await perdure.wait_for("go")
        return f"{word} {number} {await memory.increment('runs')}"

    with Lab(app, dsn=dsn) as lab:
        lab.client.pause_queue("default")
        handle = lab.client.start(takes_one, "go", id="j")
        for number in range(3):
            handle.signal("go", number)
        handle.signal("other")
        lab.client.resume_queue("default")
        assert lab.result(handle) == "go 2 3"
        assert handle.status().run == 3
        lab.check()


def test_name_of_signal_to_run_again_for_is_checked(app: perdure.App) -> None:
    with pytest.raises(perdure.InvalidName):
        app.coordinator(again_for=["go", ""])(lambda memory: None)
