"""The lab of perdure.testing: what tests do with it, and which mistakes it finds."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import perdure
from perdure.testing import AsyncLab, Lab

app = perdure.App()
released = threading.Event()


@dataclass
class Page:
    """A typed result."""

    title: str


@app.activity(retries=3, timeout="1 min")
async def search(query: str) -> list[Page]:
    raise ConnectionError("there is no network in tests")


@app.activity(retry=perdure.Retry(attempts=4, delay="1 h", factor=24, max_delay="600 h", jitter=0))
def flaky(counter: str) -> str:
    attempts.append(counter)
    if len(attempts) < 4:
        raise OSError("not yet")
    return "at last"


attempts: list[str] = []


@app.activity(queue="elsewhere")
def dispatched(number: int) -> int:
    return number + 1


@app.activity
def hangs() -> None:
    released.wait(60)


@app.activity
async def stamped(at: str) -> str:
    return at


@app.hook
async def reminder(memory: perdure.AsyncEntity, after: str, text: str) -> str:
    await perdure.sleep(after)
    await memory.append("notes", text)
    return text


@app.hook
def plain_reminder(memory: perdure.Entity, text: str) -> str:
    perdure.sleep("1 d")
    memory.append("notes", text)
    return text


@app.coordinator(entity="research-agent")
async def research(memory: perdure.AsyncEntity, query: str) -> list[str]:
    await memory.set({"query": query})
    pages = await search(query)
    await perdure.sleep("30 days")
    return [page.title for page in pages]


@app.coordinator
async def reminders(memory: perdure.AsyncEntity) -> Any:
    await memory.set({"notes": []})
    await asyncio.gather(
        reminder(memory, "3 d", "third"),
        reminder(memory, "1 h", "first"),
        plain_reminder(memory, "second"),
    )
    return await memory.get("notes")


@app.coordinator
async def approval(memory: perdure.AsyncEntity) -> str:
    await memory.set("waiting", "status")
    try:
        answer: str = await perdure.wait_for("approve", timeout="7 d")
    except TimeoutError:
        return "too late"
    return answer


@app.coordinator
async def numbers(memory: perdure.AsyncEntity, count: int) -> int:
    return sum(await asyncio.gather(*map(dispatched, range(count))))


@app.coordinator
def plain(memory: perdure.Entity) -> list[Any]:
    first = dispatched(1)
    perdure.sleep("1 d")
    return [first, perdure.child(approval), flaky("a")]


@app.coordinator
async def waits_for_ever(memory: perdure.AsyncEntity) -> str:
    return await perdure.wait_for("never")


come_later = perdure.Retry(attempts=2, delay=0.01, after=lambda error: error.args[0])


def turn_away_once() -> int:
    if not perdure.info().attempt:
        raise ConnectionError("2 h")
    return perdure.info().attempt


@app.activity(retry=perdure.Retry(attempts=2, delay=0.5, jitter=0), queue="elsewhere")
def turned_away_briefly() -> int:
    return turn_away_once()


@app.coordinator
async def limited(memory: perdure.AsyncEntity) -> int:
    async with asyncio.timeout(3600):
        return await turned_away_briefly.start()


@app.activity(retry=come_later)
def turned_away_here() -> int:
    return turn_away_once()


@app.activity(retry=come_later, queue="elsewhere")
def turned_away_elsewhere() -> int:
    return turn_away_once()


@app.hook(retry=come_later)
async def turned_away_hook(memory: perdure.AsyncEntity) -> int:
    return turn_away_once()


@app.coordinator(retry=come_later)
async def turned_away(memory: perdure.AsyncEntity) -> list[int]:
    once = turn_away_once()
    return [
        once,
        await turned_away_here(),
        await turned_away_elsewhere(),
        await turned_away_hook(memory),
    ]


@app.coordinator
async def waits_for_no_condition(memory: perdure.AsyncEntity) -> None:
    await memory.until("votes >= 3")


@app.coordinator
async def on_the_clock(memory: perdure.AsyncEntity) -> str:
    await stamped(perdure.now().isoformat())
    await perdure.sleep("1 d")
    return await stamped(perdure.now().isoformat())


@app.coordinator
async def random_argument(memory: perdure.AsyncEntity, ends: bool) -> Any:
    await stamped(str(random.random()))
    return None if ends else await perdure.wait_for("never")


@app.coordinator
async def in_runs(
    memory: perdure.AsyncEntity, number: int, random_in_run: int, step: int = 1
) -> Any:
    await stamped(str(random.random()) if number == random_in_run else perdure.now().isoformat())
    await perdure.sleep("1 d")
    if number < 3:
        perdure.continue_as_new(number + step, random_in_run, step)
    return [number, perdure.info().run, str(perdure.uuid())]


@app.coordinator(retry=perdure.Retry(attempts=2, delay="1 h"))
async def in_two_attempts(memory: perdure.AsyncEntity, random_in_run: int) -> Any:
    run = perdure.info().run
    await stamped(str(random.random()) if run == random_in_run else "")
    if perdure.info().attempt == 0:
        raise OSError("once more")
    return run


@app.coordinator
async def hanging(memory: perdure.AsyncEntity) -> None:
    await hangs.start()


@app.coordinator
async def sleepless(memory: perdure.AsyncEntity) -> None:
    while True:
        await perdure.sleep("1 d")


@app.coordinator
async def in_the_database(memory: perdure.AsyncEntity) -> Any:
    return await perdure.exec_hook("count", 5, queue=perdure.SQL_QUEUE)


@pytest.fixture
def lab(dsn: str) -> Iterator[Lab]:
    """Give a lab of this app."""
    attempts.clear()
    with Lab(app, dsn=dsn) as lab:
        yield lab


def found(*titles: str) -> Any:
    """Give a replacement for `search` that finds pages with these titles."""
    return lambda query: [Page(title) for title in titles or (f"about {query}",)]


# Time.


def test_sleep_of_a_month_takes_a_moment(lab: Lab) -> None:
    lab.mock(search, found())
    began = lab.now()
    assert lab.run(research, "subsidies", id="j") == ["about subsidies"]
    assert timedelta(days=30) <= lab.now() - began < timedelta(days=30, minutes=1)
    assert lab.memory("j").get("query") == "subsidies"
    lab.check()


def test_finish_notices_a_job_that_ended_while_a_reply_was_lost(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P12] (T9) When the lab repeats the call, the database says that nothing will be due."""
    handle = lab.start(on_the_clock)
    send = lab.client.send

    def lossy(call: Any, *connection: Any) -> Any:
        answer = send(call, *connection)
        if call.function != "skip_time" or answer is None:
            return answer
        while handle.status().status == "running":
            time.sleep(0.01)
        return send(call, *connection)

    monkeypatch.setattr(lab.client, "send", lossy)
    lab.finish(handle.id)
    assert handle.status().status == "completed"


