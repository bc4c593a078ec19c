"""The script: the core as SQL, composed of the parts of `sql/` that `install.sql` lists.

The extension and the plain install run the same script. It contains functions and types as they are
written. Tables are the data of the app, which no extension may own: their files become the body of
the function `create_tables()`, those of triggers and views the bodies of `create_triggers()` and
`create_views()`, and those that upgrade older tables that of `change_tables()`. `migrate()` calls
these functions. Helpers for tests become the body of `create_test_helpers()`.

An upgrade replaces all code, whatever version was there, so one script serves every earlier
version.

`python -m perdure.installation.script FOLDER` writes the files of the extension into a folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from .statements import split

SCHEMA = "@extschema@"
BUILD = "@build@"
GUARD = '\\echo Use "create extension perdure" to load this file. \\quit\n'

_INCLUDE = re.compile(r"^\\ir\s+(\S+)\s*$", re.MULTILINE)
_REPLACED = re.compile(
    r"\A(?P<head>(?:\s|--[^\n]*\n)*)"
    r"(?P<definition>create (?P<kind>type|function|procedure) @extschema@\.(?P<name>\w+).*)\Z",
    re.DOTALL,
)
_QUOTE = "$replaced$"
_UNREAD = re.compile(r"^\s*(?:--.*)?\n", re.MULTILINE)  # comments and empty lines

_CREATOR = """\
create function @extschema@.{name}({parameters}) returns void
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, @extschema@, pg_temp
as ${name}$
begin
{body}
end
${name}$;

comment on function @extschema@.{name} is '{comment}';

revoke all on function @extschema@.{name} from public;
"""
_STEP = """\
if change_tables.from_version < '{version}' then
{text}
end if;
"""


class Part(NamedTuple):
    """A piece of the script and the file it comes from (relative to `sql/`)."""

    file: str
    text: str


@cache
def source() -> Traversable:
    """Find `sql/`: inside the installed package, else beside it in a checkout."""
    packaged = resources.files("perdure") / "sql"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[3] / "sql"


def parts(sql: Traversable | None = None) -> Iterator[Part]:
    """Yield the parts of the install script in the order of `install.sql`."""
    written = json.dumps(build(sql))
    for part in _written(sql):
        yield Part(part.file, part.text.replace(BUILD, written))


def build(sql: Traversable | None = None) -> dict[str, str]:
    """Return digests of this source: of all `code`, and of the `tables` in it.

    Unreleased versions have many builds. A `--` comment does not make other tables.
    """
    made = list(_written(sql))
    tables = "".join(part.text for part in made if part.file in _TABLES)
    return {"code": _digest(render(made)), "tables": _digest(_UNREAD.sub("", tables))}


def upgrade(sql: Traversable | None = None) -> Iterator[Part]:
    """Yield the parts of the script that turns the code of any version into that of this one.

    It changes no table: `migrate()` does that afterwards.
    """
    yield Part("replacing.sql", _read(sql, "replacing.sql"))
    for part in parts(sql):
        yield _replacing(part)
    for part in parts(sql):
        if part.file.startswith("types/"):
            yield _extending(part)
    yield Part("retired.sql", _read(sql, "retired.sql"))


def routines(sql: Traversable | None = None) -> set[str]:
    """Name the functions and procedures of this version."""
    statements = (_REPLACED.match(found.text) for part in parts(sql) for found in split(part.text))
    return {found["name"] for found in statements if found and found["kind"] != "type"}


def render(wanted: Iterable[Part]) -> str:
    """Join parts into one script, each under the name of its file."""
    return "\n".join(f"-- sql/{part.file}\n\n{part.text}" for part in wanted)


def default_version(sql: Traversable | None = None) -> str:
    """Read the version of the core from the control file."""
    control = _read(sql, "perdure.control")
    if found := re.search(r"^default_version\s*=\s*'([^']+)'", control, re.MULTILINE):
        return found[1]
    raise ValueError("perdure.control names no default_version")


def again(version: str) -> str:
    """Name the extension version through which one build of a version is replaced by another.

    PostgreSQL does nothing if it is asked for the version that is installed.
    """
    return f"{version}-again"


def earlier_versions(sql: Traversable | None = None) -> list[str]:
    """List the versions before this one, oldest first: each has its file in `migrations/`."""
    names = [_version(file) for file in _contents(sql) if _is_migration(file)]
    return [name for name in names if name != default_version(sql)]


def write_extension(folder: Path, sql: Traversable | None = None) -> Path:
    """Write the scripts and the control file of the extension into a folder.

    Returns the script that installs it. Those that upgrade it from earlier versions are all the
    same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    version = default_version(sql)
    script = folder / f"perdure--{version}.sql"
    script.write_text(f"{GUARD}\n{render(parts(sql))}", "utf-8")
    steps = [(old, version) for old in earlier_versions(sql)] + [(version, again(version))]
    for old, new in steps:
        step = folder / f"perdure--{old}--{new}.sql"
        step.write_text(f"{GUARD}\n{render(upgrade(sql))}", "utf-8")
    (folder / f"perdure--{again(version)}--{version}.sql").write_text(GUARD, "utf-8")
    (folder / "perdure.control").write_text(_read(sql, "perdure.control"), "utf-8")
    return script


