"""All examples on the pages run as written, and give the results shown after arrows and
comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from perdure.installation.statements import split
from tests.vectors import create_pgvector

SQL = Path(__file__).parents[2] / "sql"
PAGES = [
    *(SQL / f"{name}.md" for name in ("memory", "search", "operating", "incidents")),
    *sorted((SQL / "coordination").glob("*.md")),
]

_BLOCK = re.compile(r"```(sql|python)\n(.*?)```", re.DOTALL)
_ARROW = re.compile(r"-- → ([^\n]*)")
_PRINTED = re.compile(r"print\(.*\)  # (.*)")


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the examples of a page in order: language and text."""
    return ((found[1], found[2]) for found in _BLOCK.finditer(page.read_text("utf-8")))


def statements(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield the statements of a block, each with the result that its arrow shows."""
    statement = None
    for found in split(
        text + "select 'the end'"
    ):  # the splitter puts an arrow before the next statement
        arrow = _ARROW.match(found.text)
        if statement is not None:
            yield statement, arrow and arrow[1]
        statement = found.text[arrow.end() :] if arrow else found.text


def run_sql(connection: psycopg.Connection[Any], text: str) -> int:
    """Run the statements of a block, and compare those with an arrow. Returns how many have one."""
    compared = 0
    for statement, shown in statements(text):
        cursor = connection.execute(statement.encode())
        if shown is not None:
            row = cursor.fetchone()
            assert row is not None, statement
            assert is_as_shown(row[0], shown), f"{statement} gives {row[0]!r}, not {shown}"
            compared += 1
    return compared


def is_as_shown(value: Any, shown: str) -> bool:
    """Check whether a value is what an arrow shows: JSON or a plain word."""
    try:
        return bool(value == json.loads(shown))
    except json.JSONDecodeError:
        return bool(value == shown)


def run_python(names: dict[str, Any], text: str) -> int:
    """Run a block, and compare its output with the comments after its print() calls."""
    printed = StringIO()
    with redirect_stdout(printed):
        exec(compile(text, "an example", "exec", dont_inherit=True), names)
    wanted = _PRINTED.findall(text)
    assert printed.getvalue().splitlines() == wanted
    return len(wanted)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_of_a_page_gives_the_result_shown(page: Path, database: str) -> None:
    """(C20) (C21) (C25) (C77) The examples of a page run in its order, in one app."""
    compared = 0
    with (
        perdure.connect(database, schema="my_app") as client,
        psycopg.connect(database, autocommit=True) as connection,
    ):
        if "create extension" in page.read_text("utf-8"):
            create_pgvector(connection)
        names = {"perdure": perdure, "client": client, "dsn": database, "connection": connection}
        for language, text in blocks(page):
            if language == "sql":
                compared += run_sql(connection, text)
            else:
                compared += run_python(names, text)
        broken = connection.execute("select * from my_app.assert_invariants()").fetchall()
    assert broken == []
    assert compared > 1
