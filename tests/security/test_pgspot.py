"""pgspot reads the scripts as an attacker would: paths, names, what they create (S1) (S3) (S13)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.installation import script
from perdure.installation.statements import split

pytest.importorskip("pgspot", reason="pgspot is not there: pip install 'perdure[lint]'")

HEAD = "create schema extschema;\nset search_path = pg_catalog, pg_temp;\n"
SCRIPTS = {"installs": script.parts, "upgrades": script.upgrade}
CREATED = re.compile(r"create (?:function|procedure) extschema\.(\w+)")

# What commits can have no settings of its own; it names everything in full.
NO_PATH = ["extschema.run_sql_hooks(max_tasks integer,INOUT ran integer)"]

# What bodies may do: they replace what is the owner's, in a schema where nobody else may create.
REPLACING = {
    "create_test_helpers": "assertions that find pgTAP where their caller finds it",
    "create_views": "the views, which may change with a version",
    "reset_clock": "clock()",
    "set_clock": "clock()",
}

# What pgspot's parser cannot read, which knows no types: variables of composite types. It is
# plpgsql_check that reads all bodies, in `tests/install`.
UNREAD = re.compile(r"is not a known variable|syntax error at or near|record variable cannot be")


def told(*files: Path, bodies: bool) -> str:
    """Let pgspot read files; give what it tells."""
    command = [sys.executable, "-m", "pgspot", "--plpgsql" if bodies else "--no-plpgsql"]
    command += [f"--proc-without-search-path={name}" for name in NO_PATH]
    run = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert run.stderr == ""
    return run.stdout


@pytest.mark.parametrize("does", SCRIPTS)
def test_pgspot_finds_nothing_in_what(tmp_path: Path, does: str) -> None:
    """What an upgrade replaces stands in quotes: it is what the other script creates."""
    file = tmp_path / "perdure.sql"
    file.write_text(HEAD + script.render(SCRIPTS[does]()), "utf-8")
    assert told(file, bodies=False).strip() == "Errors: 0 Warnings: 0 Unknown: 0"


def functions(folder: Path) -> Iterator[Path]:
    """Write each function into a file of its own: one that cannot be read hides no other."""
    for statement in split(script.render(script.parts())):
        if found := CREATED.search(statement.text.replace("@extschema@", "extschema")):
            file = folder / f"{found[1]}.sql"
            file.write_text(HEAD + found.string, "utf-8")
            yield file


def test_pgspot_finds_nothing_within_functions(tmp_path: Path) -> None:
    files = list(functions(tmp_path))
    _, *pieces = re.split(r"(?m)^\S*?(\w+)\.sql: *$", told(*files, bodies=True).split("TOTAL:")[0])
    words = dict(zip(pieces[::2], pieces[1::2], strict=True))
    assert len(words) == len(files)
    unread = {name for name in words if UNREAD.search(words[name])}
    sound = {name for name in words if words[name].strip() == "Errors: 0 Warnings: 0 Unknown: 0"}
    assert {name: words[name] for name in words.keys() - unread - sound - REPLACING.keys()} == {}
    assert sound & REPLACING.keys() == set()
    assert len(sound) > 20 * len(unread)
