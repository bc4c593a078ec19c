"""The kinds of mail that a task may wait for, each with the one step that leaves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.races.sessions import Json, Session, Task, child, hook, send

NEVER = ("never",)
"""What a task awaits that only a cancel is to wake: for nothing at all it cannot park."""


@dataclass(frozen=True)
class Mail:
    """A task in the hands of one session, and what another session is about to send it."""

    task: Task
    send: Callable[[], Any]
    key: str | None
    payload: Any = "mail"
    awaits: tuple[str, ...] = ()

    @property
    def park(self) -> Json:
        """Say the turn that waits for the mail."""
        return self.task.park(*self.awaits)

    def is_in(self, messages: list[Json]) -> bool:
        """Tell whether the mail, and nothing else, has arrived."""
        return [(m["key"], m["payload"]) for m in messages] == [(self.key, self.payload)]

    def state(self, session: Session) -> str | None:
        """Tell whether the task is held, ready or parked."""
        return session.state(self.task.job, self.task.task)

    def claim(self, session: Session) -> list[Task]:
        """Claim the task, if it is due."""
        return session.claim(self.task.row["queue"])


def signal(a: Session, b: Session) -> Mail:
    """A client sends a signal."""
    return Mail(a.held("j"), lambda: b.signal("j", "go", "mail"), None, awaits=("go",))


def signal_of_a_job(a: Session, b: Session) -> Mail:
    """A task of another job sends a signal: both jobs are locked."""
    turn = b.held("a sender").keep(send("go", "mail", target="j"))
    return Mail(a.held("j"), lambda: b.advance(turn, waiting=True), None, awaits=("go",))


def answer(a: Session, b: Session) -> Mail:
    """A hook returns."""
    task = a.held("j")
    a.advance(task.keep(requests=[hook("h#1")]))
    turn = b.claim_one("hooks").done("mail")
    return Mail(task, lambda: b.advance(turn, waiting=True), "h#1")


def early_answer(a: Session, b: Session) -> Mail:
    """A hook signals under the name that its asker gave it, and works on."""
    task = a.held("j")
    a.advance(task.keep(requests=[hook("h#1", signal="ready")]))
    turn = b.claim_one("hooks").keep(send("ready", "mail"))
    return Mail(task, lambda: b.advance(turn, waiting=True), "h#1")


def answer_of_a_child(a: Session, b: Session) -> Mail:
    """A child ends: its own job and the asker's are locked."""
    task = a.held("j")
    a.advance(task.keep(requests=[child("c#1")]))
    turn = b.claim_one("children").done("mail", touches=["j"])
    return Mail(task, lambda: b.advance(turn, waiting=True), "c#1")


def end_of_a_child(a: Session, b: Session) -> Mail:
    """A child is terminated from outside."""
    task = a.held("j")
    a.advance(task.keep(requests=[child("c#1")]))
    failure = {
        "code": "PD602",
        "type": "Terminated",
        "message": "enough",
        "detail": "It was ended from outside, without cleaning up.",
        "hint": "Start a new job.",
    }
    return Mail(
        task, lambda: b.call("terminate", id="j/c#1", reason="enough"), "c#1", payload=failure
    )


def cancel(a: Session, b: Session) -> Mail:
    """Somebody asks the job to cancel."""
    task = a.held("j")
    return Mail(task, lambda: b.call("cancel", id="j", reason="mail"), "$cancel", awaits=NEVER)


def cancel_of_a_hook(a: Session, b: Session) -> Mail:
    """A coordinator asks its hook to cancel."""
    coordinator = b.held("j")
    b.advance(coordinator.keep(requests=[hook("h#1")]))
    turn = coordinator.keep(cancels=["h#1"])
    task = a.claim_one("hooks")
    return Mail(task, lambda: b.advance(turn, waiting=True), "$cancel", None, NEVER)


def cancel_of_a_child(a: Session, b: Session) -> Mail:
    """A coordinator asks its child to cancel: both jobs are locked."""
    coordinator = b.held("j")
    b.advance(coordinator.keep(requests=[child("c#1")]))
    turn = coordinator.keep(cancels=["c#1"])
    task = a.claim_one("children")
    return Mail(task, lambda: b.advance(turn, waiting=True), "$cancel", None, NEVER)


MAILS = (
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
