"""Trios: A is stopped at one of its points, B at one of its own, and C goes as far as it can.

Then A and B go on, in either order. The three answers and the rows that are left must be those of
the three calls in sequence, in one of the six orders. `meetings.py` describes how two calls meet.
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
    """Which calls meet, where A and B are stopped, and whether A goes on before B."""

    names: Names
    at: int
    then: int
    a_goes_on_first: bool


@dataclass(frozen=True)
class EncounterResult:
    """The outcome, and whether A and B were stopped where they should be."""

    found: Outcome
    a_is_stopped: bool
    b_is_stopped: bool


class TrioDirector(Director):
    """Lets three calls of a play meet, and collects outcomes of none of their orders."""

    def __init__(self, players: Players, play: Play, places: list[str]) -> None:
        super().__init__(players, play, places)
        self._third = players.stage.session("third")

    def meet_everywhere(self, names: Names) -> None:
        """Stop A at each of its points, and B at each that it reaches meanwhile."""
        self.seen["trios"] += 1
        for at in count(1):
            for then in count(1):
                result = self.judge_trio(Encounter(names, at, then, (at + then) % 2 == 0))
                if not result.a_is_stopped:
                    return
                if not result.b_is_stopped:
                    break

    def judge_trio(self, encounter: Encounter) -> EncounterResult:
        """Let three calls meet, and note an outcome of none of their orders."""
        result = self._let_three_meet(encounter)
        self.seen["meetings of three"] += 1
        self.seen["with two stopped"] += result.a_is_stopped and result.b_is_stopped
        if self.seen["meetings of three"] % 100 == 0:
            self.a.run("vacuum jobs, tasks, journal, inbox")
        orders = [*self._in_all_orders(encounter.names)]
        if result.found not in orders:
            self.wrong.append(self.difference(encounter, result.found, orders))
        return result

    def _in_all_orders(self, names: Names) -> Iterator[Outcome]:
        """Give the outcomes of the three calls in each order, with the answers to A, B and C."""
        for order in permutations(range(3)):
            alone = self.one_after_the_other(*(names[which] for which in order))
            answers = dict(zip(order, (alone.first, *alone.second), strict=True))
            yield Outcome(answers[0], (answers[1], answers[2]), alone.left)

    def _let_three_meet(self, encounter: Encounter) -> EncounterResult:
        actors = self._scene.set()
        calls = [partial(self.play.do, name) for name in encounter.names]
        shut_gate(self.c, 1)
        shut_gate(self._gate, 2)
        enter(self.a, encounter.at, 1)
        enter(self.b, encounter.then, 2)

        self.a.begin()
        first = self.a.later(calls[0], self.a, actors)
        a_is_stopped = first.waits()
        second = self.b.later(calls[1], self.b, actors)
        b_waits = second.waits()
        _, place_of_b = places_of(self.c, self.a, self.b)
        third = self._third.later(calls[2], self._third, actors)
        third.waits()

        gates, calls_behind = [self.c, self._gate], [first, second]
        if not encounter.a_goes_on_first:
            gates.reverse()
            calls_behind.reverse()
        gates[0].rollback()
        calls_behind[0].waits()
        gates[1].rollback()
        first_answers = [first.get()]
        self.a.end("commit")
        first_answers += [second.get(), third.get()]

        leave(self.a)
        answers = [
            self.play.repeat(name, self.a, actors, answer)
            for name, answer in zip(encounter.names, first_answers, strict=True)
        ]
        b_is_stopped = b_waits and place_of_b.passed == encounter.then
        return EncounterResult(self._outcome(actors, *answers), a_is_stopped, b_is_stopped)
