"""A path means the same in Python and in SQL."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from perdure.basics.paths import parse_path, write_path
from perdure.errors import InvalidPath

PATHS = [
    "user.email",
    "items.0",
    "items.-1",
    '"key.with.dots".x',
    '""',
    '"".a',
    'a."".b',
    r'"a \"quoted\" \\ key".x',
    "a..b",
    ".a",
    "a.",
    '"a"b',
    'a."b',
    '"x"..b',
    ".".join("a" * 50),
    ".".join("a" * 51),
]


def read_by_sql(connection: psycopg.Connection, path: str) -> list[str] | None:
    """Give the keys of a path, or None where SQL refuses it."""
    try:
        row = connection.execute("select parse_path(%s)", [path]).fetchone()
    except psycopg.Error as error:
        return None if error.sqlstate == "PD101" else [str(error)]
    return None if row is None else row[0]


@pytest.mark.parametrize("path", PATHS)
def test_python_reads_a_path_as_sql_does(connection: psycopg.Connection, path: str) -> None:
    wanted = read_by_sql(connection, path)
    if wanted is None:
        with pytest.raises(InvalidPath):
            parse_path(path)
        return
    assert parse_path(path) == wanted
    assert read_by_sql(connection, write_path(wanted)) == wanted


@pytest.mark.parametrize("path", [0, 5, False, b"a", {"a": 1}, [1.5], [None], {"a"}])
def test_what_is_no_path_is_refused(path: Any) -> None:
    """Zero is not the whole memory."""
    with pytest.raises(InvalidPath):
        parse_path(path)


@pytest.mark.parametrize("path", [None, "", [], ()])
def test_no_path_is_the_whole_memory(path: Any) -> None:
    assert parse_path(path) == []
