"""What was released stays what it was, and leads to what is installed today. [P13] (T19)

There is no release yet; one that is made of this version, as `make freeze` does, shows that its
script is kept, and what the next ones are held to.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fingerprint import fingerprint
from frozen import GOLDEN, build_of, freeze, install_frozen, released
from releases import LATER, NOW
from test_upgrades import live, rows, value

from perdure.installation import script
from perdure.installation.install import install
from tests.servers import AnyServer, database_of

Connection = psycopg.Connection[Any]
Trees = dict[str, Path]

NEXT = "the next release"


def test_the_scripts_of_all_releases_are_kept_as_they_were() -> None:
    kept = {path.stem: build_of(path) for path in GOLDEN.glob("*.sql")}
    assert kept == released()


def test_what_was_released_under_this_number_is_what_stands_in_the_source() -> None:
    """A change of the source is another version."""
    assert released().get(NOW, script.build()["code"]) == script.build()["code"]


@contextmanager
def empty(server: AnyServer) -> Iterator[Connection]:
    """Give a connection to a database of its own."""
    with (
        database_of(server, "frozen") as name,
        psycopg.connect(server.url(name), autocommit=True) as connection,
    ):
        yield connection


def installed(server: AnyServer, role: str, source: Path | None) -> list[str]:
    """Give the fingerprint of what is installed today."""
    with empty(server) as app:
        install(app, "my_app", source=source)
        live(app, role)
        return fingerprint(app, "my_app")


def upgraded(server: AnyServer, role: str, release: Path, source: Path | None) -> list[str]:
    """Give the fingerprint of a release that is upgraded today; it keeps its rows."""
    with empty(server) as app:
        install_frozen(app, "my_app", release)
        live(app, role)
        kept = rows(app)
        install(app, "my_app", source=source)
        assert rows(app) == kept
        assert value(app, "select count(*) from my_app.assert_invariants()") == 0
        return fingerprint(app, "my_app")


@pytest.mark.parametrize("version", [*released(), NEXT])
def test_an_upgrade_from_a_release_gives_what_an_install_gives(
    server: AnyServer, role: str, trees: Trees, tmp_path: Path, version: str
) -> None:
    """Columns in their order, types, signatures, comments, owners, grants: all of it."""
    release, source = GOLDEN / f"{version}.sql", None
    if version == NEXT:
        release, source = freeze(tmp_path, trees[NOW]), trees[LATER[-1]]
    assert upgraded(server, role, release, source) == installed(server, role, source)


def test_an_upgrade_that_forgets_a_column_is_noticed(
    server: AnyServer, role: str, trees: Trees, tmp_path: Path
) -> None:
    """(T32): a control."""
    source = Path(shutil.copytree(trees[LATER[-1]], tmp_path / "sql"))
    (source / "migrations" / f"{LATER[-1]}.sql").write_text("")
    release = freeze(tmp_path, trees[NOW])
    missing = set(installed(server, role, source)) - set(upgraded(server, role, release, source))
    assert any(" shade " in line for line in missing)


def test_a_release_is_named_with_its_build(tmp_path: Path) -> None:
    changes = tmp_path / "CHANGELOG.md"
    changes.write_text("## 0.3.0 (unreleased)\n\n## 0.2.0 (2026-12-31, build 0f)\n\n## 0.1.0\n")
    assert released(changes) == {"0.2.0": "0f", "0.1.0": ""}


def test_a_release_that_was_changed_is_noticed(trees: Trees, tmp_path: Path) -> None:
    path = freeze(tmp_path, trees[NOW])
    assert build_of(path) == script.build()["code"]
    path.write_text(path.read_text("utf-8").replace("id text", "id  text", 1), "utf-8")
    assert build_of(path) == "changed by hand"
