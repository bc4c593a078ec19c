"""The commands of the command line, together."""

from __future__ import annotations

from . import database, jobs, memory, operating, people, replay
from .hooks import hook
from .memory import index
from .queues import queue
from .schedules import schedule
from .terminal import JOBS, MEMORY, OPERATING, commands

__all__ = ["commands", "database", "jobs", "memory", "operating", "people", "replay"]

commands.add_typer(schedule, rich_help_panel=JOBS)
commands.add_typer(index, rich_help_panel=MEMORY)
commands.add_typer(queue, rich_help_panel=OPERATING)
commands.add_typer(hook, rich_help_panel=OPERATING)
