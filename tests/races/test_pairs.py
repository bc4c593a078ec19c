"""Every mutator runs beside every other on one job: the outcome is that of one of the two orders.

A runs in an open transaction; B comes meanwhile and may have to wait; then A commits or rolls back.
The answers to both and the rows that are left must equal those of `A, then B` or `B, then A`, each
run in sequence on a job of its own; after a rollback, those of B alone. The mutators are listed in
a table, from which the pairs are made. With PERDURE_RACE_PAIRS=all, as in `make pairs`, also
mutators that resemble others meet all, and every pair runs with a rollback too. [P3] [P5] [P6] [P8]
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
    """A job with a task in every possible state, on a queue of its own."""

    job: str
    main: Task  # the coordinator; held
    hook: Task  # held; main has requested it
    child: Task  # held; main has requested it
    deadline: Task  # held; the time limit of the job is over
    item: str = ""  # main waits for it
    other_item: str = ""  # the parked hook waits for it


def cast(session: Session) -> Cast:
    """Start a job with tasks in all states: held, parked, stuck and ready.

    A coordinator, a hook and a child are held. The parked hook waits for a signal, for the first
    write of the memory, or for people.
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
    """Let the time limit of a job be over, and claim its deadline."""
    deadline = "job_id = %s and task = '1/main/$deadline'"
    session.run(f"update tasks set due_at = clock() where {deadline}", job)
    (task,) = [task for task in session.claim("$sql") if task.job == job]
    return task


# The calls on the job


def send_turn(role: str, state: str, *facts: Any, **more: Any) -> Callable[[Session, Cast], Any]:
    """Make a function that sends a turn of one of the held tasks."""

    def turn(session: Session, actors: Cast) -> Any:
        task: Task = getattr(actors, role)
        touches = {"touches": [actors.job]} if role == "child" else {}
        return session.advance(task.turn(state, *facts, **more, **touches), waiting=True)

    return turn


def verb(function: str, **arguments: Any) -> Callable[[Session, Any], Any]:
    """Make a function that calls a verb with the id of the job."""
    return lambda session, actors: session.call(function, id=actors.job, **arguments)


def claim_item(session: Session, actors: Cast) -> Any:
    """Claim an item for a person."""
    return session.call("claim_item", item=actors.item, by="jane") == actors.item


def release_item(session: Session, actors: Cast) -> Any:
    """Give an item back, whoever has claimed it."""
    return session.call("release_item", item=actors.item) == actors.item


def assign_item(session: Session, actors: Cast) -> Any:
    """Assign an item to another person."""
    return session.call("assign_item", item=actors.item, assignee="bob") == actors.item


def publish(session: Session, actors: Cast) -> Any:
    """Publish to a stream, as the coordinator."""
    return session.call("publish", **actors.main.lease, stream="told", items=["published"])


def signal_found(session: Session, actors: Cast) -> Any:
    """Signal the job, found by its memory."""
    arguments = {"entity": actors.job, "conditions": {"n": 0}, "name": "go", "payload": "found"}
    return [is_new for _, is_new in session.rows("signal_found", **arguments)]


def cancel_found(session: Session, actors: Cast) -> Any:
    """Ask the job to cancel, found by its memory."""
    rows = session.rows("cancel_found", entity=actors.job, conditions={"n": 0}, reason="found")
    return [is_new for _, is_new in rows]


def start_many(session: Session, actors: Cast) -> Any:
    """Start the job again, and another one."""
    starts = [
        {"workflow": "w", "id": job, "queue": "other", "if_exists": "existing"}
        for job in (f"{actors.job}/other", actors.job)
    ]
    return [is_new for _, is_new in session.rows("start_many", starts=starts)]


def run_deadline(session: Session, actors: Cast) -> Any:
    """Run the deadline of the job, as the worker that claimed it."""
    return session.call("run_task", **actors.deadline.lease)


def finish_task(session: Session, actors: Cast) -> Any:
    """End the held hook, as a worker without a journal does."""
    return session.call("finish_task", **actors.hook.lease, value=1)


