"""Hypothesis strategies for everything that json.dumps() writes, biased to what JSONB changes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

texts = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    st.sampled_from(["", "a", "é", "bb", "😀", "\x7f", "\u2028", '"\\/', "key.with.dots"]),
)
numbers = st.one_of(
    st.integers(),
    st.integers(-(10**308), 10**308),
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: abs(x) <= 1e308),
    st.floats(-1e20, 1e20),
    st.floats(9e15, 2e16),
    st.sampled_from([0.0, -0.0, 1.0, -1.5, 1e16, 1e22, 1e23, 5e-324, 1e-5, 0.0001, 1e308]),
)
keys = st.one_of(texts, texts, st.integers(-3, 3), st.floats(-3, 3), st.booleans(), st.none())
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=4)
    pairs = st.lists(st.tuples(keys, inner), unique_by=_text_of_key, max_size=5)
    return st.one_of(lists, lists.map(tuple), pairs.map(dict))


def _text_of_key(pair: tuple[Any, Any]) -> str:
    return json.dumps({pair[0]: None})


values = st.recursive(scalars, _containers, max_leaves=15)
