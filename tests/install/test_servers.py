"""Tests can run on the embedded server, on one in Docker and on one that already runs."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from tests.servers import RunningServer, opened


class FakeContainer:
    """A fake of testcontainers' PostgresContainer, as no Docker engine may be running."""

    log: list[str]

    def __init__(self, image: str, driver: str | None = "psycopg2") -> None:
        self.log.append(f"{image} {driver}")

    def __enter__(self) -> FakeContainer:
        self.log.append("started")
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append("stopped")

    def get_connection_url(self) -> str:
        """Return what testcontainers returns without a driver."""
        return "postgresql://test:test@localhost:32768/test"


@pytest.fixture(params=["testcontainers.community.postgres", "testcontainers.postgres"])
def docker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put the fake where newer and older releases of testcontainers have the class."""
    FakeContainer.log = []
    module: Any = ModuleType(request.param)
    module.PostgresContainer = FakeContainer
    monkeypatch.setitem(sys.modules, "testcontainers.community.postgres", None)
    monkeypatch.setitem(sys.modules, request.param, module)
    return FakeContainer.log


@pytest.mark.parametrize(
    ("where", "image"),
    [
        ("docker:16", "postgres:16"),
        ("docker:", "postgres:18"),
        ("docker:citusdata/citus:13.0", "citusdata/citus:13.0"),
    ],
)
def test_a_container_is_started_and_stopped(docker: list[str], where: str, image: str) -> None:
    with opened(where) as server:
        assert docker == [f"{image} None", "started"]
        assert server.url() == "postgresql://test:test@localhost:32768/test"
        assert "dbname=other" in server.url("other")
    assert docker[-1] == "stopped"


def test_running_server_is_used_by_its_url() -> None:
    with opened("url:postgresql://jane@db/app") as server:
        assert server.url() == "postgresql://jane@db/app"
        assert isinstance(server, RunningServer)


def test_unknown_kind_of_server_is_rejected() -> None:
    with pytest.raises(ValueError, match="nowhere"), opened("nowhere"):
        pass
