"""A wheel and an sdist contain everything that an install needs, without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SQL = sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / "sql").rglob("*.*"))


def built(kind: str, folder: Path) -> Path:
    """Build a wheel or an sdist."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel."""
    return built("wheel", tmp_path_factory.mktemp("wheel"))


def test_wheel_contains_the_sql_and_the_typing_marker(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.startswith("perdure/sql/")]
    assert {f"perdure/{file}" for file in SQL} <= set(names)
    assert {"perdure/py.typed", "perdure/cli/main.py", "perdure/embedded/supervisor.py"} <= set(
        names
    )


def test_pytest_finds_its_plugin(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (points,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
    assert (
        "[pytest11]\nperdure.pytest_plugin = perdure.pytest_plugin" in archive.read(points).decode()
    )


def test_installed_package_finds_the_sql_in_itself(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        "from perdure.installation import script; print(script.source(), len(list(script.parts())))"
    )
    found = subprocess.check_output(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.fspath(tmp_path)},
        text=True,
    )
    place, parts = found.split()
    assert Path(place) == tmp_path / "perdure" / "sql"
    assert int(parts) > 5


def test_sdist_contains_the_sql_and_the_tests(tmp_path: Path) -> None:
    with tarfile.open(built("sdist", tmp_path)) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert set(SQL) <= inside
    assert {"Makefile", "conftest.py", "LICENSE", "tests/servers.py"} <= inside
