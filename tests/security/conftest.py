"""Fixtures of the security tests: one app for all of them, whose owner is no superuser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.security.house import Connection, House, built
from tests.servers import AnyServer


@pytest.fixture(scope="session")
def house(server: AnyServer) -> Iterator[House]:
    """Give the app of these tests, with its roles; at the end its invariants must hold."""
    with built(server) as house:
        yield house
        with house.entered("owner") as connection:
            assert connection.execute("select * from assert_invariants()").fetchall() == []


@pytest.fixture
def enter(house: House) -> Iterator[Callable[[str], Connection]]:
    """Give a function that logs in as a role: `enter("client")`."""
    with ExitStack() as stack:
        yield lambda role: stack.enter_context(house.entered(role))
