"""The commands of the command line for jobs: each calls one verb of the client."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import typer

from .terminal import (
    DEFAULT,
    AppOfWorkflow,
    Dsn,
    Id,
    Json,
    Schema,
    Workflow,
    arguments_of,
    as_usage_errors,
    client,
    job_command,
    moment,
    parsed,
    printable,
    show,
    show_each,
    workflow_of,
)

Arguments = Annotated[
    str,
    typer.Argument(
        metavar="JSON", help="Its arguments: an array, an object (by name), or one other value."
    ),
]


@job_command()
def start(
    workflow: Workflow,
    arguments: Arguments = "[]",
    id: Annotated[str | None, typer.Option("--id", help="The id of the job.")] = None,
    if_exists: Annotated[
        str | None, typer.Option(help="If the id is taken: error, existing or new_run.")
    ] = None,
    app: AppOfWorkflow = None,
    entity: Annotated[str | None, typer.Option(help="The type of its memory.")] = None,
    context: Annotated[
        str | None, typer.Option(metavar="JSON", help="The first content of its memory.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="The queue of its coordinator.")] = None,
    priority: Annotated[int | None, typer.Option(help="From 0 (first) to 9 (last).")] = None,
    due_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="When the job may begin.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Pin the job to this version of the code.")
    ] = None,
    timeout: Annotated[str | None, typer.Option(help='How long the job may take: "2 h".')] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Start a workflow and print the id of its job.

    Without --app the options of its decorator (entity, queue ...) are not known: give them here.
    """
    args = arguments_of(arguments)
    options = {"id": id, "if_exists": if_exists, "entity": entity, "context": parsed(context)}
    options |= {"queue": queue, "priority": priority, "due_at": moment(due_at)}
    options |= {"pinned_version": version, "timeout": timeout}
    given = {name: value for name, value in options.items() if value is not None}
    known = workflow_of(workflow, app)
    with client(dsn, schema, begins=True, code=app) as opened, as_usage_errors():
        print(_started(opened, known, args or [], given).id)


def _started(opened: Any, workflow: Any, args: Any, options: dict[str, Any]) -> Any:
    if isinstance(args, dict):  # its names may be those of options
        (handle,) = opened.start_many(workflow, [options | {"args": args}])
        return handle
    return opened.start(workflow, *args, **options)


@job_command()
def status(id: Id, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Print the state of a job and what it waits for."""
    with client(dsn, schema) as opened:
        show(opened.handle(id).status())


@job_command()
def result(
    id: Id,
    timeout: Annotated[str | None, typer.Option(help='How long to wait: "90 s", "2 h".')] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Wait for a job to end and print its result."""
    with client(dsn, schema) as opened:
        show(opened.handle(id).result(timeout=timeout))


@job_command()
def signal(
    id: Id,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the signal.")],
    payload: Json = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Send a signal to a job."""
    sent = parsed(payload)
    with client(dsn, schema) as opened:
        opened.handle(id).signal(name, sent)


@job_command()
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


@job_command()
def jobs(
    workflow: Annotated[str | None, typer.Option(help="Only jobs of this workflow.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Only running, completed, failed or cancelled jobs.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only jobs started at or after this time.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Only jobs started before. Next page: created_at of the last."
        ),
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="JOB", help="Next page: the id of the last job.")
    ] = None,
    limit: Annotated[int, typer.Option(help="How many (1000 at most).")] = 100,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Print jobs, newest first, a line of JSON each."""
    times = {"since": moment(since), "until": moment(until)}
    with client(dsn, schema) as opened:
        listed = opened.jobs(workflow=workflow, status=status, after=after, limit=limit, **times)
        show_each(listed)


@job_command()
def family(id: Id, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Print a job and all its descendants, a line each."""
    with client(dsn, schema) as opened:
        for each in opened.handle(id).family():
            print(printable(f"{'  ' * each.depth}{each.id}  {each.workflow}  {each.status}"))


@job_command()
def timeline(id: Id, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Print all that belongs to a job but its memory, a line of JSON each."""
    with client(dsn, schema) as opened:
        show_each(opened.handle(id).timeline())


@job_command()
def cancel(
    id: Id,
    reason: Annotated[str | None, typer.Option(help="The reason; the job sees it.")] = None,
    hook: Annotated[
        str | None, typer.Option(metavar="TASK", help="Cancel only this hook: $hook/tidy")
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Ask a job, or one of its hooks, to cancel; print whether that is new. It may clean up."""
    with client(dsn, schema) as opened:
        handle = opened.handle(id)
        show(handle.cancel(reason) if hook is None else handle.cancel_hook(hook, reason))


@job_command()
def terminate(
    id: Id,
    reason: Annotated[
        str | None, typer.Option(help="The reason; it becomes the error of the job.")
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """End a job at once, without cleaning up; print whether it ran."""
    with client(dsn, schema) as opened:
        show(opened.handle(id).terminate(reason))


@job_command()
def pause(id: Id, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Keep the tasks of a job from workers; print whether that is new."""
    with client(dsn, schema) as opened:
        show(opened.handle(id).pause())


@job_command()
def resume(
    id: Id,
    task: Annotated[str | None, typer.Option(help="Resume only this stuck task.")] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Let replay accept changed arguments.")
    ] = False,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Resume a job that is paused or stuck; print how many tasks continue."""
    with client(dsn, schema) as opened:
        show(opened.handle(id).resume(task, accept_changes=accept_changes))


@job_command()
def retry(
    id: Id,
    arguments: Annotated[
        str | None,
        typer.Argument(
            metavar="JSON", help="New arguments: an array, an object (by name), or one other value."
        ),
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help='How long the new run may take: "2 h".')
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Run a failed or cancelled job again; print whether it runs."""
    args = arguments_of(arguments)
    with client(dsn, schema) as opened:
        show(opened.handle(id).retry(args, timeout=timeout))


@job_command()
def fork(
    id: Id,
    new_id: Annotated[str | None, typer.Option("--id", help="The id of the new job.")] = None,
    at: Annotated[int | None, typer.Option(help="How many facts it is told. Default: all.")] = None,
    context: Annotated[str | None, typer.Option(metavar="JSON", help="Another memory.")] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Start a job from a place in the journal of another, and print its id."""
    memory = parsed(context)
    with client(dsn, schema) as opened:
        print(opened.fork(id, new_id, at=at, context=memory).id)


@job_command()
def repin(
    id: Id,
    version: Annotated[
        str | None,
        typer.Argument(metavar="VERSION", help="The new version; none to unpin the job."),
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Pin a job to another version of the code, and print how many tasks moved."""
    with client(dsn, schema) as opened:
        show(opened.handle(id).repin(version))
