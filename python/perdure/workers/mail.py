"""Mail: what was read of the inbox of a task, and what is known from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from perdure.basics.durations import from_iso


class Mail(NamedTuple):
    """Open messages: all that was sent to the task, or as one of these signals, until then (µs).

    `is_cut`: there may be more messages that were sent later.
    """

    messages: list[dict[str, Any]]
    read_at: int
    signals: frozenset[str]
    is_cut: bool = False

    def tells(self, deadline: int, signals: Iterable[str]) -> bool:
        """Tell whether all that was sent before a deadline is here, including these signals."""
        return deadline <= self.read_at and self.signals.issuperset(signals)

    def was_read(self, deadline: int) -> bool:
        """Tell whether anybody has looked.

        A request to cancel would be here, unless other messages from before the deadline hide it.
        """
        return self.read_at > 0 and not (self.is_cut and self.read_at < deadline)


UNREAD = Mail([], 0, frozenset())
"""What is known of an inbox that nobody has read yet."""


def mail_of_claim(row: dict[str, Any]) -> Mail:
    """Return the mail that came with a claimed task."""
    return _mail(row["messages"], from_iso(row["at"]), frozenset(row["awaits"] or ()))


def mail_of_answer(
    answer: dict[str, Any], asked_at: int, signals: frozenset[str], taken: set[Any]
) -> Mail:
    """Return the mail that came with the answer to a turn, without what is taken already."""
    mail = _mail(answer.get("messages") or [], asked_at, signals)
    if not mail.messages:
        return mail
    return mail._replace(messages=[each for each in mail.messages if each["id"] not in taken])


def _mail(messages: list[dict[str, Any]], read_at: int, signals: frozenset[str]) -> Mail:
    """Return the mail, and until when it was read.

    Messages to one job are sent one after the other. What was sent before the last of them is here.
    What came with it, or later, may not have found room.
    """
    if not messages:
        return Mail(messages, read_at, signals)
    last, is_cut = from_iso(messages[-1]["sent_at"]), "more" in messages[-1]
    return Mail(messages, last - 1 if is_cut else max(read_at, last), signals, is_cut)
