"""The commands of the command line for schedules: each calls one verb of the client."""

from __future__ import annotations

from typing import Annotated

import typer

from .terminal import (
    DEFAULT,
    AppOfWorkflow,
    Dsn,
    Schema,
    Workflow,
    arguments_of,
    as_usage_errors,
    client,
    moment,
    show,
    show_each,
    workflow_of,
)

schedule = typer.Typer(
    name="schedule", help="Start workflows at given times.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the schedule.")]


@schedule.command("create")
def create_schedule(
    workflow: Workflow,
    cron: Annotated[
        str | None, typer.Argument(metavar="CRON", help='When: "0 9 * * mon-fri", @hourly.')
    ] = None,
    every: Annotated[
        str | None, typer.Option(help='An interval instead of CRON: "15 min", "1 day".')
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The name of the schedule. Default: that of the workflow.")
    ] = None,
    app: AppOfWorkflow = None,
    args: Annotated[
        str, typer.Option(metavar="JSON", help="The arguments: an array, or an object (by name).")
    ] = "[]",
    time_zone: Annotated[str, typer.Option(help="The time zone of CRON, days and months.")] = "UTC",
    catch_up: Annotated[
        str, typer.Option(help="Which missed due times get a job: none, last or all.")
    ] = "last",
    overlap: Annotated[
        str, typer.Option(help="While a job of it runs: allow another, or skip.")
    ] = "allow",
    queue: Annotated[str | None, typer.Option(help="The queue of the coordinator.")] = None,
    entity: Annotated[str | None, typer.Option(help="The type of the memories.")] = None,
    version: Annotated[
        str | None, typer.Option(help="Pin its jobs to this version of the code.")
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Create or change a schedule; print when it is due next."""
    timing = {"every": every, "time_zone": time_zone, "catch_up": catch_up, "overlap": overlap}
    options = {"name": name, "queue": queue, "entity": entity, "pinned_version": version}
    known = {name: value for name, value in options.items() if value is not None}
    started, given = workflow_of(workflow, app), arguments_of(args)
    with client(dsn, schema, begins=True, code=app) as opened, as_usage_errors():
        show(opened.create_schedule(started, cron, args=given, **timing, **known))


@schedule.command("list")
def list_schedules(schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Print the schedules with their next due times, a line of JSON each."""
    with client(dsn, schema) as opened:
        show_each(opened.schedules())


@schedule.command("pause")
def pause_schedule(name: Name, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Let a schedule start nothing until it is resumed."""
    with client(dsn, schema) as opened:
        show(opened.pause_schedule(name))


@schedule.command("resume")
def resume_schedule(name: Name, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Resume a schedule that is paused or stuck."""
    with client(dsn, schema) as opened:
        show(opened.resume_schedule(name))


@schedule.command("trigger")
def trigger_schedule(
    name: Name,
    key: Annotated[str | None, typer.Option(help="The same key starts once.")] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Start the job of a schedule now, and print its id."""
    with client(dsn, schema) as opened:
        print(opened.trigger_schedule(name, key=key).id)


@schedule.command("backfill")
def backfill_schedule(
    name: Name,
    since: Annotated[str, typer.Option(metavar="TIME", help="The first due time.")],
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="All are before this. Default: now.")
    ] = None,
    priority: Annotated[
        int, typer.Option(help="0 is first. Default: all other work goes first.")
    ] = 9,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Start the jobs of past due times, and print how many there are, and how many are new."""
    first, end = moment(since), moment(until)
    with client(dsn, schema) as opened:
        jobs = opened.backfill_schedule(name, first, end, priority=priority)
        show({"jobs": len(jobs), "new": sum(bool(job.is_new) for job in jobs)})


@schedule.command("drop")
def drop_schedule(name: Name, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Delete a schedule; its jobs stay."""
    with client(dsn, schema) as opened:
        show(opened.drop_schedule(name))
