"""Hints race the transactions of writers: they arrive with the commit, or a look finds the news.

A listener registers what it listens for, commits that, and then looks. A writer looks for
listeners, and commits later. Every order of these five steps is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import NamedTuple

import pytest

from tests.races.messages import KINDS, Incoming
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


class Listener:
    """A connection that listens, and gets hints in the order of the commits."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._channel = session.call("channel")
        session.run(f'listen "{self._channel}"')

    def hints(self) -> list[str]:
        """Give the hints since the last call: all that were committed before this one."""
        self._session.run("select pg_notify(%s, 'end of hints')", self._channel)
        hints: list[str] = []
        for notice in self._session.connection.notifies(timeout=PATIENCE):
            if notice.payload == "end of hints":
                return hints
            hints.append(notice.payload)
        raise AssertionError("the server sends no notifications")

    def close(self) -> None:
        """Stop listening, since other tests reuse the connection."""
        self._session.run("unlisten *")


@pytest.fixture
def listener(c: Session) -> Iterator[Listener]:
    """Listen with the third session."""
    listener = Listener(c)
    yield listener
    listener.close()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_holder_of_task_gets_hint_for_message_that_commits(
    a: Session, b: Session, listener: Listener, kind: Callable[[Session, Session], Incoming]
) -> None:
    """[P5] [P11] It gets none before the commit, and none for a message that is rolled back."""
    incoming = kind(a, b)
    a.claim("nothing", idle=True)
    with b.open("rollback"):
        incoming.send()
        assert listener.hints() == []
    assert listener.hints() == []
    assert a.advance(incoming.task.keep(awaits=list(incoming.awaits))).messages == []

    with b.open():
        incoming.send()
        assert listener.hints() == []
    assert listener.hints() == ["$messages/a"]
    assert incoming.is_all_of(a.advance(incoming.task.keep(awaits=list(incoming.awaits))).messages)


def test_only_holder_of_task_gets_hints_for_its_messages(
    a: Session, b: Session, listener: Listener, stage: Stage
) -> None:
    """[P11] A former holder gets none once another worker has claimed the task."""
    task = a.held("j")
    for worker in (a, stage.session("d")):
        worker.claim("nothing", idle=True)
    b.signal("j", "go")
    assert listener.hints() == ["$messages/a"]

    b.stolen(task)
    b.signal("j", "go")
    assert listener.hints() == []


class Hinted(NamedTuple):
    """News that a listener waits for, with calls that ask for hints, make the news and look."""

    topic: str
    ask: Callable[[], object]
    write: Callable[[], object]
    look: Callable[[], bool]


def of_a_signal(a: Session, b: Session) -> Hinted:
    """A worker waits for messages to a task that it holds."""
    task = a.held("j")
    return Hinted(
        "$messages/a",
        lambda: a.claim("nothing", idle=True),
        lambda: b.signal("j", "go"),
        lambda: bool(a.advance(task.keep(awaits=["go"])).messages),
    )


def of_a_hook(a: Session, b: Session) -> Hinted:
    """A client waits for the result of a hook that it requested."""
    hook = requested_hook(a, b)
    return Hinted(
        "$job/j",
        lambda: a.call("listen_for", topic="$job/j", listener="a"),
        lambda: b.call("finish_task", **hook, value="done"),
        lambda: result(a)[0] != "running",
    )


@pytest.mark.parametrize("order", ORDERS, ids=", ".join)
@pytest.mark.parametrize("kind", [of_a_signal, of_a_hook], ids=lambda kind: kind.__name__)
def test_news_without_hint_is_found_by_look(
    a: Session,
    b: Session,
    listener: Listener,
    kind: Callable[[Session, Session], Hinted],
    order: tuple[str, ...],
) -> None:
    """[P5] [P11] News needs a second look only if the writer looked for listeners too early.

    Such a writer commits after the first look, so a worker looks again after a few milliseconds.
    """
    news = kind(a, b)
    seen: list[bool] = []

    def look() -> None:
        seen.append(news.look())

    def ask() -> None:
        a.begin()
        news.ask()

    def write() -> None:
        b.begin()
        news.write()

    steps = {"asks": ask, "is known": a.commit, "looks": look, "writes": write, "commits": b.commit}
    for step in order:
        steps[step]()

    assert (news.topic in listener.hints()) == (order.index("is known") < order.index("writes"))
    assert seen == [order.index("commits") < order.index("looks")]
    assert news.look()


# The result of a hook


def requested_hook(a: Session, b: Session) -> dict[str, str]:
    """Request a hook from outside, and let a worker claim it; give its lease."""
    a.call("entity_create", id="j", entity="e")
    a.call("hook", id="j", name="h", queue="hooks", key="k")
    return b.claim_one("hooks").lease


def result(session: Session) -> tuple[object, ...]:
    """Give the status, result and error of the hook."""
    ((status, value, error),) = session.rows("hook_result", id="j", task="$hook/k")
    return status, value, error and error["message"]


ENDED = {"done": ("completed", 1, None), "failed": ("failed", None, "no")}


@pytest.mark.parametrize("how", ENDED)
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_hook_result_does_not_wait_for_uncommitted_end(
    a: Session, b: Session, how: str, end: str
) -> None:
    """[P10] The hook is running until its end commits."""
    value = 1 if how == "done" else {"message": "no"}
    turn = {**requested_hook(a, b), "position": 0, "state": how, "value": value}
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


def test_hook_result_reads_journal_and_tasks_in_one_snapshot(theatre: Theatre) -> None:
    """[P10] A hook that ends between the two reads must not look as if it did not exist."""
    theatre.put_gate("hook_result", "perform from tasks")
    with theatre.players() as (a, b, c, _):
        hook = requested_hook(a, b)
        shut(c)
        asking = a.later(result, a)
        assert asking.waits()
        assert b.call("finish_task", **hook, value=1) == "done"
        c.commit()
        assert asking.get() == ("running", None, None)
        assert result(a) == ENDED["done"]