def fail_task(session: Session, actors: Cast) -> Any:
    """Report a failed attempt of the held hook."""
    return session.call("fail_task", **actors.hook.lease, retry_at="2100-01-01")


def plain_update(session: Session, actors: Any) -> None:
    """Write the memory with plain SQL; the result shows the order of the writers."""
    query = "update jobs set context = context || jsonb_build_object('user', context) where id = %s"
    session.run(query, actors.job)


def watch(session: Session, actors: Cast) -> Any:
    """Ask for a hint at each change; a locked memory is skipped."""
    version = session.call("entity_watch", id=actors.job, listener="client")
    return [] if version is None else version


def logged(what: str) -> Any:
    """Append to a list of the memory, which shows the order of the writers."""
    return command("append", "log", [what])


@dataclass(frozen=True)
class Mutator:
    """A call that changes a job."""

    do: Callable[[Session, Cast], Any]
    locks: bool = True  # whether it takes the lock of the job
    is_alike: bool = False  # whether it resembles another, and meets all only in `make pairs`


MUTATORS: dict[str, Mutator] = {
    "command": Mutator(verb("entity_append", path="log", items=["outside"])),
    "plain update": Mutator(plain_update),
    "turn with a command": Mutator(send_turn("main", "keep", logged("turn"))),
    "turn with a fact": Mutator(send_turn("main", "keep", activity("x#1", 1)), locks=False),
    "turn with a request": Mutator(send_turn("main", "keep", requests=[hook("h#2")])),
    "turn with a signal": Mutator(send_turn("main", "keep", send("go", "own")), is_alike=True),
    "turn of a hook": Mutator(send_turn("hook", "keep", logged("hook"), send("go", "hook"))),
    "park": Mutator(send_turn("main", "park", logged("park"), awaits=["go"])),
    "park until": Mutator(send_turn("main", "park", requests=[until(WRITTEN, "u#1")])),
    "withdraw": Mutator(send_turn("main", "keep", cancels=["u#0"])),
    "withdraw an item": Mutator(send_turn("main", "keep", cancels=["i#0"])),
    "claim an item": Mutator(claim_item),
    "release an item": Mutator(release_item, is_alike=True),
    "assign an item": Mutator(assign_item, is_alike=True),
    "resolve an item": Mutator(lambda session, actors: session.resolve(actors.item, by="jane")),
    "resolve too": Mutator(lambda session, actors: session.resolve(actors.item, "no", "bob")),
    "resolve the item of the hook": Mutator(
        lambda session, actors: session.resolve(actors.other_item, by="x")
    ),
    "watch": Mutator(watch, locks=False),  # it waits only for a moment
    "retry": Mutator(send_turn("main", "retry", value=FAILURE, until="2100-01-01Z")),
    "continue": Mutator(send_turn("main", "continue", logged("continue"), value=[2])),
    "try again": Mutator(
        send_turn("main", "continue", logged("again"), failure=FAILURE, until="2100-01-01Z"),
        is_alike=True,
    ),
    "stuck": Mutator(send_turn("main", "stuck", value={"message": "?"}), is_alike=True),
    "done": Mutator(send_turn("main", "done", logged("done"), value=1)),
    "failed": Mutator(send_turn("main", "failed", value=FAILURE), is_alike=True),
    "end of a hook": Mutator(send_turn("hook", "done", logged("hook"), value="h")),
    "hook finished": Mutator(finish_task),
    "hook failed": Mutator(fail_task),
    "end of a child": Mutator(send_turn("child", "done", value="c")),
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
        lambda session, actors: session.start(actors.job, if_exists="existing"), locks=False
    ),
    "start of many": Mutator(start_many, locks=False, is_alike=True),
    "repin": Mutator(verb("repin", version="2")),
    "forget old runs": Mutator(verb("forget_old_runs")),
    "new run": Mutator(  # while the job runs it is refused, and holds no lock
        lambda session, actors: session.start(actors.job, if_exists="new_run"), locks=False
    ),
    "signal with start": Mutator(
        lambda s, actors: s.rows(
            "signal_with_start", workflow="w", id=actors.job, name="go", if_exists="new_run"
        )[0][1]
    ),
    "retry by hand": Mutator(verb("retry", key="retry")),
    "fork": Mutator(
        lambda session, actors: session.one(
            "select (fork(%s, %s)).is_new", actors.job, f"{actors.job}/fork"
        )
    ),
    "extend": Mutator(lambda session, actors: session.extend(actors.main), locks=False),
    "release": Mutator(lambda session, actors: session.release(actors.main), locks=False),
    "claim": Mutator(lambda session, actors: session.claim(actors.job), locks=False),
}

