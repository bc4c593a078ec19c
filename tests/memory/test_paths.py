"""Python and SQL read the same keys from a path."""

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
    "$",
    "$.user",
    "$[0]",
    "$x.$",
    '"$".user',
    "items[0]",
    "items[0].name",
    "items[-1][*]",
    "items[a].x[",
    '"items[0]".name',
    '"a\\"[0]"',
]


def read_by_sql(connection: psycopg.Connection, path: str) -> list[str] | None:
    """Return the keys of a path, or None if SQL rejects it."""
    try:
        row = connection.execute("select parse_path(%s)", [path]).fetchone()
    except psycopg.Error as error:
        return None if error.sqlstate == "PD101" else [str(error)]
    return None if row is None else row[0]


@pytest.mark.parametrize("path", PATHS)
def test_python_and_sql_read_a_path_alike(connection: psycopg.Connection, path: str) -> None:
    keys = read_by_sql(connection, path)
    if keys is None:
        with pytest.raises(InvalidPath):
            parse_path(path)
        return
    assert parse_path(path) == keys
    assert read_by_sql(connection, write_path(keys)) == keys


@pytest.mark.parametrize("path", [0, 5, False, b"a", {"a": 1}, [1.5], [None], {"a"}])
def test_value_that_is_not_a_path_is_rejected(path: Any) -> None:
    """Zero and False are not the empty path, which means the whole memory."""
    with pytest.raises(InvalidPath):
        parse_path(path)


@pytest.mark.parametrize("path", [None, "", [], ()])
def test_empty_path_is_the_whole_memory(path: Any) -> None:
    assert parse_path(path) == []
