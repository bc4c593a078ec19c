"""Fixtures of the crash tests: they share one database and one stage, to be quick."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import perdure
from tests.engine.crashing import Stage, stage_on
from tests.engine.programs import app_of
from tests.engine.references import References
from tests.servers import AnyServer, database_of


@pytest.fixture(scope="session")
def crash_dsn(server: AnyServer, template: str) -> Iterator[str]:
    """Provide a database in which workers are killed."""
    with database_of(server, "engine", template) as name:
        yield server.url(name)


@pytest.fixture(scope="module")
def stage(crash_dsn: str) -> Iterator[Stage]:
    """Provide a stage on which workers live and die."""
    with stage_on(crash_dsn) as stage:
        yield stage


@pytest.fixture(scope="module")
def programs(stage: Stage) -> perdure.App:
    """Provide the app of all programs."""
    return app_of(stage.ledger)


@pytest.fixture(scope="module")
def references(stage: Stage, programs: perdure.App) -> References:
    """Provide the outcomes of the programs without faults."""
    return References(stage, programs)
