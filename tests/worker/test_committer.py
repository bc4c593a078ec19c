"""The committer: batches, locked jobs, bad turns, hints, the pace of claims, lost replies. [P12]"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest

import perdure
from perdure.database import connections, sending
from perdure.database.call import Call
from perdure.database.connections import AsyncLink
from perdure.workers import claim_pace, search_mark
from perdure.workers.committer import Committer
from perdure.workers.side_connections import EncodedTurn
from tests.databases import UNHINTED
from tests.patience import wait_until
from tests.worker.test_until import wait_for

T = "40 s"


def test_locked_job_does_not_hold_up_other_jobs(
    app: perdure.App, client: perdure.Client, work: Any, dsn: str
) -> None:
    @app.coordinator
    async def counts(memory: perdure.AsyncEntity) -> int:
        for _ in range(3):
            await memory.increment("n")
        number: int = await memory.get("n")
        return number

    locked = client.start(counts, due_at=datetime(2100, 1, 1, tzinfo=UTC))
    with psycopg.connect(dsn) as connection:
        connection.execute("update perdure.tasks set due_at = now()")
        connection.commit()
        connection.execute("update perdure.jobs set context = '{\"n\": 10}'")
        work()
        time.sleep(0.3)
        others = [client.start(counts) for _ in range(10)]
        began = time.monotonic()
        assert [other.result(T) for other in others] == [3] * 10
        assert time.monotonic() - began < 2
        assert locked.status().status == "running"
        connection.commit()
    assert locked.result(T) == 13


@pytest.mark.parametrize("tells", ["its answer", "a signal"])
def test_children_that_wait_for_their_parent_are_sent_together(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    dsn: str,
    monkeypatch: pytest.MonkeyPatch,
    tells: str,
) -> None:
    """One by one, each would hold the lock of the parent, and make the rest busy again."""
    sizes: list[int] = []
    advance_call = Committer.advance_call

    def counted(self: Committer, batch: list[EncodedTurn], *given: Any, **named: Any) -> Call:
        sizes.extend([len(batch)] if named.get("waiting") else [])
        return advance_call(self, batch, *given, **named)

    @app.coordinator(queue="children")
    async def child(memory: perdure.AsyncEntity, parent: str) -> int:
        if tells == "a signal":
            await perdure.signal(parent, "one")
        return 1

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> int:
        own = perdure.info().job
        return sum(await asyncio.gather(*(perdure.child(child, own) for _ in range(30))))

    monkeypatch.setattr(Committer, "advance_call", counted)
    work(queues=["default"])
    handle = client.start(parent)
    wait_for(dsn, "select count(*) = 30 from perdure.tasks where queue = 'children'")
    wait_for(dsn, f"select token is null from perdure.tasks where job_id = '{handle.id}'")
    with psycopg.connect(dsn) as connection:
        connection.execute("select from perdure.jobs where id = %s for update", [handle.id])
        work(queues=["children"])
        wait_until(lambda: sizes)
        connection.commit()
    assert handle.result(T) == 30
    assert len(sizes) < 10 <= max(sizes)


@pytest.mark.direct("it reads sessions, and sets their limits")
@pytest.mark.parametrize(
    ("timeout", "state"), [("0", "active"), ("10ms", "idle")], ids=["in a call", "between calls"]
)
def test_worker_that_ends_closes_all_its_connections(
    app: perdure.App,
    client: perdure.Client,
    dsn: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    timeout: str,
    state: str,
) -> None:
    """It also closes the connection on which a turn waits for its locked job."""

    @app.coordinator
    async def counts(memory: perdure.AsyncEntity) -> int:
        number: int = await memory.increment("n")
        return number

    waits = "application_name = 'perdure waits' and datname = current_database()"
    waiting = f"select exists (select from pg_stat_activity where {waits} and state = '{state}')"
    left = f"select not exists (select from pg_stat_activity where {waits})"
    handle = client.start(counts)
    monkeypatch.setenv("PGOPTIONS", f"-c lock_timeout={timeout}")
    gc.disable()  # the collector might close a connection that was left open
    try:
        with psycopg.connect(dsn) as locker:
            locker.execute("update perdure.jobs set context = '{\"n\": 10}'")
            with perdure.Worker(app, dsn=dsn, grace=0, **UNHINTED):
                wait_for(dsn, waiting)
            wait_for(dsn, left)  # a session ends a moment after its connection
            locker.commit()
    finally:
        gc.enable()

    # No code was cancelled while it closed connections.
    assert "(CancelledError)" not in caplog.text
    with perdure.Worker(app, dsn=dsn, **UNHINTED):
        assert handle.result(T) == 11


@pytest.mark.direct("it is about hints")
def test_hint_that_arrives_during_a_claim_is_kept(
    app: perdure.App,
    client: perdure.Client,
    connection: Any,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """[P11] The worker claims again after the hint; its next poll is in an hour."""

    @app.coordinator
    async def quick(memory: perdure.AsyncEntity) -> int:
        return 1

    begins, begun = threading.Event(), threading.Event()
    handles: list[Any] = []
    call_of = connections.AsyncLink.call

    async def call(link: connections.AsyncLink, call: Call) -> Any:
        reply = await call_of(link, call)
        if call.function == "claim" and begins.is_set() and not begun.is_set():
            handles.append(await asyncio.to_thread(client.start, quick))
            await asyncio.sleep(0.3)  # the hint arrives
            begun.set()
        return reply

    monkeypatch.setattr(connections.AsyncLink, "call", call)
    work(poll=3600)
    time.sleep(0.5)  # the worker has polled for the last time
    begins.set()
    connection.execute("select pg_notify(perdure.channel(), 'default')")
    assert begun.wait(20)
    assert handles[0].result("5 s") == 1


def test_turn_that_the_server_rejects_does_not_affect_others(
    app: perdure.App, client: perdure.Client, work: Any, connection: Any
) -> None:
    @app.activity
    async def step(number: int) -> int:
        return number

    @app.coordinator
    async def chain(memory: perdure.AsyncEntity, number: int) -> int:
        await asyncio.gather(step(number), step(100))
        return await memory.increment("n", number)

    connection.execute(
        "create function public.fail() returns trigger language plpgsql as"
        " 'begin raise exception ''the disk is full of bees''; end';"
        " create trigger bad before insert on perdure.journal for each row"
        " when (new.value = '13') execute function public.fail()"
    )
    work()
    handles = [client.start(chain, number) for number in range(20)]
    for number, handle in enumerate(handles):
        if number != 13:
            assert handle.result(T) == number
    time.sleep(0.1)
    assert "the disk is full of bees" in (handles[13].status().waiting_for or "")
    connection.execute("drop trigger bad on perdure.journal")
    assert handles[13].resume() == 1
    assert handles[13].result(T) == 13


def test_claim_that_goes_with_a_rejected_batch_is_sent_as_a_repetition(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch may have been applied before, and the reply lost."""
    queries: list[bytes] = []
    call_of = AsyncLink.call

    async def reject_once(link: AsyncLink, call: Call) -> Any:
        if call.function == "advance" and len(queries) < 2 and (queries or call.again):
            queries.append(call.query)
            if len(queries) == 1:
                raise psycopg.errors.InternalError("the functions are being replaced")
        return await call_of(link, call)

    @app.hook
    async def answer(memory: perdure.AsyncEntity) -> int:
        return 42

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> int:
        return await answer(memory)

    monkeypatch.setattr(AsyncLink, "call", reject_once)
    work()
    assert client.start(asks).result(T) == 42
    assert [b"again" in query for query in queries] == [False, True]


