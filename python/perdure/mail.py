"""Mail: what was read of a task's inbox, and what is known by it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from .durations import from_iso


class Mail(NamedTuple):
    """Open messages: all that was sent to the task, or as one of these signals, by then (µs)."""

    messages: list[dict[str, Any]]
    read_at: int
    signals: frozenset[str]

    def tells(self, deadline: int, signals: Iterable[str]) -> bool:
        """Tell whether all is here that was sent before a deadline, these signals included."""
        return deadline <= self.read_at and self.signals.issuperset(signals)

    def was_read(self) -> bool:
        """Tell whether anybody has looked: a request to cancel would be here."""
        return self.read_at > 0


UNREAD = Mail([], 0, frozenset())
"""What is known of an inbox into which nobody has looked yet."""


def mail_of_claim(row: dict[str, Any]) -> Mail:
    """Give the mail that came with a claimed task."""
    return Mail(row["messages"], from_iso(row["at"]), frozenset(row["awaits"] or ()))


def mail_of_answer(answer: dict[str, Any], asked_at: int, signals: frozenset[str]) -> Mail:
    """Give the mail that came with the answer to a turn. Messages to one job are sent one after
    the other: what was sent before the last of them is here."""
    messages = answer.get("messages") or []
    last = from_iso(messages[-1]["sent_at"]) if messages else 0
    return Mail(messages, max(asked_at, last), signals)
