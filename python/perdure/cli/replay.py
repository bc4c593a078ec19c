"""The command that replays recorded journals against the code at hand: a gate before a deploy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from perdure import replaying
from perdure.errors import NonDeterminism
from perdure.replaying import Recording

from .terminal import DEFAULT, Dsn, Schema, client, fix_hash_seed, job_command, loaded, printable

Code = Annotated[
    str | None, typer.Argument(metavar="MODULE:APP", help="The code; not needed for --export.")
]
Running = Annotated[bool, typer.Option("--running", help="Replay all running jobs.")]
Jobs = Annotated[list[str] | None, typer.Option(help="A job, running or ended; repeatable.")]
Source = Annotated[str | None, typer.Option(help="A file that --export has written.")]
Target = Annotated[
    str | None, typer.Option(metavar="FILE", help="Write journals to a file instead.")
]
Workflow = Annotated[str | None, typer.Option(help="Only jobs of this workflow.")]
Queues = Annotated[
    list[str] | None,
    typer.Option("--queue", "-q", help="Only jobs of this queue. Default: all queues of the app."),
]
Version = Annotated[
    str | None, typer.Option(help="The version of the code, if the app does not say it.")
]
Limit = Annotated[int | None, typer.Option(help="How many jobs at most.")]


@job_command()
def replay(
    app: Code = None,
    running: Running = False,
    job: Jobs = None,
    file: Source = None,
    export: Target = None,
    workflow: Workflow = None,
    queue: Queues = None,
    version: Version = None,
    limit: Limit = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Replay journals with the code at hand, without any effect; fail if any differs.

    Of the running jobs, those are replayed that a worker of this code would run: on the queues of
    the app, and pinned to its version or to none.
    """
    if running + bool(job) + (file is not None) != 1:
        raise typer.BadParameter("give one of --running, --job and --file")
    fix_hash_seed()
    code = None if app is None else loaded(app)
    if file is not None:
        _check_readable(file)
        _go(code, export, replaying.read_recordings(file))
        return
    with client(dsn, schema, provision=False) as opened:
        if job:
            recorded: Iterator[Recording] = (replaying.recording_of(opened, each) for each in job)
        else:
            recorded = replaying.recordings(opened, workflow=workflow, limit=limit)
            recorded = _concerned(recorded, code, queue, version)
        _go(code, export, recorded)


def _check_readable(file: str) -> None:
    try:
        with Path(file).open():
            return
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from error


def _concerned(
    recorded: Iterator[Recording], app: Any, queues: list[str] | None, version: str | None
) -> Iterator[Recording]:
    """Leave out the jobs that no worker of this code would run; without code, none."""
    if app is None:
        return recorded
    known = queues or app.queues(), version or app.version
    return (each for each in recorded if replaying.concerns(each.row, *known))


def _go(app: Any, export: str | None, recorded: Iterator[Recording]) -> None:
    if export is not None:
        try:
            written = replaying.write_recordings(export, recorded)
        except OSError as error:
            raise typer.BadParameter(f"{export} cannot be written: {error.strerror}") from error
        print(f"{written} journals written to {export}")
        return
    if app is None:
        raise typer.BadParameter("name the code: my_module:app")
    replayed = different = 0
    for recording, wrong in replaying.replay(app, recorded):
        replayed += 1
        if wrong is not None:
            different += 1
            place = wrong.place if isinstance(wrong, NonDeterminism) else None
            told = (wrong.detail or wrong.message) + (f" ({place})" if place else "")
            print(printable(f"{recording.job} ({recording.row['name']}): {told}"))
    print(f"{replayed} journals replayed, {different} different")
    raise typer.Exit(1 if different else 0)
