"""The command line, as a person uses it in a shell."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest
import typer
from psycopg.conninfo import make_conninfo

import perdure
from perdure.cli import terminal
from perdure.cli.commands import commands as all_commands
from perdure.cli.main import main
from perdure.installation import script

PYTHON = os.fspath(Path(perdure.__file__).parents[1])

MODULE = """
import os
import perdure

app = perdure.App()


@app.coordinator(queue="here")
async def hash_seed(memory: perdure.AsyncEntity) -> str:
    return os.environ["PYTHONHASHSEED"]
"""


class Shell:
    """Runs `perdure …` against one database, in this process."""

    def __init__(
        self, dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        monkeypatch.setenv("PERDURE_DATABASE_URL", dsn)
        monkeypatch.setenv("PYTHONHASHSEED", "0")  # otherwise a worker would re-execute itself
        self.monkeypatch = monkeypatch
        self.capsys = capsys

    def run(self, *arguments: str) -> tuple[object, str, str]:
        """Run a command; return its exit status, its output and its error message."""
        self.monkeypatch.setattr(sys, "argv", ["perdure", *arguments])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as exit_status:
            main()
        printed, errors = self.capsys.readouterr()
        is_message = isinstance(exit_status.value.code, str)
        return (
            (1, printed, exit_status.value.code)
            if is_message
            else (exit_status.value.code, printed, errors)
        )

    def __call__(self, *arguments: str) -> str:
        """Run a command that must succeed, and return its output."""
        status, printed, errors = self.run(*arguments)
        assert status in (0, None), errors
        return printed.strip()


@pytest.fixture
def shell(dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell whose database has the app `perdure`."""
    return Shell(dsn, monkeypatch, capsys)


def test_the_version_is_printed(shell: Shell) -> None:
    assert shell("--version") == f"perdure {perdure.__version__}"


def test_command_install_can_be_repeated(shell: Shell) -> None:
    assert shell("install", "--schema", "my_app") == script.default_version()
    assert shell("install", "--schema", "my_app") == script.default_version()
    assert shell("check", "--schema", "my_app") == ""


def test_connection_of_a_command_says_what_it_is(dsn: str) -> None:
    with terminal.connected(dsn, "perdure") as connection:
        assert connection.execute("show application_name").fetchone() == ("perdure command",)


@pytest.mark.parametrize(
    "command",
    [
        "status x1",
        "find ent",
        "check",
        "adopt",
        "memory x1",
        "queue list",
        "schedule drop s",
        "replay --job x1",
        "psql",
    ],
)
def test_reading_command_does_not_create_a_missing_app(
    shell: Shell, connection: psycopg.Connection, command: str
) -> None:
    """The error names the mistyped schema and lists the apps of the database."""
    status, _, errors = shell.run(*command.split(), "--schema", "typo")
    assert status == 1
    assert errors.startswith("error: there is no app in schema 'typo'")
    assert "hint: " in errors
    assert "detail: Apps of this database: perdure.\n" in errors
    assert "LINE 1" not in errors
    found = connection.execute("select to_regnamespace('typo')").fetchone()
    assert found == (None,)


@pytest.mark.parametrize("age", ["90", "0.5", " 7 ", "90 days ago", "now"])
def test_age_without_a_unit_forgets_nothing(shell: Shell, age: str) -> None:
    """`forget-finished 90` would mean 90 seconds, and delete nearly everything."""
    shell("start", "some", "--id", "x1")
    shell("terminate", "x1")
    assert shell.run("forget-finished", age)[0] == 1
    assert shell("forget-finished", "90 days") == "0"
    assert shell("forget-finished", "0 s") == "1"


@pytest.mark.parametrize(
    "command",
    [
        ("start", "some"),
        ("schedule", "create", "some", "@hourly"),
        ("queue", "set", "llm", "--max-running", "2"),
        pytest.param(
            ("index", "create", "note", "n"),
            marks=pytest.mark.direct("an index is built by a session"),
        ),
    ],
    ids=" ".join,
)
def test_writing_command_creates_a_missing_app(shell: Shell, command: tuple[str, ...]) -> None:
    shell(*command, "--schema", "fresh")
    assert shell("check", "--schema", "fresh") == ""


