"""The commands of the command line that keep work from workers: queues, pauses of jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from .terminal import DEFAULT, Dsn, Id, Schema, client, commands, show, show_each

queue = typer.Typer(name="queue", help="Limits and pauses of queues.", no_args_is_help=True)

Queue = Annotated[str, typer.Argument(metavar="QUEUE", help="The name of the queue.")]


@commands.command()
def pause(id: Id, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Keep the tasks of a job from workers; print whether that is new."""
    with client(dsn, schema) as opened:
        show(opened.handle(id).pause())


@commands.command()
def resume(
    id: Id,
    task: Annotated[str | None, typer.Option(help="One that is stuck, alone.")] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Let replay take changed arguments.")
    ] = False,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Let a job go on that was paused or is stuck; print how many of its tasks do."""
    with client(dsn, schema) as opened:
        show(opened.handle(id).resume(task, accept_changes=accept_changes))


@queue.command("list")
def list_queues(
    queue: Annotated[str | None, typer.Argument(metavar="QUEUE", help="One alone.")] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Print how much work each queue has, and its limits, a line of JSON each."""
    with client(dsn, schema) as opened:
        show_each(opened.queue_depths(queue))


@queue.command("set")
def set_queue(
    queue: Queue,
    max_running: Annotated[int | None, typer.Option(help="Tasks that run at a time.")] = None,
    max_per_key: Annotated[int | None, typer.Option(help="… with the same limit key.")] = None,
    rate: Annotated[float | None, typer.Option(help="Turns that begin each second.")] = None,
    burst: Annotated[float | None, typer.Option(help="… at once, after a calm.")] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Set the limits of a queue; what is left out is not limited."""
    with client(dsn, schema, begins=True) as opened:
        opened.set_queue(
            queue,
            max_running=max_running,
            max_per_key=max_per_key,
            rate_per_second=rate,
            burst=burst,
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
