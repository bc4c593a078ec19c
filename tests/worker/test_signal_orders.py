"""Signal, deadline and cancel of one wait, in every order: the first event decides. [P5] [P7]

Each order is tested in three ways: with a worker that watches the events, with one that begins
after all of them, and with one that takes over from a worker that was lost before it recorded
anything. The tests move the clock; nobody sleeps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import permutations
from typing import Any

import psycopg
import pytest

import perdure
from perdure.basics.durations import seconds

LIMIT = "60 s"
EVENTS = ("send", "time out", "cancel")
DECIDES = {"send": ["got", "it"], "time out": ["late"], "cancel": "cancelled"}

Orders = list[tuple[str, ...]]


def orders(events: tuple[str, ...]) -> Orders:
    """Give every order of every choice of events, with the wait somewhere before the deadline."""
    chosen = [order for size in range(1, len(events) + 1) for order in permutations(events, size)]
    with_wait = [
        (*order[:place], "wait", *order[place:])
        for order in chosen
        for place in range(len(order) + 1)
        if "time out" not in order[:place]
    ]
    return sorted(set(with_wait))


def outcome(order: tuple[str, ...]) -> Any:
    """Give the outcome of the wait, which the first event decides. Before the wait, a cancel
    decides against a signal: it reaches the code at once, a signal only at the wait."""
    begins = order.index("wait")
    first = "cancel" if "cancel" in order[:begins] else next(e for e in order if e != "wait")
    return DECIDES[first]


class Jobs:
    """Jobs that each have one waiting task, and the events that happen to all of them."""

    def __init__(
        self, client: perdure.Client, connection: psycopg.Connection[Any], workflows: list[str]
    ):
        self._handles = [client.start(workflow, id=workflow) for workflow in workflows]
        self._connection = connection

    def send(self) -> None:
        """Send the signal; a job may already have ended while a worker watches."""
        for handle in self._handles:
            with suppress(perdure.JobFinished):
                handle.signal("go", "it")

    def time_out(self) -> None:
        """Move the clock past the deadline of the wait."""
        self._connection.execute("update perdure.moved set by = by + interval '61 s'")

    def cancel(self) -> None:
        """Request to cancel the jobs."""
        for handle in self._handles:
            handle.cancel()

    def wait_begins(self) -> None:
        """Return when each job is parked at its wait, or has ended."""
        query = """
            select count(*)
              from jobs as j
             where j.status = 'running'
               and not exists (
                select
                  from tasks as t
                 where t.job_id = j.id
                   and t.token is null
                   and t.awaits = '{go}')
            """
        while self._connection.execute(query.encode()).fetchone() != (0,):
            time.sleep(0.005)

    def wait_begins_at_a_lost_worker(self) -> None:
        """Claim each job for a worker that is never heard of again."""
        query = (
            "select from perdure.claim('{default}', 'lost', max_tasks => 9, lease_for => '0.1 s')"
        )
        self._connection.execute(query)

    def results(self) -> dict[str, Any]:
        """Wait for the jobs to end, and give their results, or "cancelled"."""
        return {handle.id: _result(handle) for handle in self._handles}


def _result(handle: perdure.Handle) -> Any:
    try:
        return handle.result(timeout=30)
    except perdure.JobCancelled:
        return "cancelled"


@pytest.fixture
def connection(connect: Callable[[], psycopg.Connection[Any]]) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection to a database whose clock the test moves."""
    connection = connect()
    connection.execute("create table perdure.moved (by interval)")
    connection.execute("insert into perdure.moved values ('0 s')")
    connection.execute(
        """
        create or replace function perdure.clock() returns timestamptz
        language plpgsql volatile set search_path = pg_catalog, perdure, pg_temp
        as 'begin return clock_timestamp() + (select m.by from perdure.moved as m); end'
        """
    )
    return connection


@pytest.fixture
def app() -> perdure.App:  # noqa: C901 - a function that defines several programs counts as all of them
    """Give an app in which every kind of code waits for the signal."""
    app = perdure.App()

    async def receive() -> list[Any]:
        try:
            return ["got", await perdure.wait_for("go", timeout=LIMIT)]
        except TimeoutError:
            return ["late"]

    def receive_plain() -> list[Any]:
        try:
            return ["got", perdure.wait_for("go", timeout=LIMIT)]
        except TimeoutError:
            return ["late"]

    @app.coordinator
    async def coordinator(memory: perdure.AsyncEntity) -> list[Any]:
        return await receive()

    @app.coordinator
    async def by_asyncio(memory: perdure.AsyncEntity) -> list[Any]:
        try:
            async with asyncio.timeout(seconds(LIMIT)):
                return ["got", await perdure.wait_for("go")]
        except TimeoutError:
            return ["late"]

    @app.coordinator
    def plain_coordinator(memory: perdure.Entity) -> list[Any]:
        return receive_plain()

    @app.hook
    async def hears(memory: perdure.AsyncEntity) -> list[Any]:
        return await receive()

    @app.hook
    def hears_plain(memory: perdure.Entity) -> list[Any]:
        return receive_plain()

    @app.coordinator
    async def hook(memory: perdure.AsyncEntity) -> list[Any]:
        return await hears(memory)

    @app.coordinator
    async def plain_hook(memory: perdure.AsyncEntity) -> list[Any]:
        return await hears_plain(memory)

    return app


