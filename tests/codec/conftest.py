"""Fixtures of the codec's tests: an app with a codec that uses every kind of value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import perdure
from perdure.codecs import Codec
from tests.codec.programs import QUEUES, app_with, codec


@pytest.fixture
def app() -> perdure.App:
    """Provide the app, with the old key."""
    return app_with(codec())


@pytest.fixture
def client_with(dsn: str) -> Iterator[Callable[..., perdure.Client]]:
    """Provide a function that makes a client: `client_with(codec)`."""
    with ExitStack() as stack:

        def connect(given: Codec | None) -> perdure.Client:
            return stack.enter_context(perdure.connect(dsn, codec=given))

        yield connect


@pytest.fixture
def client(client_with: Callable[..., perdure.Client]) -> perdure.Client:
    """Provide a client with the app's codec."""
    return client_with(codec())


@pytest.fixture
def work(dsn: str, app: perdure.App) -> Iterator[Callable[..., perdure.Worker]]:
    """Provide a function that starts a worker: `work(app_with(other))`."""
    with ExitStack() as stack:

        def start(app: perdure.App = app, **options: Any) -> perdure.Worker:
            options = {"queues": QUEUES, "poll": 0.2} | options
            return stack.enter_context(perdure.Worker(app, dsn=dsn, **options))

        yield start
