"""Two calls that each touch a parent and its child, and lock them from opposite sides.

A third session holds one of the jobs until both calls have gone as far as they can: there a call
with another order of locks would stop half-way, and close a cycle as soon as it goes on. No call
may end as a deadlock, and the answers and the rows that are left must equal those of the two calls
in sequence. PERDURE_RACE_PAIRS=all tries both orders, and holds each job in turn (`make pairs`).
[P3] [P5] [P6] [P8] (T3)

A hook of the parent has ended too, and a task waits to cancel the child that this hook had
requested.
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
    has_skipped,
    rows_left,
    swapped,
)

FAILURE = {"type": "ValueError", "message": "no"}
_numbers = count(1)


@dataclass(frozen=True)
class Family:
    """A parent and its child, both held; their time limits are over, their deadlines claimed."""

    parent: Task
    child: Task
    orphan: Task
    """A child that the hook had requested."""
    ending: Task
    """The task that is to cancel this child, since the hook has ended."""
    deadline: Task
    child_deadline: Task


def cast(session: Session) -> Family:
    """Start the family; the id of the child sorts before that of its parent."""
    number = next(_numbers)
    job = f"cross {number:06} z"
    common = {"entity": job[:12], "context": {"n": 0, "log": []}}
    session.start(job, **common, timeout="1 h")
    main = session.claim_one(job)
    wanted = child("c#1", job, id=f"{job[:12]} a") | common | {"timeout": "1 h"}
    session.advance(main.keep(requests=[wanted, hook("h#1", job)]))
    its_child, its_hook = sorted(session.claim(job), key=lambda task: task.job)
    wanted = child("c#1", job, id=f"{job[:12]} m") | common | {"on_parent_end": "cancel"}
    session.advance(its_hook.keep(requests=[wanted]))
    orphan = session.claim_one(job)
    deadlines = [due_deadline(session, task.job) for task in (main, its_child)]
    session.advance(its_hook.told(0).done())
    ending = session.claim_one("$sql")
    return Family(main.told(0), its_child, orphan, ending, *deadlines)


def logged(what: str) -> Any:
    """Append to a list of the memory, which shows the order of the writers."""
    return command("append", "log", [what])


Action = Callable[[Session, Family], Any]


def turn(*make: Callable[[Family], Any]) -> Action:
    """Make an action that sends turns in one batch, and waits for locked jobs."""

    def send_turns(session: Session, family: Family) -> Any:
        answers = session.advance_all([one(family) for one in make], waiting=True).turns
        return [comparable(answer) for answer in answers]

    return send_turns


def comparable(answer: Answer) -> Any:
    """Give an answer without what differs from run to run."""
    messages = [(m["key"], m["name"], m["payload"]) for m in answer.messages]
    return answer.state, answer.answers, messages


def verb(function: str, role: str, **arguments: Any) -> Action:
    """Make an action that calls a verb with the id of one of the two jobs."""
    return lambda session, family: session.call(function, id=getattr(family, role).job, **arguments)


def deadline(role: str) -> Action:
    """Make an action that runs the deadline of a job."""
    return lambda session, family: session.call("run_task", **getattr(family, role).lease)


def found(function: str, **arguments: Any) -> Action:
    """Make an action on both jobs, found by their memories."""

    def call(session: Session, family: Family) -> Any:
        entity = family.parent.job[:12]
        rows = session.rows(function, entity=entity, conditions={"n": 0}, **arguments)
        return [is_new for _, is_new in rows]

    return call


def end_children(session: Session, family: Family) -> Any:
    """Cancel the child of the ended hook; a locked child is skipped (`retry`)."""
    return session.call("run_task", **family.ending.lease)


def end_children_again(session: Session, family: Family) -> Any:
    """Try again after the child was locked."""
    its = "job_id = %s and task = %s"
    first = f"update tasks set due_at = clock() - interval '1 h' where {its}"
    session.run(first, family.ending.job, family.ending.task)
    return session.call("run_task", **session.claim_one("$sql", max_tasks=1).lease)


def fork(session: Session, family: Family) -> Any:
    """Fork the parent."""
    return session.one("select (fork(%s, %s)).is_new", family.parent.job, fork_of(family))


def fork_of(family: Family) -> str:
    """Give the id of the fork, which sorts between the child and the parent."""
    return f"{family.parent.job[:12]} f"


def signal_with_start(role: str) -> Action:
    """Make an action that signals a job, or begins a new run of it with the signal."""

    def call(session: Session, family: Family) -> Any:
        job = getattr(family, role).job
        arguments = {"workflow": "w", "id": job, "name": "go", "if_exists": "new_run"}
        return session.rows("signal_with_start", **arguments)[0][1]

    return call


def new_runs(session: Session, family: Family) -> Any:
    """Ask for new runs of both jobs, which still run, and of one with the id of the fork."""
    jobs = [family.parent.job, family.child.job, fork_of(family)]
    same = {"workflow": "w", "queue": "other", "if_exists": "new_run"}
    starts = [same | {"id": job} for job in jobs]
    return [is_new for _, is_new in session.rows("start_many", starts=starts)]


def parent_signals(family: Family) -> Any:
    """Signal the child."""
    return family.parent.keep(logged("parent"), send("go", "down", target=family.child.job))


def child_signals(family: Family) -> Any:
    """Signal the parent."""
    return family.child.keep(logged("child"), send("go", "up", target=family.parent.job))


def child_ends(family: Family) -> Any:
    """Answer the parent."""
    return family.child.done("c", touches=[family.parent.job])


def orphan_ends(family: Family) -> Any:
    """End the child of the ended hook, which has nobody to answer."""
    return family.orphan.done("o", touches=[family.parent.job])


def parent_repeats_request(family: Family) -> Any:
    """Request the child again."""
    return family.parent.keep(requests=[child("c#1", id=family.child.job)])


ACTIONS: dict[str, Action] = {
    "the parent signals": turn(parent_signals),
    "the child signals": turn(child_signals),
    "both signal": turn(parent_signals, child_signals),
    "both signal, in reverse": turn(child_signals, parent_signals),
    "the child ends": turn(child_ends),
    "the parent cancels the child": turn(lambda family: family.parent.park("go", cancels=["c#1"])),
    "the parent asks again": turn(parent_repeats_request),
    "the parent ends": turn(lambda family: family.parent.done("p")),
    "the parent continues": turn(lambda family: family.parent.turn("continue", value=[2])),
    "the parent is terminated": verb("terminate", "parent"),
    "the child is terminated": verb("terminate", "child"),
    "the child has its deadline": deadline("child_deadline"),
    "the parent is cancelled": verb("cancel", "parent", reason="enough"),
    "the child is cancelled": verb("cancel", "child", reason="enough"),
    "the child of the ended hook is handled": end_children,
    "the child of the hook ends": turn(orphan_ends),
    "the parent is forked": fork,
    "the parent is forgotten": verb("forget", "parent"),
    "the child is forgotten": verb("forget", "child"),
    "the parent is started or signalled": signal_with_start("parent"),
    "the child is started or signalled": signal_with_start("child"),
    "both are signalled": found("signal_found", name="go", payload="found"),
    "new runs of both": new_runs,
}


def do(name: str, session: Session, family: Family) -> Any:
    """Run an action, once more if it skipped a lock; return its answer or the code of the error."""
    try:
        answer = ACTIONS[name](session, family)
        if isinstance(answer, list) and any(map(has_skipped, answer)):
            answer = ACTIONS[name](session, family)
    except psycopg.Error as error:
        return f"error {error.sqlstate}"
    return answer


def outcome(session: Session, family: Family, one: Any, two: Any) -> Outcome:
    """Give the answers and the rows that are left of the family, without its names."""
    prefix = family.parent.job[:12]
    answers = [repr(answer).replace(prefix, "JOB") for answer in (one, two)]
    return Outcome(*answers, rows_left(session, Cast(prefix, *[family.parent] * 4)))


_sequences: dict[tuple[str, str], Outcome] = {}


def one_after_the_other(session: Session, first: str, second: str) -> Outcome:
    """Run two actions in sequence on a family of their own; each pair runs only once."""
    if (first, second) not in _sequences:
        family = cast(session)
        one = do(first, session, family)
        two = do(second, session, family)
        _sequences[first, second] = outcome(session, family, one, two)
    return _sequences[first, second]


GATES = ("parent", "child", "orphan")
SELDOM = frozenset(
    name for name in ACTIONS if name.endswith(("cancelled", "forked", "forgotten", "signalled"))
)
"""Actions that meet only a third of the others, unless all pairs are tried."""


def pairs(everything: bool) -> Iterator[tuple[str, str, str]]:
    """Make the pairs: the first, the second, and the job that is held meanwhile."""
    if everything:
        yield from product(ACTIONS, ACTIONS, GATES)
        return
    for number, (one, two) in enumerate(combinations_with_replacement(ACTIONS, 2)):
        first, second = (one, two) if number % 4 < 2 else (two, one)
        if number % 3 == 0 or SELDOM.isdisjoint((one, two)):
            yield first, second, GATES[number % 3]


@pytest.mark.parametrize(("first", "second", "gate"), list(pairs(EVERYTHING)))
def test_two_crossing_calls_have_outcome_of_one_of_their_orders(
    a: Session, b: Session, c: Session, first: str, second: str, gate: str
) -> None:
    """[P3] [P5] [P6] [P8] (C20) No call ends as a deadlock."""
    expected = [
        one_after_the_other(a, first, second),
        swapped(one_after_the_other(a, second, first)),
    ]
    family = cast(a)

    c.begin()
    c.run("select from jobs where id = %s for no key update", getattr(family, gate).job)
    one = a.later(do, first, a, family)
    one.waits()
    two = b.later(do, second, b, family)
    two.waits()
    c.commit()

    answers = [call.get() for call in (one, two)]
    answers = [end_children_again(c, family) if answer == "retry" else answer for answer in answers]
    assert outcome(c, family, *answers) in expected
