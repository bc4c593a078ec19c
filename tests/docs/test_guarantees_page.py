"""The page of guarantees: each promise is there, with a test that exists and cites it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "sql" / "guarantees.md").read_text()
PROMISES = {
    name: re.findall(r"`(tests/[^`]+)`", row)
    for name, row in re.findall(r"^\| (P\d+) \|(.*)$", PAGE, re.MULTILINE)
}
PLACES = re.findall(r"\]\((?!http)([^)#]+)|`(tests/[\w/.]+|pgtap/[\w/.]+)`", PAGE)


def cited_by(place: str) -> str:
    """Give the text of a test, and of what stands before all tests of its file."""
    file, _, test = place.partition("::")
    text = (ROOT / file).read_text()
    if not test:
        return text
    functions = [
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == test
    ]
    return "\n".join(
        [ast.get_docstring(ast.parse(text)) or ""]
        + [ast.get_source_segment(text, node) or "" for node in functions]
    )


def test_every_promise_that_is_cited_is_there() -> None:
    files = [
        *(ROOT / "sql").rglob("*.sql"),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "pgtap").rglob("*.sql"),
    ]
    cited = {name for file in files for name in re.findall(r"\[(P\d+)\]", file.read_text())}
    assert set(PROMISES) == cited | {f"P{number}" for number in range(1, 14)}


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_shown_by_a_test_that_cites_it(promise: str) -> None:
    assert PROMISES[promise]
    for place in PROMISES[promise]:
        assert f"[{promise}]" in cited_by(place), place


def test_all_that_the_page_names_is_there() -> None:
    for link, file in PLACES:
        place = (ROOT / "sql" / link).resolve() if link else ROOT / file
        assert place.exists(), link or file
