"""The database enforces limits, and Python checks them early. Both accept the same last value, and
refuse the next one with the same code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import psycopg
import pytest

from perdure import PerdureError
from perdure.basics import names
from perdure.basics.paths import MAX_KEYS, parse_path
from perdure.values.stored import MAX_LEVELS, MAX_NUMBER
from perdure.workers import worker
from perdure.workflow import operations, progress

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Bound:
    """A limit: how Python and SQL check a value, and how to make a value of a size."""

    last: int
    python: Callable[[Any], object]
    sql: str
    value: Callable[[int], Any]
    code: str


def lists(levels: int) -> Any:
    """Nest a number in this many lists."""
    return reduce(lambda inner, _: [inner], range(levels), 1)


VALUE = "raise_failure(value_failure(%s::jsonb, 'it'))"
LEASE = "check_lease(%s::interval)"
MARKS = 2  # the quotes around a text

BOUNDS = {
    "bytes of a name": Bound(
        names.MAX_BYTES,
        lambda value: names.check_name(value, "it"),
        "check_name(%s, 'it')",
        lambda size: "é" * (size // 2) + "x" * (size % 2),
        "PD104",
    ),
    "keys of a path": Bound(
        MAX_KEYS,
        parse_path,
        "check_path(parse_path(%s))",
        lambda keys: ".".join(["k"] * keys),
        "PD101",
    ),
    "bytes of a value": Bound(
        operations.MAX_BYTES,
        operations.stored,
        VALUE,
        lambda size: "x" * (size - MARKS),
        "PD301",
    ),
    "bytes of a value with blanks": Bound(
        operations.MAX_BYTES,
        operations.stored,
        VALUE,
        lambda size: ["x" * (size - len('["", 1]')), 1],
        "PD301",
    ),
    "levels of a value": Bound(MAX_LEVELS, operations.stored, VALUE, lists, "PD302"),
    "a number": Bound(MAX_NUMBER, operations.stored, VALUE, int, "PD304"),
    "a number below zero": Bound(
        MAX_NUMBER, operations.stored, VALUE, lambda number: -number, "PD304"
    ),
    "a lease": Bound(
        worker.LONGEST_LEASE, worker.check_lease, LEASE, lambda seconds: f"{seconds} s", "PD107"
    ),
    "a short lease": Bound(
        round(-1000 * worker.SHORTEST_LEASE),
        worker.check_lease,
        LEASE,
        lambda less: f"{-less} ms",
        "PD107",
    ),
    "bytes of progress": Bound(
        progress.MAX_BYTES,
        progress.Progress(None, progress.MAX_BYTES)._small,
        "raise_failure(progress_failure(%s::jsonb))",
        lambda size: "x" * (size - MARKS),
        "PD301",
    ),
}


def refusal(check: Callable[[], object]) -> str | None:
    """Give the code with which the check refuses a value, or None."""
    try:
        check()
    except PerdureError as error:
        return error.code
    except psycopg.Error as error:
        return error.sqlstate
    return None


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
def test_python_and_the_database_refuse_the_same_values(
    connection: Connection, bound: Bound
) -> None:
    query = f"select {bound.sql}".encode()
    for size, expected in ((bound.last, None), (bound.last + 1, bound.code)):
        value = bound.value(size)
        sent = json.dumps(value) if "jsonb" in bound.sql else value
        assert refusal(partial(bound.python, value)) == expected
        assert refusal(partial(connection.execute, query, [sent])) == expected
