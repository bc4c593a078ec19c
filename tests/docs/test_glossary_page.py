"""The glossary uses only names that exist in the code."""

from __future__ import annotations

import re
from pathlib import Path

import perdure

SQL = Path(__file__).parents[2] / "sql"
OWNERS = (perdure, perdure.AsyncEntity, perdure.Client, perdure.Handle)


def test_names_in_the_glossary_exist_in_the_code() -> None:
    """Each row also has a cell for each of the other systems."""
    page = (SQL / "coordination" / "glossary.md").read_text("utf-8")
    rows = re.findall(r"^\| (?!here|-)(.*?) \|(.*)\|$", page, re.MULTILINE)
    names = [name.split(".")[-1] for word, _ in rows for name in re.findall(r"`([\w.]+)`", word)]
    functions = "\n".join(path.read_text("utf-8") for path in (SQL / "functions").rglob("*.sql"))
    unknown = [
        name
        for name in names
        if not any(hasattr(owner, name) for owner in OWNERS)
        and f"function @extschema@.{name}(" not in functions
    ]
    assert len(names) >= 7
    assert unknown == []
    assert {others.count("|") for _, others in rows} == {5}
