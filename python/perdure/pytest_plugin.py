"""The plugin for pytest: `perdure_lab` gives each test an app of its own, and checks it at the end.

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
    from .app import App
    from .testing import Lab


@pytest.fixture(scope="session")
def perdure_dsn() -> Iterator[str]:
    """Give the database of the labs: `$PERDURE_DATABASE_URL`, else an embedded one of this run."""
    import os

    from .connections import DATABASE_URL
    from .embedded import Server

    if given := os.environ.get(DATABASE_URL):
        yield given
        return
    with Server() as server:
        yield server.url()


@pytest.fixture
def perdure_app() -> App:
    """Give the app under test: a project says which one it is."""
    raise pytest.UsageError("define a fixture perdure_app that gives your perdure.App")


@pytest.fixture
def perdure_lab(perdure_app: App, perdure_dsn: str) -> Iterator[Lab]:
    """Give a lab; when the test has passed, its jobs must replay and its database be sound."""
    from .testing import Lab

    with Lab(perdure_app, dsn=perdure_dsn) as lab:
        yield lab


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Check the lab as a part of the test, so that what is found is a failure of it."""
    result = yield
    lab = getattr(item, "funcargs", {}).get("perdure_lab")
    if lab is not None:  # of a project whose tests are async, an AsyncLab
        getattr(lab, "plain", lab).check()
    return result
