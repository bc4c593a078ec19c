"""The commands of the command line for hooks in SQL: each calls one verb of the client."""

from __future__ import annotations

from typing import Annotated

import typer

from .terminal import DEFAULT, Dsn, Schema, client, show, show_each

hook = typer.Typer(
    name="hook", help="Register functions of the database as hooks.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the hook.")]


@hook.command("list")
def list_sql_hooks(schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Print the hooks in SQL with their functions and retries, a line of JSON each."""
    with client(dsn, schema) as opened:
        show_each(opened.sql_hooks())


@hook.command("register")
def register_sql_hook(
    name: Name,
    function: Annotated[
        str, typer.Argument(metavar="FUNCTION", help="A function (text, jsonb): my_app.recount")
    ],
    attempts: Annotated[int, typer.Option(help="How often it may run if it fails.")] = 1,
    retry_in: Annotated[
        str, typer.Option(help='The first pause, which doubles each time: "5 s".')
    ] = "1 s",
    timeout: Annotated[str | None, typer.Option(help="How long an attempt may take.")] = None,
    within: Annotated[str | None, typer.Option(help="How long all attempts may take.")] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Register a function of the database as a hook, or change its retries and limits."""
    with client(dsn, schema, begins=True) as opened:
        opened.register_sql_hook(
            name, function, attempts=attempts, retry_in=retry_in, timeout=timeout, within=within
        )


@hook.command("drop")
def drop_sql_hook(name: Name, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Stop using a function as a hook; print whether it was one."""
    with client(dsn, schema) as opened:
        show(opened.drop_sql_hook(name))
