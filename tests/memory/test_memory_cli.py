"""The command line reads memories, their history and their differences, and restores or forgets
them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from perdure.cli.main import main

PYTHON = os.fspath(Path(perdure.__file__).parents[1])

Shell = Callable[..., list[Any]]


@pytest.fixture
def memory(dsn: str) -> Any:
    """Give a memory of three versions."""
    with perdure.connect(dsn) as client:
        memory = client.create_entity("m", "note", {"a": {"b": 1}})
        memory.set(2, "a.b")
        memory.set(3, "c")
        yield memory


@pytest.fixture
def shell(dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a function that runs `perdure …` and parses each line that it prints as JSON."""
    monkeypatch.setenv("PERDURE_DATABASE_URL", dsn)

    def run(*arguments: str) -> list[Any]:
        monkeypatch.setattr(sys, "argv", ["perdure", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_status:
            main()
        printed, errors = capsys.readouterr()
        if exit_status.value.code:
            raise ValueError(f"{exit_status.value.code} {errors}")
        return [json.loads(line) for line in printed.splitlines()]

    return run


def test_command_memory_prints_a_version_or_a_moment(shell: Shell, memory: Any) -> None:
    began = memory.history()[0].at.isoformat()
    assert shell("memory", "m", "a.b") == [2]
    assert shell("memory", "m", "a.b", "--version", "1") == [1]
    assert shell("memory", "m", "a.b", "--at", began) == [1]


def test_command_history_filters_by_path_and_version(shell: Shell, memory: Any) -> None:
    def versions(*arguments: str) -> list[int]:
        return [change["version"] for change in shell("history", "m", *arguments)]

    assert versions() == [1, 2, 3]
    assert versions("a") == [1, 2]
    assert versions("a.b", "--after", "1") == [2]


def test_command_history_follows_changes_until_interrupted(dsn: str, memory: Any) -> None:
    command = [sys.executable, "-u", "-m", "perdure", "history", "m", "-f", "--dsn", dsn]
    env = os.environ | {"PYTHONPATH": PYTHON}
    with subprocess.Popen(
        [*command, "--after", "3"], env=env, stdout=subprocess.PIPE, text=True
    ) as following:
        try:
            assert following.stdout is not None
            for n in (4, 5):
                memory.set(n, "c")
                assert json.loads(following.stdout.readline())["version"] == n
            following.send_signal(signal.SIGINT)
            rest, _ = following.communicate(timeout=30)
        finally:
            following.kill()
    assert (following.returncode, rest) == (0, "")


def test_commands_diff_blame_and_restore(shell: Shell, memory: Any) -> None:
    (changed, added) = shell("diff", "m", "1")
    assert (changed["path"], changed["old"], changed["new"]) == ("a.b", 1, 2)
    assert (added["path"], added["change"]) == ("c", "added")
    assert [place["path"] for place in shell("diff", "m", "1", "2")] == ["a.b"]
    assert [(author["path"], author["version"]) for author in shell("blame", "m")] == [
        ("a.b", 2),
        ("c", 3),
    ]
    assert [author["version"] for author in shell("blame", "m", "a")] == [2]
    assert shell("restore", "m", "1") == [4]
    assert memory.get() == {"a": {"b": 1}}


def test_command_forget_removes_a_memory_once(shell: Shell, memory: Any) -> None:
    assert shell("forget", "m") == [True]
    assert shell("forget", "m") == [False]


def test_command_forget_finished_removes_only_old_jobs(
    shell: Shell, dsn: str, connection: psycopg.Connection[Any]
) -> None:
    with perdure.connect(dsn) as client:
        ids = [f"job-{number}" for number in range(1005)]
        client.start_many("research", [{"id": job} for job in [*ids, "young"]])
        connection.execute("select count(terminate(id)) from jobs")
        connection.execute(
            "update jobs set created_at = now() - interval '91 days',"
            " finished_at = now() - interval '91 days' where id = any(%s)",
            [ids],
        )
        assert shell("forget-finished", "90 days", "--entity", "note") == [0]
        assert shell("forget-finished", "90 days") == [1005]
        assert [job.id for job in client.jobs()] == ["young"]


MISTAKES = {
    "an unknown job": (("history", "nobody"), "does not exist"),
    "an unknown version": (("memory", "m", "--version", "9"), "version 9"),
    "a malformed time": (("memory", "m", "--at", "yesterday"), "like 2030-01-31T12:00:00Z"),
    "a time without a zone": (("memory", "m", "--at", "2030-01-31"), "time zone"),
    "a version and a time": (
        ("memory", "m", "--version", "1", "--at", "2030-01-31T12:00:00Z"),
        "Both or neither",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_reported_in_words(shell: Shell, memory: Any, mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        shell(*arguments)
