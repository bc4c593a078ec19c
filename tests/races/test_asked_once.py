"""Repeated requests and early answers: no task runs twice, and no answer is lost. [P4] [P5]"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.races.sessions import (
    Json,
    Session,
    Stage,
    Task,
    child,
    hook,
    increment,
    item,
    send,
    take,
    until,
)

HOOKS = 1000
JOBS = 50

# Each kind of request, and the turn that answers it.
KINDS: dict[str, tuple[Json, Callable[[Task], Json]]] = {
    "a hook that returns": (hook("x#1"), lambda t: t.done("answer")),
    "a hook that fails": (hook("x#1"), lambda t: t.turn("failed", value={"message": "no"})),
    "a hook that signals early": (
        hook("x#1", signal="ready"),
        lambda t: t.keep(send("ready", "answer")),
    ),
    "a hook that signals and returns": (
        hook("x#1", signal="ready"),
        lambda t: t.done("late", send("ready", "answer")),
    ),
    "an activity": (hook("x#1", kind="activity"), lambda t: t.done("answer")),
    "a child": (child("x#1", "hooks"), lambda t: t.done("answer", touches=["j"])),
    "a child by its own id": (
        child("x#1", "hooks", id="my child"),
        lambda t: t.done("answer", touches=["j"]),
    ),
}

# Requests of other kinds under one key, of which each makes something, and what answers each.
SAME_KEY: dict[str, tuple[Json, Callable[[Session], object]]] = {
    "condition": (
        until("$.n == 1", "x#1"),
        lambda s: s.call("entity_set", id="j", path="n", value=1),
    ),
    "item": (item("x#1"), lambda s: s.resolve(s.item_of("j", "x#1"))),
    "hook": (hook("x#1"), lambda s: s.advance(s.claim_one("hooks").done())),
    "child": (child("x#1"), lambda s: s.advance(s.claim_one("children").done(touches=["j"]))),
}
BESIDE = [
    "condition hook",
    "condition child",
    "item hook",
    "item child",
    "hook child",
    "child hook",
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[Json, Callable[[Task], Json]]:
    """Give each kind of request with the turn that answers it."""
    return KINDS[request.param]


def claim_and_answer(session: Session, finish: Callable[[Task], Json]) -> Task:
    """Claim the requested task, and send its answer."""
    task = session.claim_one("hooks")
    assert session.advance(finish(task)).state in {"keep", "done", "failed"}
    return task


def count(session: Session) -> list[tuple[int, ...]]:
    """Count jobs, tasks and messages."""
    return [session.run(f"select count(*) from {table}")[0] for table in ("jobs", "tasks", "inbox")]


def test_a_request_repeated_while_its_task_runs_inserts_nothing(
    a: Session, b: Session, kind: tuple[Json, Callable[[Task], Json]]
) -> None:
    """[P4] [P12] (C45) A coordinator crashed and repeats its request: no second task appears."""
    request, _ = kind
    task = a.held("j")
    a.advance(task.keep(requests=[request]))
    running = b.claim_one("hooks")
    before = count(a)

    again = a.stolen(task)
    assert a.advance(again.park(requests=[request])).state == "parked"

    assert count(a) == before
    assert b.deliveries(running) == 1
    assert b.claim("hooks") == []


def test_request_repeated_while_its_answer_is_open_inserts_nothing(
    a: Session, b: Session, kind: tuple[Json, Callable[[Task], Json]]
) -> None:
    """[P4] [P12] A coordinator that crashed before it took the answer still finds that answer."""
    request, finish = kind
    task = a.held("j")
    a.advance(task.keep(requests=[request]))
    claim_and_answer(b, finish)
    before = count(a)

    again = a.stolen(task)
    kept = a.advance(again.park(requests=[request]))

    assert (kept.state, [m["key"] for m in kept.messages]) == ("keep", ["x#1"])
    assert count(a) == before
    assert b.claim("hooks") == []


def test_a_request_repeated_after_its_answer_was_consumed_inserts_nothing(
    a: Session, b: Session, kind: tuple[Json, Callable[[Task], Json]]
) -> None:
    """[P4] [P12] A coordinator replays and repeats an answered request: no task runs again."""
    request, finish = kind
    task = a.held("j")
    a.advance(task.keep(requests=[request]))
    claim_and_answer(b, finish)
    (message,) = a.advance(task.park()).messages
    a.advance(task.keep(take(message)))
    before = count(a)

    again = a.stolen(task)
    assert a.advance(again.park("next", requests=[request])).state == "parked"

    assert count(a) == before
    assert b.claim("hooks") == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_repeated_request_waits_for_uncommitted_answer(
    a: Session, b: Session, kind: tuple[Json, Callable[[Task], Json]], end: str
) -> None:
    """[P4] [P5] After a rollback of the answer, the first task still exists: no second
    one appears.
    """
    request, finish = kind
    task = a.held("j")
    a.advance(task.keep(requests=[request]))
    running = b.claim_one("hooks")
    b.begin()
    b.advance(finish(running))
    assert a.advance(task.park(requests=[request])).state == "busy"
    asking = a.later(a.advance, task.park(requests=[request]), waiting=True)
    assert asking.waits()
    b.end(end)

    assert asking.get().state == ("keep" if end == "commit" else "parked")
    assert b.claim("hooks") == []


def test_answer_waits_for_uncommitted_repetition_of_its_request(
    a: Session, b: Session, kind: tuple[Json, Callable[[Task], Json]]
) -> None:
    """[P4] [P5] The answer then wakes the coordinator, and no second task appears."""
    request, finish = kind
    task = a.held("j")
    a.advance(task.keep(requests=[request]))
    running = b.claim_one("hooks")
    a.begin()
    a.advance(task.park(requests=[request]))
    assert b.advance(finish(running)).state == "busy"
    finishing = b.later(b.advance, finish(running), waiting=True)
    assert finishing.waits()
    a.commit()
    finishing.get()

    assert [m["key"] for m in a.claim_one("j").row["messages"]] == ["x#1"]
    assert b.claim("hooks") == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_hook_from_outside_with_a_key_runs_once(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P12] Two clients request it at once, and again while it runs and after it has ended."""
    a.parked("j", "end")
    a.begin()
    assert a.call("hook", id="j", name="h", key="k", queue="hooks") == "$hook/k"
    asking = b.later(b.call, "hook", id="j", name="h", key="k", queue="hooks")
    assert asking.waits()
    a.end(end)
    assert asking.get() == "$hook/k"

    running = c.claim_one("hooks")
    a.call("hook", id="j", name="h", key="k", queue="hooks")
    assert c.advance(running.done(1)).state == "done"
    a.call("hook", id="j", name="h", key="k", queue="hooks")

    assert c.claim("hooks") == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_request_for_child_waits_for_uncommitted_start_of_its_id(
    a: Session, b: Session, end: str
) -> None:
    """[P1] (E3) If that start commits, the request gets PD402; otherwise the child starts."""
    task = a.held("j")
    b.begin()
    b.start("mine", queue="mine")
    asking = a.later(a.advance, task.park(requests=[child("c#1", id="mine")]))
    assert asking.waits()
    b.end(end)

    answer = asking.get()
    if end == "rollback":
        assert answer.state == "parked"
        assert [t.job for t in b.claim("children")] == ["mine"]
    else:
        assert [(m["key"], m["payload"]["code"]) for m in answer.messages] == [("c#1", "PD402")]