def test_work_that_becomes_due_before_time_is_skipped_is_not_skipped(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look for work and the skip, the second attempt becomes due, and no worker can
    claim it yet: a lock stands for a slow worker. The limit of an hour must not pass first."""
    with Lab(app, dsn=dsn) as lab, psycopg.connect(lab.dsn) as slow:
        send, held = lab.client.send, []

        def late(call: Any, *connection: Any) -> Any:
            if call.function != "skip_time" or held:
                return send(call, *connection)
            held.append(call)
            slow.execute(f"lock table {lab.schema}.tasks in share row exclusive mode".encode())
            query = f"select min(due_at) > {lab.schema}.clock() from {lab.schema}.tasks"
            while slow.execute(query.encode()).fetchone() == (True,):
                time.sleep(0.01)
            answer = send(call, *connection)
            slow.rollback()
            return answer

        monkeypatch.setattr(lab.client, "send", late)
        assert lab.run(limited) == 1


def test_each_timer_fires_at_its_time_as_time_passes(lab: Lab) -> None:
    handle = lab.start(reminders)
    lab.settle()
    assert lab.memory(handle).get("notes") == []
    lab.pass_time("2 h")
    assert lab.memory(handle).get("notes") == ["first"]
    lab.pass_time("24 h")
    assert lab.memory(handle).get("notes") == ["first", "second"]
    assert handle.status().status == "running"
    assert lab.result(handle) == ["first", "second", "third"]
    times = [change.at for change in lab.memory(handle).history()]
    assert [round((at - times[0]) / timedelta(hours=1)) for at in times] == [0, 1, 24, 72]
    lab.check()


def test_signal_arrives_before_the_deadline_or_the_wait_times_out(lab: Lab) -> None:
    in_time, late = lab.start(approval), lab.start(approval)
    lab.settle()
    assert lab.memory(in_time).get("status") == "waiting"
    assert lab.pass_time("6 d") - lab.now() < timedelta(seconds=10)
    in_time.signal("approve", "yes")
    assert lab.result(in_time) == "yes"
    assert lab.result(late) == "too late"
    lab.check()


def test_pass_time_moves_the_clock_when_nothing_is_due(lab: Lab) -> None:
    before = lab.now()
    after = lab.pass_time("90 min")
    assert timedelta(minutes=90) <= after - before < timedelta(minutes=91)


def test_lab_runs_children_retries_and_dispatched_activities(lab: Lab) -> None:
    began = lab.now()
    assert lab.run(plain) == [2, "too late", "at last"]
    pauses = timedelta(hours=1 + 24 + 576)
    assert timedelta(days=8) + pauses <= lab.now() - began < timedelta(days=8, hours=1) + pauses
    lab.check()


def test_lab_skips_waits_for_tokens_of_a_queue(lab: Lab) -> None:
    """A task that is held back by the rate of its queue is no work in progress. The lab skips an
    hour for each task but the first."""
    lab.client.set_queue("elsewhere", rate_per_second=1 / 3600, burst=1)
    began = lab.now()
    handle = lab.start(numbers, 4)
    lab.settle()
    assert [each.held_back for each in lab.client.queue_depths("elsewhere")] == [3]
    assert lab.result(handle) == 10
    assert timedelta(hours=3) <= lab.now() - began < timedelta(hours=3, minutes=1)
    lab.check()


def test_pause_that_an_error_asks_for_is_made_by_all_that_is_retried(lab: Lab) -> None:
    began = lab.now()
    assert lab.run(turned_away) == [1, 1, 1, 1]
    assert timedelta(hours=8) <= lab.now() - began < timedelta(hours=8, minutes=1)
    lab.check()


def test_lab_does_not_wait_for_a_paused_queue(lab: Lab) -> None:
    lab.client.pause_queue("elsewhere")
    handle = lab.start(numbers, 2)
    lab.settle()
    lab.pass_time("1 d")
    with pytest.raises(perdure.ResultTimeout, match="and nothing is due"):
        lab.result(handle)
    lab.client.resume_queue("elsewhere")
    assert lab.result(handle) == 3
    lab.check()


def test_lab_skips_pauses_between_attempts_of_sql_hooks(lab: Lab) -> None:
    with psycopg.connect(lab.dsn, autocommit=True) as connection:
        connection.execute(f"""
            create function {lab.schema}.counting(job text, args jsonb) returns jsonb
            language plpgsql as $$
            begin
                if clock() < (select created_at from jobs where id = job) + interval '1 day' then
                    raise exception 'too early';
                end if;
                return args;
            end $$""")
    lab.client.register_sql_hook("count", f"{lab.schema}.counting", attempts=9, retry_in="6 h")
    assert lab.run(in_the_database) == [5]
    lab.check()


@pytest.mark.direct("a hint wakes it")
def test_skipped_time_wakes_an_idle_worker(
    dsn: str, client: perdure.Client, connection: psycopg.Connection[Any]
) -> None:
    """Moving the clock notifies the worker, whose own poll would come a minute later."""
    with perdure.Worker(app, dsn=dsn, poll="1 min"):
        handle = client.start(approval)
        idle = "select count(*) from listeners where topic = 'default'"
        while connection.execute(idle).fetchone() != (1,) or not handle.status().version:
            time.sleep(0.01)
        while connection.execute("select skip_time()").fetchone() == (None,):
            time.sleep(0.01)
        assert handle.result("20 s") == "too late"


def test_skipping_time_waits_for_running_work(lab: Lab) -> None:
    released.clear()
    lab.start(hanging)
    due_at = lab.now() + timedelta(days=1)
    lab.start(approval, due_at=due_at)
    while lab.client.send(lab.client.calls.at_work([])) is None:
        time.sleep(0.01)
    threading.Timer(0.1, released.set).start()
    assert lab._skip()
    assert lab.now() >= due_at


# Jobs that do not end.


def test_job_that_nothing_will_wake_is_reported(lab: Lab) -> None:
    with pytest.raises(perdure.ResultTimeout, match=r"nothing is due\n.*signal never"):
        lab.run(waits_for_ever)


def test_job_without_code_is_reported_at_once(lab: Lab) -> None:
    """Time is not skipped from one attempt of the worker to the next, up to the patience."""
    with pytest.raises(perdure.ResultTimeout, match=r"nothing is due\n.*nosuch.*\n.*the function"):
        lab.run("nosuch")


def test_stuck_job_is_reported_with_what_it_needs(lab: Lab) -> None:
    """No signal helps a job whose code is wrong."""
    with pytest.raises(perdure.ResultTimeout, match=r"not a condition.*\n.*Fix the cause"):
        lab.run(waits_for_no_condition)


def test_work_that_hangs_is_reported(dsn: str) -> None:
    released.clear()
    try:
        with Lab(app, dsn=dsn, patience=0.3) as lab:
            with pytest.raises(perdure.ResultTimeout, match="hanging of job j is leased"):
                lab.run(hanging, id="j")
            released.set()
    finally:
        released.set()


def test_job_that_sleeps_for_ever_is_reported(dsn: str) -> None:
    said = r"after 1.0 s of work\n.*its time.*\n.*patience"
    too_late = pytest.raises(perdure.ResultTimeout, match=said)
    with Lab(app, dsn=dsn, patience=1) as lab, too_late:
        lab.run(sleepless)


def test_run_raises_the_failure_of_the_job(lab: Lab) -> None:
    with pytest.raises(perdure.JobFailed, match="no network"):
        lab.run(research, "q")


# Mocks.


def test_mocks_list_their_calls_and_end_with_the_lab(lab: Lab) -> None:
    before = search.function, search.is_async
    searched = lab.mock("search", found("a"))
    reminded = lab.mock(reminder, lambda memory, after, text: memory.append("notes", "mocked"))
    plainly = lab.mock(plain_reminder, AsyncMock(return_value="never"))
    assert lab.run(research, "q") == ["a"]
    assert lab.run(reminders) == ["mocked", "mocked"]
    assert searched.calls == [("q",)]
    assert sorted(reminded.calls) == [("1 h", "first"), ("3 d", "third")]
    assert plainly.calls == [("second",)]
    lab.mock(search, found("b"))
    assert lab.run(research, "q") == ["b"]
    lab.__exit__(None, None, None)
    assert (search.function, search.is_async) == before


def test_mocks_made_before_the_lab_opens_end_with_it(dsn: str) -> None:
    """Otherwise they would stay for all later labs and for all other callers of the function."""
    before = search.function

    async def in_an_async_lab() -> None:
        lab = AsyncLab(app, dsn=dsn)
        lab.mock(search, found("b"))
        async with lab:
            assert await lab.run(research, "q") == ["b"]

    lab = Lab(app, dsn=dsn)
    lab.mock(search, found("a"))
    with lab:
        assert lab.run(research, "q") == ["a"]
    assert search.function is before
    asyncio.run(in_an_async_lab())
    assert search.function is before


def test_mock_that_raises_is_retried(lab: Lab) -> None:
    outcomes: Iterator[Any] = iter([OSError("once"), [Page("x")]])

    async def one_after_the_other(query: str) -> Any:
        if isinstance(outcome := next(outcomes), OSError):
            raise outcome
        return outcome

    assert len(lab.mock(search, one_after_the_other).calls) == 0
    assert lab.run(research, "q") == ["x"]


@pytest.mark.parametrize(
    ("work", "error"),
    [
        ("nothing", perdure.errors.UnknownFunction),
        ("research", perdure.errors.UnknownFunction),
        (research, perdure.errors.UnknownFunction),
        (print, perdure.errors.UnknownFunction),
        (perdure.sql_hook("count"), perdure.InvalidArgument),
    ],
)
def test_mock_accepts_only_activities_and_hooks_of_the_app(
    lab: Lab, work: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        lab.mock(work, print)


@pytest.mark.parametrize("function", [["found"], None, "reads"])
def test_mock_rejects_a_replacement_that_is_not_callable(lab: Lab, function: Any) -> None:
    """Otherwise the activity would fail at its first call, in every later lab, too."""
    before = search.function
    with pytest.raises(perdure.InvalidArgument, match=re.escape(f"{function!r} is not a function")):
        lab.mock(search, function)
    assert search.function is before


# lab.check().


def test_workflow_time_is_the_same_at_replay(lab: Lab) -> None:
    """[P9] Before the first fact, it is the time of the first claim."""
    first = lab.run(on_the_clock)
    assert datetime.fromisoformat(first) > lab.now() - timedelta(minutes=1)
    lab.check()


@pytest.mark.parametrize("ends", [True, False])
def test_check_finds_randomness(lab: Lab, ends: bool) -> None:
    """[P9] The job may have ended, or may still wait."""
    handle = lab.start(random_argument, ends)
    lab.settle()
    assert handle.status().status == ("completed" if ends else "running")
    with pytest.raises(perdure.NonDeterminism, match=r"does not replay(?s:.*)stamped"):
        lab.check()


@pytest.mark.parametrize("workflow", [in_runs, in_two_attempts])
def test_check_finds_randomness_in_every_run(lab: Lab, workflow: Any) -> None:
    """[P9] It finds it in a run that continued as new, in a failed attempt, and in the run after
    that. It accepts sound runs, new runs and forks."""
    args = (1, 0) if workflow is in_runs else (0,)
    lab.run(workflow, *args, id="sound")
    lab.run(workflow, *args, id="sound", if_exists="new_run")
    lab.client.fork("sound")
    lab.settle()
    lab.check()
    for run in (2, 1):
        args = (1, run) if workflow is in_runs else (run,)
        lab.run(workflow, *args, id=f"random in {run}")
        with pytest.raises(perdure.NonDeterminism, match=rf"(?s)in {run}/{run}/main"):
            lab.check()


def test_check_finds_changed_arguments_of_the_next_run(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[P9] The replayed code would continue as new with other arguments."""
    lab.run(in_runs, 1, 0)
    function = in_runs.function

    async def other(memory: Any, number: int, random_in_run: int, step: int = 1) -> Any:
        return await function(memory, number, random_in_run, step + 1)

    monkeypatch.setattr(in_runs, "function", other)
    with pytest.raises(perdure.NonDeterminism, match=r"continued as new with \[2, 0, 1\], but"):
        lab.check()


def test_check_skips_forgotten_runs(lab: Lab) -> None:
    handle = lab.start(in_runs, 1, 1)
    lab.result(handle)
    assert handle.forget_old_runs() > 0
    lab.check()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            "insert into {0}.inbox (job_id, task, key, sent_at) values ('j', 'x', 'k', now())",
            "'I4'",
        ),
        ("update {0}.jobs set version = version + 1 where id = 'j'", "'I1'"),
        ("update {0}.journal set argument = '[]' where version = 1", "cannot be made again"),
    ],
)
def test_check_finds_a_broken_database(lab: Lab, damage: str, message: str) -> None:
    lab.client.create_entity("j", "note", {"a": 1})
    with psycopg.connect(lab.dsn, autocommit=True) as connection:
        connection.execute(damage.format(lab.schema))
    with pytest.raises(AssertionError, match=f"not sound.*{message}"):
        lab.check()


