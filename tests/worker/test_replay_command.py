"""`perdure replay`, a gate before a deployment, prints each difference and then fails. [P9]"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from perdure.cli.main import main
from tests.patience import wait_until
from tests.worker.test_replaying import app_with, first, until_waiting

CODE = """
import perdure

app = perdure.App(version={version!r})


@app.activity
async def step(what: str) -> str:
    raise AssertionError("nothing runs")


async def first(memory):
    await memory.set({{"n": 1}})
    one = await step("one")
    go = await perdure.wait_for("go")
    return [one, go, await step("two")]


@app.coordinator(queue="flows")
async def flow(memory: perdure.AsyncEntity, n: int = 0):
    {body}
"""

UNCHANGED = "return await first(memory)"
CHANGED = "await step('zero'); return await first(memory)"
GUARDED = "perdure.patched('zero') and await step('zero'); return await first(memory)"

Perdure = Callable[..., tuple[object, str]]


@pytest.fixture
def perdure_command(
    dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Perdure:
    """Give a function that runs the command on an app with this code."""
    monkeypatch.setenv("PERDURE_DATABASE_URL", dsn)
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # otherwise the command restarts itself
    monkeypatch.setenv("COLUMNS", "1000")  # otherwise long paths break lines
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(body: str | None, *arguments: str, version: str | None = None) -> tuple[object, str]:
        sys.modules.pop("code_of_now", None)
        if body is not None:
            module = tmp_path / "code_of_now.py"
            module.write_text(CODE.format(body=body, version=version))
            sys.path_importer_cache.clear()
            monkeypatch.setattr(sys, "dont_write_bytecode", True)
            arguments = ("code_of_now:app", *arguments)
        monkeypatch.setattr(sys, "argv", ["perdure", "replay", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main()
        printed, errors = capsys.readouterr()
        return exited.value.code, printed or errors or str(exited.value.code)

    return run


@pytest.fixture
def jobs(client: perdure.Client, dsn: str, connection: Any) -> list[str]:
    """Give three running jobs, beside one that has ended."""
    names = ["ended", "one", "three", "two"]
    with perdure.Worker(app_with(first), dsn=dsn):
        for name in names:
            client.start("flow", id=name, queue="flows")
        until_waiting(connection, *names)
        client.handle("ended").signal("go", 1)
        client.handle("ended").result("15 s")
    return names[1:]


def test_unchanged_code_passes(perdure_command: Perdure, jobs: list[str]) -> None:
    assert perdure_command(UNCHANGED, "--running") == (0, "3 journals replayed, 0 different\n")


def test_changed_code_fails_with_a_line_for_each_job(
    perdure_command: Perdure, jobs: list[str]
) -> None:
    status, printed = perdure_command(CHANGED, "--running")
    *lines, last = printed.splitlines()
    assert status == 1
    assert [line.split(" ")[0] for line in lines] == jobs
    assert all("(flow): at position 1 the journal tells command set#1" in line for line in lines)
    assert last == "3 journals replayed, 3 different"


def test_patched_code_passes(perdure_command: Perdure, jobs: list[str]) -> None:
    """Jobs from before the patch keep the old way, whether they run or have ended."""
    assert perdure_command(GUARDED, "--running", "--job", "ended")[0] == 2
    assert perdure_command(GUARDED, "--running")[0] == 0
    assert perdure_command(GUARDED, "--job", "ended")[0] == 0


def test_patch_can_be_removed_when_no_older_job_runs(
    perdure_command: Perdure, jobs: list[str], client: perdure.Client, dsn: str, connection: Any
) -> None:
    """Code without the patch fits jobs that began with it, and none that began before it."""

    async def guarded(memory: Any, step: Any) -> Any:
        if perdure.patched("zero"):
            await step("zero")
        return await first(memory, step)

    with perdure.Worker(app_with(guarded), dsn=dsn):
        client.start("flow", id="new", queue="flows")
        until_waiting(connection, "new")
    assert perdure_command(GUARDED, "--running") == (0, "4 journals replayed, 0 different\n")
    assert perdure_command(CHANGED, "--running", "--limit", "1")[0] == 0  # `new` is the first
    assert perdure_command(CHANGED, "--running")[0] == 1
    for job in jobs:
        client.handle(job).terminate()
    assert perdure_command(CHANGED, "--running") == (0, "1 journals replayed, 0 different\n")
    assert perdure_command(UNCHANGED, "--running")[0] == 1


def test_job_option_selects_single_jobs(perdure_command: Perdure, jobs: list[str]) -> None:
    status, printed = perdure_command(CHANGED, "--job", "two", "--job", "ended")
    assert status == 1
    assert [line.split(" ")[0] for line in printed.splitlines()] == ["two", "ended", "2"]
    assert "no workflow" in perdure_command(UNCHANGED, "--job", "nobody")[1].lower()


def test_exported_journals_are_replayed_without_the_database(
    perdure_command: Perdure, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert perdure_command(None, "--running", "--export", "all.jsonl") == (
        0,
        "3 journals written to all.jsonl\n",
    )
    monkeypatch.setenv("PERDURE_DATABASE_URL", "postgresql://nowhere.invalid/")
    assert perdure_command(UNCHANGED, "--file", "all.jsonl")[0] == 0
    assert perdure_command(CHANGED, "--file", "all.jsonl")[0] == 1


def test_jobs_of_other_queues_versions_and_workflows_are_left_out(
    perdure_command: Perdure, jobs: list[str], client: perdure.Client
) -> None:
    client.handle("one").repin("2")
    for options, count in (
        ([], 2),
        (["--queue", "others"], 0),
        (["--version", "2"], 3),
        (["--workflow", "other"], 0),
        (["--limit", "2"], 1),
    ):
        found = perdure_command(UNCHANGED, "--running", *options)
        assert found == (0, f"{count} journals replayed, 0 different\n"), options
    assert perdure_command(UNCHANGED, "--running", version="2")[1][0] == "3"
    assert perdure_command(None, "--running", "--export", "all.jsonl")[1][0] == "3"


@pytest.mark.parametrize(
    "arguments", [[], ["--running", "--file", "x"], ["--job", "a", "--running"]]
)
def test_exactly_one_source_of_journals_is_required(
    perdure_command: Perdure, arguments: list[str]
) -> None:
    status, errors = perdure_command(UNCHANGED, *arguments)
    assert status == 2
    assert "--running, --job and --file" in errors


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_limit_that_leaves_nothing_is_rejected(
    perdure_command: Perdure, jobs: list[str], limit: str
) -> None:
    """A gate that has replayed nothing must not pass."""
    for arguments in ((UNCHANGED, "--running"), (None, "--running", "--export", "journals.jsonl")):
        status, _ = perdure_command(*arguments, "--limit", limit)
        assert f"error: a limit of {limit} leaves nothing to replay" in str(status)
        assert "hint: " in str(status)


def test_app_is_required_for_a_replay(perdure_command: Perdure, jobs: list[str]) -> None:
    status, errors = perdure_command(None, "--running")
    assert status == 2
    assert "my_module:app" in errors


def test_replay_creates_no_app(perdure_command: Perdure, dsn: str) -> None:
    """A new release may be replayed against the database of an older one."""
    status, errors = perdure_command(UNCHANGED, "--running", "--schema", "nothing_here")
    assert status not in (0, None)
    assert "nothing_here" in errors
    with psycopg.connect(dsn) as connection:
        found = connection.execute("select to_regnamespace('nothing_here')").fetchone()
    assert found == (None,)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"{}",
        b"[1]",
        b'{"row": 1, "journal": []}',
        b"no JSON",
        b"\xff\xfe",
        b"null",
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
def test_file_without_recordings_is_rejected_without_a_traceback(
    perdure_command: Perdure, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "journals.jsonl"
    if content is not None:
        file.write_bytes(content)
    status, complaint = perdure_command(UNCHANGED, "--file", str(file))
    assert status != 0
    assert "Traceback" not in complaint
    assert ("cannot be read" if content is None else "is not a recording") in complaint


def test_file_that_cannot_be_written_is_reported(
    perdure_command: Perdure, jobs: list[str], tmp_path: Path
) -> None:
    status, complaint = perdure_command(None, "--running", "--export", str(tmp_path / "no" / "f"))
    assert status == 2
    assert "cannot be written" in complaint


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("no_such_module:app", "there is no module no_such_module"),
        ("no_such.module:app", "there is no module no_such.module"),
        ("perdure:nothing", "has no nothing"),
        ("perdure:App", "is not a perdure.App, but a type"),
        ("perdure", "has no colon"),
        (":app", "does not name an app"),
        (".perdure:app", "does not name an app"),
        ("perdure..cli:app", "does not name an app"),
    ],
)
def test_app_that_cannot_be_found_is_explained(
    perdure_command: Perdure, tmp_path: Path, place: str, complaint: str
) -> None:
    status, printed = perdure_command(None, "--running", place)
    assert status == 2
    assert complaint in " ".join(re.sub(r"[│╭╮╰╯─]", " ", printed).split())


def test_import_error_of_the_app_shows_its_place(perdure_command: Perdure, tmp_path: Path) -> None:
    (tmp_path / "misses.py").write_text("import no_such_module_at_all")
    _, printed = perdure_command(None, "--running", "misses:app")
    assert printed.startswith("error: misses cannot be imported")
    assert 'misses.py", line 1' in printed
    assert "No module named 'no_such_module_at_all'" in printed


def test_a_difference_names_the_line_in_which_the_code_waits(
    perdure_command: Perdure, jobs: list[str], tmp_path: Path
) -> None:
    """Its key told what the code asks for; where it does so had to be searched for."""
    _, printed = perdure_command(CHANGED, "--running")
    lines = (tmp_path / "code_of_now.py").read_text().splitlines()
    (zero,) = [number for number, line in enumerate(lines, 1) if "zero" in line]
    assert printed.splitlines()[0].endswith(f"code_of_now.py:{zero})")


def test_the_log_names_the_line_in_which_stuck_code_waits(
    client: perdure.Client, dsn: str, jobs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def others(memory: Any, step: Any) -> Any:
        await memory.set(7, "other")  # other arguments than the first ones

    with perdure.Worker(app_with(others), dsn=dsn):
        client.handle("one").signal("go", 1)
        wait_until(lambda: any("is stuck" in each for each in caplog.messages))
    (told,) = [each for each in caplog.messages if "is stuck" in each]
    here = others.__code__.co_firstlineno + 1
    assert told.splitlines()[-1].endswith(f"test_replay_command.py:{here}")
