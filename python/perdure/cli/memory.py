"""The commands of the command line for memories: each calls one verb of the client."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from perdure.basics.durations import seconds

from .terminal import DEFAULT, Dsn, Id, Schema, client, commands, moment, parsed, show, show_each

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


@commands.command()
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


@commands.command()
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


@commands.command()
def stream(
    id: Id,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the stream.")],
    after: Annotated[int, typer.Option(metavar="VERSION", help="Begin after this version.")] = 0,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Print the items of a stream as they arrive, a line of JSON each, to its end or Ctrl-C."""
    with client(dsn, schema) as opened, suppress(KeyboardInterrupt):
        show_each(opened.handle(id).stream(name, after=after))


@commands.command()
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


@commands.command()
def blame(id: Id, path: Place = "", schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Print who wrote each value in a memory, a line of JSON for each value."""
    with client(dsn, schema) as opened:
        show_each(opened.entity(id).blame(path))


@commands.command()
def restore(id: Id, version: Version, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Make a memory again what it was at a version; print the new version."""
    with client(dsn, schema) as opened:
        show(opened.entity(id).restore(version))


@commands.command()
def forget(id: Id, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Delete a finished job or an entity with its history; print whether it existed."""
    with client(dsn, schema) as opened:
        show(opened.forget(id))


@commands.command()
def forget_finished(
    older_than: Annotated[
        str, typer.Argument(metavar="AGE", help='Delete jobs that finished longer ago: "90 days".')
    ],
    entity: Annotated[str | None, typer.Option(help="Only jobs of this entity.")] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Delete jobs that finished long ago, with their histories; print how many."""
    before = datetime.now(UTC) - timedelta(seconds=seconds(older_than))
    with client(dsn, schema) as opened:
        show(sum(iter(lambda: opened.forget_finished(before, entity=entity), 0)))


@commands.command()
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
