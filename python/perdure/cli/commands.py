"""The commands of the command line that no other module has: each a few lines of the client."""

from __future__ import annotations

import logging
import os
import shutil
import signal as signals
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Annotated, Any

import typer

from perdure.database.calls import Calls, send
from perdure.embedded import binaries
from perdure.embedded import server as embedded
from perdure.errors import ServerUnavailable
from perdure.installation import install as installer

from . import items as item_commands
from .hooks import hook
from .memory import index
from .queues import queue
from .replay import replay
from .schedules import schedule
from .terminal import (
    DEFAULT,
    Dsn,
    Id,
    Json,
    Schema,
    Workflow,
    client,
    commands,
    connected,
    database,
    fix_hash_seed,
    loaded,
    moment,
    parsed,
    show,
    show_each,
)

__all__ = ["commands", "item_commands", "replay"]

LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"

commands.add_typer(hook)
commands.add_typer(index)
commands.add_typer(queue)
commands.add_typer(schedule)


@commands.command()
def install(schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Install the app in a database, or upgrade it to this version; may be repeated."""
    with connected(dsn) as connection:
        print(installer.install(connection, schema))


@commands.command()
def adopt(
    copied_at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="When the copy was made: for waiting work no time has passed."
        ),
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Let a copy of an app execute, and print its new instance."""
    with connected(dsn, schema) as connection:
        print(send(connection, Calls(schema).adopt_instance(moment(copied_at))))


@commands.command()
def worker(
    app: Annotated[
        str, typer.Argument(metavar="MODULE:APP", help="Where to find the perdure.App.")
    ],
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue", "-q", help="Serve this queue; default: all queues of its functions."
        ),
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
    slots: Annotated[int, typer.Option(help="How many tasks may run at a time.")] = 100,
    lease: Annotated[str, typer.Option(help="How long a lost worker keeps its tasks.")] = "30 s",
    grace: Annotated[
        str, typer.Option(help="How long running work may take to end when it stops.")
    ] = "10 s",
    version: Annotated[
        str | None, typer.Option(help="The version of the code, if the app does not say it.")
    ] = None,
    instance: Annotated[
        str | None,
        typer.Option(envvar="PERDURE_INSTANCE", help="Serve only this instance of the app."),
    ] = None,
    provision: Annotated[
        bool, typer.Option(help="Install the app if there is none, and upgrade it.")
    ] = True,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C. It then ends its turns and gives its tasks back.

    Code that still runs in a thread then ends with the process.
    """
    fix_hash_seed()
    from perdure import Worker

    logging.basicConfig(level=logging.INFO, format=LOG_LINE)
    options: dict[str, Any] = {"dsn": dsn, "schema": schema, "slots": slots, "lease": lease}
    options |= {"grace": grace, "version": version, "instance": instance, "provision": provision}
    Worker(loaded(app), queues=queue or None, **options).run()


@commands.command()
def start(
    workflow: Workflow,
    arguments: Annotated[
        str, typer.Argument(metavar="JSON", help="Its arguments: an array, or one value.")
    ] = "[]",
    id: Annotated[str | None, typer.Option("--id", help="The id of the job.")] = None,
    entity: Annotated[str | None, typer.Option(help="The type of its memory.")] = None,
    queue: Annotated[str | None, typer.Option(help="The queue of its coordinator.")] = None,
    version: Annotated[
        str | None, typer.Option(help="Pin the job to this version of the code.")
    ] = None,
    timeout: Annotated[str | None, typer.Option(help='How long the job may take: "2 h".')] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Start a workflow and print the id of its job.

    The entity, queue and timeout of its decorator are not known here: give them as options.
    """
    given = parsed(arguments)
    options = {"id": id, "entity": entity, "queue": queue, "pinned_version": version}
    options |= {"timeout": timeout}
    with client(dsn, schema, begins=True) as opened:
        args = given if isinstance(given, list) else [given]
        known = {name: value for name, value in options.items() if value is not None}
        print(opened.start(workflow, *args, **known).id)


@commands.command()
def status(id: Id, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Print the state of a job and what it waits for."""
    with client(dsn, schema) as opened:
        show(opened.handle(id).status())


@commands.command()
def result(
    id: Id,
    timeout: Annotated[str | None, typer.Option(help='How long to wait: "90 s", "2 h".')] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Wait for a job to end and print its result."""
    with client(dsn, schema) as opened:
        show(opened.handle(id).result(timeout=timeout))


@commands.command()
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


@commands.command()
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


@commands.command()
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


@commands.command()
def family(id: Id, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Print a job and all its descendants, a line each."""
    with client(dsn, schema) as opened:
        for each in opened.handle(id).family():
            print(f"{'  ' * each.depth}{each.id}  {each.workflow}  {each.status}")


@commands.command()
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


@commands.command()
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


@commands.command()
def retry(
    id: Id,
    arguments: Annotated[
        str | None,
        typer.Argument(metavar="JSON", help="New arguments: an array, or one value."),
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help='How long the new run may take: "2 h".')
    ] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Run a failed or cancelled job again; print whether it runs."""
    given = parsed(arguments)
    args = given if given is None or isinstance(given, list) else [given]
    with client(dsn, schema) as opened:
        show(opened.handle(id).retry(args, timeout=timeout))


@commands.command()
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


@commands.command()
def timeline(id: Id, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Print all that belongs to a job but its memory, a line of JSON each."""
    with client(dsn, schema) as opened:
        show_each(opened.handle(id).timeline())


@commands.command()
def check(schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Print every broken invariant of the app's tables; fail if there is one."""
    with connected(dsn, schema) as connection:
        broken = send(connection, Calls(schema).broken_invariants())
    show_each(row for (row,) in broken)
    raise typer.Exit(1 if broken else 0)


@commands.command(context_settings={"ignore_unknown_options": True})
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
    """Open psql with the app in the search path."""
    with database(dsn) as url:
        with connected(url, schema):
            pass
        program = shutil.which("psql") or own_psql()
        if program is None:
            sys.exit(f"There is no psql here. The database is at:\n{url}")
        options = os.environ.get("PGOPTIONS", "") + " -c search_path=" + quoted_option(schema)
        call = [program, "--dbname", url, *(given or ())]
        # Ctrl-C is for psql: it ends a statement there, or a line.
        before = signals.signal(signals.SIGINT, lambda *_: None)
        try:
            asked = subprocess.run(call, env=os.environ | {"PGOPTIONS": options}, check=False)
        finally:
            signals.signal(signals.SIGINT, before)
    raise typer.Exit(asked.returncode)


@commands.command()
def url(dsn: Dsn = None) -> None:
    """Print the URL of the database.

    The embedded server runs only while a process of perdure, such as `perdure serve`, or a
    statement uses it.
    """
    with database(dsn) as found:
        print(found)


@commands.command()
def serve() -> None:
    """Print the URL of the embedded server, and keep it running until Ctrl-C."""
    with embedded.shared_server() as server:
        print(server.url(), flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


@commands.command(hidden=True)
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
