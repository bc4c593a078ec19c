"""This version replays the journals of each release: keys, hashes and order have not changed. [P9]

`python tests/golden/make.py` writes those of the current version; files of released versions are
never written again.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.replay.facts import SENT_AHEAD, SILENT
from perdure.replay.journal import Journal
from perdure.replay.lineage import Lineage
from perdure.replay.run import Run
from perdure.replaying import Recording, check_journals, read_recordings, replay_journal
from perdure.values.stored import as_stored
from perdure.workflow import operations
from tests.golden.golden_app import app

HERE = Path(__file__).parent
RELEASES = sorted(HERE.glob("*.jsonl"))
CURRENT = HERE / f"{perdure.__version__}.jsonl"

KINDS = SENT_AHEAD | SILENT - {"note"} | {"activity", "answer", "cancel", "signal", "timer"}
OPS = {
    *("set", "merge", "append", "prepend", "remove", "increment", "toggle"),
    *("set_if_not_exists", "delete", "log", "get"),
}


def golden(job: str) -> Recording:
    """Return the recording of a job in this release."""
    return next(each for each in read_recordings(CURRENT) if each.job == job)


def difference(app: perdure.App, job: str) -> str:
    """Return how an app differs from the recording of a job, or an empty text."""
    recording = golden(job)
    found = replay_journal(app, recording.row, recording.journal)
    return "" if found is None else found.detail or ""


@pytest.mark.parametrize("path", RELEASES, ids=lambda path: path.stem)
def test_journals_of_a_release_replay_without_a_difference(path: Path) -> None:
    assert check_journals(app, path) == len(path.read_text("utf-8").splitlines()) >= 16


def test_journals_of_this_release_contain_every_kind_of_fact() -> None:
    recorded = list(read_recordings(CURRENT))
    facts = [fact for each in recorded for fact in each.journal]
    assert {kind for _, kind, *_ in facts} == KINDS
    assert {fact[8] for fact in facts} - {None} == OPS
    assert {each.row["status"] for each in recorded} == {"running", "completed", "cancelled"}
    assert {bool(fact[5]) for fact in facts if fact[1] == "answer"} == {True, False}


@pytest.mark.parametrize("job", [each.job for each in read_recordings(CURRENT)])
def test_code_of_another_coordinator_is_noticed(job: str) -> None:
    for name, other in app.coordinators.items():
        if name != job:
            changed = perdure.App()
            changed.coordinator(name=job)(other.function)
            assert difference(changed, job), f"{name} passes for {job}"


async def seeds_otherwise(memory: Any) -> Any:
    await memory.set({"n": 1, "list": [1], "flag": True, "gone": 0})


async def merges_too_early(memory: Any) -> Any:
    await memory.set({"n": 1, "list": [1], "flag": False, "gone": 0})
    await memory.merge({"a": {"b": 1}})


async def returns_at_once(memory: Any) -> Any:
    return None


SEED = "command set#1 (arguments 568d80b8a9c22d28)"
OTHER_SEED = "command set#1 (arguments f24045f5cbf0bc48)"
SECOND = "command set#2 (arguments 1dfb6fa290f0f73d)"
MERGE = "command merge#1 (arguments 0ae862f4a6c88232)"


@pytest.mark.parametrize(
    ("code", "position", "recorded_call", "instead"),
    [
        (seeds_otherwise, 1, SEED, f"the code calls {OTHER_SEED}: other arguments"),
        (merges_too_early, 2, SECOND, f"the code waits for {MERGE}"),
        (returns_at_once, 1, SEED, "the code has finished"),
    ],
)
def test_error_describes_the_difference_in_words(
    code: Callable[..., Any], position: int, recorded_call: str, instead: str
) -> None:
    changed = perdure.App()
    changed.coordinator(name="commands")(code)
    assert difference(changed, "commands") == (
        f"at position {position} the journal tells {recorded_call}, but {instead}"
    )


def place_counted_from_zero(self: Lineage, parent: str, name: str | None) -> str:
    prefix = f"{parent}."
    number = self._children.get(prefix, -1) + 1
    self._children[prefix] = number
    return f"{prefix}{number}" if name is None else f"{prefix}{name}"


def key_without_a_number(self: Journal, place: str, name: str) -> str:
    return f"{place}/{name}" if place else name


def shorter_hash(stored: Any) -> str:
    return blake2b(operations._written(stored).encode(), digest_size=7).hexdigest()


def seeded_by_job(self: Run, stream: str) -> str:
    return f"{self.journal.identity}|{stream}"


def in_order_of_names(value: Any) -> Any:
    stored = as_stored(value)
    return dict(sorted(stored.items())) if isinstance(stored, dict) else stored


@pytest.mark.parametrize(
    ("where", "name", "instead", "job"),
    [
        (Lineage, "child", place_counted_from_zero, "together"),
        (Journal, "key", key_without_a_number, "activities"),
        (operations, "fingerprint_of", shorter_hash, "hooks"),
        (operations, "as_stored", in_order_of_names, "commands"),
        (Run, "_seed", seeded_by_job, "chance"),
    ],
    ids=["places", "keys", "hashes", "order of keys", "seeds"],
)
def test_change_of_the_replay_engine_is_noticed(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, instead: Any, job: str
) -> None:
    assert not difference(app, job)
    monkeypatch.setattr(where, name, instead)
    with pytest.raises(perdure.NonDeterminism):
        check_journals(app, CURRENT)
    assert difference(app, job)
