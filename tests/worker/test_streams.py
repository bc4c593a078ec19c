"""Streams, end to end: activities, hooks and coordinators publish, and clients follow. (E20)"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import count, islice
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from perdure.clients import waiting
from perdure.database import connections
from perdure.database.call import Call
from perdure.database.calls import Calls
from perdure.database.connections import AsyncLink
from perdure.database.sending import send
from perdure.workflow.publishing import Publisher, StreamLinks
from tests.worker.processes import worker_process
from tests.worker.test_until import run

T = "40 s"


def words(handle: perdure.Handle, name: str = "words", **options: Any) -> list[Any]:
    """Give the items of a stream, until its end."""
    return [item.item for item in handle.stream(name, **{"timeout": T, **options})]


@pytest.fixture(params=["async", "plain"])
def writes(request: pytest.FixtureRequest, app: perdure.App) -> Any:
    """Give an activity that publishes numbers, in both kinds of code."""

    @app.activity
    async def writes(start: int, count: int) -> int:
        for number in range(start, start + count):
            await perdure.publish("words", number)
        return count

    @app.activity
    def plain_writes(start: int, count: int) -> int:
        for number in range(start, start + count):
            perdure.publish("words", number)
        return count

    return {"async": writes, "plain": plain_writes}[request.param]


def test_threads_that_publish_first_at_the_same_time_share_a_publisher(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would wait for the items of a second publisher before the result is recorded."""
    begin = Publisher.__init__

    def begin_slowly(publisher: Publisher, *args: Any) -> None:
        time.sleep(0.2)
        begin(publisher, *args)

    monkeypatch.setattr(Publisher, "__init__", begin_slowly)

    @app.activity
    def talk() -> None:
        with ThreadPoolExecutor(4) as pool:
            for number in range(4):
                pool.submit(copy_context().run, perdure.publish, "words", number)

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> None:
        await talk()

    work()
    handle = client.start(talks)
    handle.result(T)
    assert sorted(handle.memory.get("words") or []) == [0, 1, 2, 3]
    assert len({item.attempt for item in handle.stream("words", timeout=T)}) == 1


def test_client_follows_a_stream_to_the_end_of_the_job(
    app: perdure.App, client: perdure.Client, work: Any, writes: Any
) -> None:
    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> Any:
        return [await writes(0, 500), await writes(500, 3)]

    work()
    handle = client.start(talks)
    assert words(handle) == list(range(503))
    assert handle.result(T) == [500, 3]
    assert handle.memory.get("words") == list(range(503))
    assert handle.memory.get() == {}


def test_items_are_in_the_memory_before_the_result_of_the_activity(
    app: perdure.App, client: perdure.Client, work: Any, writes: Any
) -> None:
    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> Any:
        await writes(0, 10)
        return await memory.get("words")

    work()
    assert client.start(talks).result(T) == list(range(10))


