"""Every mutator against every other on one job: the outcome is that of one of the two orders.

A runs in an open transaction; B comes meanwhile and may have to wait; then A commits or rolls back.
What both were told and what is left in the tables must equal `A, then B` or `B, then A` as they
come out one after the other on a job of their own; after a rollback, B alone. The mutators stand in
a table, and the pairs are made from it. PERDURE_RACE_PAIRS=all, as in `make pairs`, takes
the mutators that differ little from others against all too, and every pair with a rollback.
[P3] [P5] [P6] [P8]
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, product
from typing import Any

import psycopg
import pytest

from tests.races.sessions import (
    Answer,
    Session,
    Task,
    activity,
    child,
    command,
    hook,
    item,
    send,
    until,
)

WRITTEN = "exists($.log[0])"
FAILURE = {"type": "ValueError", "message": "no"}
_numbers = count(1)


@dataclass(frozen=True)
class Cast:
    """A job with a task in every state in which one can be, on a queue of its own."""

    job: str
    main: Task  # held
    hook: Task  # held; main has asked for it
    child: Task  # held; main has asked for it
    deadline: Task  # held; the time of the job is up
    item: str = ""  # main has asked people
    other_item: str = ""  # the hook that is parked waits for it


def cast(session: Session) -> Cast:
    """Set the stage: beside the three that are held, a hook is parked, one stuck, one ready.

    The one that is parked waits for a signal, for the first writer, or for people.
    """
    job = f"job {next(_numbers):06}"
    session.start(job, entity=job, context={"n": 0, "log": []}, timeout="1 h")
    for key in ("parked", "stuck"):
        session.call("hook", id=job, name="h", key=key, queue=job)
    parked, stuck, main = sorted(session.claim(job), key=lambda task: task.task)
    turns = [
        parked.park("go", requests=[until(WRITTEN, "u#1"), item("i#1")]),
        stuck.turn("stuck", value={"message": "?"}),
        main.keep(
            requests=[hook("h#1", job), child("c#1", job), until("$.n > 0", "u#0"), item("i#0")]
        ),
    ]
    assert session.advance_all(turns).states == ["parked", "stuck", "keep"]
    its_child, its_hook = sorted(session.claim(job), key=lambda task: task.task)
    session.call("hook", id=job, name="h", key="ready", queue=job)
    items = (session.item_of(job, key) for key in ("i#0", "i#1"))
    return Cast(job, main, its_hook, its_child, due_deadline(session, job), *items)


def due_deadline(session: Session, job: str) -> Task:
    """Let the time of a job be up, and claim its deadline."""
    deadline = "job_id = %s and task = '1/main/$deadline'"
    session.run(f"update tasks set due_at = clock() where {deadline}", job)
    (task,) = [task for task in session.claim("$sql") if task.job == job]
    return task


# What can be done to the job


def say(role: str, state: str, *facts: Any, **more: Any) -> Callable[[Session, Cast], Any]:
    """Send a turn of one of the tasks that are held."""

    def turn(session: Session, it: Cast) -> Any:
        task: Task = getattr(it, role)
        touches = {"touches": [it.job]} if role == "child" else {}
        return session.advance(task.turn(state, *facts, **more, **touches), waiting=True)

    return turn


def verb(function: str, **arguments: Any) -> Callable[[Session, Cast], Any]:
    """Call a verb with the id of the job."""
    return lambda session, it: session.call(function, id=it.job, **arguments)


def claim_item(session: Session, it: Cast) -> Any:
    """Take an item for a person."""
    return session.call("claim_item", item=it.item, by="jane") == it.item


def release_item(session: Session, it: Cast) -> Any:
    """Give an item back, whoever has it."""
    return session.call("release_item", item=it.item) == it.item


def assign_item(session: Session, it: Cast) -> Any:
    """Give an item to somebody else."""
    return session.call("assign_item", item=it.item, assignee="bob") == it.item


def publish(session: Session, it: Cast) -> Any:
    """Add to a stream beside the facts of the coordinator."""
    return session.call("publish", **it.main.lease, stream="told", items=["published"])


def signal_found(session: Session, it: Cast) -> Any:
    """Signal the job, which is found by its memory."""
    arguments = {"entity": it.job, "conditions": {"n": 0}, "name": "go", "payload": "found"}
    return [is_new for _, is_new in session.rows("signal_found", **arguments)]


def cancel_found(session: Session, it: Cast) -> Any:
    """Ask the job to cancel, which is found by its memory."""
    rows = session.rows("cancel_found", entity=it.job, conditions={"n": 0}, reason="found")
    return [is_new for _, is_new in rows]


def start_many(session: Session, it: Cast) -> Any:
    """Start the job again, and another."""
    starts = [
        {"workflow": "w", "id": job, "queue": "other", "if_exists": "existing"}
        for job in (f"{it.job}/other", it.job)
    ]
    return [is_new for _, is_new in session.rows("start_many", starts=starts)]


def run_deadline(session: Session, it: Cast) -> Any:
    """Let the time of the job be up, as the worker does who has claimed its deadline."""
    return session.call("run_task", **it.deadline.lease)


def finish_task(session: Session, it: Cast) -> Any:
    """End the hook that is held, as a worker without a journal does."""
    return session.call("finish_task", **it.hook.lease, value=1)


def fail_task(session: Session, it: Cast) -> Any:
    """Give it back after an attempt that failed."""
    return session.call("fail_task", **it.hook.lease, retry_at="2100-01-01")


def plain_update(session: Session, it: Cast) -> None:
    """Write the memory with ordinary SQL, so that the order of the writers can be seen."""
    query = "update jobs set context = context || jsonb_build_object('user', context) where id = %s"
    session.run(query, it.job)


def watch(session: Session, it: Cast) -> Any:
    """Ask for a hint at each change; who has the memory open is passed by."""
    version = session.call("entity_watch", id=it.job, listener="client")
    return [] if version is None else version


def logged(what: str) -> Any:
    """Append to a list of the memory, whose order tells the order of the writers."""
    return command("append", "log", [what])


@dataclass(frozen=True)
class Mutator:
    """Something that changes a job; whether it takes the job's lock, and is much like another."""

    do: Callable[[Session, Cast], Any]
    locks: bool = True
    is_alike: bool = False


