"""Mail: what was read of a task's inbox, and what is known by it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from perdure.basics.durations import from_iso


class Mail(NamedTuple):
    """Open messages: all that was sent to the task, or as one of these signals, by then (µs).

    `is_cut`: there may be more of them, that were sent later.
    """

    messages: list[dict[str, Any]]
    read_at: int
    signals: frozenset[str]
    is_cut: bool = False

    def tells(self, deadline: int, signals: Iterable[str]) -> bool:
        """Tell whether all is here that was sent before a deadline, these signals included."""
        return deadline <= self.read_at and self.signals.issuperset(signals)

    def was_read(self, deadline: int) -> bool:
        """Tell whether anybody has looked: a request to cancel would be here, unless others of
        before the deadline hide it."""
        return self.read_at > 0 and not (self.is_cut and self.read_at < deadline)


UNREAD = Mail([], 0, frozenset())
"""What is known of an inbox into which nobody has looked yet."""


def mail_of_claim(row: dict[str, Any]) -> Mail:
    """Give the mail that came with a claimed task."""
    return _mail(row["messages"], from_iso(row["at"]), frozenset(row["awaits"] or ()))


def mail_of_answer(
    answer: dict[str, Any], asked_at: int, signals: frozenset[str], taken: set[Any]
) -> Mail:
    """Give the mail that came with the answer to a turn, but for what was taken and is not recorded
    yet."""
    mail = _mail(answer.get("messages") or [], asked_at, signals)
    if not mail.messages:
        return mail
    return mail._replace(messages=[each for each in mail.messages if each["id"] not in taken])


def _mail(messages: list[dict[str, Any]], read_at: int, signals: frozenset[str]) -> Mail:
    """Tell by when it was read. Messages to one job are sent one after the other: what was sent
    before the last of them is here; what came with it, or later, may not have found room."""
    if not messages:
        return Mail(messages, read_at, signals)
    last, is_cut = from_iso(messages[-1]["sent_at"]), "more" in messages[-1]
    return Mail(messages, last - 1 if is_cut else max(read_at, last), signals, is_cut)
