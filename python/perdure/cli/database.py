"""The commands of the command line for the database that an app is in."""

from __future__ import annotations

import os
import shutil
import signal as signals
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Annotated

import typer
from psycopg.conninfo import make_conninfo

from perdure.database.source import parameters_of
from perdure.embedded import binaries
from perdure.embedded import server as embedded
from perdure.errors import ServerUnavailable
from perdure.installation import install as installer

from .terminal import DEFAULT, Dsn, Schema, connected, database, database_command


@database_command(context_settings={"ignore_unknown_options": True})
def psql(
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OPTIONS OF PSQL", help="For example: -c 'select 1', or -f a_file.sql."
        ),
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Open psql with the app, and then public, in the search path."""
    with database(dsn) as url:
        with connected(url, schema):
            pass
        program = shutil.which("psql") or own_psql()
        if program is None:
            sys.exit(f"There is no psql here. The database is at:\n{url}")
        path = f"search_path={quoted_option(schema)},public"  # for tables and extensions there
        options = f"{os.environ.get('PGOPTIONS', '')} -c {path}"
        parameters = parameters_of(url)
        variables = {"PGOPTIONS": options}
        if password := parameters.pop("password", None):  # arguments are shown to all on a machine
            variables["PGPASSWORD"] = password
        call = [program, "--dbname", make_conninfo(**parameters), *(given or ())]
        # Ctrl-C is for psql: it ends a statement there, or a line.
        before = signals.signal(signals.SIGINT, lambda *_: None)
        try:
            asked = subprocess.run(call, env=os.environ | variables, check=False)
        finally:
            signals.signal(signals.SIGINT, before)
    raise typer.Exit(asked.returncode)


@database_command()
def url(dsn: Dsn = None) -> None:
    """Print the URL of the database.

    The embedded server runs only while a process of perdure, such as `perdure serve`, or a
    statement uses it.
    """
    with database(dsn) as found:
        print(found)


@database_command()
def serve() -> None:
    """Print the URL of the embedded server, and keep it running until Ctrl-C."""
    with embedded.shared_server() as server:
        print(server.url(), flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


@database_command(hidden=True)
def dev(schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Reload the functions of an app from the source; tables and rows stay."""
    with connected(dsn) as connection:
        installer.install(connection, schema)
        print(f"{installer.reload_functions(connection, schema)} functions")


def own_psql() -> str | None:
    """Find the psql that comes with the embedded server."""
    with suppress(ServerUnavailable):
        if (found := binaries.find() / "psql").exists():
            return os.fspath(found)
    return None


def quoted_option(schema: str) -> str:
    """Quote a schema for PGOPTIONS, where a blank or a backslash wants a backslash before it."""
    identifier = '"' + schema.replace('"', '""') + '"'
    return identifier.replace("\\", "\\\\").replace(" ", "\\ ")
