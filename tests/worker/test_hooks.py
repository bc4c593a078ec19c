"""Hooks, end to end: ordinary code that is started, stopped and run again without harm."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections import Counter
from contextvars import ContextVar
from typing import Any

import pytest

import perdure
from tests.worker.test_until import TWO_HOURS_LATER, run, wait_for

T = "40 s"
AWAITED = "select exists (select from perdure.tasks where 'go' = any(awaits))"


def test_hooks_run_in_parallel(app: perdure.App, client: perdure.Client, work: Any) -> None:
    """(C5) (C50) Three hooks of one job run at the same time and write to one memory."""
    all_three = asyncio.Barrier(3)

    @app.activity
    async def find(what: str) -> str:
        await all_three.wait()
        return what.upper()

    @app.hook
    async def perspective(memory: perdure.AsyncEntity, stance: str) -> str:
        await memory.merge({"found": {stance: await find(stance)}})
        return stance

    @app.coordinator
    async def research(memory: perdure.AsyncEntity) -> Any:
        await memory.set({"found": {}})
        stances = await asyncio.gather(*(perspective(memory, s) for s in ("a", "b", "c")))
        return [stances, await memory.get("found")]

    work()
    stances, found = client.start(research).result(T)
    assert stances == ["a", "b", "c"]
    assert found == {"a": "A", "b": "B", "c": "C"}


def test_wrong_call_of_a_hook_explains_the_right_one(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """A call needs the memory and `start()` does not; an argument must not be lost."""

    @app.hook
    async def perspective(memory: perdure.AsyncEntity, stance: str = "neutral") -> str:
        return stance

    @app.coordinator
    async def forgets(memory: perdure.AsyncEntity) -> Any:
        return await perspective("skeptical")  # type: ignore[arg-type]

    @app.coordinator
    async def repeats(memory: perdure.AsyncEntity) -> Any:
        return await perspective.start(memory, "skeptical")  # type: ignore[arg-type, call-arg]

    work()
    with pytest.raises(perdure.JobFailed, match="was given str for a memory"):
        client.start(forgets).result(T)
    with pytest.raises(
        perdure.JobFailed, match=r"perspective\(memory.*too many.*perdure passes memory"
    ):
        client.start(repeats).result(T)


def test_hook_answers_by_signal_return_or_error(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.hook
    async def early(memory: perdure.AsyncEntity) -> str:
        await memory.signal(perdure.info().signal or "?", {"early": True})
        await perdure.wait_for("go on")
        await memory.set(True, "went_on")
        await memory.signal("went on")
        return "too late to answer"

    @app.hook
    async def empty(memory: perdure.AsyncEntity) -> None:
        await memory.signal("done")

    @app.hook
    async def returns(memory: perdure.AsyncEntity) -> str:
        return "returned"

    @app.hook
    async def raises(memory: perdure.AsyncEntity) -> None:
        raise LookupError("no source")

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        first = await perdure.exec_hook(early, signal="ready")
        await memory.signal("go on")
        second = await perdure.exec_hook("empty", signal="done")
        third = await perdure.exec_hook(returns, signal="never sent")
        try:
            await perdure.exec_hook(raises, signal="ready")
        except perdure.HookFailed as error:
            fourth = [error.type, error.message]
        await perdure.wait_for("went on")
        return [first, second, third, fourth, await memory.get("went_on")]

    work()
    assert client.start(asks).result(T) == [
        {"early": True}, None, "returned", ["LookupError", "no source"], True,
    ]  # fmt: skip


@pytest.mark.parametrize("slots", [1, 10])
def test_hooks_signal_each_other_and_wait(
    app: perdure.App, client: perdure.Client, work: Any, slots: int
) -> None:
    runs: Counter[str] = Counter()

    @app.hook
    async def asker(memory: perdure.AsyncEntity) -> Any:
        runs["asker"] += 1
        await memory.signal("question", "how many?")
        answer = await perdure.wait_for("answer")
        try:
            await perdure.wait_for("nothing", timeout=0.05)
        except TimeoutError:
            return [answer, "late"]

    @app.hook
    async def teller(memory: perdure.AsyncEntity) -> str:
        runs["teller"] += 1
        question = await perdure.wait_for("question")
        await perdure.sleep(0.05)
        await memory.signal("answer", f"{question} 42")
        return "told"

    @app.coordinator
    async def both(memory: perdure.AsyncEntity) -> Any:
        return await asyncio.gather(teller(memory), asker(memory))

    work(slots=slots)
    assert client.start(both).result(T) == ["told", ["how many? 42", "late"]]
    assert runs["asker"] < 8
    assert runs["teller"] < 8


@pytest.mark.parametrize("slots", [1, 10])
def test_plain_hooks_signal_each_other_and_wait(
    app: perdure.App, client: perdure.Client, work: Any, slots: int
) -> None:
    @app.activity
    def where() -> str:
        return threading.current_thread().name

    @app.hook
    def asker(memory: perdure.Entity) -> Any:
        memory.signal("question", "how many?")
        answer = perdure.wait_for("answer")
        try:
            perdure.wait_for("nothing", timeout=0.05)
        except TimeoutError:
            return [answer, "late", where().startswith("perdure-activity")]

    @app.hook
    def teller(memory: perdure.Entity) -> str:
        question = perdure.wait_for("question", timeout="1 min")
        perdure.sleep(0.05)
        both = [where.start(), where.start()]
        memory.set([each.result()[:7] for each in both], "threads")
        memory.signal("answer", f"{question} 42")
        return "told"

    @app.coordinator
    async def both(memory: perdure.AsyncEntity) -> Any:
        return await asyncio.gather(teller(memory), asker(memory))

    work(slots=slots)
    handle = client.start(both)
    assert handle.result(T) == ["told", ["how many? 42", "late", True]]
    assert handle.memory.get() == {"threads": ["perdure", "perdure"]}


def test_hook_that_waits_long_is_parked_and_runs_again(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """A hook that runs again does not repeat the activities and commands that it has recorded."""
    runs: Counter[str] = Counter()

    @app.activity
    async def costly(number: int) -> int:
        runs[f"costly {number}"] += 1
        return number

    @app.hook
    async def patient(memory: perdure.AsyncEntity) -> Any:
        runs["hook"] += 1
        pair = await asyncio.gather(costly(1), costly(2))
        await memory.append("log", "asked")
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(perdure.wait_for(name)) for name in ("x", "y")]
        await memory.append("log", "told")
        return [pair, [wait.result() for wait in waits]]

    @app.coordinator
    async def calls_hook(memory: perdure.AsyncEntity) -> Any:
        return await patient(memory)

    work()
    handle = client.start(calls_hook)
    time.sleep(1.6)
    handle.signal("y", 2)
    time.sleep(0.1)
    handle.signal("x", 1)
    assert handle.result(T) == [[1, 2], [1, 2]]
    assert handle.memory.get("log") == ["asked", "told"]
    assert runs == {"costly 1": 1, "costly 2": 1, "hook": runs["hook"]}
    assert runs["hook"] >= 2


def test_unrecorded_work_is_not_interrupted_by_a_wait(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """(C53) A hook that waits is not parked while its code does unrecorded work."""
    runs: Counter[str] = Counter()

    async def unrecorded() -> str:
        await asyncio.sleep(1.5)
        runs["unrecorded"] += 1
        return "done"

    @app.hook
    async def mixed(memory: perdure.AsyncEntity) -> Any:
        runs["hook"] += 1
        return await asyncio.gather(unrecorded(), perdure.wait_for("go"))

    @app.coordinator
    async def calls_hook(memory: perdure.AsyncEntity) -> Any:
        return await mixed(memory)

    work()
    handle = client.start(calls_hook)
    time.sleep(1.3)
    handle.signal("go", 1)
    assert handle.result(T) == ["done", 1]
    assert runs == {"hook": 1, "unrecorded": 1}


def test_asyncio_timeout_around_a_wait_fires(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.hook
    async def limited(memory: perdure.AsyncEntity) -> str:
        try:
            async with asyncio.timeout(1.4):
                await perdure.wait_for("never")
        except TimeoutError:
            return "late"
        return "?"

    @app.coordinator
    async def calls_hook(memory: perdure.AsyncEntity) -> Any:
        return await limited(memory)

    work()
    assert client.start(calls_hook).result(T) == "late"


def test_retried_hook_keeps_its_recorded_steps(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    runs: Counter[str] = Counter()

    @app.activity
    async def once() -> int:
        runs["once"] += 1
        return 7

    @app.hook(retry=perdure.Retry(attempts=3, delay=0.05))
    async def shaky(memory: perdure.AsyncEntity) -> Any:
        number = await once()
        await memory.append("steps", "begun")
        if perdure.info().attempt < 2:
            raise ConnectionError("not yet")
        await memory.append("steps", "done")
        return [number, perdure.info().attempt]

    @app.coordinator
    async def calls_hook(memory: perdure.AsyncEntity) -> Any:
        return await shaky(memory)

    work()
    handle = client.start(calls_hook)
    assert handle.result(T) == [7, 2]
    assert handle.memory.get("steps") == ["begun", "done"]
    assert runs["once"] == 1


def test_retry_that_differs_keeps_the_first_write(
    app: perdure.App, client: perdure.Client, work: Any, caplog: Any
) -> None:
    """(C53) If a retry of a hook writes another value, the first one stays, and the log says so."""
    runs: Counter[str] = Counter()

    @app.hook(retry=perdure.Retry(attempts=2, delay=0.02))
    async def drifting(memory: perdure.AsyncEntity) -> Any:
        runs["hook"] += 1
        version = await memory.set({"run": runs["hook"]})
        if runs["hook"] == 1:
            raise RuntimeError("again")
        return [version, await memory.get("run")]

    @app.coordinator
    async def calls_hook(memory: perdure.AsyncEntity) -> Any:
        return await drifting(memory)

    work()
    assert client.start(calls_hook).result(T) == [1, 1]
    assert "differs from its first run" in caplog.text


def test_hooks_call_other_hooks_and_children(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.hook
    async def leaf(memory: perdure.AsyncEntity, number: int) -> int:
        return number * 10

    @app.coordinator
    async def small(memory: perdure.AsyncEntity, number: int) -> int:
        return number + 1

    @app.hook
    async def branch(memory: perdure.AsyncEntity) -> Any:
        leaves = await asyncio.gather(*(leaf(memory, n) for n in (1, 2)))
        return [leaves, await perdure.child(small, 5), await perdure.exec_hook("leaf", 3)]

    @app.hook
    def plain_branch(memory: perdure.Entity) -> Any:
        leaves = [leaf.start(1), leaf.start(2)]
        return [[each.result() for each in leaves], perdure.child(small, 5), leaf(memory, 3)]

    @app.coordinator
    async def tree(memory: perdure.AsyncEntity) -> Any:
        return [await branch(memory), await plain_branch(memory)]

    work(slots=2)
    expected = [[10, 20], 6, 30]
    assert client.start(tree).result(T) == [expected, expected]


def test_end_of_a_coordinator_ends_its_hooks_except_detached_ones(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    let_go = threading.Event()

    async def wait() -> None:
        await asyncio.to_thread(let_go.wait, 30)

    @app.hook
    async def outlives(memory: perdure.AsyncEntity) -> None:
        await wait()
        await memory.set(True, "detached")

    @app.hook
    async def ends(memory: perdure.AsyncEntity) -> None:
        await wait()
        await memory.set(True, "attached")

    @app.coordinator
    async def leaves(memory: perdure.AsyncEntity) -> str:
        perdure.start_hook(outlives)
        task = asyncio.create_task(ends(memory))
        await asyncio.wait([task], timeout=0.1)
        return "gone"

    work()
    handle = client.start(leaves)
    assert handle.result(T) == "gone"
    let_go.set()
    assert handle.memory.until("$.detached == true", timeout=T)
    assert handle.memory.get() == {"detached": True}


def test_cancelled_hook_cleans_up_durably(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.hook
    async def careful(memory: perdure.AsyncEntity) -> None:
        try:
            await perdure.wait_for("never")
        finally:
            await memory.set(True, "async_clean")

    @app.hook
    def careful_plain(memory: perdure.Entity) -> None:
        try:
            perdure.sleep("1 day")
        finally:
            memory.set(True, "plain_clean")

    @app.coordinator
    async def limits(memory: perdure.AsyncEntity) -> Any:
        tasks = [asyncio.create_task(h(memory)) for h in (careful, careful_plain)]
        await perdure.sleep(0.2)
        for task in tasks:
            task.cancel()
        await perdure.sleep(1.5)
        return await memory.get()

    work()
    assert client.start(limits).result(T) == {"async_clean": True, "plain_clean": True}


def test_client_runs_a_hook_on_any_memory(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """The memory needs no workflow, and a repeated request returns the same task."""

    @app.hook
    async def visit(memory: perdure.AsyncEntity, who: str) -> None:
        await memory.append("visitors", who)
        await perdure.wait_for("leave")
        await memory.append("visitors", f"-{who}")

    entity = client.create_entity("house", "building", {"visitors": []})
    work()
    handle = client.handle("house")
    task = handle.hook(visit, "jane", key="jane")
    assert handle.hook(visit, "jane", key="jane") == task
    time.sleep(0.3)
    assert entity.get("visitors") == ["jane"]
    handle.signal("leave")
    time.sleep(0.3)
    assert entity.get("visitors") == ["jane", "-jane"]


def test_hooks_of_many_jobs_can_answer_with_the_same_signal_name(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.hook
    async def page(memory: perdure.AsyncEntity, number: int) -> None:
        await memory.append("pages", number)
        await memory.signal("page-done", {"number": number})

    @app.coordinator
    async def pages(memory: perdure.AsyncEntity, first: int) -> Any:
        await memory.set({"pages": []})
        answers = [await perdure.exec_hook(page, first + n, signal="page-done") for n in range(3)]
        return [each["number"] for each in answers]

    work()
    handles = [client.start(pages, 10 * n) for n in range(8)]
    for n, handle in enumerate(handles):
        assert handle.result(T) == [10 * n, 10 * n + 1, 10 * n + 2]


def test_each_signal_goes_to_one_of_the_waiting_hooks(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.hook
    async def waits(memory: perdure.AsyncEntity, number: int) -> Any:
        got = await perdure.wait_for("token")
        await memory.append("got", [number, got])
        return got

    @app.coordinator
    async def all_wait(memory: perdure.AsyncEntity) -> Any:
        return sorted(await asyncio.gather(*(waits(memory, n) for n in range(6))))

    work()
    work()
    handle = client.start(all_wait)
    for number in range(6):
        time.sleep(0.05 if number % 2 else 1.2)  # while hooks are in memory, or parked
        handle.signal("token", number)
    assert handle.result(T) == list(range(6))
    assert sorted(got for _, got in handle.memory.get("got")) == list(range(6))


@pytest.mark.parametrize("kind", ["coordinator", "plain coordinator", "hook", "plain hook"])
@pytest.mark.parametrize("in_time", [True, False])
def test_signal_before_the_deadline_wins_when_both_are_seen_late(
    app: perdure.App, client: perdure.Client, dsn: str, kind: str, in_time: bool
) -> None:
    @app.coordinator(name="coordinator")
    async def waits(memory: perdure.AsyncEntity) -> Any:
        try:
            return await perdure.wait_for("go", timeout="1 h")
        except TimeoutError:
            return "late"

    @app.coordinator(name="plain coordinator")
    def waits_plain(memory: perdure.Entity) -> Any:
        try:
            return perdure.wait_for("go", timeout="1 h")
        except TimeoutError:
            return "late"

    app.hook(name="hook")(waits.function)
    app.hook(name="plain hook")(waits_plain.function)

    @app.coordinator
    async def runs(memory: perdure.AsyncEntity, name: str) -> Any:
        return await perdure.exec_hook(name)

    with perdure.Worker(app, dsn=dsn):
        handle = client.start("runs", kind) if "hook" in kind else client.start(kind)
        wait_for(dsn, AWAITED)
    if in_time:
        handle.signal("go", "in time")
    run(dsn, TWO_HOURS_LATER)
    if not in_time:
        handle.signal("go", "too late")
    with perdure.Worker(app, dsn=dsn):
        assert handle.result(T) == ("in time" if in_time else "late")


def test_context_variable_stays_in_the_code_that_sets_it(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """Activities, hooks and children do not see it, because they may run on another worker."""
    user = ContextVar("user", default="nobody")

    @app.activity
    async def activity() -> str:
        return user.get()

    @app.activity
    def plain_activity() -> str:
        return user.get()

    @app.hook
    async def inner(memory: perdure.AsyncEntity) -> str:
        return user.get()

    @app.coordinator
    async def child(memory: perdure.AsyncEntity) -> str:
        return user.get()

    async def own() -> str:
        return user.get()

    async def looks(memory: perdure.AsyncEntity) -> list[str]:
        user.set("jane")
        others = [activity(), plain_activity(), inner(memory), perdure.child(child)]
        return await asyncio.gather(asyncio.create_task(own()), *others)

    hook = app.hook(name="outer")(looks)

    @app.coordinator
    async def coordinator(memory: perdure.AsyncEntity) -> list[list[str]]:
        return [await looks(memory), await hook(memory)]

    work()
    assert client.start(coordinator).result(T) == [["jane", *["nobody"] * 4]] * 2


def test_a_call_that_a_hook_forgets_to_await_is_named_by_the_warning(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """The line after it, in the debug mode of asyncio, says where the call was made."""

    @app.activity
    async def search() -> int:
        return 1

    @app.hook
    async def forgets(memory: perdure.AsyncEntity) -> None:
        memory.set(1, "n")
        memory.get("n")
        search()

    work()
    note = client.create_entity("note", "note", {"n": 0})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        client.handle("note").run_hook(forgets, timeout=40)
        gc.collect()
    named = {str(each.message).splitlines()[0] for each in told}
    assert named >= {
        f"coroutine '{name}' was never awaited" for name in ("memory.set", "memory.get", "search")
    }
    assert note.get("n") == 0
