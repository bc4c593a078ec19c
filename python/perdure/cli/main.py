"""The command `perdure`: what a person does from a shell. `commands.py` has the commands."""

from __future__ import annotations

import sys

import psycopg

from perdure.errors import PerdureError


def main() -> None:
    """Run the command line; exit with status 1 and a plain message if something is wrong."""
    try:
        from .commands import commands
        from .terminal import printable
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.exit("The command line needs another package: pip install 'perdure[cli]'")
    try:
        commands()
    except (PerdureError, psycopg.Error) as error:
        sys.exit(f"error: {printable(_in_words(error))}")


def _in_words(error: Exception) -> str:
    """Write an error with its notes, and who can help if a role lacks rights."""
    notes = list(getattr(error, "__notes__", ()))
    if isinstance(error, psycopg.errors.InsufficientPrivilege) and not notes:
        notes = ["hint: The owner of the app can give the role access with grant_access()."]
    return "\n".join([str(error).strip(), *notes])
