"""`expected_version=` makes each command in a job a compare-and-set. (E11)"""

from __future__ import annotations

from typing import Any

import psycopg

import perdure

T = "40 s"


async def compared(memory: perdure.AsyncEntity) -> list[Any]:
    """Write with the right version, then with outdated ones, then with the right one again."""
    answers: list[Any] = [await memory.set("a", "n", expected_version=1)]
    for _ in range(2):
        try:
            await memory.set("lost", "n", expected_version=1)
        except perdure.VersionConflict:
            answers.append("too late")
    answers.append(await memory.merge({"m": 1}, expected_version=2))
    await perdure.wait_for("go")
    return [*answers, await memory.get()]


def test_command_with_an_outdated_version_fails_live_and_on_replay(
    dsn: str, connection: psycopg.Connection[Any]
) -> None:
    """[P2] [P3] (C35) A coordinator and a hook see the same VersionConflict in both cases."""
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
        with perdure.Worker(app, dsn=dsn):  # a new worker replays the journals
            for handle in handles:
                answers = handle.result(T)
                assert answers == [2, "too late", "too late", 3, {"n": "a", "m": 1}]
