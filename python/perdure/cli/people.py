"""The commands of the command line for items: what jobs ask of people."""

from __future__ import annotations

from typing import Annotated

import typer

from .terminal import DEFAULT, Dsn, Json, Schema, client, job_command, parsed, show, show_each

ItemId = Annotated[str, typer.Argument(metavar="ITEM", help="The id of the item.")]


@job_command()
def items(
    assignee: Annotated[
        str | None, typer.Option(help="Only items for this person or group.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only items with this name.")] = None,
    job: Annotated[str | None, typer.Option(help="Only items of this job.")] = None,
    status: Annotated[str, typer.Option(help="open, unclaimed, claimed or resolved.")] = "open",
    limit: Annotated[int, typer.Option(help="How many (1000 at most).")] = 100,
    after: Annotated[
        str | None, typer.Option(metavar="JSON", help="Next page: the place of the last row.")
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Print items (what jobs ask of people), most urgent first, a line of JSON each."""
    asked = {"assignee": assignee, "name": name, "job": job, "status": status, "limit": limit}
    asked |= {"after": parsed(after)}
    with client(dsn, schema) as opened:
        show_each(opened.items(**asked))


@job_command()
def resolve(
    item: ItemId,
    resolution: Json = None,
    by: Annotated[str | None, typer.Option(help="The person who resolves it.")] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Resolve an item; the job continues with the resolution."""
    answer = parsed(resolution)
    with client(dsn, schema) as opened:
        show(opened.item(item).resolve(answer, by=by))
