"""Fixtures for tests of workers: how to make them, and what they send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure.database.call import Call
from perdure.database.connections import AsyncLink
from tests.databases import UNHINTED


@pytest.fixture
def serve(dsn: str) -> Callable[..., perdure.Worker]:
    """Give a function that makes a worker of an app, or of a version of it."""
    return lambda app, **options: perdure.Worker(app, dsn=dsn, **UNHINTED, **options)


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
