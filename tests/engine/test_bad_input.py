"""Bad input, end to end: it raises an error with code, detail and hint, and changes nothing."""

from __future__ import annotations

import asyncio
import gc
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

import perdure
from perdure.workflow import operations

T = "40 s"
Memory = perdure.AsyncEntity
Work = Callable[..., perdure.Worker]
Summary = dict[str, Any]


def nested(levels: int) -> Any:
    """Return a list in lists."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def endless() -> list[Any]:
    """Return a list that contains itself."""
    value: list[Any] = []
    value.append(value)
    return value


class Photo(BaseModel):
    """A model that pydantic can write only if its bytes are text."""

    jpeg: bytes


BAD_VALUES: dict[str, tuple[Any, str]] = {
    "NaN": (float("nan"), "PD103"),
    "infinity": ({"a": [float("-inf")]}, "PD103"),
    "NUL": ("a\0b", "PD103"),
    "a lone surrogate": ({"a": "\ud800"}, "PD103"),
    "a set": ({1, 2}, "PD103"),
    "bytes": (b"a", "PD103"),
    "an object": ([object()], "PD103"),
    "too deep": (nested(101), "PD302"),
    "too deep for Python": (nested(50_000), "PD302"),
    "a list that holds itself": (endless(), "PD302"),
    "a model that cannot be written": (Photo(jpeg=b"\xff"), "PD103"),
    "too large": ("x" * 1_100_000, "PD301"),
    "out of range": (10**400, "PD304"),
}
BEFORE = {"text": "a", "list": [1], "number": 1, "object": {"a": 1}}
BAD_COMMANDS: dict[str, tuple[str, tuple[Any, ...], str]] = {
    "increment text": ("increment", ("text",), "PD102"),
    "append to a number": ("append", ("number", 1), "PD102"),
    "toggle a list": ("toggle", ("list",), "PD102"),
    "merge into text": ("merge", ({"a": 1}, "text"), "PD102"),
    "go through text": ("set", (1, "text.a"), "PD102"),
    "remove what is not there": ("remove", ("list", 7), "PD102"),
    "set all to a number": ("set", (1,), "PD103"),
    "a path that does not parse": ("set", (1, "a..b"), "PD101"),
    "a path with a NUL": ("set", (1, "a.\0"), "PD101"),
    "a path with half a character": ("set", (1, ["\ud800"]), "PD101"),
    "a path that is too long": ("set", (1, ".".join("a" * 51)), "PD101"),
}
ATTEMPTS = [
    *((name, "set", (value, "new"), code) for name, (value, code) in BAD_VALUES.items()),
    *((name, verb, args, code) for name, (verb, args, code) in BAD_COMMANDS.items()),
]


def summary(error: perdure.PerdureError) -> Summary:
    """Return the code of an error, and whether it has its parts."""
    return {
        "code": error.code,
        "message": bool(error.message),
        "detail": bool(error.detail),
        "hint": bool(error.hint),
    }


def complete(code: str) -> Summary:
    """Return the summary of an error that has all its parts."""
    return {"code": code, "message": True, "detail": True, "hint": True}


async def try_all(memory: Memory) -> list[Summary | None]:
    """Try all bad commands, in async code."""
    out: list[Summary | None] = []
    for _, verb, args, _ in ATTEMPTS:
        try:
            await getattr(memory, verb)(*args)
            out.append(None)
        except perdure.PerdureError as error:
            out.append(summary(error))
    return out


def try_all_plainly(memory: perdure.Entity) -> list[Summary | None]:
    """Try all bad commands, in plain code."""
    out: list[Summary | None] = []
    for _, verb, args, _ in ATTEMPTS:
        try:
            getattr(memory, verb)(*args)
            out.append(None)
        except perdure.PerdureError as error:
            out.append(summary(error))
    return out


@pytest.mark.parametrize("where", ["coordinator", "plain coordinator", "hook", "plain hook"])
def test_bad_command_in_a_task_is_refused_and_changes_nothing(
    app: perdure.App, client: perdure.Client, work: Work, where: str
) -> None:
    app.coordinator(name="coordinator")(try_all)
    app.coordinator(name="plain coordinator")(try_all_plainly)
    app.hook(name="hook")(try_all)
    app.hook(name="plain hook")(try_all_plainly)

    @app.coordinator(name="runs")
    async def runs(memory: Memory) -> Any:
        return await perdure.exec_hook(where)

    work()
    handle = client.start("runs" if "hook" in where else where, context=BEFORE)
    answers = zip(ATTEMPTS, handle.result(T), strict=True)
    assert {name: answer for (name, *_), answer in answers} == {
        name: complete(code) for name, _, _, code in ATTEMPTS
    }
    assert handle.memory.get() == BEFORE


def test_bad_command_of_a_client_is_refused_and_changes_nothing(client: perdure.Client) -> None:
    entity = client.create_entity("e", "thing", BEFORE)
    version = client.handle("e").status().version
    answers = zip(ATTEMPTS, try_all_plainly(entity), strict=True)
    assert {name: answer for (name, *_), answer in answers} == {
        name: complete(code) for name, _, _, code in ATTEMPTS
    }
    assert entity.get() == BEFORE
    assert client.handle("e").status().version == version


@pytest.mark.parametrize("name", BAD_VALUES)
def test_bad_value_is_refused_in_every_place(
    app: perdure.App, client: perdure.Client, work: Work, name: str
) -> None:
    value, code = BAD_VALUES[name]

    @app.activity
    async def gives() -> Any:
        return value

    @app.hook
    async def answers(memory: Memory) -> Any:
        return value

    @app.coordinator
    async def returns(memory: Memory) -> Any:
        return value

    @app.coordinator
    async def asks(memory: Memory, argument: Any = None) -> Any:
        out: list[Any] = []
        calls: list[Callable[[], Any]] = [gives, lambda: answers(memory)]
        for call in calls:
            try:
                await call()
            except perdure.Failure as error:
                out.append([error.failure.get("code"), bool(error.detail), bool(error.hint)])
        return out

    work()
    assert client.start(asks).result(T) == [[code, True, True]] * 2
    with pytest.raises(perdure.JobFailed) as failed:
        client.start(returns).result(T)
    assert (failed.value.failure["code"], bool(failed.value.hint)) == (code, True)
    waits = client.start("nobody", id="waits", queue="nobody")
    for call in (
        lambda: client.start(asks, value, id="never"),
        lambda: waits.signal("go", value),
        lambda: client.create_entity("never", "thing", {"a": value}),
    ):
        with pytest.raises(perdure.PerdureError) as refused:
            call()
        assert summary(refused.value) == complete(code)
    with pytest.raises(perdure.JobNotFound):
        client.handle("never").status()
    waits.terminate()


@pytest.mark.parametrize("name", ["", "x" * 201, "a\tb", "a\nb"])
def test_bad_names_are_refused(client: perdure.Client, name: str) -> None:
    handle = client.start("nobody", id="waits", queue="nobody")
    calls: list[Callable[[], Any]] = [
        lambda: client.start(name),
        lambda: client.start("nobody", queue=name),
        lambda: handle.signal(name),
        lambda: handle.hook(name),
    ]
    for call in calls:
        with pytest.raises(perdure.PerdureError) as refused:
            call()
        assert summary(refused.value) == complete("PD104")
    handle.terminate()


UNSTORABLE_TEXT = pytest.mark.parametrize(
    "text", ["a\0b", "a\ud800"], ids=["NUL", "half a character"]
)


@UNSTORABLE_TEXT
def test_text_that_postgres_cannot_store_is_refused_in_every_place(
    app: perdure.App, client: perdure.Client, work: Work, text: str
) -> None:
    @app.coordinator
    async def all_of(memory: Memory) -> list[Summary]:
        calls: list[Callable[[], Any]] = [
            lambda: perdure.child(all_of, id=text),
            lambda: perdure.child(all_of, limit_key=text),
            lambda: perdure.start_child(text),
            lambda: perdure.exec_hook(text),
            lambda: perdure.exec_hook("hook", signal=text),
            lambda: perdure.signal(text, "go"),
            lambda: perdure.signal("job", text),
            lambda: perdure.wait_for(text),
            lambda: perdure.ask_people(text),
            lambda: perdure.ask_people("approve", assignee=text),
            lambda: perdure.patched(text),
            lambda: memory.until(text),
        ]
        out: list[Summary] = []
        for call in calls:
            try:
                await call()
            except perdure.PerdureError as error:
                out.append(summary(error))
        return out

    work()
    handle = client.start(all_of)
    assert handle.result(T) == [complete("PD104")] * 12
    for call in (
        lambda: client.start("nobody", id=text),
        lambda: client.handle(text),
        lambda: client.start("nobody", queue=text),
        lambda: handle.cancel(text),
        lambda: handle.memory.until(text),
    ):
        with pytest.raises(perdure.PerdureError) as refused:
            call()
        assert refused.value.hint


@UNSTORABLE_TEXT
def test_turn_that_cannot_be_written_parks_its_task_and_no_worker_ends(
    app: perdure.App, client: perdure.Client, work: Work, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """[P10] A turn with text that PostgreSQL cannot store gets its task stuck, and the worker goes
    on."""
    monkeypatch.setattr(operations, "check_asked", lambda options: None)

    @app.coordinator
    async def spoils(memory: Memory) -> None:
        await perdure.child(good, limit_key=text)

    @app.coordinator
    async def good(memory: Memory) -> str:
        return "good"

    work()
    handle = client.start(spoils)
    assert client.start(good).result(T) == "good"
    until = time.monotonic() + 20
    while "somebody to resume it" not in str(handle.status().waiting_for):
        assert time.monotonic() < until
        time.sleep(0.02)


NAMES = ["it's", 'say "hi"', "a;drop table perdure.jobs", "Grün 🌱", "a/b#1", "to $1 %s {}", "\\"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_work_everywhere(
    app: perdure.App, client: perdure.Client, work: Work, name: str
) -> None:
    """Workflows, hooks, activities, ids, queues, entities, signals and keys may have any name."""

    @app.activity(name=name)
    async def step(x: Any) -> Any:
        return x

    @app.hook(name=name, queue=name)
    async def hook(memory: Memory, x: Any) -> Any:
        await memory.set({name: await step(x)}, [name])
        return await perdure.wait_for(name)

    @app.coordinator(name=name, queue=name, entity=name)
    async def flow(memory: Memory, x: Any) -> Any:
        return [await hook(memory, x), await memory.get([name, name])]

    work(queues=[name])
    handle = client.start(flow, name, id=name)
    handle.signal(name, {name: name})
    assert handle.result(T) == [{name: name}, name]
    assert handle.memory.get() == {name: {name: name}}


def test_id_that_exists_cannot_be_started_again(client: perdure.Client) -> None:
    handle = client.start("nobody", 1, id="taken", queue="nobody", context={"n": 1})
    with pytest.raises(perdure.JobExists) as refused:
        client.start("somebody", 2, id="taken", context={"n": 2})
    assert summary(refused.value) == complete("PD402")
    assert handle.status().workflow == "nobody"
    assert handle.memory.get() == {"n": 1}
    handle.terminate()


def test_calls_on_a_missing_job_raise_job_not_found(client: perdure.Client) -> None:
    handle = client.handle("nobody")
    calls: list[Callable[[], Any]] = [
        handle.status,
        handle.cancel,
        handle.terminate,
        lambda: handle.signal("go"),
        lambda: handle.memory.set(1, "a"),
        lambda: handle.result(0.1),
    ]
    for call in calls:
        with pytest.raises(perdure.JobNotFound) as refused:
            call()
        assert summary(refused.value) == complete("PD401")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("queues", "q"),
        ("queues", []),
        ("slots", 0),
        ("poll", 0),
        ("lease", 0),
        ("lease", 1e-5),
        ("lease", "2 d"),
    ],
)
def test_worker_with_a_bad_option_is_refused_before_it_starts(
    work: Work, option: str, value: Any
) -> None:
    with pytest.raises(perdure.InvalidArgument):
        work(**{option: value})


def test_worker_run_is_refused_inside_an_event_loop(app: perdure.App, dsn: str) -> None:
    """In a notebook or a web framework, run() raises an error and changes no setting of the
    process."""

    async def cell() -> None:
        perdure.Worker(app, dsn=dsn).run()

    threshold = gc.get_threshold()
    with pytest.raises(perdure.InvalidArgument) as refused:
        asyncio.run(cell())
    assert summary(refused.value) == complete("PD107")
    assert gc.get_threshold() == threshold


def test_result_timeout_names_a_queue_without_a_worker(client: perdure.Client) -> None:
    handle = client.start("nobody", queue="deserted")
    with pytest.raises(perdure.ResultTimeout) as late:
        handle.result(0.1)
    assert summary(late.value) == complete("PD405")
    assert "deserted" in (late.value.detail or "")
    assert "none has registered" in (late.value.detail or "")
    handle.terminate()


def test_result_timeout_names_a_workflow_that_no_worker_has(
    app: perdure.App, client: perdure.Client, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker gives such tasks back, and warns only once about twenty of them."""
    work()
    handles = client.start_many("unheard_of", [{}] * 20)
    handle = handles[0]
    told, until = "", time.monotonic() + 20
    while "unheard_of" not in told:  # a worker may hold it just now, to give it back
        assert time.monotonic() < until, told
        with pytest.raises(perdure.ResultTimeout) as late:
            handle.result(0.1)
        told = late.value.detail or ""
    while client.queue_depths("default")[0].ready:
        assert time.monotonic() < until
        time.sleep(0.02)
    warnings = [each.message for each in caplog.records if each.levelname == "WARNING"]
    (line,) = [message for message in warnings if "unheard_of" in message]
    assert line.startswith("this worker has no function named unheard_of")
    for handle in handles:
        handle.terminate()