def test_worker_with_no_provision_does_not_create_the_app(
    shell: Shell, connection: psycopg.Connection
) -> None:
    shell.monkeypatch.setattr("perdure.cli.operating.loaded", lambda place: perdure.App())
    command = ("worker", "here:app", "-q", "q", "--schema", "fresh", "--no-provision")
    status, _, errors = shell.run(*command)
    assert status == 1
    assert "fresh" in errors
    assert connection.execute("select to_regnamespace('fresh')").fetchone() == (None,)


def test_command_adopt_lets_a_copy_execute(shell: Shell, connection: psycopg.Connection) -> None:
    connection.execute("update settings set value = '{}' where name = 'place'")
    shell.monkeypatch.setattr("perdure.cli.operating.loaded", lambda place: perdure.App())
    status, _, errors = shell.run("worker", "here:app", "--queue", "q")
    assert status == 1
    assert "hint: To let it execute here, call adopt_instance()" in errors
    status, _, errors = shell.run("adopt", "--copied-at", "lately")
    assert status == 2
    assert "lately is not a time" in errors
    instance = shell("adopt", "--copied-at", "2026-01-01T00:00:00Z")
    kept = "select value #>> '{}' from settings where name = 'instance'"
    assert connection.execute(kept).fetchone() == (instance,)
    other = "00000000-0000-0000-0000-000000000000"
    status, _, errors = shell.run("worker", "here:app", "-q", "q", "--instance", other)
    assert f"detail: The worker serves instance {other}." in errors


def test_job_can_be_started_inspected_and_ended(shell: Shell) -> None:
    assert (
        shell("start", "research", '["subsidies"]', "--id", "jane", "--queue", "agents") == "jane"
    )
    found = json.loads(shell("status", "jane"))
    assert (found["id"], found["workflow"], found["status"]) == ("jane", "research", "running")
    shell("signal", "jane", "approve", '{"by": "bob"}')
    assert shell("family", "jane").split() == ["jane", "research", "running"]
    assert json.loads(shell("cancel", "jane", "--hook", "$hook/nobody")) is False
    shell("cancel", "jane", "--reason", "no longer needed")
    shell("terminate", "jane")
    assert json.loads(shell("status", "jane"))["status"] == "cancelled"
    status, _, errors = shell.run("result", "jane", "--timeout", "5 s")
    assert status == 1
    assert "terminated" in errors


def test_options_of_commands_about_jobs_are_passed_on(
    shell: Shell, connection: psycopg.Connection
) -> None:
    shell("start", "research", "[1]", "--id", "jane")
    status, _, errors = shell.run("result", "jane", "--timeout", "0.1 s")
    assert (status, "not finished within 0.1 s" in errors) == (1, True)
    shell("terminate", "jane")
    shell("retry", "jane", "--timeout", "2 h")
    again = connection.execute("select args, timeout from jobs").fetchone()
    assert again == ([1], timedelta(hours=2))


def test_options_of_command_worker_are_passed_on(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    class Worker:
        def __init__(self, app: perdure.App, **options: Any):
            given.update(options)

        def run(self) -> None: ...

    monkeypatch.setattr(perdure, "Worker", Worker)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "passing_on.py").write_text(MODULE)
    instance = "00000000-0000-0000-0000-000000000001"
    options = ("--slots", "7", "--lease", "9 s", "--grace", "3 s", "--queue", "here")
    more = ("--version", "2", "--instance", instance, "--no-provision")
    shell("worker", "passing_on:app", *options, *more)
    del given["dsn"], given["schema"]
    assert given == {
        "queues": ["here"],
        "slots": 7,
        "lease": "9 s",
        "grace": "3 s",
        "version": "2",
        "instance": instance,
        "provision": False,
    }


def test_command_jobs_filters_and_pages(shell: Shell) -> None:
    for job in ("one", "two", "three"):
        shell("start", "research", "--id", job)
    shell("terminate", "two", "--reason", "too late")

    def listed(*options: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in shell("jobs", *options).splitlines()]

    assert [job["id"] for job in listed()] == ["three", "two", "one"]
    (ended,) = listed(
        "--workflow", "research", "--status", "cancelled", "--since", "2026-01-01T00:00Z"
    )
    assert (ended["id"], ended["failure"]) == ("two", "Terminated: too late")
    place = ("--until", ended["created_at"], "--after", "two")
    assert [job["id"] for job in listed(*place, "--limit", "5")] == ["one"]
    status, _, errors = shell.run("jobs", "--status", "lost")
    assert status == 1
    assert "'lost' is not a status of a job" in errors


