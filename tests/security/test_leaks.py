"""Passwords are shown to nobody, and what is stored does not control a terminal."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import perdure
from perdure.cli.main import main
from perdure.codecs import AesGcm

SECRET = "s3cret"
UNREADABLE = (
    f"postgresql//user:{SECRET}@host/database",
    f"postgresql://user:{SECRET}%zz@host/database",
    f"postgresql://user:{SECRET}@[::1/database",
    f"postgresql://user:one@{SECRET}@host/database",
    f"host=here password={SECRET} {SECRET}",
    f"host=here password='{SECRET}",
    f"host=here {SECRET}=1",
    SECRET,
)


@pytest.fixture
def shown_by(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Give a function that runs a command, and returns all that it shows."""

    def shown_by(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["perdure", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return printed.out + printed.err + str(ended.value.code or "")

    return shown_by


async def connect_async(dsn: str) -> None:
    """Make an async client."""
    async with await perdure.connect_async(dsn):
        pass


CONNECTING: list[Callable[[str], object]] = [
    perdure.connect,
    lambda dsn: asyncio.run(connect_async(dsn)),
    lambda dsn: perdure.Worker(perdure.App(), queues=["q"], dsn=dsn).run(),
]


@pytest.mark.parametrize("dsn", UNREADABLE)
@pytest.mark.parametrize("connecting", CONNECTING)
def test_unreadable_connection_string_is_rejected_without_being_shown(
    connecting: Callable[[str], object], dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error would be logged; and such a string often has a password that needs %40 for @."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(perdure.InvalidArgument, match="connection string") as refused:
        connecting(dsn)
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: perdure.connect(Path(SECRET)),  # type: ignore[arg-type]
        lambda: perdure.App(codec=SECRET.encode()),  # type: ignore[arg-type]
        lambda: AesGcm({"2026": SECRET.encode()}, "2026"),
        lambda: AesGcm({"2026": AesGcm.new_key()}, SECRET),
    ],
)
def test_secret_in_the_wrong_place_is_not_shown(mistake: Callable[[], object]) -> None:
    """An object that stands for a connection string may show its password, bytes are a key."""
    with pytest.raises(perdure.InvalidArgument) as refused:
        mistake()
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("dsn", UNREADABLE)
def test_command_does_not_show_an_unreadable_connection_string(
    shown_by: Callable[..., str], dsn: str
) -> None:
    shown = shown_by("jobs", "--dsn", dsn)
    assert "connection string" in shown
    assert SECRET not in shown


def test_password_is_not_among_the_arguments_of_psql(
    shown_by: Callable[..., str], dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every user of a machine sees the arguments of its processes."""
    (tmp_path / "psql").write_text('#!/bin/sh\necho "arguments: $*; password: $PGPASSWORD"\n')
    (tmp_path / "psql").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    given = make_conninfo(dsn, password=SECRET)
    shown = shown_by("psql", "--dsn", given, "-c", "select 1")
    arguments, _, password = shown.partition("; password: ")
    assert arguments.endswith(" -c select 1")
    assert SECRET not in arguments
    assert password.strip() == SECRET


HOSTILE = "\x1b]0;title\x07 \x1b[2J \x9b2J \x7f \r\u202ereversed\u2066 \u2028"
CONTROLS = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028]")


@pytest.fixture
def hostile_job(connection: psycopg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the id of a job that has failed, with hostile texts wherever there may be some."""
    monkeypatch.setenv("PERDURE_DATABASE_URL", dsn)
    job, token = "j", str(uuid4())
    workflow = "w\u202e"  # a name has no control characters, but may change the direction
    start = "select perdure.start(%s, id => %s, entity => 'doc', context => %s)"
    connection.execute(start, [workflow, job, json.dumps({"text": HOSTILE, HOSTILE: 1})])
    connection.execute("select perdure.claim('{default}', 'me', %s::uuid)", [token])
    failure = {"type": HOSTILE, "message": HOSTILE, "traceback": HOSTILE}
    turn = {"job": job, "task": "1/main", "token": token, "state": "failed", "value": failure}
    connection.execute("select perdure.advance(%s)", [json.dumps([turn | {"position": 0}])])
    return job


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "result",
        "memory",
        "history",
        "timeline",
        "blame",
        "diff",
        "jobs",
        "find",
        "family",
    ],
)
def test_stored_text_does_not_control_the_terminal(
    shown_by: Callable[..., str], hostile_job: str, command: str
) -> None:
    given = {"jobs": [], "find": ["doc"], "diff": [hostile_job, "0"]}.get(command, [hostile_job])
    shown = shown_by(command, *given)
    assert CONTROLS.findall(shown) == []
    assert "\\u202e" in shown


def test_logged_text_does_not_control_the_terminal(
    shown_by: Callable[..., str],
    connection: psycopg.Connection,
    dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as the warning that a job is stuck, and why, while its result is awaited."""
    monkeypatch.setenv("PERDURE_DATABASE_URL", dsn)
    monkeypatch.setattr("perdure.clients.handles.WARN_AFTER", 0.1)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    connection.execute("select perdure.start('w', id => 'j')")
    stuck = "update perdure.tasks set due_at = 'infinity', stuck_reason = %s"
    connection.execute(stuck, [json.dumps({"message": HOSTILE})])
    shown = shown_by("result", "j", "--timeout", "0.5")
    assert "has to wait for somebody to resume it" in shown
    assert CONTROLS.findall(shown) == []


def test_printed_json_is_the_value(shown_by: Callable[..., str], hostile_job: str) -> None:
    assert json.loads(shown_by("memory", hostile_job)) == {"text": HOSTILE, HOSTILE: 1}