def test_check_finds_a_broken_database_without_assertions() -> None:
    """`python -O` leaves out `assert`."""
    checks = """
from unittest.mock import Mock
import perdure, perdure.testing
lab = perdure.testing.Lab(perdure.App())
lab.client = Mock(send=Mock(side_effect=[[], ["I4"], []]))
lab.check()
"""
    command = [sys.executable, "-O", "-c", checks]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "AssertionError: the database is not sound: ['I4']" in done.stderr


def test_closed_lab_leaves_no_schema(dsn: str, connection: psycopg.Connection[Any]) -> None:
    query = "select count(*) from pg_namespace where nspname like 'perdure\\_test\\_%'"
    with Lab(app, dsn=dsn) as lab:
        lab.mock(search, found())
        assert connection.execute(query).fetchone() == (1,)
    assert connection.execute(query).fetchone() == (0,)
    nowhere = make_conninfo(dsn, dbname="nowhere")
    with pytest.raises(psycopg.OperationalError), Lab(app, dsn=nowhere):
        raise AssertionError("the lab has begun")


@pytest.mark.parametrize("amid", ["its start", "its end"])
def test_cancelled_async_lab_leaves_no_schema_and_no_worker(
    dsn: str, connection: psycopg.Connection[Any], amid: str
) -> None:
    """Its thread must end with it, whether it is cancelled as it starts or as it ends."""

    inside = asyncio.Event()

    async def opened() -> None:
        async with AsyncLab(app, dsn=dsn):
            inside.set()

    async def test() -> None:
        opening = asyncio.create_task(opened())
        if amid == "its end":
            await inside.wait()
        while not schemas():  # noqa: ASYNC110 - the database sets no event
            await asyncio.sleep(0.001)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert not schemas()
        assert not any(each.name == "perdure-worker" for each in threading.enumerate())

    def schemas() -> list[Any]:
        query = "select nspname from pg_namespace where nspname like 'perdure\\_test\\_%'"
        return connection.execute(query).fetchall()

    asyncio.run(test())


