"""Signal, deadline and cancel of one wait, in every order: whatever comes first decides. [P5] [P7]

Each order is seen in three ways: by a worker that is there when things happen, by one that comes
when all of them have happened, and by one that takes over from another who was lost before it could
say anything. The clock is moved, nobody sleeps.
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


def told(order: tuple[str, ...]) -> Any:
    """Say what the wait is told: the first event. A signal is told to who waits, a cancel at once:
    of both before the wait, the cancel."""
    begins = order.index("wait")
    first = "cancel" if "cancel" in order[:begins] else next(e for e in order if e != "wait")
    return DECIDES[first]


class Jobs:
    """Jobs of which a task waits each, and what happens to all of them."""

    def __init__(
        self, client: perdure.Client, connection: psycopg.Connection[Any], workflows: list[str]
    ):
        self._handles = [client.start(workflow, id=workflow) for workflow in workflows]
        self._connection = connection

    def send(self) -> None:
        """Send the signal; a job may have ended, as a worker watches."""
        for handle in self._handles:
            with suppress(perdure.JobFinished):
                handle.signal("go", "it")

    def time_out(self) -> None:
        """Let more time pass than the wait has."""
        self._connection.execute("update perdure.moved set by = by + interval '61 s'")

    def cancel(self) -> None:
        """Ask the jobs to cancel."""
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

    def wait_begins_with_who_is_lost(self) -> None:
        """Return when each job is held by a worker of which nothing more is heard."""
        query = (
            "select from perdure.claim('{default}', 'lost', max_tasks => 9, lease_for => '0.1 s')"
        )
        self._connection.execute(query)

    def results(self) -> dict[str, Any]:
        """Wait for the ends: the results, or the words for them."""
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

    async def heard() -> list[Any]:
        try:
            return ["got", await perdure.wait_for("go", timeout=LIMIT)]
        except TimeoutError:
            return ["late"]

    def heard_plain() -> list[Any]:
        try:
            return ["got", perdure.wait_for("go", timeout=LIMIT)]
        except TimeoutError:
            return ["late"]

    @app.coordinator
    async def coordinator(memory: perdure.AsyncEntity) -> list[Any]:
        return await heard()

    @app.coordinator
    async def by_asyncio(memory: perdure.AsyncEntity) -> list[Any]:
        try:
            async with asyncio.timeout(seconds(LIMIT)):
                return ["got", await perdure.wait_for("go")]
        except TimeoutError:
            return ["late"]

    @app.coordinator
    def plain_coordinator(memory: perdure.Entity) -> list[Any]:
        return heard_plain()

    @app.hook
    async def hears(memory: perdure.AsyncEntity) -> list[Any]:
        return await heard()

    @app.hook
    def hears_plain(memory: perdure.Entity) -> list[Any]:
        return heard_plain()

    @app.coordinator
    async def hook(memory: perdure.AsyncEntity) -> list[Any]:
        return await hears(memory)

    @app.coordinator
    async def plain_hook(memory: perdure.AsyncEntity) -> list[Any]:
        return await hears_plain(memory)

    return app


def play(jobs: Jobs, order: tuple[str, ...], work: Any, *, watched: bool) -> None:
    """Let things happen in an order, before a worker that stays, or goes when the waits began."""
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
def test_the_first_of_signal_deadline_and_cancel_decides(
    client: perdure.Client,
    connection: psycopg.Connection[Any],
    work: Any,
    order: tuple[str, ...],
    watched: bool,
) -> None:
    """[P5] [P7] (E1) (E2)"""
    workflows = ["coordinator", "by_asyncio", "plain_coordinator"]
    jobs = Jobs(client, connection, workflows)
    play(jobs, order, work, watched=watched)
    assert jobs.results() == dict.fromkeys(workflows, told(order))


@pytest.mark.parametrize("order", orders(EVENTS), ids=", ".join)
def test_the_first_decides_for_who_takes_over_from_a_lost_worker(
    client: perdure.Client, connection: psycopg.Connection[Any], work: Any, order: tuple[str, ...]
) -> None:
    """[P5] [P7] (E1) (E2)"""
    workflows = ["coordinator", "by_asyncio", "plain_coordinator"]
    jobs = Jobs(client, connection, workflows)
    steps = {"send": jobs.send, "time out": jobs.time_out, "cancel": jobs.cancel}
    for event in order:
        (steps | {"wait": jobs.wait_begins_with_who_is_lost})[event]()
    work(poll="50 ms", slots=3)
    is_cancelled = "cancel" in order  # to who begins, whatever else came before
    wanted = DECIDES["cancel"] if is_cancelled else told(order)
    assert jobs.results() == dict.fromkeys(workflows, wanted)


@pytest.mark.parametrize("workflow", ["looks", "looks_plain", "hook_looks"])
def test_a_wait_without_time_takes_what_is_there(
    app: perdure.App, client: perdure.Client, work: Any, workflow: str
) -> None:
    """[P5] A signal that was sent before the wait, to a task that nobody has run yet."""
    add_looks(app)
    sent, unsent = client.start(workflow), client.start(workflow)
    sent.signal("go", "it")
    work(poll="50 ms")
    assert (sent.result(timeout=30), unsent.result(timeout=30)) == ("it", "nothing")


def add_looks(app: perdure.App) -> None:
    """Add code that looks whether a signal is there, and does not wait for it."""

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
def test_the_first_of_signal_and_deadline_decides_in_a_hook(
    client: perdure.Client,
    connection: psycopg.Connection[Any],
    work: Any,
    order: tuple[str, ...],
    watched: bool,
) -> None:
    """[P5] [P7] (C40)"""
    workflows = ["hook", "plain_hook"]
    jobs = Jobs(client, connection, workflows)
    play(jobs, order, work, watched=watched)
    assert jobs.results() == dict.fromkeys(workflows, told(order))


class JobsOfHooks(Jobs):
    """Jobs of which a hook waits each; it is the hook that is cancelled."""

    def cancel(self) -> None:
        """Ask the hooks to cancel."""
        query = "select task from tasks where job_id = %s and queue = 'default' and kind = 'hook'"
        for handle in self._handles:
            for (task,) in self._connection.execute(query, [handle.id]).fetchall():
                handle.cancel_hook(task)


@pytest.mark.parametrize(
    "order", [it for it in orders(EVENTS) if "cancel" in it[it.index("wait") :]], ids=", ".join
)
def test_the_first_of_signal_deadline_and_cancel_decides_in_a_hook(
    client: perdure.Client,
    connection: psycopg.Connection[Any],
    work: Any,
    app: perdure.App,
    order: tuple[str, ...],
) -> None:
    """[P5] [P7] (E1) (C40) However late it is seen, and whatever else the hook does meanwhile."""
    add_cancelled(app)
    workflows = ["cancelled", "cancelled_plainly", "cancelled_beside"]
    jobs = JobsOfHooks(client, connection, workflows)
    play(jobs, order, work, watched=False)
    assert jobs.results() == dict.fromkeys(workflows, told(order))


def add_cancelled(app: perdure.App) -> None:  # noqa: C901 - as above: several programs
    """Add hooks that tell what has ended their wait."""

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
def test_a_signal_in_time_is_heard_behind_more_than_a_claim_brings(
    client: perdure.Client,
    connection: psycopg.Connection[Any],
    work: Any,
    app: perdure.App,
    workflow: str,
    before: dict[str, Any],
) -> None:
    """[P5] [P7] Mail comes in parts; a deadline does not overtake what is in the next."""
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
    """Add code that waits for a signal, and hears others meanwhile."""

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
