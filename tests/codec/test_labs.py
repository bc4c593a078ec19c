"""Labs of an app that encrypts: every run replays, and a fork reads the logs of its original."""

from __future__ import annotations

import asyncio
from typing import Any

import perdure
from perdure.codecs import AesGcm
from perdure.testing import AsyncLab, Lab

app = perdure.App(codec=AesGcm({"1": bytes(range(32))}, "1", memory=["messages", "number"]))


@app.coordinator
async def in_runs(memory: perdure.AsyncEntity, number: int) -> Any:
    await memory.log("messages", {"number": number})
    await memory.set({"number": number})
    if number < 3:
        perdure.continue_as_new(number + 1)
    return await memory.get("messages")


def test_every_encrypted_run_replays_in_a_lab(dsn: str) -> None:
    """[P9] Arguments, logs and results are encrypted."""
    with Lab(app, dsn=dsn) as lab:
        first = lab.run(in_runs, 1, id="j")
        assert first == [{"number": number} for number in (1, 2, 3)]
        assert lab.run(in_runs, 3, id="j", if_exists="new_run") == [*first, {"number": 3}]
        forked = lab.client.fork("j", at=1)
        assert lab.result(forked) == [*first, {"number": 3}]
        lab.check()


def test_client_of_an_async_lab_has_the_codec(dsn: str) -> None:
    async def test() -> Any:
        async with AsyncLab(app, dsn=dsn) as lab:
            result = await lab.run(in_runs, 3, id="j")
            await lab.check()
            return result, await lab.memory("j").get("number")

    assert asyncio.run(test()) == ([{"number": 3}], 3)
