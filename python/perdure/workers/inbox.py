"""The inbox of a task: what was read of it, and what is known from that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from perdure.basics.durations import from_iso


class InboxSnapshot(NamedTuple):
    """Open messages: all that was sent to the task, or as one of these signals, until then (µs).

    `is_cut`: there may be more messages that were sent later.
    """

    messages: list[dict[str, Any]]
    read_at: int
    signals: frozenset[str]
    is_cut: bool = False

    def covers(self, deadline: int, signals: Iterable[str]) -> bool:
        """Tell whether all that was sent before a deadline is here, including these signals."""
        return deadline <= self.read_at and self.signals.issuperset(signals)

    def was_read(self, deadline: int) -> bool:
        """Tell whether anybody has looked.

        A request to cancel would be here, unless other messages from before the deadline hide it.
        """
        return self.read_at > 0 and not (self.is_cut and self.read_at < deadline)


UNREAD = InboxSnapshot([], 0, frozenset())
"""What is known of an inbox that nobody has read yet."""


def inbox_of_claim(row: dict[str, Any]) -> InboxSnapshot:
    """Return what came with a claimed task."""
    return snapshot(row["messages"], from_iso(row["at"]), frozenset(row["awaits"] or ()))


def snapshot(
    messages: list[dict[str, Any]], read_at: int, signals: frozenset[str]
) -> InboxSnapshot:
    """Return the open messages, and until when they were read.

    Messages to one job are sent one after the other. What was sent before the last of them is here.
    What came with it, or later, may not have found room.
    """
    if not messages:
        return InboxSnapshot(messages, read_at, signals)
    last, is_cut = from_iso(messages[-1]["sent_at"]), "more" in messages[-1]
    return InboxSnapshot(messages, last - 1 if is_cut else max(read_at, last), signals, is_cut)
