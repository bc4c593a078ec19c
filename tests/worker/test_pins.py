"""Pins: a job keeps its version of the code, and workers of other versions leave it alone."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import pytest

import perdure
from perdure.testing import Lab
from tests.worker.processes import worker_process

T = "40 s"


def app_of(version: str | None, *, pinned: bool = True, queue: str = "q") -> perdure.App:
    """Give a version of an app; its code returns which version it is."""
    app = perdure.App(version=version)

    @app.activity(queue="acts")
    async def dispatched(what: str) -> list[Any]:
        return [version, perdure.info().pinned_version]

    @app.hook(queue="hooks")
    async def outer(memory: perdure.AsyncEntity) -> list[Any]:
        return [version, await inner(memory)]

    @app.hook(queue="hooks")
    def inner(memory: perdure.Entity) -> Any:
        return [version, perdure.info().pinned_version]

    @app.hook
    async def detached(memory: perdure.AsyncEntity) -> None:
        await memory.set(version, "detached")

    @app.coordinator(queue="children")
    async def child(memory: perdure.AsyncEntity) -> Any:
        return [version, perdure.info().pinned_version]

    @app.coordinator(queue=queue, pinned=pinned and version is not None)
    async def flow(memory: perdure.AsyncEntity) -> dict[str, Any]:
        await perdure.wait_for("go")
        perdure.start_hook(detached)
        return {
            "flow": [version, perdure.info().pinned_version, perdure.info().queue],
            "activity": await dispatched("x"),
            "hook": await outer(memory),
            "by name": await perdure.exec_hook("inner"),
            "child": await perdure.child(child),
            "child by name": await perdure.child("child", id=perdure.info().job + "-child"),
            "children": [await child.start(), await perdure.start_child("child")],
        }

    return app


def test_hook_requested_by_a_client_keeps_its_version(client: perdure.Client, serve: Any) -> None:
    """(E16) A worker of another version leaves it alone."""
    memory = client.create_entity("e", "note")
    apps = [app_of("1"), app_of("2")]
    client.handle("e").hook(apps[0].hooks["detached"], pinned_version="2")
    with serve(apps[0]), serve(apps[1]):
        assert memory.until("exists($.detached)", timeout=T)
    assert memory.get() == {"detached": "2"}


def until_waiting(connection: Any, job: str) -> None:
    """Wait until the job is parked."""
    query = "select 1 from waiting where job_id = %s and state = 'waiting'"
    end = time.monotonic() + 15
    while not connection.execute(query, [job]).fetchone():
        assert time.monotonic() < end
        time.sleep(0.01)


def answers_of(version: str | None, pinned: str | None) -> dict[str, Any]:
    """Give the result of a job that ran in one version only."""
    return {
        "flow": [version, pinned, "q"],
        "activity": [version, pinned],
        "hook": [version, [version, pinned]],
        "by name": [version, pinned],
        "child": [version, pinned],
        "child by name": [version, pinned],
        "children": [[version, pinned], [version, pinned]],
    }


def test_two_versions_run_side_by_side(client: perdure.Client, serve: Any, connection: Any) -> None:
    """In a rolling deployment, a job of the old version ends in it, with all that it requests."""
    one, two = app_of("1"), app_of("2")
    with serve(one), serve(two):
        old = client.start(one.coordinators["flow"], id="old")
        new = client.start(two.coordinators["flow"], id="new")
        for handle in (old, new):
            until_waiting(connection, handle.id)
            handle.signal("go")
        assert old.result(T) == answers_of("1", "1")
        assert new.result(T) == answers_of("2", "2")
        assert old.memory.until("exists($.detached)", timeout=T)
        assert old.memory.get("detached") == "1"


def test_a_pinned_job_waits_for_its_version(
    client: perdure.Client, serve: Any, connection: Any
) -> None:
    two = app_of("2")
    handle = client.start(two.coordinators["flow"])
    other = client.start("flow", queue="q")
    with serve(app_of("1")), serve(app_of(None)):
        until_waiting(connection, other.id)
        waiting_for = handle.status().waiting_for
        assert waiting_for == "a worker of version 2 on queue q (none has registered)"
    handle.signal("go")
    with serve(two):
        assert handle.result(T) == answers_of("2", "2")


def test_next_runs_keep_the_version(client: perdure.Client, serve: Any) -> None:
    """Runs that continue as new, automatic retries and `retry()` keep it, even if a worker of the
    next version is quicker."""

    def version(number: str) -> perdure.App:
        app = perdure.App(version=number)

        @app.coordinator(pinned=True, retry=perdure.Retry(attempts=2, delay="10 ms"))
        async def runs(memory: perdure.AsyncEntity, n: int) -> None:
            await memory.append("ran", number)
            if n < 2:
                perdure.continue_as_new(n + 1)
            raise ValueError("no more")

        return app

    one, two = version("1"), version("2")
    handle = client.start(one.coordinators["runs"], 0, context={"ran": []})
    with serve(two), serve(one):
        for _ in range(2):
            with pytest.raises(perdure.JobFailed):
                handle.result(T)
            handle.retry()
        with pytest.raises(perdure.JobFailed):
            handle.result(T)
    assert set(handle.memory.get("ran")) == {"1"}
    assert handle.status().run == len(handle.memory.get("ran"))


def test_version_may_be_named_at_the_start_and_by_the_worker(
    client: perdure.Client, serve: Any, connection: Any
) -> None:
    """The worker names the version of an app that has none of its own."""
    handle = client.start("flow", queue="q", pinned_version="v7")
    handle.signal("go")
    with serve(app_of(None), queues=["q", "acts", "hooks", "children"], version="v7"):
        assert handle.result(T) == answers_of(None, "v7")
        [(version, queues)] = connection.execute("select version, queues from workers").fetchall()
        assert version == "v7"
        assert queues[:4] == ["q@v7", "q", "acts@v7", "acts"]


def test_start_may_leave_out_the_pin_of_a_workflow(client: perdure.Client, serve: Any) -> None:
    app = app_of("1")
    handle = client.start(app.coordinators["flow"], pinned_version=None)
    [many] = client.start_many(app.coordinators["flow"], [{"id": "many"}])
    for each in (handle, many):
        each.signal("go")
    with serve(app_of("2")):
        assert handle.result(T) == answers_of("2", None)
        assert many.status().status == "running"
    with serve(app):
        assert many.result(T) == answers_of("1", "1")


def test_work_of_another_app_does_not_inherit_the_pin(client: perdure.Client, serve: Any) -> None:
    other = perdure.App(version="9")

    @other.hook(queue="others")
    async def foreign(memory: perdure.AsyncEntity) -> Any:
        return perdure.info().pinned_version

    @other.coordinator(queue="others", pinned=True)
    async def foreign_child(memory: perdure.AsyncEntity) -> Any:
        return perdure.info().pinned_version

    app = perdure.App(version="1")

    @app.coordinator(pinned=True)
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return [
            perdure.info().pinned_version,
            await perdure.exec_hook(foreign),
            await perdure.exec_hook("foreign", queue="others"),
            await perdure.child(foreign_child),
        ]

    with serve(app), serve(other):
        assert client.start(asks).result(T) == ["1", None, None, "9"]


def test_repin_moves_a_job_to_another_version(
    client: perdure.Client, serve: Any, connection: Any
) -> None:
    with serve(app_of("1")):
        handle = client.start(app_of("1").coordinators["flow"])
        until_waiting(connection, handle.id)
    handle.signal("go")
    assert handle.repin("2") == 1
    assert handle.repin("2") == 0
    with serve(app_of("2")):
        assert handle.result(T) == answers_of("2", "2")


def test_async_client_removes_the_pin_of_a_job(
    client: perdure.Client, serve: Any, dsn: str
) -> None:
    async def free(job: str) -> int:
        async with await perdure.connect_async(dsn) as others:
            return await others.handle(job).repin(None)

    handle = client.start(app_of("1").coordinators["flow"])
    handle.signal("go")
    assert asyncio.run(free(handle.id)) == 1
    with serve(app_of("2")):
        assert handle.result(T) == answers_of("2", None)


def test_job_in_the_memory_of_its_worker_notices_that_its_pin_is_removed(
    client: perdure.Client, serve: Any, connection: Any
) -> None:
    app = app_of("1")
    with serve(app):
        handle = client.start(app.coordinators["flow"])
        until_waiting(connection, handle.id)
        assert handle.repin(None) == 1
        handle.signal("go")
        assert handle.result(T) == answers_of("1", None)


def test_lab_runs_only_jobs_pinned_to_its_version(dsn: str) -> None:
    app = perdure.App(version="1")

    @app.hook
    async def hook(memory: perdure.AsyncEntity) -> Any:
        await perdure.sleep("30 days")
        return perdure.info().pinned_version

    @app.coordinator(pinned=True)
    async def flow(memory: perdure.AsyncEntity) -> Any:
        await perdure.sleep("30 days")
        return await hook(memory)

    with Lab(app, dsn=dsn) as lab:
        lab.start("flow", id="other", pinned_version="2")
        assert lab.run(flow) == "1"


def test_missing_conflicting_or_invalid_version_is_rejected() -> None:
    with pytest.raises(perdure.InvalidArgument, match="this app has none"):
        perdure.App().coordinator(pinned=True)(app_of)
    with pytest.raises(perdure.InvalidArgument, match="was given 2"):
        perdure.Worker(perdure.App(version="1"), version="2")
    for name in ("", "v" * 201):
        with pytest.raises(perdure.InvalidName):
            perdure.App(version=name)


POINTS = ["committer: after claim", "hook: before flush", "coordinator: after park"]


@pytest.mark.parametrize("point", POINTS)
def test_only_a_worker_of_its_version_takes_over_a_pinned_job(
    client: perdure.Client, dsn: str, point: str
) -> None:
    """[P6] [P8] Its worker is killed while an idle worker of another version is running."""
    handle = client.start("book", 2, pinned_version="1")
    with worker_process(dsn, VERSION="2"):
        with worker_process(dsn, VERSION="1", crash_at=f"{point}:2") as process:
            assert process.wait(timeout=30) == -signal.SIGKILL
        assert handle.status().status == "running"
        with worker_process(dsn, VERSION="1"):
            assert handle.result("40 s")[1:] == [[0, 1], 4]
