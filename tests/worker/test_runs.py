"""Runs: a coordinator continues as its next run, is retried, times out, or is forked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

import perdure
from perdure.cli.commands import commands
from perdure.errors import ChildFailed, JobFailed
from perdure.replaying import recording_of, replay_journal
from tests.worker.test_until import wait_for

T = "40 s"
Work = Callable[..., perdure.Worker]


def test_run_continues_as_the_next_run(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    """(E17) The memory stays, each run has its own journal, and the last run gives the result."""
    seen = []

    @app.activity
    async def fetch(page: int) -> int:
        seen.append(page)
        return page * 10

    @app.coordinator
    async def pages(memory: perdure.AsyncEntity, page: int, *, last: int) -> Any:
        await memory.append("pages", await fetch(page))
        if page < last:
            perdure.continue_as_new(page + 1, last=last)
        return [perdure.info().run, await memory.get("pages")]

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> Any:
        return await perdure.child(pages, 1, last=3, context={"pages": []})

    work()
    handle = client.start(parent, id="p")
    assert handle.result(T) == [3, [10, 20, 30]]
    assert seen == [1, 2, 3]
    child = client.handle("p/pages#1")
    assert child.status().run == 3
    begun = [item.body for item in child.timeline() if item.task == "$run"]
    assert [(run["name"], run["argument"]) for run in begun] == [
        ("continue", {"page": 2, "last": 3}),
        ("continue", {"page": 3, "last": 3}),
    ]
    assert child.forget_old_runs() == 2
    assert child.forget_old_runs() == 0
    assert len(child.memory.history()) == 4


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_code_after_continue_as_new_has_no_effect(
    app: perdure.App, client: perdure.Client, work: Work, kind: str
) -> None:
    """[P9] Earlier commands are applied; those that the code issues as it unwinds are not."""
    after = []

    async def loops(memory: perdure.AsyncEntity, run: int) -> Any:
        unawaited = memory.append("log", f"asked {run}")
        if run < 3:
            try:
                perdure.continue_as_new(run + 1)
            except BaseException:  # noqa: BLE001 - a workflow may do so
                after.append(run)
            finally:
                await memory.append("log", "finally")
            await memory.append("log", "after")
        await unawaited
        return await memory.get("log")

    def plain_loops(memory: perdure.Entity, run: int) -> Any:
        memory.append("log", f"asked {run}")
        if run < 3:
            try:
                perdure.continue_as_new(run + 1)
            except BaseException:  # noqa: BLE001 - a workflow may do so
                after.append(run)
            finally:
                memory.append("log", "finally")
            memory.append("log", "after")
        return memory.get("log")

    coordinator: Any = app.coordinator(loops if kind == "async" else plain_loops)
    work()
    handle = client.start(coordinator, 1, context={"log": []})
    assert handle.result(T) == ["asked 1", "asked 2", "asked 3"]
    assert after[0] == 1


def test_any_asyncio_task_of_a_coordinator_may_end_the_run(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    @app.coordinator
    async def races(memory: perdure.AsyncEntity, run: int = 1) -> Any:
        async def first() -> None:
            await perdure.sleep(0.01)
            perdure.continue_as_new(2)

        async def second() -> None:
            await perdure.wait_for("never")

        if run == 1:
            async with asyncio.TaskGroup() as group:
                group.create_task(first())
                group.create_task(second())
        return "second run"

    work()
    assert client.start(races).result(T) == "second run"


def test_next_run_takes_over_signals_and_detached_hooks(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    """[P5] It receives the signals that nobody took, the detached hook lives on, and its children
    get names of their own."""

    @app.hook
    async def outlives(memory: perdure.AsyncEntity) -> None:
        await perdure.wait_for("end hook")
        await memory.set(True, "outlived")

    @app.coordinator
    async def small(memory: perdure.AsyncEntity) -> str:
        return perdure.info().job

    @app.coordinator
    async def takes(memory: perdure.AsyncEntity, taken: list[Any]) -> Any:
        if not taken:
            perdure.start_hook(outlives)
        taken = [*taken, await perdure.wait_for("item"), await perdure.child(small)]
        if len(taken) < 6:
            perdure.continue_as_new(taken)
        return taken

    handle = client.start(takes, [], id="t")
    for number in range(3):
        handle.signal("item", number)
    work()
    assert handle.result(T) == [0, "t/small#1", 1, "t/2/main/small#1", 2, "t/3/main/small#1"]
    handle.signal("end hook")
    assert handle.memory.until("$.outlived == true", timeout=T)


def test_hook_of_the_next_run_may_request_the_same_child(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    """The child of the earlier run still exists, so the next run gets another job."""

    @app.coordinator
    async def small(memory: perdure.AsyncEntity) -> str:
        return perdure.info().job

    @app.hook
    async def asks(memory: perdure.AsyncEntity) -> str:
        name: str = await perdure.child(small)
        return name

    @app.coordinator
    async def twice(memory: perdure.AsyncEntity, *names: str) -> Any:
        names = (*names, await asks(memory))
        if len(names) < 2:
            perdure.continue_as_new(*names)
        return names

    work()
    first, second = client.start(twice, id="t").result(T)
    assert first != second
    assert [client.handle(name).status().status for name in (first, second)] == ["completed"] * 2


def test_cancel_reaches_the_next_run(app: perdure.App, client: perdure.Client, work: Work) -> None:
    """(E2) A cancel cannot get lost between two runs, however quickly one follows the other."""

    @app.coordinator
    async def for_ever(memory: perdure.AsyncEntity, n: int = 0) -> Any:
        await memory.set(n, "n")
        perdure.continue_as_new(n + 1)

    work()
    handle = client.start(for_ever)
    handle.memory.until("$.n > 2", timeout=T)
    handle.cancel("enough")
    with pytest.raises(perdure.JobCancelled):
        handle.result(T)


def test_wrong_call_of_continue_as_new_raises_where_it_is_made(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    """Too many arguments raise TypeError in the coordinator, and any call fails in a hook."""

    @app.hook
    async def wants(memory: perdure.AsyncEntity) -> None:
        perdure.continue_as_new()

    @app.coordinator
    async def wrong(memory: perdure.AsyncEntity, page: int) -> Any:
        with suppress(TypeError):
            perdure.continue_as_new("a", "b", "c")
        with pytest.raises(perdure.HookFailed) as failed:
            await wants(memory)
        return failed.value.type

    work()
    assert client.start(wrong, 1).result(T) == "InvalidArgument"


def test_failed_coordinator_is_retried_as_a_new_run(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    """(E4) Only the memory survives an attempt. Errors listed in `never` fail at once."""

    @app.coordinator(retry=perdure.Retry(attempts=4, delay="10 ms", never=(KeyError,)))
    async def flaky(memory: perdure.AsyncEntity, until: int, kind: str) -> Any:
        made = await memory.increment("made")
        if made < until:
            raise KeyError("k") if kind == "never" else OSError(f"attempt {made}")
        return [perdure.info().attempt, perdure.info().run]

    work()
    assert client.start(flaky, 3, "x").result(T) == [2, 3]
    for kind, made, name in (("never", 1, "KeyError"), ("x", 4, "OSError")):
        handle = client.start(flaky, 9, kind)
        with pytest.raises(JobFailed) as failed:
            handle.result(T)
        assert failed.value.type == name
        assert handle.memory.get("made") == made


def test_unstorable_result_and_error_after_a_cancel_are_not_retried(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    """(E4) Another attempt could not store the result either, and a cancelled job must end."""

    @app.coordinator(retries=3)
    async def unstorable(memory: perdure.AsyncEntity) -> Any:
        await memory.increment("made")
        return float("nan")

    @app.coordinator(retries=3)
    async def cancelled(memory: perdure.AsyncEntity) -> Any:
        await memory.increment("made")
        try:
            await perdure.sleep("1 h")
        except asyncio.CancelledError:
            raise OSError("while cleaning up") from None

    work()
    handle = client.start(cancelled)
    handle.memory.until("$.made == 1", timeout=T)
    handle.cancel()
    for failing, name in ((client.start(unstorable), "InvalidValue"), (handle, "OSError")):
        with pytest.raises(JobFailed) as failed:
            failing.result(T)
        assert failed.value.type == name
        assert failing.memory.get("made") == 1


def test_pause_before_the_next_attempt_is_shown_and_can_be_cancelled(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    """(E6) (E2) The status shows when the next attempt begins, and the error of the last one."""

    @app.coordinator(retry=perdure.Retry(attempts=2, delay="1 h", max_delay="1 h"))
    async def fails(memory: perdure.AsyncEntity) -> Any:
        if perdure.info().attempt:
            await perdure.sleep("1 h")
        raise OSError("no answer")

    work()
    handle = client.start(fails)
    while "attempt 2 at" not in (handle.status().waiting_for or ""):
        time.sleep(0.01)
    assert "after: no answer" in str(handle.status().waiting_for)
    handle.cancel()
    with pytest.raises(perdure.JobCancelled):
        handle.result(T)


def test_job_runs_again_on_request(
    app: perdure.App, client: perdure.Client, work: Work, dsn: str
) -> None:
    """(E5) `retry` runs a failed job again, and `if_exists="new_run"` any job that has ended."""

    @app.coordinator(queue="special")
    async def adds(memory: perdure.AsyncEntity, what: str) -> Any:
        await memory.append("seen", what)
        if what == "bad":
            raise ValueError(what)
        return [perdure.info().run, await memory.get("seen")]

    work(queues=["special"])
    handle = client.start(adds, "bad", id="again", context={"seen": []})
    with pytest.raises(JobFailed):
        handle.result(T)
    assert handle.retry(["good"]) is True
    assert handle.result(T) == [2, ["bad", "good"]]
    assert handle.retry() is False
    with pytest.raises(perdure.JobExists):
        client.start(adds, "new", id="again")
    assert client.start(adds, "new", id="again", if_exists="new_run").result(T)[0] == 3
    (many,) = client.start_many(
        adds, [{"args": ["many"], "id": "again", "if_exists": "new_run", "timeout": "1 h"}]
    )
    assert many.result(T) == [4, ["bad", "good", "new", "many"]]
    client.start(adds, "bad", id="cli", context={"seen": []})
    with pytest.raises(JobFailed):
        client.handle("cli").result(T)
    printed = CliRunner().invoke(commands, ["retry", "cli", '["good"]', "--dsn", dsn])
    assert printed.stdout == "true\n"
    assert client.handle("cli").result(T) == [2, ["bad", "good"]]


def test_job_that_exceeds_its_timeout_fails(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    """(E4) [P6] Its hooks end, its parent gets the error, and its next runs get no more time."""

    @app.hook
    async def long(memory: perdure.AsyncEntity) -> None:
        await perdure.wait_for("never")

    @app.coordinator(timeout="300 ms")
    async def slow(memory: perdure.AsyncEntity) -> Any:
        await long(memory)

    @app.coordinator
    async def for_ever(memory: perdure.AsyncEntity) -> Any:
        await perdure.sleep(0.05)
        perdure.continue_as_new()

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> Any:
        errors = []
        for workflow in (slow, for_ever):
            try:
                await perdure.child(workflow, timeout=0.2)
            except ChildFailed as error:
                errors.append(error.type)
        return errors

    work()
    handle = client.start(slow)
    with pytest.raises(JobFailed, match="longer than") as failed:
        handle.result(T)
    assert failed.value.type == "TimeoutError"
    assert [item for item in handle.timeline() if item.kind == "task"] == []
    assert client.start(parent).result(T) == ["TimeoutError", "TimeoutError"]
    with pytest.raises(JobFailed, match=r"00:00:00\.1"):
        client.start(for_ever, timeout=0.1).result(T)
    assert client.start(slow, timeout="1 h").status().status == "running"


def test_fork_continues_from_a_place_in_the_journal(
    app: perdure.App, client: perdure.Client, work: Work, dsn: str
) -> None:
    """(E9) [P4] [P9] It replays the journal of its origin up to there, and does the rest itself."""
    made: list[str] = []

    @app.activity
    async def think(about: str) -> str:
        made.append(about)
        return f"thought about {about}"

    @app.hook
    async def writes(memory: perdure.AsyncEntity, what: str) -> str:
        await memory.append("notes", what)
        return what

    @app.coordinator
    async def works(memory: perdure.AsyncEntity, text: str) -> Any:
        name = perdure.uuid()
        await memory.set({"text": text, "notes": []})
        one = await think(f"{name} {perdure.random().random()}")
        await writes(memory, "first")
        await perdure.sleep(0.01)
        read = await memory.get("text")
        second = perdure.uuid()
        await writes(memory, "second")
        return [str(name), one, read, str(second), await memory.get("notes")]

    text = "x" * 3000
    work()
    handle = client.start(works, text, id="origin")
    origin = handle.result(T)
    facts = [item for item in handle.timeline() if item.task == "1/main"]
    hook = next(f.body["seq"] for f in facts if f.body["name"] == "writes")
    read = next(f.body["seq"] for f in facts if f.body["kind"] == "read")
    assert len(made) == 1

    everything = client.fork("origin", workflow=works)
    assert everything.result(T) == origin
    before = client.fork("origin", "before", at=hook - 1)
    assert before.result(T)[:3] == origin[:3]
    assert before.result(T)[4] == ["first", "second"]
    assert before.result(T)[3] != origin[3]  # drawn after the fork, so its own
    behind = client.fork("origin", "behind", at=read + 1, context={"notes": ["edited"]})
    assert behind.result(T) == [*origin[:4], ["edited"]]  # both hooks answered before the fork
    again = client.fork("before", at=hook)  # a fork of a fork: its journal has three authors
    assert again.result(T)[:3] == origin[:3]
    assert len(made) == 1
    for job in ("origin", "before", "behind", again.id):
        recording = recording_of(client, job)
        assert replay_journal(app, recording.row, recording.journal) is None
    printed = CliRunner().invoke(
        commands, ["fork", "origin", "--at", "0", "--id", "anew", "--dsn", dsn]
    )
    assert printed.stdout == "anew\n"
    assert client.handle("anew").result(T)[0] != origin[0]
    assert len(made) == 2


def test_fork_reads_the_logs_of_its_origin(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    """(E9) [P9] A conversation in a log, forked at any place, ends as it does in the origin."""

    @app.activity
    async def answer(messages: list[str]) -> str:
        return f"answer {len(messages)}"

    @app.coordinator
    async def chat(memory: perdure.AsyncEntity, turns: int) -> list[str]:
        for turn in range(turns):
            await memory.log("messages", f"question {turn}")
            await memory.log("messages", await answer(await memory.get("messages")))
        messages: list[str] = await memory.get("messages")
        return messages

    work()
    whole = client.start(chat, 3, id="chat")
    want = ["question 0", "answer 1", "question 1", "answer 3", "question 2", "answer 5"]
    assert whole.result(T) == want
    length = sum(item.task == "1/main" for item in whole.timeline() if item.kind == "fact")
    for place in range(length):
        assert client.fork("chat", at=place).result(T) == want


def test_fork_with_mended_code_continues_a_stuck_job(
    app: perdure.App, client: perdure.Client, dsn: str, work: Work
) -> None:
    """[P9] The stuck job itself stays as it is."""

    @app.activity
    async def step(name: str) -> str:
        return name

    @app.coordinator(name="changing")
    async def old(memory: perdure.AsyncEntity) -> Any:
        await step("a")
        await step("b")
        await perdure.wait_for("go")

    mended = perdure.App()

    @mended.activity(name="step")
    async def new_step(name: str) -> str:
        return name

    @mended.coordinator(name="changing")
    async def new(memory: perdure.AsyncEntity) -> Any:
        await new_step("a")
        return await new_step("other")

    handle = client.start(old, id="s")
    with perdure.Worker(app, dsn=dsn):
        while "signal" not in (handle.status().waiting_for or ""):
            time.sleep(0.01)
    handle.signal("go")
    work(mended)
    while "somebody to resume" not in (handle.status().waiting_for or ""):
        time.sleep(0.01)
    assert client.fork("s", at=1).result(T) == "other"
    assert handle.terminate()


def test_timeline_command_prints_one_line_of_json_per_event(
    app: perdure.App, client: perdure.Client, work: Work, dsn: str
) -> None:
    @app.coordinator
    async def short(memory: perdure.AsyncEntity) -> Any:
        for number in range(30):
            await memory.set(number, "n")

    work()
    client.start(short, id="j").result(T)
    printed = CliRunner().invoke(commands, ["timeline", "j", "--dsn", dsn])
    lines = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [line["kind"] for line in lines] == ["job"] + ["fact"] * 30
    assert [line["body"]["version"] for line in lines[1:]] == list(range(1, 31))


def test_async_client_retries_and_forks_jobs(app: perdure.App, dsn: str, work: Work) -> None:
    """The async client reads timelines and forgets old runs, too."""

    @app.coordinator
    async def fails(memory: perdure.AsyncEntity, fail: bool) -> Any:
        if fail:
            raise ValueError("no")
        return perdure.info().run

    async def main() -> None:
        async with await perdure.connect_async(dsn) as client:
            handle = await client.start(fails, True, id="a", timeout="1 h")
            with pytest.raises(JobFailed):
                await handle.result(T)
            assert await handle.retry({"fail": False})
            assert await handle.result(T) == 2
            forked = await client.fork("a", "f")
            assert await forked.result(T) == 1
            assert [item.kind async for item in handle.timeline()] == ["job", "fact"]
            assert await handle.forget_old_runs() == 0

    work()
    asyncio.run(main())


def test_retry_joins_the_callers_transaction(
    app: perdure.App, client: perdure.Client, dsn: str
) -> None:
    """(E7) A rollback undoes the retry."""
    handle = client.start("nothing", id="j")
    handle.terminate()
    with psycopg.connect(dsn) as connection:
        assert handle.retry(connection=connection)
        connection.rollback()
    assert handle.status().status == "cancelled"


def test_fork_whose_requests_differ_continues_once_they_are_accepted(
    app: perdure.App, client: perdure.Client, dsn: str, work: Work
) -> None:
    """(P9) The arguments of the activity name its job and run, which differ in a fork. The fork is
    stuck until somebody accepts the change."""

    @app.activity
    async def named(name: str) -> str:
        return name

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity, again: bool) -> list[str]:
        if again:
            perdure.continue_as_new(False)
        names = [await named(f"{perdure.info().job}/{perdure.info().run}")]
        await perdure.wait_for("go")
        return [*names, await named(f"{perdure.info().job}/{perdure.info().run}")]

    work()
    handle = client.start(asks, True, id="a")
    wait_for(dsn, "select count(*) = 1 from perdure.tasks where 'go' = any(awaits)")
    forked = client.fork("a", "f", workflow=asks)
    wait_for(dsn, "select count(*) = 1 from perdure.tasks where stuck_reason is not null")
    assert forked.resume(accept_changes=True) == 1
    for each in (handle, forked):
        each.signal("go")
    assert handle.result(T) == ["a/2", "a/2"]
    assert forked.result(T) == ["a/2", "f/1"]
