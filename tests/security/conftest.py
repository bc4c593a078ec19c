"""Fixtures of the security tests: one app for all of them, owned by a role that is no superuser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.security.secured import Connection, SecuredApp, secured_app
from tests.servers import AnyServer


@pytest.fixture(scope="session")
def secured(server: AnyServer) -> Iterator[SecuredApp]:
    """Give the app of these tests and its roles; at the end, its invariants must hold."""
    with secured_app(server) as secured:
        yield secured
        with secured.connected("owner") as connection:
            assert connection.execute("select * from assert_invariants()").fetchall() == []


@pytest.fixture
def connect_as(secured: SecuredApp) -> Iterator[Callable[[str], Connection]]:
    """Give a function that connects as a role: `connect_as("client")`."""
    with ExitStack() as stack:
        yield lambda role: stack.enter_context(secured.connected(role))
