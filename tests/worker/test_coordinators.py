"""Coordinators, end to end: what they request is carried out, recorded and replayed."""

from __future__ import annotations

import asyncio
import time
from asyncio import base_tasks
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

import perdure
from tests.patience import wait_until
from tests.worker.test_until import wait_for

T = "40 s"


def test_job_returns_its_result(app: perdure.App, client: perdure.Client, work: Any) -> None:
    @app.coordinator
    async def greet(memory: perdure.AsyncEntity, name: str, mark: str = "!") -> dict[str, str]:
        return {"hello": name + mark}

    work()
    assert client.start(greet, "you").result(T) == {"hello": "you!"}
    assert client.start("greet", name="me", mark="?").result(T) == {"hello": "me?"}


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_memory_that_was_given_to_other_code_is_refused(
    app: perdure.App, client: perdure.Client, work: Any, kind: str
) -> None:
    """It would change the other job, in the name of its code, or end as an error of asyncio."""
    kept: list[Any] = []

    async def keeps(memory: perdure.AsyncEntity) -> Any:
        kept.append(memory)
        return await perdure.wait_for("go")

    async def uses(memory: perdure.AsyncEntity) -> None:
        await kept[0].set(3, "n")

    def keeps_plain(memory: perdure.Entity) -> Any:
        kept.append(memory)
        return perdure.wait_for("go")

    def uses_plain(memory: perdure.Entity) -> None:
        kept[0].set(3, "n")

    app.hook(name="keeps")(keeps if kind == "async" else keeps_plain)
    app.hook(name="uses")(uses if kind == "async" else uses_plain)

    @app.coordinator
    async def runs(memory: perdure.AsyncEntity, hook: str) -> Any:
        return await perdure.exec_hook(hook)

    work()
    keeper = client.start(runs, "keeps", id="keeper")
    wait_until(lambda: bool(kept))
    with pytest.raises(perdure.JobFailed, match="given to keeps of job keeper") as failed:
        client.start(runs, "uses").result(T)
    assert "perdure.memory()" in str(failed.value.hint)
    keeper.signal("go", "went")
    assert keeper.result(T) == "went"
    assert keeper.memory.get() == {}
    if kind == "plain":
        with pytest.raises(BaseException, match="has left memory: its calls have no effect"):
            kept[0].set(3, "n")