def test_memory_and_history_are_printed(shell: Shell, connection: psycopg.Connection) -> None:
    connection.execute("select entity_create('note', 'note', '{\"a\": {\"b\": [1, null]}}')")
    connection.execute("select entity_increment('note', 'a.c')")
    assert json.loads(shell("memory", "note")) == {"a": {"b": [1, None], "c": 1}}
    assert json.loads(shell("memory", "note", "a.b")) == [1, None]
    changes = [json.loads(line) for line in shell("history", "note").splitlines()]
    assert changes[-1]["op"] == "increment"
    assert [change["version"] for change in changes] == sorted(
        change["version"] for change in changes
    )


def test_items_for_people_are_listed_and_resolved(
    shell: Shell, connection: psycopg.Connection
) -> None:
    """(E19) Each item is printed with its place, and only one person can resolve it."""
    connection.execute("select start('w', id => 'job')")
    token = str(uuid.uuid4())
    connection.execute("select claim('{default}', 'me', %s)", [token])
    request = {"key": "a", "kind": "item", "name": "sign", "assignee": "legal"}
    turn = {"job": "job", "task": "1/main", "token": token, "state": "park", "requests": [request]}
    connection.execute("select advance(%s)", [json.dumps([turn])])
    (line,) = shell("items", "--assignee", "legal").splitlines()
    item = json.loads(line)
    assert (item["job"], item["name"], item["status"]) == ("job", "sign", "unclaimed")
    assert shell("items", "--after", json.dumps(item["place"])) == ""
    resolved = json.loads(shell("resolve", item["id"], '{"ok": true}', "--by", "jane"))
    assert (resolved["resolution"], resolved["resolved_by"]) == ({"ok": True}, "jane")
    status, _, errors = shell.run("resolve", item["id"], "--by", "bob")
    assert status == 1
    assert "jane resolved it" in errors


def test_command_stream_prints_all_items(shell: Shell, connection: psycopg.Connection) -> None:
    """(E20) The command ends when the job has ended, and can begin after an item."""
    connection.execute("select start('w', id => 'job')")
    for items in ('["a", "b"]', '["c"]'):
        connection.execute("select entity_log('job', 'words', %s)", [items])
    connection.execute("select terminate('job')")
    lines = [json.loads(line) for line in shell("stream", "job", "words").splitlines()]
    assert [line["item"] for line in lines] == ["a", "b", "c"]
    assert json.loads(shell("stream", "job", "words", "--after", "1"))["item"] == "c"


def test_error_message_names_the_mistake(shell: Shell) -> None:
    for arguments, printed in (
        (("status", "nobody"), "nobody"),
        (("install", "--schema", "pg_app"), "pg_app"),
        (("start", "research", "{not json"), "JSON"),
        (("worker", "no_colon", "--queue", "q"), "colon"),
    ):
        status, _, errors = shell.run(*arguments)
        assert status
        assert printed in errors


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, "9" * 10_000, "{"])
@pytest.mark.parametrize("command", ["start w", "signal x go", "find e --where"])
def test_unreadable_json_is_rejected_with_a_short_message(
    shell: Shell, command: str, text: str
) -> None:
    """Deep nesting must not end in a traceback of a RecursionError."""
    status, _, errors = shell.run(*command.split(), text)
    assert status == 2
    assert "not valid JSON" in " ".join(errors.replace("│", " ").split())
    assert len(errors) < 1000


@pytest.mark.parametrize("depth", [100, 400, 900])
def test_deeply_nested_json_causes_no_traceback(shell: Shell, depth: int) -> None:
    """It is either accepted or rejected as too deep."""
    status, _, errors = shell.run("start", "w", "[" * depth + "]" * depth)
    assert "Traceback" not in errors
    if status:
        assert "too deep" in errors


@pytest.mark.broken_invariants
def test_command_check_prints_broken_invariants(
    shell: Shell, connection: psycopg.Connection
) -> None:
    connection.execute("select start('w', id => 'job')")
    connection.execute("delete from tasks")
    status, printed, _ = shell.run("check")
    assert status == 1
    assert json.loads(printed.splitlines()[0])["job"] == "job"


