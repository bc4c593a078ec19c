"""The log and the traceback of a failure show the place in the code, and what helps."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import failures
from perdure.codecs import AesGcm
from perdure.failures import failure_of
from perdure.workflow.functions import code_of
from perdure.workflow.operations import stored

T = "40 s"


@dataclass
class Verdict:
    """What a person has decided."""

    by: str


HERE = Path(__file__)
OURS = f"{Path(perdure.__file__).parent}/"


def line_of(text: str) -> int:
    """Return the only line of this file that ends with a comment."""
    (line,) = [
        number
        for number, each in enumerate(HERE.read_text().splitlines(), 1)
        if each.endswith(f"# {text}")
    ]
    return line


def test_log_names_the_line_of_code_that_failed(
    app: perdure.App, client: perdure.Client, work: Any, caplog: Any, monkeypatch: Any
) -> None:
    """At the usual level, without the traceback that DEBUG shows."""

    @app.activity(queue="default")
    async def reads(text: str) -> Any:
        return json.loads(text)  # reads

    @app.coordinator
    async def fails(memory: perdure.AsyncEntity) -> None:
        await reads("{")

    monkeypatch.chdir(HERE.parent)
    work()
    with pytest.raises(perdure.JobFailed):
        client.start(fails, id="j").result(T)
    attempt, job = [text for text in caplog.messages if "has failed" in text]
    place = f" (test_failure_logs.py:{line_of('reads')})"
    assert attempt.startswith("attempt 1 of <activity reads of j, task 1/main/reads#1> has failed")
    assert attempt.endswith(place)
    assert job.endswith(place)


def test_log_names_what_nobody_awaited_in_a_coordinator(
    app: perdure.App, client: perdure.Client, caplog: Any
) -> None:
    """A task and a command fail, and the job completes: without the log, the errors were lost."""

    async def fails() -> None:
        raise ValueError("of a task")

    @app.coordinator
    async def forgets(memory: perdure.AsyncEntity) -> str:
        task = asyncio.create_task(fails())
        memory.increment("text")
        await memory.get()
        perdure.signal("nobody", "go")  # its answer comes after the end
        return str(task.done())

    with perdure.Worker(app, dsn=client.dsn):
        assert client.start(forgets, id="j", context={"text": "a"}).result(T) == "True"
    lost = [text for text in caplog.messages if "nobody awaited" in text]
    assert all(
        text.startswith("a call or task that nobody awaited of <coordinator forgets of j,")
        for text in lost
    )
    told = sorted(text.partition("has failed: ")[2].partition(":")[0] for text in lost)
    assert told == ["JobNotFound", "ValueError", "WrongType"]


def test_log_names_waits_that_nobody_awaited(
    app: perdure.App, client: perdure.Client, caplog: Any
) -> None:
    """A sleep without await does not sleep. Whatever has been awaited, by whatever, is no news."""

    @app.coordinator
    async def hurries(memory: perdure.AsyncEntity) -> None:
        perdure.sleep("1 h")
        perdure.wait_for("go")
        perdure.sleep(0)  # is over before the end
        came = perdure.wait_for("come")
        withdrawn = perdure.wait_for("withdrawn")
        await perdure.sleep(0.01)
        await came
        withdrawn.cancel()
        never, soon = perdure.wait_for("never"), perdure.sleep(0)
        await asyncio.wait([never, soon], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(perdure.sleep(0), asyncio.shield(perdure.sleep(0)))
        async with asyncio.TaskGroup() as group:
            group.create_task(perdure.sleep(0))
        with contextlib.suppress(TimeoutError):
            await perdure.wait_for("too late", timeout=0)

    handle = client.start(hurries, id="j")
    handle.signal("come")
    with perdure.Worker(app, dsn=client.dsn):
        handle.result(T)
    (told,) = [text for text in caplog.messages if "never awaited" in text]
    assert told.startswith("<coordinator hurries of j, task 1/main> has ended")
    assert told.endswith("it has never awaited sleep, wait_for('go'), sleep")


def test_log_shows_detail_and_hint(
    app: perdure.App, client: perdure.Client, work: Any, caplog: Any
) -> None:
    """Detail and hint of an error of this package are in the log, not only in its traceback."""

    @app.activity
    async def search() -> str:
        return "found"

    @app.coordinator
    async def forgets(memory: perdure.AsyncEntity) -> None:
        await memory.set({"found": search()})  # forgets

    work()
    with pytest.raises(perdure.JobFailed) as failed:
        client.start(forgets).result(T)
    (told,) = [text for text in caplog.messages if "has failed" in text]
    first, *rest = told.splitlines()
    assert first.endswith(f"test_failure_logs.py:{line_of('forgets')})")
    assert rest == ["detail: it stands at 'found'", f"hint: {failed.value.hint}"]
    assert "forget" in str(failed.value.hint)


def test_traceback_shows_no_frames_of_this_package(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """It begins at the user's function, and ends where that called this package."""

    @app.coordinator
    async def forgets(memory: perdure.AsyncEntity) -> None:
        await memory.set({1, 2}, "found")

    @app.coordinator
    async def returns(memory: perdure.AsyncEntity) -> Any:
        return {1, 2}

    work()
    with pytest.raises(perdure.JobFailed) as failed:
        client.start(forgets).result(T)
    assert OURS not in str(failed.value.traceback)
    assert 'await memory.set({1, 2}, "found")' in str(failed.value.traceback)
    with pytest.raises(perdure.JobFailed) as failed:
        client.start(returns).result(T)
    assert OURS not in str(failed.value.traceback)


