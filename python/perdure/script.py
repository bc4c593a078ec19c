"""The script: the core as SQL, put together from the parts of `sql/` that `install.sql` lists.

The extension and the plain install run the same script. Functions and types stand in it as they
are written. The tables are the app's data, which no extension may own: their files become the body
of the function `create_tables()`, that of the views the body of `create_views()`, and `migrate()`
calls both. What tests may want beside becomes the body of `create_test_helpers()`.

`python -m perdure.script FOLDER` writes the extension's files into a folder.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from .errors import NoUpgradePath

SCHEMA = "@extschema@"
_UPGRADE = re.compile(r"perdure--([^-]+)--([^-]+)\.sql")
GUARD = '\\echo Use "create extension perdure" to load this file. \\quit\n'

_INCLUDE = re.compile(r"^\\ir\s+(\S+)\s*$", re.MULTILINE)

_CREATOR = """\
create function @extschema@.{name}() returns void
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, @extschema@, pg_temp
as ${name}$
begin
{body}
end
${name}$;

comment on function @extschema@.{name}() is '{comment}';

revoke all on function @extschema@.{name}() from public;
"""


class Part(NamedTuple):
    """A piece of the script and the file it comes from (relative to `sql/`)."""

    file: str
    text: str


def source() -> Traversable:
    """Find `sql/`: inside the installed package, else beside it in a checkout."""
    packaged = resources.files("perdure") / "sql"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "sql"


def parts(sql: Traversable | None = None) -> Iterator[Part]:
    """Yield the parts of the install script in the order of `install.sql`."""
    root = source() if sql is None else sql
    contents = _INCLUDE.findall(_read(root, "install.sql"))
    for creator, files in groupby(contents, _creator):
        pieces = [Part(file, _read(root, file)) for file in files]
        if creator is None:
            yield from pieces
        else:
            yield _created_by(creator, pieces)


def code(sql: Traversable | None = None) -> Iterator[Part]:
    """Yield the parts that can be replaced whole in a live database: the functions."""
    return (part for part in parts(sql) if part.file.startswith(("functions/", "schema/")))


def grants(sql: Traversable | None = None) -> Part:
    """Give the part that says who may do what; it follows the code."""
    return Part("grants.sql", _read(source() if sql is None else sql, "grants.sql"))


def render(wanted: Iterable[Part]) -> str:
    """Join parts into one script, each under the name of its file."""
    return "\n".join(f"-- sql/{part.file}\n\n{part.text}" for part in wanted)


def default_version(sql: Traversable | None = None) -> str:
    """Read the version of the core from the control file."""
    control = _read(source() if sql is None else sql, "perdure.control")
    if found := re.search(r"^default_version\s*=\s*'([^']+)'", control, re.MULTILINE):
        return found[1]
    raise ValueError("perdure.control names no default_version")


def write_extension(folder: Path, sql: Traversable | None = None) -> Path:
    """Write the script and the control file of the extension into a folder; return the script."""
    root = source() if sql is None else sql
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / f"perdure--{default_version(root)}.sql"
    script.write_text(f"{GUARD}\n{render(parts(root))}", "utf-8")
    (folder / "perdure.control").write_text(_read(root, "perdure.control"), "utf-8")
    return script


def upgrade_path(names: Iterable[str], old: str, new: str) -> list[str]:
    """Find the shortest chain of scripts from one version to another, as `alter extension` does.

    Raises NoUpgradePath.

    >>> upgrade_path(["perdure--1.0--1.1.sql", "perdure--1.1--2.0.sql"], "1.0", "2.0")
    ['perdure--1.0--1.1.sql', 'perdure--1.1--2.0.sql']
    """
    steps = [(found[1], found[2], found[0]) for found in map(_UPGRADE.fullmatch, names) if found]
    waiting: deque[tuple[str, list[str]]] = deque([(old, [])])
    seen = {old}
    while waiting:
        version, chain = waiting.popleft()
        if version == new:
            return chain
        for start, end, name in sorted(steps):
            if start == version and end not in seen:
                seen.add(end)
                waiting.append((end, [*chain, name]))
    raise NoUpgradePath(
        f"no upgrade leads from version {old} to {new}",
        detail=f"Known steps: {', '.join(sorted(name for *_, name in steps)) or 'none'}.",
        hint="Upgrade to a version in between first.",
    )


def _creator(file: str) -> str | None:
    if file == "testing/helpers.sql":
        return "create_test_helpers"
    if not file.startswith("schema/"):
        return None
    return "create_views" if file == "schema/views.sql" else "create_tables"


_COMMENTS = {
    "create_tables": "Create the tables of the app; migrate() calls it.",
    "create_views": "Create the views of the app; migrate() calls it.",
    "create_test_helpers": "Create assertions for tests with pgTAP, in the transaction of a test.",
}


def _created_by(name: str, pieces: list[Part]) -> Part:
    body = render(pieces)
    if f"${name}$" in body:
        raise ValueError(f"a file of {name}() contains ${name}$, which quotes the body")
    text = _CREATOR.format(name=name, body=body, comment=_COMMENTS[name])
    return Part(f"schema/{name.removeprefix('create_')}", text)


def _read(root: Traversable, file: str) -> str:
    return root.joinpath(*file.split("/")).read_text("utf-8")


if __name__ == "__main__":
    print(write_extension(Path(sys.argv[1])))
