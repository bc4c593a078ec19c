"""A schema that others may create in is not taken: verbs would find what they plant (S11) (S13)."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from perdure.errors import SchemaOccupied
from perdure.installation.install import install
from tests.security.house import Connection, House


@pytest.fixture
def admin(house: House) -> Iterator[Connection]:
    """Give a superuser's connection; the schema that a test has made is dropped."""
    with psycopg.connect(house.url, autocommit=True) as admin:
        yield admin
        admin.execute("drop schema if exists laid cascade")


def test_a_schema_of_somebody_else_is_refused(house: House, admin: Connection) -> None:
    admin.execute(f"create schema laid authorization {house.role('nobody')}".encode())
    with pytest.raises(SchemaOccupied, match="would run as you") as refused:
        install(admin, "laid")
    assert house.role("nobody") in (refused.value.detail or "")
    admin.execute(f"alter schema laid owner to {house.role('owner')}".encode())
    with house.entered("owner") as owner:
        install(owner, "laid")


@pytest.mark.parametrize("whom", ["nobody", "public"])
def test_a_schema_that_is_open_to_others_is_refused(
    house: House, admin: Connection, whom: str
) -> None:
    role = sql.SQL("public") if whom == "public" else sql.Identifier(house.role(whom))
    admin.execute("create schema laid")
    admin.execute(sql.SQL("grant create on schema laid to {}").format(role))
    with pytest.raises(SchemaOccupied, match="would run as you"):
        install(admin, "laid")
    admin.execute(sql.SQL("revoke create on schema laid from {}").format(role))
    install(admin, "laid")
