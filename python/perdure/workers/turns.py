"""A turn: one claim-to-park of a task, as the worker holds it.

Coordinators, hooks and dispatched activities are kinds of turns. The committer sends what they
report and brings the answers.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from traceback import print_exc
from typing import TYPE_CHECKING, Any

from perdure.basics.durations import from_iso, to_iso
from perdure.errors import PerdureError, from_failure
from perdure.failures import failure_of, place_of
from perdure.replay.replay import Fact, OpenOperation
from perdure.workflow.context import Info, info_of
from perdure.workflow.operations import Operation
from perdure.workflow.progress import MAX_BYTES, MAX_SEALED, Progress

from .inbox import InboxSnapshot, snapshot

if TYPE_CHECKING:
    from .engine import Engine

Json = dict[str, Any]

logger = logging.getLogger("perdure.worker")

MAX_TOLD = 1000
"""Number of letters of a failure in a line of the log."""

ENDED = frozenset({"done", "failed", "cancelled"})
"""States of a turn that end the task and answer its asker."""

DROPPED = ENDED | {"fenced", "gone", "parked", "retry", "stuck", "released", "continue"}
"""Answers after which the task is no longer held here. A turn that gave it up is answered `parked`
if it is repeated after a lost reply."""

CANCEL = "$cancel"
"""The key of the message that asks a task to cancel."""


class Turn(ABC):
    """A task that this worker holds.

    `position` is the number of journal rows that the database is known to have, `asked_before` how
    much it is known to have been asked for: a worker that knows more than the database is fenced.
    `queued`, `in_flight` and `asked_at` belong to the committer: waiting to be sent, sent but not
    answered, since when. `asked_for` names the signals that the answer will cover. `is_hinted`:
    a message has come since.
    """

    kind: str
    takes_messages = False
    """Whether messages may arrive for it while it is held, and be noticed at once."""
    tasks: Collection[asyncio.Task[Any]] = ()
    """What runs for it in the loop besides attempts."""

    def __init__(self, engine: Engine, row: Json):
        self.engine = engine
        self.row = row
        self.job: str = row["job"]
        self.task: str = row["task"]
        self.place = self.job, self.task
        self.token: str = row["token"]
        self.position: int = row["position"]
        self.asked_before: int = row["asked"]
        self._asks = 0
        self.queued = False
        self.in_flight = False
        self.asked_at = 0
        self.asked_for: frozenset[str] = frozenset()
        self.is_hinted = self.is_over = False
        self._answer_waiters: list[asyncio.Future[None]] = []
        self.progress = Progress(row["progress"], MAX_SEALED if "guard" in row else MAX_BYTES)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.row['name']} of {self.job}, task {self.task}>"

    def info(self) -> Info:
        """Return what `info()` tells user code."""
        return info_of(self.row, self.kind)

    def lease(self) -> Json:
        """Name the lease, for heartbeats and releases."""
        return {"job": self.job, "task": self.task, "token": self.token}

    def body(self, state: str, **more: Any) -> Json:
        """Return a turn for advance(), with what is not None."""
        given = {name: value for name, value in more.items() if value is not None}
        asker = self.row["asker"]
        if asker is not None and asker["job"] != self.job and state in ENDED:
            given["touches"] = [asker["job"]]
        self._asks = given.get("asked", 0)
        return {
            "job": self.job,
            "task": self.task,
            "token": self.token,
            "position": self.position,
            "asked_before": self.asked_before,
            "state": state,
        } | given

    def ask_for(self, signals: Iterable[str]) -> list[str]:
        """Name the signals that a turn asks for, each once."""
        names = list(dict.fromkeys(signals))
        self.asked_for = frozenset(names)
        return names

    def inbox_of(self, answer: Json, taken: set[Any]) -> InboxSnapshot:
        """Return the messages of an answer, without what was taken and is not recorded yet."""
        inbox = snapshot(answer.get("messages") or [], self.asked_at, self.asked_for)
        if not inbox.messages:
            return inbox
        return inbox._replace(messages=[each for each in inbox.messages if each["id"] not in taken])

    def applied(self, position: int) -> None:
        """Note that the database has what was sent; the journal is as long as this now."""
        self.position = position
        self.asked_before = max(self.asked_before, self._asks)

    def submit(self) -> None:
        """Let the committer call `build()` as soon as it can send."""
        self.engine.committer.submit(self)

    async def until_answered(self) -> None:
        """Wait until what is on its way was answered; the next turn may be on its way then."""
        waiter: asyncio.Future[None] = self.engine.loop.create_future()
        self._answer_waiters.append(waiter)
        await waiter

    def clear_in_flight(self) -> None:
        """Note that nothing of it is on its way."""
        self.in_flight = False
        waiters, self._answer_waiters = self._answer_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def take_back(self) -> None:
        """Continue as if the last turn had never been sent: its transaction was rolled back."""
        self.clear_in_flight()

    @abstractmethod
    def begin(self) -> None:
        """Start to work on the claimed task."""

    @abstractmethod
    def build(self) -> Json:
        """Return all that has accumulated, for advance()."""

    @abstractmethod
    def answered(self, answer: Json) -> None:
        """Take the answer to what was built at `asked_at`."""

    def check_inbox(self) -> None:  # noqa: B027 - not all that runs can be interrupted
        """Look into the inbox soon: a heartbeat was answered that the task is to cancel."""

    def take_hint(self) -> None:
        """Look into the inbox: something has come. What is on its way may have looked before."""
        self.is_hinted = self.takes_messages and self.in_flight
        if self.takes_messages and not self.in_flight:
            self.check_inbox()

    def drop(self) -> None:
        """End at once, without any further effect: the task is not held any more."""
        self.over()

    def give_up(self, error: Exception) -> None:
        """Leave the task to the worker that claims it when its lease has ended."""
        logger.error("%r cannot continue here; its lease will end: %s", self, error)
        self.clear_in_flight()
        self.drop()

    def drain(self) -> None:  # noqa: B027 - most end, or park, by themselves
        """Come to a place where the task can be given back: the worker stops."""

    def error_body(self, error: BaseException) -> Json:
        """Return a turn that parks the task with an error, since this one cannot be taken."""
        return self.body("stuck", value=reason_of(error))

    def over(self) -> None:
        """Tell the engine that the task is not held any more."""
        if not self.is_over:
            self.is_over = True
            self.engine.forget(self)


def log_failure(turn: Turn, what: str, failure: Json, again: str | None = None) -> None:
    """Log how work has failed, where, and when it is tried again; its traceback at DEBUG."""
    level = logging.WARNING if again is None else logging.INFO
    told = f"{failure.get('type')}: {failure.get('message')}"[:MAX_TOLD]
    place = place_of(failure)
    told += (f" ({place})" if place else "") + (f"; {again}" if again else "")
    # A detail may quote a value, and nobody reads those of an app with a codec without its keys.
    more = ("detail", "hint") if turn.engine.app.codec is None else ("hint",)
    told += "".join(f"\n{name}: {failure[name]}" for name in more if name in failure)
    try:
        logger.log(level, "%s of %r has failed: %s", what, turn, told)
        if failure.get("traceback"):
            logger.debug("%s", failure["traceback"])
    except Exception:  # noqa: BLE001 - of a handler or filter of the user: the work has to go on
        print_exc()


def reason_of(error: BaseException) -> Json:
    """Describe why a task is stuck: `{"code", "type", "message", "detail", …}`."""
    return {"code": getattr(error, "code", None), **failure_of(error)}


def refusal(answer: Json) -> PerdureError:
    """Return the error of a turn that was refused as a whole."""
    said = {"message": f"the turn was answered {answer['state']}"}
    return from_failure(said | (answer.get("error") or {}))


def facts_of(rows: list[list[Any]]) -> list[Fact]:
    """Read the rows of a journal."""
    return [
        Fact(kind, key, ok, value, from_iso(at), name, fingerprint, op, path and tuple(path))
        for _, kind, key, name, fingerprint, ok, value, at, op, path in rows
    ]


def command_body(asked: Operation | OpenOperation, key: str, at: int) -> Json:
    """Write a command, read or send for advance(), which returns its answer."""
    body: Json = {"kind": asked.kind, "key": key, "name": asked.name, "at": to_iso(at)} | asked.spec
    return body if asked.fingerprint is None else body | {"fingerprint": asked.fingerprint}


def fact_body(fact: Fact) -> Json:
    """Write a fact for advance(); one that consumes a message takes its value from the inbox."""
    body: Json = {"kind": fact.kind, "key": fact.key, "at": to_iso(fact.at)}
    if fact.name is not None:
        body["name"] = fact.name
    if fact.fingerprint is not None:
        body["fingerprint"] = fact.fingerprint
    if not fact.ok:
        body["ok"] = False
    if fact.extra is not None:
        body["message"] = fact.extra
    elif fact.value is not None:
        body["value"] = fact.value
    return body
