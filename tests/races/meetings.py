"""Meetings: A is stopped at one of its points, B goes as far as it can, and both then go on.

The two answers and the rows that are left must be those of the two calls in sequence, in one of
their orders; where A is rolled back, those of B alone. There may be no deadlock and no broken
invariant.

A pair meets at each point of A in turn. Once B has to wait for A, it waits at all later points of A
too, there or earlier, since A releases no lock; and neither sees what the other has not committed.
So as soon as B gets no further than it does when A has made all its steps, the remaining points
would all have the same outcome. They are left out, except for one, which is tried.
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

from tests.races import answers
from tests.races import test_command_pairs as commands
from tests.races import test_crossing_pairs as crossing
from tests.races import test_lock_order as orders
from tests.races import test_pairs as pairs
from tests.races import test_past_pairs as past
from tests.races import test_schedule_races as ticking
from tests.races.locks import COLUMNS, Prober
from tests.races.points import Place, enter, leave, places_of, shut_gate
from tests.races.sessions import TABLES, Reply, Session, Task
from tests.races.test_pairs import Outcome, has_skipped, swapped
from tests.races.theatre import Players

FRESH = 10.0  # seconds for which a stage is reused; its leases end after thirty
ALL_TABLES = (*TABLES, "workers", "listeners")
EMPTY = "; ".join(f"delete from {table}" for table in ALL_TABLES)
BROKEN = """
select to_jsonb(b) from assert_invariants() as b
 union all
