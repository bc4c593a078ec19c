"""Changed code is detected before it has any effect, described, and resumed after a fix. [P9]"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import pytest

import perdure
from tests.patience import wait_until

T = "40 s"


def app_with(coordinator: Any, name: str = "flow") -> Any:
    app = perdure.App()

    @app.activity
    async def step(what: str) -> str:
        return what

    @app.coordinator(name=name)
    async def flow(memory: perdure.AsyncEntity) -> Any:
        return await coordinator(memory, step)

    return app


async def first(memory: Any, step: Any) -> Any:
    one = await step("one")
    await perdure.wait_for("go")
    return [one, await step("two")]


async def renamed(memory: Any, step: Any) -> Any:
    await memory.set({"wrong": True})
    await perdure.wait_for("go")
    return await step("two")


async def edited(memory: Any, step: Any) -> Any:
    one = await step("another prompt")
    await perdure.wait_for("go")
    return [one, await step("two")]


async def patched(memory: Any, step: Any) -> Any:
    if perdure.patched("begin better"):
        await step("zero")
    one = await step("one")
    await perdure.wait_for("go")
    if perdure.patched("end better"):
        await step("more")
    return [one, await step("two")]


def test_job_with_changed_code_is_stuck_and_resumes_after_a_fix(
    client: perdure.Client, serve: Any
) -> None:
    with serve(app_with(first)):
        handle = client.start("flow")
        time.sleep(0.3)
    with serve(app_with(renamed)):
        handle.signal("go")
        time.sleep(0.4)
        status = handle.status()
        assert status.status == "running"
        assert "does not match its journal" in (status.waiting_for or "")
        assert handle.memory.get() == {}
    assert handle.status().stuck
    with serve(app_with(first)):
        assert handle.result(T) == ["one", "two"]


def test_job_stuck_by_an_old_worker_continues_when_that_has_left(
    client: perdure.Client, serve: Any
) -> None:
    """In a rolling deployment, an old worker may meet the journal of a job that has new code."""
    with serve(app_with(first)):
        handle = client.start("flow")
        time.sleep(0.3)
    with ExitStack() as leaving:
        leaving.enter_context(serve(app_with(renamed)))
        handle.signal("go")
        wait_until(lambda: handle.status().stuck)
        with serve(app_with(first)):
            time.sleep(0.3)
            assert handle.status().stuck
            leaving.close()
            assert handle.result(T) == ["one", "two"]


def test_edited_arguments_may_be_accepted(client: perdure.Client, serve: Any) -> None:
    with serve(app_with(first)):
        handle = client.start("flow")
        time.sleep(0.3)
    with serve(app_with(edited)):
        handle.signal("go")
        time.sleep(0.3)
        assert handle.resume(accept_changes=True) == 1
        assert handle.result(T) == ["one", "two"]


def test_patched_code_runs_old_and_new_jobs(
    client: perdure.Client, serve: Any, connection: Any
) -> None:
    with serve(app_with(first)):
        old = client.start("flow")
        time.sleep(0.3)
    with serve(app_with(patched)):
        new = client.start("flow")
        time.sleep(0.3)
        for handle in (old, new):
            handle.signal("go")
            assert handle.result(T) == ["one", "two"]
    patches = connection.execute(
        "select job_id, name from journal where kind = 'patch' order by seq"
    ).fetchall()
    assert sorted(patches) == sorted(
        [(old.id, "end better"), (new.id, "begin better"), (new.id, "end better")]
    )


def put_aside(connection: Any) -> int:
    """Count the tasks that were put aside because their worker lacks the code."""
    query = """
        select count(*) from tasks
         where token is null and failure ->> 'code' = 'PD406'"""
    return int(connection.execute(query).fetchone()[0])


def test_worker_without_the_code_is_not_busy_with_a_cancel(
    client: perdure.Client, serve: Any, sent: list[str]
) -> None:
    """[P10] The cancel takes effect when a worker with the code begins."""
    handle = client.start("flow")
    handle.cancel()
    with serve(perdure.App()):
        time.sleep(1.5)
        assert sent.count("advance") < 15
        with serve(app_with(first)), pytest.raises(perdure.JobCancelled):
            handle.result(T)


def test_new_worker_takes_tasks_at_once_that_others_lack_the_code_for(
    client: perdure.Client, serve: Any, connection: Any, caplog: Any
) -> None:
    """Tasks are put aside for up to a minute; a worker with the code wakes them."""
    with serve(perdure.App()):
        handles = [client.start("flow") for _ in range(8)]
        while put_aside(connection) < len(handles):
            time.sleep(0.01)
        aside = "update tasks set due_at = clock() + interval '59 s'"  # as after a minute
        connection.execute(f"{aside} where token is null")
        assert "no function named flow" in caplog.text
        assert "(none has registered)" in (handles[-1].status().waiting_for or "")
        began = time.monotonic()
        with serve(app_with(first)):
            for handle in handles:
                handle.signal("go")
                assert handle.result(T) == ["one", "two"]
        assert time.monotonic() - began < 15
    deliveries = connection.execute("select max(deliveries) from tasks").fetchone()
    assert deliveries == (None,)


def test_worker_without_the_code_does_not_keep_taking_the_same_tasks(
    client: perdure.Client, serve: Any, caplog: Any
) -> None:
    """It gives a task back for a second at most, and is not busy with that."""
    caplog.set_level("DEBUG", "perdure.worker")
    with serve(app_with(first)), serve(perdure.App()):
        began = time.monotonic()
        handles = [client.start("flow") for _ in range(40)]
        for handle in handles:
            handle.signal("go")
        for handle in handles:
            assert handle.result(T) == ["one", "two"]
        assert time.monotonic() - began < 12
    given_back = caplog.text.count("no function named flow")
    assert 0 < given_back < 10 * len(handles)


@pytest.mark.steady("it counts what goes back")
def test_worker_without_the_code_lets_the_other_worker_go_first(
    client: perdure.Client, serve: Any, caplog: Any
) -> None:
    """Each worker has code that the other lacks. Most tasks are given back once, and briefly."""
    caplog.set_level("DEBUG", "perdure.worker")
    apps = perdure.App(), perdure.App()

    @apps[0].coordinator
    async def ping(memory: perdure.AsyncEntity) -> str:
        return "ping"

    @apps[1].coordinator
    async def pong(memory: perdure.AsyncEntity) -> str:
        return "pong"

    with serve(apps[0]), serve(apps[1]):
        for _ in range(15):
            assert client.start(ping).result(T) == "ping"
            assert client.start(pong).result(T) == "pong"
    assert caplog.text.count("given back for 0.25 s") * 3 >= caplog.text.count("given back for") * 2


def test_results_are_the_same_without_a_cache(client: perdure.Client, dsn: str) -> None:
    async def sums(memory: Any, step: Any) -> Any:
        total = 0
        for number in range(8):
            await perdure.sleep(0.005)
            total += await memory.increment("n", number)
        return [total, perdure.random().random() < 1]

    with perdure.Worker(app_with(sums), dsn=dsn, cache=0):
        handles = [client.start("flow") for _ in range(5)]
        for handle in handles:
            assert handle.result(T) == [84, True]
