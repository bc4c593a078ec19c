"""An app installed as it should be where roles have different rights: an ordinary role owns it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from perdure.installation.install import install
from tests.servers import AnyServer

Connection = psycopg.Connection[Any]

KINDS = ("worker", "client", "operator", "reader", "monitor")
LIMITED = ("a", "b")
"""The queues of the role `limited`."""

_numbers = count(1)


@dataclass(frozen=True)
class SecuredApp:
    """A database with an app, and roles that can connect: owner, nobody, limited and the kinds."""

    url: str
    prefix: str
    stack: ExitStack

    def role(self, name: str) -> str:
        """Return the server's name of a role."""
        return f"{self.prefix}_{name}"

    def dsn(self, name: str) -> str:
        """Return the connection string of a role."""
        return make_conninfo(self.url, user=self.role(name), password=self.prefix)

    @contextmanager
    def connected(self, name: str, schema: str = "perdure") -> Iterator[Connection]:
        """Connect as a role: autocommit, with the app in the search path."""
        with psycopg.connect(self.dsn(name), autocommit=True) as connection:
            connection.execute(f"set search_path = pg_catalog, {schema}".encode())
            yield connection

    def add_role(self, name: str) -> str:
        """Create one more role that can connect."""
        with psycopg.connect(self.url, autocommit=True) as admin:
            make = sql.SQL("create role {} login password {}")
            admin.execute(make.format(sql.Identifier(self.role(name)), self.prefix))
        self.stack.callback(self.drop_role, name)
        return self.role(name)

    def drop_role(self, name: str) -> None:
        """Drop a role with everything it has in this database."""
        with psycopg.connect(self.url, autocommit=True) as admin:
            role = sql.Identifier(self.role(name))
            admin.execute(sql.SQL("drop owned by {0} cascade; drop role {0}").format(role))


@contextmanager
def secured_app(server: AnyServer) -> Iterator[SecuredApp]:
    """Create the database, its app and its roles; drop them at the end."""
    name = f"perdure_house_{os.getpid()}_{next(_numbers)}"
    database = sql.Identifier(name)
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("create database {} template template0").format(database))
        admin.execute(
            sql.SQL("alter database {} set plpgsql.extra_errors = 'all'").format(database)
        )
        try:
            with ExitStack() as stack:
                secured = SecuredApp(server.url(name), name, stack)
                for role in ("owner", "nobody", "limited", *KINDS):
                    secured.add_role(role)
                owner = sql.Identifier(secured.role("owner"))
                admin.execute(sql.SQL("grant create on database {} to {}").format(database, owner))
                with secured.connected("owner") as connection:
                    install(connection, "perdure")
                    grant = "select grant_access(%s, %s, %s)"
                    for kind in KINDS:
                        connection.execute(grant, [secured.role(kind), kind, None])
                    connection.execute(grant, [secured.role("limited"), "worker", list(LIMITED)])
                yield secured
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(database))
