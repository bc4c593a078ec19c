"""pgTAP in a database: it is loaded once, then each file of `pgtap/` can run there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
from pytest_pgtap.pgtap import Runner

from tests.fetch_pgtap import pgtap

PGTAP = Path(__file__).resolve().parents[1] / "pgtap"
FIXTURES = PGTAP / "fixtures.sql"


def load_pgtap(connection: psycopg.Connection[Any], schema: str) -> None:
    """Create pgTAP and the functions of `fixtures.sql` beside an app, if they are missing. Raises
    NoPgTap."""
    script = pgtap()
    is_loaded = connection.execute("select to_regnamespace('tap') is not null").fetchone() == (
        True,
    )
    if not is_loaded:
        connection.execute("create schema tap")
        connection.execute("set search_path = tap")
        connection.execute(script.read_bytes())
    connection.execute(f"set search_path = tap, {schema}, public".encode())
    if not is_loaded:
        connection.execute(FIXTURES.read_bytes())


def failures(connection: psycopg.Connection[Any], file: str) -> list[str]:
    """Run a file; return its failed assertions, each with pgTAP's diagnostics."""
    connection.autocommit = False
    output = "\n".join(Runner(connection).run((PGTAP / file).read_bytes()))
    connection.autocommit = True
    return re.findall(r"^not ok .*(?:\n#.*)*", output, re.MULTILINE)
