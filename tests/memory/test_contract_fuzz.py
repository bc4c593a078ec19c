"""Contracts and the package `jsonschema` give the same verdict on random schemas and values
(C23)."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

KEYS = ["a", "b", "ab", "n_1"]
types = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])

numbers = st.one_of(st.integers(-4, 4), st.sampled_from([0.5, -1.5, 2.0, 1e20]))
texts = st.sampled_from(["", "a", "b", "ab", "aab", "é", "😀😀"])
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=8,
)
counts = st.integers(0, 3)
patterns = st.sampled_from(["a", "^a+$", "b$", "^$", "a|é", "^n_"])
references = st.sampled_from(["#/$defs/A", "#/$defs/B"])

RULES: dict[str, st.SearchStrategy[Any]] = {
    "type": st.one_of(
        types,
        st.lists(types, min_size=1, max_size=3, unique=True),
    ),
    "enum": st.lists(values, min_size=1, max_size=3),
    "const": values,
    "minimum": numbers,
    "maximum": numbers,
    "exclusiveMinimum": numbers,
    "exclusiveMaximum": numbers,
    "multipleOf": st.integers(1, 3),
    "minLength": counts,
    "maxLength": counts,
    "pattern": patterns,
    "minItems": counts,
    "maxItems": counts,
    "uniqueItems": st.booleans(),
    "required": st.lists(st.sampled_from(KEYS), max_size=2, unique=True),
    "minProperties": counts,
    "maxProperties": counts,
    "title": st.just("a title"),
    "default": values,
}


def nested(inner: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """Generate the rules that contain schemas."""
    lists = st.lists(inner, min_size=1, max_size=3)
    return {
        "properties": st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
        "patternProperties": st.dictionaries(patterns, inner, max_size=2),
        "additionalProperties": inner,
        "propertyNames": inner,
        "items": inner,
        "prefixItems": lists,
        "allOf": lists,
        "anyOf": st.one_of(lists, inner.map(lambda schema: [schema, {"type": "null"}])),
        "oneOf": lists,
        "$ref": references,
    }


def some_of(rules: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate schemas of one to three of the rules."""
    chosen = st.lists(st.sampled_from(sorted(rules)), min_size=1, max_size=3, unique=True)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({n: rules[n] for n in names}))


schemas = st.recursive(
    st.one_of(some_of(RULES), st.booleans()),
    lambda inner: some_of({**RULES, **nested(inner)}),
    max_leaves=8,
)
roots = st.builds(
    lambda root, a, b: root | {"$defs": {"A": a, "B": b}},
    some_of({**RULES, **nested(schemas)}),
    schemas,
    some_of(RULES),
)

JUDGE = """
select case when schema_failure(%(schema)s) is null  -- evaluated first: a case keeps its order
            then (first_broken_rule(%(value)s, %(schema)s, %(schema)s, '{}')).rule is null end,
       case when schema_failure(%(schema)s) is null
            then (first_broken_rule(%(value)s, rules, rules, '{}')).rule is null end
  from rules_of(%(schema)s) as rules
"""


def test_contracts_agree_with_jsonschema(connection: psycopg.Connection[Any]) -> None:
    judged = [0, 0]

    @settings(max_examples=700, deadline=None, suppress_health_check=list(HealthCheck))
    @given(roots, st.lists(values, min_size=1, max_size=4))
    def agree(schema: Any, tried: list[Any]) -> None:
        validator = Draft202012Validator(schema)
        for value in tried:
            given = {"schema": json.dumps(schema), "value": json.dumps(value)}
            row = connection.execute(JUDGE, given).fetchone()
            if row == (None, None):
                return  # the contract has a circular reference and is invalid
            fits = validator.is_valid(value)
            judged[fits] += 1
            assert row == (fits, fits), (schema, value, [*validator.iter_errors(value)])

    agree()
    assert min(judged) > 150  # both verdicts occurred often