def test_plain_coordinator_has_the_same_verbs(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.activity
    def double(number: int) -> int:
        return 2 * number

    @app.activity
    async def triple(number: int) -> int:
        return 3 * number

    @app.hook
    def note(memory: perdure.Entity, what: str) -> str:
        memory.append("notes", what)
        return what.upper()

    @app.coordinator
    def plain(memory: perdure.Entity, number: int) -> Any:
        memory.set({"number": number})
        first = [double.start(number), triple.start(number)]
        perdure.sleep(0.02)
        noted = note(memory, "one")
        both = [note.start("two"), note.start("three")]
        memory.increment("number", by=sum(each.result() for each in first))
        return [noted, *(each.result() for each in both), memory.get("number")]

    work()
    handle = client.start(plain, 4)
    assert handle.result(T) == ["ONE", "TWO", "THREE", 24]
    assert sorted(handle.memory.get("notes")) == ["one", "three", "two"]


def test_every_command_returns_a_value_and_is_replayed(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def commands(memory: perdure.AsyncEntity) -> list[Any]:
        answers = [
            await memory.set({"a": {"b": 1}, "list": [1]}),
            await memory.merge({"c": {"d": None}}, "a"),
            await memory.append("list", 2, [3]),
            await memory.prepend("list", 0),
            await memory.remove("list", -1),
            await memory.increment("a.b", 2),
            await memory.toggle("flag"),
            await memory.set_if_not_exists("x.y", 5),
            await memory.delete("flag"),
            await memory.get("nothing.here"),
        ]
        await perdure.sleep(0.01)
        return [answers, await memory.get()]

    work()
    answers, memory = client.start(commands).result(T)
    assert answers == [1, 2, 3, 4, [3], 3, True, 5, True, None]
    assert memory == {"a": {"b": 3, "c": {"d": None}}, "x": {"y": 5}, "list": [0, 1, 2]}


def test_rejected_command_raises_and_changes_nothing(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def refused(memory: perdure.AsyncEntity) -> Any:
        await memory.set({"text": "x"})
        outcomes = await asyncio.gather(
            memory.increment("text"), memory.set(1, "ok"), return_exceptions=True
        )
        try:
            await memory.append("text", 1)
        except perdure.WrongType as error:
            return [type(outcomes[0]).__name__, outcomes[1], error.code, await memory.get()]

    work()
    assert client.start(refused).result(T) == ["WrongType", 2, "PD102", {"ok": 1, "text": "x"}]


def test_asyncio_is_durable(app: perdure.App, client: perdure.Client, work: Any) -> None:
    @app.activity
    async def slowly(number: int) -> int:
        await asyncio.sleep(number / 100)
        return number

    @app.coordinator
    async def all_kinds(memory: perdure.AsyncEntity) -> Any:
        gathered = await asyncio.gather(*(slowly(n) for n in (3, 1, 2)))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(slowly(n)) for n in (2, 1)]
        grouped = [task.result() for task in tasks]
        done, pending = await asyncio.wait(
            [asyncio.ensure_future(slowly(n)) for n in (1, 60)],
            return_when=asyncio.FIRST_COMPLETED,
        )
        first = [task.result() for task in done]
        for task in pending:
            task.cancel()
        order = [await each for each in asyncio.as_completed([slowly(n) for n in (5, 1)])]
        try:
            async with asyncio.timeout(0.02):
                await slowly(100)
            late = False
        except TimeoutError:
            late = True
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def produce() -> None:
            for number in (1, 2):
                await queue.put(await slowly(number))

        producer = asyncio.create_task(produce(), name="producer")
        queued = [await queue.get(), await queue.get()]
        await producer
        return [gathered, grouped, first, order, late, queued]

    work()
    expected = [[3, 1, 2], [2, 1], [1], [1, 5], True, [1, 2]]
    assert client.start(all_kinds).result(T) == expected


def test_time_random_numbers_and_uuids_are_replayed(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def chance(memory: perdure.AsyncEntity) -> Any:
        began = perdure.now()
        before = [began.isoformat(), perdure.random().random(), str(perdure.uuid())]
        await perdure.sleep(0.05)
        await memory.set({"before": before})
        return [before, perdure.now() > began]

    @app.coordinator
    def plain(memory: perdure.Entity) -> Any:
        before = [perdure.now().isoformat(), perdure.random().random(), str(perdure.uuid())]
        memory.set({"before": before})
        perdure.sleep(0.05)
        return before == memory.get("before")

    work()
    (before, later) = client.start(chance, id="chance").result(T)
    assert later
    assert client.handle("chance").memory.get("before") == before
    assert client.start(plain).result(T) is True


@pytest.mark.direct("needs a hint to wake up")
@pytest.mark.steady("a hint may be lost")
def test_sleeping_coordinator_wakes_on_time(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """Its timer wakes it, not the next poll of the worker, which is in an hour."""

    @app.coordinator
    async def sleeper(memory: perdure.AsyncEntity, seconds: float) -> str:
        await perdure.sleep(seconds)
        return "awake"

    work(poll=3600)
    began = time.monotonic()
    assert client.start(sleeper, 0.5).result(T) == "awake"
    assert time.monotonic() - began >= 0.5


def test_wait_for_takes_signals_sent_before_and_after_it(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        first = await perdure.wait_for("go")
        second = await perdure.wait_for("go", timeout="1 min")
        try:
            third = await perdure.wait_for("never", timeout=0.05)
        except TimeoutError:
            third = "late"
        return [first, second, third]

    handle = client.start(waits)
    handle.signal("go", {"n": 1})
    work()
    time.sleep(0.2)
    assert handle.signal("go", {"n": 2}, key="once")
    assert handle.result(T) == [{"n": 1}, {"n": 2}, "late"]


@pytest.mark.parametrize("in_time", [False, True])
def test_wait_for_times_out_in_plain_code(
    app: perdure.App, client: perdure.Client, work: Any, in_time: bool
) -> None:
    @app.coordinator(name="waiter")
    def waits(memory: perdure.Entity) -> Any:
        try:
            return perdure.wait_for("go", timeout=0.1)
        except TimeoutError:
            return "late"

    work()
    handle = client.start("waiter")
    if in_time:
        handle.signal("go", "in time")
    assert handle.result(T) == ("in time" if in_time else "late")


def test_wait_of_plain_code_that_timed_out_takes_no_signal(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    @app.coordinator
    def listens(memory: perdure.Entity) -> Any:
        try:
            return perdure.wait_for("go", timeout=0.05)
        except TimeoutError:
            return ["later", perdure.wait_for("go")]

    work()
    handle = client.start(listens)
    wait_for(
        dsn,
        "select 'go' = any(awaits) and until is null and token is null from perdure.tasks",
    )
    handle.signal("go", 1)
    assert handle.result("20 s") == ["later", 1]


def test_forgotten_await_is_reported(
    app: perdure.App, client: perdure.Client, work: Any, caplog: Any
) -> None:
    """Use of a call that was not awaited raises, and a call that is never used is logged.

    Otherwise `if memory.get("vip"):` would always be true.
    """

    @app.activity
    async def counts() -> int:
        return 1

    uses: dict[str, Callable[[Any], Any]] = {
        "if": lambda call: "yes" if call else "no",
        "if default": lambda call: "yes" if call else "no",
        "for": lambda call: [*call],
        "in": lambda call: 1 in call,
        "len": len,
        "[]": lambda call: call["key"],
        "+": lambda call: call + 1,
        "1 +": lambda call: 1 + call,
        ">": lambda call: call > 1,
        "not": lambda call: not call,
        "method": lambda call: call.items(),
        "result": lambda call: call.result(),
    }
    kinds = {"method": "AttributeError", "result": "InvalidStateError"}

    @app.coordinator
    async def forgets(memory: perdure.AsyncEntity, use: str) -> Any:
        if use.startswith("return"):
            return memory.get("vip") if use == "return" else memory.get("vip", 1)
        if use == "last line":
            counts()
            return None
        default = (False,) if "default" in use else ()
        call = memory.get("vip", *default) if "if" in use else counts()
        if use == "twice":
            return [await call, await call, call.done()]  # type: ignore[attr-defined]
        return uses[use](call)

    work()
    for use in uses:
        kind = kinds.get(use, "TypeError")
        told = rf"{kind}: the durable call (get|counts) was not awaited: await it"
        with pytest.raises(perdure.JobFailed, match=told):
            client.start(forgets, use).result(T)
    for use in ("return", "return it with a default"):
        told = "the durable call get was not awaited"
        with pytest.raises(perdure.JobFailed, match=told) as raised:
            client.start(forgets, use).result(T)
        assert "forget `await`" in (raised.value.hint or "")
    assert client.start(forgets, "twice").result(T) == [1, 1, True]
    assert not [each for each in caplog.records if "has ended" in each.message]
    client.start(forgets, "last line").result(T)
    (warning,) = [each.message for each in caplog.records if "has ended" in each.message]
    assert "counts#1" in warning


def test_call_can_be_awaited_after_it_was_looked_at(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """Whoever writes a task into a log asks its coroutine for attributes."""

    @app.coordinator
    async def looks(memory: perdure.AsyncEntity) -> Any:
        call = memory.get("vip", 5)
        assert not hasattr(call, "cr_code")
        described = vars(base_tasks)  # from Python 3.13 on, it asks `if task._coro`
        assert eval("bool(call)", described, {"call": call})
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0)
        return [str(call), repr(task) != "", await task]

    work()
    assert client.start(looks).result(T) == ["the durable call get", True, 5]


@pytest.mark.parametrize(
    ("value", "hint"),
    [(Decimal("1.10"), "str(value)"), (b"x", "base64"), ({1, 2}, "sorted(value)")],
)
def test_value_that_is_not_json_is_rejected_with_a_hint(
    app: perdure.App, client: perdure.Client, value: Any, hint: str
) -> None:
    with pytest.raises(perdure.InvalidValue) as raised:
        client.create_entity("e", "thing", {"n": [value]})
    assert hint in (raised.value.hint or "")


@pytest.mark.parametrize("inside", ["hook", "plain hook", "coordinator", "plain coordinator"])
def test_timeout_names_what_was_awaited(
    app: perdure.App, client: perdure.Client, work: Any, inside: str
) -> None:
    async def waits(memory: perdure.AsyncEntity) -> list[str]:
        calls: list[Any] = [
            lambda: perdure.wait_for("pay", timeout=0.05),
            lambda: memory.until("$.n > 3", timeout="60 ms"),
            lambda: perdure.ask_people("approve it", timeout=0.07),
        ]
        messages = []
        for call in calls:
            try:
                await call()
            except TimeoutError as error:
                messages.append(str(error))
        return messages

    def waits_plainly(memory: perdure.Entity) -> list[str]:
        calls: list[Any] = [
            lambda: perdure.wait_for("pay", timeout=0.05),
            lambda: memory.until("$.n > 3", timeout="60 ms"),
            lambda: perdure.ask_people("approve it", timeout=0.07),
        ]
        messages = []
        for call in calls:
            try:
                call()
            except TimeoutError as error:
                messages.append(str(error))
        return messages

    function: Any = waits_plainly if "plain" in inside else waits
    app.hook(name="hook")(function)
    app.coordinator(name="coordinator")(function)

    @app.coordinator
    async def runs_hook(memory: perdure.AsyncEntity) -> Any:
        return await perdure.exec_hook("hook")

    work()
    assert client.start("runs_hook" if "hook" in inside else "coordinator").result(T) == [
        "waited 0.05 s for signal pay",
        "waited 0.06 s for condition $.n > 3",
        "waited 0.07 s for item approve it",
    ]


def test_failure_has_type_message_and_traceback(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.activity
    async def breaks() -> None:
        raise KeyError("no such page")

    @app.coordinator
    async def fails(memory: perdure.AsyncEntity) -> None:
        await breaks()

    work()
    with pytest.raises(perdure.JobFailed) as raised:
        client.start(fails).result(T)
    assert raised.value.type == "KeyError"
    assert raised.value.message == "'no such page'"
    assert raised.value.failure["through"] == ["activity breaks", "ActivityFailed"]
    assert "raise KeyError" in (raised.value.traceback or "")


def test_parent_gets_results_and_failures_of_its_children(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def child(memory: perdure.AsyncEntity, number: int) -> int:
        await memory.set({"number": number})
        if number < 0:
            raise ValueError("negative")
        return number * number

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> Any:
        squares = await asyncio.gather(*(perdure.child(child, n) for n in range(4)))
        named = await perdure.child("child", number=9, id="the-nine")
        try:
            await perdure.child(child, -1)
        except perdure.ChildFailed as error:
            failed = [error.type, error.message]
        try:
            await perdure.child(child, 1, id="taken")
        except perdure.ChildFailed as error:
            taken = error.failure["code"]
        perdure.child(child, 7, id="detached", detached=True)
        return [squares, named, failed, taken]

    client.create_entity("taken", "other")
    work()
    handle = client.start(parent, id="family")
    assert handle.result(T) == [[0, 1, 4, 9], 81, ["ValueError", "negative"], "PD402"]
    assert client.entity("family/child#2").get() == {"number": 1}
    assert client.handle("detached").result(T) == 49


@pytest.mark.direct("needs a hint to wake up")
@pytest.mark.steady("a hint may be lost")
def test_cancel_wakes_a_sleeping_coordinator_and_lets_it_clean_up(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """The request wakes it, not the next poll of the worker, which is in an hour."""

    @app.coordinator
    async def sleeper(memory: perdure.AsyncEntity) -> None:
        try:
            await perdure.sleep("1 day")
        finally:
            await memory.set({"cleaned": True})
            await perdure.sleep(0.01)
            await memory.set(True, "twice")

    work(poll=3600)
    handle = client.start(sleeper)
    while handle.status().waiting_for is None:
        time.sleep(0.01)
    assert handle.cancel("enough")
    with pytest.raises(perdure.JobCancelled):
        handle.result(T)
    assert handle.memory.get() == {"cleaned": True, "twice": True}
    assert handle.status().status == "cancelled"


def test_cancel_reaches_a_running_activity(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    seen = []

    @app.activity
    async def long() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await long()

    work()
    handle = client.start(waits)
    time.sleep(0.2)
    handle.cancel()
    with pytest.raises(perdure.JobCancelled):
        handle.result(T)
    assert seen == ["cancelled"]


def test_coordinator_may_refuse_to_be_cancelled(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def stubborn(memory: perdure.AsyncEntity) -> str:
        try:
            await perdure.sleep("1 h")
        except asyncio.CancelledError:
            await memory.set({"asked": True})
        return "done anyway"

    work()
    handle = client.start(stubborn)
    time.sleep(0.1)
    handle.cancel()
    assert handle.result(T) == "done anyway"


def test_terminate_ends_a_job_without_cleanup(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        try:
            await perdure.wait_for("never")
        finally:
            await memory.set({"ran": True})

    work()
    handle = client.start(waits)
    time.sleep(0.1)
    assert handle.terminate("now")
    with pytest.raises(perdure.JobCancelled):
        handle.result(T)
    assert handle.memory.get() == {}


def test_io_in_a_coordinator_is_rejected(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def bad(memory: perdure.AsyncEntity) -> None:
        await asyncio.to_thread(time.sleep, 0)

    work()
    with pytest.raises(perdure.JobFailed) as raised:
        client.start(bad).result(T)
    assert raised.value.type == "IoInCoordinator"
    assert raised.value.failure["code"] == "PD202"


async def connected(dsn: str) -> perdure.AsyncClient:
    """Return a client that another event loop has used."""
    async with perdure.connect_async(dsn) as opened:
        await opened.jobs()
    return opened


def test_client_in_a_coordinator_is_rejected(
    app: perdure.App, client: perdure.Client, dsn: str, work: Any
) -> None:
    """Each replay would repeat its calls; hooks and activities may use a client."""

    @app.coordinator
    async def leaf(memory: perdure.AsyncEntity) -> str:
        return "leaf"

    @app.activity
    async def acts() -> str:
        return client.start(leaf, id="of an activity").id

    @app.hook
    def hooks(memory: perdure.Entity) -> str:
        return client.start(leaf, id="of a hook", if_exists="existing").id

    @app.coordinator
    async def starts(memory: perdure.AsyncEntity) -> list[str]:
        with pytest.raises(perdure.IoInCoordinator, match="cannot use a client"):
            client.start(leaf)
        with pytest.raises(perdure.IoInCoordinator):
            client.handle("of a hook").result(T)
        with pytest.raises(perdure.IoInCoordinator, match="cannot use a client"):
            await elsewhere.start(leaf)
        return [await acts(), await hooks(memory)]

    @app.coordinator
    def plainly(memory: perdure.Entity) -> None:
        with pytest.raises(perdure.IoInCoordinator):
            client.entity("of a hook").set(1, "n")
        with pytest.raises(perdure.IoInCoordinator):
            perdure.connect(dsn, schema="another")

    elsewhere = asyncio.run(connected(dsn))
    work()
    assert client.start(starts).result(T) == ["of an activity", "of a hook"]
    client.start(plainly).result(T)
    assert len(client.jobs(workflow=leaf)) == 2


def test_value_that_cannot_be_stored_fails_where_it_is_given(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.activity
    async def strange() -> float:
        return float("nan")

    @app.coordinator
    async def tries(memory: perdure.AsyncEntity) -> Any:
        try:
            await memory.set({"x": float("inf")})
        except perdure.InvalidValue as error:
            first = error.code
        try:
            await strange()
        except perdure.ActivityFailed as error:
            return [first, error.type]

    @app.coordinator
    async def returns_nan(memory: perdure.AsyncEntity) -> float:
        return float("nan")

    work()
    assert client.start(tries).result(T) == ["PD103", "InvalidValue"]
    with pytest.raises(perdure.JobFailed) as raised:
        client.start(returns_nan).result(T)
    assert raised.value.type == "InvalidValue"


def test_too_large_result_fails_the_job(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def large(memory: perdure.AsyncEntity) -> str:
        return "x" * 2_000_000

    work()
    with pytest.raises(perdure.JobFailed) as raised:
        client.start(large).result(T)
    assert raised.value.failure["code"] == "PD301"


def test_wrong_arguments_fail_the_job(app: perdure.App, client: perdure.Client, work: Any) -> None:
    @app.coordinator
    async def one(memory: perdure.AsyncEntity, number: int) -> int:
        return number

    work()
    with pytest.raises(TypeError):
        client.start(one)
    with pytest.raises(perdure.JobFailed) as raised:
        client.start("one").result(T)
    assert raised.value.type == "TypeError"


def test_coordinator_signals_other_jobs(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.coordinator
    async def listener(memory: perdure.AsyncEntity) -> Any:
        return await perdure.wait_for("news")

    @app.coordinator
    async def teller(memory: perdure.AsyncEntity, job: str) -> Any:
        await perdure.signal(job, "news", {"n": 1})
        try:
            await perdure.signal("nobody", "news")
        except perdure.JobNotFound as error:
            return error.code

    work()
    listening = client.start(listener)
    assert client.start(teller, listening.id).result(T) == "PD401"
    assert listening.result(T) == {"n": 1}


def test_job_goes_on_when_the_clock_is_set_back_before_its_first_fact(
    app: perdure.App, client: perdure.Client, work: Any, connection: Any, dsn: str
) -> None:
    """[P9] (T11) The first fact gets at least the time at which its task began."""

    @app.coordinator
    async def hear(memory: perdure.AsyncEntity) -> Any:
        signal = await perdure.wait_for("go")
        return [signal, perdure.now().isoformat()]

    work()
    handle = client.start(hear)
    parked = "select from perdure.tasks where token is null and awaits = '{go}'"
    wait_for(dsn, f"select exists ({parked})")
    begin_later = "update tasks set started_at = clock() + '1 hour' returning started_at"
    ((began,),) = connection.execute(begin_later).fetchall()
    handle.signal("go", 1)
    assert handle.result(T) == [1, began.isoformat()]


@pytest.mark.parametrize("detached", [False, True])
def test_hook_runs_once_whatever_the_names_of_tasks_and_hooks(
    app: perdure.App, client: perdure.Client, work: Any, dsn: str, detached: bool
) -> None:
    """[P4] Names of asyncio tasks and hooks with separators never make two hooks share a task."""
    places = ["batch", "batch/item#1", "item#1", "item#1/a", "item#1/a#2"]
    names = ["item", "a:b", "a/b", "a\\:b"]

    def hook(memory: perdure.Entity, place: str) -> str:
        return memory.append(["ran"], place) and place

    for name in names:
        app.hook(name=name)(hook)

    @app.coordinator
    async def calls(memory: perdure.AsyncEntity) -> None:
        async def all_of(place: str) -> None:
            for name in names:
                if detached:
                    perdure.start_hook(name, f"{place} {name}")
                else:
                    await perdure.exec_hook(name, f"{place} {name}")

        async with asyncio.TaskGroup() as group:
            for place in places:
                group.create_task(all_of(place), name=place)

    work()
    handle = client.start(calls)
    handle.result(T)
    ran = [f"{place} {name}" for place in places for name in names]
    wait_for(dsn, "select jsonb_array_length(context -> 'ran') = 20 from perdure.jobs")
    assert sorted(handle.memory.get("ran")) == sorted(ran)


@pytest.mark.parametrize("use", ["==", "!=", "in a list", "f-string", "format"])
def test_a_forgotten_await_is_told_by_a_comparison_and_a_format(
    app: perdure.App, client: perdure.Client, work: Any, use: str
) -> None:
    """Each was silently wrong: an f-string put the call itself into a prompt."""
    uses: dict[str, Callable[[Any], Any]] = {
        "==": lambda call: call == "paid",
        "!=": lambda call: call != 1.5,
        "in a list": lambda call: call in ["new", "paid"],
        "f-string": lambda call: f"about {call}",
        "format": "{:>9}".format,
    }

    @app.coordinator
    async def forgets(memory: perdure.AsyncEntity) -> Any:
        return uses[use](memory.get("state"))

    @app.coordinator
    async def keeps_calls(memory: perdure.AsyncEntity) -> Any:
        first, second = memory.get("a"), memory.get("b")
        known = {first: "a", second: "b"}
        calls = [None, asyncio.ensure_future(second), first, second]
        told = [first == first, first == second, first != second, known[second], calls.index(first)]  # noqa: PLR0124
        calls.remove(second)
        return [*told, first is not None, f"{first!r}" == repr(first), await first, await second]

    work()
    with pytest.raises(
        perdure.JobFailed, match=r"memory.get.* was not awaited|get was not awaited"
    ):
        client.start(forgets).result(T)
    expected = [True, False, True, "b", 2, True, True, None, None]
    assert client.start(keeps_calls).result(T) == expected
