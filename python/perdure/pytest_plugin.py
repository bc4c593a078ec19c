"""The pytest plugin: `perdure_lab` gives each test an app of its own and checks it at the end.

Say which app in your `conftest.py`:

    @pytest.fixture
    def perdure_app() -> perdure.App:
        return my_module.app
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from perdure.testing import Lab
    from perdure.workflow.app import App


@pytest.fixture(scope="session")
def perdure_dsn() -> Iterator[str]:
    """Provide the database of the labs: `$PERDURE_DATABASE_URL`, else a new embedded server."""
    import os

    from perdure.database.source import DATABASE_URL
    from perdure.embedded.server import Server

    if given := os.environ.get(DATABASE_URL):
        yield given
        return
    with Server() as server:
        yield server.url()


@pytest.fixture
def perdure_app() -> App:
    """Provide the app under test. Define this fixture in your project."""
    raise pytest.UsageError("define a fixture perdure_app that gives your perdure.App")


@pytest.fixture
def perdure_lab(perdure_app: App, perdure_dsn: str) -> Iterator[Lab]:
    """Provide a lab. After the test, its jobs must replay and no invariant may be broken."""
    from perdure.testing import Lab

    with Lab(perdure_app, dsn=perdure_dsn) as lab:
        yield lab


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Check the lab as a part of the test, so that what is found fails the test."""
    result = yield
    lab = getattr(item, "funcargs", {}).get("perdure_lab")
    if lab is not None:  # of a project whose tests are async, an AsyncLab
        getattr(lab, "plain", lab).check()
    return result
