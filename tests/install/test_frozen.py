"""Released scripts stay unchanged, and an upgrade from each gives what an install gives. [P13]
(T19)

A script made from this version, as by `make freeze`, is tested like a release.
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
from test_upgrades import populate, rows

from perdure.installation import script
from perdure.installation.install import install
from tests.databases import value
from tests.servers import AnyServer, database_of

Connection = psycopg.Connection[Any]
Trees = dict[str, Path]

NEXT = "the next release"


def test_kept_scripts_are_those_of_the_change_log() -> None:
    kept = {path.stem: build_of(path) for path in GOLDEN.glob("*.sql")}
    assert kept == released()


def test_source_of_a_released_version_is_unchanged() -> None:
    """A change of the source needs a new version number."""
    assert released().get(NOW, script.build()["code"]) == script.build()["code"]


@contextmanager
def empty(server: AnyServer) -> Iterator[Connection]:
    """Give a connection to a new, empty database."""
    with (
        database_of(server, "frozen") as name,
        psycopg.connect(server.url(name), autocommit=True) as connection,
    ):
        yield connection


def installed(server: AnyServer, role: str, source: Path | None) -> list[str]:
    """Return the fingerprint of a fresh install."""
    with empty(server) as app:
        install(app, "my_app", source=source)
        populate(app, role)
        return fingerprint(app, "my_app")


def upgraded(server: AnyServer, role: str, release: Path, source: Path | None) -> list[str]:
    """Upgrade a release, check that it keeps its rows, and return its fingerprint."""
    with empty(server) as app:
        install_frozen(app, "my_app", release)
        populate(app, role)
        kept = rows(app)
        install(app, "my_app", source=source)
        assert rows(app) == kept
        assert value(app, "select count(*) from my_app.assert_invariants()") == 0
        return fingerprint(app, "my_app")


@pytest.mark.parametrize("version", [*released(), NEXT])
def test_upgrade_from_a_release_gives_the_same_schema_as_an_install(
    server: AnyServer, role: str, trees: Trees, tmp_path: Path, version: str
) -> None:
    """Order of columns, types, signatures, comments, owners and grants are all the same."""
    release, source = GOLDEN / f"{version}.sql", None
    if version == NEXT:
        release, source = freeze(tmp_path, trees[NOW]), trees[LATER[-1]]
    assert upgraded(server, role, release, source) == installed(server, role, source)


def test_fingerprint_shows_a_column_that_an_upgrade_forgot(
    server: AnyServer, role: str, trees: Trees, tmp_path: Path
) -> None:
    """(T32): a control, which proves that the comparison finds mistakes."""
    source = Path(shutil.copytree(trees[LATER[-1]], tmp_path / "sql"))
    (source / "migrations" / f"{LATER[-1]}.sql").write_text("")
    release = freeze(tmp_path, trees[NOW])
    missing = set(installed(server, role, source)) - set(upgraded(server, role, release, source))
    assert any(" shade " in line for line in missing)


def test_change_log_gives_releases_and_their_builds(tmp_path: Path) -> None:
    changes = tmp_path / "CHANGELOG.md"
    changes.write_text("## 0.3.0 (unreleased)\n\n## 0.2.0 (2026-12-31, build 0f)\n\n## 0.1.0\n")
    assert released(changes) == {"0.2.0": "0f", "0.1.0": ""}


def test_edited_script_of_a_release_is_detected(trees: Trees, tmp_path: Path) -> None:
    path = freeze(tmp_path, trees[NOW])
    assert build_of(path) == script.build()["code"]
    path.write_text(path.read_text("utf-8").replace("id text", "id  text", 1), "utf-8")
    assert build_of(path) == "changed by hand"
