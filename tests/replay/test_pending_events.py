"""The next fact of a coordinator is chosen by the order of deadlines and messages. [P5] [P7]"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from perdure.basics.durations import from_iso
from perdure.replay.facts import Fact, OpenOperation, as_error
from perdure.replay.journal import NULL_WAITER
from perdure.values.items import unchanged
from perdure.workers.inbox import UNREAD, InboxSnapshot
from perdure.workers.open_operations import OpenOperations
from perdure.workers.pending_events import PendingEvents

BEGAN = from_iso("2030-01-01T12:00:00+00:00")
DEADLINE = BEGAN + 1_000_000
NOW = BEGAN + 2_000_000
BEFORE, AFTER = "2030-01-01T12:00:00.5+00:00", "2030-01-01T12:00:01.5+00:00"


def op(key: str, kind: str, deadline: int | None = None) -> OpenOperation:
    """Make an open operation."""
    return OpenOperation(key, kind, key, None, None, unchanged, as_error, deadline, 1, NULL_WAITER)


def message(sent_at: str, key: str | None = None) -> dict[str, Any]:
    """Make an unread message: a signal or a request to cancel."""
    return {"id": 1, "key": key, "name": "go", "ok": True, "payload": None, "sent_at": sent_at}


def next_fact(ops: list[OpenOperation], inbox: InboxSnapshot) -> tuple[str | None, bool]:
    """Return the kind of the next fact, and whether the inbox must be read before there is one."""
    facts: list[Fact] = []
    run = SimpleNamespace(
        operations={each.key: each for each in ops},
        append=facts.append,
        take_requested=lambda: ops,
        take_withdrawn=list,
    )
    clock, operations = SimpleNamespace(now=lambda: NOW), OpenOperations()
    operations.take(run)  # type: ignore[arg-type]
    events = PendingEvents([], operations, clock, BEGAN)  # type: ignore[arg-type]
    events.take_messages(inbox)
    has_appended = events.append_next(run)  # type: ignore[arg-type]
    assert has_appended is bool(facts)
    return (facts[0].kind if facts else None), events.is_timer_unsure(NOW)


SLEEP = [op("sleep", "timer", DEADLINE)]
WAIT = [*SLEEP, op("go", "signal")]


@pytest.mark.parametrize(
    ("ops", "inbox", "expected"),
    [
        (SLEEP, UNREAD, (None, True)),
        (SLEEP, InboxSnapshot([], BEGAN, frozenset()), ("timer", False)),
        (SLEEP, InboxSnapshot([message(BEFORE, "$cancel")], NOW, frozenset()), ("cancel", False)),
        (WAIT, UNREAD, (None, True)),
        (WAIT, InboxSnapshot([], BEGAN, frozenset({"go"})), (None, True)),
        (WAIT, InboxSnapshot([], NOW, frozenset({"come"})), (None, True)),
        (WAIT, InboxSnapshot([], NOW, frozenset({"come", "go"})), ("timer", False)),
        (WAIT, InboxSnapshot([message(BEFORE)], NOW, frozenset({"go"})), ("signal", False)),
        (WAIT, InboxSnapshot([message(AFTER)], NOW, frozenset({"go"})), ("timer", False)),
    ],
    ids=[
        "inbox not read: a cancel may be there",
        "sleep is over",
        "cancel before the deadline",
        "inbox not read: the signal may be there",
        "inbox not read since the deadline",
        "inbox read for another signal only",
        "no signal",
        "signal before the deadline",
        "signal after the deadline",
    ],
)
def test_timer_fires_only_when_all_earlier_messages_are_known(
    ops: list[OpenOperation], inbox: InboxSnapshot, expected: tuple[str | None, bool]
) -> None:
    """[P5] [P7] A message sent before the deadline comes first, so the inbox must be read first."""
    assert next_fact(ops, inbox) == expected
