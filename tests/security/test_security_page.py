"""The page on security is true: its examples are run, those that are refused too (T30) (S5)."""

from __future__ import annotations

import re

import psycopg

from perdure.installation.install import install
from tests.docs.test_examples import SQL, as_told, blocks, statements
from tests.security.house import House

PAGE = SQL / "security.md"
ROLES = ("shop_app", "llm_worker", "support", "north_app", "west_analyst", "east_analyst")


def ended(connection: psycopg.Connection[object], statement: str) -> object:
    """Run a statement; give its first value, or the code of its refusal."""
    try:
        cursor = connection.execute(statement.encode())
    except psycopg.Error as error:
        return f"refused: {error.sqlstate}"
    row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def test_every_example_does_what_the_page_tells(house: House) -> None:
    """Roles belong to the server: each has a name of this run's, and goes with it."""
    for role in ROLES:
        house.stack.callback(house.drop_role, role)
    with house.entered("owner") as owner:
        for schema in ("my_app", "north", "south"):
            install(owner, schema)
    compared, wrong = 0, []
    with psycopg.connect(house.url, autocommit=True) as connection:
        for _, text in blocks(PAGE):
            named = re.sub(rf"\b({'|'.join(ROLES)})\b", rf"{house.prefix}_\1", text)
            named = named.replace("session_user, '_', 1", "session_user, '_', 5")
            for statement, told in statements(named):
                end = ended(connection, statement)
                if told is None:
                    assert not str(end).startswith("refused"), statement
                elif not as_told(end, told):
                    wrong.append((statement, end, told))
                compared += told is not None
        connection.execute("drop schema my_app, north, south cascade")
    assert wrong == []
    assert compared > 15
