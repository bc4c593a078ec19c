"""Each cell of the table in `sql/memory.md` is what the database does. (C26) … (C35)"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.races.memory_model import alike, put, split_path, without

PAGE = (Path(__file__).parents[2] / "sql" / "memory.md").read_text("utf-8")
NOTHING = ""
_ids = count(1)


def tables() -> list[list[list[str]]]:
    """Read the tables of the section as rows of cells, without backticks."""
    section = PAGE.split("## What a command does\n")[1].split("\n## ")[0]
    blocks = [block.splitlines() for block in section.split("\n\n")]
    return [
        [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]
        for lines in blocks
        if lines[0].startswith("|")
    ]


LEGEND, GRID = tables()
COMMANDS = {row[0]: dict(zip(LEGEND[0], row, strict=True)) for row in LEGEND[2:]}


@dataclass(frozen=True)
class Cell:
    """What the page says about one command at one kind of path."""

    place: str
    memory: str
    path: str
    op: str
    says: str

    @property
    def before(self) -> Any:
        """Return the document before the command."""
        return json.loads(self.memory.replace("V", COMMANDS[self.op]["finds V"]))

    @property
    def given(self) -> Any:
        """Return the argument as JSON."""
        given = COMMANDS[self.op]["given"]
        return None if given == NOTHING else Jsonb(json.loads(given))

    def legend(self, column: str) -> Any:
        """Read a value of the legend; `version` stays a word."""
        says = COMMANDS[self.op][column]
        return says if says == "version" else json.loads(says)

    @property
    def expected(self) -> tuple[Any, Any, str | None]:
        """Return the document, answer and code that the page promises."""
        keys, before = split_path(self.path), self.before
        if self.says.startswith("PD"):
            return before, None, self.says
        if self.says == "nothing":
            return before, None, None
        if self.says in ("new", "done"):
            answer = self.legend(f"{self.says}: answers")
            leaves = COMMANDS[self.op][f"{self.says}: leaves"]
            gone = leaves == NOTHING
            return (
                without(before, keys) if gone else put(before, keys, json.loads(leaves)),
                answer,
                None,
            )
        after = without(before, keys) if self.op == "delete" else before
        return after, json.loads(self.says), None


def cells() -> Iterator[Cell]:
    """Yield all cells."""
    for row in GRID[2:]:
        place, memory, path, *outcomes = row
        for op, says in zip(GRID[0][3:], outcomes, strict=True):
            yield Cell(place, memory, path, op, says)


def result_of(connection: psycopg.Connection[Any], cell: Cell) -> tuple[Any, Any, str | None]:
    """Run the command of a cell on a new document; return document, answer and code."""
    job = f"cell {next(_ids)}"
    connection.execute("select entity_create(%s, 'page', %s)", [job, Jsonb(cell.before)])
    call, values = "select entity_get(%s, %s)", [job, cell.path]
    if cell.op != "get":
        call = "select run_command(%s, %s, parse_path(%s), %s, null, null)"
        values = [job, cell.op, cell.path, cell.given]
    answer, code = None, None
    try:
        (answer,) = connection.execute(call, values).fetchone() or (None,)
    except psycopg.Error as error:
        code = error.sqlstate
    query = "select context, version from jobs where id = %s"
    after, version = connection.execute(query, [job]).fetchone() or (None, None)
    if cell.op in ("set", "merge") and answer == version:
        answer = "version"
    return after, answer, code


def test_the_page_has_every_command_at_every_kind_of_path() -> None:
    assert list(COMMANDS) == GRID[0][3:]
    assert len(list(cells())) == 10 * 21


def test_every_cell_is_true(connection: psycopg.Connection[Any], subtests: pytest.Subtests) -> None:
    """[P3] (C26) (C27) (C28) (C29) (C30) (C31) (C32) (C33) (C34) (C35) The database gives the
    document, answer and code of each cell."""
    for cell in cells():
        with subtests.test(f"{cell.op} at {cell.place}"):
            assert alike(result_of(connection, cell), cell.expected)