def test_code_of_any_callable_is_found() -> None:
    class Called:
        def __call__(self) -> None: ...

    def function(number: int) -> None: ...

    assert code_of(partial(partial(function), 1)) is function.__code__
    assert code_of(Called()) is Called.__call__.__code__
    assert code_of(len) is None


def test_refused_result_names_the_function_that_returned_it(
    app: perdure.App, client: perdure.Client, work: Any, caplog: Any
) -> None:
    """None of the function runs any more: the log and the traceback show where it begins."""

    @app.activity  # where reads begins
    def reads() -> Any:
        return {"found": [{1, 2}]}

    @app.transaction  # where loads begins
    async def loads(connection: Any) -> Any:
        return {1, 2}

    @app.hook  # where looks begins
    async def looks(memory: perdure.AsyncEntity) -> Any:
        return {1, 2}

    @app.coordinator  # where asks begins
    async def asks(memory: perdure.AsyncEntity, what: str) -> Any:
        calls = {"reads": reads, "loads": loads, "looks": lambda: looks(memory)}
        return await calls[what]() if what in calls else {1, 2}

    work()
    details = {
        "reads": "activity reads has returned it; it stands at 'found.0'",
        "loads": "activity loads has returned it; it is the whole value, or a key of it",
        "looks": "hook looks has returned it; it is the whole value, or a key of it",
        "asks": "coordinator asks has returned it; it is the whole value, or a key of it",
    }
    for name, detail in details.items():
        caplog.clear()
        with pytest.raises(perdure.JobFailed, match="a value of type set") as failed:
            client.start(asks, name).result(T)
        begins = line_of(f"where {name} begins")
        assert failed.value.detail == detail
        assert f'test_failure_logs.py", line {begins}, in {name}' in str(failed.value.traceback)
        assert OURS not in str(failed.value.traceback)
        lines = [text for text in caplog.messages if "has failed" in text]
        assert all(f"test_failure_logs.py:{begins})" in text for text in lines), lines


def test_bug_of_this_package_keeps_its_frames() -> None:
    """They are needed to report it."""
    with pytest.raises(AttributeError) as raised:
        perdure.App.coordinator(None, lambda memory: None)  # type: ignore[arg-type, call-overload]
    failure = failures.failure_of(raised.value)
    assert OURS in failure["traceback"]
    assert f"{HERE.name}:" in str(failures.place_of(failure))
    assert failures.place_of({"type": "TimeoutError", "message": "late"}) is None


