"""Fixtures of the storms: a cluster that is crashed, and databases in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.database import connections
from perdure.installation.install import install
from tests.databases import SCHEMA, connected
from tests.storms.cluster import Cluster, own_cluster
from tests.storms.figures import FIGURES, cited
from tests.storms.proxy import Proxy, proxy_to
from tests.storms.storm import Storm
from tests.storms.workers import LONGEST_PAUSE


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Provide the cluster of the storms."""
    with own_cluster() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses of clients, so that tests do not wait for 5 s."""
    monkeypatch.setattr(connections, "LONGEST_PAUSE", LONGEST_PAUSE)


@pytest.fixture(scope="session")
def storm_template(cluster: Cluster) -> Iterator[str]:
    """Provide the name of a database of that cluster with the app."""
    with cluster.database() as name:
        with connected(cluster.url(name)) as connection:
            install(connection, SCHEMA)
        yield name


@pytest.fixture
def storm_database(cluster: Cluster, storm_template: str) -> Iterator[str]:
    """Provide the name of a fresh database of that cluster."""
    with cluster.database(storm_template) as name:
        yield name


@pytest.fixture(scope="module")
def shared_database(cluster: Cluster, storm_template: str) -> Iterator[str]:
    """Provide the name of one database for all tests of a module, to be quick."""
    with cluster.database(storm_template) as name:
        yield name


@pytest.fixture
def proxy(cluster: Cluster, storm_database: str) -> Iterator[tuple[Proxy, str]]:
    """Provide a proxy to that database, and the DSN that leads through it."""
    with proxy_to(cluster.server.url(storm_database)) as proxy:
        yield proxy


@pytest.fixture
def brewing(
    request: pytest.FixtureRequest, cluster: Cluster, storm_database: str, tmp_path: Path
) -> Iterator[Callable[..., Storm]]:
    """Provide a function that makes a storm, whose figures are in the table at the end."""
    storms: list[Storm] = []

    def brew(name: str, dsn: str | None = None, **options: Any) -> Storm:
        direct, ordinary = cluster.url(storm_database), cluster.server.url(storm_database)
        options["promises"] = cited(request.function.__doc__)
        storms.append(Storm(name, cluster, direct, dsn or ordinary, tmp_path, **options))
        return storms[-1]

    yield brew
    for storm in storms:
        storm.history.close()
        request.node.user_properties.append((FIGURES, storm.figures.row()))
