"""The pages `sql/README.md` and `sql/operating.md` list all invariants."""

from __future__ import annotations

import re

import pytest

from tests.source import SQL, sql_functions

PAGES = ("README.md", "operating.md")


def codes_of_the_functions() -> list[str]:
    """List the codes that assert_invariants() can return."""
    bodies = {function.name: function.body for function in sql_functions()}
    asked = re.findall(r"from (\w+)\(\)", bodies["assert_invariants"])
    codes = {code for name in asked for code in re.findall(r"'(I\d+)'", bodies[name])}
    return sorted(codes, key=lambda code: int(code[1:]))


@pytest.mark.parametrize("page", PAGES)
def test_page_has_a_row_for_each_invariant_in_order(page: str) -> None:
    """(T31): a reader can look up every code that is reported."""
    rows = re.findall(r"^\| (I\d+) \| .+ \|$", (SQL / page).read_text("utf-8"), re.MULTILINE)
    assert rows == codes_of_the_functions()
