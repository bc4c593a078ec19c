"""The clock is moved by several sessions at a time, and while others write. [P7]"""

from __future__ import annotations

import pytest

from tests.races.theatre import Theatre

ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])
DAYS = "select extract(epoch from clock() - clock_timestamp())::bigint / 86400"


@ENDS
def test_concurrent_moves_of_clock_add_up(theatre: Theatre, end: str) -> None:
    with theatre.players() as (a, b, *_):
        a.begin()
        a.call("move_clock", by="3 days 1 min")
        other = b.later(b.call, "move_clock", by="4 days 1 min")
        assert other.waits()
        a.end(end)
        other.get()
        assert [s.one(DAYS) for s in (a, b)] == [7 if end == "commit" else 4] * 2


@ENDS
def test_resetting_and_moving_clock_wait_for_each_other(theatre: Theatre, end: str) -> None:
    """The first move inserts the row that both lock, a reset deletes it; the last call decides."""
    with theatre.players() as (a, b, *_):
        b.call("reset_clock")
        a.begin()
        a.call("move_clock", by="3 days 1 min")
        other = b.later(b.call, "reset_clock")
        assert other.waits()
        a.end(end)
        other.get()
        assert [s.one(DAYS) for s in (a, b)] == [0, 0]
        b.begin()
        b.call("reset_clock")
        moving = a.later(a.call, "move_clock", by="2 days 1 min")
        assert moving.waits()
        b.end(end)
        moving.get()
        assert [s.one(DAYS) for s in (a, b)] == [2, 2]


@ENDS
def test_writer_does_not_wait_for_move_of_clock(theatre: Theatre, end: str) -> None:
    """It uses the time that was committed before."""
    with theatre.players() as (a, b, *_):
        b.call("entity_create", id="e", entity="note")
        a.begin()
        a.call("move_clock", by="3 days 1 min")
        b.call("entity_set", id="e", path="before", value=1)
        a.end(end)
        b.call("entity_set", id="e", path="after", value=1)
        times = b.run("select at - clock_timestamp() > '1 day' from history order by version")
        assert times == [(False,), (end == "commit",)]


def test_claim_during_uncommitted_move_reads_old_time(theatre: Theatre) -> None:
    with theatre.players() as (a, b, *_):
        b.run("select start('w', id => 'j', queue => 'j', due_at => clock() + '1 day')")
        a.begin()
        assert a.call("skip_time") is not None
        assert b.claim("j") == []
        a.commit()
        assert len(b.claim("j")) == 1


@pytest.mark.direct("it listens")
def test_moving_clock_sends_hints_to_queues_with_due_tasks(theatre: Theatre) -> None:
    """[P11] Listeners of other queues get none."""
    with theatre.players() as (a, b, *_):
        a.run("select start('w', id => q, queue => q, due_at => clock() + d::interval)"
              " from (values ('one', '1 day'), ('two', '3 days')) as v (q, d)")  # fmt: skip
        for queue in ("one", "two", "none"):
            b.call("listen_for", topic=queue, listener="b")
        b.run(f'listen "{b.call("channel")}"')
        for move, expected in (("skip_time()", ["one"]), ("move_clock('5 days')", ["one", "two"])):
            a.run(f"select {move}")
            notices = b.connection.notifies(timeout=20, stop_after=len(expected))
            assert sorted(notice.payload for notice in notices) == expected
