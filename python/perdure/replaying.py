"""Run coordinators against recorded journals, to see whether the code still fits. [P9]

Nothing is written, and no activity, hook or child runs: the code is told what its job was told.
Call `check_journals(app, "journals.jsonl")` in a test, or `perdure replay` in a shell.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from perdure.database import unsealers
from perdure.database.sealing import Fields
from perdure.database.unsealing import Unsealer
from perdure.errors import (
    InvalidArgument,
    NonDeterminism,
    PerdureError,
    SealBroken,
    UnknownFunction,
    ValueSealed,
)
from perdure.replay.differences import listed, other_outcome, other_request
from perdure.workers.coordinator_calls import AnyRun, open_run
from perdure.workers.turns import facts_of
from perdure.workflow.operations import stored

if TYPE_CHECKING:
    from perdure.clients.client import Client
    from perdure.workflow.app import App

Json = dict[str, Any]
Rows = list[list[Any]]

PAGE = 100
"""How many running coordinators are read at a time."""

ALL_ASKED = 2_147_483_647
"""How much the code of an ended run has asked for, as the database stores it."""

_COMPARED = {"completed": "returned", "continued": "continued as new with"}
"""Endings that the code must reproduce, and what the code did."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A coordinator's row, as `running_coordinators()` returns it, and its journal."""

    row: Json
    journal: Rows

    @property
    def job(self) -> str:
        """Return the id of the job."""
        return str(self.row["job"])

    def to_line(self) -> str:
        """Write the recording as a line of JSON."""
        return json.dumps({"row": self.row, "journal": self.journal}, ensure_ascii=False)

    @classmethod
    def of_line(cls, line: str) -> Recording:
        """Read a recording from a line of JSON. Raises InvalidArgument."""
        try:
            read = json.loads(line)
            row, journal = read["row"], read["journal"]
            is_recording = isinstance(journal, list) and {"job", "name"} <= row.keys()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _is_no_recording(line) from error
        if not is_recording:
            raise _is_no_recording(line)
        return cls(row, journal)


