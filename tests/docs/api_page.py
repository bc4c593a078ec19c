"""The page `python/api.md`, which lists what the package gives: this program writes it.

Run `python tests/docs/api_page.py` after a change of names, arguments or first sentences.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_overloads

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

import perdure  # noqa: E402
from perdure import codecs, replaying, tracing  # noqa: E402
from perdure.clients.requests import HOOK_OPTIONS, START_OPTIONS  # noqa: E402
from perdure.clients.schedules import OPTIONS as SCHEDULE_OPTIONS  # noqa: E402
from perdure.testing import Lab  # noqa: E402
from tests.docs.verbs_page import prose  # noqa: E402

PAGE = ROOT / "python" / "api.md"

HEAD = """\
# The names of the package

This page lists what you can call in Python, with the first sentence of each docstring. In a
Python shell, `help(perdure.Client.start)` prints the rest: the options, and the errors that are
raised.

Async code has the same names: `AsyncClient`, `AsyncHandle`, `AsyncMemory`, `AsyncItem` and
`AsyncStream` have the methods of `Client`, `Handle`, `Memory`, `Item` and `Stream`, to be awaited
or, if they give items one by one, iterated with `async for`. An argument after `*` is passed by
keyword.
"""

TAIL = """\
**See also:** [clients](../sql/coordination/clients.md), [memory](../sql/memory.md),
[coordinators](../sql/coordination/coordinators.md), [how the package is built](README.md).
"""

INTERNAL = {
    "App": {"functions", "registers", "tables"},
    "Client": {"each", "follow", "give", "send", "until"},
    "Lab": {"finish", "note"},
}
"""Methods for other parts of the package."""

MEMORY = """\
Every command takes `expected_version=` (it is refused at any other version) and, outside of jobs,
`key=` (a repeated call is applied once). In a coordinator or hook, a memory has the commands,
`get`, `until`, `signal` and `typed`.
"""

ERRORS = """\
All errors are subclasses of `perdure.PerdureError`, with `code`, `message`, `detail` and `hint`.
The [list of errors](../sql/README.md#errors) says what each of them means.
"""

DURABLE = (
    "sleep", "sleep_until", "wait_for", "signal", "ask_people", "exec_hook", "start_hook", "child",
    "start_child", "continue_as_new", "shielded", "patched", "now", "random", "uuid", "memory",
    "publish", "heartbeat", "info", "logger",
)  # fmt: skip

OPTIONS = {
    "start": START_OPTIONS,
    "hook": HOOK_OPTIONS,
    "run_hook": HOOK_OPTIONS,
    "create_schedule": SCHEDULE_OPTIONS,
}
"""What `**options` stands for in the methods of these names."""

CALLS = """\
An activity, transaction, hook or coordinator that is registered is called like the function
itself. It has two more names: `.start(…)` requests it without waiting and returns a `Pending`,
and `.function` is the function.
"""


def sentence(documented: Any) -> str:
    """Return the first sentence of a docstring, fit for a cell of a table."""
    paragraph = " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())
    first = re.split(r"(?<=\.) (?=[A-Z`])", paragraph)[0]
    return first.rstrip(".").replace("|", "\\|")


def call(name: str, function: Callable[..., Any], *, skip: int = 0) -> str:
    """Write a call of a function: the names of its arguments, with their defaults."""
    kinds = get_overloads(function)  # the last one of a decorator says what options there are
    shown = kinds[-1] if function.__module__ == perdure.App.__module__ and kinds else function
    parameters = list(inspect.signature(shown).parameters.values())[skip:]
    written = [each.replace(annotation=inspect.Parameter.empty) for each in parameters]
    told = str(inspect.Signature(written)).replace("/, ", "").replace("(/)", "()")
    if keys := OPTIONS.get(function.__name__):
        told = told.replace("**options", ", ".join(f"{key}=…" for key in sorted(keys)))
    return f"{name}{told}".replace("|", "\\|").replace("typing.Any", "Any")


def methods(kind: type, of: str = "") -> Iterator[tuple[str, str]]:
    """Yield the methods and properties of a class that users call, as they are called."""
    hidden = INTERNAL.get(kind.__name__, set())
    for name in sorted(each for each in dir(kind) if not each.startswith("_")):
        member = inspect.getattr_static(kind, name)
        if name in hidden or not (callable(member) or isinstance(member, property)):
            continue
        is_property = isinstance(member, property)
        written = of + (name if is_property else call(name, getattr(kind, name), skip=1))
        yield written, sentence(member)


def table(title: str, rows: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> str:
    """Write a table of names and what they do."""
    lines = [f"| `{name}` | {told} |" for name, told in rows]
    return "\n".join([f"| {title} | |", "|---|---|", *lines])


def named(module: Any, *names: str, of: str = "") -> list[tuple[str, str]]:
    """List functions of a module."""
    functions = {name: getattr(module, name) for name in names}
    return [(of + call(name, given), sentence(given)) for name, given in functions.items()]


def records() -> list[tuple[str, str]]:
    """List what calls return: data classes, by their fields."""
    kinds = [getattr(perdure, name) for name in perdure.__all__]
    return [
        (f"{kind.__name__}({', '.join(each.name for each in fields(kind) if each.repr)})",
         sentence(kind))
        for kind in kinds
        if inspect.isclass(kind) and is_dataclass(kind) and kind is not perdure.Retry
    ]  # fmt: skip


def opened(kind: type, name: str) -> tuple[str, str]:
    """Write how an object is made."""
    return call(name, kind), sentence(kind)


def page() -> str:
    """Write the page."""
    made = [
        opened(perdure.App, "perdure.App"), *methods(perdure.App, "app."),
        opened(perdure.Retry, "perdure.Retry"),
        opened(perdure.Worker, "perdure.Worker"), *methods(perdure.Worker, "worker."),
        *named(perdure, "connect", "connect_async", of="perdure."),
    ]  # fmt: skip
    tests = [opened(Lab, "perdure.testing.Lab"), *methods(Lab, "lab.")]
    checks = ("check_journals", "recording_of", "replay_journal")
    tests += named(replaying, *checks, of="perdure.replaying.")
    others = named(perdure, "sql_hook", of="perdure.")
    others += named(tracing, "headers", of="perdure.tracing.")
    others += [opened(codecs.AesGcm, "perdure.codecs.AesGcm")]
    parts = [
        prose(HEAD),
        "## An app, its workers and clients\n", table("to begin", made), "",
        "## In coordinators and hooks\n",
        table("`perdure.…`", named(perdure, *DURABLE)), "",
        prose(CALLS), table("`Pending`", methods(perdure.Pending)), "",
        "## Memory\n", table("`Memory`", methods(perdure.Memory)), "",
        prose(MEMORY),
        "## Client\n", table("`Client`", methods(perdure.Client)), "",
        "## Handle of a job\n", table("`Handle`", methods(perdure.Handle)), "",
        table("`Stream`", methods(perdure.Stream)), "",
        "## Item\n", table("`Item`", methods(perdure.Item)), "",
        "## Tests\n", table("in tests", tests), "",
        "## More\n", table("more", others), "",
        "## What calls return\n", table("fields", records()), "",
        "## Errors\n",
        prose(ERRORS),
        prose(TAIL),
    ]  # fmt: skip
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