MUTATORS: dict[str, Mutator] = {
    "command": Mutator(verb("entity_append", path="log", items=["outside"])),
    "plain update": Mutator(plain_update),
    "turn with a command": Mutator(say("main", "keep", logged("turn"))),
    "turn with a fact": Mutator(say("main", "keep", activity("x#1", 1)), locks=False),
    "turn with a request": Mutator(say("main", "keep", requests=[hook("h#2")])),
    "turn with a signal": Mutator(say("main", "keep", send("go", "own")), is_alike=True),
    "turn of a hook": Mutator(say("hook", "keep", logged("hook"), send("go", "hook"))),
    "park": Mutator(say("main", "park", logged("park"), awaits=["go"])),
    "park until": Mutator(say("main", "park", requests=[until(WRITTEN, "u#1")])),
    "withdraw": Mutator(say("main", "keep", cancels=["u#0"])),
    "withdraw an item": Mutator(say("main", "keep", cancels=["i#0"])),
    "claim an item": Mutator(claim_item),
    "release an item": Mutator(release_item, is_alike=True),
    "assign an item": Mutator(assign_item, is_alike=True),
    "resolve an item": Mutator(lambda session, it: session.resolve(it.item, by="jane")),
    "resolve too": Mutator(lambda session, it: session.resolve(it.item, "no", "bob")),
    "resolve what is slept for": Mutator(
        lambda session, it: session.resolve(it.other_item, by="x")
    ),
    "watch": Mutator(watch, locks=False),  # it waits a moment only
    "retry": Mutator(say("main", "retry", value=FAILURE, until="2100-01-01Z")),
    "continue": Mutator(say("main", "continue", logged("continue"), value=[2])),
    "try again": Mutator(
        say("main", "continue", logged("again"), failure=FAILURE, until="2100-01-01Z"),
        is_alike=True,
    ),
    "stuck": Mutator(say("main", "stuck", value={"message": "?"}), is_alike=True),
    "done": Mutator(say("main", "done", logged("done"), value=1)),
    "failed": Mutator(say("main", "failed", value=FAILURE), is_alike=True),
    "end of a hook": Mutator(say("hook", "done", logged("hook"), value="h")),
    "hook finished": Mutator(finish_task),
    "hook failed": Mutator(fail_task),
    "end of a child": Mutator(say("child", "done", value="c")),
    "signal": Mutator(verb("signal", name="go", payload="outside")),
    "signal found": Mutator(signal_found, is_alike=True),
    "publish": Mutator(publish, is_alike=True),
    "cancel": Mutator(verb("cancel", reason="enough")),
    "cancel found": Mutator(cancel_found, is_alike=True),
    "cancel of a hook": Mutator(verb("cancel_hook", task="1/main/h#1", reason="enough")),
    "terminate": Mutator(verb("terminate", reason="now")),
    "deadline": Mutator(run_deadline),
    "resume": Mutator(verb("resume")),
    "pause": Mutator(verb("pause")),
    "hook": Mutator(verb("hook", name="h", key="new", queue="other")),
    "hook again": Mutator(verb("hook", name="h", key="ready", queue="other"), is_alike=True),
    "start again": Mutator(
        lambda session, it: session.start(it.job, if_exists="existing"), locks=False
    ),
    "start of many": Mutator(start_many, locks=False, is_alike=True),
    "repin": Mutator(verb("repin", version="2")),
    "forget old runs": Mutator(verb("forget_old_runs")),
    "new run": Mutator(  # one that is refused, while the job runs, holds nothing any more
        lambda session, it: session.start(it.job, if_exists="new_run"), locks=False
    ),
    "signal with start": Mutator(
        lambda s, it: s.rows(
            "signal_with_start", workflow="w", id=it.job, name="go", if_exists="new_run"
        )[0][1]
    ),
    "retry by hand": Mutator(verb("retry", key="retry")),
    "fork": Mutator(
        lambda session, it: session.one("select (fork(%s, %s)).is_new", it.job, f"{it.job}/fork")
    ),
    "extend": Mutator(lambda session, it: session.extend(it.main), locks=False),
    "release": Mutator(lambda session, it: session.release(it.main), locks=False),
    "claim": Mutator(lambda session, it: session.claim(it.job), locks=False),
}