def test_items_arrive_while_the_activity_still_runs(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """The activity publishes the next item only when the client has seen the last one."""
    seen = [threading.Event() for _ in range(5)]

    @app.activity
    def talk() -> None:
        for number, event in enumerate(seen):
            perdure.publish("words", number)
            assert event.wait(20)
        perdure.publish("words")

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> None:
        await talk()
        await perdure.wait_for("go")

    work()
    handle = client.start(talks)
    received = []
    for item in handle.stream("words", timeout=T):
        received.append(item.item)
        seen[item.item].set()
    assert received == [0, 1, 2, 3, 4]  # the stream has ended, and the job still runs
    handle.signal("go")
    handle.result(T)


def test_follower_continues_after_a_given_item(
    app: perdure.App, client: perdure.Client, work: Any, writes: Any
) -> None:
    """A client that reconnects gives the last item itself, its place, or its version."""

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> None:
        await writes(0, 100)

    work()
    handle = client.start(talks)
    handle.result(T)
    received: list[Any] = []
    after: perdure.StreamItem | int = 0
    while part := list(islice(handle.stream("words", after=after, timeout=T), 7)):
        received += [item.item for item in part]
        after = part[-1]
    assert received == list(range(100))
    item = next(handle.stream("words"))
    assert words(handle, after=(item.version, item.place)) == list(range(1, 100))
    whole = [each.item for each in handle.stream("words") if each.version > item.version]
    assert words(handle, after=item.version) == whole


def test_async_clients_follow_streams(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, writes: Any
) -> None:
    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> None:
        await writes(0, 50)

    work()
    job = client.start(talks).id

    async def follow() -> list[list[Any]]:
        async with await perdure.connect_async(dsn) as there:

            async def one() -> list[Any]:
                items = there.handle(job).stream("words", timeout=T)
                return [item.item async for item in items]

            return await asyncio.gather(one(), one())

    assert asyncio.run(follow()) == [list(range(50))] * 2


def test_hooks_and_coordinators_publish_once(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """[P2] [P9] In these, an item is a command, and is not published again on replay."""

    @app.hook
    async def speaks(memory: perdure.AsyncEntity) -> None:
        await perdure.publish("words", "from a hook")
        await perdure.wait_for("on")

    @app.hook
    def plain_speaks(memory: perdure.Entity) -> None:
        perdure.publish("words", "from a thread")

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> None:
        await perdure.publish("words", "first", "second")
        await plain_speaks(memory)
        speaking = asyncio.ensure_future(speaks(memory))
        await perdure.wait_for("go")
        await memory.signal("on")
        await speaking
        await perdure.publish("words", "last")
        await perdure.publish("words")

    work(cache=0)
    handle = client.start(talks)
    received = handle.stream("words", timeout=T)
    first = [next(received).item for _ in range(4)]
    handle.signal("go")
    assert first == ["first", "second", "from a thread", "from a hook"]
    assert [item.item for item in received] == ["last"]
    handle.result(T)
    sources = {item.source: item.attempt for item in handle.stream("words", timeout=T)}
    assert set(sources.values()) == {None}
    assert "1/main" in sources


def test_items_name_the_attempt_that_published_them(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.activity(retry=perdure.Retry(attempts=3, delay=0.01))
    async def talk() -> None:
        attempt = perdure.info().attempt
        for word in "abc":
            await perdure.publish("words", f"{word}{attempt}")
            if word == "b" and attempt < 2:
                raise ConnectionError("not yet")

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> None:
        await talk()

    work()
    handle = client.start(talks)
    kept: dict[str | None, list[str]] = {}
    for item in handle.stream("words", timeout=T):
        kept.setdefault(item.attempt, []).append(item.item)
        assert item.source == "1/main/talk#1"
    assert list(kept.values()) == [["a0", "b0"], ["a1", "b1"], ["a2", "b2", "c2"]]


@pytest.mark.parametrize("queue", [None, "far"])
def test_items_of_a_killed_worker_stay(
    client: perdure.Client, dsn: str, tmp_path: Path, queue: str | None
) -> None:
    """[P2] [P6] After kill -9, each attempt has its items in order, and none is doubled."""
    handle = client.start("speaks_far" if queue else "speaks", 200)
    with worker_process(dsn, STOP_AT="100"):
        first = list(islice(handle.stream("words", timeout=T), 80))
    with worker_process(dsn):
        assert handle.result("40 s") == 200
    attempts: dict[str | None, list[int]] = {}
    for item in handle.stream("words", timeout=T):
        attempts.setdefault(item.attempt, []).append(item.item)
    lost, whole = attempts.values()
    assert [item.item for item in first] == list(range(1, 81))
    assert lost == list(range(1, len(lost) + 1))
    assert 80 <= len(lost) <= 100
    assert whole == list(range(1, 201))


@pytest.mark.direct("it ends sessions of one kind")
def test_lost_replies_double_no_item(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, writes: Any
) -> None:
    """[P12] Connections are cut again and again while items are published."""
    stop = threading.Event()

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> Any:
        return await asyncio.gather(*(writes(1000 * n, 300) for n in range(4)))

    def storm() -> None:
        for _ in range(25):  # not without end, so that a slow machine gets done, too
            stop.wait(0.05)
            run(
                dsn,
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'perdure streams'",
            )

    work()
    storming = threading.Thread(target=storm)
    storming.start()
    try:
        handle = client.start(talks)
        assert handle.result(T) == [300] * 4
    finally:
        stop.set()
        storming.join()
    received = words(handle)
    assert Counter(received) == Counter(1000 * n + m for n in range(4) for m in range(300))
    for n in range(4):
        assert [word for word in received if word // 1000 == n] == [
            1000 * n + m for m in range(300)
        ]


def test_few_calls_carry_many_items(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    writes: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[int] = []
    publish = Calls.publish

    def counted(calls: Calls, task: Any, stream: str, items: list[Any], *more: Any) -> Any:
        sent.append(len(items))
        return publish(calls, task, stream, items, *more)

    monkeypatch.setattr(Calls, "publish", counted)

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> None:
        await writes(0, 5000)

    work()
    client.start(talks).result(T)
    assert sum(sent) == 5000
    assert len(sent) < 100


def test_publish_waits_while_the_database_takes_no_items(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any, connection: Any
) -> None:
    """While a transaction has locked the job, few items gather; then all of them are stored."""
    published: list[int] = []
    blocked = threading.Event()

    @app.activity
    def talk() -> None:
        assert blocked.wait(20)
        for number in range(40):
            perdure.publish("words", [number, "x" * 50_000])
            published.append(number)

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> None:
        await talk()

    work(lease=300)
    handle = client.start(talks)
    connection.execute("begin")
    connection.execute("select from jobs for no key update")
    blocked.set()
    waiting = "select exists (select from pg_stat_activity where wait_event_type = 'Lock')"
    while not run(dsn, waiting)[0][0] or len(published) < 10:
        time.sleep(0.005)
    assert len(published) < 20
    connection.execute("commit")
    handle.result(T)
    assert [number for number, _ in words(handle)] == list(range(40))


def test_item_is_published_even_if_its_publish_call_times_out(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    late: list[int] = []

    @app.activity
    async def talk() -> None:
        for number in range(4):
            try:
                async with asyncio.timeout(0):
                    await perdure.publish("words", [number, "x" * 500_000])
            except TimeoutError:
                late.append(number)

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> None:
        await talk()

    work()
    handle = client.start(talks)
    handle.result(T)
    assert late
    assert [number for number, _ in words(handle)] == list(range(4))


# Cancels, timeouts and refusals.


def test_end_of_a_stream_is_received_while_the_activity_still_runs(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    is_read = threading.Event()

    @app.activity
    async def talk() -> bool:
        perdure.publish("words", 1)
        await perdure.publish("words")
        return await asyncio.to_thread(is_read.wait, 20)

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> bool:
        return await talk()

    work()
    handle = client.start(talks)
    assert words(handle) == [1]
    is_read.set()
    assert handle.result(T)


def test_large_items_are_not_joined_beyond_the_limit_of_a_call(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.activity
    async def talk() -> None:
        for word in ("a", "b"):  # not awaited: the second one comes before the first is sent
            perdure.publish("words", word * 600_000)

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> None:
        await talk()

    work()
    handle = client.start(talks)
    handle.result(T)
    assert [word[:1] for word in words(handle)] == ["a", "b"]


def test_publish_raises_in_a_thread_after_a_cancel(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    begun, ended = threading.Event(), threading.Event()

    @app.activity
    def talk() -> None:
        try:
            while True:
                perdure.publish("words", 1)
                begun.set()
                ended.wait(0.01)
        finally:
            ended.set()

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> None:
        await talk()

    work()
    handle = client.start(talks)
    assert begun.wait(20)
    handle.cancel()
    with pytest.raises(perdure.JobCancelled):
        handle.result(T)
    assert ended.wait(20)


def test_publish_raises_for_an_invalid_item_or_name(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.activity
    async def talk(stream: str, what: str) -> Any:
        value = {"large": "x" * 1_048_577, "nan": float("nan"), "fine": 1}[what]
        try:
            await perdure.publish(stream, value)
        except perdure.PerdureError as error:
            return error.code

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> Any:
        tries = [("s", "large"), ("s", "nan"), ("a..b", "fine"), ("s", "fine")]
        return [await talk(*each) for each in tries]

    work()
    handle = client.start(talks)
    assert handle.result(T) == ["PD301", "PD103", "PD101", None]
    assert words(handle, "s") == [1]


def test_item_that_the_database_refuses_fails_the_activity(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """The name is too long for an index. By the time it is refused, the code has gone on."""

    @app.activity
    async def talk() -> str:
        await perdure.publish("s" * 1001, 1)
        return "said"

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> Any:
        try:
            return await talk()
        except perdure.ActivityFailed as error:
            return error.type

    work()
    assert client.start(talks).result(T) == "InvalidPath"


@pytest.mark.parametrize("error", [ValueError("no sealer"), perdure.TaskNotHeld("it is lost")])
def test_error_while_publishing_fails_the_attempt_or_is_logged(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    writes: Any,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If the task is lost, nobody takes the failure of the attempt, so the error is logged."""

    async def publish(*given: Any) -> None:
        raise error

    monkeypatch.setattr(StreamLinks, "publish", publish)

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> Any:
        try:
            return await writes(0, 1)
        except perdure.ActivityFailed as failed:
            return failed.type

    work()
    is_lost = isinstance(error, perdure.TaskNotHeld)
    assert client.start(talks).result(T) == (1 if is_lost else "ValueError")
    assert ("could not publish: it is lost" in caplog.text) is is_lost


@pytest.mark.steady("it reads why an answer is late")
def test_database_that_does_not_answer_for_long_is_logged(
    app: perdure.App,
    client: perdure.Client,
    dsn: str,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connections, "SILENT_FOR", 0.2)
    begun, is_locked = threading.Event(), threading.Event()

    @app.activity
    async def talk() -> None:
        begun.set()
        await asyncio.to_thread(is_locked.wait, 20)
        await perdure.publish("words", 1)

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> None:
        await talk()

    work()
    handle = client.start(talks)
    assert begun.wait(20)
    with psycopg.connect(dsn) as other:
        other.execute("select from perdure.jobs where id = %s for update", [handle.id])
        is_locked.set()
        until = time.monotonic() + 20
        while "has not answered publish() for 0.2 s: it is busy" not in caplog.text:
            assert time.monotonic() < until, caplog.text
            time.sleep(0.02)
    assert words(handle) == [1]


def test_thread_that_publishes_without_end_times_out(
    app: perdure.App, client: perdure.Client, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread publishes while earlier items are sent, and gets the cancel in `publish()`."""
    publish, ended, is_over = StreamLinks.publish, threading.Event(), threading.Event()

    async def publish_slowly(*given: Any) -> None:
        await asyncio.sleep(0.1)
        await publish(*given)

    monkeypatch.setattr(StreamLinks, "publish", publish_slowly)

    @app.activity(timeout=0.2, retry=perdure.Retry(attempts=1))
    def talk() -> None:
        try:
            while not is_over.wait(0.001):
                perdure.publish("words", "again")
        except asyncio.CancelledError:
            ended.set()

    @app.coordinator
    async def talks(memory: perdure.AsyncEntity) -> Any:
        try:
            await talk()
        except perdure.ActivityFailed as error:
            return error.type

    work()
    try:
        assert client.start(talks).result(T) == "TimeoutError"
        assert ended.wait(20)
    finally:
        is_over.set()


def test_following_an_empty_stream_times_out(client: perdure.Client) -> None:
    """A missing job, and a publish outside of a task, are errors."""
    handle = client.start("nobody")
    assert words(handle, timeout=0.05) == []
    with pytest.raises(perdure.JobNotFound):
        words(client.handle("none"))
    with pytest.raises(perdure.InvalidArgument):
        perdure.publish("words", 1)


@pytest.fixture(params=["plain", "async"])
def followed(request: pytest.FixtureRequest, client: perdure.Client, dsn: str) -> Any:
    """Give a function that follows a stream, with each kind of client: its items and its end."""

    async def follow(job: str, limit: float, after: Any) -> Any:
        async with perdure.connect_async(dsn) as there:
            stream = there.handle(job).stream("words", after=after, timeout=limit)
            return [item async for item in stream], stream.ended

    def plain(job: str, limit: float, after: Any = 0) -> Any:
        stream = client.handle(job).stream("words", after=after, timeout=limit)
        return list(stream), stream.ended

    def asynchronous(job: str, limit: float, after: Any = 0) -> Any:
        return asyncio.run(follow(job, limit, after))

    return plain if request.param == "plain" else asynchronous


def test_stream_tells_its_end_from_a_timeout(client: perdure.Client, followed: Any) -> None:
    """Its publisher ends it, or its job does; what is published later does not change that."""
    job = client.start("nobody").id
    memory, shortly = client.entity(job), 0.01
    assert followed(job, shortly) == ([], False)
    memory.log("words", 1)
    items, ended = followed(job, shortly)
    assert ([item.item for item in items], ended) == ([1], False)
    assert followed(job, shortly, items[-1]) == ([], False)
    assert followed(job, shortly, memory.items("words", last=1)[0]) == ([], False)
    end = memory.log("words")
    assert followed(job, shortly) == (items, True)
    assert followed(job, shortly, items[-1]) == ([], True)
    memory.log("words", 2)
    assert followed(job, shortly) == (items, True)
    assert followed(job, shortly, end)[1] is False
    client.handle(job).terminate()
    rest, ended = followed(job, shortly, end)
    assert ([item.item for item in rest], ended) == ([2], True)


def test_stream_that_is_still_followed_has_not_ended(client: perdure.Client) -> None:
    """Only the loop that comes to the end knows of it."""
    handle = client.start("nobody")
    handle.memory.log("words", 1)
    handle.memory.log("words")
    stream = handle.stream("words", timeout=T)
    assert next(stream).item == 1
    assert not stream.ended
    assert next(stream, None) is None
    assert stream.ended


def test_follower_that_begins_again_after_each_timeout_misses_and_repeats_nothing(
    client: perdure.Client, followed: Any
) -> None:
    """As a server does that tells a browser now and then that it still lives."""
    job, pauses = client.start("nobody").id, threading.Semaphore(0)
    memory = client.entity(job)

    def publish() -> None:
        for number in range(0, 60, 3):
            assert pauses.acquire(timeout=40)
            memory.log("words", number, number + 1, number + 2)
        memory.log("words")

    with ThreadPoolExecutor(1) as pool:
        published = pool.submit(publish)
        received: list[Any] = []
        ended = False
        while not ended:
            items, ended = followed(job, 0.001, received[-1] if received else 0)
            received += items
            pauses.release()
        published.result()
    assert [item.item for item in received] == list(range(60))


def test_item_in_time_is_received_even_if_the_poll_before_it_is_late(
    client: perdure.Client, followed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of a poll that began in time lacks items that arrived while it was on its way."""
    job, limit, polls = client.start("nobody").id, 1.0, count()
    call_of = AsyncLink.call

    def pause(call: Call) -> float:
        """Let an item arrive after the first poll, whose answer takes longer than the limit."""
        if call.function != "stream_items" or next(polls):
            return 0
        client.entity(job).log("words", 1)
        return 1.5 * limit

    def send_late(connection: Any, call: Call) -> Any:
        answer = send(connection, call)
        time.sleep(pause(call))
        return answer

    async def call_late(link: AsyncLink, call: Call) -> Any:
        answer = await call_of(link, call)
        await asyncio.sleep(pause(call))
        return answer

    monkeypatch.setattr(waiting, "send", send_late)
    monkeypatch.setattr(AsyncLink, "call", call_late)
    items, ended = followed(job, limit)
    assert ([item.item for item in items], ended) == ([1], False)
