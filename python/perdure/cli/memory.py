"""The commands of the command line for memories: each calls one verb of the client."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from .terminal import (
    DEFAULT,
    Dsn,
    Id,
    Schema,
    client,
    memory_command,
    moment,
    parsed,
    show,
    show_each,
)

index = typer.Typer(
    name="index", help="Create, drop and list indexes on memories.", no_args_is_help=True
)

Place = Annotated[str, typer.Argument(metavar="PATH", help="A path in the memory: user.email")]
Version = Annotated[int, typer.Argument(metavar="VERSION", help="A version of the memory.")]
Entity = Annotated[str, typer.Argument(metavar="ENTITY", help="The type of the memories.")]
IndexedPath = Annotated[
    str, typer.Argument(metavar="PATH", help="A path in the memories: user.email")
]
Kind = Annotated[
    str,
    typer.Argument(
        metavar="KIND", help="text, number, boolean, time, contains, search or vector(N)."
    ),
]


@memory_command()
def memory(
    id: Id,
    path: Place = "",
    version: Annotated[int | None, typer.Option(help="Print it as of this version.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Print it as of 2030-01-31T12:00:00Z")
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Print the memory of a job, or a part of it, as it is or was."""
    time = moment(at)
    with client(dsn, schema) as opened:
        found = opened.entity(id)
        if version is None and time is None:
            show(found.get(path))
        else:
            show(found.at(version, time=time, path=path))


@memory_command()
def history(
    id: Id,
    path: Place = "",
    after: Annotated[int, typer.Option(metavar="VERSION", help="Begin after this version.")] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new changes until Ctrl-C.")
    ] = False,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Print the changes of a memory, or at a path, oldest first, a line of JSON each."""
    with client(dsn, schema) as opened, suppress(KeyboardInterrupt):
        show_each(opened.entity(id).watch(path, after=after, timeout=None if follow else 0))


@memory_command()
def diff(
    id: Id,
    version: Version,
    to_version: Annotated[
        int | None, typer.Argument(metavar="VERSION", help="Another version. Default: now.")
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Print where a memory differs between versions, a line of JSON for each place."""
    with client(dsn, schema) as opened:
        show_each(opened.entity(id).diff(version, to_version))


@memory_command()
def blame(id: Id, path: Place = "", schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Print who wrote each value in a memory, a line of JSON for each value."""
    with client(dsn, schema) as opened:
        show_each(opened.entity(id).blame(path))


@memory_command()
def restore(id: Id, version: Version, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Make a memory again what it was at a version; print the new version."""
    with client(dsn, schema) as opened:
        show(opened.entity(id).restore(version))


@memory_command()
def find(
    entity: Entity,
    where: Annotated[str, typer.Option(metavar="JSON", help="Conditions on memories.")] = "{}",
    order: Annotated[
        str, typer.Option(metavar="JSON", help='An array of paths: ["-$created_at"]')
    ] = "[]",
    limit: Annotated[int, typer.Option(help="How many (1000 at most).")] = 100,
    after: Annotated[
        str | None, typer.Option(metavar="JSON", help="Next page: the place of the last row.")
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Print the memories of an entity that meet conditions, a line of JSON each."""
    asked = {"order_by": parsed(order), "limit": limit, "after": parsed(after)}
    conditions = parsed(where)
    with client(dsn, schema) as opened:
        show_each(opened.find(entity, conditions, **asked))


@index.command("create")
def create_index(
    entity: Entity,
    path: IndexedPath,
    kind: Kind = "text",
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Create an index that find uses, without blocking writers; may be repeated."""
    with client(dsn, schema, begins=True) as opened:
        show(opened.create_index(entity, path, kind))


@index.command("drop")
def drop_index(
    entity: Entity,
    path: IndexedPath,
    kind: Kind = "text",
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Drop an index, without blocking writers; print whether it existed."""
    with client(dsn, schema) as opened:
        show(opened.drop_index(entity, path, kind))


@index.command("list")
def list_indexes(schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Print the indexes with their state, size and use, a line of JSON each."""
    with client(dsn, schema) as opened:
        show_each(opened.indexes())
