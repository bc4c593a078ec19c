"""A reply is lost and the call is repeated: it gets an answer again, and nothing is done twice.

[P12]
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import psycopg
import pytest

from tests.races.sessions import (
    Json,
    Session,
    Task,
    activity,
    child,
    command,
    hook,
    increment,
    send,
    take,
)

FAILURE = {"type": "ValueError", "message": "no"}

# A turn, the state that it gets, and the state that its repetition gets.
TURNS: dict[str, tuple[Callable[[Task], Json], str, str]] = {
    "keep": (lambda t: t.keep(), "keep", "keep"),
    "keep with facts": (lambda t: t.keep(activity("x#1", 1), activity("x#2", 2)), "keep", "keep"),
    "keep with requests": (lambda t: t.keep(requests=[hook("h#1"), child("c#1")]), "keep", "keep"),
    "keep with all": (
        lambda t: t.keep(increment("n"), activity("x#1"), requests=[hook("h#1")]),
        "keep",
        "keep",
    ),
    "park": (lambda t: t.park("go"), "parked", "parked"),
    "park with facts": (lambda t: t.park("go", facts=[activity("x#1")]), "parked", "parked"),
    "park with requests": (lambda t: t.park(requests=[hook("h#1")]), "parked", "parked"),
    "park with a deadline": (lambda t: t.park(until="2100-01-01Z"), "parked", "parked"),
    "done": (lambda t: t.done({"ok": 1}), "done", "gone"),
    "done with facts": (lambda t: t.done(1, command("set", "n", 1)), "done", "gone"),
    "failed": (lambda t: t.turn("failed", value=FAILURE), "failed", "gone"),
    "cancelled": (lambda t: t.turn("cancelled", value=FAILURE), "cancelled", "gone"),
    "retry": (lambda t: t.turn("retry", value=FAILURE, until="2100-01-01Z"), "retry", "parked"),
    "continue": (lambda t: t.turn("continue", value=[2]), "continue", "gone"),
    "continue with facts": (
        lambda t: t.turn(
            "continue", increment("n"), value=[2], failure=FAILURE, until="2100-01-01Z"
        ),
        "continue",
        "gone",
    ),
    "stuck": (lambda t: t.turn("stuck", value={"message": "?"}), "stuck", "parked"),
    "release": (lambda t: t.turn("release"), "released", "parked"),
}


@pytest.mark.parametrize("name", TURNS)
def test_a_repeated_turn_changes_nothing(a: Session, b: Session, name: str) -> None:
    """[P12] [P2] Repeated on another connection, it changes no row of any table."""
    turn, first_state, second_state = TURNS[name]
    task = a.held("j")
    assert a.advance(turn(task)).state == first_state
    before = a.everything()

    assert b.advance(turn(task)).state == second_state
    assert b.advance(turn(task), waiting=True).state == second_state

    assert a.everything() == before


def test_repeated_turn_gets_same_answers_to_its_commands(a: Session, b: Session) -> None:
    """[P2] [P12] (C4) Also for refused commands, reads and signals, whatever has happened since."""
    task = a.held("j", context={"list": [1]})
    turn = task.keep(
        increment("n", 5),
        activity("step#1", "done"),
        command("append", "n", [1]),  # refused: n is a number
        command("get", "n"),
        command("append", "list", [2, 3]),
        send("hello", 1),
        command("merge", "", {"deep": {"er": 1}}),
    )
    first = a.advance(turn)
    assert [ok for _, ok, _ in first.answers] == [True, False, True, True, True, True]
    assert first.values[0] == 5
    assert first.values[2:4] == [5, 3]
    b.call("entity_increment", id="j", path="n", by=100)

    again = b.advance(turn)

    assert again.state == "keep"
    assert again.answers == first.answers
    assert a.memory("j") == ({"n": 105, "list": [1, 2, 3], "deep": {"er": 1}}, 5)
    assert a.one("select count(*) from inbox") == 1


def test_repeated_turn_gets_messages_that_have_arrived_since(a: Session, b: Session) -> None:
    """[P5] [P12] The first reply had no message."""
    task = a.held("j")
    turn = task.keep(activity("x#1"), awaits=["go"])
    assert a.advance(turn).messages == []
    b.signal("j", "go", 1)

    assert a.advance(turn).payloads == [1]


def test_repeated_park_that_found_message_finds_it_again(a: Session, b: Session) -> None:
    """[P5] [P12] With facts and without, until the message is consumed."""
    task = a.held("j")
    b.signal("j", "go", 1)
    for turn in (task.park("go"), task.park("go", facts=[activity("x#1")])):
        first = a.advance(turn)
        assert (first.state, first.payloads) == ("keep", [1])
        assert b.advance(turn) == first
    (message,) = first.messages
    parked = task.told(1).park("go", facts=[take(message)])
    assert a.advance(parked).state == "parked"
    assert b.advance(parked).state == "parked"
    assert a.one("select count(*) from journal where kind = 'signal'") == 1


def test_a_repeated_turn_that_took_a_message_is_not_stale(a: Session, b: Session) -> None:
    """[P5] [P12] The message was consumed by this same turn."""
    task = a.held("j")
    b.signal("j", "go", 1)
    (message,) = a.advance(task.park("go")).messages
    turn = task.keep(take(message))

    assert a.advance(turn).state == "keep"
    assert b.advance(turn).state == "keep"


def test_repeated_turn_may_give_messages_other_keys_than_their_own(a: Session, b: Session) -> None:
    """[P12] (I19) The journal has the keys of the messages, whatever the facts say."""
    task = a.held("j")
    a.advance(task.keep(requests=[hook("h#1")]))
    b.advance(b.claim_one("hooks").done())
    b.call("cancel", id="j")
    messages = a.advance(task.keep(awaits=[])).messages
    turn = task.keep(*({**take(each), "key": f"mine#{each['id']}"} for each in messages))

    assert a.advance(turn).state == "keep"
    assert b.advance(turn).state == "keep"

    assert a.run("select key from journal where kind <> 'end' order by seq") == [
        ("h#1",),
        ("$cancel",),
    ]
    assert a.broken() == []


def test_turn_that_takes_open_message_is_no_repetition(a: Session, b: Session) -> None:
    """[P5] [P12] Its holder has lost count. If it gives no key, only the message shows that."""
    task = a.held("j")
    b.signal("j", "go", 1)
    b.signal("j", "go", 2)
    first, second = a.advance(task.park("go")).messages
    assert a.advance(task.keep({"message": first["id"]})).state == "keep"

    assert b.advance(task.keep({"message": second["id"]})).state == "refused"
    assert b.advance(task.told().keep({"message": second["id"]})).state == "keep"


def test_earlier_turn_that_arrives_late_gets_its_first_answers(a: Session, b: Session) -> None:
    """[P12] A duplicate is delivered after the next turn of its lease, and changes nothing."""
    task = a.held("j")
    early = task.keep(increment("n"))
    first = a.advance(early)
    a.advance(task.told().keep(increment("n"), activity("x#1")))
    before = a.everything()

    late = b.advance(early)

    assert late.state == "keep"
    assert late.answers[:1] == first.answers
    assert a.everything() == before


def test_repeated_batch_gets_same_answer_to_each_turn(a: Session, b: Session) -> None:
    """[P12] The signals between its jobs are not sent again."""
    one, two, three, four = (a.held(job) for job in ("j1", "j2", "j3", "j4"))
    turns = [
        one.keep(increment("n"), send("go", 1, target="j2")),
        two.park("go", facts=[activity("x#1")]),
        three.park("go", requests=[hook("h#1")]),
        four.done(4, send("go", 4, target="j3")),
    ]
    first = a.advance_all(turns)
    assert first.states == ["keep", "keep", "keep", "done"]
    assert [answer.payloads for answer in first.turns] == [[], [1], [4], []]
    before = a.everything()

    again = b.advance_all(turns)

    assert again.states == ["keep", "keep", "keep", "gone"]
    assert [answer.payloads for answer in again.turns] == [[], [1], [4], []]
    assert again.turns[0].answers == first.turns[0].answers
    assert a.everything() == before


# Claims


def summary(tasks: list[Task]) -> list[tuple[str, str, str, int]]:
    """Give what was claimed, in order of job."""
    return sorted((task.job, task.task, task.token, task.row["deliveries"]) for task in tasks)


def test_a_repeated_claim_gives_the_same_tasks_and_counts_no_delivery(
    a: Session, b: Session
) -> None:
    """[P12] [P6] It is repeated on another connection."""
    for number in range(5):
        a.start(f"j{number}", queue="q")
    claim_id = uuid.uuid4()
    first = a.claim("q", max_tasks=3, claim_id=claim_id)
    before = a.everything()

    again = b.claim("q", max_tasks=3, claim_id=claim_id, again=True)

    assert summary(again) == summary(first)
    assert len(first) == 3
    assert {task.row["deliveries"] for task in again} == {1}
    assert a.everything() == before


def test_repeated_claim_returns_journal_and_messages_again(a: Session, b: Session) -> None:
    """[P12] The first reply may never have arrived, so the worker has neither."""
    a.parked("j", "go", facts=[activity("x#1", 7)])
    a.signal("j", "go", 1)
    claim_id = uuid.uuid4()
    a.claim("j", claim_id=claim_id)

    again = b.claim_one("j", claim_id=claim_id, again=True)

    assert again.messages == [1]
    assert [row[1] for row in again.row["journal"]] == ["activity"]


def test_repeated_claim_claims_if_first_was_rolled_back(a: Session, b: Session) -> None:
    """[P12] One delivery is counted."""
    a.start("j")
    claim_id = uuid.uuid4()
    with a.open("rollback"):
        a.claim_one("j", claim_id=claim_id)

    task = b.claim_one("j", claim_id=claim_id, again=True)

    assert task.row["deliveries"] == 1
    assert b.advance(task.done()).state == "done"


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_claim_repeated_while_first_is_uncommitted_loses_no_task(
    a: Session, b: Session, end: str
) -> None:
    """[P12] [P6] It claims other tasks; a third call returns all tasks of this claim."""
    for number in range(4):
        a.start(f"j{number}", queue="q")
    claim_id = uuid.uuid4()
    a.begin()
    first = a.claim("q", max_tasks=2, claim_id=claim_id)

    second = b.claim("q", max_tasks=2, claim_id=claim_id, again=True)

    assert not {task.job for task in first} & {task.job for task in second}
    a.end(end)
    third = b.claim("q", max_tasks=4, claim_id=claim_id, again=True)
    assert summary(third) == summary(first + second if end == "commit" else second)
    assert len(b.claim("q")) == (0 if end == "commit" else 2)


def test_repeated_advance_returns_tasks_of_its_claim_again(a: Session, b: Session) -> None:
    """[P12] Ended turns are gone, kept turns are kept, and the claim returns the same tasks."""
    for number in range(6):
        a.start(f"j{number}", queue="q")
    first, second, *_ = a.claim("q", max_tasks=2)
    turns = [first.done(1), second.keep(increment("n"))]
    options = {"queues": ["q"], "max_tasks": 3, "claim_id": uuid.uuid4()}
    reply = a.advance_all(turns, **options)
    assert (reply.states, len(reply.tasks)) == (["done", "keep"], 3)
    before = a.everything()

    again = b.advance_all(turns, **options, again=True)

    assert again.states == ["gone", "keep"]
    assert again.turns[1].answers == reply.turns[1].answers
    assert summary(again.tasks) == summary(reply.tasks)
    assert a.everything() == before


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_advance_repeated_while_first_is_uncommitted_waits_for_it(
    a: Session, b: Session, end: str
) -> None:
    """[P12] It waits for the turns, then finds the claim of the first call or makes it."""
    for number in range(3):
        a.start(f"j{number}", queue="q")
    (task,) = a.claim("q", max_tasks=1)
    turns = [task.keep(increment("n"))]
    options = {"queues": ["q"], "max_tasks": 2, "claim_id": uuid.uuid4()}
    a.begin()
    reply = a.advance_all(turns, **options)
    repeating = b.later(b.advance_all, turns, **options, again=True, waiting=True)
    assert repeating.waits()
    a.end(end)

    again = repeating.get()

    assert (reply.turns[0].state, reply.turns[0].values) == ("keep", [1])
    assert again.turns == reply.turns
    assert {(t.job, t.row["deliveries"]) for t in again.tasks} == {("j1", 1), ("j2", 1)}
    assert a.memory(task.job) == ({"n": 1}, 1)
    assert a.claim("q") == []


# Verbs of clients

VERBS: dict[str, tuple[str, dict[str, object], object, object]] = {
    "start": ("start", {"workflow": "w", "id": "new", "key": "k"}, ("new", True), ("new", False)),
    "hook": ("hook", {"id": "j", "name": "h", "key": "k"}, "$hook/k", "$hook/k"),
    "signal": ("signal", {"id": "j", "name": "s", "key": "k"}, True, False),
    "cancel": ("cancel", {"id": "j"}, True, False),
    "terminate": ("terminate", {"id": "j"}, True, False),
    "resume": ("resume", {"id": "stuck"}, 1, 0),
    "increment": ("entity_increment", {"id": "j", "path": "n", "key": "k"}, 1, 1),
    "merge": ("entity_merge", {"id": "j", "patch": {"a": 1}, "key": "k"}, 1, 1),
}


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("verb", VERBS)
def test_verb_repeated_while_first_is_uncommitted_acts_once(
    a: Session, b: Session, c: Session, verb: str, end: str
) -> None:
    """[P12] [P1] [P2] [P5] It waits for the lock, and then knows whether the first committed."""
    c.held("j")
    c.advance(c.held("stuck").turn("stuck", value={"message": "?"}))
    function, arguments, first_answer, second_answer = VERBS[verb]

    def call(session: Session) -> object:
        rows = session.rows(function, **arguments)
        return rows[0] if len(rows[0]) > 1 else rows[0][0]

    a.begin()
    assert call(a) == first_answer
    once = counts(a)
    repeating = b.later(call, b)
    assert repeating.waits()
    a.end(end)

    assert repeating.get() == (second_answer if end == "commit" else first_answer)
    assert counts(c) == once


def counts(session: Session) -> list[tuple[object, ...]]:
    """Give all jobs with the numbers of their tasks, facts and messages."""
    return session.run(
        """select j.id, j.context, j.version, j.status,
                  (select count(*) from tasks as t where t.job_id = j.id),
                  (select count(*) from journal as f where f.job_id = j.id),
                  (select count(*) from inbox as i where i.job_id = j.id)
             from jobs as j order by j.id"""
    )


def test_key_repeated_with_another_command_is_refused(a: Session, b: Session) -> None:
    """[P2] It gets PD106, and changes nothing."""
    a.held("j")
    a.call("entity_increment", id="j", path="n", key="k")

    with pytest.raises(psycopg.Error) as refused:
        b.call("entity_increment", id="j", path="m", key="k")

    assert refused.value.sqlstate == "PD106"
    assert a.memory("j") == ({"n": 1}, 1)
