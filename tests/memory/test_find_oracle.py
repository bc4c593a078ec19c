"""`find` agrees with a plain Python model on random memories, conditions and orders."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cmp_to_key
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from perdure.basics.paths import parse_path

Connection = psycopg.Connection[Any]
Json = Any

MISSING = object()
EQUAL_KINDS = ("text", "number", "boolean")

texts = some.sampled_from(
    ["", "a", "b", "ab", "5", "true", "null", "ü", "🙂", "x" * 511, "x" * 513]
)
numbers = some.sampled_from([0, 5, -1, 5.5, 10**15, 1e-7, 1e300])
scalars = some.one_of(some.none(), some.booleans(), numbers, texts)
values = some.recursive(
    scalars,
    lambda inner: (
        some.lists(inner, max_size=2)
        | some.dictionaries(some.sampled_from("abc"), inner, max_size=2)
    ),
    max_leaves=4,
)
documents = some.dictionaries(some.sampled_from("abc"), values, max_size=3)
paths = some.sampled_from(["a", "b", "c", "a.b", "b.a.c", "a.0", "a.-1", "b.1.a"])


def plain(value: Json) -> bool:
    """Check whether a value can be written in a condition without an operator."""
    return not isinstance(value, dict)


operators = some.one_of(
    some.fixed_dictionaries({"$eq": values}),
    some.fixed_dictionaries({"$ne": values}),
    *(
        some.fixed_dictionaries({sign: some.one_of(some.booleans(), numbers, texts)})
        for sign in ("$gt", "$gte", "$lt", "$lte")
    ),
    some.fixed_dictionaries({"$gte": numbers, "$lt": numbers}),
    some.fixed_dictionaries({"$in": some.lists(values, max_size=4)}),
    some.fixed_dictionaries({"$nin": some.lists(values, max_size=4)}),
    some.fixed_dictionaries({"$exists": some.booleans()}),
    some.fixed_dictionaries({"$not": some.fixed_dictionaries({"$gt": texts})}),
)
asked = some.one_of(values.filter(plain), operators)
leaves = some.dictionaries(paths, asked, max_size=2)
conditions = some.recursive(
    leaves,
    lambda inner: some.one_of(
        some.fixed_dictionaries({"$and": some.lists(inner, max_size=2)}),
        some.fixed_dictionaries({"$or": some.lists(inner, max_size=3)}),
        some.fixed_dictionaries({"$not": inner}),
    ),
    max_leaves=4,
)
order_keys = some.fixed_dictionaries(
    {"path": paths, "as": some.sampled_from(EQUAL_KINDS), "descending": some.booleans()}
)
orders = some.lists(order_keys, max_size=2)


def at(document: Json, path: str) -> Json:
    """Read the value at a path, or MISSING."""
    here = document
    for key in parse_path(path):
        if isinstance(here, dict) and key in here:
            here = here[key]
        elif isinstance(here, list) and key.lstrip("-").isdigit():
            place = int(key)
            if not -len(here) <= place < len(here):
                return MISSING
            here = here[place]
        else:
            return MISSING
    return here


def kind_of(value: Json) -> str:
    """Name the kind of a value."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"


def equal(one: Json, other: Json) -> bool:
    """Compare as JSON does: a boolean never equals a number."""
    if one is MISSING or kind_of(one) != kind_of(other) or type(one) in (list, dict, type(None)):
        return one is not MISSING and json.dumps(one, sort_keys=True) == json.dumps(
            other, sort_keys=True
        )
    return bool(one == other)


def holds(document: Json, question: Json) -> bool:
    """Decide whether a document meets conditions."""
    combined: dict[str, Callable[[Json], bool]] = {
        "$and": lambda parts: all(holds(document, part) for part in parts),
        "$or": lambda parts: any(holds(document, part) for part in parts),
        "$not": lambda part: not holds(document, part),
    }
    return all(
        combined[key](value) if key in combined else holds_at(at(document, key), value)
        for key, value in question.items()
    )


def holds_at(found: Json, question: Json) -> bool:
    """Decide whether the value at a path meets a condition."""
    if not isinstance(question, dict):
        return equal(found, question)
    compared: dict[str, Callable[[Json], bool]] = {
        "$eq": lambda value: equal(found, value),
        "$ne": lambda value: not equal(found, value),
        "$in": lambda many: any(equal(found, value) for value in many),
        "$nin": lambda many: not any(equal(found, value) for value in many),
        "$exists": lambda wanted: (found is not MISSING) == wanted,
        "$not": lambda inner: not holds_at(found, inner),
        "$gt": lambda value: kind_of(found) == kind_of(value) and found > value,
        "$gte": lambda value: kind_of(found) == kind_of(value) and found >= value,
        "$lt": lambda value: kind_of(found) == kind_of(value) and found < value,
        "$lte": lambda value: kind_of(found) == kind_of(value) and found <= value,
    }
    return all(compared[operator](value) for operator, value in question.items())


def in_order(rows: dict[str, Json], order: list[Json]) -> list[str]:
    """Sort ids by the order; missing values come last, and ties go by id in the direction of the
    last key."""

    def weigh(one: str, other: str) -> int:
        for key in order:
            a, b = (at(rows[row], key["path"]) for row in (one, other))
            a, b = (v[:512] if isinstance(v, str) else v for v in (a, b))
            is_there = [kind_of(v) == key["as"] for v in (a, b)]
            if is_there != [True, True]:
                if is_there[0] != is_there[1]:
                    return -1 if is_there[0] else 1
            elif a != b:
                return (1 if a > b else -1) * (-1 if key["descending"] else 1)
        direction = -1 if order and order[-1]["descending"] else 1
        return (1 if one > other else -1) * direction

    return sorted(rows, key=cmp_to_key(weigh))


@pytest.fixture
def asker(connection: Connection) -> Iterator[Connection]:
    """Give a connection with indexes on some of the paths; delete all jobs afterwards."""
    for path, kind in (("a", "text"), ("a", "number"), ("b", "boolean"), ("c", "contains")):
        connection.execute("select create_index('doc', %s, %s)", [path, kind])
    connection.execute("set enable_seqscan = off")
    yield connection
    connection.execute("delete from journal; delete from jobs")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(some.lists(documents, min_size=1, max_size=12), some.lists(conditions, max_size=6), orders)
def test_find_agrees_with_a_model(
    asker: Connection, memories: list[Json], questions: list[Json], order: list[Json]
) -> None:
    """(C74) (E12) find() returns the rows of the model in its order, in one page or many;
    count_found() agrees."""
    rows = {f"d{number}": memory for number, memory in enumerate(memories)}
    asker.execute("delete from journal; delete from jobs")
    asker.execute("select entity_create(key, 'doc', value) from jsonb_each(%s)", [json.dumps(rows)])
    for question in [{}, *questions]:
        wanted = in_order(
            {row: memory for row, memory in rows.items() if holds(memory, question)}, order
        )
        assert found(asker, question, order, 1000) == wanted, question
        assert found(asker, question, order, 3) == wanted, question
        count = asker.execute("select count_found('doc', %s)", [json.dumps(question)]).fetchone()
        assert count == (len(wanted),)


def found(asker: Connection, question: Json, order: list[Json], page: int) -> list[str]:
    """Find all matches, one page at a time."""
    ids: list[str] = []
    after = None
    while True:
        rows = asker.execute(
            "select id, place from find('doc', %s, %s, %s, %s)",
            [json.dumps(question), json.dumps(order), page, after],
        ).fetchall()
        ids += [row[0] for row in rows]
        if len(rows) < page:
            return ids
        after = json.dumps(rows[-1][1])
