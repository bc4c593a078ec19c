"""Meetings: A is stopped at one of its points, B comes as far as it gets, and both are let go.

What both are told and what is left must be what comes out of the two, one after the other, in one
of the two orders; where A is rolled back, of B alone. No deadlock, and no invariant broken.

For a pair, A is stopped at each of its points in turn. Where B has to wait for A, it waits at all
later points of A too, there or earlier, since A gives no lock back; and neither sees what the other
has not committed. So as soon as B comes no further than it does when A has made all its steps, the
points that follow would all tell the same. They are left out, but for one, which is tried.
"""

from __future__ import annotations

import difflib
import random
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from tests.races import test_command_pairs as commands
from tests.races import test_crossing_pairs as crossing
from tests.races import test_lock_order as orders
from tests.races import test_pairs as pairs
from tests.races import test_past_pairs as past
from tests.races import test_schedule_races as ticking
from tests.races.locks import COLUMNS, Prober
from tests.races.points import Place, enter, leave, places_of, shut_gate
from tests.races.sessions import TABLES, Reply, Session, Task
from tests.races.test_pairs import Outcome, passed_by, swapped
from tests.races.theatre import Players

FRESH = 10.0  # seconds: how long a stage is used again; its leases end after thirty
ALL_TABLES = (*TABLES, "workers", "listeners")
EMPTY = "; ".join(f"delete from {table}" for table in ALL_TABLES)
BROKEN = """
select to_jsonb(b) from assert_invariants() as b
 union all
select to_jsonb(b) from assert_histories() as b"""
# Calls that do several things, each of which may be passed by alone, or that tell times.
ONE_BY_ONE = ("heartbeat of two", "claim by a turn", "hello")
ONE_TASK = ("claim", "release", "done", "terminate", "pause", "hook")
WHOLE = 0  # the number of no point: A comes to its end before B begins


@dataclass(frozen=True)
class Play:
    """A stage, what can be done on it, and what comes out."""

    cast: Callable[[Session], Any]
    deeds: Collection[str]
    do: Callable[[str, Session, Any], Any]
    again: Callable[[str, Session, Any, Any], Any]
    """Come again, where what another session held was passed by; else give the same answer."""
    outcome: Callable[[Session, Any, Any, Any], Outcome]


def jobs(table: Any) -> Play:
    """Make a play of a table of what can be done to a job."""

    def do(name: str, session: Session, it: Any) -> Any:
        return pairs.told(table.MUTATORS[name], session, it)

    def again(name: str, session: Session, it: Any, answer: Any) -> Any:
        return do(name, session, it) if passed_by(answer) else answer

    def outcome(session: Session, it: Any, one: Any, two: Any) -> Outcome:
        return Outcome(one, two, pairs.left(session, it))

    return Play(table.cast, table.MUTATORS, do, again, outcome)


def queues() -> Play:
    """Make a play of what touches several tasks of a queue with limits."""
    several = {name: orders.SEVERAL[name] for name in orders.SEVERAL if name not in ONE_BY_ONE}
    several |= {name: pairs.MUTATORS[name].do for name in ONE_TASK}
    play = jobs(pairs)

    def do(name: str, session: Session, it: pairs.Cast) -> Any:
        answer = pairs.told(pairs.Mutator(several[name]), session, it)
        return answer.states if isinstance(answer, Reply) else answer

    def again(name: str, session: Session, it: pairs.Cast, answer: Any) -> Any:
        is_passed_by = passed_by(answer) or (isinstance(answer, list) and "busy" in answer)
        return do(name, session, it) if is_passed_by else answer

    return Play(orders.limited, several, do, again, play.outcome)


def families() -> Play:
    """Make a play of what can be done to a parent and its child."""

    def again(name: str, session: Session, it: crossing.Family, answer: Any) -> Any:
        if answer == "retry":
            return crossing.see_to_children_again(session, it)
        is_passed_by = isinstance(answer, list) and any(map(passed_by, answer))
        return crossing.do(name, session, it) if is_passed_by else answer

    return Play(crossing.cast, crossing.DEEDS, crossing.do, again, crossing.outcome)


def memories(cast: Callable[[Session], past.Cast]) -> Play:
    """Make a play of what can be done to a memory and its past."""

    def again(name: str, session: Session, it: past.Cast, answer: Any) -> Any:
        is_passed_by = name in past.PASSES_ROUND and answer == 0
        return past.told(name, session, it) if is_passed_by else answer

    def outcome(session: Session, it: past.Cast, one: Any, two: Any) -> Outcome:
        return Outcome(one, two, past.left(session, it))

    return Play(cast, past.MUTATORS, past.told, again, outcome)