def play(jobs: Jobs, order: tuple[str, ...], work: Any, *, watched: bool) -> None:
    """Let the events happen in this order. The worker that begins the wait stays if `watched`;
    otherwise it stops at the wait, and another one begins after all events."""
    steps = {"send": jobs.send, "time out": jobs.time_out, "cancel": jobs.cancel}
    for event in order:
        if event != "wait":
            steps[event]()
            continue
        worker = work(poll="50 ms", slots=3)
        jobs.wait_begins()
        if not watched:
            worker.stop()
    if not watched:
        work(poll="50 ms", slots=3)


@pytest.mark.parametrize("order", orders(EVENTS), ids=", ".join)
@pytest.mark.parametrize("watched", [True, False], ids=["seen at once", "seen together"])
def test_first_of_signal_deadline_and_cancel_decides(
    client: perdure.Client,
    connection: psycopg.Connection[Any],
    work: Any,
    order: tuple[str, ...],
    watched: bool,
) -> None:
    """[P5] [P7] (E1) (E2) A worker watches the events in coordinators, or begins after them."""
    workflows = ["coordinator", "by_asyncio", "plain_coordinator"]
    jobs = Jobs(client, connection, workflows)
    play(jobs, order, work, watched=watched)
    assert jobs.results() == dict.fromkeys(workflows, outcome(order))


@pytest.mark.parametrize("order", orders(EVENTS), ids=", ".join)
def test_first_event_decides_when_the_worker_of_the_wait_is_lost(
    client: perdure.Client, connection: psycopg.Connection[Any], work: Any, order: tuple[str, ...]
) -> None:
    """[P5] [P7] (E1) (E2) The next worker runs the code from its beginning, so a cancel comes
    before the wait and always decides."""
    workflows = ["coordinator", "by_asyncio", "plain_coordinator"]
    jobs = Jobs(client, connection, workflows)
    steps = {"send": jobs.send, "time out": jobs.time_out, "cancel": jobs.cancel}
    for event in order:
        (steps | {"wait": jobs.wait_begins_at_a_lost_worker})[event]()
    work(poll="50 ms", slots=3)
    is_cancelled = "cancel" in order  # before the wait, for a worker that begins after all events
    wanted = DECIDES["cancel"] if is_cancelled else outcome(order)
    assert jobs.results() == dict.fromkeys(workflows, wanted)


@pytest.mark.parametrize("workflow", ["looks", "looks_plain", "hook_looks"])
def test_wait_with_timeout_zero_takes_an_earlier_signal(
    app: perdure.App, client: perdure.Client, work: Any, workflow: str
) -> None:
    """[P5] The signal was sent before the wait, to a task that nobody has run yet."""
    add_looks(app)
    sent, unsent = client.start(workflow), client.start(workflow)
    sent.signal("go", "it")
    work(poll="50 ms")
    assert (sent.result(timeout=30), unsent.result(timeout=30)) == ("it", "nothing")


def add_looks(app: perdure.App) -> None:
    """Add code that checks whether a signal has arrived, and does not wait for it."""

    async def look() -> Any:
        try:
            return await perdure.wait_for("go", timeout=0)
        except TimeoutError:
            return "nothing"

    @app.coordinator
    async def looks(memory: perdure.AsyncEntity) -> Any:
        return await look()

    @app.coordinator
    def looks_plain(memory: perdure.Entity) -> Any:
        try:
            return perdure.wait_for("go", timeout=0)
        except TimeoutError:
            return "nothing"

    @app.hook
    async def looks_too(memory: perdure.AsyncEntity) -> Any:
        return await look()

    @app.coordinator
    async def hook_looks(memory: perdure.AsyncEntity) -> Any:
        return await looks_too(memory)


@pytest.mark.parametrize("order", orders(EVENTS[:2]), ids=", ".join)
@pytest.mark.parametrize("watched", [True, False], ids=["seen at once", "seen together"])
def test_first_of_signal_and_deadline_decides_in_a_hook(
    client: perdure.Client,
    connection: psycopg.Connection[Any],
    work: Any,
    order: tuple[str, ...],
    watched: bool,
) -> None:
    """[P5] [P7] (C40) A worker watches the events, or begins after them."""
    workflows = ["hook", "plain_hook"]
    jobs = Jobs(client, connection, workflows)
    play(jobs, order, work, watched=watched)
    assert jobs.results() == dict.fromkeys(workflows, outcome(order))


