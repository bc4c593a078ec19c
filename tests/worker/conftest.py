"""A fixture for tests of workers: what they send."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.database.call import Call
from perdure.database.connections import AsyncLink


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
