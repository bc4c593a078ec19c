"""Missing parts of an app are recreated by the first session that migrates, and only once. (I25)"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.races.sessions import PATIENCE, Session
from tests.races.theatre import Players, Theatre

TRIGGERS = [
    "aaa_first_documents_are_commands",
    "ids_stay",
    "jobs_are_forgotten",
    "zzz_updates_are_commands",
]
MISSING = [
    pytest.param(["zzz_updates_are_commands"], id="one trigger"),
    pytest.param(TRIGGERS, id="all triggers"),
]


@pytest.fixture
def players(theatre: Theatre) -> Iterator[Players]:
    """Open sessions on an app that a test may break."""
    with theatre.players() as players:
        yield players


def drop(session: Session, triggers: list[str]) -> None:
    """Drop triggers by hand."""
    for trigger in triggers:
        session.run(f"drop trigger {trigger} on jobs")
    assert missing(session) == [f"trigger {trigger}" for trigger in triggers]


def missing(session: Session) -> list[str]:
    """Name the missing parts."""
    return list(session.call("missing_parts"))


def triggers(session: Session) -> list[tuple[str, str, str]]:
    """List the triggers of the app with their definitions and comments."""
    return session.run("""
        select tgname::text, pg_get_triggerdef(oid), obj_description(oid, 'pg_trigger')
          from pg_trigger where tgrelid = 'jobs'::regclass and not tgisinternal order by 1""")


def lock_of(session: Session, waiting: Session) -> str:
    """Give the kind of lock that a session waits for, as soon as it waits."""
    query = """select wait_event from pg_stat_activity, pg_stat_clear_snapshot()
                where application_name = %s and datname = current_database()
                  and wait_event_type = 'Lock'"""
    deadline = time.monotonic() + PATIENCE
    while not (found := session.run(query, waiting.name)):
        assert time.monotonic() < deadline
    return str(found[0][0])


@pytest.mark.parametrize("dropped", MISSING)
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_second_of_two_migrations_waits_for_first(
    players: Players, dropped: list[str], end: str
) -> None:
    """[P13] It finds or creates the triggers, so that updates are commands again.

    It waits for an advisory lock, so no session queues behind it for a table.
    """
    a, b, c, _ = players
    before = triggers(a)
    version = a.call("perdure_version")
    drop(a, dropped)
    a.begin()
    assert a.call("migrate") == version
    second = b.later(b.call, "migrate")
    assert second.waits()
    assert lock_of(c, b) == "advisory"
    a.end(end)
    assert second.get() == version
    assert missing(a) == []
    assert triggers(a) == before
    a.call("entity_create", id="j", entity="e")
    a.run("update jobs set context = '{\"n\": 1}' where id = 'j'")
    assert a.memory("j") == ({"n": 1}, 1)


def test_migrations_wait_for_writer_and_do_not_block_it(players: Players) -> None:
    """[P13] One of them waits for the table, the other for the first, while the writer goes on."""
    a, b, c, _ = players
    before = triggers(a)
    drop(a, TRIGGERS)
    with c.open():
        c.call("entity_create", id="j", entity="e")
        calls = [session.later(session.call, "migrate") for session in (a, b)]
        assert all(call.waits() for call in calls)
        assert {lock_of(c, session) for session in (a, b)} == {"advisory", "relation"}
        c.call("entity_set", id="j", path="n", value=1)
    assert [call.error() for call in calls] == [None, None]
    assert triggers(a) == before


def test_migration_that_gives_up_leaves_work_to_next(players: Players) -> None:
    """[P13] The first is rolled back after its timeout (55P03); the second then does all of it."""
    a, b, c, _ = players
    before = triggers(a)
    drop(a, TRIGGERS)
    with c.open():
        c.call("entity_create", id="j", entity="e")
        first = a.later(a.call, "migrate")
        assert first.waits()
        second = b.later(b.call, "migrate")
        assert second.waits()
        given_up = first.error()
        assert getattr(given_up, "sqlstate", None) == "55P03"
        assert second.waits()
    assert second.error() is None
    assert missing(a) == []
    assert triggers(a) == before
