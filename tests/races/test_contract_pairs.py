"""Contracts are defined while others define the same contract, or write memories under it."""

from __future__ import annotations

import psycopg
import pytest

from tests.races.sessions import Session

LOW = '{"properties": {"n": {"maximum": 10}}}'
HIGH = '{"properties": {"n": {"maximum": 20}}}'


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_later_of_two_concurrent_definitions_of_contract_holds(
    a: Session, b: Session, end: str
) -> None:
    """(C23) It waits for the first; its time of definition is read after the wait."""
    a.run("select define_contract('note', '{}')")
    a.begin()
    a.run("select define_contract('note', %s)", LOW)
    defining = b.later(b.run, "select define_contract('note', %s)", HIGH)
    assert defining.waits()
    ended_at = a.one("select clock()")
    a.end(end)
    defining.get()

    schema, defined_at = b.run("select schema, defined_at from contracts where entity = 'note'")[0]
    assert schema == {"properties": {"n": {"maximum": 20}}}
    assert defined_at > ended_at


def test_command_that_waited_obeys_contract_defined_meanwhile(
    a: Session, b: Session, c: Session
) -> None:
    """[P3] (C23) The contract is read under the lock of the job, like the document."""
    a.call("entity_create", id="e", entity="note", context={"n": 1})
    a.begin()
    a.call("entity_set", id="e", path="m", value=1)
    setting = b.later(b.call, "entity_set", id="e", path="n", value=11)
    assert setting.waits()
    c.run("select define_contract('note', %s)", LOW)
    a.commit()

    error = setting.error()
    assert isinstance(error, psycopg.Error)
    assert error.sqlstate == "PD109"
    assert a.memory("e") == ({"n": 1, "m": 1}, 2)


def test_defining_contract_waits_for_no_writer(a: Session, b: Session) -> None:
    """(C23) An open transaction may still commit a memory that breaks it, which is listed then."""
    a.call("entity_create", id="e", entity="note", context={"n": 1})
    a.begin()
    a.call("entity_set", id="e", path="n", value=11)
    b.run("select define_contract('note', %s)", LOW)
    a.commit()

    assert b.run("select id, path, rule from broken_contracts('note')") == [("e", "n", "maximum")]
    assert b.one("select drop_contract('note')") is True
    assert b.call("entity_set", id="e", path="n", value=30) == 3
