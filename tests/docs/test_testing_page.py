"""The pgTAP example on the page about testing passes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg

PAGE = Path(__file__).parents[2] / "sql" / "coordination" / "testing.md"


def test_pgtap_example_passes(pgtap_connection: psycopg.Connection[Any]) -> None:
    (example,) = re.findall(r"```pgtap\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    text = example.replace("my_app", "perdure").replace("begin;", "").replace("rollback;", "")
    with pgtap_connection.transaction(force_rollback=True):
        cursor = pgtap_connection.execute(text.encode())
        lines = [str(row[0]) for _ in _results(cursor) for row in cursor.fetchall()]
    assert [line[:4] for line in lines if re.match(r"(not )?ok", line)] == [
        "ok 1",
        "ok 2",
        "ok 3",
        "ok 4",
    ]


def _results(cursor: psycopg.Cursor[Any]) -> Any:
    """Yield the cursor at each statement that returns rows."""
    while True:
        if cursor.description is not None:
            yield cursor
        if not cursor.nextset():
            return
