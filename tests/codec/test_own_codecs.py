"""A codec of one's own: what it gives is an envelope, or is refused before it is stored."""

from __future__ import annotations

import pytest

import perdure
from tests.codec.programs import codec


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
