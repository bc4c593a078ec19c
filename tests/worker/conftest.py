"""Fixtures for tests of workers: an empty app, a client, and workers that stop with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import perdure
from perdure.database.call import Call
from perdure.database.connections import AsyncLink
from tests.databases import UNHINTED


@pytest.fixture
def app() -> perdure.App:
    """An empty app."""
    return perdure.App()


@pytest.fixture
def client(dsn: str) -> Iterator[perdure.Client]:
    """A client of the test's database."""
    with perdure.connect(dsn) as client:
        yield client


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that workers of this process send, except heartbeats."""
    functions: list[str] = []
    call_of = AsyncLink.call

    async def call(link: AsyncLink, call: Call) -> Any:
        functions.append(call.function)
        return await call_of(link, call)

    monkeypatch.setattr(AsyncLink, "call", call)
    return functions


@pytest.fixture
def work(dsn: str, app: perdure.App) -> Iterator[Callable[..., perdure.Worker]]:
    """A function that starts a worker of the app: `work(slots=1)`."""
    with ExitStack() as stack:

        def start(app: perdure.App = app, **options: Any) -> perdure.Worker:
            return stack.enter_context(perdure.Worker(app, dsn=dsn, **UNHINTED | options))

        yield start
