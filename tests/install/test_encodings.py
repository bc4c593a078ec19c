"""perdure works in databases with other encodings than UTF8, within the characters they have."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

import perdure
from perdure.installation import script
from tests.databases import broken_invariants
from tests.servers import AnyServer

pytestmark = pytest.mark.direct("a pooler knows none of these databases")


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def encoded(server: AnyServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the connection string of a database in another encoding."""
    name = f"perdure_encoded_{os.getpid()}"
    with psycopg.connect(server.url(), autocommit=True) as admin:
        create = sql.SQL("create database {} template template0 encoding {} locale 'C'")
        admin.execute(create.format(sql.Identifier(name), request.param))
        yield server.url(name)
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def test_install_script_is_pure_ascii() -> None:
    """Otherwise it could not be installed in databases of some encodings."""
    assert [part.file for part in script.parts() if not part.text.isascii()] == []


def test_app_works_in_other_encodings(encoded: str) -> None:
    app = perdure.App()

    @app.coordinator(entity="greeting")
    async def greet(memory: perdure.AsyncEntity, name: str) -> str:
        await memory.set({"name": name})
        return f"Grüße, {name}"

    with perdure.connect(encoded) as client, perdure.Worker(app, dsn=encoded):
        assert client.start(greet, "Zoë", id="greet").result(timeout="20 s") == "Grüße, Zoë"
        assert [found.id for found in client.find("greeting", {"name": "Zoë"})] == ["greet"]
    assert broken_invariants(encoded) == []


@pytest.mark.parametrize("encoded", ["LATIN1"], indirect=True)
def test_character_outside_the_encoding_is_rejected_with_a_clear_error(encoded: str) -> None:
    """The error names the encoding, and differs from the one for a NUL character."""
    with perdure.connect(encoded) as client:
        note = client.create_entity("note", "note")
        with pytest.raises(perdure.InvalidValue, match="no such character") as refused:
            note.set({"city": "漢"})
        assert "LATIN1" in str(refused.value.detail)
        with pytest.raises(perdure.InvalidValue, match="no NUL character"):
            client.find("note", {}, order_by="a\0")
        assert note.get() == {}
