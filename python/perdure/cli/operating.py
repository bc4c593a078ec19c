"""The commands of the command line that install an app, run its code, and keep it tidy."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from perdure.basics.durations import seconds
from perdure.database.calls import Calls
from perdure.database.sending import send
from perdure.errors import InvalidArgument
from perdure.installation import install as installer

from .terminal import (
    DEFAULT,
    Dsn,
    Id,
    Schema,
    client,
    connected,
    fix_hash_seed,
    loaded,
    log_to_terminal,
    moment,
    operating_command,
    show,
    show_each,
)

LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@operating_command()
def install(schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Install the app in a database, or upgrade it to this version; may be repeated."""
    with connected(dsn) as connection:
        print(installer.install(connection, schema))


@operating_command()
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

    log_to_terminal(logging.INFO, LOG_LINE)
    options: dict[str, Any] = {"dsn": dsn, "schema": schema, "slots": slots, "lease": lease}
    options |= {"grace": grace, "version": version, "instance": instance, "provision": provision}
    Worker(loaded(app), queues=queue or None, **options).run()


@operating_command()
def forget(id: Id, schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Delete a finished job or an entity with its history; print whether it existed."""
    with client(dsn, schema) as opened:
        show(opened.forget(id))


@operating_command()
def forget_finished(
    older_than: Annotated[
        str, typer.Argument(metavar="AGE", help='Delete jobs that finished longer ago: "90 days".')
    ],
    entity: Annotated[str | None, typer.Option(help="Only jobs of this entity.")] = None,
    schema: Schema = DEFAULT,
    dsn: Dsn = None,
) -> None:
    """Delete jobs that finished long ago, with their histories; print how many."""
    check_unit(older_than)
    before = datetime.now(UTC) - timedelta(seconds=seconds(older_than))
    with client(dsn, schema) as opened:
        show(sum(iter(lambda: opened.forget_finished(before, entity=entity), 0)))


def check_unit(age: str) -> None:
    """Refuse a number alone, which is one of seconds everywhere else. Raises InvalidArgument."""
    if not any(letter.isalpha() for letter in age):
        raise InvalidArgument(
            f"the age {age!r} has no unit",
            detail="It would mean seconds, and what is forgotten does not come back.",
            hint='Name the unit, as in "90 days".',
        )


@operating_command()
def check(schema: Schema = DEFAULT, dsn: Dsn = None) -> None:
    """Print every broken invariant of the app's tables; fail if there is one."""
    calls = Calls(schema)
    with connected(dsn, schema) as connection, connection.transaction():
        send(connection, calls.take_your_time(in_transaction=True))
        broken = send(connection, calls.broken_invariants())
    show_each(row for (row,) in broken)
    raise typer.Exit(1 if broken else 0)


@operating_command()
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
