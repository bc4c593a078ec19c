"""Servers for the tests: embedded, in Docker, or already running. `--postgres` chooses."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from perdure.embedded.server import Server

_numbers = itertools.count(1)

EMBEDDED_SETTINGS = {"max_connections": "200", "log_min_messages": "fatal"}

SILENCE = """
create or replace function perdure.notify_listeners(topics text[]) returns void
language sql
begin atomic
end
"""
"""Keeps the app `perdure` from sending notifications."""


class AnyServer(Protocol):
    """What the tests need of a server."""

    def url(self, dbname: str = "postgres") -> str:
        """Return the connection string of a database."""
        ...


@dataclass(frozen=True)
class RunningServer:
    """A server that already runs, known by the connection string of one of its databases."""

    dsn: str

    def url(self, dbname: str = "") -> str:
        """Return the connection string of a database, or the given one without a name."""
        return make_conninfo(self.dsn, dbname=dbname) if dbname else self.dsn


@contextmanager
def opened(where: str) -> Iterator[AnyServer]:
    """Open `embedded`, `docker:16` (or `docker:image:tag`) or `url:postgresql://…`."""
    kind, _, rest = where.partition(":")
    match kind:
        case "embedded":
            with Server(settings=EMBEDDED_SETTINGS) as server:
                yield server
        case "docker":
            with container(rest or "18") as server:
                yield server
        case "url":
            yield RunningServer(rest)
        case _:
            raise ValueError(f"--postgres is embedded, docker:TAG or url:DSN, not {where!r}")


@contextmanager
def container(image: str) -> Iterator[RunningServer]:
    """Run a server in Docker: `container("16")`, `container("citusdata/citus:13")`."""
    try:
        from testcontainers.community.postgres import PostgresContainer
    except ImportError:  # older releases
        from testcontainers.postgres import PostgresContainer
    named = image if ":" in image or "/" in image else f"postgres:{image}"
    with PostgresContainer(named, driver=None) as running:
        yield RunningServer(running.get_connection_url())


@contextmanager
def database_of(
    server: AnyServer, purpose: str, template: str = "template0", app: str = "perdure"
) -> Iterator[str]:
    """Create a database in which PL/pgSQL's extra checks are errors, and drop it afterwards. The
    app in a template is adopted, because the new database holds a copy of it."""
    name = f"perdure_{purpose}_{os.getpid()}_{next(_numbers)}"
    database, source = sql.Identifier(name), sql.Identifier(template)
    with psycopg.connect(server.url(), autocommit=True) as admin:
        create = sql.SQL("create database {} template {} strategy file_copy")
        admin.execute(create.format(database, source))
        strict = sql.SQL("alter database {} set plpgsql.extra_errors = 'all'")
        admin.execute(strict.format(database))
        if template != "template0":
            adopt(server.url(name), app)
        try:
            yield name
        finally:
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(database))


def adopt(dsn: str, app: str = "perdure") -> None:
    """Allow an app to execute in a database that was copied from another one."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("select {}.adopt_instance()").format(sql.Identifier(app)))
