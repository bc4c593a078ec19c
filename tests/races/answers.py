"""Calls on a coordinator and its answers, for races of any two of them.

An answer is taken under the lock of the task alone (a flush). So its way from the inbox to the
journal meets calls that hold the lock of the job. [P4] [P5]
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

from tests.races.sessions import Json, Session, Task, activity, hook, item, send, take, until
from tests.races.test_pairs import Mutator, send_turn, verb

_numbers = count(1)


@dataclass(frozen=True)
class Cast:
    """A job whose coordinator has two open answers."""

    job: str
    main: Task  # the coordinator; held
    early: Task  # held; it has answered early, and goes on
    other: Task  # held; it has not answered
    messages: list[Json]  # the answers of the early hook and of people


def requests(queue: str) -> list[Json]:
    """Make the requests of the coordinator."""
    early = hook("early#1", queue, signal="ready")
    return [early, hook("other#1", queue), item("i#1"), until("$.n > 0", "u#1")]


def cast(session: Session) -> Cast:
    """Start a job that has asked for four things, and has the answers to two of them."""
    job = f"asker {next(_numbers):06}"
    session.start(job, context={"n": 0})
    main = session.claim_one(job)
    session.advance(main.keep(requests=requests(job)))
    early, other = sorted(session.claim(job), key=lambda task: task.task)
    session.advance(early.keep(send("ready", "early")))
    session.resolve(session.item_of(job))
    messages = session.advance(main.keep(awaits=[])).messages
    return Cast(job, main, early.told(), other, messages)


def turn_with_answers(state: str, *facts: Json, asks: bool = False) -> Any:
    """Make a function that sends a turn of the coordinator which takes its answers."""

    def turn(session: Session, actors: Cast) -> Any:
        more = {"requests": requests(actors.job)} if asks else {}
        taken = [take(message) for message in actors.messages]
        return session.advance(actors.main.turn(state, *facts, *taken, **more), waiting=True)

    return turn


def ask_again(session: Session, actors: Cast) -> Any:
    """Repeat the requests, as the next holder would after a crash."""
    return session.advance(actors.main.keep(requests=requests(actors.job)), waiting=True)


def fork(session: Session, actors: Cast) -> Any:
    """Fork the job where it is."""
    return session.one("select (fork(%s, %s)).is_new", actors.job, f"{actors.job}/fork")


MUTATORS: dict[str, Mutator] = {
    "take": Mutator(turn_with_answers("keep"), locks=False),
    "take later": Mutator(turn_with_answers("keep", activity("x#1")), locks=False),
    "take and ask again": Mutator(turn_with_answers("keep", asks=True)),
    "take and park": Mutator(turn_with_answers("park")),
    "take and end": Mutator(turn_with_answers("done")),
    "take and continue": Mutator(turn_with_answers("continue")),
    "ask again": Mutator(ask_again),
    "park": Mutator(send_turn("main", "park")),
    "withdraw": Mutator(send_turn("main", "keep", cancels=["early#1", "other#1", "u#1"])),
    "signal of the early hook": Mutator(send_turn("early", "keep", send("ready", "again"))),
    "end of the early hook": Mutator(send_turn("early", "done", value="late")),
    "failure of the early hook": Mutator(send_turn("early", "failed", value={"message": "no"})),
    "answer of the other hook": Mutator(send_turn("other", "done", value="other")),
    "write": Mutator(verb("entity_set", path="n", value=1)),
    "cancel": Mutator(verb("cancel", reason="enough")),
    "terminate": Mutator(verb("terminate", reason="now")),
    "retry by hand": Mutator(verb("retry")),
    "fork": Mutator(fork),
    "repin": Mutator(verb("repin", version="2")),
    "release": Mutator(lambda session, actors: session.release(actors.main), locks=False),
}
