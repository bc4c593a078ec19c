"""`as_stored` returns what a real server gives back from JSONB."""

from __future__ import annotations

import json
import os
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_values import values

from perdure.errors import InvalidValue
from perdure.values.stored import MAX_LEVELS, as_stored

BATCHES = int(os.environ.get("PERDURE_FUZZ_SEEDS", "60"))


@settings(
    max_examples=BATCHES,
    deadline=None,
    database=None,
    suppress_health_check=[*HealthCheck],
)
@given(batch=st.lists(values, min_size=10, max_size=30))
def test_stored_form_equals_what_the_server_returns(
    connection: psycopg.Connection[Any], batch: list[Any]
) -> None:
    for value, returned in zip(batch, round_trip(connection, batch), strict=True):
        assert as_text(as_stored(value)) == as_text(returned)


@pytest.mark.parametrize(
    "value",
    [
        {"bb": 1, "a": 2, "é": 3, "": 4, "aa": {"b": 1, "a": 2}},
        [{1: "a", "2": "b"}, {True: "b", None: "c"}, {-0.0: "a", "0": "b"}],
        [1e16, 9999999999999998.0, 1e23, -1.5e300, 1e-7, -0.0, 0.0, 1.0, 100.0, 5e-324],
        [0, -0, 10**300, -(10**308), 123456789012345678901234567890],
        [(), {}, [[]], ("a", ("b",)), "\x7f\u2028\ufffe😀"],
    ],
    ids=["keys", "keys that become text", "floats", "integers", "shapes"],
)
def test_stored_form_of_known_traps_equals_what_the_server_returns(
    connection: psycopg.Connection[Any], value: Any
) -> None:
    [returned] = round_trip(connection, [value])
    assert as_text(as_stored(value)) == as_text(returned)


@pytest.mark.parametrize("value", ["\0", {"a\0": 1}, "\ud800", float("nan"), float("-inf")])
def test_value_that_the_server_rejects_is_rejected(
    connection: psycopg.Connection[Any], value: Any
) -> None:
    with pytest.raises(InvalidValue):
        as_stored(value)
    with pytest.raises(psycopg.DataError), connection.transaction():
        round_trip(connection, [value])


def test_levels_are_counted_as_in_sql(connection: psycopg.Connection[Any]) -> None:
    value: Any = "x" * 200
    for _ in range(MAX_LEVELS):
        value = [value]
    for nested, refused in ((value, False), ([value], True), ([[]], False)):
        row = connection.execute(
            "select jsonb_path_exists(%s::jsonb, 'strict $.**{101}')", [json.dumps(nested)]
        ).fetchone()
        assert row == (refused,)
        try:
            as_stored(nested)
        except ValueError:
            assert refused
        else:
            assert not refused


def round_trip(connection: psycopg.Connection[Any], batch: list[Any]) -> list[Any]:
    """Send values through JSONB, as text both ways."""
    rows = connection.execute(
        "select sent::jsonb::text from unnest(%s::text[]) with ordinality as t (sent, place)"
        " order by place",
        [[json.dumps(value) for value in batch]],
    ).fetchall()
    return [json.loads(text) for (text,) in rows]


def as_text(value: Any) -> str:
    """Write a value so that the order of keys and the types of numbers show."""
    return repr(value)