class JobsOfHooks(Jobs):
    """Jobs that each have one waiting hook; `cancel` cancels the hook."""

    def cancel(self) -> None:
        """Request to cancel the hooks."""
        query = "select task from tasks where job_id = %s and queue = 'default' and kind = 'hook'"
        for handle in self._handles:
            for (task,) in self._connection.execute(query, [handle.id]).fetchall():
                handle.cancel_hook(task)


@pytest.mark.parametrize(
    "order",
    [order for order in orders(EVENTS) if "cancel" in order[order.index("wait") :]],
    ids=", ".join,
)
def test_first_of_signal_deadline_and_cancel_decides_in_a_hook(
    client: perdure.Client,
    connection: psycopg.Connection[Any],
    work: Any,
    app: perdure.App,
    order: tuple[str, ...],
) -> None:
    """[P5] [P7] (E1) (C40) A worker sees the cancel late, and one hook awaits other work, too."""
    add_cancelled(app)
    workflows = ["cancelled", "cancelled_plainly", "cancelled_beside"]
    jobs = JobsOfHooks(client, connection, workflows)
    play(jobs, order, work, watched=False)
    assert jobs.results() == dict.fromkeys(workflows, outcome(order))


def add_cancelled(app: perdure.App) -> None:  # noqa: C901 - as above: several programs
    """Add hooks that report what has ended their wait."""

    async def hear() -> Any:
        try:
            return ["got", await perdure.wait_for("go", timeout=LIMIT)]
        except TimeoutError:
            return ["late"]
        except asyncio.CancelledError:
            return "cancelled"

    @app.hook
    async def alone(memory: perdure.AsyncEntity) -> Any:
        return await hear()

    @app.hook
    async def beside(memory: perdure.AsyncEntity) -> Any:
        others = perdure.sleep("1 day"), perdure.exec_hook("far away", queue="nowhere")
        begun = [asyncio.ensure_future(other) for other in others]
        await asyncio.sleep(0)  # these wait first
        try:
            return await hear()
        finally:
            for other in begun:
                other.cancel()

    @app.hook
    def plain(memory: perdure.Entity) -> Any:
        try:
            return ["got", perdure.wait_for("go", timeout=LIMIT)]
        except TimeoutError:
            return ["late"]
        except asyncio.CancelledError:
            return "cancelled"

    @app.coordinator
    async def cancelled(memory: perdure.AsyncEntity) -> Any:
        return await alone(memory)

    @app.coordinator
    async def cancelled_plainly(memory: perdure.AsyncEntity) -> Any:
        return await plain(memory)

    @app.coordinator
    async def cancelled_beside(memory: perdure.AsyncEntity) -> Any:
        return await beside(memory)


@pytest.mark.parametrize("workflow", ["crowded", "hook_crowded"])
@pytest.mark.parametrize(
    "before", [{"n": 1100, "of": ""}, {"n": 6, "of": "x" * 900_000}], ids=["many", "large"]
)
def test_signal_in_time_is_received_behind_a_long_backlog(
    client: perdure.Client,
    connection: psycopg.Connection[Any],
    work: Any,
    app: perdure.App,
    workflow: str,
    before: dict[str, Any],
) -> None:
    """[P5] [P7] Signals arrive in parts. The deadline must not overtake the next part."""
    add_crowded(app)
    jobs = Jobs(client, connection, [workflow])
    worker = work(poll="50 ms")
    waits = "select exists (select from tasks where token is null and awaits @> '{go, noise}')"
    while connection.execute(waits.encode()).fetchone() != (True,):
        time.sleep(0.005)
    worker.stop()
    noise = "select count(signal(%s, 'noise', to_jsonb(%s::text))) from generate_series(1, %s)"
    connection.execute(noise, [workflow, before["of"], before["n"]])
    jobs.send()
    jobs.time_out()
    work(poll="50 ms")
    assert jobs.results() == {workflow: ["got", "it"]}


def add_crowded(app: perdure.App) -> None:
    """Add code that waits for one signal and receives others meanwhile."""

    async def listen() -> None:
        while True:
            await perdure.wait_for("noise")

    async def hear() -> list[Any]:
        listening = asyncio.ensure_future(listen())
        try:
            return ["got", await perdure.wait_for("go", timeout=LIMIT)]
        except TimeoutError:
            return ["late"]
        finally:
            listening.cancel()

    @app.coordinator
    async def crowded(memory: perdure.AsyncEntity) -> list[Any]:
        return await hear()

    @app.hook
    async def hears_crowded(memory: perdure.AsyncEntity) -> list[Any]:
        return await hear()

    @app.coordinator
    async def hook_crowded(memory: perdure.AsyncEntity) -> list[Any]:
        return await hears_crowded(memory)
