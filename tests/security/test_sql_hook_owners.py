"""A hook in SQL runs with the rights of the owner of the app, so only the owner says what it does
(S1) (S13)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
import pytest

from tests.security.secured import Connection, SecuredApp
from tests.security.test_queues_of_workers import error_code, value

ConnectAs = Callable[[str], Connection]

PLANTED = """
create function {0}(job text, args jsonb) returns jsonb language plpgsql as $$
begin
    update perdure.jobs set context = '{{"stolen": true}}' where id = job;
    return to_jsonb(current_user);
end $$
"""


@pytest.fixture
def shared(secured: SecuredApp) -> Iterator[str]:
    """Give a schema in which everybody may create objects."""
    with psycopg.connect(secured.url, autocommit=True) as admin:
        admin.execute(f'grant temporary on database "{secured.prefix}" to public'.encode())
        admin.execute("create schema shared; grant all on schema shared to public")
        yield "shared"
        admin.execute("drop schema shared cascade")


def run(owner: Connection, worker: Connection, hook: str) -> tuple[str, bool]:
    """Run a hook on a memory of its own; return how it ended, and whether the memory changed."""
    job, token = f"job {uuid4()}", str(uuid4())
    value(owner, "select entity_create(%s, 'thing')", job)
    task = value(owner, "select hook(%s, %s, queue => '$sql')", job, hook)
    value(worker, "select claim('{$sql}', 'me', %s::uuid, 100)", token)
    state = value(worker, "select run_task(%s, %s, %s::uuid)", job, task, token)
    return state, value(owner, "select entity_get(%s)", job) != {}


def test_function_that_another_role_has_put_in_its_place_is_not_called(
    connect_as: ConnectAs, shared: str
) -> None:
    owner, worker = connect_as("owner"), connect_as("worker")
    owner.execute(PLANTED.format("shared.replaced").encode())
    owner.execute("select register_sql_hook('replaced', 'shared.replaced')")
    assert run(owner, worker, "replaced") == ("done", True)
    owner.execute("drop function shared.replaced(text, jsonb)")
    worker.execute(PLANTED.format("shared.replaced").encode())
    assert run(owner, worker, "replaced") == ("failed", False)


@pytest.mark.parametrize(
    "arguments",
    [
        "job text, args jsonb, more integer default 0",
        "job varchar, args jsonb",
        "job text, args anyelement",
        "job text, variadic args jsonb[]",
    ],
)
def test_function_with_other_arguments_is_not_called_in_its_place(
    connect_as: ConnectAs, shared: str, arguments: str
) -> None:
    """The server would take it for the call, since its arguments fit loosely."""
    owner, worker = connect_as("owner"), connect_as("worker")
    owner.execute(PLANTED.format("shared.loose").encode())
    owner.execute("select register_sql_hook('loose', 'shared.loose')")
    owner.execute("drop function shared.loose(text, jsonb)")
    planted = PLANTED.format("shared.loose").replace("job text, args jsonb", arguments)
    worker.execute(planted.encode())
    assert run(owner, worker, "loose") == ("failed", False)


def test_temporary_function_of_a_later_session_is_not_called(
    connect_as: ConnectAs, secured: SecuredApp, shared: str
) -> None:
    """Sessions use the same temporary schemas, one after another."""
    with secured.connected("owner") as before:
        before.execute(PLANTED.format("pg_temp.passing").encode())
        before.execute("select register_sql_hook('passing', 'pg_temp.passing')")
    owner, worker = connect_as("owner"), connect_as("worker")
    schema = value(owner, "select schema from sql_hooks where name = 'passing'")
    worker.execute(PLANTED.format("pg_temp.passing").encode())
    owner.execute(
        "update sql_hooks set schema = %s where name = 'passing'",
        [value(worker, "select pg_my_temp_schema()::regnamespace::text")],
    )
    assert schema.startswith("pg_temp_")
    assert run(owner, worker, "passing") == ("failed", False)


def test_function_of_another_role_cannot_be_registered(
    connect_as: ConnectAs, secured: SecuredApp, shared: str
) -> None:
    """Neither by the owner of the app nor by a superuser who acts for that owner."""
    register = "select perdure.register_sql_hook('theirs', 'shared.theirs')"
    connect_as("client").execute(PLANTED.format("shared.theirs").encode())
    with psycopg.connect(secured.url, autocommit=True) as admin:
        for connection in (connect_as("owner"), admin):
            assert error_code(connection, register) == "PD107"
        admin.execute("alter function shared.theirs(text, jsonb) owner to current_user")
        value(admin, register)
    value(connect_as("owner"), "select drop_sql_hook('theirs')")
