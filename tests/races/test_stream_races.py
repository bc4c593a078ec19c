"""Several publish to the streams of one job while its tasks change hands. [P2] [P6] [P12] (E20)"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.races.sessions import Session, Task, command, together

ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])


def publish(session: Session, task: Task, *items: Any, key: str | None = None) -> Any:
    """Publish; give the version, or the code of the refusal."""
    query = "select publish(%s, %s, %s, 's', %s, %s)"
    try:
        return session.one(query, task.job, task.task, task.token, Jsonb(list(items)), key)
    except psycopg.Error as error:
        return error.sqlstate


def read(session: Session, after: int = 0) -> list[tuple[int, Any]]:
    """Read a stream behind a version."""
    return session.run("select version, item from stream_items('j', 's', %s)", after)


@ENDS
def test_a_reader_misses_nothing_that_commits_late(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P2]: a later version commits later, so one can go on behind the last that one saw."""
    task = a.held("j")
    b.begin()
    assert publish(b, task, "first") == 1
    second = c.later(publish, c, task, "second")
    assert second.waits()
    assert read(a) == []
    b.end(end)

    told = ["first", "second"] if end == "commit" else ["second"]
    assert second.get() == len(told)
    assert read(a) == list(enumerate(told, 1))


@ENDS
def test_who_has_just_lost_the_lease_publishes_nothing(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P6]: it waits for the claim and is refused; after a rollback it still holds the task."""
    task = a.held("j")
    a.expire(task)
    c.begin()
    (again,) = c.claim("j")
    publishing = b.later(publish, b, task, "late")
    assert publishing.waits()
    c.end(end)

    if end == "rollback":
        assert publishing.get() == 1
        return
    assert publishing.get() == "PD001"
    assert publish(c, again, "mine") == 1
    assert read(a) == [(1, "mine")]


@ENDS
@pytest.mark.parametrize("how", ["terminate", "done"])
def test_after_the_end_nothing_is_published(a: Session, b: Session, how: str, end: str) -> None:
    """[P6]: a reader who was told the end has seen it all."""
    task = a.held("j")
    publish(a, task, "one")
    a.begin()
    assert a.call("terminate", id="j") if how == "terminate" else a.advance(task.done())
    publishing = b.later(publish, b, task, "late")
    assert publishing.waits()
    a.end(end)

    if end == "commit":
        assert publishing.get() == "PD001"
        assert read(a, 1) == [(1, None)]
    else:
        assert publishing.get() == 2
        assert read(a, 1) == [(2, "late")]


@ENDS
def test_a_repeated_call_whose_reply_was_lost_doubles_nothing(
    a: Session, b: Session, end: str
) -> None:
    """[P12]: also when the first one is still on its way."""
    task = a.held("j")
    b.begin()
    assert publish(b, task, "x", key="attempt/1") == 1
    again = a.later(publish, a, task, "x", key="attempt/1")
    assert again.waits()
    b.end(end)

    assert again.get() == 1
    assert read(a) == [(1, "x")]
    assert publish(a, task, "y", key="attempt/1") == "PD106"


@ENDS
def test_a_turn_and_a_batch_of_items_at_once(a: Session, b: Session, end: str) -> None:
    """[P3]: versions have no gap; a busy turn is sent again."""
    task = a.held("j")
    b.begin()
    publish(b, task, "x")
    turn = task.keep(command("set", "n", 1))
    assert a.advance(turn).state == "busy"
    telling = a.later(a.advance, turn, waiting=True)
    assert telling.waits()
    b.end(end)

    assert telling.get().state == "keep"
    assert a.memory("j") == ({"n": 1}, 2 if end == "commit" else 1)


def test_many_at_once_stand_in_one_order(a: Session, b: Session, c: Session) -> None:
    """[P3]: each in its own order, none doubled, none lost."""
    task = a.held("j")

    def say(who: Session) -> list[Any]:
        return [publish(who, task, f"{who.name} {n}", key=f"{who.name}/{n}") for n in range(30)]

    versions = together(*(lambda who=who: say(who) for who in (a, b, c)))  # type: ignore[misc]

    items = read(a)
    assert sorted(version for each in versions for version in each) == list(range(1, 91))
    for who, mine in zip((a, b, c), versions, strict=True):
        assert [item for item in items if item[1].startswith(f"{who.name} ")] == [
            (version, f"{who.name} {n}") for n, version in enumerate(mine)
        ]


@pytest.mark.direct("it listens")
@pytest.mark.parametrize("how", ["terminate", "done"])
def test_who_follows_hears_of_the_end_of_the_job(a: Session, b: Session, how: str) -> None:
    """[P11]: at once; without the hint at his next look."""
    task = a.held("j")
    a.run(f'listen "{a.call("channel")}"')
    a.call("entity_watch", id="j", listener="client")
    if how == "terminate":
        b.call("terminate", id="j")
    else:
        b.advance(task.done())

    heard = [notice.payload for notice in a.connection.notifies(timeout=5, stop_after=1)]
    a.run("unlisten *")
    assert heard == ["$memory/j"]