select to_jsonb(b) from assert_histories() as b"""
# Calls that do several things, each of which may be skipped alone, or whose answers hold times.
ONE_BY_ONE = ("heartbeat of two", "claim by a turn", "hello")
ONE_TASK = ("claim", "release", "done", "terminate", "pause", "hook")
WHOLE = 0  # the number of no point: A ends before B begins


@dataclass(frozen=True)
class Play:
    """A stage, the calls that can be made on it, and their outcomes."""

    cast: Callable[[Session], Any]
    actions: Collection[str]
    do: Callable[[str, Session, Any], Any]
    repeat: Callable[[str, Session, Any, Any], Any]
    """Repeat a call that skipped what another session held; otherwise return its answer."""
    outcome: Callable[[Session, Any, Any, Any], Outcome]


def jobs(table: Any) -> Play:
    """Make a play of a table of calls on one job."""

    def do(name: str, session: Session, actors: Any) -> Any:
        return pairs.result_of(table.MUTATORS[name], session, actors)

    def repeat(name: str, session: Session, actors: Any, answer: Any) -> Any:
        return do(name, session, actors) if has_skipped(answer) else answer

    def outcome(session: Session, actors: Any, one: Any, two: Any) -> Outcome:
        return Outcome(one, two, pairs.rows_left(session, actors))

    return Play(table.cast, table.MUTATORS, do, repeat, outcome)


def queues() -> Play:
    """Make a play of calls that touch several tasks of a queue with limits."""
    several = {name: orders.SEVERAL[name] for name in orders.SEVERAL if name not in ONE_BY_ONE}
    several |= {name: pairs.MUTATORS[name].do for name in ONE_TASK}
    play = jobs(pairs)

    def do(name: str, session: Session, actors: pairs.Cast) -> Any:
        answer = pairs.result_of(pairs.Mutator(several[name]), session, actors)
        return answer.states if isinstance(answer, Reply) else answer

    def repeat(name: str, session: Session, actors: pairs.Cast, answer: Any) -> Any:
        is_skipped = has_skipped(answer) or (isinstance(answer, list) and "busy" in answer)
        return do(name, session, actors) if is_skipped else answer

    return Play(orders.limited, several, do, repeat, play.outcome)


def families() -> Play:
    """Make a play of calls on a parent and its child."""

    def repeat(name: str, session: Session, actors: crossing.Family, answer: Any) -> Any:
        if answer == "retry":
            return crossing.end_children_again(session, actors)
        is_skipped = isinstance(answer, list) and any(map(has_skipped, answer))
        return crossing.do(name, session, actors) if is_skipped else answer

    return Play(crossing.cast, crossing.ACTIONS, crossing.do, repeat, crossing.outcome)


def memories(cast: Callable[[Session], past.Cast]) -> Play:
    """Make a play of calls on a memory and its past."""

    def repeat(name: str, session: Session, actors: past.Cast, answer: Any) -> Any:
        is_skipped = name in past.SKIPS_LOCKED and answer == 0
        return past.result_of(name, session, actors) if is_skipped else answer

    def outcome(session: Session, actors: past.Cast, one: Any, two: Any) -> Outcome:
        return Outcome(one, two, past.rows_left(session, actors))

    return Play(cast, past.MUTATORS, past.result_of, repeat, outcome)


def schedules() -> Play:
    """Make a play of calls on a schedule that is due, whose task is held."""
    actions: dict[str, Callable[[Session, Task], Any]] = {
        "tick": ticking.run,
        "forget finished": lambda session, _: session.one("select forget_finished('infinity')"),
    }
    actions |= {
        name: lambda session, _, verb=verb: verb(session) for name, verb in ticking.VERBS.items()
    }

    def do(name: str, session: Session, actors: Task) -> Any:
        try:
            return str(actions[name](session, actors))
        except psycopg.Error as error:
            return f"error {error.sqlstate}"

    def outcome(session: Session, actors: Task, one: Any, two: Any) -> Outcome:
        families = (pairs.Cast(job, *[actors] * 4) for job in (actors.job, "s/"))
        return Outcome(one, two, "\n".join(pairs.rows_left(session, family) for family in families))

    return Play(orders.due, actions, do, lambda name, session, actors, answer: answer, outcome)


PLAYS = {
    "a job in all its states": jobs(pairs),
    "a coordinator and its answers": jobs(answers),
    "a memory": jobs(commands),
    "a queue with limits": queues(),
    "a parent and its child": families(),
    "a memory of a job that runs": memories(past.running),
    "a memory of a job that is finished": memories(past.finished),
    "a schedule": schedules(),
}


class Scene:
    """The stage of a play, which is set again and again from saved rows.

    That is quicker than its steps. All rows of a meeting are deleted afterwards, so that the next
    one finds nothing but its stage.
    """

    def __init__(self, session: Session, cast: Callable[[Session], Any]) -> None:
        self._session = session
        self._cast = cast
        self._actors: Any = None
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
        without_triggers = "set local session_replication_role = replica"
        self._save = "; ".join(save)
        self._restore = "; ".join(["begin", without_triggers, *restore, "commit"])

    def set(self) -> Any:
        """Set the stage; return its actors."""
        if time.monotonic() - self._set_at < FRESH:
            self._session.run(self._restore)
        else:
            self._set_at = time.monotonic()
            self._actors = self._cast(self._session)
            self._session.run(self._save)
        return self._actors

    def clear(self) -> None:
        """Delete all rows."""
        self._session.run(EMPTY)


@dataclass(frozen=True)
class Meeting:
    """Which calls meet, where A and B are stopped or which row of A is held, and how A ends."""

    first: str
    second: str
    at: int = WHOLE
    then: int = WHOLE
    row: int | None = None
    end: str = "commit"


@dataclass(frozen=True)
class MeetingResult:
    """The outcome, the places of both sessions, and whether A stopped and B waited there."""

    found: Outcome
    one: Place
    two: Place
    is_stopped: bool
    waited: bool


class Director:
    """Lets the calls of a play meet, and collects outcomes of none of their orders."""

    def __init__(self, players: Players, play: Play, places: list[str]) -> None:
        self.a, self.b, self.c, stage = players
        self.play = play
        self.seen = Counter[str]()
        self.wrong: list[str] = []
        self._places = places
        self._gate = stage.session("gate")
        self._prober = Prober(stage, self.a)
        self._scene = Scene(self.a, play.cast)
        self._sequences: dict[tuple[str, ...], Outcome] = {}

    def pair(self, first: str, second: str, chance: random.Random) -> None:
        """Let two calls meet at each point of the first, and in up to three random ways."""
        self.seen["pairs"] += 1
        found = len(self.wrong)
        result = whole = self.judge(Meeting(first, second))
        stops: list[MeetingResult] = []
        while not (stops and result.waited and result.two == whole.two):
            result = self.judge(Meeting(first, second, len(stops) + 1))
            if not result.is_stopped or len(self.wrong) > found:
                break
            stops.append(result)
        else:
            self._look_behind(first, second, len(stops), whole, chance)
        self.seen["points"] += len(stops)
        for meeting in self.more(first, second, [result.two.passed for result in stops], chance):
            self.judge(meeting)

    def _look_behind(
        self, first: str, second: str, looked: int, whole: MeetingResult, chance: random.Random
    ) -> None:
        """Try one of the points that are left out: there B must get just as far."""
        left_out = whole.one.passed - looked
        if left_out <= 0:
            return
        self.seen["points left out"] += left_out
        result = self.judge(Meeting(first, second, looked + chance.randint(1, left_out)))
        if result.is_stopped and result.waited and result.two != whole.two:
            self.wrong.append(
                f"{first!r} and {second!r}: B stopped at {result.two}, not {whole.two}"
            )

    def more(
        self, first: str, second: str, passed: list[int], chance: random.Random
    ) -> list[Meeting]:
        """Draw meetings in which B is stopped too, A is rolled back, or one of A's rows is held.

        `passed` says for each point of A how many points B has passed meanwhile.
        """
        meetings = [Meeting(first, second, row=chance.randrange(100))]
        if passed:
            at = chance.randint(1, len(passed))
            meetings.append(Meeting(first, second, at, end="rollback"))
        if any(passed):
            at = chance.choice([at for at, count in enumerate(passed, 1) if count > 0])
            meetings.append(Meeting(first, second, at, chance.randint(1, passed[at - 1])))
        return meetings

    def judge(self, meeting: Meeting) -> MeetingResult:
        """Let two calls meet, and note an outcome of none of their orders."""
        result = self.meet(meeting)
        self.seen["meetings"] += 1
        self.seen["with B stopped too"] += meeting.then != WHOLE
        self.seen["with a row held"] += meeting.row is not None and result.is_stopped
        self.seen["rolled back"] += meeting.end == "rollback"
        if self.seen["meetings"] % 100 == 0:
            self.a.run("vacuum jobs, tasks, journal, inbox")
        expected = [
            self.one_after_the_other(meeting.first, meeting.second),
            swapped(self.one_after_the_other(meeting.second, meeting.first)),
        ]
        if meeting.end == "rollback":
            expected = [swapped(self.one_after_the_other(meeting.second))]
        if result.found not in expected:
            places = [
                f"{place.passed} [{self._places[place.last]}]" for place in (result.one, result.two)
            ]
            where_stopped = f"{meeting}\nA stopped at {places[0]}\nB stopped at {places[1]}"
            self.wrong.append(self.difference(where_stopped, result.found, expected))
        return result

    def one_after_the_other(self, *names: str) -> Outcome:
        """Give the outcome of one call, or of two or three in this order."""
        if names not in self._sequences:
            actors = self._scene.set()
            answers = [self.play.do(name, self.a, actors) for name in names]
            self._sequences[names] = self._outcome(actors, *answers)
        return self._sequences[names]

    def meet(self, meeting: Meeting) -> MeetingResult:
        """Let A go to its point and B as far as it can; then let A go on to its end, and B."""
        actors = self._scene.set()
        do_first = partial(self.play.do, meeting.first, self.a, actors)
        holder = self._stop(do_first, meeting.row)
        if meeting.then != WHOLE:
            shut_gate(self._gate, 2)
        enter(self.a, meeting.at, 1)
        enter(self.b, meeting.then, 2)

        self.a.begin()
        first = self.a.later(do_first)
        is_stopped = first.waits()
        second = self.b.later(self.play.do, meeting.second, self.b, actors)
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
        one = self.play.repeat(meeting.first, self.a, actors, one) if is_kept else None
        two = self.play.repeat(meeting.second, self.a, actors, two)
        return MeetingResult(self._outcome(actors, one, two), *places, is_stopped, waited)

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

    def _outcome(self, actors: Any, one: Any, two: Any = None, *three: Any) -> Outcome:
        """Give the answers and the rows left, or broken invariants; then delete all rows."""
        two = (two, *three) if three else two
        try:
            found = self.play.outcome(self.a, actors, one, two)
        except AssertionError as error:  # rows are left of a job that is gone
            found = Outcome(one, two, str(error))
        broken = self.a.run(BROKEN)
        self._scene.clear()
        return replace(found, left=str(broken)) if broken else found

    def difference(self, meeting: object, found: Outcome, expected: list[Outcome]) -> str:
        """Describe the outcome of a meeting, and how it differs from those expected."""
        lines = [f"{meeting}", f"found {found.first!r}, {found.second!r}"]
        for outcome in expected:
            lines.append(f"not {outcome.first!r}, {outcome.second!r}")
            left = (outcome.left.splitlines(), found.left.splitlines())
            lines += [*difflib.unified_diff(*left, lineterm="", n=0)][:20]
        return "\n".join(lines)