def test_turn_whose_error_is_rejected_too_ends_only_its_lease(
    app: perdure.App, client: perdure.Client, work: Any, connection: Any
) -> None:
    @app.coordinator
    async def adds(memory: perdure.AsyncEntity, number: int) -> int:
        return await memory.increment("n", number)

    connection.execute(
        "create function public.fail() returns trigger language plpgsql as"
        " 'begin raise exception ''the disk is full of bees''; end';"
        " create trigger bad before insert on perdure.journal for each row"
        " when (new.value = '13') execute function public.fail();"
        " create trigger worse before update on perdure.tasks for each row"
        " when (new.stuck_reason is not null) execute function public.fail()"
    )
    work(lease=1)
    handles = [client.start(adds, number) for number in range(12, 15)]
    assert [handle.result(T) for handle in (handles[0], handles[2])] == [12, 14]
    assert client.start(adds, 15).result(T) == 15
    connection.execute("drop trigger bad on perdure.journal; drop trigger worse on perdure.tasks")
    assert handles[1].result(T) == 13


@pytest.mark.direct("other sessions would block the rename")
def test_worker_whose_schema_is_gone_ends_and_parks_no_task(
    app: perdure.App, client: perdure.Client, dsn: str, connection: Any, caplog: Any
) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    @app.activity
    def holds() -> int:
        begun.set()
        goes_on.wait(20)
        return 1

    @app.coordinator
    async def holder(memory: perdure.AsyncEntity) -> int:
        return await holds()

    handle = client.start(holder)
    worker = perdure.Worker(app, dsn=dsn, lease=2, poll=60)
    worker.start()
    assert begun.wait(20)
    time.sleep(0.5)  # the worker has polled for the last time
    connection.execute("alter schema perdure rename to elsewhere")
    try:
        goes_on.set()
        wait_until(lambda: "the worker has ended" in caplog.text)
        with pytest.raises(psycopg.errors.InvalidSchemaName):
            worker.stop()
    finally:
        connection.execute("alter schema elsewhere rename to perdure")
    assert "is parked" not in caplog.text
    with perdure.Worker(app, dsn=dsn, poll=0.2):
        assert handle.result(T) == 1


