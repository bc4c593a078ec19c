"""Replaying compares recorded journals with the code at hand, without any effect. [P9]"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import replaying
from perdure.errors import UnknownFunction

T = "40 s"
Code = Callable[[Any, Any], Any]


def app_with(code: Code, done: list[str] | None = None, **options: Any) -> perdure.App:
    """Give an app whose coordinator `flow` runs this code, and whose activity notes its calls."""
    app = perdure.App(**options)

    @app.activity
    async def step(what: str) -> str:
        if done is not None:
            done.append(what)
        return what

    @app.coordinator(name="flow", queue="flows")
    async def flow(memory: perdure.AsyncEntity, n: int = 0) -> Any:
        return await code(memory, step)

    return app


async def first(memory: Any, step: Any) -> Any:
    await memory.set({"n": 1})
    one = await step("one")
    go = await perdure.wait_for("go")
    return [one, go, await step("two")]


async def renamed(memory: Any, step: Any) -> Any:
    await memory.merge({"n": 1})
    return await first(memory, step)


async def edited(memory: Any, step: Any) -> Any:
    await memory.set({"n": 1})
    await step("another prompt")
    return await perdure.wait_for("go")


async def longer(memory: Any, step: Any) -> Any:
    ended = await first(memory, step)
    return [*ended, await step("three")]


async def other_result(memory: Any, step: Any) -> Any:
    return reversed_of(await first(memory, step))


def reversed_of(items: list[Any]) -> list[Any]:
    return items[::-1]


async def raising(memory: Any, step: Any) -> Any:
    await first(memory, step)
    raise ValueError("not like this")


async def patched(memory: Any, step: Any) -> Any:
    if perdure.patched("begin"):
        await step("zero")
    ended = await first(memory, step)
    return [*ended, await step("three")] if perdure.patched("end") else ended


def until_waiting(connection: Any, *jobs: str) -> None:
    """Wait until all these jobs are parked."""
    query = "select count(*) from waiting where job_id = any(%s) and state = 'waiting'"
    end = time.monotonic() + 15
    while connection.execute(query, [list(jobs)]).fetchone()[0] < len(jobs):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def running(client: perdure.Client, dsn: str, connection: Any) -> perdure.Handle:
    """Give a job that waits in the middle of its code."""
    with perdure.Worker(app_with(first), dsn=dsn):
        handle = client.start("flow", id="job", queue="flows")
        until_waiting(connection, "job")
    return handle


@pytest.fixture
def ended(client: perdure.Client, dsn: str, running: perdure.Handle) -> perdure.Handle:
    """Give a job that has completed."""
    with perdure.Worker(app_with(first), dsn=dsn):
        running.signal("go", 7)
        assert running.result(T) == ["one", 7, "two"]
    return running


def difference(app: perdure.App, recording: replaying.Recording) -> str | None:
    """Give the detail of the difference, or None."""
    found = replaying.replay_journal(app, recording.row, recording.journal)
    return None if found is None else found.detail


@pytest.mark.parametrize("code", [first, longer, other_result, raising, patched])
def test_code_may_differ_behind_the_end_of_the_journal(
    client: perdure.Client, running: perdure.Handle, code: Code
) -> None:
    [recording] = replaying.recordings(client)
    assert difference(app_with(code), recording) is None


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (renamed, "the journal tells command set#1 (arguments"),
        (edited, "the journal tells activity step#1 (arguments"),
    ],
)
def test_difference_is_described_in_words(
    client: perdure.Client, running: perdure.Handle, code: Code, expected: str
) -> None:
    [recording] = replaying.recordings(client)
    assert expected in (difference(app_with(code), recording) or "")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (first, None),
        (patched, None),
        (longer, 'returned ["one", 7, "two"], but the code waits for activity step#3'),
        (other_result, 'returned ["one", 7, "two"], but the code returns ["two", 7, "one"]'),
        (raising, "but the code raises ValueError('not like this')"),
    ],
)
def test_completed_job_must_reach_its_result_again(
    client: perdure.Client, ended: perdure.Handle, code: Code, expected: str | None
) -> None:
    assert list(replaying.recordings(client)) == []
    found = difference(app_with(code), replaying.recording_of(client, "job"))
    assert found is None if expected is None else expected in (found or "")


async def interrupted(memory: Any, step: Any) -> Any:
    await memory.set({"n": 1})
    signal.raise_signal(signal.SIGINT)


async def interrupting_itself(memory: Any, step: Any) -> Any:
    await memory.set({"n": 1})
    raise KeyboardInterrupt


def test_ctrl_c_ends_a_replay(client: perdure.Client, running: perdure.Handle) -> None:
    """A KeyboardInterrupt that the code itself raises is a difference, and no Ctrl-C."""
    [recording] = replaying.recordings(client)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        difference(app_with(interrupted), recording)
    assert signal.getsignal(signal.SIGINT) is before
    found = difference(app_with(interrupting_itself), recording)
    assert "raised KeyboardInterrupt" in (found or "")


def test_terminated_job_is_replayed_as_far_as_it_ran(
    client: perdure.Client, running: perdure.Handle
) -> None:
    running.terminate()
    assert difference(app_with(first), replaying.recording_of(client, "job")) is None
    assert difference(app_with(edited), replaying.recording_of(client, "job")) is not None


def test_replaying_has_no_effect(
    client: perdure.Client, running: perdure.Handle, connection: Any
) -> None:
    rows = "select to_jsonb(t) from tasks t union all select to_jsonb(j) from journal j"
    before = connection.execute(rows).fetchall()
    done: list[str] = []
    assert replaying.check_journals(app_with(longer, done), client) == 1
    assert done == []
    assert connection.execute(rows).fetchall() == before


def test_recordings_are_written_to_a_file_and_read_back(
    client: perdure.Client, ended: perdure.Handle, tmp_path: Path
) -> None:
    path = tmp_path / "journals.jsonl"
    recorded = [replaying.recording_of(client, "job")]
    assert replaying.write_recordings(path, recorded) == 1
    assert list(replaying.read_recordings(path)) == recorded
    assert replaying.check_journals(app_with(first), path) == 1
    with pytest.raises(perdure.NonDeterminism, match=r"does not match 1 of 1 journals") as caught:
        replaying.check_journals(app_with(renamed), path)
    assert "the code of job/1/main does not match its journal: at position 1" in str(caught.value)


def test_missing_coordinator_is_reported(client: perdure.Client, running: perdure.Handle) -> None:
    [recording] = replaying.recordings(client)
    with pytest.raises(UnknownFunction, match="no coordinator named 'flow'"):
        replaying.replay_journal(perdure.App(), recording.row, recording.journal)
    other = perdure.App()
    other.coordinator(name="other", queue="flows")(first)
    with pytest.raises(perdure.NonDeterminism, match="no coordinator named 'flow'"):
        replaying.check_journals(other, client)


def test_jobs_of_other_apps_and_versions_are_left_out(
    client: perdure.Client, running: perdure.Handle
) -> None:
    assert replaying.check_journals(perdure.App(), client) == 0  # this app serves no queue `flows`
    client.start("flow", id="pinned", queue="flows", pinned_version="2")
    assert replaying.check_journals(app_with(first), client) == 1
    assert replaying.check_journals(app_with(first, version="2"), client) == 2
    assert replaying.check_journals(app_with(first, version="3"), client) == 1


def test_recordings_are_read_page_by_page(
    client: perdure.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "PAGE", 2)
    client.start_many("flow", [{"id": f"job-{n}"} for n in range(5)])
    client.start("another", id="job-6")
    found = [each.job for each in replaying.recordings(client)]
    assert found == [f"job-{n}" for n in (0, 1, 2, 3, 4, 6)]
    assert [each.job for each in replaying.recordings(client, workflow="another")] == ["job-6"]
    assert len(list(replaying.recordings(client, limit=3))) == 3


def test_journal_is_read_up_to_the_position_of_its_row(
    client: perdure.Client, dsn: str, running: perdure.Handle
) -> None:
    """The job may go on between reading the row of its task and reading its journal."""
    row = client.send(client.calls.recording_of("job"))
    with perdure.Worker(app_with(first), dsn=dsn):
        running.signal("go", 7)
        running.result(T)
    recorded = replaying._recorded(client, row)
    assert len(recorded.journal) == row["position"] == 2
    assert difference(app_with(patched), recorded) is None


def test_plain_code_is_replayed_too(client: perdure.Client, dsn: str, connection: Any) -> None:
    def plain_app(what: str) -> perdure.App:
        app = perdure.App()

        @app.coordinator(name="plain")
        def plain(memory: perdure.Entity) -> Any:
            memory.set(what, "what")
            return perdure.wait_for("go", timeout="1 h")

        return app

    with perdure.Worker(plain_app("a"), dsn=dsn):
        client.start("plain", id="job")
        until_waiting(connection, "job")
    [recording] = replaying.recordings(client)
    assert difference(plain_app("a"), recording) is None
    assert "command set#1" in (difference(plain_app("b"), recording) or "")


def test_recording_of_a_missing_job_is_rejected(client: perdure.Client) -> None:
    client.create_entity("memory", "notes")
    for job in ("nobody", "memory"):
        with pytest.raises(perdure.JobNotFound):
            replaying.recording_of(client, job)
