"""The worker's event loop: which one it is, and how exact its timers are."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

import perdure
from perdure.workers.event_loop import LOOP, AsyncioLoop, new_loop
from perdure.workers.uvloops import UvLoop

T = 20.0


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop of each kind."""
    monkeypatch.setenv(LOOP, request.param)
    loop = new_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("asyncio", AsyncioLoop), ("uvloop", UvLoop), ("", UvLoop), (None, UvLoop)],
)
def test_uvloop_is_used_unless_a_variable_names_a_loop(
    monkeypatch: pytest.MonkeyPatch, name: str | None, kind: type[asyncio.AbstractEventLoop]
) -> None:
    monkeypatch.delenv(LOOP, raising=False)
    if name is not None:
        monkeypatch.setenv(LOOP, name)
    loop = new_loop()
    loop.close()
    assert type(loop) is kind


@pytest.mark.parametrize("name", ["", "asyncio"])
def test_loop_of_asyncio_is_used_if_uvloop_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "perdure.workers.uvloops", None)
    monkeypatch.setenv(LOOP, name)
    loop = new_loop()
    loop.close()
    assert type(loop) is AsyncioLoop


@pytest.mark.parametrize("name", ["uvloop", "trio"])
def test_unavailable_loop_is_rejected(
    monkeypatch: pytest.MonkeyPatch, dsn: str, app: perdure.App, name: str
) -> None:
    """The worker raises the error before it begins to work."""
    monkeypatch.setitem(sys.modules, "perdure.workers.uvloops", None)
    monkeypatch.setenv(LOOP, name)
    with pytest.raises(perdure.InvalidArgument, match=f"no event loop '{name}'"):
        perdure.Worker(app, ["q"], dsn=dsn).start()


def test_timers_are_never_a_millisecond_early(loop: asyncio.AbstractEventLoop) -> None:
    """A loop that counts whole milliseconds must not run at once what is due in half of one."""
    early: list[float] = []

    def fired(due: float) -> None:
        early.append(due - time.monotonic())

    for tenth in range(1, 40):
        loop.call_later(tenth / 1e4, fired, time.monotonic() + tenth / 1e4)
    loop.run_until_complete(asyncio.sleep(0.05))
    assert len(early) == 39
    assert max(early) < 0.001


def test_loop_accepts_delays_of_any_length(loop: asyncio.AbstractEventLoop) -> None:
    """Zero and negative delays run at once, very long and infinite ones do not run."""
    called: list[float] = []
    for delay in (0, -1, math.inf, 10**9):
        loop.call_later(delay, called.append, delay)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert sorted(called) == [-1, 0]


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_worker_runs_all_kinds_of_work_on_each_loop(
    monkeypatch: pytest.MonkeyPatch,
    app: perdure.App,
    client: perdure.Client,
    connect: Any,
    work: Any,
    name: str,
) -> None:
    """[P7] The work has activities, hooks with own timers, threads, signals and sleeps."""
    monkeypatch.setenv(LOOP, name)

    @app.activity
    async def later(number: int) -> int:
        async with asyncio.timeout(T):
            await asyncio.sleep(0.001)
        return number

    @app.activity
    def in_thread(number: int) -> int:
        time.sleep(0.001)
        return number

    @app.hook
    async def add(memory: perdure.AsyncEntity, number: int) -> None:
        await asyncio.sleep(0.001)
        await memory.increment("sum", await later(number))

    @app.coordinator
    async def all_of_it(memory: perdure.AsyncEntity) -> Any:
        await asyncio.gather(*(add(memory, number) for number in range(4)))
        await perdure.sleep(0.01)
        signal = await perdure.wait_for("go")
        return [await memory.get("sum"), await later(1), await in_thread(2), signal]

    work()
    handle = client.start(all_of_it)
    handle.signal("go", 3)
    assert handle.result(T) == [6, 1, 2, 3]
    loops = connect().execute("select details ->> 'loop' from perdure.workers").fetchall()
    assert loops == [({"asyncio": "AsyncioLoop", "uvloop": "UvLoop"}[name],)]


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("exit", [SystemExit, KeyboardInterrupt])
def test_task_of_a_hook_that_exits_ends_no_loop(
    app: perdure.App,
    client: perdure.Client,
    work: Any,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    exit: type[BaseException],
) -> None:
    """Whoever awaits the task gets the error."""
    monkeypatch.setenv(LOOP, kind)

    @app.hook
    async def hosts(memory: perdure.AsyncEntity) -> str:
        async def exits() -> None:
            raise exit

        try:
            await asyncio.create_task(exits())
        except exit:
            return "raised"
        return "ended"

    work()
    client.create_entity("shop", "shop")
    for _ in range(2):
        assert client.handle("shop").run_hook(hosts, timeout=T) == "raised"