def test_too_large_value_raises_where_it_is_given(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    large = "x" * 1_100_000

    @app.activity(retries=3)
    async def reads() -> str:
        return large

    @app.coordinator
    async def tries(memory: perdure.AsyncEntity) -> Any:
        codes = []
        try:
            await memory.set({"text": large})
        except perdure.PerdureError as error:
            codes.append(error.code)
        try:
            await reads()
        except perdure.ActivityFailed as error:
            codes.append(error.failure["code"])
        await memory.set("x" * 1_000_000, "text")
        return codes

    work()
    assert client.start(tries).result(T) == ["PD301", "PD301"]


def lose_replies(monkeypatch: pytest.MonkeyPatch, chance: random.Random) -> None:
    """Execute every statement, but lose the reply to one in ten."""
    send, send_async = sending.send, sending.send_async

    def lossy(connection: Any, call: Any) -> Any:
        answer = send(connection, call)
        if chance.random() < 0.1:
            connection.close()
            raise psycopg.OperationalError("the reply was lost")
        return answer

    async def lossy_async(cursor: Any, call: Any) -> Any:
        answer = await send_async(cursor, call)
        if chance.random() < 0.1:
            await cursor.connection.close()
            raise psycopg.OperationalError("the reply was lost")
        return answer

    monkeypatch.setattr(connections, "send", lossy)
    monkeypatch.setattr(connections, "send_async", lossy_async)


def test_stuck_coordinator_can_be_resumed_after_a_lost_reply(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, monkeypatch: Any
) -> None:
    """[P12] The turn that reports it is sent again; once resumed, it runs from its journal."""
    lost: list[Any] = []
    send_async = sending.send_async

    async def lossy(cursor: Any, call: Any) -> Any:
        answer = await send_async(cursor, call)
        if not lost and '"stuck"' in str(call.params):
            lost.append(answer)
            await cursor.connection.close()
            raise psycopg.OperationalError("the reply was lost")
        return answer

    def add_flow(app: perdure.App, name: str) -> perdure.App:
        @app.coordinator
        async def flow(memory: perdure.AsyncEntity) -> str:
            await memory.set(1, name)
            return str(await perdure.wait_for("go"))

        return app

    worker = work(add_flow(app, "old"))
    handle = client.start("flow")
    handle.memory.until("exists($.old)")
    worker.stop()
    handle.signal("go", "on")
    monkeypatch.setattr(connections, "send_async", lossy)
    changed = add_flow(perdure.App(), "new")
    work(changed)
    wait_for(dsn, "select exists (select from perdure.tasks where stuck_reason is not null)")
    wait_until(lambda: len(lost) == 1)  # the server records it before the worker loses the reply
    changed.coordinators["flow"] = app.coordinators["flow"]
    handle.resume()
    assert handle.result(T) == "on"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_lost_replies_are_harmless(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: Any, seed: int
) -> None:
    @app.activity
    async def step(number: int) -> int:
        return number

    @app.hook
    async def page(memory: perdure.AsyncEntity, number: int) -> int:
        await memory.append("pages", await step(number))
        await memory.signal("page", number)
        await perdure.sleep(0.01)
        return number

    @app.coordinator
    async def child(memory: perdure.AsyncEntity) -> int:
        return await memory.increment("n", await step(2))

    @app.coordinator
    async def book(memory: perdure.AsyncEntity) -> Any:
        await memory.set({"pages": []})
        answers = await asyncio.gather(*(page(memory, n) for n in range(4)), perdure.child(child))
        signals = sorted([await perdure.wait_for("page") for _ in range(4)])
        go = await perdure.wait_for("go")
        return [answers, signals, go, sorted(await memory.get("pages"))]

    lose_replies(monkeypatch, random.Random(seed))
    work(lease=5)
    handles = [client.start(book, id=f"book-{n}") for n in range(5)]
    for handle in handles:
        handle.signal("go", handle.id)
        handle.memory.increment("marks")
    for handle in handles:
        pages = list(range(4))
        assert handle.result(T) == [[*pages, 2], pages, handle.id, pages]
    monkeypatch.undo()
    assert [handle.status().version for handle in handles] == [6] * 5


def test_code_that_blocks_the_event_loop_is_logged(
    app: perdure.App, client: perdure.Client, work: Any, caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("perdure.workers.heartbeats.BLOCKED_AFTER", 0.5)

    @app.coordinator
    async def blocks(memory: perdure.AsyncEntity) -> str:
        time.sleep(2)  # noqa: ASYNC251 - this is the mistake
        return "late"

    work()
    handle = client.start(blocks)
    assert handle.result(T) == "late"
    assert f"blocks of {handle.id}" in caplog.text
    assert "time.sleep(2)" in caplog.text


def test_leases_are_kept_while_code_runs(
    app: perdure.App, client: perdure.Client, work: Any, connection: Any
) -> None:
    runs = []

    @app.activity
    def long() -> str:
        runs.append(threading.current_thread().name)
        time.sleep(2)
        return "done"

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        return await long()

    work(lease=0.6)
    work(lease=0.6)
    assert client.start(waits).result(T) == "done"
    assert len(runs) == 1


@pytest.mark.direct("it is about hints")
@pytest.mark.steady("it counts claims")
def test_turn_also_claims_if_no_hint_would_announce_its_work(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single worker gets hints for all work but the work that its own turns make due."""

    @app.activity
    async def step(number: int) -> int:
        return number

    @app.hook
    async def page(memory: perdure.AsyncEntity) -> None:
        """Do nothing."""

    @app.coordinator
    async def steps(memory: perdure.AsyncEntity) -> int:
        return sum([await step(number) for number in range(3)])

    @app.coordinator
    async def pages(memory: perdure.AsyncEntity) -> None:
        await page(memory)

    turns: list[bool] = []
    call_of = connections.AsyncLink.call

    async def call(link: connections.AsyncLink, call: Call) -> Any:
        if call.function == "advance":
            turns.append(b'"max_tasks"' in call.query)
        return await call_of(link, call)

    monkeypatch.setattr(connections.AsyncLink, "call", call)
    work(poll=3600)
    client.start(steps).result(T)
    time.sleep(0.3)  # the worker listens, and has polled for the last time
    turns.clear()
    assert client.start(steps).result(T) == 3
    assert turns == [False] * 3
    turns.clear()
    client.start(pages).result(T)
    assert turns[0]  # requests the hook
    assert turns[2]  # answers the coordinator


@pytest.mark.direct("it is about hints")
@pytest.mark.steady("it measures pauses")
def test_worker_that_claimed_in_vain_twice_lets_others_go_first(
    app: perdure.App,
    client: perdure.Client,
    connection: Any,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After two claims in vain, an idle worker waits before it follows a hint, since the hint wakes
    all of them.

    It still claims, in case the others fail, and a claim that finds work makes it prompt again.
    """

    @app.coordinator
    async def quick(memory: perdure.AsyncEntity) -> int:
        return 1

    claimed = threading.Event()
    call_of = connections.AsyncLink.call

    async def call(link: connections.AsyncLink, call: Call) -> Any:
        if call.function == "claim":
            claimed.set()
        return await call_of(link, call)

    def is_prompt() -> bool:
        """Send a hint without any work, and return whether the worker claims at once."""
        claimed.clear()
        connection.execute("select pg_notify(perdure.channel(), 'default')")
        was_prompt = claimed.wait(0.4)
        assert claimed.wait(20)
        time.sleep(0.1)
        return was_prompt

    monkeypatch.setattr(connections.AsyncLink, "call", call)
    monkeypatch.setattr(claim_pace, "STEP_BACK", 0.8)
    work(poll=3600)
    time.sleep(0.5)  # the worker has polled for the last time
    assert [is_prompt() for _ in range(4)] == [True, True, False, False]
    began = time.monotonic()
    assert client.start(quick).result(T) == 1
    assert 0.7 < time.monotonic() - began < 2
    assert is_prompt()


@pytest.mark.direct("it is about hints")
def test_hints_for_a_workers_own_turns_do_not_slow_its_claims(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a hint finds no work, because the turn has claimed it, but is no claim in vain."""

    @app.hook
    async def answers(memory: perdure.AsyncEntity) -> None: ...

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> int:
        for _ in range(3):
            await answers(memory)
        return 1

    monkeypatch.setattr(claim_pace, "STEP_BACK", 3600.0)
    work(poll=3600)
    for _ in range(5):
        assert client.start(asks).result(T) == 1


@pytest.mark.direct("it is about hints")
def test_worker_whose_slots_were_full_claims_in_time(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P7] A claim that finds nothing returns when the next task is due, also if the last one
    filled all slots.

    Periodic searches, which would find the task later, are switched off.
    """

    @app.coordinator
    async def dozes(memory: perdure.AsyncEntity) -> int:
        await perdure.sleep(0.05)
        return 1

    monkeypatch.setattr(search_mark, "SEARCH_AGAIN", math.inf)
    work(poll=3600, slots=1)
    assert client.start(dozes).result(T) == 1
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    assert client.start(dozes, due_at=soon).result(T) == 1


@pytest.mark.direct("it is about hints")
@pytest.mark.steady("it measures pauses")
def test_slow_searches_take_a_tenth_of_the_time(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When an old snapshot makes searches from the beginning slow, most claims search only above a
    mark.

    A task that was due before the mark is found by the next search from the beginning.
    """

    @app.coordinator
    async def quick(memory: perdure.AsyncEntity) -> int:
        return 1

    call_of = connections.AsyncLink.call
    searches: list[tuple[float, bool]] = []

    async def call(link: connections.AsyncLink, call: Call) -> Any:
        claims = b'"max_tasks"' in call.query
        if claims:
            is_above = b'"since"' in call.query
            searches.append((time.monotonic(), is_above))
            await asyncio.sleep(0 if is_above else 0.06)
        return await call_of(link, call)

    monkeypatch.setattr(connections.AsyncLink, "call", call)
    work()
    client.start(quick).result(T)
    searches.clear()
    for number in range(60):
        client.start(quick).result(T)
        if number == 30:
            before = client.start(quick, due_at=datetime(2000, 1, 1, tzinfo=UTC))
    assert before.result(T) == 1
    full = [at for at, is_above in searches if not is_above]
    pauses = [later - earlier for earlier, later in pairwise(full)]
    assert len(full) < len(searches) / 4
    assert pauses == [] or min(pauses) >= 0.6


def test_task_claimed_while_its_worker_stops_is_released_at_once(
    app: perdure.App, client: perdure.Client, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P5] The reply to the claim is under way when the worker stops."""

    @app.coordinator
    def go(memory: perdure.Entity) -> None:
        """Return."""

    has_claimed = threading.Event()
    call = connections.AsyncLink.call

    async def late(link: connections.AsyncLink, wanted: Call) -> Any:
        reply = await call(link, wanted)
        if wanted.function == "claim" and reply["tasks"]:
            has_claimed.set()
            await asyncio.sleep(0.3)
        return reply

    monkeypatch.setattr(connections.AsyncLink, "call", late)
    job = client.start(go)
    with perdure.Worker(app, dsn=dsn, lease=600):
        assert has_claimed.wait(30)
    with perdure.Worker(app, dsn=dsn):
        assert job.result(timeout=T) is None