NEVER_WAITS = ("extend", "claim")
MEET_ALL = ("command", "terminate")  # who meets also the mutators that differ little from others


# What comes out


def told(mutator: Mutator, session: Session, it: Cast) -> Any:
    """Do it; say the answer, without what differs from run to run."""
    try:
        answer = mutator.do(session, it)
    except psycopg.Error as error:
        return f"error {error.sqlstate}"
    if isinstance(answer, Answer):
        messages = [(m["key"], m["name"], m["payload"]) for m in answer.messages]
        return answer.state, answer.answers, messages
    if isinstance(answer, list) and answer and isinstance(answer[0], Task):
        return sorted((t.task, t.position, t.row["deliveries"], t.messages) for t in answer)
    return answer


def passed_by(answer: Any) -> bool:
    """Tell whether a call went round what another session holds: the caller comes again."""
    return answer in ([], ["busy"]) or (isinstance(answer, tuple) and answer[0] == "busy")


LEFT = """
with its as (
    select id, context, version, watched, paused, status, result, error
      from jobs where id like %(family)s
), tasks_left as (
    select job_id, task, token is not null as is_held, paused, deliveries, attempt, position,
           awaits, stuck_reason, case when due_at = 'infinity' then 'never'
                              when due_at <= clock() then 'now'
                              when due_at < clock() + interval '10 min' then 'lease'
                              else 'later' end as due
      from tasks where job_id like %(family)s
), told as (
    select to_jsonb(f) - 'at' as fact, job_id, task, seq
      from journal as f where job_id like %(family)s
), mail as (
    select to_jsonb(i) - array['id', 'sent_at', 'consumed_at'] as message, id,
           consumed_at is null as is_open
      from inbox as i where job_id like %(family)s
)
select jsonb_build_object(
    'items', (select jsonb_agg(to_jsonb(i) - array['id', 'asked_at', 'claimed_at', 'resolved_at']
                               order by i.job_id, i.task, i.key)
                from items as i where i.job_id like %(family)s),
    'conditions', (select jsonb_agg(to_jsonb(c) - 'asked_at' order by c.job_id, c.task, c.key)
                     from conditions as c where c.job_id like %(family)s),
    'jobs', (select jsonb_agg(to_jsonb(j) order by j.id) from its as j),
    'tasks', (select jsonb_agg(to_jsonb(t) order by t.job_id, t.task) from tasks_left as t),
    'journal', (select jsonb_agg(f.fact order by f.job_id, f.task, f.seq) from told as f),
    'inbox', (select jsonb_agg(to_jsonb(m) - 'id' order by m.id) from mail as m))
"""