@pytest.mark.parametrize("where", ["coordinator", "hook", "activity", "plain activity"])
def test_exception_reaches_the_result_with_its_traceback(
    app: perdure.App, client: perdure.Client, work: Work, where: str
) -> None:
    """[P10] The result raises the type, the message and the lines of code of the exception."""

    def breaks() -> None:
        raise LookupError("no 'source' \ud800 for it")

    @app.activity(name="activity")
    async def activity() -> None:
        breaks()

    @app.activity(name="plain activity")
    def plain_activity() -> None:
        breaks()

    @app.hook
    async def hook(memory: Memory) -> None:
        breaks()

    @app.coordinator
    async def flow(memory: Memory) -> None:
        if where == "coordinator":
            breaks()
        await {"activity": activity, "plain activity": plain_activity}.get(
            where, lambda: hook(memory)
        )()

    work()
    handle = client.start(flow)
    for _ in range(2):  # the second call reads the recorded failure
        with pytest.raises(perdure.JobFailed) as failed:
            handle.result(T)
        assert failed.value.type == "LookupError"
        assert failed.value.message == "no 'source' ? for it"
        assert "in breaks" in (failed.value.traceback or "")
        assert 'raise LookupError("no' in (failed.value.traceback or "")
        shown = "".join(traceback.format_exception(failed.value))  # as pytest and logs show it
        kind = "hook" if where == "hook" else "activity"
        way = "" if where == "coordinator" else f", raised in {kind} {where}"
        assert f"\njob {handle.id}{way}\n" in shown
        assert "in breaks\n" in shown


