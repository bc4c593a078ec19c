"""Checks whether one order of all commands explains every answer; versions give that order.

Finding such an order is hard in general. Here each command that succeeded has a version, so it
takes a sort and a scan (RELIABILITY, 2.5).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tests.races.memory_model import Command, Refused, State, alike


@dataclass(frozen=True)
class Event:
    """A call of one client, when it began and ended, and its answer.

    A command that succeeded has its version; a refused one has the code of the error; a read has
    both document and version.
    """

    client: int
    command: Command | None
    began: float
    ended: float
    answer: Any = None
    version: int | None = None
    refused: str | None = None


def violations(events: Sequence[Event], first: State, last: State) -> list[str]:
    """Describe where a history cannot be explained; an empty list means that it is linearizable."""
    lost = [e for e in events if e.command and e.version is None and e.refused is None]
    if lost:
        return [f"acknowledged without a version: {event}" for event in lost]
    done = sorted((e for e in events if e.command and e.version), key=lambda e: e.version or 0)
    versions = [event.version for event in done]
    if versions != list(range(first.version + 1, last.version + 1)):
        return [f"versions differ from those of the commands: {versions[:20]} … {last.version}"]
    states, wrong = replayed(done, first)
    if not wrong and not alike(states[-1].context, last.context):
        wrong = [f"the last document is {last}, expected {states[-1]}"]
    if wrong:
        return wrong
    order = Order(done, first.version)
    return [
        *order.reversed_in_time(),
        *(
            f"no state explains the read: {e}"
            for e in reads(events)
            if not order.explains_read(e, states)
        ),
        *(
            f"no state explains the error: {e}"
            for e in refusals(events)
            if not order.refuses(e, states)
        ),
        *backwards(events),
    ]


def replayed(done: Sequence[Event], first: State) -> tuple[list[State], list[str]]:
    """Run the commands on the model in the order of their versions; compare the answers."""
    states = [first]
    for event in done:
        assert event.command is not None
        try:
            state, answer = states[-1].after(event.command)
        except Refused as refused:
            return states, [f"refused ({refused.code}) in the model: {event}"]
        if not alike(answer, event.answer):
            return states, [f"the model answers {answer!r}: {event} on {states[-1]}"]
        states.append(state)
    return states, []


def reads(events: Sequence[Event]) -> Iterator[Event]:
    """Give the reads."""
    return (event for event in events if event.command is None)


def refusals(events: Sequence[Event]) -> Iterator[Event]:
    """Give the commands that were refused."""
    return (event for event in events if event.refused)


def backwards(events: Sequence[Event]) -> Iterator[str]:
    """Find clients that saw a version after a later one."""
    seen: dict[int, int] = {}
    for event in sorted(events, key=lambda e: e.began):
        if event.version is not None:
            if event.version < seen.get(event.client, 0):
                yield f"client {event.client} had seen {seen[event.client]}: {event}"
            seen[event.client] = event.version


class Order:
    """The order of versions, compared with the clock of the test."""

    def __init__(self, done: Sequence[Event], base: int) -> None:
        self.done = done
        self.base = base
        ends = sorted((event.ended, place) for place, event in enumerate(done, start=1))
        self._ended = [ended for ended, _ in ends]
        self._latest_place = [0, *accumulate((place for _, place in ends), max)]
        self._latest_begin = list(accumulate((event.began for event in done), max))

    def reversed_in_time(self) -> Iterator[str]:
        """Find commands that ended before a command with a lower version began."""
        latest = float("-inf")
        for event in self.done:
            if event.ended < latest:
                yield f"ended before an earlier version began: {event}"
            latest = max(latest, event.began)

    def possible(self, event: Event) -> range:
        """Give the places in the order at which this event can have happened."""
        lowest = self._latest_place[bisect_left(self._ended, event.began)]
        highest = bisect_right(self._latest_begin, event.ended)
        return range(lowest, highest + 1)

    def explains_read(self, event: Event, states: Sequence[State]) -> bool:
        """Tell whether a read saw a state that existed while it ran."""
        place = (event.version or 0) - self.base
        return place in self.possible(event) and alike(states[place].context, event.answer)

    def refuses(self, event: Event, states: Sequence[State]) -> bool:
        """Tell whether a state that existed meanwhile refuses the command with this code."""
        assert event.command is not None
        for place in self.possible(event):
            try:
                states[place].after(event.command)
            except Refused as refused:
                if refused.code == event.refused:
                    return True
        return False
