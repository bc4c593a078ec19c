"""pgspot finds no search path, name or object in the scripts that an attacker could use (S1) (S3)
(S13)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.installation import script
from perdure.installation.statements import split

pytest.importorskip("pgspot", reason="pgspot is missing: pip install 'perdure[lint]'")

HEAD = "create schema extschema;\nset search_path = pg_catalog, pg_temp;\n"
SCRIPTS = {"installs": script.parts, "upgrades": script.upgrade}
CREATED = re.compile(r"create (?:function|procedure) extschema\.(\w+)")

# A procedure that commits can have no settings; it qualifies all names instead.
NO_PATH = ["extschema.run_sql_hooks(max_tasks integer,INOUT ran integer)"]

# Functions that may replace objects: these belong to the owner, in a schema where nobody else may
# create.
REPLACING = {
    "create_test_helpers": "assertions that find pgTAP where their caller finds it",
    "create_views": "the views, which may change with a version",
    "reset_clock": "clock()",
    "set_clock": "clock()",
}

# pgspot's parser knows no types and cannot read variables of composite types. plpgsql_check reads
# all bodies, in `tests/install`.
UNREAD = re.compile(r"is not a known variable|syntax error at or near|record variable cannot be")


def report_of(*files: Path, bodies: bool) -> str:
    """Run pgspot on files, and return its report."""
    command = [sys.executable, "-m", "pgspot", "--plpgsql" if bodies else "--no-plpgsql"]
    command += [f"--proc-without-search-path={name}" for name in NO_PATH]
    run = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert run.stderr == ""
    return run.stdout


@pytest.mark.parametrize("does", SCRIPTS)
def test_pgspot_finds_nothing_in_script(tmp_path: Path, does: str) -> None:
    """The upgrade's quoted bodies are not read here; they are created by the other script."""
    file = tmp_path / "perdure.sql"
    file.write_text(HEAD + script.render(SCRIPTS[does]()), "utf-8")
    assert report_of(file, bodies=False).strip() == "Errors: 0 Warnings: 0 Unknown: 0"


def functions(folder: Path) -> Iterator[Path]:
    """Write each function into its own file, so that an unreadable one hides no other."""
    for statement in split(script.render(script.parts())):
        if found := CREATED.search(statement.text.replace("@extschema@", "extschema")):
            file = folder / f"{found[1]}.sql"
            file.write_text(HEAD + found.string, "utf-8")
            yield file


def test_pgspot_finds_nothing_in_function_bodies(tmp_path: Path) -> None:
    files = list(functions(tmp_path))
    _, *pieces = re.split(
        r"(?m)^\S*?(\w+)\.sql: *$", report_of(*files, bodies=True).split("TOTAL:")[0]
    )
    reports = dict(zip(pieces[::2], pieces[1::2], strict=True))
    assert len(reports) == len(files)
    unread = {name for name in reports if UNREAD.search(reports[name])}
    sound = {
        name for name in reports if reports[name].strip() == "Errors: 0 Warnings: 0 Unknown: 0"
    }
    assert {
        name: reports[name] for name in reports.keys() - unread - sound - REPLACING.keys()
    } == {}
    assert sound & REPLACING.keys() == set()
    assert len(sound) > 20 * len(unread)