def _written(sql: Traversable | None) -> Iterator[Part]:
    """Yield the parts as they are written, before the build is filled in."""
    for creator, files in groupby(_contents(sql), _creator):
        pieces = [Part(file, _read(sql, file)) for file in files]
        if creator is None:
            yield from pieces
        else:
            yield _created_by(creator, pieces)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _replacing(part: Part) -> Part:
    """Write a part so that it replaces what exists, with each statement on its original lines."""
    if _QUOTE in part.text:
        raise ValueError(f"{part.file} contains {_QUOTE}, which quotes what an upgrade replaces")
    written, rest = "", part.text
    for statement in split(part.text):
        before, _, rest = rest.partition(statement.text)
        written += before + _REPLACED.sub(_replacement, statement.text)
    return Part(part.file, written + rest)


def _replacement(found: re.Match[str]) -> str:
    if found["kind"] == "type":
        return _called("add_type", found, found["definition"])
    definition = found["definition"].replace("create", "create or replace", 1)
    return _called("replace_routine", found, definition)


def _extending(part: Part) -> Part:
    """Write what adds to existing types, when everything else is done."""
    types = (_REPLACED.match(found.text) for found in split(part.text))
    calls = (_called("extend_type", found, found["definition"]) for found in types if found)
    return Part(part.file, "".join(f"{call};\n" for call in calls))


def _called(function: str, found: re.Match[str], definition: str) -> str:
    call = f"select {SCHEMA}.{function}('{found['name']}', {_QUOTE}{definition}{_QUOTE})"
    return found["head"] + call


def _contents(sql: Traversable | None) -> list[str]:
    return _INCLUDE.findall(_read(sql, "install.sql"))


def _is_migration(file: str) -> bool:
    return file.startswith("migrations/")


def _version(file: str) -> str:
    """Return the version whose file it is: `migrations/0.2.0.sql`."""
    return file.rpartition("/")[2].removesuffix(".sql")


def _creator(file: str) -> str | None:
    if file == "testing/helpers.sql":
        return "create_test_helpers"
    if _is_migration(file):
        return "change_tables"
    if not file.startswith("schema/"):
        return None
    return _APART.get(file, "create_tables")


_APART = {"schema/triggers.sql": "create_triggers", "schema/views.sql": "create_views"}
_TABLES = {"schema/tables", "schema/triggers"}

_COMMENTS = {
    "create_tables": "Create the tables of the app; migrate() calls it.",
    "create_triggers": "Create the triggers of the tables; migrate() calls it.",
    "create_views": "Create the views of the app; migrate() calls it.",
    "change_tables": "Change the tables of an earlier version; migrate() calls it.",
    "create_test_helpers": "Create assertions for tests with pgTAP, in the transaction of a test.",
}


def _created_by(name: str, pieces: list[Part]) -> Part:
    is_change = name == "change_tables"
    body = render(map(_step, pieces) if is_change else pieces)
    if f"${name}$" in body:
        raise ValueError(f"a file of {name}() contains ${name}$, which quotes the body")
    parameters = "from_version integer[]" if is_change else ""
    text = _CREATOR.format(name=name, parameters=parameters, body=body, comment=_COMMENTS[name])
    folder = pieces[0].file.partition("/")[0]
    return Part(f"{folder}/{name.removeprefix('create_')}", text)


def _step(piece: Part) -> Part:
    """Let the changes of the tables to a version run if they are of an earlier one."""
    numbers = "{" + _version(piece.file).replace(".", ",") + "}"
    return Part(piece.file, _STEP.format(version=numbers, text=piece.text))


def _read(sql: Traversable | None, file: str) -> str:
    root = source() if sql is None else sql
    return root.joinpath(*file.split("/")).read_text("utf-8")


if __name__ == "__main__":
    print(write_extension(Path(sys.argv[1])))
