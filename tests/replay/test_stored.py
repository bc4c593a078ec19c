"""`as_stored` alone: rejected values, places in errors, copies and fingerprints."""

from __future__ import annotations

import json
import os
from collections import OrderedDict, namedtuple
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from json_values import values

from perdure.errors import InvalidValue, NumberOutOfRange, PerdureError, ValueTooDeep
from perdure.values.stored import MAX_LEVELS, as_stored
from perdure.workflow.operations import fingerprint_of

EXAMPLES = int(os.environ.get("PERDURE_FUZZ_SEEDS", "100"))


class Colour(StrEnum):
    """A subclass of str."""

    RED = "red"


class Level(IntEnum):
    """A subclass of int."""

    HIGH = 3


Point = namedtuple("Point", "x y")


def nested(levels: int) -> Any:
    """Return a number inside nested lists."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(value=values)
def test_stored_value_is_stored_unchanged(value: Any) -> None:
    stored = as_stored(value)
    assert repr(as_stored(stored)) == repr(stored)
    assert repr(json.loads(json.dumps(stored))) == repr(stored)
    assert fingerprint(stored) == fingerprint(value)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({"bb": 1, "a": 2}, "{'a': 2, 'bb': 1}"),
        ({"é": 1, "zz": 2, "aaa": 3}, "{'zz': 2, 'é': 1, 'aaa': 3}"),
        ({1: "a", None: "b"}, "{'1': 'a', 'null': 'b'}"),
        (1e16, "10000000000000000"),
        (1e23, "100000000000000000000000"),
        (-0.0, "0.0"),
        (1.0, "1.0"),
        (1e-7, "1e-07"),
        ((1, (2,)), "[1, [2]]"),
        (Colour.RED, "'red'"),
        ({Colour.RED: Level.HIGH}, "{'red': 3}"),
        (Point(1, True), "[1, True]"),
        (OrderedDict(b=None, a=1), "{'a': 1, 'b': None}"),
    ],
)
def test_values_take_the_form_of_jsonb(value: Any, stored: str) -> None:
    assert repr(as_stored(value)) == stored


@pytest.mark.parametrize(
    ("value", "error", "place"),
    [
        (float("nan"), InvalidValue, "the whole value"),
        ({"a": [1, {"b": float("inf")}]}, InvalidValue, "'a.1.b'"),
        ({"a": "x\0y"}, InvalidValue, "'a'"),
        ({"a": {"x\0": 1}}, InvalidValue, "'a'"),
        ({"a": ["\ud83d"]}, InvalidValue, "'a.0'"),
        ({"a": {"\ud83d\ude00": 1}}, InvalidValue, "'a'"),
        ({"a": b"bytes"}, InvalidValue, "'a'"),
        ({"a": Decimal(1)}, InvalidValue, "'a'"),
        ({(1, 2): 3}, InvalidValue, "a key of it"),
        ({"a": {1: "lost", "1": "kept"}}, InvalidValue, "'a'"),
        ({1: {2, 3}}, InvalidValue, "'1'"),
        ([10**308 + 1], NumberOutOfRange, "'0'"),
        ({10**5000: 1}, NumberOutOfRange, "a key of it"),
        ([1.5e308], NumberOutOfRange, "'0'"),
        (nested(MAX_LEVELS + 1), ValueTooDeep, "'0.0.0"),
    ],
)
def test_error_names_the_place_of_the_value(
    value: Any, error: type[PerdureError], place: str
) -> None:
    with pytest.raises(error) as raised:
        as_stored(value)
    assert place in str(raised.value.detail)
    assert raised.value.hint


def test_circular_value_is_rejected_as_too_deep() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueTooDeep):
        as_stored(value)


def test_deepest_allowed_value_is_accepted() -> None:
    assert as_stored(nested(MAX_LEVELS)) == nested(MAX_LEVELS)


def test_stored_value_is_a_deep_copy() -> None:
    value = {"a": [1], "b": {"c": 2}}
    stored = as_stored(value)
    value["a"].append(2)
    value["b"]["c"] = 3
    assert stored == {"a": [1], "b": {"c": 2}}


def fingerprint(value: Any) -> str:
    """Fingerprint a value as it is stored."""
    return fingerprint_of(as_stored(value))


def test_fingerprints_are_short_and_distinguish_values() -> None:
    assert fingerprint(["subsidies", 1]) == fingerprint(("subsidies", 1))
    assert fingerprint({"a": 1, "bb": 2}) == fingerprint({"bb": 2, "a": 1})
    different = [[], {}, [1], ["1"], [1.0], [True], [None], [[1]], {"1": 1}, ["subsidies"]]
    assert len({fingerprint(value) for value in different}) == len(different)
    assert all(len(fingerprint(value)) == 16 for value in different)
