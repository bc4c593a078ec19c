"""A failover can lose the last turns, so that a worker remembers more than the database. These
tests delete what would be lost; `tests/cluster` loses it with real servers. (T13)"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import perdure
from perdure.workers.engine import Engine
from perdure.workers.turns import Turn
from tests.cluster.machines import wait_for

Connection = psycopg.Connection[Any]
T = "40 s"

PARKED = "name = 'ask' and token is null and due_at = 'infinity'"
ASKED = "name = 'answer'"

LOSE_THE_REQUEST = """
with lost as (delete from tasks where name = 'answer' returning asker_job, asker_task)
update tasks as t
   set asked = 0, awaits = null, until = null, due_at = least(t.due_at, clock() + '1 s')
  from lost as l
 where (t.job_id, t.task) = (l.asker_job, l.asker_task)
"""


@pytest.fixture
def asking(app: perdure.App) -> perdure.App:
    """Give an app in which a hook of another queue is requested before any fact is recorded."""

    @app.activity
    async def work_on() -> None:
        await asyncio.sleep(0.5)

    @app.hook(queue="later")
    async def answer(memory: perdure.AsyncEntity) -> int:
        return 42

    @app.hook
    async def middle(memory: perdure.AsyncEntity) -> int:
        return await answer(memory)

    @app.coordinator
    async def ask(memory: perdure.AsyncEntity) -> int:
        return await answer(memory)

    @app.coordinator
    async def ask_beside_work(memory: perdure.AsyncEntity) -> int:
        answered, _ = await asyncio.gather(answer(memory), work_on())
        return answered

    @app.coordinator
    async def ask_in_hook(memory: perdure.AsyncEntity) -> int:
        return await middle(memory)

    return app


def has_task(connection: Connection, which: str) -> bool:
    """Tell whether a task meets the condition."""
    return connection.execute(f"select from tasks where {which}".encode()).rowcount > 0


@pytest.mark.parametrize(
    ("workflow", "moment"),
    [("ask", PARKED), ("ask_beside_work", ASKED), ("ask_in_hook", ASKED)],
    ids=["parked in memory", "held by a coordinator", "held by a hook"],
)
def test_lost_request_is_sent_again(
    asking: perdure.App,
    work: Callable[..., perdure.Worker],
    client: perdure.Client,
    connection: Connection,
    workflow: str,
    moment: str,
) -> None:
    """[P5] No fact is lost with the request, so the length of the journal hides the loss."""
    work(queues=["default"], poll=0.1, lease=1)
    handle = client.start(workflow)
    wait_for(lambda: has_task(connection, moment))
    assert connection.execute(LOSE_THE_REQUEST).rowcount == 1
    wait_for(lambda: has_task(connection, ASKED))
    work(queues=["later"])
    assert handle.result(T) == 42


def test_turn_that_counts_a_lost_request_as_sent_is_fenced(
    client: perdure.Client, connection: Connection
) -> None:
    """[P6] The worker must send the lost request again before it can park the task."""
    client.start("ask", id="job")
    (claimed,) = connection.execute("select claim('{default}', 'w')").fetchone() or ()
    turn = {"job": "job", "task": "1/main", "token": claimed["token"], "position": 0}

    def answer(**fields: Any) -> str:
        text = json.dumps([turn | fields])
        ((reply,),) = connection.execute("select advance(%s)", [text]).fetchall()
        return str(reply["turns"][0]["state"])

    request = {"key": "a", "kind": "hook", "name": "answer"}
    asks = {"state": "keep", "requests": [request], "asked": 1, "asked_before": 0}
    assert [answer(**asks), answer(**asks)] == ["keep", "keep"]
    assert connection.execute(LOSE_THE_REQUEST).rowcount == 1
    assert answer(state="park", asked=1, asked_before=1) == "fenced"
    assert answer(**asks) == "keep"
    assert answer(state="park", asked=1, asked_before=1) == "parked"


def test_attempt_ends_when_its_coordinator_starts_over(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would go on beside the attempt that the next run makes."""
    seen: list[str] = []
    answer = Engine.answer

    def stale_once(engine: Engine, turn: Turn, answered: dict[str, Any]) -> None:
        if seen == ["begun"] and turn.kind == "coordinator":
            seen.append("stale")
            answered = {"state": "stale"}
        answer(engine, turn, answered)

    @app.activity
    async def hold() -> None:
        seen.append("begun")
        if "stale" not in seen:
            try:
                await asyncio.sleep(60)
            finally:
                seen.append("ended")

    @app.coordinator
    async def holds(memory: perdure.AsyncEntity) -> None:
        await hold()

    monkeypatch.setattr(Engine, "answer", stale_once)
    work()
    client.start(holds).result(T)
    assert seen == ["begun", "stale", "ended", "begun"]
