"""Hostile text changes no statement that the server runs, only the values in it (T18) (S8) (E12).

A separate server records every statement, including those inside functions. The statements that
usual words cause are parsed with PostgreSQL's grammar. Then hostile texts follow; each new
statement must have the syntax tree of a known one, apart from names and values. Only what is tried
here builds statements at run time; `tests/test_tidy.py` checks that.
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
from tests.security.secured import Connection, SecuredApp, secured_app

pglast = pytest.importorskip("pglast", reason="pglast is missing: pip install 'perdure[lint]'")

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

Action = Callable[[Connection, str], None]


@pytest.fixture(scope="module")
def secured() -> Iterator[SecuredApp]:
    """Give an app on a server that records statements."""
    with Server(settings=NOTING) as server, secured_app(server) as secured:
        with psycopg.connect(secured.url) as admin:
            admin.execute("create extension pg_stat_statements")
        yield secured


@pytest.fixture
def admin(secured: SecuredApp) -> Iterator[Connection]:
    """Give a superuser's connection, which can create roles and schemas of any name."""
    with psycopg.connect(secured.url, autocommit=True) as connection:
        connection.execute("set search_path = pg_catalog, perdure; set statement_timeout = '10 s'")
        yield connection


def ask_for_memories(connection: Connection, text: str) -> None:
    """Put the text into every part of a question."""
    ask_all(connection, text)


def make_indexes(connection: Connection, text: str) -> None:
    """Create and drop indexes with the text as entity, path or kind."""
    for entity, path, kind in ((text, "v", "text"), ("doc", text, "number"), ("doc", "v", text)):
        ask(connection, "select create_index(%s, %s, %s)", entity, path, kind)
        ask(connection, "select drop_index(%s, %s, %s)", entity, path, kind)


def give_access(connection: Connection, text: str) -> None:
    """Grant access to a role with this name, and revoke it."""
    role = name_of(text)
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
        for kind in ("worker", "monitor"):
            connection.execute("select grant_access(%s, %s)", [role, kind])
        connection.execute("select revoke_access(%s)", [role])


HOOK = "create function {0}.{0}(text, jsonb) returns jsonb language sql return $2"


def run_hooks(connection: Connection, text: str) -> None:
    """Run a hook in SQL whose function and schema have this name."""
    name = sql.Identifier(name_of(text))
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("create schema {}").format(name))
        connection.execute(sql.SQL(HOOK).format(name))
        known = "select register_sql_hook('h', p.oid) from pg_proc as p where p.proname = %s"
        connection.execute(known, [name_of(text)])
        connection.execute("select call_sql_hook('h', %s, '1')", [text])


def use_a_client(client: perdure.Client, _: Connection, text: str) -> None:
    """Give the text to methods of the Python client, which builds statements too."""
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
    """Return an identifier that begins with the text, short enough and not reserved."""
    return text.removeprefix("pg_").encode()[:50].decode(errors="ignore") + "!"


def tree(statement: str) -> Any:
    """Parse a statement, and leave out names and values; what cannot be parsed stays as text."""
    try:
        return shape(pglast.parse_sql(statement))
    except pglast.parser.ParseError:
        return statement


def shape(node: Any) -> Any:
    """Return the types of the nodes of a tree, in order."""
    if isinstance(node, tuple):
        return tuple(map(shape, node))
    if isinstance(node, pglast.ast.Node):
        return type(node).__name__, *(shape(getattr(node, name)) for name in node.__slots__)
    return None


def hostile_texts() -> list[str]:
    """Draw hostile texts; PERDURE_TEST_AMOUNT=5 takes all."""
    return random.Random(seed()).sample(TEXTS, min(len(TEXTS), amount(14)))


def new_statements(connection: Connection, action: Action, texts: list[str]) -> list[str]:
    """List the statements caused by hostile texts whose tree no usual word caused."""
    connection.execute("select public.pg_stat_statements_reset()")
    for text in USUAL:
        action(connection, text)
    usual = {text for (text,) in connection.execute(NOTED)}
    for text in texts:
        action(connection, text)
    new = {text for (text,) in connection.execute(NOTED)} - usual
    known = set(map(tree, usual))
    assert len(known) > 2
    return [text for text in new if tree(text) not in known]


@pytest.mark.parametrize("action", [ask_for_memories, make_indexes, give_access, run_hooks])
def test_text_does_not_change_the_tree_of_a_statement(admin: Connection, action: Action) -> None:
    assert new_statements(admin, action, hostile_texts()) == []


def test_text_does_not_change_the_statements_of_a_client(
    admin: Connection, secured: SecuredApp
) -> None:
    with perdure.connect(secured.url, provision=False) as client:
        assert new_statements(admin, partial(use_a_client, client), hostile_texts()) == []


def test_value_that_is_not_quoted_properly_is_detected(admin: Connection) -> None:
    """A control: with quotes around %s instead of %L in a format(), these tests fail."""

    def count(connection: Connection, text: str) -> None:
        with suppress(psycopg.Error):
            connection.execute("select count_found(%s)", [text])

    find = "select pg_get_functiondef(p.oid) from pg_proc as p where p.proname = 'count_found'"
    (written,) = admin.execute(find).fetchone() or ("",)
    texts = [text for text in TEXTS if " or " in text]
    assert new_statements(admin, count, texts) == []
    admin.execute(written.replace("%L", "''%s''", 1).encode())
    try:
        found = new_statements(admin, count, texts)
        assert any(re.search("entity = .* or ", text) for text in found)
    finally:
        admin.execute(written.encode())
