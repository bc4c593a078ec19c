"""The examples of the page about security run and give the results shown, including errors (T30)
(S5)."""

from __future__ import annotations

import re

import psycopg

from perdure.installation.install import install
from tests.docs.test_examples import SQL, blocks, is_as_shown, statements
from tests.security.secured import SecuredApp

PAGE = SQL / "security.md"
ROLES = ("shop_app", "llm_worker", "support", "north_app", "west_analyst", "east_analyst")


def result_of(connection: psycopg.Connection[object], statement: str) -> object:
    """Run a statement; return its first value, or the code of its error."""
    try:
        cursor = connection.execute(statement.encode())
    except psycopg.Error as error:
        return f"refused: {error.sqlstate}"
    row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def test_every_example_of_the_page_gives_the_result_shown(secured: SecuredApp) -> None:
    """Roles belong to the whole server, so each gets a name of this run and is dropped
    afterwards."""
    for role in ROLES:
        secured.stack.callback(secured.drop_role, role)
    with secured.connected("owner") as owner:
        for schema in ("my_app", "north", "south"):
            install(owner, schema)
    compared, wrong = 0, []
    with psycopg.connect(secured.url, autocommit=True) as connection:
        for _, text in blocks(PAGE):
            named = re.sub(rf"\b({'|'.join(ROLES)})\b", rf"{secured.prefix}_\1", text)
            named = named.replace("session_user, '_', 1", "session_user, '_', 5")
            for statement, shown in statements(named):
                end = result_of(connection, statement)
                if shown is None:
                    assert not str(end).startswith("refused"), statement
                elif not is_as_shown(end, shown):
                    wrong.append((statement, end, shown))
                compared += shown is not None
        connection.execute("drop schema my_app, north, south cascade")
    assert wrong == []
    assert compared > 15
