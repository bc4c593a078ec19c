"""Codecs of users: what they return is a valid envelope, or is refused before it is stored."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import perdure
from perdure.codecs import AesGcm
from tests.codec.programs import OLD, codec


class Own:
    """A codec that returns the envelope with which it was made."""

    memory = ("notes",)

    def __init__(self, key: str, data: bytes):
        self._sealed = key, data

    def encode(self, plain: bytes, place: bytes, salt: bytes) -> tuple[str, bytes]:
        return self._sealed

    def decode(self, key: str, sealed: bytes, place: bytes) -> bytes:
        raise LookupError(key)

    def digest(self, key: str, data: bytes) -> bytes:
        return codec().digest("old", data)


@pytest.mark.parametrize(
    ("key", "data"),
    [("tenant/1", b"sealed bytes"), ("", b"sealed bytes"), ("k" * 41, b"sealed bytes"), ("k", b"")],
)
def test_invalid_envelope_is_not_stored(dsn: str, key: str, data: bytes) -> None:
    """A key or data that could not be recognized later raises an error, and the memory is
    unchanged."""
    with perdure.connect(dsn, codec=Own(key, data)) as client:
        order = client.create_entity("order", "thing", {"n": 0})
        with pytest.raises(perdure.InvalidValue, match="which is not valid"):
            order.set("secret", "notes")
    with perdure.connect(dsn) as plain:
        assert plain.entity("order").get() == {"n": 0}


class Away(AesGcm):
    """A codec whose service is away once, with an error of its own."""

    is_away = False

    def encode(self, plain: bytes, place: bytes, salt: bytes) -> tuple[str, bytes]:
        if self.is_away:
            self.is_away = False
            raise ConnectionError("the service of the keys is away")
        return super().encode(plain, place, salt)


def test_attempt_whose_publish_cannot_be_encrypted_fails(dsn: str) -> None:
    """The job fails with the error of the codec, and does not wait without end."""
    away = Away({"old": OLD}, "old")
    app = perdure.App(codec=away)

    @app.activity
    async def publishes() -> None:
        away.is_away = True
        await perdure.publish("words", "one")

    @app.coordinator
    async def begins(memory: perdure.AsyncEntity) -> None:
        await publishes()

    with perdure.connect(dsn, codec=away) as client, perdure.Worker(app, dsn=dsn):
        job = client.start(begins)
        with pytest.raises(perdure.JobFailed, match="the codec has failed: ConnectionError"):
            job.result("20 s")


class Fails(AesGcm):
    """A codec in which one verb fails once."""

    def __init__(self, verb: str):
        super().__init__({"old": OLD}, "old")
        self.failing = {verb}

    def encode(self, plain: bytes, place: bytes, salt: bytes) -> tuple[str, bytes]:
        self.fail("encode")
        return super().encode(plain, place, salt)

    def decode(self, key: str, sealed: bytes, place: bytes) -> bytes:
        self.fail("decode")
        return super().decode(key, sealed, place)

    def digest(self, key: str, data: bytes) -> bytes:
        self.fail("digest")
        return super().digest(key, data)

    def fail(self, verb: str) -> None:
        if verb in self.failing:
            self.failing.remove(verb)
            raise ConnectionError("the service of the keys is away")


@pytest.mark.parametrize("verb", ["encode", "decode", "digest"])
@pytest.mark.parametrize("kind", ["coordinator", "plain coordinator", "hook", "plain hook"])
def test_task_whose_codec_fails_is_given_back_and_completes(dsn: str, kind: str, verb: str) -> None:
    """An error of encode, decode or digest gives the task back for a while; it does not fail the
    job."""
    fails = Fails(verb)
    app = perdure.App(codec=fails)

    @app.activity
    def same(what: str) -> str:
        return what

    async def awaits(memory: perdure.AsyncEntity, what: str) -> str:
        try:
            return str(await same(what))  # type: ignore[misc]
        except perdure.ValueSealed:
            return "without it"

    def calls(memory: perdure.Entity, what: str) -> str:
        try:
            return same(what)
        except perdure.ValueSealed:
            return "without it"

    code = calls if kind.startswith("plain") else awaits
    with perdure.connect(dsn, codec=codec()) as client:
        if kind.endswith("hook"):
            hook = app.hook(name="code")(code)
            with perdure.Worker(app, dsn=dsn):
                handle = client.handle(client.create_entity("order", "thing", {}).id)
                assert handle.run_hook(hook, "sealed", timeout="20 s") == "sealed"
        else:
            workflow = app.coordinator(name="code")(code)
            with perdure.Worker(app, dsn=dsn):
                assert client.start(workflow, "sealed").result("20 s") == "sealed"
    assert not fails.failing


def test_hook_with_a_turn_on_its_way_is_given_back_after_it(dsn: str) -> None:
    """The release is not mistaken for a repetition of that turn, so the hook runs again long before
    its lease of an hour ends."""
    fails = Fails("nothing")
    app = perdure.App(codec=fails)
    tried: set[int] = set()

    @app.activity
    async def same(what: str) -> str:
        return what

    @app.hook
    async def begins_many(memory: perdure.AsyncEntity, ticks: int) -> str:
        begun = [asyncio.create_task(same(str(ticks))) for _ in range(2)]  # type: ignore[arg-type]
        for _ in range(ticks):
            await asyncio.sleep(0)
        if ticks not in tried:
            tried.add(ticks)
            fails.failing.add("digest")
        await memory.set(ticks, "ticks")
        return "".join(await asyncio.gather(*begun))

    with (
        perdure.connect(dsn, codec=codec()) as client,
        perdure.Worker(app, dsn=dsn, lease="1 h"),
    ):
        for ticks in range(12):
            handle = client.handle(client.create_entity(f"after {ticks}", "thing", {}).id)
            assert handle.run_hook(begins_many, ticks, timeout="20 s") == str(ticks) * 2
    assert len(tried) == 12
    assert "digest" not in fails.failing


@pytest.mark.parametrize("answer", [b"", b"seven  ", "text", None])
def test_digest_that_is_too_short_or_not_bytes_is_refused(dsn: str, answer: Any) -> None:
    """With such a digest, changed arguments would go unnoticed, or the code would fail at its next
    request."""

    class Vague(AesGcm):
        def digest(self, key: str, data: bytes) -> bytes:
            return answer  # type: ignore[no-any-return]

    app = perdure.App(codec=Vague({"old": OLD}, "old"))

    @app.coordinator
    async def runs(memory: perdure.AsyncEntity, what: str) -> str:
        await memory.set(what, "what")
        return what

    with perdure.connect(dsn, codec=codec()) as client, perdure.Worker(app, dsn=dsn):
        job = client.start(runs, "sealed")
        until = time.monotonic() + 20
        while "codec has failed" not in str(client.handle(job.id).status().waiting_for):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert client.entity(job.id).get() == {}


def test_task_whose_result_cannot_be_encrypted_is_given_back_at_once(dsn: str) -> None:
    """A coordinator with requests is given back too, long before its lease of an hour ends."""
    away = Away({"old": OLD}, "old")
    app = perdure.App(codec=away)
    runs: list[int] = []

    @app.activity
    async def charge(amount: int) -> int:
        runs.append(amount)
        away.is_away = len(runs) < 3
        return amount

    @app.coordinator
    async def pays(memory: perdure.AsyncEntity) -> int:
        return await charge(5)

    with (
        perdure.connect(dsn, codec=codec()) as client,
        perdure.Worker(app, dsn=dsn, lease="1 h"),
    ):
        assert client.start(pays).result("20 s") == 5
    assert runs == [5, 5, 5]
