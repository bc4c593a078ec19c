"""Fixtures of the tests with servers of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.cluster.machines import Machine, machine


@pytest.fixture
def machines() -> Iterator[Callable[..., Machine]]:
    """Give a function that makes a server; at the end all of them are gone."""
    with ExitStack() as stack:
        yield lambda **given: stack.enter_context(machine(**given))


@pytest.fixture(scope="session")
def example() -> Iterator[Machine]:
    """Give a stopped server with the app, from which those of the tests are copied."""
    with machine() as made:
        made.start()
        made.provide()
        made.stop()
        yield made


@pytest.fixture
def primary(machines: Callable[..., Machine], example: Machine) -> Machine:
    """Give a server that runs, with the app."""
    made = machines()
    made.begin_as(example)
    made.start()
    return made


@pytest.fixture
def standby(machines: Callable[..., Machine], primary: Machine) -> Machine:
    """Give a standby of the primary."""
    made = machines()
    primary.copy_to(made)
    return made
