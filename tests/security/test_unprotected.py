"""What the page about security says is not protected: these are limits, not promises, and the page
must name them."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg

from perdure.installation.install import install
from tests.security.secured import Connection, SecuredApp
from tests.security.test_queues_of_workers import error_code, value

ConnectAs = Callable[[str], Connection]


def test_client_can_change_what_a_schedule_starts(connect_as: ConnectAs) -> None:
    """A schedule is a memory, and a client writes every memory."""
    client, operator = connect_as("client"), connect_as("operator")
    value(operator, "select create_schedule('nightly', 'report', cron => '0 0 1 1 *')")
    value(client, "select entity_set('$schedule/nightly', '\"other\"', 'workflow')")
    assert value(operator, "select workflow from schedules where name = 'nightly'") == "other"
    assert error_code(client, "select drop_schedule('nightly')") == "42501"
    value(operator, "select drop_schedule('nightly')")


def test_operator_can_question_a_memory_by_contracts(connect_as: ConnectAs) -> None:
    """An operator reads no memory, but learns whether a copy of it would meet a contract."""
    owner, operator = connect_as("owner"), connect_as("operator")
    context = '{"pin": "7"}'
    value(owner, "select start('w', id => 'asked', entity => 'asked', context => %s)", context)
    assert error_code(operator, "select entity_get('asked')") == "42501"
    answers = {}
    for digit in "678":
        schema = {"properties": {"pin": {"const": digit}}}
        with operator.transaction(force_rollback=True):
            value(operator, "select define_contract('asked', %s)", json.dumps(schema))
            answers[digit] = error_code(operator, "select fork('asked')")
    assert answers == {"6": "PD109", "7": None, "8": "PD109"}
    value(owner, "select terminate('asked')")


def test_default_privileges_of_the_owner_apply_to_an_app(
    connect_as: ConnectAs, secured: SecuredApp
) -> None:
    owner, nobody, role = connect_as("owner"), connect_as("nobody"), secured.role("nobody")
    change = "alter default privileges {} on {} {} " + role
    for what in ("schemas", "tables"):
        rights = "usage" if what == "schemas" else "select"
        owner.execute(change.format(f"grant {rights}", what, "to").encode())
    install(owner, "given")
    try:
        assert value(nobody, "select count(*) from given.tasks") == 0
        value(owner, "select given.revoke_access(%s)", role)
        assert error_code(nobody, "select count(*) from given.tasks") == "42501"
    finally:
        for what in ("schemas", "tables"):
            owner.execute(change.format("revoke all", what, "from").encode())
        with psycopg.connect(secured.url, autocommit=True) as admin:
            admin.execute("drop schema given cascade")