@pytest.mark.direct("a pooler takes no options")
def test_command_check_may_take_longer_than_the_statement_timeout(
    shell: Shell, connection: psycopg.Connection
) -> None:
    """Of a large app it takes longer than what a provider allows to a query of a user."""
    connection.execute(
        """create or replace function broken_tables() returns setof broken_invariant
           language plpgsql as $$ begin perform pg_sleep(0.5); end $$"""
    )
    shell.monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=400ms")
    assert shell("check") == ""


SHOW_APP = "select current_schema() || perdure_version()"


def commands_of(group: Any) -> Iterator[Any]:
    """Yield each command of a group, with those of its subgroups."""
    for command in getattr(group, "commands", {None: group}).values():
        yield from commands_of(command) if hasattr(command, "commands") else [command]


def test_arguments_of_all_commands_have_uppercase_names() -> None:
    commands = list(commands_of(typer.main.get_command(all_commands)))
    taken = [
        parameter.metavar
        for command in commands
        for parameter in command.params
        if parameter.param_type_name == "argument"
    ]
    assert len(taken) > 20
    assert [name for name in taken if not re.fullmatch("[A-Z:_ ]+", name or "")] == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", 'a_module.py", line 1, in <module>\n    1 / 0'),
        ("import not_there", "No module named 'not_there'"),
        ("def (", "SyntaxError"),
    ],
)
def test_import_error_of_user_code_shows_where_it_was_raised(
    shell: Shell, tmp_path: Path, code: str, message: str
) -> None:
    """The message fits in a few lines: it has no frames of typer or perdure."""
    (tmp_path / "a_module.py").write_text(code)
    shell.monkeypatch.chdir(tmp_path)
    shell.monkeypatch.setattr(sys, "path", [*sys.path])
    status, _, errors = shell.run("worker", "a_module:app")
    assert status == 1
    assert errors.startswith("error: a_module cannot be imported\n\n")
    assert message in errors
    assert len(errors.splitlines()) < 9


@pytest.mark.parametrize("command", ["jobs --since", "jobs --until", "adopt --copied-at"])
def test_time_without_a_zone_is_rejected_by_commands(shell: Shell, command: str) -> None:
    """The message shows how to write a time; no zone is guessed."""
    status, _, errors = shell.run(*command.split(), "2026-01-31T17:45")
    message = " ".join(errors.replace("│", " ").split())
    assert status == 2
    assert "2026-01-31T17:45 has no time zone: it should be like 2030-01-31T12:00:00Z" in message


def test_invalid_json_is_rejected_before_the_job_is_looked_up(shell: Shell) -> None:
    for command in ("signal nobody go {", "resolve nothing {", "fork nobody --context {"):
        status, _, errors = shell.run(*command.split())
        assert (status, "not valid JSON" in errors) == (2, True), command
    assert "context=5 is not a memory" in shell.run("fork", "nobody", "--context", "5")[2]


PSQL = """#!/bin/sh
trap 'echo interrupted; exit 7' INT
echo ready
while true; do sleep 0.1; done
"""


