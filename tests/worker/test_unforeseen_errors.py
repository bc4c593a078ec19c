"""An error of this package itself ends or parks the task that met it. [P8]

A task that stayed with its worker would be held for ever, since its lease is renewed.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure
from perdure.workers import coordinators
from perdure.workers.activities import ActivityTurn
from perdure.workers.coordinators import CoordinatorTurn
from perdure.workers.hooks import HookTurn
from perdure.workers.pending_events import PendingEvents
from perdure.workers.waits import Waits
from tests.patience import wait_until

T = "20 s"


def break_once(monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
    """Let a method raise when it is called for the first time."""
    method = getattr(kind, name)

    def fails(*_: Any) -> None:
        monkeypatch.setattr(kind, name, method)
        raise LookupError("a bug")

    monkeypatch.setattr(kind, name, fails)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(PendingEvents, "add"), (CoordinatorTurn, "_poll")],
    ids=["an activity has ended", "an alarm rings"],
)
def test_error_of_a_coordinator_parks_it(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
    kind: type,
    name: str,
) -> None:
    @app.activity
    async def takes_a_while() -> int:
        await asyncio.sleep(0.5)
        return 5

    @app.coordinator
    async def job(memory: perdure.AsyncEntity) -> int:
        return await takes_a_while()

    if name == "add":  # no look into the inbox may be on its way when the activity ends
        for first in ("FIRST_POLL", "FIRST_POLL_ALONE"):
            monkeypatch.setattr(coordinators, first, 60.0)
    break_once(monkeypatch, kind, name)
    work()
    handle = client.start(job)
    wait_until(lambda: "a bug" in (handle.status().stuck or ""))
    assert handle.resume() == 1
    assert handle.result(T) == 5


@pytest.mark.parametrize(
    ("kind", "name"),
    [(HookTurn, "_final_plan"), (ActivityTurn, "_done")],
    ids=["a hook has ended", "a dispatched activity has ended"],
)
def test_error_of_a_hook_or_dispatched_activity_is_given_to_its_asker(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
    kind: type,
    name: str,
) -> None:
    @app.activity(queue="default")
    async def there() -> None: ...

    @app.hook
    async def ends(memory: perdure.AsyncEntity) -> None: ...

    @app.coordinator
    async def job(memory: perdure.AsyncEntity) -> None:
        await (there() if kind is ActivityTurn else ends(memory))

    break_once(monkeypatch, kind, name)
    work()
    with pytest.raises(perdure.JobFailed, match="LookupError: a bug"):
        client.start(job).result(T)


def test_hook_that_met_an_error_while_something_is_sent_is_claimed_again(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent may be recorded or not, so its journal is read again when its lease ends."""
    runs: list[str] = []

    def tick(waits: Waits) -> None:
        monkeypatch.undo()
        waits._turn.in_flight = True
        raise LookupError("a bug")

    @app.hook
    async def waits(memory: perdure.AsyncEntity) -> int:
        runs.append("begun")
        await perdure.sleep(0.1)
        return 5

    @app.coordinator
    async def job(memory: perdure.AsyncEntity) -> Any:
        return await waits(memory)

    monkeypatch.setattr(Waits, "tick", tick)
    work(lease=1)
    assert client.start(job).result(T) == 5
    assert len(runs) > 1
