"""Hints meet the transactions of those who write: told with the commit, or found by the next look.

A listener says for what it listens, and looks after that has been committed. Whoever writes looks
for listeners, and commits later. The orders of these five steps are played one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import NamedTuple

import pytest

from tests.races.mail import MAILS, Mail
from tests.races.sessions import PATIENCE, Session, Stage
from tests.races.theatre import Theatre, shut

pytestmark = pytest.mark.direct("it listens")

WORKER = ("asks", "is known", "looks")
WRITER = ("writes", "commits")
ORDERS = [
    tuple(next(writer if place in places else worker) for place in range(5))
    for places in combinations(range(5), 2)
    for writer, worker in [(iter(WRITER), iter(WORKER))]
]


class Ear:
    """A connection that listens, and hears in the order of the commits."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._channel = session.call("channel")
        session.run(f'listen "{self._channel}"')

    def heard(self) -> list[str]:
        """Give the hints since the last time: all that were committed before this."""
        self._session.run("select pg_notify(%s, 'that was all')", self._channel)
        hints: list[str] = []
        for notice in self._session.connection.notifies(timeout=PATIENCE):
            if notice.payload == "that was all":
                return hints
            hints.append(notice.payload)
        raise AssertionError("the server does not tell")

    def close(self) -> None:
        """Listen no more: others use the connection again."""
        self._session.run("unlisten *")


@pytest.fixture
def ear(c: Session) -> Iterator[Ear]:
    """Listen with the third session."""
    ear = Ear(c)
    yield ear
    ear.close()


@pytest.mark.parametrize("kind", MAILS, ids=lambda kind: kind.__name__)
def test_whoever_holds_a_task_is_told_of_mail_that_commits(
    a: Session, b: Session, ear: Ear, kind: Callable[[Session, Session], Mail]
) -> None:
    """[P5] [P11]: and of none that is taken back, nor before anybody can see it."""
    mail = kind(a, b)
    a.claim("nothing", idle=True)
    with b.open("rollback"):
        mail.send()
        assert ear.heard() == []
    assert ear.heard() == []
    assert a.advance(mail.task.keep(awaits=list(mail.awaits))).messages == []

    with b.open():
        mail.send()
        assert ear.heard() == []
    assert ear.heard() == ["$mail/a"]
    assert mail.is_in(a.advance(mail.task.keep(awaits=list(mail.awaits))).messages)


def test_nobody_else_is_told_of_mail_for_a_held_task(
    a: Session, b: Session, ear: Ear, stage: Stage
) -> None:
    """[P11]: nor is the holder any more, once another worker has taken the task."""
    task = a.held("j")
    for worker in (a, stage.session("d")):
        worker.claim("nothing", idle=True)
    b.signal("j", "go")
    assert ear.heard() == ["$mail/a"]

    b.stolen(task)
    b.signal("j", "go")
    assert ear.heard() == []


class Told(NamedTuple):
    """What a listener waits for: how it asks for hints, what comes, and whether a look finds it."""

    topic: str
    ask: Callable[[], object]
    write: Callable[[], object]
    look: Callable[[], bool]


def of_a_signal(a: Session, b: Session) -> Told:
    """A worker waits for mail of a task that it holds."""
    task = a.held("j")
    return Told(
        "$mail/a",
        lambda: a.claim("nothing", idle=True),
        lambda: b.signal("j", "go"),
        lambda: bool(a.advance(task.keep(awaits=["go"])).messages),
    )


def of_a_hook(a: Session, b: Session) -> Told:
    """A client waits for the result of a hook that nobody else awaits."""
    hook = asked_hook(a, b)
    return Told(
        "$job/j",
        lambda: a.call("listen_for", topic="$job/j", listener="a"),
        lambda: b.call("finish_task", **hook, value="done"),
        lambda: result(a)[0] != "running",
    )


@pytest.mark.parametrize("order", ORDERS, ids=", ".join)
@pytest.mark.parametrize("kind", [of_a_signal, of_a_hook], ids=lambda kind: kind.__name__)
def test_what_is_not_told_is_there_to_be_found(
    a: Session,
    b: Session,
    ear: Ear,
    kind: Callable[[Session, Session], Told],
    order: tuple[str, ...],
) -> None:
    """[P5] [P11]: only where the writer looked before, and commits after the look, does it take one
    look more: which is why a worker looks again after a few milliseconds.
    """
    waits = kind(a, b)
    seen: list[bool] = []

    def look() -> None:
        seen.append(waits.look())

    def ask() -> None:
        a.begin()
        waits.ask()

    def write() -> None:
        b.begin()
        waits.write()

    steps = {"asks": ask, "is known": a.commit, "looks": look, "writes": write, "commits": b.commit}
    for step in order:
        steps[step]()

    assert (waits.topic in ear.heard()) == (order.index("is known") < order.index("writes"))
    assert seen == [order.index("commits") < order.index("looks")]
    assert waits.look()


# The result of a hook.


def asked_hook(a: Session, b: Session) -> dict[str, str]:
    """Let a hook be asked for from outside, and a worker hold it; give its lease."""
    a.call("entity_create", id="j", entity="e")
    a.call("hook", id="j", name="h", queue="hooks", key="k")
    return b.claim_one("hooks").lease


def result(session: Session) -> tuple[object, ...]:
    """Ask how the hook has ended: status, result and error."""
    ((status, value, error),) = session.rows("hook_result", id="j", task="$hook/k")
    return status, value, error and error["message"]


ENDED = {"done": ("completed", 1, None), "failed": ("failed", None, "no")}


@pytest.mark.parametrize("how", ENDED)
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_result_is_asked_for_while_the_hook_ends(
    a: Session, b: Session, how: str, end: str
) -> None:
    """[P10]: it runs until its end is committed, and nobody who asks waits for that."""
    value = 1 if how == "done" else {"message": "no"}
    turn = {**asked_hook(a, b), "position": 0, "state": how, "value": value}
    assert result(a) == ("running", None, None)
    with b.open(end):
        assert b.advance(turn).state == how
        asking = a.later(result, a)
        assert not asking.waits()
        assert asking.get() == ("running", None, None)
        assert result(b) == ENDED[how]
    assert result(a) == (ENDED[how] if end == "commit" else ("running", None, None))

    assert b.advance(turn).state == ("gone" if end == "commit" else how)
    assert result(a) == ENDED[how]


def test_a_hook_that_ends_between_two_looks_has_not_vanished(theatre: Theatre) -> None:
    """[P10]: no end in the journal, then no task: both are looked for in one snapshot."""
    theatre.put_gate("hook_result", "perform from tasks")
    with theatre.players() as (a, b, c, _):
        hook = asked_hook(a, b)
        shut(c)
        asking = a.later(result, a)
        assert asking.waits()
        assert b.call("finish_task", **hook, value=1) == "done"
        c.commit()
        assert asking.get() == ("running", None, None)
        assert result(a) == ENDED["done"]
