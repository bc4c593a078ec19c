"""Two calls that each touch two jobs, a parent and its child, and come from either side.

A third session holds one of the two jobs until both calls have come as far as they can: that is
where a call that took its locks in another order would stand half-way, and close a circle when it
is let go. None may be ended as a deadlock, and what both are told and what is left must be what
comes out of the two, one after the other. PERDURE_RACE_PAIRS=all lets each of two come first, and
holds each of the jobs in turn (`make pairs`). [P3] [P5] [P6] [P8] (T3)

A hook of the parent has ended, and somebody is to see to the child that it had asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement, count, product
from typing import Any

import psycopg
import pytest

from tests.races.sessions import Answer, Session, Task, child, command, hook, send
from tests.races.test_pairs import (
    EVERYTHING,
    Cast,
    Outcome,
    due_deadline,
    left,
    passed_by,
    swapped,
)

FAILURE = {"type": "ValueError", "message": "no"}
_numbers = count(1)


@dataclass(frozen=True)
class Family:
    """A parent and its child, both held; the time of each is up, and somebody has its deadline."""

    parent: Task
    child: Task
    orphan: Task
    """A child that a hook had asked for."""
    ending: Task
    """What the hook has left behind, to see to that."""
    deadline: Task
    child_deadline: Task


def cast(session: Session) -> Family:
    """Set the stage; the name of the child stands before that of its parent in every order."""
    number = next(_numbers)
    job = f"cross {number:06} z"
    family = {"entity": job[:12], "context": {"n": 0, "log": []}}
    session.start(job, **family, timeout="1 h")
    main = session.claim_one(job)
    wanted = child("c#1", job, id=f"{job[:12]} a") | family | {"timeout": "1 h"}
    session.advance(main.keep(requests=[wanted, hook("h#1", job)]))
    its_child, its_hook = sorted(session.claim(job), key=lambda task: task.job)
    wanted = child("c#1", job, id=f"{job[:12]} m") | family | {"on_parent_end": "cancel"}
    session.advance(its_hook.keep(requests=[wanted]))
    orphan = session.claim_one(job)
    deadlines = [due_deadline(session, task.job) for task in (main, its_child)]
    session.advance(its_hook.told(0).done())
    ending = session.claim_one("$sql")
    return Family(main.told(0), its_child, orphan, ending, *deadlines)


def logged(what: str) -> Any:
    """Append to a list of the memory, whose order tells the order of the writers."""
    return command("append", "log", [what])


Deed = Callable[[Session, Family], Any]


def turn(*make: Callable[[Family], Any]) -> Deed:
    """Say turns in one batch, waiting for what others hold."""

    def say(session: Session, it: Family) -> Any:
        answers = session.advance_all([one(it) for one in make], waiting=True).turns
        return [told(answer) for answer in answers]

    return say


def told(answer: Answer) -> Any:
    """Say an answer, without what differs from run to run."""
    messages = [(m["key"], m["name"], m["payload"]) for m in answer.messages]
    return answer.state, answer.answers, messages


def verb(function: str, role: str, **arguments: Any) -> Deed:
    """Call a verb with the id of one of the two jobs."""
    return lambda session, it: session.call(function, id=getattr(it, role).job, **arguments)


def deadline(role: str) -> Deed:
    """Let the time of a job be up."""
    return lambda session, it: session.call("run_task", **getattr(it, role).lease)


def found(function: str, **arguments: Any) -> Deed:
    """Do something to both, which are found by what they remember."""

    def call(session: Session, it: Family) -> Any:
        entity = it.parent.job[:12]
        rows = session.rows(function, entity=entity, conditions={"n": 0}, **arguments)
        return [is_new for _, is_new in rows]

    return call


def see_to_children(session: Session, it: Family) -> Any:
    """Cancel the child of the hook that has ended; who is locked is passed by (`retry`)."""
    return session.call("run_task", **it.ending.lease)


def see_to_children_again(session: Session, it: Family) -> Any:
    """Look again for a child that somebody had locked."""
    its = "job_id = %s and task = %s"
    first = f"update tasks set due_at = clock() - interval '1 h' where {its}"
    session.run(first, it.ending.job, it.ending.task)
    return session.call("run_task", **session.claim_one("$sql", max_tasks=1).lease)


def fork(session: Session, it: Family) -> Any:
    """Begin another job with what the parent has done."""
    return session.one("select (fork(%s, %s)).is_new", it.parent.job, fork_of(it))


def fork_of(it: Family) -> str:
    """Name it so that it stands between the child and the parent."""
    return f"{it.parent.job[:12]} f"


def signal_with_start(role: str) -> Deed:
    """Signal a job, or begin a new run of it with the signal."""

    def call(session: Session, it: Family) -> Any:
        job = getattr(it, role).job
        arguments = {"workflow": "w", "id": job, "name": "go", "if_exists": "new_run"}
        return session.rows("signal_with_start", **arguments)[0][1]

    return call


def new_runs(session: Session, it: Family) -> Any:
    """Ask for new runs of both, which are refused while one runs, and for what a fork would be."""
    jobs = [it.parent.job, it.child.job, fork_of(it)]
    same = {"workflow": "w", "queue": "other", "if_exists": "new_run"}
    starts = [same | {"id": job} for job in jobs]
    return [is_new for _, is_new in session.rows("start_many", starts=starts)]


def parent_says(it: Family) -> Any:
    """Signal the child."""
    return it.parent.keep(logged("parent"), send("go", "down", target=it.child.job))


def child_says(it: Family) -> Any:
    """Signal the parent."""
    return it.child.keep(logged("child"), send("go", "up", target=it.parent.job))


def child_ends(it: Family) -> Any:
    """Answer the parent."""
    return it.child.done("c", touches=[it.parent.job])


def orphan_ends(it: Family) -> Any:
    """End, with nobody left who would be answered."""
    return it.orphan.done("o", touches=[it.parent.job])


def asks_again(it: Family) -> Any:
    """Ask once more for the child."""
    return it.parent.keep(requests=[child("c#1", id=it.child.job)])


DEEDS: dict[str, Deed] = {
    "the parent signals": turn(parent_says),
    "the child signals": turn(child_says),
    "both signal": turn(parent_says, child_says),
    "both signal, in reverse": turn(child_says, parent_says),
    "the child ends": turn(child_ends),
    "the parent cancels the child": turn(lambda it: it.parent.park("go", cancels=["c#1"])),
    "the parent asks again": turn(asks_again),
    "the parent ends": turn(lambda it: it.parent.done("p")),
    "the parent continues": turn(lambda it: it.parent.turn("continue", value=[2])),
    "the parent is terminated": verb("terminate", "parent"),
    "the child is terminated": verb("terminate", "child"),
    "the time of the child is up": deadline("child_deadline"),
    "the parent is cancelled": verb("cancel", "parent", reason="enough"),
    "the child is cancelled": verb("cancel", "child", reason="enough"),
    "a child of a hook is seen to": see_to_children,
    "the child of the hook ends": turn(orphan_ends),
    "the parent is forked": fork,
    "the parent is forgotten": verb("forget", "parent"),
    "the child is forgotten": verb("forget", "child"),
    "the parent is started or signalled": signal_with_start("parent"),
    "the child is started or signalled": signal_with_start("child"),
    "both are signalled": found("signal_found", name="go", payload="found"),
    "new runs of both": new_runs,
}


def do(name: str, session: Session, it: Family) -> Any:
    """Do it, once more where somebody passed by; say the answer, or the code of a refusal."""
    try:
        answer = DEEDS[name](session, it)
        if isinstance(answer, list) and any(map(passed_by, answer)):
            answer = DEEDS[name](session, it)
    except psycopg.Error as error:
        return f"error {error.sqlstate}"
    return answer


def outcome(session: Session, it: Family, one: Any, two: Any) -> Outcome:
    """Tell what both were told, and what is left of the two jobs, without their names."""
    family = it.parent.job[:12]
    said = [repr(answer).replace(family, "JOB") for answer in (one, two)]
    return Outcome(*said, left(session, Cast(family, *[it.parent] * 4)))


_alone: dict[tuple[str, str], Outcome] = {}


def one_after_the_other(session: Session, first: str, second: str) -> Outcome:
    """Find what comes out of two calls in order, once for each pair."""
    if (first, second) not in _alone:
        it = cast(session)
        one = do(first, session, it)
        two = do(second, session, it)
        _alone[first, second] = outcome(session, it, one, two)
    return _alone[first, second]


GATES = ("parent", "child", "orphan")
SELDOM = frozenset(
    name for name in DEEDS if name.endswith(("cancelled", "forked", "forgotten", "signalled"))
)
"""Deeds that meet a third of the others, where not all pairs are tried."""


def pairs(everything: bool) -> Iterator[tuple[str, str, str]]:
    """Make the pairs: who comes first, who second, and whose job is held meanwhile."""
    if everything:
        yield from product(DEEDS, DEEDS, GATES)
        return
    for number, (one, two) in enumerate(combinations_with_replacement(DEEDS, 2)):
        first, second = (one, two) if number % 4 < 2 else (two, one)
        if number % 3 == 0 or SELDOM.isdisjoint((one, two)):
            yield first, second, GATES[number % 3]


@pytest.mark.parametrize(("first", "second", "gate"), list(pairs(EVERYTHING)))
def test_two_that_cross_come_out_as_one_after_the_other(
    a: Session, b: Session, c: Session, first: str, second: str, gate: str
) -> None:
    """[P3] [P5] [P6] [P8] (C20): no circle of waiting, and no outcome that neither order has."""
    expected = [
        one_after_the_other(a, first, second),
        swapped(one_after_the_other(a, second, first)),
    ]
    it = cast(a)

    c.begin()
    c.run("select from jobs where id = %s for no key update", getattr(it, gate).job)
    one = a.later(do, first, a, it)
    one.waits()
    two = b.later(do, second, b, it)
    two.waits()
    c.commit()

    answers = [call.get() for call in (one, two)]
    answers = [see_to_children_again(c, it) if told == "retry" else told for told in answers]
    assert outcome(c, it, *answers) in expected
