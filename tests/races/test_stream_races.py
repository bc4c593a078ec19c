"""Several sessions publish to the streams of one job while its tasks change hands.

[P2] [P6] [P12] (E20)
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.races.sessions import Session, Task, command, together

ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])


def publish(session: Session, task: Task, *items: Any, key: str | None = None) -> Any:
    """Publish; give the version, or the code of the error."""
    query = "select publish(%s, %s, %s, 's', %s, %s)"
    try:
        return session.one(query, task.job, task.task, task.token, Jsonb(list(items)), key)
    except psycopg.Error as error:
        return error.sqlstate


def read(session: Session, after: int = 0) -> list[tuple[int, Any]]:
    """Read the items of a stream after a version."""
    return session.run("select version, item from stream_items('j', 's', %s)", after)


@ENDS
def test_reader_of_stream_misses_no_item_that_commits_late(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P2] A later version commits later, so a reader can go on after the last one it has read."""
    task = a.held("j")
    b.begin()
    assert publish(b, task, "first") == 1
    second = c.later(publish, c, task, "second")
    assert second.waits()
    assert read(a) == []
    b.end(end)

    items = ["first", "second"] if end == "commit" else ["second"]
    assert second.get() == len(items)
    assert read(a) == list(enumerate(items, 1))


@ENDS
def test_worker_that_loses_its_lease_publishes_nothing(
    a: Session, b: Session, c: Session, end: str
) -> None:
    """[P6] It waits for the claim and is refused; after a rollback it still holds the task."""
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
    assert publish(c, again, "second") == 1
    assert read(a) == [(1, "second")]


@ENDS
@pytest.mark.parametrize("how", ["terminate", "done"])
def test_item_published_after_end_of_task_is_refused(
    a: Session, b: Session, how: str, end: str
) -> None:
    """[P6] So a reader that has read the end has read all items."""
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
def test_repeated_publish_adds_no_item_twice(a: Session, b: Session, end: str) -> None:
    """[P12] It waits for the first call, whose reply was lost."""
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
def test_turn_is_busy_while_item_is_uncommitted(a: Session, b: Session, end: str) -> None:
    """[P3] Sent again, it waits. Versions have no gap."""
    task = a.held("j")
    b.begin()
    publish(b, task, "x")
    turn = task.keep(command("set", "n", 1))
    assert a.advance(turn).state == "busy"
    advancing = a.later(a.advance, turn, waiting=True)
    assert advancing.waits()
    b.end(end)

    assert advancing.get().state == "keep"
    assert a.memory("j") == ({"n": 1}, 2 if end == "commit" else 1)


def test_concurrent_publishers_keep_their_own_order(a: Session, b: Session, c: Session) -> None:
    """[P3] Each item has a version of its own, without gaps."""
    task = a.held("j")

    def publish_all(who: Session) -> list[Any]:
        return [publish(who, task, f"{who.name} {n}", key=f"{who.name}/{n}") for n in range(30)]

    versions = together(*(lambda who=who: publish_all(who) for who in (a, b, c)))  # type: ignore[misc]

    items = read(a)
    assert sorted(version for each in versions for version in each) == list(range(1, 91))
    for who, own_versions in zip((a, b, c), versions, strict=True):
        assert [item for item in items if item[1].startswith(f"{who.name} ")] == [
            (version, f"{who.name} {n}") for n, version in enumerate(own_versions)
        ]


@pytest.mark.direct("it listens")
@pytest.mark.parametrize("how", ["terminate", "done"])
def test_client_that_follows_stream_gets_hint_for_end_of_job(
    a: Session, b: Session, how: str
) -> None:
    """[P11] Without the hint it would notice the end only at its next poll."""
    task = a.held("j")
    a.run(f'listen "{a.call("channel")}"')
    a.call("entity_watch", id="j", listener="client")
    if how == "terminate":
        b.call("terminate", id="j")
    else:
        b.advance(task.done())

    hints = [notice.payload for notice in a.connection.notifies(timeout=5, stop_after=1)]
    a.run("unlisten *")
    assert hints == ["$memory/j"]
