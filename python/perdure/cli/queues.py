"""The commands of the command line that keep work from workers: queues, pauses of jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from .terminal import DEFAULT, Dsn, Schema, client, show, show_each

queue = typer.Typer(name="queue", help="Limit and pause queues.", no_args_is_help=True)

Queue = Annotated[str, typer.Argument(metavar="QUEUE", help="The name of the queue.")]


@queue.command("list")
def list_queues(
    queue: Annotated[str | None, typer.Argument(metavar="QUEUE", help="Only this queue.")] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Print the tasks and limits of each queue, a line of JSON each."""
    with client(dsn, schema) as opened:
        show_each(opened.queue_depths(queue))


@queue.command("set")
def set_queue(
    queue: Queue,
    max_running: Annotated[
        int | None, typer.Option(help="How many tasks may run at a time.")
    ] = None,
    max_per_key: Annotated[
        int | None, typer.Option(help="How many may run at a time for each limit key.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="How many turns may begin each second.")
    ] = None,
    burst: Annotated[
        float | None, typer.Option(help="How many turns may begin at once after a calm.")
    ] = None,
    rate_per_key: Annotated[
        float | None, typer.Option(help="How many may begin each second for each limit key.")
    ] = None,
    burst_per_key: Annotated[
        float | None, typer.Option(help="How many of a key may begin at once after a calm.")
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Set the limits of a queue. A limit that you leave out is removed."""
    with client(dsn, schema, begins=True) as opened:
        opened.set_queue(
            queue,
            max_running=max_running,
            max_per_key=max_per_key,
            rate_per_second=rate,
            burst=burst,
            rate_per_key=rate_per_key,
            burst_per_key=burst_per_key,
        )


@queue.command("pause")
def pause_queue(queue: Queue, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Keep the tasks of a queue from workers; print whether that is new."""
    with client(dsn, schema) as opened:
        show(opened.pause_queue(queue))


@queue.command("resume")
def resume_queue(queue: Queue, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Give the tasks of a queue to workers again; print whether that is new."""
    with client(dsn, schema) as opened:
        show(opened.resume_queue(queue))
