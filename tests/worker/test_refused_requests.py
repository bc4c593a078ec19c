"""Invalid requests raise at the line that makes them. If the database refuses one nevertheless,
recorded work is not undone. [P1] [P2]"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure.workers import coordinators
from tests.worker.test_until import wait_for

T = "40 s"
STUCK = "select count(*) = 1 from perdure.tasks where stuck_reason is not null"

Asks = Callable[[], Any]

WRONG: dict[str, tuple[Asks, str]] = {
    "a child with a long id": (
        lambda: perdure.child("other", id="x" * 201),
        "a child cannot have the name 'xxxx",
    ),
    "a child without an id": (lambda: perdure.child("other", id=""), "a child must have a name"),
    "a child with a reserved id": (
        lambda: perdure.child("other", id="$schedule/x"),
        "is reserved for perdure",
    ),
    "a child whose memory is a list": (
        lambda: perdure.child("other", context=[1]),  # type: ignore[arg-type]
        "context=[1] is not a memory",
    ),
    "a child without time": (lambda: perdure.child("other", timeout=0), "timeout=0 leaves no time"),
    "a child on a queue with a version": (
        lambda: perdure.child("other", queue="a@b"),
        "the name of a queue must not contain @",
    ),
    "a child on a queue that is a number": (
        lambda: perdure.child("other", queue=5),  # type: ignore[arg-type]
        "queue=5 is not a text",
    ),
    "a hook with too large a priority": (
        lambda: perdure.exec_hook("other", priority=10),
        "a priority must be between 0 (first) and 9 (last), not 10",
    ),
    "a hook with a priority that is no number": (
        lambda: perdure.exec_hook("other", priority=True),
        "priority=True is not a whole number",
    ),
    "a hook without a queue": (
        lambda: perdure.exec_hook("other", queue=""),
        "a queue must have a name",
    ),
    "a hook without a name": (lambda: perdure.exec_hook(""), "must have a name"),
    "a detached hook with too large a priority": (
        lambda: perdure.start_hook("other", priority=12),
        ", not 12",
    ),
    "an item with a negative priority": (
        lambda: perdure.ask_people("approve", priority=-1),
        ", not -1",
    ),
    "an item without a name": (lambda: perdure.ask_people(""), "an item must have a name"),
    "an item for nobody": (
        lambda: perdure.ask_people("approve", assignee=""),
        "an assignee must have a name",
    ),
    "a signal to nobody": (
        lambda: perdure.signal(None, "done"),  # type: ignore[arg-type]
        "None is not an id",
    ),
    "a signal without a name": (
        lambda: perdure.signal("parent", None),  # type: ignore[arg-type]
        "a signal must have a name, not None",
    ),
}


async def error_of_async(ask: Asks) -> str:
    """Give the error that a request raises where it is made."""
    try:
        await ask()
    except perdure.PerdureError as error:
        return error.message if error.hint else "no hint"
    return "nothing"


def error_of(ask: Asks) -> str:
    try:
        ask()
    except perdure.PerdureError as error:
        return error.message if error.hint else "no hint"
    return "nothing"


@pytest.mark.parametrize("place", ["coordinator", "plain", "hook"])
def test_invalid_request_raises_where_it_is_made(
    app: perdure.App, client: perdure.Client, work: Any, place: str
) -> None:
    """The code can catch the error. The task is not stuck, and its activity runs once."""
    charged: list[str] = []

    @app.activity
    async def charge() -> str:
        charged.append("a charge")
        return "receipt"

    @app.hook
    async def asks(memory: perdure.AsyncEntity) -> list[str]:
        await charge()
        return [await error_of_async(ask) for ask, _ in WRONG.values()]

    @app.coordinator
    async def coordinator(memory: perdure.AsyncEntity) -> list[str]:
        await charge()
        return [await error_of_async(ask) for ask, _ in WRONG.values()]

    @app.coordinator
    def plain(memory: perdure.Entity) -> list[str]:
        charge()
        return [error_of(ask) for ask, _ in WRONG.values()]

    @app.coordinator(name="hook")
    async def in_hook(memory: perdure.AsyncEntity) -> list[str]:
        return await asks(memory)

    work()
    errors = client.start(place).result(T)
    assert [
        each for each, (_, part) in zip(errors, WRONG.values(), strict=True) if part not in each
    ] == []
    assert charged == ["a charge"]


def test_refused_request_does_not_undo_recorded_activities(
    app: perdure.App, client: perdure.Client, work: Any, dsn: str
) -> None:
    """The results of the activities are recorded without the refused request, so that `resume()`
    does not run them again."""
    charged: list[str] = []
    condition, timeout = "votes >= 3", 3600.0

    @app.activity
    async def charge(what: str) -> str:
        charged.append(what)
        return f"paid {what}"

    @app.coordinator
    async def sale(memory: perdure.AsyncEntity) -> list[str]:
        receipts = [await charge("a book")]
        receipts += await asyncio.gather(charge("a lamp"), charge("a chair"))
        await memory.until(condition, timeout=timeout)
        return receipts

    work()
    job = client.start(sale)
    wait_for(dsn, STUCK)
    assert job.resume() == 1
    wait_for(dsn, STUCK)
    condition, timeout = "$.votes >= 3", 0.0  # mended, but the condition is never met
    assert job.resume() == 1
    with pytest.raises(perdure.JobFailed, match="TimeoutError"):
        job.result(T)
    assert sorted(charged) == ["a book", "a chair", "a lamp"]


def test_code_that_halts_does_not_undo_recorded_activities(
    app: perdure.App, client: perdure.Client, work: Any, dsn: str
) -> None:
    """The coordinator waits for an event that nobody sets, and is stuck."""
    charged: list[str] = []
    waits = True

    @app.activity
    async def charge() -> str:
        charged.append("a charge")
        return "receipt"

    @app.coordinator
    async def halts(memory: perdure.AsyncEntity) -> str:
        receipt = await charge()
        if waits:
            await asyncio.Event().wait()
        return receipt

    work()
    job = client.start(halts)
    wait_for(dsn, STUCK)
    waits = False
    assert job.resume() == 1
    assert job.result(T) == "receipt"
    assert charged == ["a charge"]


@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "has ended"])
def test_fact_that_is_refused_twice_is_not_sent_again(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    dsn: str,
    monkeypatch: pytest.MonkeyPatch,
    ends: bool,
) -> None:
    """[P10] The job then fails if it has ended, and is stuck otherwise."""
    bodies: list[Any] = []
    write = coordinators.fact_body

    def too_large(fact: Any) -> Any:
        bodies.append(fact)
        return write(fact) | {"value": "x" * 1_100_000}

    @app.activity
    async def charge() -> str:
        return "receipt"

    @app.coordinator
    async def sale(memory: perdure.AsyncEntity) -> str:
        receipt = await charge()
        if not ends:
            await perdure.sleep(3600)
        return receipt

    monkeypatch.setattr(coordinators, "fact_body", too_large)
    work()
    job = client.start(sale)
    if ends:
        with pytest.raises(perdure.JobFailed, match="is too large"):
            job.result(T)
    else:
        wait_for(dsn, STUCK)
        assert "is too large" in str(job.status().waiting_for)
    assert len(bodies) == 2


def test_refused_turn_of_a_stopping_worker_makes_the_task_stuck(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker gives the task back, with a command that is refused. The job must not fail."""

    @app.activity
    async def charge() -> str:
        return "receipt"

    @app.coordinator
    async def sale(memory: perdure.AsyncEntity) -> Any:
        return await asyncio.gather(memory.set(1, "sold"), charge())

    write, settle = coordinators.command_body, coordinators.CoordinatorTurn._settle

    def stops_first(turn: Any, run: Any) -> None:
        turn.engine.is_stopping = True
        settle(turn, run)

    monkeypatch.setattr(coordinators.CoordinatorTurn, "_settle", stops_first)
    monkeypatch.setattr(
        coordinators,
        "command_body",
        lambda op, key, at: write(op, key, at) | {"value": "x" * 1_100_000},
    )
    work()
    job = client.start(sale)
    wait_for(dsn, STUCK)
    assert "is too large" in str(job.status().waiting_for)
