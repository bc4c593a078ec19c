"""Fixtures for the tests of installation: later releases, and a server that has the extension."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import releases

from perdure.embedded.server import Server
from perdure.installation import script
from tests.servers import AnyServer


@pytest.fixture(scope="module")
def role(server: AnyServer) -> Iterator[str]:
    """Create a role, to which the tests give access to some functions and relations."""
    name = f"role_{os.getpid()}"
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"create role {name}")
        yield name
        admin.execute(f"drop role {name}")


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the `sql/` of this version and of two later ones, oldest first."""
    folder = tmp_path_factory.mktemp("releases")
    return {version: releases.tree(folder, version) for version in (releases.NOW, *releases.LATER)}


@pytest.fixture(scope="session")
def extended(trees: dict[str, Path]) -> Iterator[Server]:
    """Give a server that has the extension in this version (the default) and in later ones. Since
    PostgreSQL 18 a path leads to the files; before, they are copied to the server's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for tree in reversed(trees.values()):
            built = script.write_extension(Path(folder, "extension"), tree).parent
        for file in (built, *built.iterdir()):
            file.chmod(0o755)
        with Server() as server:
            modern, bindir = version_of(server) >= 18, server.bindir
        settings = {"extension_control_path": f"{folder}:$system"} if modern else {}
        with (
            nullcontext() if modern else copied(built, bindir),
            Server(settings=settings) as server,
        ):
            yield server


@pytest.fixture
def extension(
    extended: Server, request: pytest.FixtureRequest
) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection to a database of the server that has the extension."""
    name = f"u{abs(hash(request.node.name))}"
    with psycopg.connect(extended.url(), autocommit=True) as admin:
        admin.execute(f"create database {name}")
    with psycopg.connect(extended.url(name), autocommit=True) as connection:
        connection.execute("create schema my_app")
        yield connection


def version_of(server: Server) -> int:
    """Return the major version of a server."""
    with psycopg.connect(server.url()) as connection:
        return connection.info.server_version // 10000


@contextmanager
def copied(built: Path, bindir: Path) -> Iterator[None]:
    """Copy the extension to the server's extensions; the last run that leaves removes it."""
    asked = subprocess.check_output([bindir / "pg_config", "--sharedir"], text=True)
    place = Path(asked.strip(), "extension")
    if not os.access(place, os.W_OK):
        pytest.skip(f"before PostgreSQL 18 this needs the right to write to {place}")
    with Path(tempfile.gettempdir(), "perdure-extension.lock").open("w") as used:
        fcntl.flock(used, fcntl.LOCK_SH)
        copies = [Path(shutil.copy(file, place)) for file in built.iterdir()]
        try:
            yield
        finally:
            with suppress(BlockingIOError):  # another test run uses them
                fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for file in copies:
                    file.unlink()