def schedules() -> Play:
    """Make a play of what can be done to a schedule that owes a due time, and holds its task."""
    deeds: dict[str, Callable[[Session, Task], Any]] = {
        "tick": ticking.run,
        "forget finished": lambda session, _: session.one("select forget_finished('infinity')"),
    }
    deeds |= {
        name: lambda session, _, verb=verb: verb(session) for name, verb in ticking.VERBS.items()
    }

    def do(name: str, session: Session, it: Task) -> Any:
        try:
            return str(deeds[name](session, it))
        except psycopg.Error as error:
            return f"error {error.sqlstate}"

    def outcome(session: Session, it: Task, one: Any, two: Any) -> Outcome:
        families = (pairs.Cast(job, *[it] * 4) for job in (it.job, "s/"))
        return Outcome(one, two, "\n".join(pairs.left(session, family) for family in families))

    return Play(orders.due, deeds, do, lambda name, session, it, answer: answer, outcome)


PLAYS = {
    "a job in all its states": jobs(pairs),
    "a memory": jobs(commands),
    "a queue with limits": queues(),
    "a parent and its child": families(),
    "a memory of a job that runs": memories(past.running),
    "a memory of a job that is finished": memories(past.finished),
    "a schedule": schedules(),
}


class Scene:
    """The stage of a play, set again and again: its rows are kept, which is quicker than its steps.

    All that a meeting leaves is deleted, so that the next one finds its stage alone.
    """

    def __init__(self, session: Session, cast: Callable[[Session], Any]) -> None:
        self._session = session
        self._cast = cast
        self._it: Any = None
        self._set_at = -FRESH
        save, restore = [], []
        for table in ALL_TABLES:
            columns = session.one(COLUMNS, f"perdure.{table}")
            session.run(f"create temporary table kept_{table} as select {columns} from {table}")
            save.append(f"truncate kept_{table}")
            save.append(f"insert into kept_{table} select {columns} from {table}")
            restore.append(
                f"insert into {table} ({columns}) overriding system value table kept_{table}"
            )
        quietly = "set local session_replication_role = replica"  # no trigger runs
        self._save = "; ".join(save)
        self._restore = "; ".join(["begin", quietly, *restore, "commit"])

    def set(self) -> Any:
        """Set the stage; say who stands there."""
        if time.monotonic() - self._set_at < FRESH:
            self._session.run(self._restore)
        else:
            self._set_at = time.monotonic()
            self._it = self._cast(self._session)
            self._session.run(self._save)
        return self._it

    def clear(self) -> None:
        """Leave nothing."""
        self._session.run(EMPTY)


@dataclass(frozen=True)
class Meeting:
    """Who meets: where A is stopped, and B; or by which of the rows that A locks; how A ends."""

    first: str
    second: str
    at: int = WHOLE
    then: int = WHOLE
    row: int | None = None
    end: str = "commit"


@dataclass(frozen=True)
class Met:
    """What came of it: the outcome, where the two stood, and whether they waited there."""

    found: Outcome
    one: Place
    two: Place
    is_stopped: bool
    waited: bool


