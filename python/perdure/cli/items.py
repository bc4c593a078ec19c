"""The commands of the command line for items: what jobs ask of people."""

from __future__ import annotations

from typing import Annotated

import typer

from .terminal import DEFAULT, Dsn, Json, Schema, client, commands, parsed, show, show_each

ItemId = Annotated[str, typer.Argument(metavar="ITEM", help="The id of the item.")]


@commands.command()
def items(
    assignee: Annotated[str | None, typer.Option(help="For whom they are meant.")] = None,
    name: Annotated[str | None, typer.Option(help="What is to be done.")] = None,
    status: Annotated[
        str, typer.Option(help="open, or only unclaimed, claimed or resolved.")
    ] = "open",
    limit: Annotated[int, typer.Option(help="How many, at most 1000.")] = 100,
    after: Annotated[
        str | None, typer.Option(metavar="JSON", help="The place of the last row before.")
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Print what jobs ask of people, most urgent first, a line of JSON each."""
    asked = {"assignee": assignee, "name": name, "status": status, "limit": limit}
    asked |= {"after": parsed(after)}
    with client(dsn, schema) as opened:
        show_each(opened.items(**asked))


@commands.command()
def resolve(
    item: ItemId,
    resolution: Json = None,
    by: Annotated[str | None, typer.Option(help="Who resolves it.")] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Answer what a job asks of people; the job goes on with that."""
    answer = parsed(resolution)
    with client(dsn, schema) as opened:
        show(opened.item(item).resolve(answer, by=by))
