"""Changed code: detected before it has any effect, told readably, and resumed after a fix. [P9]"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

import perdure
from tests.databases import UNHINTED
from tests.patience import wait_until

T = "40 s"


@pytest.fixture
def serve(dsn: str) -> Callable[..., perdure.Worker]:
    """Give a function that makes a worker of some version of the code."""
    return lambda app: perdure.Worker(app, dsn=dsn, **UNHINTED)


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


def test_changed_code_is_stuck_and_resumes_after_a_fix(client: perdure.Client, serve: Any) -> None:
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


def test_what_old_code_got_stuck_goes_on_when_it_has_gone(
    client: perdure.Client, serve: Any
) -> None:
    """A rolling deploy: the new workers are there already when an old one meets their journal."""
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
    told = connection.execute(
        "select job_id, name from journal where kind = 'patch' order by seq"
    ).fetchall()
    assert sorted(told) == sorted(
        [(old.id, "end better"), (new.id, "begin better"), (new.id, "end better")]
    )


def released(connection: Any) -> int:
    """Count the tasks that lie aside because nobody had the code for them."""
    query = """
        select count(*) from tasks
         where token is null and failure ->> 'code' = 'PD406'"""
    return int(connection.execute(query).fetchone()[0])


def test_a_worker_is_not_busy_with_a_cancel_that_its_code_cannot_hear(
    client: perdure.Client, serve: Any, sent: list[str]
) -> None:
    """[P10] Whoever comes and has the code hears of it."""
    handle = client.start("flow")
    handle.cancel()
    with serve(perdure.App()):
        time.sleep(1.5)
        assert sent.count("advance") < 15
        with serve(app_with(first)), pytest.raises(perdure.JobCancelled):
            handle.result(T)


def test_a_task_without_code_here_is_taken_at_once_by_a_worker_that_comes_and_has_it(
    client: perdure.Client, serve: Any, connection: Any, caplog: Any
) -> None:
    """It is put aside for longer and longer, up to a minute; who has the code wakes it."""
    with serve(perdure.App()):
        handles = [client.start("flow") for _ in range(8)]
        while released(connection) < len(handles):
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
    told = connection.execute("select max(deliveries) from tasks").fetchone()
    assert told == (None,)


def test_two_workers_of_which_one_has_the_code_do_not_play_ping_pong(
    client: perdure.Client, serve: Any, caplog: Any
) -> None:
    """Whoever lacks it gives tasks back for a second at most, and is not busy with that."""
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
def test_who_lacks_the_code_lets_the_other_go_first(
    client: perdure.Client, serve: Any, caplog: Any
) -> None:
    """Either has something that the other has not: most tasks go back once, and briefly."""
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


def test_runs_are_the_same_without_a_cache(client: perdure.Client, dsn: str) -> None:
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
