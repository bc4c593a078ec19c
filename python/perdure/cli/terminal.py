"""What the commands of the command line share: their options, a client, JSON in and JSON out."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, overload

import psycopg
import typer
from typer.core import TyperGroup

from perdure.database.source import DATABASE_URL, DEFAULT_SCHEMA, SCHEMA, Source, parameters_of
from perdure.embedded import server as embedded
from perdure.errors import PerdureError
from perdure.installation import install as installer
from perdure.workflow.app import App

JOBS, MEMORY, OPERATING, DATABASE = PANELS = ("Jobs", "Memories", "Operating", "Database")


class ByPanel(TyperGroup):
    """Lists the commands by their panels in the help."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Sort the names; within a panel they keep the order in which they were added."""
        commands: Mapping[str, Any] = self.commands
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: PANELS.index(commands[name].rich_help_panel))


commands = typer.Typer(
    name="perdure",
    cls=ByPanel,
    help="Permanent memory and coordinated execution in PostgreSQL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
job_command = partial(commands.command, rich_help_panel=JOBS)
memory_command = partial(commands.command, rich_help_panel=MEMORY)
operating_command = partial(commands.command, rich_help_panel=OPERATING)
database_command = partial(commands.command, rich_help_panel=DATABASE)

Schema = Annotated[
    str, typer.Option("--schema", envvar=SCHEMA, help="The app: the name of its schema.")
]
Dsn = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        envvar=DATABASE_URL,
        help="The database. Default: the embedded server.",
        show_envvar=True,
    ),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="The id of the job.")]
Json = Annotated[str | None, typer.Argument(metavar="JSON", help="A JSON value.")]
Workflow = Annotated[str, typer.Argument(metavar="WORKFLOW", help="The name of the coordinator.")]
AppOfWorkflow = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:APP",
        help="The perdure.App that has the workflow: check the arguments, and take the entity, the"
        " queue and other options from its decorator.",
    ),
]
DEFAULT = DEFAULT_SCHEMA

_IMPORTING = ("<frozen importlib", importlib.__file__, __file__)
"""Where a module is imported from, which is of no interest to the author of a mistake in it."""

_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What a terminal obeys instead of showing it, and what changes the direction of the text."""

MAX_SHOWN = 100
"""How much is shown of an argument that cannot be read."""


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        from perdure import __version__

        print(f"perdure {__version__}")
        raise typer.Exit


@commands.callback()
def every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Print the version, and exit."
        ),
    ] = False,
) -> None:
    """Handle the options before the command."""


@contextmanager
def database(dsn: str | None) -> Iterator[str]:
    """Return the URL of the database, and keep the embedded server running meanwhile."""
    if dsn is not None:
        parameters_of(dsn)
        yield dsn
    else:
        with embedded.shared_server() as server:
            yield server.url()


@contextmanager
def connected(dsn: str | None, app: str | None = None) -> Iterator[psycopg.Connection[Any]]:
    """Connect to the database, and check that it has an app of this name. Raises AppNotFound."""
    with database(dsn) as url, Source(url, app).connect("perdure command") as connection:
        if app is not None:
            installer.check_app(connection, app)
        yield connection


@contextmanager
def client(
    dsn: str | None,
    schema: str,
    *,
    begins: bool = False,
    provision: bool = True,
    code: str | None = None,
) -> Iterator[Any]:
    """Open a client of the app, which is upgraded if needed.

    The app is installed only by commands that begin something new: otherwise its name is probably
    mistyped. With the place of its code it encrypts as that does. Raises AppNotFound.
    """
    import perdure

    log_to_terminal(logging.WARNING, "%(message)s")
    if not begins:
        with connected(dsn, schema):
            pass
    codec = None if code is None else loaded(code).codec
    with perdure.connect(dsn, schema=schema, codec=codec, provision=provision) as opened:
        opened.calls.shows_envelopes = True  # as psql shows them: there are no keys here
        yield opened


def parsed(text: str | None) -> Any:
    """Read a JSON argument."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        shown = f"{text[:MAX_SHOWN]}…" if text and len(text) > MAX_SHOWN else text
        mistake = f"{shown} is not valid JSON: {error}"
        if text and len(text) <= MAX_SHOWN and text.lstrip()[:1] not in tuple('[{"'):
            mistake += f"; a text is written as {quote(json.dumps(text, ensure_ascii=False))}"
        raise typer.BadParameter(mistake) from error


