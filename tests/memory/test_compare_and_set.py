"""Compare and set inside of jobs: `expected_version=` is an option of every command. (E11)"""

from __future__ import annotations

from typing import Any

import psycopg

import perdure

T = "40 s"


async def compared(memory: perdure.AsyncEntity) -> list[Any]:
    """Write at the right version, at a wrong one, and go on."""
    told: list[Any] = [await memory.set("a", "n", expected_version=1)]
    for _ in range(2):
        try:
            await memory.set("lost", "n", expected_version=1)
        except perdure.VersionConflict:
            told.append("too late")
    told.append(await memory.merge({"m": 1}, expected_version=2))
    await perdure.wait_for("go")
    return [*told, await memory.get()]


def test_code_that_comes_too_late_is_told_live_and_on_replay(
    dsn: str, connection: psycopg.Connection[Any]
) -> None:
    """[P2] [P3] (C35): in a coordinator and in a hook."""
    app = perdure.App()
    app.coordinator(name="coordinator")(compared)
    hook = app.hook(name="hook")(compared)

    @app.coordinator(name="asks a hook")
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await hook(memory)

    with perdure.connect(dsn) as client:
        handles = [client.start(name, context={"n": 0}) for name in ("coordinator", "asks a hook")]
        with perdure.Worker(app, dsn=dsn):
            for handle in handles:
                handle.memory.until('$.m == 1 && $.n == "a"', T)
        for handle in handles:
            handle.signal("go")
        with perdure.Worker(app, dsn=dsn):  # who knows nothing replays
            for handle in handles:
                told = handle.result(T)
                assert told == [2, "too late", "too late", 3, {"n": "a", "m": 1}]
