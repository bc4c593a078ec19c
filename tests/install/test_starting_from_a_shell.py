"""`perdure start`, `retry` and `schedule create`: what they send for what a shell gives them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from shlex import quote
from typing import Any

import psycopg
import pytest

from tests.install.test_cli import Shell, shell

__all__ = ["shell"]

Connection = psycopg.Connection[Any]

DESK = """
import perdure

app = perdure.App(version="7")


@app.coordinator(entity="desk", queue="desks", timeout="1 h", pinned=True)
async def research(memory: perdure.AsyncEntity, question: str, user: str = "jane") -> None: ...
"""


@pytest.fixture
def desk(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the module of an app; give its place."""
    (tmp_path / "desk_of_a_shell.py").write_text(DESK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "desk_of_a_shell", raising=False)
    return "desk_of_a_shell:app"


def words(told: str) -> str:
    return " ".join(told.replace("│", " ").split())


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ('["rain", "joe"]', ["rain", "joe"]),
        ('{"question": "rain", "id": "mine"}', {"question": "rain", "id": "mine"}),
        ('[{"question": "rain"}]', [{"question": "rain"}]),
        ('"rain"', ["rain"]),
        ("null", [None]),
    ],
)
def test_object_is_arguments_by_name_as_in_sql(
    shell: Shell, connection: Connection, given: str, stored: Any
) -> None:
    """The same text means the same to start() in SQL, to the shell and to schedules."""
    assert shell("start", "research", given, "--id", "j") == "j"
    find = "select args from jobs where id = 'j'"
    assert connection.execute(find).fetchone() == (stored,)
    connection.execute("select terminate('j')")
    assert shell("retry", "j", given) == "true"
    assert connection.execute(find).fetchone() == (stored,)


def test_start_takes_options_of_the_decorator_from_the_app(
    shell: Shell, connection: Connection, desk: str
) -> None:
    """Else its memory has no entity: no find(), contract or index knows of it."""
    shell("start", "research", '["rain"]', "--id", "j", "--app", desk)
    row = "select entity, queue, pinned_version, timeout is not null from jobs where id = 'j'"
    assert connection.execute(row).fetchone() == ("desk", "desks", "7", True)
    shell("start", "research", '["rain"]', "--id", "k", "--app", desk, "--entity", "other")
    assert json.loads(shell("status", "k"))["entity"] == "other"
    shell("schedule", "create", "research", "@hourly", "--args", '["rain"]', "--app", desk)
    found = connection.execute("select entity_get('$schedule/research', 'entity')").fetchone()
    assert found == ("desk",)


def test_start_of_an_app_is_checked(shell: Shell, desk: str) -> None:
    status, _, complained = shell.run("start", "resaerch", "--app", desk)
    assert (status, "has no coordinator resaerch; it has research" in words(complained)) == (
        2,
        True,
    )
    status, _, complained = shell.run("start", "research", '{"who": "joe"}', "--app", desk)
    assert status == 2
    assert "missing a required argument: 'question'; perdure passes memory" in words(complained)
    status, _, complained = shell.run("schedule", "create", "research", "@daily", "--app", desk)
    assert (status, "missing a required argument" in words(complained)) == (2, True)


def test_start_takes_the_options_of_start_in_sql(shell: Shell, connection: Connection) -> None:
    options = ["--context", '{"n": 1}', "--priority", "2", "--due-at", "2100-01-01T00:00:00Z"]
    shell("start", "w", "--id", "j", *options)
    assert shell("start", "w", "--id", "j", "--if-exists", "existing") == "j"
    assert shell.run("start", "w", "--id", "j")[0] == 1
    told = (
        "select tasks.priority, due_at = '2100-01-01Z', context from tasks join jobs on job_id = id"
    )
    assert connection.execute(told).fetchone() == (2, True, {"n": 1})


@pytest.mark.parametrize("text", ["rain", "is it 'wet'?", "Zürich"])
def test_text_that_is_not_json_is_shown_as_json(shell: Shell, text: str) -> None:
    """The message shows how to write the text, not only that JSON was expected."""
    status, _, complained = shell.run("start", "research", text)
    assert status == 2
    assert f"a text is written as {quote(json.dumps(text, ensure_ascii=False))}" in words(
        complained
    )
    assert "a text is written" not in words(shell.run("start", "research", '{"a": 1')[2])


@pytest.mark.direct("a search path is of one session")
def test_psql_finds_what_is_in_public(shell: Shell, dsn: str, connection: Connection) -> None:
    """Tables and extensions of the application are usually there."""
    connection.execute("create table public.articles (id text)")
    assert shell.run("psql", "-c", "select * from articles")[0] == 0
    assert shell.run("psql", "-c", "select id from jobs")[0] == 0


SEALED = """
import perdure
from perdure.codecs import AesGcm

app = perdure.App(codec=AesGcm(keys={"1": b"k" * 32}, current="1"))


@app.coordinator
async def research(memory: perdure.AsyncEntity, question: str) -> None: ...
"""


def test_start_of_an_app_encrypts_as_the_app_does(
    shell: Shell, connection: Connection, desk: str, tmp_path: Path
) -> None:
    """The arguments are no less secret than those that a client sends."""
    pytest.importorskip("cryptography")
    (tmp_path / "desk_of_a_shell.py").write_text(SEALED)
    shell("start", "research", '["a secret"]', "--id", "j", "--app", desk)
    shell("schedule", "create", "research", "@hourly", "--args", '["a secret"]', "--app", desk)
    told = "select args::text from jobs union all select context::text from jobs"
    assert "a secret" not in str(connection.execute(told).fetchall())
