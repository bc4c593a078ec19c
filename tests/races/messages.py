"""The kinds of messages that a task may wait for, each with the one step that sends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.races.sessions import Json, Session, Task, child, hook, send

NEVER = ("never",)
"""The signal that a task awaits until it is cancelled; it could not park without awaiting one."""


@dataclass(frozen=True)
class Incoming:
    """A task held by one session, and the message that another session is about to send to it."""

    task: Task
    send: Callable[[], Any]
    key: str | None
    payload: Any = "hello"
    awaits: tuple[str, ...] = ()

    @property
    def park(self) -> Json:
        """Give the turn that waits for the message."""
        return self.task.park(*self.awaits)

    def is_all_of(self, messages: list[Json]) -> bool:
        """Tell whether this message, and no other, has arrived."""
        return [(m["key"], m["payload"]) for m in messages] == [(self.key, self.payload)]

    def state(self, session: Session) -> str | None:
        """Give the state of the task: held, ready or parked; None when it is gone."""
        return session.state(self.task.job, self.task.task)

    def claim(self, session: Session) -> list[Task]:
        """Claim the task, if it is due."""
        return session.claim(self.task.row["queue"])


def signal(a: Session, b: Session) -> Incoming:
    """A client sends a signal."""
    return Incoming(a.held("j"), lambda: b.signal("j", "go", "hello"), None, awaits=("go",))


def signal_of_a_job(a: Session, b: Session) -> Incoming:
    """A task of another job sends a signal; both jobs are locked."""
    turn = b.held("a sender").keep(send("go", "hello", target="j"))
    return Incoming(a.held("j"), lambda: b.advance(turn, waiting=True), None, awaits=("go",))


def answer(a: Session, b: Session) -> Incoming:
    """A hook returns."""
    task = a.held("j")
    a.advance(task.keep(requests=[hook("h#1")]))
    turn = b.claim_one("hooks").done("hello")
    return Incoming(task, lambda: b.advance(turn, waiting=True), "h#1")


def early_answer(a: Session, b: Session) -> Incoming:
    """A hook signals under the name that its asker gave it, and goes on."""
    task = a.held("j")
    a.advance(task.keep(requests=[hook("h#1", signal="ready")]))
    turn = b.claim_one("hooks").keep(send("ready", "hello"))
    return Incoming(task, lambda: b.advance(turn, waiting=True), "h#1")


def answer_of_a_child(a: Session, b: Session) -> Incoming:
    """A child ends; its own job and that of its asker are locked."""
    task = a.held("j")
    a.advance(task.keep(requests=[child("c#1")]))
    turn = b.claim_one("children").done("hello", touches=["j"])
    return Incoming(task, lambda: b.advance(turn, waiting=True), "c#1")


def end_of_a_child(a: Session, b: Session) -> Incoming:
    """A client terminates a child."""
    task = a.held("j")
    a.advance(task.keep(requests=[child("c#1")]))
    failure = {
        "code": "PD602",
        "type": "Terminated",
        "message": "enough",
        "detail": "It was ended from outside, without cleaning up.",
        "hint": "Start a new job.",
    }
    return Incoming(
        task, lambda: b.call("terminate", id="j/c#1", reason="enough"), "c#1", payload=failure
    )


def cancel(a: Session, b: Session) -> Incoming:
    """A client asks the job to cancel."""
    task = a.held("j")
    return Incoming(task, lambda: b.call("cancel", id="j", reason="hello"), "$cancel", awaits=NEVER)


def cancel_of_a_hook(a: Session, b: Session) -> Incoming:
    """A coordinator asks its hook to cancel."""
    coordinator = b.held("j")
    b.advance(coordinator.keep(requests=[hook("h#1")]))
    turn = coordinator.keep(cancels=["h#1"])
    task = a.claim_one("hooks")
    return Incoming(task, lambda: b.advance(turn, waiting=True), "$cancel", None, NEVER)


def cancel_of_a_child(a: Session, b: Session) -> Incoming:
    """A coordinator asks its child to cancel; both jobs are locked."""
    coordinator = b.held("j")
    b.advance(coordinator.keep(requests=[child("c#1")]))
    turn = coordinator.keep(cancels=["c#1"])
    task = a.claim_one("children")
    return Incoming(task, lambda: b.advance(turn, waiting=True), "$cancel", None, NEVER)


KINDS = (
    signal,
    signal_of_a_job,
    answer,
    early_answer,
    answer_of_a_child,
    end_of_a_child,
    cancel,
    cancel_of_a_hook,
    cancel_of_a_child,
)
