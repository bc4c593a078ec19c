"""No argument of find() or of the verbs for indexes is ever executed as SQL.

Every argument is given hostile text, while a canary table must survive.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]

HOSTILE = [
    "'", "''", "'''", '"', '""', "\\", "\\'", "'\\", "\\\\'", "$$", "$x$", "$1",
    "%", "%%", "%I", "%L", "%s", "%1$s", ";", "--", "/*", "*/", "\n", "\t'", "\r\n--",
    "\u202e'", "\u2028", "\ufeff'", "ʼ", "＇", "é" * 32, "é" * 31 + "'", "🙂" * 16,
    "x" * 63 + "'", "null", "NULL", "true", "select", "pg_catalog", "perdure.jobs", "default",
    "''; drop table canary; --", "'; drop table canary; --", '"; drop table canary; --',
    "\\'; drop table canary; --", "'); drop table canary; --", "$$; drop table canary; --",
    "%L'; drop table canary; --", "' or true --", "x' or '1'='1", "{a,b}", "{", "}", '{"', ",",
    "'::text[]); drop table canary; --", "}'; drop table canary; --", "1); delete from canary; --",
    "x' collate \"C\" or true or '", "E'\\''", "U&'\\0027'", "\x7f", "\x01", "\0",
    "(select count(*) from canary)", "pg_sleep(10)", "'||pg_sleep(10)||'",
]  # fmt: skip

CONDITIONS: list[Any] = [
    lambda text: {text: 1},
    lambda text: {"v": text},
    lambda text: {"v": {text: 1}},
    lambda text: {"v": {"$eq": {text: [text]}}},
    lambda text: {"v": {"$gt": text, "$lt": text}},
    lambda text: {"v": {"$in": [text, text + "x", {text: text}]}},
    lambda text: {"v": {"$nin": [text * 200, text]}},
    lambda text: {"v": {"$contains": {text: text}}},
    lambda text: {"v": {"$match": text}},
    lambda text: {"v": {"$match": f"$.x == {json.dumps(text)}"}},
    lambda text: {"v": {"$search": text}},
    lambda text: {"v": {"$search": {"text": text, "language": "german"}}},
    lambda text: {"v": {"$search": {"text": "x", "language": text}}},
    lambda text: {"v": {"$time": text}},
    lambda text: {"v": text * 600},
    lambda text: {f'"{text}".x': text},
    lambda text: {f"${text}": text},
    lambda text: {"$id": text, "$status": {"$ne": text}, "$workflow": {"$gt": text}},
    lambda text: {"$or": [{"v": text}, {"$not": {"w": text}}]},
]
ORDERS: list[Any] = [
    lambda text: [text],
    lambda text: [f"-{text}"],
    lambda text: [f'"{text}"'],
    lambda text: [{"path": "v", "as": text}],
    lambda text: [{"path": text, "as": "text", "descending": True}, {"path": "v", "as": "number"}],
    lambda text: [{"path": "v", "descending": text}],
    lambda text: [{text: "v"}],
    lambda text: [{"path": "v", "search": text}],
    lambda text: [{"path": text, "search": {"text": text, "language": text}}],
    lambda text: [{"path": text, "near": [1, 2]}],
    lambda text: [{"path": "v", "near": [1, text]}],
]
PLACES: list[Any] = [
    lambda text: text,
    lambda text: [[text], [text]],
    lambda text: [[], [text]],
    lambda text: [[{text: text}], ["id"]],
    lambda text: {text: text},
]


REFUSAL = "PD1.."


@pytest.fixture
def canary(connection: Connection) -> Iterator[Connection]:
    """Give a connection to a database with a canary table, which must be intact at the end."""
    connection.execute("create table perdure.canary (bird text)")
    connection.execute("insert into canary values ('alive')")
    connection.execute("""select entity_create('id', 'doc', '{"v": "x"}')""")
    connection.execute("set statement_timeout = '5 s'")
    yield connection
    connection.execute("reset standard_conforming_strings")
    assert connection.execute("select * from canary").fetchall() == [("alive",)]
    connection.execute("drop table canary")


def ask(connection: Connection, query: str, *values: Any, refusal: str = REFUSAL) -> Any:
    """Run a query; it may fail only with an error of perdure, or because text cannot hold NUL."""
    written = [json.dumps(value) if isinstance(value, dict | list) else value for value in values]
    try:
        return connection.execute(query.encode(), written).fetchall()
    except psycopg.Error as error:
        if re.fullmatch(refusal, error.sqlstate or ""):
            return None
        if error.sqlstate == "22P05" or "NUL" in str(error):
            return None
        raise


def ask_all(connection: Connection, text: str, refusal: str = REFUSAL) -> None:
    """Put a text into every part of a question."""
    find = "select * from find('doc', %s, %s, 10, %s)"
    orders = (
        *([{"path": "v", "as": "text"}], ["v"], ["$created_at"], []),
        [{"path": "v", "search": "x"}],
    )
    for make in CONDITIONS:
        ask(connection, find, make(text), [], None, refusal=refusal)
        ask(connection, "select count_found('doc', %s)", make(text), refusal=refusal)
    for make in ORDERS:
        ask(connection, find, {}, make(text), None, refusal=refusal)
    for make, order in itertools.product(PLACES, orders):
        ask(connection, find, {}, order, json.dumps(make(text)), refusal=refusal)
    ask(connection, "select * from find(%s)", text, refusal=refusal)
    ask(connection, "select count_found(%s)", text, refusal=refusal)


def test_conditions_orders_and_places_are_never_executed_as_sql(canary: Connection) -> None:
    """(E12) Any text in a question stays text."""
    for text in HOSTILE:
        ask_all(canary, text)


def test_question_is_never_executed_when_backslashes_escape(canary: Connection) -> None:
    """(E12) With standard_conforming_strings off, a pattern may be refused, but nothing is
    executed."""
    canary.execute("set standard_conforming_strings = off; set escape_string_warning = off")
    for text in HOSTILE:
        ask_all(canary, text, refusal=f"{REFUSAL}|2201B")


def test_arguments_of_indexes_are_never_executed_as_sql(canary: Connection) -> None:
    """(C73) Entities, paths and kinds are quoted, and the same arguments drop the index again."""
    created = 0
    for text in HOSTILE:
        ask(canary, "select create_index('doc', 'v', %s)", text)
        for entity, path in ((text, "v"), ("doc", text), ("doc", f'"{text}"')):
            with contextlib.suppress(psycopg.DataError):
                if ask(canary, "select create_index(%s, %s)", entity, path):
                    created += 1
                    dropped = ask(canary, "select drop_index(%s, %s)", entity, path)
                    assert dropped == [(True,)]
            ask(canary, "select statements_to_create_index(%s, %s)", entity, path)
            ask(canary, "select statements_to_drop_index(%s, %s)", entity, path)
        ask(canary, "select index_state(%s)", text)
    assert created > 100
    remaining = "select count(*) from pg_class where relname like 'memory_%'"
    assert canary.execute(remaining.encode()).fetchone() == (0,)


def test_hostile_text_is_stored_indexed_and_found_unchanged(canary: Connection) -> None:
    """(C74) (E12) It is found as a value and as a key."""
    texts = [text for text in HOSTILE if "\0" not in text]
    canary.execute("select create_index('doc', 'v')")
    for number, text in enumerate(texts):
        memory = json.dumps({"v": text, "key": {text: number}})
        canary.execute("select entity_create(%s, 'doc', %s)", [f"t{number}", memory])
    for number, text in enumerate(texts):
        key = text.replace("\\", "\\\\").replace('"', '\\"')
        for asked in ({"v": text}, {f'key."{key}"': number}, {"v": {"$in": [text, text + "!"]}}):
            rows = ask(canary, "select id from find('doc', %s)", asked)
            assert rows == [(f"t{number}",)], asked