def test_two_labs_are_independent(dsn: str) -> None:
    with Lab(app, dsn=dsn) as one, Lab(app, dsn=dsn) as other:
        one.pass_time("1 d")
        assert one.now() - other.now() > timedelta(hours=23)
        handle = one.start(approval, id="same")
        other.start(approval, id="same").signal("approve", "other")
        assert other.result("same") == "other"
        assert one.result(handle) == "too late"


def test_async_lab_does_the_same_without_blocking_the_loop(dsn: str) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    async def test() -> None:
        ticking = asyncio.create_task(tick())
        async with AsyncLab(app, dsn=dsn) as lab:
            searched = lab.mock(search, found("a"))
            began = await lab.now()
            assert await lab.run(research, "q", id="j") == ["a"]
            assert await lab.memory("j").get("query") == "q"
            assert await lab.now() - began >= timedelta(days=30)
            assert searched.calls == [("q",)]
            handle = await lab.start(approval)
            await lab.settle()
            await lab.pass_time("6 d")
            await handle.signal("approve", "yes")
            assert await lab.result(handle) == "yes"
            with pytest.raises(perdure.ResultTimeout):
                await lab.result(await lab.start(waits_for_ever))
            await lab.check()
            await lab.run(random_argument, True)
            with pytest.raises(perdure.NonDeterminism):
                await lab.check()
        ticking.cancel()

    before = search.function
    asyncio.run(test())
    assert ticks > 10
    assert search.function is before


def test_user_code_passes_strict_mypy() -> None:
    """mypy confirms the types that *_user_code.py assert, and finds the mistakes marked there."""
    pytest.importorskip("mypy")
    here = Path(__file__).parent
    files = [os.fspath(file) for file in here.glob("*_user_code.py")]
    assert len(files) == 2
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, *files]
    environment = dict(os.environ, MYPYPATH=str(here.parents[1] / "python"))
    checked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert checked.stdout.startswith("Success"), checked.stdout + checked.stderr


def test_a_check_names_the_line_that_does_not_replay(dsn: str) -> None:
    numbers, app = count(), perdure.App()

    @app.coordinator
    async def differs(memory: perdure.AsyncEntity) -> None:
        await memory.set({"n": next(numbers)})  # another one at the replay

    with Lab(app, dsn=dsn) as lab:
        lab.run(differs, id="d")
        with pytest.raises(perdure.NonDeterminism) as raised:
            lab.check()
    here = differs.function.__code__.co_firstlineno + 2
    detail = str(raised.value.detail)
    assert detail.startswith("the code of d/1/main does not match its journal: at position 1 ")
    assert detail.endswith(f"test_lab.py:{here})")
