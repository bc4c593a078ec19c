"""Fixtures of the tests with their own servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.cluster.machines import Machine, machine


@pytest.fixture
def machines() -> Iterator[Callable[..., Machine]]:
    """Provide a function that makes a server; all servers are gone at the end."""
    with ExitStack() as stack:
        yield lambda **given: stack.enter_context(machine(**given))


@pytest.fixture(scope="session")
def example() -> Iterator[Machine]:
    """Provide a stopped server with the app, which the servers of tests copy."""
    with machine() as made:
        made.start()
        made.provide()
        made.stop()
        yield made


@pytest.fixture
def primary(machines: Callable[..., Machine], example: Machine) -> Machine:
    """Provide a running server with the app."""
    made = machines()
    made.begin_as(example)
    made.start()
    return made


@pytest.fixture
def standby(machines: Callable[..., Machine], primary: Machine) -> Machine:
    """Provide a standby of the primary."""
    made = machines()
    primary.copy_to(made)
    return made
