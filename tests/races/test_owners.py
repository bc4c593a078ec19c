"""Owners act on an app as a whole, while others do so too, or work in it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.races.sessions import Session

ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])

INSTANCE = "select value #>> '{}' from settings where name = 'instance'"
HOUR_AGO = "clock() - interval '1 h'"


@pytest.fixture
def role(a: Session) -> Iterator[str]:
    """Give a role of the cluster that is dropped after the test."""
    name = f"perdure_{uuid4().hex[:8]}"
    a.run(f"create role {name}")
    yield name
    a.call("revoke_access", role=name)
    a.run(f"drop role {name}")


@ENDS
def test_later_of_two_concurrent_adoptions_names_instance(a: Session, b: Session, end: str) -> None:
    """[P13] It waits for the first."""
    a.begin()
    a.call("adopt_instance")
    second = b.later(b.call, "adopt_instance")
    assert second.waits()
    a.end(end)
    assert str(second.get()) == a.one(INSTANCE)


@ENDS
def test_adopting_waits_for_command_and_postpones_timers(a: Session, b: Session, end: str) -> None:
    """[P3] [P7] It locks the jobs, since others may work in the copy."""
    a.call("start", workflow="w", id="j", queue="q")
    a.run("update tasks set due_at = clock() + interval '1 h'")
    a.run(f"update jobs set created_at = {HOUR_AGO} - interval '1 h'")
    due_at = a.one("select due_at from tasks")
    a.begin()
    a.call("entity_set", id="j", path="n", value=1)
    adopting = b.later(b.one, f"select adopt_instance({HOUR_AGO})")
    assert adopting.waits()
    a.end(end)
    adopting.get()
    assert a.call("entity_get", id="j", path="n") == (1 if end == "commit" else None)
    assert 3599 < (a.one("select due_at from tasks") - due_at).total_seconds() < 3660


@ENDS
def test_adopting_waits_for_message_before_it_moves_sequence(
    a: Session, b: Session, end: str
) -> None:
    """[P5] The copied sequence is behind the ids of the messages, while one more is being sent."""
    a.call("start", workflow="w", id="j", queue="q")
    a.run("select setval('inbox_id_seq', 1000)")
    for number in range(3):
        a.call("signal", id="j", name="go", payload=number)
    a.run("select setval('inbox_id_seq', 1)")
    a.begin()
    a.call("signal", id="j", name="go", payload=3)  # its low id does not change
    adopting = b.later(b.call, "adopt_instance")
    assert adopting.waits()
    a.end(end)
    adopting.get()
    last = a.one("select max(id) from inbox")
    a.call("signal", id="j", name="go", payload=4)
    assert a.one("select max(id) from inbox") == last + 1
    assert a.one("select count(*) from inbox") == (5 if end == "commit" else 4)


@ENDS
def test_revoking_access_waits_for_uncommitted_grant(
    a: Session, b: Session, role: str, end: str
) -> None:
    """The table of access and the privileges on the server agree."""
    a.begin()
    a.call("grant_access", role=role, kind="client")
    revoking = b.later(b.call, "revoke_access", role=role)
    assert revoking.waits()
    a.end(end)
    assert revoking.get() is (end == "commit")
    assert a.run("select kind from access where role = %s", role) == []
    assert a.one(f"select has_schema_privilege('{role}', 'perdure', 'usage')") is False


@ENDS
def test_concurrent_grants_of_two_kinds_of_access_both_hold(
    a: Session, b: Session, role: str, end: str
) -> None:
    a.begin()
    a.call("grant_access", role=role, kind="client")
    granting = b.later(b.call, "grant_access", role=role, kind="worker", queues=["q"])
    assert granting.waits()
    a.end(end)
    granting.get()
    kinds = ["client", "worker"] if end == "commit" else ["worker"]
    granted = a.run("select kind from access where role = %s order by kind", role)
    assert granted == [(kind,) for kind in kinds]
    claims = "'perdure.claim'::regproc::oid"
    assert a.one(f"select has_function_privilege('{role}', {claims}, 'execute')") is True


@ENDS
def test_migrating_waits_for_uncommitted_grant(a: Session, b: Session, role: str, end: str) -> None:
    """[P13] Both write the same row of the catalogue; without the lock the server reports XX000."""
    a.call("grant_access", role=role, kind="reader")
    a.run(f"revoke execute on function perdure_version() from {role}")
    a.begin()
    a.call("grant_access", role=role, kind="client")
    migrating = b.later(b.call, "migrate")
    assert migrating.waits()
    a.end(end)

    assert migrating.error() is None
    assert a.call("missing_parts") == []