@overload
def moment(text: str) -> datetime: ...
@overload
def moment(text: None) -> None: ...
@overload
def moment(text: str | None) -> datetime | None: ...
def moment(text: str | None) -> datetime | None:
    """Read a time argument."""
    if text is None:
        return None
    example = "2030-01-31T12:00:00Z"
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text} is not a time like {example}") from error
    if read.tzinfo is None:
        raise typer.BadParameter(f"{text} has no time zone: it should be like {example}")
    return read


def printable(text: str) -> str:
    """Write the characters of a text that would control a terminal as JSON writes them in ASCII.

    What others have stored must not move the cursor, hide lines or set the title.
    """
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _Printable(logging.Formatter):
    """A log that may quote what others have stored."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, without the characters that control a terminal."""
        return printable(super().format(record))


def log_to_terminal(level: int, line: str) -> None:
    """Log in this form, unless logging is set up already."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable(line))
    logging.basicConfig(level=level, handlers=[handler])


def show(value: Any) -> None:
    """Print a value as JSON."""
    print(_json(value, indent=2))


def show_each(values: Iterable[Any]) -> None:
    """Print values as they come, a line of JSON each."""
    for value in values:
        print(_json(value))


def _json(value: Any, indent: int | None = None) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in fields(value) if each.repr}
    return printable(json.dumps(value, indent=indent, ensure_ascii=False, default=_written))


def _written(value: Any) -> Any:
    """Write what JSON has no form for."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def loaded(place: str) -> App:
    """Import an app by its place: `loaded("my_module:app")`."""
    module, _, name = place.partition(":")
    if not name:
        raise typer.BadParameter(f"{place} has no colon: it should be like my_module:app")
    if not all(module.split(".")):
        raise typer.BadParameter(f"{place} does not name an app: it should be like my_module:app")
    sys.path.insert(0, os.fspath(Path.cwd()))
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _unimportable(module, error) from error  # another module is missing
        raise typer.BadParameter(f"there is no module {module}") from error
    except Exception as error:
        raise _unimportable(module, error) from error
    if not hasattr(found, name):
        raise typer.BadParameter(f"the module {module} has no {name}")
    app = getattr(found, name)
    if not isinstance(app, App):
        raise typer.BadParameter(f"{place} is not a perdure.App, but a {type(app).__name__}")
    return app


def _unimportable(module: str, error: Exception) -> SystemExit:
    """Report where the code of a module has raised, and not through whom it was imported."""
    ours = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in ours if not frame.filename.startswith(_IMPORTING)]
    told = ["Traceback (most recent call last):\n"] if theirs else []
    told += [*traceback.format_list(theirs), *traceback.format_exception_only(error)]
    return SystemExit(f"error: {module} cannot be imported\n\n{''.join(told).rstrip()}")


def arguments_of(text: str | None) -> list[Any] | dict[str, Any] | None:
    """Read the arguments of a workflow: an array, an object (by name), or one other value."""
    given = parsed(text)
    return given if text is None or isinstance(given, list | dict) else [given]


@contextmanager
def as_usage_errors() -> Iterator[None]:
    """Report arguments that a workflow does not take as a mistake in the command."""
    try:
        yield
    except TypeError as error:
        if isinstance(error, PerdureError):
            raise
        raise typer.BadParameter(str(error)) from error


def workflow_of(name: str, place: str | None) -> Any:
    """Return a workflow by its name: as the app at a place registers it, if one is given."""
    if place is None:
        return name
    known = loaded(place).coordinators
    if name not in known:
        of = ", ".join(sorted(known)) or "none"
        raise typer.BadParameter(f"{place} has no coordinator {name}; it has {of}")
    return known[name]


def fix_hash_seed() -> None:
    """Start again with a fixed hash seed: sets of strings must iterate alike in every process."""
    if "PYTHONHASHSEED" not in os.environ:
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
