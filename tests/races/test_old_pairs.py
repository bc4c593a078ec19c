"""Every mutator runs with a snapshot that does not show another: it is refused, or breaks no law.

A begins a transaction in REPEATABLE READ and reads; B calls a mutator; then A calls one, too. By
default, B calls those that leave something for a task. With PERDURE_RACE_PAIRS=all, as in
`make pairs`, every pair runs. [P3] [P5] [P6] [P8]
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import psycopg
import pytest

from tests.races.sessions import Session
from tests.races.test_pairs import EVERYTHING, MUTATORS, cast

MESSAGES = (
    *("signal", "turn of a hook", "end of a hook", "hook finished", "end of a child"),
    *("resolve an item", "command", "cancel", "cancel of a hook", "terminate", "hook"),
)
"""The mutators that leave something for a task, which an older snapshot does not show."""


def pairs(everything: bool) -> Iterator[tuple[str, str]]:
    """List the pairs: what the snapshot does not show, and what is called with it."""
    for later, older in product(MUTATORS if everything else MESSAGES, MUTATORS):
        if everything or not MUTATORS[older].is_alike:
            yield later, older


@pytest.mark.parametrize(("later", "older"), list(pairs(EVERYTHING)))
def test_call_with_older_snapshot_is_refused_or_breaks_no_law(
    a: Session, b: Session, later: str, older: str
) -> None:
    actors = cast(b)
    a.run("begin isolation level repeatable read")
    a.status(actors.job)  # the snapshot is from here
    try:
        MUTATORS[later].do(b, actors)
        MUTATORS[older].do(a, actors)
    except psycopg.Error:
        a.rollback()
    else:
        a.commit()
    assert b.broken() == []