@dataclass(frozen=True)
class Outcome:
    """What both were told, and what is left."""

    first: Any
    second: Any
    left: str


def left(session: Session, it: Cast) -> str:
    """Read what is left of a job and its child, without times and names that differ."""
    (row,) = session.connection.execute(LEFT, {"family": f"{it.job}%"}).fetchone() or (None,)
    return json.dumps(row, indent=1).replace(it.job, "JOB")


_alone: dict[tuple[str, str | None], Outcome] = {}


def one_after_the_other(session: Session, first: str, second: str | None) -> Outcome:
    """Find what comes out of two calls in order, once for each pair; `second` may be missing."""
    if (first, second) not in _alone:
        it = cast(session)
        one = told(MUTATORS[first], session, it)
        two = told(MUTATORS[second], session, it) if second else None
        _alone[first, second] = Outcome(one, two, left(session, it))
    return _alone[first, second]


def swapped(outcome: Outcome) -> Outcome:
    """Tell an outcome from the other side."""
    return Outcome(outcome.second, outcome.first, outcome.left)


EVERYTHING = os.environ.get("PERDURE_RACE_PAIRS") == "all"


def pairs(everything: bool) -> Iterator[tuple[str, str, str]]:
    """Make the pairs: first, second, and how the first ends."""
    chosen = [name for name, mutator in MUTATORS.items() if everything or not mutator.is_alike]
    alike = [name for name in MUTATORS if name not in chosen]
    some = [(name, name) for name in alike]
    some += [*product(alike, MEET_ALL), *product(MEET_ALL, alike)]
    for number, (first, second) in enumerate([*product(chosen, chosen), *some]):
        yield first, second, "commit"
        if everything or number % 7 == 0:
            yield first, second, "rollback"


@pytest.mark.parametrize(("first", "second", "end"), list(pairs(EVERYTHING)))
def test_two_at_once_come_out_as_one_after_the_other(
    a: Session, b: Session, first: str, second: str, end: str
) -> None:
    """[P3] [P5] [P6] [P8] (C20) (C42)"""
    expected = {
        "commit": lambda: [
            one_after_the_other(a, first, second),
            swapped(one_after_the_other(a, second, first)),
        ],
        "rollback": lambda: [swapped(one_after_the_other(a, second, None))],
    }[end]()
    it = cast(a)

    a.begin()
    one = told(MUTATORS[first], a, it)
    coming = b.later(told, MUTATORS[second], b, it)
    waited = coming.waits()
    a.end(end)
    two = coming.get()
    if passed_by(two):
        two = told(MUTATORS[second], b, it)

    found = Outcome(one if end == "commit" else None, two, left(a, it))
    assert found in expected
    assert waited or not (MUTATORS[first].locks and MUTATORS[second].locks)
    assert not (waited and second in NEVER_WAITS)
    assert not passed_by(found.second) or found.second == expected[0].second