def test_interrupt_is_left_to_psql(dsn: str, tmp_path: Path) -> None:
    """In psql, Ctrl-C cancels a statement or a line; `perdure psql` must not end because of it."""
    (tmp_path / "psql").write_text(PSQL)
    (tmp_path / "psql").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    with subprocess.Popen(
        [sys.executable, "-m", "perdure", "psql", "--dsn", dsn],
        env=os.environ | {"PYTHONPATH": PYTHON, "PATH": path},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as opened:
        assert opened.stdout
        assert opened.stdout.readline() == "ready\n"
        os.killpg(opened.pid, signal.SIGINT)
        assert opened.stdout.read() == "interrupted\n"
    assert opened.returncode == 7


@pytest.mark.direct("a search path is of one session")
@pytest.mark.parametrize(
    ("given", "read"),
    [((), SHOW_APP), (("-At", "-c", SHOW_APP), ""), (("--no-align", f"--command={SHOW_APP}"), "")],
)
def test_command_psql_opens_with_the_app_in_the_search_path(
    dsn: str, given: tuple[str, ...], read: str
) -> None:
    """`python -m perdure psql` passes its options and standard input on to psql."""
    done = subprocess.run(
        [sys.executable, "-m", "perdure", "psql", "--dsn", dsn, *given],
        input=read,
        env=os.environ | {"PYTHONPATH": PYTHON},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"perdure{script.default_version()}" in done.stdout


@pytest.mark.direct("a pooler takes no options of a session")
def test_missing_privilege_is_reported_with_a_hint_at_grant_access(shell: Shell, dsn: str) -> None:
    as_nobody = make_conninfo(dsn, options="-c role=pg_monitor")
    status, _, errors = shell.run("status", "j", "--dsn", as_nobody)
    assert status == 1
    assert "grant_access(" in errors


def test_notes_of_an_error_are_printed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    error = psycopg.errors.InsufficientPrivilege("must be a member of role owner")
    error.add_note("run `perdure install` as owner")
    monkeypatch.setattr("perdure.cli.operating.connected", Mock(side_effect=error))
    status, _, errors = shell.run("check")
    assert (status, errors) == (
        1,
        "error: must be a member of role owner\nrun `perdure install` as owner",
    )


def test_command_url_prints_the_connection_string(shell: Shell, dsn: str) -> None:
    assert shell("url") == dsn


def test_missing_typer_is_reported_with_the_extra_to_install(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("perdure.cli.")]:
        if name != main.__module__:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "typer", None)
    status, _, errors = shell.run("url")
    assert status == 1
    assert "perdure[cli]" in errors


@pytest.mark.parametrize("queues", [["-q", "here"], []], ids=["the queue", "all queues"])
def test_command_worker_runs_until_sigterm(
    shell: Shell, dsn: str, tmp_path: Path, queues: list[str]
) -> None:
    (tmp_path / "my_module.py").write_text(MODULE)
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONHASHSEED"}
    worker = subprocess.Popen(
        [sys.executable, "-m", "perdure", "worker", "my_module:app", *queues, "--dsn", dsn],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": PYTHON},
    )
    shell("start", "hash_seed", "--id", "job", "--queue", "here")
    assert json.loads(shell("result", "job", "--timeout", "30 s")) == "0"
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


BLOCKING = """
import asyncio, signal, sys, time
import perdure

app = perdure.App()


@app.activity
def blocks() -> None:
    print("blocks\\n", end="", flush=True)  # one write each: three threads print
    time.sleep(60)


@app.activity
async def blocks_beside() -> None:
    await asyncio.to_thread(blocks)


@app.hook
def blocks_in_a_hook(memory: perdure.Entity) -> None:
    blocks()


@app.coordinator
async def waits(memory: perdure.AsyncEntity) -> None:
    await asyncio.gather(blocks(), blocks_beside(), blocks_in_a_hook(memory))


if __name__ == "__main__":
    worker = perdure.Worker(app, dsn=sys.argv[2], grace=0.3)
    if sys.argv[1] == "run":
        worker.run()
    else:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
        with worker:
            signal.sigwait([signal.SIGTERM, signal.SIGINT])
    print("ended")
"""


@pytest.mark.parametrize(
    ("way", "stop"),
    [
        ("shell", signal.SIGTERM),
        ("run", signal.SIGTERM),
        ("run", signal.SIGINT),
        ("with", signal.SIGTERM),
    ],
)
def test_worker_ends_after_its_grace_though_threads_still_run(
    shell: Shell, dsn: str, tmp_path: Path, way: str, stop: signal.Signals
) -> None:
    """Python joins threads when it exits, which would block for as long as their code runs."""
    (tmp_path / "my_module.py").write_text(BLOCKING)
    by_shell = ["-m", "perdure", "worker", "my_module:app", "--grace", "0.3", "--dsn", dsn]
    worker = subprocess.Popen(
        [sys.executable, *(by_shell if way == "shell" else ["my_module.py", way, dsn])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PYTHON, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout is not None
        shell("start", "waits", "--id", "job")
        assert [worker.stdout.readline() for _ in range(3)] == ["blocks\n"] * 3
        worker.send_signal(stop)
        printed, errors = worker.communicate(timeout=20)
        assert worker.returncode == 0
        assert printed == ("" if way == "shell" else "ended\n")
        assert "Traceback" not in errors
        assert "is left behind" in errors
    finally:
        worker.kill()
        worker.communicate()


def test_number_without_a_unit_is_a_duration_in_seconds(shell: Shell, dsn: str) -> None:
    shell("start", "nothing", "--id", "job", "--timeout", "90")
    with psycopg.connect(dsn) as connection:
        timed = connection.execute("select timeout::text from perdure.jobs").fetchall()
    assert timed == [("00:01:30",)]
    status, _, complaint = shell.run("result", "job", "--timeout", "0.1")
    assert status == 1
    assert "not finished within 0.1 s" in complaint
    status, _, complaint = shell.run("result", "job", "--timeout", "soon")
    assert "'soon' is not a duration" in complaint


def test_sql_hooks_can_be_registered_listed_and_dropped(shell: Shell, dsn: str) -> None:
    named = ["hook", "register", "recount", "perdure.recount"]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("""
            create function perdure.recount(job text, args jsonb) returns void
            language sql as 'select'""")
    assert shell(*named, "--attempts", "3", "--retry-in", "5 s", "--timeout", "1 min") == ""
    listed = json.loads(shell("hook", "list"))
    assert (listed["name"], listed["function"], listed["attempts"]) == ("recount", "recount", 3)
    assert (listed["retry_in"], listed["timeout"]) == ("0:00:05", "0:01:00")
    assert listed["within"] is None
    status, _, complaint = shell.run("hook", "register", "wrong", "perdure.clock")
    assert status == 1
    assert "cannot be the hook" in complaint
    status, _, complaint = shell.run("hook", "register", "wrong", "nowhere")
    assert status == 1
    assert complaint.startswith("error: there is no function for the hook 'wrong'\ndetail: ")
    assert "\nhint: Create it first" in complaint
    assert shell("hook", "drop", "recount") == "true"
    assert shell("hook", "list") == ""


def test_schedules_can_be_created_listed_and_dropped(shell: Shell) -> None:
    options = ["--args", '["wind"]', "--time-zone", "Europe/Berlin", "--queue", "q"]
    due_at = json.loads(shell("schedule", "create", "report", "0 0 29 2 *", *options))
    assert "-02-28T23:00:00" in due_at
    listed = json.loads(shell("schedule", "list"))
    assert (listed["name"], listed["cron"], listed["next_due_at"]) == (
        "report",
        "0 0 29 2 *",
        due_at,
    )
    assert shell("schedule", "trigger", "report", "--key", "k") == "report/now-k"
    assert json.loads(shell("status", "report/now-k"))["waiting_for"].startswith(
        "a worker on queue q"
    )
    leap_years = ("--since", "2020-01-01T00:00:00Z", "--until", "2026-01-01T00:00:00Z")
    for new in (2, 0):
        filled = shell("schedule", "backfill", "report", *leap_years)
        assert json.loads(filled) == {"jobs": 2, "new": new}
    assert shell("schedule", "pause", "report") == "true"
    assert json.loads(shell("schedule", "list"))["waits_for"] == "somebody to resume it"
    assert shell("schedule", "resume", "report") == "true"
    assert shell("schedule", "drop", "report") == "true"
    assert shell("schedule", "list") == ""
    status, _, complaint = shell.run("schedule", "create", "report", "now and then")
    assert status == 1
    assert "this is not a cron expression" in complaint
    every = shell("schedule", "create", "report", "--every", "1 month", "--name", "monthly")
    assert json.loads(every) is not None


def test_help_groups_the_commands(shell: Shell) -> None:
    """Groups in daily use come first, and each group begins with its most used command."""
    shown = shell("--help")
    order = ["Jobs", "start", "Memories", "memory", "Operating", "install", "Database", "psql"]
    places = [shown.index(f"─ {name} ─" if name.istitle() else f"│ {name} ") for name in order]
    assert places == sorted(places)


@pytest.mark.parametrize(("after", "status"), [(0.0, 0), (0.5, 1)])
def test_a_signal_that_comes_twice_at_once_is_one(
    shell: Shell, dsn: str, tmp_path: Path, after: float, status: int
) -> None:
    """`timeout 60 perdure worker ...` sends two: the worker ended at once and kept its leases."""
    (tmp_path / "my_module.py").write_text(BLOCKING)
    worker = subprocess.Popen(
        [sys.executable, "-m", "perdure", "worker", "my_module:app", "--grace", "2", "--dsn", dsn],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PYTHON, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout is not None
        shell("start", "waits", "--id", "job")
        assert [worker.stdout.readline() for _ in range(3)] == ["blocks\n"] * 3
        worker.send_signal(signal.SIGTERM)
        time.sleep(0.05 + after)  # two of the same that are pending are one, for the system too
        worker.send_signal(signal.SIGTERM)
        _, complained = worker.communicate(timeout=20)
        assert worker.returncode == status
        assert ("a second signal" in complained) is bool(status)
    finally:
        worker.kill()
        worker.communicate()