def test_two_parents_that_ask_for_one_child_id_at_once_share_no_child(
    a: Session, b: Session
) -> None:
    """[P1] (E3) The first parent gets the child; the other one gets the error PD402."""
    one, two = a.held("one"), b.held("two")
    a.begin()
    assert a.advance(one.park(requests=[child("c#1", id="mine")])).state == "parked"
    asking = b.later(b.advance, two.park(requests=[child("c#1", id="mine")]))
    assert asking.waits()
    a.commit()

    (message,) = asking.get().messages
    assert message["payload"]["code"] == "PD402"
    assert a.one("select parent from jobs where id = 'mine'") == "one"


@pytest.mark.parametrize("jobs", [("j", "j"), ("one", "two")], ids=["one turn", "two turns"])
def test_one_batch_that_asks_for_a_child_id_twice_makes_one_child(
    a: Session, jobs: tuple[str, str]
) -> None:
    """[P1] (E3) The second request gets the error PD402; the rest of the batch succeeds."""
    requests = [child("c#1", id="mine"), child("c#2", id="mine")]
    if jobs[0] == jobs[1]:
        turns = [a.held("j").park(requests=requests)]
    else:
        pairs = zip(jobs, requests, strict=True)
        turns = [a.held(job).park(requests=[request]) for job, request in pairs]

    reply = a.advance_all(turns)

    codes = [m["payload"]["code"] for answer in reply.turns for m in answer.messages]
    assert codes == ["PD402"]
    assert len(a.claim("children")) == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_hook_that_answered_early_ends_while_its_answer_is_taken(
    a: Session, b: Session, end: str
) -> None:
    """[P5] What it returns is no second answer. The asker takes the first under the lock of its own
    task, so the hook does not wait.
    """
    task = a.held("j")
    a.advance(task.keep(requests=[hook("x#1", signal="ready")]))
    answering = b.claim_one("hooks")
    b.advance(answering.keep(send("ready", "early")))
    (message,) = a.advance(task.keep(awaits=[])).messages

    a.begin()
    assert a.advance(task.keep(take(message))).state == "keep"
    assert b.advance(answering.told().done("late")).state == "done"
    a.end(end)

    left = [] if end == "commit" else ["early"]
    assert [payload for (payload,) in a.run("select payload from inbox")] == left
    assert a.broken() == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "reversed"])
