"""A schema in which others may create objects is rejected: verbs would find what they plant (S11)
(S13)."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from perdure.errors import SchemaOccupied
from perdure.installation.install import install
from tests.security.secured import Connection, SecuredApp


@pytest.fixture
def admin(secured: SecuredApp) -> Iterator[Connection]:
    """Give a superuser's connection; the schema that a test creates is dropped."""
    with psycopg.connect(secured.url, autocommit=True) as admin:
        yield admin
        admin.execute("drop schema if exists laid cascade")


def test_schema_of_another_role_is_rejected(secured: SecuredApp, admin: Connection) -> None:
    admin.execute(f"create schema laid authorization {secured.role('nobody')}".encode())
    with pytest.raises(SchemaOccupied, match="would run as you") as refused:
        install(admin, "laid")
    assert secured.role("nobody") in (refused.value.detail or "")
    admin.execute(f"alter schema laid owner to {secured.role('owner')}".encode())
    with secured.connected("owner") as owner:
        install(owner, "laid")


@pytest.mark.parametrize("grantee", ["nobody", "public"])
def test_schema_in_which_others_may_create_is_rejected(
    secured: SecuredApp, admin: Connection, grantee: str
) -> None:
    role = sql.SQL("public") if grantee == "public" else sql.Identifier(secured.role(grantee))
    admin.execute("create schema laid")
    admin.execute(sql.SQL("grant create on schema laid to {}").format(role))
    with pytest.raises(SchemaOccupied, match="would run as you"):
        install(admin, "laid")
    admin.execute(sql.SQL("revoke create on schema laid from {}").format(role))
    install(admin, "laid")