class Director:
    """Lets the calls of a play meet, and notes what comes out as in no order of the two."""

    def __init__(self, players: Players, play: Play, places: list[str]) -> None:
        self.a, self.b, self.c, stage = players
        self.play = play
        self.seen = Counter[str]()
        self.wrong: list[str] = []
        self._places = places
        self._gate = stage.session("gate")
        self._prober = Prober(stage, self.a)
        self._scene = Scene(self.a, play.cast)
        self._alone: dict[tuple[str, ...], Outcome] = {}

    def pair(self, first: str, second: str, chance: random.Random) -> None:
        """Let two meet at each point of the first; and, chosen by chance, in three more ways."""
        self.seen["pairs"] += 1
        found = len(self.wrong)
        met = whole = self.judge(Meeting(first, second))
        stops: list[Met] = []
        while not (stops and met.waited and met.two == whole.two):
            met = self.judge(Meeting(first, second, len(stops) + 1))
            if not met.is_stopped or len(self.wrong) > found:
                break
            stops.append(met)
        else:
            self._look_behind(first, second, len(stops), whole, chance)
        self.seen["points"] += len(stops)
        for meeting in self.more(first, second, [met.two.passed for met in stops], chance):
            self.judge(meeting)

    def _look_behind(
        self, first: str, second: str, looked: int, whole: Met, chance: random.Random
    ) -> None:
        """Try one of the points that are left out: there B must come just as far."""
        left_out = whole.one.passed - looked
        if left_out <= 0:
            return
        self.seen["points left out"] += left_out
        met = self.judge(Meeting(first, second, looked + chance.randint(1, left_out)))
        if met.is_stopped and met.waited and met.two != whole.two:
            self.wrong.append(f"{first!r} and {second!r}: B stands at {met.two}, not {whole.two}")

    def more(
        self, first: str, second: str, passed: list[int], chance: random.Random
    ) -> list[Meeting]:
        """Choose meetings in which B is stopped too, A is rolled back, or one of A's rows is held.

        `passed` says for each point of A how many B has passed meanwhile.
        """
        meetings = [Meeting(first, second, row=chance.randrange(100))]
        if passed:
            at = chance.randint(1, len(passed))
            meetings.append(Meeting(first, second, at, end="rollback"))
        if any(passed):
            at = chance.choice([at for at, count in enumerate(passed, 1) if count > 0])
            meetings.append(Meeting(first, second, at, chance.randint(1, passed[at - 1])))
        return meetings

    def judge(self, meeting: Meeting) -> Met:
        """Let two meet, and note what comes out as in no order."""
        met = self.meet(meeting)
        self.seen["meetings"] += 1
        self.seen["with B stopped too"] += meeting.then != WHOLE
        self.seen["with a row held"] += meeting.row is not None and met.is_stopped
        self.seen["rolled back"] += meeting.end == "rollback"
        if self.seen["meetings"] % 100 == 0:
            self.a.run("vacuum jobs, tasks, journal, inbox")
        expected = [
            self.one_after_the_other(meeting.first, meeting.second),
            swapped(self.one_after_the_other(meeting.second, meeting.first)),
        ]
        if meeting.end == "rollback":
            expected = [swapped(self.one_after_the_other(meeting.second))]
        if met.found not in expected:
            places = [
                f"{place.passed} [{self._places[place.last]}]" for place in (met.one, met.two)
            ]
            stood = f"{meeting}\nA stood at {places[0]}\nB stood at {places[1]}"
            self.wrong.append(self.difference(stood, met.found, expected))
        return met

    def one_after_the_other(self, *names: str) -> Outcome:
        """Find what comes out of one call, or of two or three in order."""
        if names not in self._alone:
            it = self._scene.set()
            answers = [self.play.do(name, self.a, it) for name in names]
            self._alone[names] = self._outcome(it, *answers)
        return self._alone[names]

    def meet(self, meeting: Meeting) -> Met:
        """Let A come to its point and B as far as it gets; then let A go on to its end, and B."""
        it = self._scene.set()
        do_first = partial(self.play.do, meeting.first, self.a, it)
        holder = self._stop(do_first, meeting.row)
        if meeting.then != WHOLE:
            shut_gate(self._gate, 2)
        enter(self.a, meeting.at, 1)
        enter(self.b, meeting.then, 2)

        self.a.begin()
        first = self.a.later(do_first)
        is_stopped = first.waits()
        second = self.b.later(self.play.do, meeting.second, self.b, it)
        waited = second.waits()
        places = places_of(self.c, self.a, self.b)
        holder.rollback()
        if meeting.then != WHOLE and first.waits():
            self._gate.rollback()  # A waits for B
        one = first.get()
        self.a.end(meeting.end)
        if self._gate.connection.info.transaction_status != TransactionStatus.IDLE:
            self._gate.rollback()
        two = second.get()

        leave(self.a)
        is_kept = meeting.end == "commit"
        one = self.play.again(meeting.first, self.a, it, one) if is_kept else None
        two = self.play.again(meeting.second, self.a, it, two)
        return Met(self._outcome(it, one, two), *places, is_stopped, waited)

    def _stop(self, call: Callable[[], Any], row: int | None) -> Session:
        """Shut the gate of A, or hold a row that it locks, in the transaction of a session."""
        if row is None:
            shut_gate(self.c, 1)
            return self.c
        holder = self._prober.holder
        locks = self._prober.locks(call)
        holder.begin()
        if locks:
            lock = sorted(locks)[row % len(locks)]
            self._prober.hold(lock, locks[lock])
        return holder

    def _outcome(self, it: Any, one: Any, two: Any = None, *three: Any) -> Outcome:
        """Tell what all were told and what is left, broken invariants too; then leave nothing."""
        two = (two, *three) if three else two
        try:
            found = self.play.outcome(self.a, it, one, two)
        except AssertionError as error:  # something is left of what is not there
            found = Outcome(one, two, str(error))
        broken = self.a.run(BROKEN)
        self._scene.clear()
        return replace(found, left=str(broken)) if broken else found

    def difference(self, meeting: object, found: Outcome, expected: list[Outcome]) -> str:
        """Tell in words what came out of a meeting, and how it differs from what was expected."""
        lines = [f"{meeting}", f"found {found.first!r}, {found.second!r}"]
        for outcome in expected:
            lines.append(f"not {outcome.first!r}, {outcome.second!r}")
            left = (outcome.left.splitlines(), found.left.splitlines())
            lines += [*difflib.unified_diff(*left, lineterm="", n=0)][:20]
        return "\n".join(lines)