@pytest.mark.parametrize("kinds", BESIDE)
def test_second_answer_under_key_of_taken_one_is_dropped(
    a: Session, b: Session, kinds: str, order: tuple[int, int]
) -> None:
    """[P4] [P5] A client gave one key to requests of two kinds, and both were made."""
    both = [SAME_KEY[kind] for kind in kinds.split()]
    task = a.held("j")
    for request, _ in both:
        a.advance(task.keep(requests=[request]))

    both[order[0]][1](b)
    (message,) = a.advance(task.keep(awaits=[])).messages
    assert a.advance(task.keep(take(message))).state == "keep"
    both[order[1]][1](b)

    assert a.advance(task.told().keep(awaits=[])).messages == []
    assert a.one("select count(*) from inbox") == 0


# Many requests at once


def test_thousand_early_answers_all_reach_coordinator_that_parks_later(
    a: Session, stage: Stage
) -> None:
    """[P5] (C51) Four workers answer before it parks; it gets the answers in their order."""
    task = a.held("j")
    requests = [hook(f"h#{n}", signal=f"ready {n}") for n in range(HOOKS)]
    assert a.advance(task.keep(requests=requests)).state == "keep"

    order = []
    for number, session in enumerate(stage.sessions(4)):
        hooks = session.claim("hooks", max_tasks=HOOKS // 4)
        turns = [t.done("late", send(t.row["signal"], number), increment("n")) for t in hooks]
        assert set(session.advance_all(turns).states) == {"done"}
        order += [t.row["asker"]["key"] for t in hooks]

    kept = a.advance(task.park())
    assert kept.state == "keep"
    assert [m["key"] for m in kept.messages] == order
    assert kept.payloads == [number for number in range(4) for _ in range(HOOKS // 4)]
    assert a.memory("j") == ({"n": HOOKS}, HOOKS)
    taken = [take(message) for message in kept.messages]
    assert a.advance(task.keep(*taken)).state == "keep"
    assert a.advance(task.told(HOOKS).done()).state == "done"
    assert a.one("select count(*) from inbox") == 0


def test_jobs_that_use_same_names_get_only_their_own_messages(a: Session, b: Session) -> None:
    """[P5] (C52) Fifty jobs share the name of a signal and the key of a hook."""
    jobs = [f"j{n:02}" for n in range(JOBS)]
    a.rows("start_many", starts=[{"id": job, "workflow": "w", "queue": "q"} for job in jobs])
    parked = [task.park("ready", requests=[hook("h#1", signal="ready")]) for task in a.claim("q")]
    assert set(a.advance_all(parked).states) == {"parked"}
    hooks = b.claim("hooks", max_tasks=JOBS)
    for job in reversed(jobs[::2]):
        b.signal(job, "ready", f"outside {job}")
    assert set(b.advance_all([t.done(f"hook {t.job}") for t in hooks[::-1]]).states) == {"done"}

    messages = {task.job: task.row["messages"] for task in a.claim("q")}

    for number, job in enumerate(jobs):
        outside = [] if number % 2 else [(None, f"outside {job}")]
        expected = [*outside, ("h#1", f"hook {job}")]
        assert [(m["key"], m["payload"]) for m in messages[job]] == expected
