"""Keeps the script of each release, unchanged, in `tests/golden/`.

`make freeze` writes the script of this version and prints its build. The change log then names
both: `## 0.1.0 (2026-12-31, build 0123456789abcdef)`. Tests upgrade from each kept script.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg

from perdure.installation import install, script

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
HEADING = re.compile(r"^## (\S+)(?!\S)(?! \(unreleased\))(?:.*\bbuild (\w+))?", re.MULTILINE)
STAMP = re.compile(r'\{"code": "(\w+)", "tables": "\w+"\}')


def released(changes: Path = ROOT / "CHANGELOG.md") -> dict[str, str]:
    """Return the build of each version that the change log lists as released."""
    return dict(HEADING.findall(changes.read_text("utf-8")))


def freeze(folder: Path = GOLDEN, sql: Path | None = None) -> Path:
    """Write the script of a version into a folder."""
    path = folder / f"{script.default_version(sql)}.sql"
    path.write_text(script.render(script.parts(sql)), "utf-8")
    return path


def build_of(path: Path) -> str:
    """Return the build that a script names, or "changed by hand" if its text does not match."""
    text = path.read_text("utf-8")
    stamp = STAMP.search(text)
    if stamp is None or script._digest(text.replace(stamp[0], script.BUILD)) != stamp[1]:
        return "changed by hand"
    return stamp[1]


def install_frozen(connection: psycopg.Connection[Any], schema: str, path: Path) -> None:
    """Install a release as its own package did."""
    part = script.Part(path.name, path.read_text("utf-8"))
    with install._installing(connection, schema):
        connection.execute(f"create schema {schema}".encode())
        install._run_all(connection, part, schema)
        connection.execute(f"select {schema}.migrate()".encode())


if __name__ == "__main__":
    version = script.default_version()
    if version in released():
        raise SystemExit(f"{version} is released: the next one has another number")
    print(f"write into CHANGELOG.md: ## {version} (DATE, build {build_of(freeze())})")