def replay_journal(app: App, row: Json, journal: Rows) -> NonDeterminism | None:
    """Run a coordinator of the app against its journal; return the difference, or None.

    `row` comes from `running_coordinators()`, `journal` from `read_journal()`. The code of a
    completed job must return the same result. Raises UnknownFunction.
    """
    function = app.coordinators.get(row["name"])
    if function is None:
        raise UnknownFunction(
            f"this app has no coordinator named {row['name']!r}",
            hint="Replay it with the app that registers it.",
        )
    row, journal = opened(app, row, journal)
    known = row | {"workflow": row["name"], "signal": None, "queue": row["queue"] or "default"}
    run = open_run(app, function, known, facts_of(journal))
    with _interruptible():
        try:
            has_finished = run.advance()
            if row["status"] in _COMPARED:
                may_run_again = bool(function.again_for) and row["result"] == row["args"]
                return _other_ending(row, run, has_finished, may_run_again)
            return _other_request(row, run)
        except NonDeterminism as difference:
            return difference
        finally:
            run.close()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end this block: a run would take a KeyboardInterrupt for an error of the code."""
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        signal.default_int_handler(number, frame)

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield  # Ctrl-C is heard elsewhere
        return
    signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if heard:
            raise KeyboardInterrupt


def opened(app: App, row: Json, journal: Rows) -> tuple[Json, Rows]:
    """Decrypt a recording with the codec of the app. Raises ValueSealed and SealBroken."""
    fields = Fields(() if app.codec is None else app.codec.memory)
    known, rows = unsealers.recording(Unsealer(app.codec, fields, {}), row, journal)
    # A row that a worker has claimed was decrypted there, and its guard is known.
    return known | ({"guard": row["guard"]} if "guard" in row else {}), rows


def _other_request(row: Json, run: AnyRun) -> NonDeterminism | None:
    """Compare what is under way with what the code waits for. Older recordings do not say it."""
    for key, fingerprint in (row.get("open") or {}).items():
        operation = run.journal.operations.get(key)
        if operation is None or operation.kind != "answer":
            is_same = run.journal.has_withdrawn(key)
        else:
            is_same = row["accept_changes"] or None in (fingerprint, operation.fingerprint)
            is_same = is_same or fingerprint == operation.fingerprint
        if not is_same:
            return other_request(f"{row['job']}/{row['task']}", key, fingerprint, operation)
    return None


def _other_ending(
    row: Json, run: AnyRun, has_finished: bool, may_run_again: bool
) -> NonDeterminism | None:
    """Compare the end of a run that ended by itself; others may have been ended from outside.

    A run that has returned was followed by another if it may run again, for a signal.
    """
    is_continued = row["status"] == "continued"
    if not has_finished:
        instead = f"waits for {listed(run.journal.operations.values())}"
    elif run.continuation is not None:
        if is_continued and run.continuation == row["result"]:
            return None
        instead = f"continues as new with {json.dumps(run.continuation)}"
    else:
        try:
            result = stored(run.outcome())
        except BaseException as error:  # noqa: BLE001 - whatever the code raised, it is the outcome
            instead = f"raises {error!r}"
        else:
            if may_run_again if is_continued else result == row["result"]:
                return None
            instead = f"returns {json.dumps(result)}"
    outcome = f"{_COMPARED[row['status']]} {json.dumps(row['result'])}"
    return other_outcome(f"{row['job']}/{row['task']}", outcome, instead)


def replay(
    app: App, recorded: Iterable[Recording]
) -> Iterator[tuple[Recording, PerdureError | None]]:
    """Replay recordings one after the other; yield each with its error, or None."""
    for recording in recorded:
        try:
            yield recording, replay_journal(app, recording.row, recording.journal)
        except (UnknownFunction, ValueSealed, SealBroken) as error:
            yield recording, error


def in_a_line(error: PerdureError) -> str:
    """Write a difference, or what keeps a recording from being replayed, in a line."""
    told = ": ".join(filter(None, (error.message, error.detail)))
    place = error.place if isinstance(error, NonDeterminism) else None
    return f"{told} ({place})" if place else told


def concerns(row: Json, queues: Collection[str], version: str | None) -> bool:
    """Tell whether a worker of these queues and this version would run the job of a row."""
    return row["queue"] in queues and row["pinned_version"] in (None, version)


def recordings(
    client: Client, *, workflow: str | None = None, limit: int | None = None
) -> Iterator[Recording]:
    """Read the running coordinators in order of their ids, at most `limit` of them.

    Raises InvalidArgument.
    """
    if limit is not None and limit < 1:
        raise InvalidArgument(
            f"a limit of {limit} leaves nothing to replay",
            hint="Give at least 1, or no limit for all running jobs.",
        )
    after, left = "", limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        # Left encrypted: an export must not contain plain values, and the replay has the codec.
        rows = client.send(client.calls.running_coordinators(after, size, workflow))
        for (row,) in rows:
            yield _recorded(client, row)
        if not rows:
            return
        after = rows[-1][0]["job"]
        left = None if left is None else left - len(rows)


def recordings_of_runs(client: Client, job: str, seen: Mapping[str, Json]) -> Iterator[Recording]:
    """Read all runs of a job that a worker has seen: the rows of their claims, by their tasks.

    The database knows how each run ended, but only of the last one with which arguments it had
    begun. Runs whose journal was deleted (`forget_old_runs`) are left out.
    """
    last = recording_of(client, job)
    for number, (*_, ending, _, _, _) in enumerate(_rows_of(client, job, "$run"), start=1):
        task, next_task = f"{number}/main", f"{number + 1}/main"
        journal = _rows_of(client, job, task)
        is_whole = journal != [] and journal[-1][0] == len(journal)
        if task in seen and next_task in seen and is_whole:
            status, result = ending["status"], ending.get("result")
            ended = {"status": status, "asked": ALL_ASKED, "accept_changes": False}
            ended["result"] = seen[next_task]["args"] if status == "continued" else result
            yield Recording(last.row | seen[task] | ended, journal)
    began = seen.get(last.row["task"])
    if began is not None:  # after its end the database does not know these two
        known = {name: began[name] for name in ("started_at", "attempt")}
        yield Recording(last.row | known, last.journal)


def _rows_of(client: Client, job: str, task: str, position: int | None = None) -> Rows:
    """Read what a task was told, perhaps up to a position; some of it may have been deleted."""
    rows: Rows = []
    while position is None or len(rows) < position:
        call = client.calls.read_journal(job, task, rows[-1][0] if rows else 0)
        page = client.send(call.as_it_is())
        if not page:
            break
        rows += page
    return rows[:position]


def recording_of(client: Client, job: str) -> Recording:
    """Read one job, running or ended. Raises JobNotFound."""
    row = client.send(client.calls.recording_of(job))
    return _recorded(client, row)


def _recorded(client: Client, row: Json) -> Recording:
    """Read the journal of a row, up to its position at that time."""
    return Recording(row, _rows_of(client, row["job"], row["task"], row["position"]))


def read_recordings(path: str | PathLike[str]) -> Iterator[Recording]:
    """Read the recordings that `perdure replay --export` has written."""
    with Path(path).open(encoding="utf-8") as lines:
        try:
            yield from map(Recording.of_line, lines)
        except UnicodeDecodeError as error:
            raise _is_no_recording("bytes that are no UTF-8") from error


def _is_no_recording(line: str) -> InvalidArgument:
    return InvalidArgument(
        "this is not a recording of a journal",
        detail=f"It begins with: {line[:80]!r}.",
        hint="Give a file that `perdure replay --export` has written.",
    )


def write_recordings(path: str | PathLike[str], recorded: Iterable[Recording]) -> int:
    """Write recordings, one line of JSON each; return how many."""
    written = 0
    with Path(path).open("w", encoding="utf-8") as file:
        for recording in recorded:
            file.write(recording.to_line() + "\n")
            written += 1
    return written


def check_journals(app: App, source: str | PathLike[str] | Client) -> int:
    """Replay the recordings of a file, or the running jobs of a client's app; return how many.

    `check_journals(app, "journals.jsonl")` in any test. Of a client, jobs on the queues of the app
    are replayed. Raises NonDeterminism with every difference.
    """
    if isinstance(source, str | PathLike):
        recorded = read_recordings(source)
    else:
        known = app.queues(), app.version
        recorded = (each for each in recordings(source) if concerns(each.row, *known))
    answers = [answer for _, answer in replay(app, recorded)]
    wrong = [answer for answer in answers if answer is not None]
    if wrong:
        raise NonDeterminism(
            f"the code does not match {len(wrong)} of {len(answers)} journals",
            detail="\n".join(map(in_a_line, wrong)),
            hint=wrong[0].hint,
        )
    return len(answers)
