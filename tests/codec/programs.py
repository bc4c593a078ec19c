"""An app in which every value contains a secret, and that uses every kind of value."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import perdure
from perdure.codecs import AesGcm, Codec

SECRET = "Xantippe"
"""The text that must not appear in the database."""

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
FIELDS = ("notes", "patient.name", "visits.note", "found", "told")
QUEUES = ["default", "far"]


def codec(current: str = "old", memory: Sequence[str] = FIELDS, **keys: bytes) -> AesGcm:
    """Return a codec; without other keys, it has the old one."""
    return AesGcm(keys or {"old": OLD}, current, memory=memory)


def secret(what: str) -> str:
    """Return a text that only holders of the key may read."""
    return f"{SECRET} {what}"


class Broken(Exception):
    """The error that the code raises."""


def app_with(given: Codec | None) -> perdure.App:
    """Return the app with a codec."""
    app = perdure.App(codec=given)
    _register_activities(app)
    _register_hooks(app)
    _register_others(app)
    _register_everything(app)
    return app


def _register_activities(app: perdure.App) -> None:
    quick = perdure.Retry(attempts=3, delay=0.01)

    @app.activity(retry=quick)
    async def look(query: str) -> dict[str, Any]:
        perdure.publish("words", secret("published"))
        perdure.heartbeat(secret("progress"))
        if perdure.info().attempt == 0:
            raise Broken(secret("in an attempt"))
        return {"found": secret(query), "n": 1.5}

    @app.activity(queue="far", retry=quick)
    def look_far(query: str) -> list[str]:
        perdure.heartbeat(secret("progress far"))
        if perdure.info().attempt == 0:
            raise Broken(secret("in a far attempt"))
        return [query, secret("far")]

    @app.activity
    async def breaks(why: str) -> None:
        raise Broken(secret(why))

    @app.transaction
    async def writes(connection: Any, what: str) -> str:
        await connection.execute("select 1")
        return secret(what)


def _register_hooks(app: perdure.App) -> None:
    look = app.activities["look"]

    @app.hook
    async def gathers(memory: perdure.AsyncEntity, query: str) -> dict[str, Any]:
        perdure.heartbeat(secret("progress of a hook"))
        found = await look(query)
        await memory.merge({"found": {"by": found["found"]}})
        assert (await memory.get("found"))["by"] == found["found"]
        await memory.log("log", secret("logged"), {"text": secret("logged, too")})
        await memory.signal("gathered", secret("a signal"))
        return {"gathered": found}

    @app.hook
    async def answers_early(memory: perdure.AsyncEntity, query: str) -> str:
        await memory.signal("early", secret(query))
        return secret("late")

    @app.hook
    async def fails(memory: perdure.AsyncEntity, why: str) -> None:
        raise Broken(secret(why))

    @app.hook
    def plain(memory: perdure.Entity, query: str) -> str:
        memory.set(secret(query), "told")
        assert memory.get("told") == secret(query)
        return str(perdure.wait_for("to the hook"))


def _register_others(app: perdure.App) -> None:
    @app.coordinator(entity="child")
    async def child(memory: perdure.AsyncEntity, query: str) -> str:
        known = await memory.get("notes")
        if (parent := perdure.info().parent) is not None:
            await perdure.signal(parent, "from the child", secret("of a child"))
        return f"{query}, {known}"

    @app.coordinator(entity="child")
    async def bad_child(memory: perdure.AsyncEntity, query: str) -> str:
        raise Broken(query)

    @app.coordinator(entity="waiter")
    async def waiter(memory: perdure.AsyncEntity, query: str = "") -> list[Any]:
        return [query, await perdure.wait_for("go")]


def _register_everything(app: perdure.App) -> None:
    activity, hook = app.activities, app.hooks

    @app.coordinator(entity="everything")
    async def everything(memory: perdure.AsyncEntity, query: str, run: int = 1) -> dict[str, Any]:
        if run == 1:
            perdure.continue_as_new(query, run=2)
        told: dict[str, Any] = {"query": query, "known": await memory.get("notes")}
        told["look"], told["far"], told["written"], told["hook"] = await asyncio.gather(
            activity["look"](query),
            activity["look_far"](query),
            activity["writes"](query),
            hook["gathers"](memory, query),
        )
        told["signal"] = await perdure.wait_for("gathered")
        told["early"] = await perdure.exec_hook(
            hook["answers_early"], secret("early"), signal="early"
        )
        told["child"] = await perdure.child(
            app.coordinators["child"], secret("child"), context={"notes": secret("of a child")}
        )
        told["from the child"] = await perdure.wait_for("from the child")
        told["failures"] = await _failures(app, memory)
        told["memory"] = await _uses_memory(memory)
        told["person"] = await perdure.ask_people("approve", {"what": secret("asked")})
        told["outside"] = await perdure.wait_for("from outside")
        return told


async def _failures(app: perdure.App, memory: perdure.AsyncEntity) -> list[str]:
    told = []
    for failing in (
        app.activities["breaks"](secret("why")),
        app.hooks["fails"](memory, secret("why")),
        perdure.child(app.coordinators["bad_child"], secret("bad")),
    ):
        try:
            await failing
        except perdure.Failure as error:
            told.append(f"{error}, {SECRET in (error.traceback or '')}")
    return told


async def _uses_memory(memory: perdure.AsyncEntity) -> dict[str, Any]:
    await memory.set({"status": "open", "n": 1, "patient": {"name": secret("name"), "age": 7}})
    await memory.append("visits", {"at": 1, "note": secret("note")}, {"at": 2, "note": secret("n")})
    await memory.set(secret("another note"), "visits.0.note")
    await memory.merge({"patient": {"name": secret("new name")}})
    await memory.append("notes", secret("a note"), 7, None, {"deep": [secret("deep"), True]})
    await memory.set_if_not_exists("patient.name", secret("nobody"))
    await memory.increment("n")
    await memory.until("$.n == 2")
    removed = await memory.remove("visits", 1)
    document: dict[str, Any] = await memory.get()
    return document | {"removed": removed, "log": await memory.get("log")}


app = app_with(codec())
"""The app for commands that import it by name."""
