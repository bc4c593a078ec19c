"""A codec of one's own: what it gives is an envelope, or is refused before it is stored."""

from __future__ import annotations

import pytest

import perdure
from perdure.codecs import AesGcm
from tests.codec.programs import OLD, codec


class Own:
    """A codec that gives what it was made with."""

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
def test_what_nobody_would_know_again_is_not_stored(dsn: str, key: str, data: bytes) -> None:
    """It was, and read as the text that it is."""
    with perdure.connect(dsn, codec=Own(key, data)) as client:
        order = client.create_entity("order", "thing", {"n": 0})
        with pytest.raises(perdure.InvalidValue, match="no envelope"):
            order.set("secret", "notes")
    with perdure.connect(dsn) as plain:
        assert plain.entity("order").get() == {"n": 0}


class Away(AesGcm):
    """A codec whose service is away for a while, with an error of its own."""

    is_away = False

    def encode(self, plain: bytes, place: bytes, salt: bytes) -> tuple[str, bytes]:
        if self.is_away:
            self.is_away = False
            raise ConnectionError("the service of the keys is away")
        return super().encode(plain, place, salt)


def test_an_attempt_that_cannot_publish_fails(dsn: str) -> None:
    """It waited for ever for what nobody sent any more."""
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


@pytest.mark.parametrize("kind", ["coordinator", "hook"])
def test_a_worker_outlasts_a_codec_that_fails(dsn: str, kind: str) -> None:
    """Whatever it raises, to open and to seal: what it was for is given back for a while."""
    failing = {"encode", "decode"}

    class Fails(AesGcm):
        def encode(self, plain: bytes, place: bytes, salt: bytes) -> tuple[str, bytes]:
            self.fail("encode")
            return super().encode(plain, place, salt)

        def decode(self, key: str, sealed: bytes, place: bytes) -> bytes:
            self.fail("decode")
            return super().decode(key, sealed, place)

        def fail(self, what: str) -> None:
            if what in failing:
                failing.remove(what)
                raise ConnectionError("the service of the keys is away")

    app = perdure.App(codec=Fails({"old": OLD}, "old"))

    @app.coordinator
    async def runs(memory: perdure.AsyncEntity, what: str) -> str:
        return what

    @app.hook
    async def answers(memory: perdure.AsyncEntity, what: str) -> str:
        return what

    with perdure.connect(dsn, codec=codec()) as client, perdure.Worker(app, dsn=dsn):
        if kind == "hook":
            entity = client.create_entity("order", "thing", {})
            assert client.handle(entity.id).run_hook(answers, "sealed", timeout="20 s") == "sealed"
        else:
            assert client.start(runs, "sealed").result("20 s") == "sealed"
    assert not failing


def test_what_could_not_be_sealed_is_given_back_at_once(dsn: str) -> None:
    """Also by a coordinator that has asked for something: nobody waits for the end of its lease."""
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