def version_of(prompt: str, second: str) -> perdure.App:
    """Return an app with one version of the code."""
    app = perdure.App()

    @app.activity
    async def ask(question: str) -> str:
        return question.upper()

    @app.coordinator
    async def flow(memory: Memory) -> Any:
        if second == "before":
            await memory.set(True, "wrong")
        if second == "breaks":
            raise LookupError("nobody asks that")
        first = await ask(prompt)
        await memory.set(first, "first")
        await perdure.wait_for("go")
        return [first, await ask("last")]

    return app


def test_changed_code_is_stuck_with_readable_difference_and_no_effects(
    client: perdure.Client, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """[P9] Changed code is stuck before it has any effect, and resumes after a fix or with accepted
    changes."""

    def soon_waits(handle: perdure.Handle, what: str) -> None:
        until = time.monotonic() + 10
        while what not in (handle.status().waiting_for or ""):
            assert time.monotonic() < until
            time.sleep(0.01)

    def stuck(app: perdure.App, job: str) -> str:
        with perdure.Worker(app, dsn=dsn):
            for each in handles:
                soon_waits(each, "resume")
            handle = client.handle(job)
            with pytest.raises(perdure.ResultTimeout, match="does not match its journal") as late:
                handle.result(0.01)
            assert handle.memory.get() == {"first": "HELLO"}
            return late.value.detail or ""

    with perdure.Worker(version_of("hello", ""), dsn=dsn):
        handles = [client.start("flow", id=job) for job in ("fixed", "accepted")]
        for handle in handles:
            soon_waits(handle, "go")
    for handle in handles:
        handle.signal("go")
    other_call = stuck(version_of("hello", "before"), "fixed")
    assert "ask#1" in other_call
    assert "set#1" in other_call
    assert "perdure.now()" in caplog.text  # the hint: the code may be unchanged
    assert handles[0].resume() == 1
    assert "the code raised LookupError" in stuck(version_of("hello", "breaks"), "fixed")
    assert "LookupError: nobody asks that" in caplog.text
    assert handles[1].resume() == 1
    assert "argument" in stuck(version_of("hello!", ""), "accepted")
    assert handles[1].resume(accept_changes=True) == 1
    with perdure.Worker(version_of("hello!", ""), dsn=dsn):
        assert handles[1].result(T) == ["HELLO", "LAST"]
    assert handles[0].resume() == 1
    with perdure.Worker(version_of("hello", ""), dsn=dsn):
        assert handles[0].result(T) == ["HELLO", "LAST"]
