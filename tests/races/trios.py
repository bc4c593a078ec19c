"""Trios: A is stopped at one of its points, B at one of its own, and C comes as far as it gets.

Then A and B are let go, in either order. What the three were told and what is left must be what
comes out of them one after another, in one of the six orders. `meetings.py` says how two meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, permutations

from tests.races.meetings import Director, Play
from tests.races.points import enter, leave, places_of, shut_gate
from tests.races.test_pairs import Outcome
from tests.races.theatre import Players

Names = tuple[str, str, str]


@dataclass(frozen=True)
class Encounter:
    """Who meets, where A and B are stopped, and whether A is let go before B."""

    names: Names
    at: int
    then: int
    a_goes_on_first: bool


@dataclass(frozen=True)
class Came:
    """What came of it, and whether A and B were stopped where they should be."""

    found: Outcome
    a_is_stopped: bool
    b_is_stopped: bool


class TrioDirector(Director):
    """Lets three calls of a play meet, and notes what comes out as in no order of the three."""

    def __init__(self, players: Players, play: Play, places: list[str]) -> None:
        super().__init__(players, play, places)
        self._third = players.stage.session("third")

    def meet_everywhere(self, names: Names) -> None:
        """Let A stop at each of its points, and B at each that it comes to meanwhile."""
        self.seen["trios"] += 1
        for at in count(1):
            for then in count(1):
                came = self.judge_trio(Encounter(names, at, then, (at + then) % 2 == 0))
                if not came.a_is_stopped:
                    return
                if not came.b_is_stopped:
                    break

    def judge_trio(self, encounter: Encounter) -> Came:
        """Let three meet, and note what comes out as in no order."""
        came = self._let_three_meet(encounter)
        self.seen["meetings of three"] += 1
        self.seen["with two stopped"] += came.a_is_stopped and came.b_is_stopped
        if self.seen["meetings of three"] % 100 == 0:
            self.a.run("vacuum jobs, tasks, journal, inbox")
        orders = [*self._in_all_orders(encounter.names)]
        if came.found not in orders:
            self.wrong.append(self.difference(encounter, came.found, orders))
        return came

    def _in_all_orders(self, names: Names) -> Iterator[Outcome]:
        """Find what comes out of three calls in each order, told as of A, B and C."""
        for order in permutations(range(3)):
            alone = self.one_after_the_other(*(names[which] for which in order))
            answers = dict(zip(order, (alone.first, *alone.second), strict=True))
            yield Outcome(answers[0], (answers[1], answers[2]), alone.left)

    def _let_three_meet(self, encounter: Encounter) -> Came:
        it = self._scene.set()
        calls = [partial(self.play.do, name) for name in encounter.names]
        shut_gate(self.c, 1)
        shut_gate(self._gate, 2)
        enter(self.a, encounter.at, 1)
        enter(self.b, encounter.then, 2)

        self.a.begin()
        first = self.a.later(calls[0], self.a, it)
        a_is_stopped = first.waits()
        second = self.b.later(calls[1], self.b, it)
        b_waits = second.waits()
        _, stands = places_of(self.c, self.a, self.b)
        third = self._third.later(calls[2], self._third, it)
        third.waits()

        gates, calls_behind = [self.c, self._gate], [first, second]
        if not encounter.a_goes_on_first:
            gates.reverse()
            calls_behind.reverse()
        gates[0].rollback()
        calls_behind[0].waits()
        gates[1].rollback()
        told = [first.get()]
        self.a.end("commit")
        told += [second.get(), third.get()]

        leave(self.a)
        answers = [
            self.play.again(name, self.a, it, answer)
            for name, answer in zip(encounter.names, told, strict=True)
        ]
        b_is_stopped = b_waits and stands.passed == encounter.then
        return Came(self._outcome(it, *answers), a_is_stopped, b_is_stopped)