def test_cancelled_job_shows_no_traceback(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """Where it waited when it was cancelled is no mistake to look for."""

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        try:
            await perdure.wait_for("never")
        except asyncio.CancelledError:
            await memory.set("tidy", "room")
            raise

    work()
    handle = client.start(waits, id="w")
    handle.cancel("no longer needed")
    with pytest.raises(perdure.JobCancelled, match="no longer needed") as cancelled:
        handle.result(T)
    assert cancelled.value.__notes__ == ["job w"]
    assert "wait_for" in str(cancelled.value.traceback)


@pytest.mark.parametrize("is_sealed", [False, True])
def test_log_of_an_app_that_encrypts_quotes_no_value(
    dsn: str, caplog: Any, is_sealed: bool
) -> None:
    """The detail of an error may quote a value, so it is left out of the log."""
    pytest.importorskip("cryptography")
    codec = AesGcm(keys={"1": b"k" * 32}, current="1") if is_sealed else None
    app = perdure.App(codec=codec)

    @app.coordinator
    async def reads(memory: perdure.AsyncEntity) -> None:
        await perdure.wait_for("verdict", type=Verdict)

    with perdure.connect(dsn, codec=codec) as client, perdure.Worker(app, dsn=dsn):
        handle = client.start(reads)
        handle.signal("verdict", {"approved_by": "a secret"})
        with pytest.raises(perdure.JobFailed) as failed:
            handle.result(T)
    (told,) = [text for text in caplog.messages if "has failed" in text]
    assert "a secret" in str(failed.value.detail)
    assert ("a secret" in told) is not is_sealed


def test_error_raised_far_below_the_code_keeps_its_description() -> None:
    """The check of a value recurses, and a traceback has a limit: the path and the code must not
    get lost in it."""
    value: Any = {1, 2}
    for _ in range(20):
        value = [value]
    with pytest.raises(perdure.InvalidValue) as raised:
        stored(value)
    failure = failure_of(raised.value)
    assert failure["code"] == "PD103"
    assert "set" in failure["message"]
    assert HERE.name in failure["traceback"]


def test_timeout_names_the_line_in_which_the_code_was(
    app: perdure.App, client: perdure.Client, work: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Not a line of asyncio, in which the limit is."""

    @app.activity(timeout=0.05)
    async def hangs() -> None:
        await asyncio.sleep(60)

    @app.coordinator
    async def calls(memory: perdure.AsyncEntity) -> None:
        await hangs()

    work()
    with pytest.raises(perdure.JobFailed):
        client.start(calls).result(T)
    late = next(text for text in caplog.messages if "took longer" in text)
    assert "test_failure_logs.py:" in late
    assert "timeouts.py" not in late


@pytest.mark.parametrize("kind", ["activity", "dispatched", "hook", "coordinator"])
def test_filter_of_a_log_that_raises_holds_up_no_work(
    app: perdure.App, client: perdure.Client, work: Any, capsys: Any, kind: str
) -> None:
    """It belongs to the user, and may not understand a record. It is shown on stderr."""

    def breaks(record: logging.LogRecord) -> bool:
        if "has failed" in record.getMessage():
            raise RuntimeError("the filter is broken")
        return True

    async def fails(*memory: Any) -> None:
        raise ValueError("no")

    works: dict[str, Any] = {
        "activity": app.activity(name="activity")(fails),
        "dispatched": app.activity(name="dispatched", queue="default")(fails),
        "hook": app.hook(name="hook")(fails),
    }

    @app.coordinator
    async def job(memory: perdure.AsyncEntity) -> None:
        await works.get(kind, fails)(*[memory] * (kind == "hook"))

    logger = logging.getLogger("perdure.worker")
    logger.addFilter(breaks)
    try:
        work()
        with pytest.raises(perdure.JobFailed, match="ValueError: no"):
            client.start(job).result(T)
    finally:
        logger.removeFilter(breaks)
    assert "RuntimeError: the filter is broken" in capsys.readouterr().err
