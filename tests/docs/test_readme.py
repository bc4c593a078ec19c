"""The program and the SQL of the README run as written, and the links of all pages work. (C2) (C6)
(C76)"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [
    ROOT / "README.md",
    *ROOT.glob("*/*.md"),
    *ROOT.glob("sql/*/*.md"),
    *ROOT.glob("*/*/README.md"),
]


def prose(page: Path) -> str:
    """Return the text of a page without its code blocks."""
    return re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)


def headings(page: Path) -> list[str]:
    """Return the headings of a page as links name them."""
    found = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found]


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def output(dsn: str, tmp_path: Path) -> str:
    """Run the program of the README, and return what it prints."""
    (program,) = blocks("python")
    script = tmp_path / "agent.py"
    script.write_text(program.replace('schema="my_app"', 'schema="perdure"'), "utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PERDURE_DATABASE_URL": dsn},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_program_of_the_readme_runs(output: str, connection: psycopg.Connection) -> None:
    """(C1) (C2) (C57) Its hooks write to one memory, which is the result."""
    assert "optimistic" in output
    assert "'status': 'completed'" in output
    row = connection.execute(
        "select status, context -> 'perspectives' ?& array['optimistic', 'skeptical'] from jobs"
    ).fetchone()
    assert row == ("completed", True)


def test_sql_of_the_readme_runs(output: str, connection: psycopg.Connection) -> None:
    """(C6) (C25) Every statement runs in the schema of the app."""
    (sql,) = blocks("sql")
    statements = [part for part in re.sub(r"--[^\n]*", "", sql).split(";") if part.strip()]
    for statement in statements:
        connection.execute(statement.replace("my_app.", "perdure.").encode())
    assert len(statements) > 5
    row = connection.execute(
        "select context ->> 'score', version from jobs where id = 'agent-1'"
    ).fetchone()
    assert row == ("0.9", 6)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_of_a_page_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^):]+)\)", prose(page)):
        target, _, heading = link.partition("#")
        linked = page.parent / target if target else page
        assert linked.exists(), link
        assert not heading or heading in headings(linked), link