NEVER_WAITS = ("extend", "claim")
MEET_ALL = ("command", "terminate")  # these meet also the mutators that resemble others


# Outcomes


def result_of(mutator: Mutator, session: Session, actors: Cast) -> Any:
    """Make the call; return its answer without what differs from run to run."""
    try:
        answer = mutator.do(session, actors)
    except psycopg.Error as error:
        return f"error {error.sqlstate}"
    if isinstance(answer, Answer):
        messages = [(m["key"], m["name"], m["payload"]) for m in answer.messages]
        return answer.state, answer.answers, messages
    if isinstance(answer, list) and answer and isinstance(answer[0], Task):
        return sorted((t.task, t.position, t.row["deliveries"], t.messages) for t in answer)
    return answer


def has_skipped(answer: Any) -> bool:
    """Tell whether a call skipped what another session holds; then the caller repeats it."""
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
), facts as (
    select to_jsonb(f) - 'at' as fact, job_id, task, seq
      from journal as f where job_id like %(family)s
), messages as (
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
    'journal', (select jsonb_agg(f.fact order by f.job_id, f.task, f.seq) from facts as f),
    'inbox', (select jsonb_agg(to_jsonb(m) - 'id' order by m.id) from messages as m))
"""


@dataclass(frozen=True)
class Outcome:
    """The answers to both calls, and the rows that are left."""

    first: Any
    second: Any
    left: str


def rows_left(session: Session, actors: Cast) -> str:
    """Read the rows of a job and its child, without times and names that differ."""
    (row,) = session.connection.execute(LEFT, {"family": f"{actors.job}%"}).fetchone() or (None,)
    return json.dumps(row, indent=1).replace(actors.job, "JOB")


_sequences: dict[tuple[str, str | None], Outcome] = {}


def one_after_the_other(session: Session, first: str, second: str | None) -> Outcome:
    """Run one or two calls in sequence on a job of their own; each pair runs only once."""
    if (first, second) not in _sequences:
        actors = cast(session)
        one = result_of(MUTATORS[first], session, actors)
        two = result_of(MUTATORS[second], session, actors) if second else None
        _sequences[first, second] = Outcome(one, two, rows_left(session, actors))
    return _sequences[first, second]


def swapped(outcome: Outcome) -> Outcome:
    """Swap the two answers of an outcome."""
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
def test_two_concurrent_calls_have_outcome_of_one_of_their_orders(
    a: Session, b: Session, first: str, second: str, end: str
) -> None:
    """[P3] [P5] [P6] [P8] (C20) (C42) The second call waits if both need the lock of the job."""
    expected = {
        "commit": lambda: [
            one_after_the_other(a, first, second),
            swapped(one_after_the_other(a, second, first)),
        ],
        "rollback": lambda: [swapped(one_after_the_other(a, second, None))],
    }[end]()
    actors = cast(a)

    a.begin()
    one = result_of(MUTATORS[first], a, actors)
    coming = b.later(result_of, MUTATORS[second], b, actors)
    waited = coming.waits()
    a.end(end)
    two = coming.get()
    if has_skipped(two):
        two = result_of(MUTATORS[second], b, actors)

    found = Outcome(one if end == "commit" else None, two, rows_left(a, actors))
    assert found in expected
    assert waited or not (MUTATORS[first].locks and MUTATORS[second].locks)
    assert not (waited and second in NEVER_WAITS)
    assert not has_skipped(found.second) or found.second == expected[0].second
