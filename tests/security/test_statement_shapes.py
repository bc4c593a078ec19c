"""Hostile text changes no statement that the server runs, only what stands in it (T18) (S8) (E12).

A server of its own notes every statement, those inside of functions too. What usual words make is
parsed first, by PostgreSQL's own grammar; then come the hostile texts, and what is new must have
the tree of a statement that is known, names and values left out. Nothing but what is tried here
puts statements together: `tests/test_tidy.py` holds the functions and modules to that.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import sql

import perdure
from perdure.embedded.server import Server
from tests.amount import amount, seed
from tests.memory.test_find_injection import HOSTILE, ask, ask_all
from tests.security.house import Connection, House, built

pglast = pytest.importorskip("pglast", reason="pglast is not there: pip install 'perdure[lint]'")

NOTING = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "all",
    "pg_stat_statements.max": "20000",
}
NOTED = """
select s.query
  from public.pg_stat_statements as s
  join pg_database as d on d.oid = s.dbid and d.datname = current_database()
 where s.query !~ 'pg_stat_statements'
"""
USUAL = ("word", "two words", "id", "v", "$id", "$created_at", "text", "a.b", "a[0]", '"a b"')
TEXTS = [text for text in HOSTILE if "\0" not in text]

Deed = Callable[[Connection, str], None]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """Give an app on a server that notes statements."""
    with Server(settings=NOTING) as server, built(server) as house:
        with psycopg.connect(house.url) as admin:
            admin.execute("create extension pg_stat_statements")
        yield house


@pytest.fixture
def admin(house: House) -> Iterator[Connection]:
    """Give a superuser, who may make roles and schemas of any name."""
    with psycopg.connect(house.url, autocommit=True) as connection:
        connection.execute("set search_path = pg_catalog, perdure; set statement_timeout = '10 s'")
        yield connection


def ask_for_memories(connection: Connection, text: str) -> None:
    """Put the text into every place of a question."""
    ask_all(connection, text)


def make_indexes(connection: Connection, text: str) -> None:
    """Make and drop indexes whose entity, place or kind it is."""
    for entity, path, kind in ((text, "v", "text"), ("doc", text, "number"), ("doc", "v", text)):
        ask(connection, "select create_index(%s, %s, %s)", entity, path, kind)
        ask(connection, "select drop_index(%s, %s, %s)", entity, path, kind)


def give_access(connection: Connection, text: str) -> None:
    """Give rights to a role of this name, and take them."""
    role = name_of(text)
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
        for kind in ("worker", "monitor"):
            connection.execute("select grant_access(%s, %s)", [role, kind])
        connection.execute("select revoke_access(%s)", [role])


HOOK = "create function {0}.{0}(text, jsonb) returns jsonb language sql return $2"


def run_hooks(connection: Connection, text: str) -> None:
    """Run a hook in SQL whose function, and its schema, have this name."""
    name = sql.Identifier(name_of(text))
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("create schema {}").format(name))
        connection.execute(sql.SQL(HOOK).format(name))
        known = "select register_sql_hook('h', p.oid) from pg_proc as p where p.proname = %s"
        connection.execute(known, [name_of(text)])
        connection.execute("select call_sql_hook('h', %s, '1')", [text])


def use_a_client(client: perdure.Client, _: Connection, text: str) -> None:
    """Give the text to calls of the package, which makes statements too."""
    calls: list[Callable[[], object]] = [
        lambda: client.start(text, text, id=text, queue=text, entity=text),
        lambda: client.handle(text).signal(text, text),
        lambda: client.handle(text).terminate(text),
        lambda: client.create_entity(f"{text}!", text, {text: text}).set(text, text),
        lambda: client.entity(f"{text}!").merge(text, {text: text}),
        lambda: client.entity(f"{text}!").get(text),
        lambda: client.find(text, {text: text}, order_by=[text]),
        lambda: client.create_index(text, text),
        lambda: client.drop_index(text, text),
    ]
    for call in calls:
        with suppress(perdure.PerdureError):
            call()


def name_of(text: str) -> str:
    """Give an identifier that begins as a text does, and is not too long or PostgreSQL's own."""
    return text.removeprefix("pg_").encode()[:50].decode(errors="ignore") + "!"


def tree(statement: str) -> Any:
    """Parse a statement, and leave out names and values; what cannot be parsed is its own tree."""
    try:
        return shape(pglast.parse_sql(statement))
    except pglast.parser.ParseError:
        return statement


def shape(node: Any) -> Any:
    """Give the types of the nodes of a tree, in their order."""
    if isinstance(node, tuple):
        return tuple(map(shape, node))
    if isinstance(node, pglast.ast.Node):
        return type(node).__name__, *(shape(getattr(node, name)) for name in node.__slots__)
    return None


def some() -> list[str]:
    """Draw hostile texts; all of them with PERDURE_TEST_AMOUNT=5."""
    return random.Random(seed()).sample(TEXTS, min(len(TEXTS), amount(14)))


def strange(connection: Connection, deed: Deed, texts: list[str]) -> list[str]:
    """List the statements that hostile texts have made, and usual words have not."""
    connection.execute("select public.pg_stat_statements_reset()")
    for text in USUAL:
        deed(connection, text)
    usual = {text for (text,) in connection.execute(NOTED)}
    for text in texts:
        deed(connection, text)
    new = {text for (text,) in connection.execute(NOTED)} - usual
    known = set(map(tree, usual))
    assert len(known) > 2
    return [text for text in new if tree(text) not in known]


@pytest.mark.parametrize("deed", [ask_for_memories, make_indexes, give_access, run_hooks])
def test_no_text_changes_the_tree_of_a_statement(admin: Connection, deed: Deed) -> None:
    assert strange(admin, deed, some()) == []


def test_no_text_changes_what_a_client_sends(admin: Connection, house: House) -> None:
    with perdure.connect(house.url, provision=False) as client:
        assert strange(admin, partial(use_a_client, client), some()) == []


def test_a_value_that_is_quoted_by_hand_is_found(admin: Connection) -> None:
    """This test would see it: a quote in a format() in the place of %L, and a text that ends it."""

    def count(connection: Connection, text: str) -> None:
        with suppress(psycopg.Error):
            connection.execute("select count_found(%s)", [text])

    find = "select pg_get_functiondef(p.oid) from pg_proc as p where p.proname = 'count_found'"
    (written,) = admin.execute(find).fetchone() or ("",)
    texts = [text for text in TEXTS if " or " in text]
    assert strange(admin, count, texts) == []
    admin.execute(written.replace("%L", "''%s''", 1).encode())
    try:
        found = strange(admin, count, texts)
        assert any(re.search("entity = .* or ", text) for text in found)
    finally:
        admin.execute(written.encode())
