"""A worker that is limited to queues has the tasks of no other, whatever it knows. [P6]"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.security.house import Connection, House

Enter = Callable[[str], Connection]


def value(connection: Connection, query: str, *values: Any) -> Any:
    """Give the one value that a query answers."""
    row = connection.execute(query.encode(), values).fetchone()
    assert row is not None
    return row[0]


def code(connection: Connection, query: str, *values: Any) -> str | None:
    """Run a query; give the SQLSTATE of its error."""
    try:
        connection.execute(query.encode(), values)
    except psycopg.Error as error:
        return error.sqlstate
    return None


def started(owner: Connection, queue: str, version: str | None = None) -> str:
    """Start a job on a queue."""
    start = "select id from start('w', id => %s, queue => %s, pinned_version => %s)"
    return str(value(owner, start, f"job {uuid4()}", queue, version))


def claimed(connection: Connection, queue: str, token: str) -> list[Any]:
    """Claim one task of a queue."""
    taken = value(connection, "select claim(array[%s], 'me', %s::uuid, 1)", queue, token)
    return [(task["job"], task["task"]) for task in taken["tasks"]]


@pytest.fixture
def owner(enter: Enter) -> Any:
    """Give the owner's connection; in the end nothing is left on the queues."""
    owner = enter("owner")
    yield owner
    owner.execute("select terminate(j.id) from jobs as j where j.status = 'running'")


def test_it_works_on_its_own_queues(owner: Connection, enter: Enter) -> None:
    job, token = started(owner, "a"), str(uuid4())
    limited = enter("limited")
    hello = value(limited, "select register_worker('me', '{a,b}')")
    assert hello["queues"] == ["a", "b"]
    assert claimed(limited, "a", token) == [(job, "1/main")]
    assert value(limited, "select read_journal(%s, '1/main')", job) == []
    held = {"job": job, "task": "1/main", "token": token}
    assert value(limited, "select extend(%s)", json.dumps([held]))[0]["state"] == "held"
    turn = held | {"position": 0, "state": "done", "value": 1, "facts": [], "requests": []}
    answer = value(limited, "select advance(%s)", json.dumps([turn]))
    assert answer["turns"][0]["state"] == "done"
    assert value(owner, "select result from result(%s)", job) == 1


def test_it_works_on_its_queues_for_every_version_of_the_code(
    owner: Connection, enter: Enter
) -> None:
    job = started(owner, "a", "2")
    limited = enter("limited")
    hello = value(limited, "select register_worker('me', '{a}', version => '2')")
    assert hello["queues"] == ["a@2", "a"]
    assert claimed(limited, "a@2", str(uuid4())) == [(job, "1/main")]
    assert code(limited, "select claim('{c@2}', 'me')") == "PD115"


@pytest.mark.parametrize("queues", ["{c}", "{a,c}", "{a,NULL}", "{$sql}", "{A}", '{"a "}', "{''}"])
def test_other_queues_are_refused(owner: Connection, enter: Enter, queues: str) -> None:
    job = started(owner, "c")
    limited = enter("limited")
    refusal = "PD107" if "NULL" in queues else "PD115"
    assert code(limited, "select claim(%s, 'me')", queues) == refusal
    query = "select advance('[]', %s, 'me', max_tasks => 1)"
    assert code(limited, query, queues) == refusal
    if queues != "{$sql}":
        assert code(limited, "select register_worker('me', %s)", queues) == refusal
    assert value(owner, "select state from waiting where job_id = %s", job) == "ready"


def test_what_the_database_runs_itself_is_left_out_unless_it_was_given(
    house: House, owner: Connection, enter: Enter
) -> None:
    """Every worker of the package asks for `$sql`; a limited one goes without."""
    limited = enter("limited")
    assert value(limited, "select register_worker('me', '{a,$sql}')")["queues"] == ["a"]
    assert code(limited, "select take_sql_task('me', gen_random_uuid())") == "PD115"
    assert code(limited, "call run_sql_hooks()") == "PD115"
    role = house.add_role("runs_sql")
    owner.execute("select grant_access(%s, 'worker', '{a,$sql}')", [role])
    runs_sql = enter("runs_sql")
    assert value(runs_sql, "select register_worker('he', '{a,$sql}')")["queues"] == ["a", "$sql"]
    assert code(runs_sql, "call run_sql_hooks()") is None


def leases(job: str, task: str, token: str) -> dict[str, tuple[str, list[Any]]]:
    """Give every call by which the holder of a token can touch a lease."""
    held = {"job": job, "task": task, "token": token}
    turn = held | {"position": 0, "state": "done", "facts": [], "requests": []}
    return {
        "extend": ("select extend(%s)", [json.dumps([held])]),
        "release": ("select release(%s)", [json.dumps([held])]),
        "advance": ("select advance(%s, waiting => true)", [json.dumps([turn])]),
        "publish": ("select publish(%s, %s, %s, 's', '[1]')", [job, task, token]),
        "finish_task": ("select finish_task(%s, %s, %s)", [job, task, token]),
        "fail_task": ("select fail_task(%s, %s, %s)", [job, task, token]),
        "run_task": ("select run_task(%s, %s, %s)", [job, task, token]),
        "time_out_task": ("select time_out_task(%s, %s, %s)", [job, task, token]),
        "read_journal": ("select read_journal(%s, %s)", [job, task]),
    }


@pytest.mark.parametrize("verb", leases("", "", ""))
def test_a_token_that_leaked_is_of_no_use_on_a_foreign_queue(
    owner: Connection, enter: Enter, verb: str
) -> None:
    desk, queue, token = f"desk of {verb}", f"c of {verb}", str(uuid4())
    owner.execute("select entity_create(%s, 'desk')", [desk])
    task = value(owner, "select hook(%s, 'h', queue => %s)", desk, queue)
    assert claimed(enter("worker"), queue, token) == [(desk, task)]
    before = owner.execute("select * from tasks where job_id = %s", [desk]).fetchall()
    query, values = leases(desk, task, token)[verb]
    assert code(enter("limited"), query, *values) == "PD115"
    assert owner.execute("select * from tasks where job_id = %s", [desk]).fetchall() == before
    of_the_database = verb in ("run_task", "time_out_task")
    assert code(enter("worker"), query, *values) == ("PD107" if of_the_database else None)


WITH_TOKENS = """
select p.proname::text
  from pg_proc as p
 where p.pronamespace = 'perdure'::regnamespace
   and has_function_privilege(%s::name, p.oid, 'execute')
   and p.proargnames && '{token,tasks,turns}'
   and p.proname <> 'take_sql_task'  -- which draws the token
"""


def test_no_verb_that_takes_a_token_is_left_out(house: House, owner: Connection) -> None:
    found = owner.execute(WITH_TOKENS, [house.role("worker")]).fetchall()
    assert {name for (name,) in found} == leases("", "", "").keys() - {"read_journal"}


@pytest.mark.parametrize("verb", sorted(leases("", "", "").keys() - {"read_journal"}))
def test_a_live_token_is_of_no_use_on_another_task(
    owner: Connection, enter: Enter, verb: str
) -> None:
    """[P6] Neither on one of the same job nor on one of another, which are held too (S7)."""
    worker, held = enter("worker"), []
    for desk in (f"desk 1 of {verb}", f"desk 2 of {verb}"):
        owner.execute("select entity_create(%s, 'desk')", [desk])
        for queue in (f"q1 of {desk}", f"q2 of {desk}"):
            task = value(owner, "select hook(%s, 'h', queue => %s)", desk, queue)
            held.append((desk, task, str(uuid4())))
            assert claimed(worker, queue, held[-1][2]) == [(desk, task)]

    def is_refused(job: str, task: str, token: str) -> bool:
        query, values = leases(job, task, token)[verb]
        try:
            answer = value(worker, query, *values)
        except psycopg.Error as error:
            return error.sqlstate == "PD001"
        return any(word in json.dumps(answer) for word in ('"lost"', '"fenced"', '"gone"'))

    look = "select t::text from tasks as t where t.job_id ~ %s order by 1"
    before = owner.execute(look, [f"of {verb}$"]).fetchall()
    for job, task, own in held:
        assert all(is_refused(job, task, token) for _, _, token in held if token != own)
    assert owner.execute(look, [f"of {verb}$"]).fetchall() == before
    assert not any(is_refused(*each) for each in held)


def test_journals_of_what_has_ended_are_read_by_no_limited_worker(
    owner: Connection, enter: Enter
) -> None:
    job = started(owner, "a")
    owner.execute("select terminate(%s)", [job])
    assert code(enter("limited"), "select read_journal(%s, '1/main')", job) == "PD001"
    assert code(enter("worker"), "select read_journal(%s, '1/main')", job) is None
    assert code(enter("reader"), "select read_journal(%s, '1/main')", job) is None


def test_no_setting_and_no_other_role_makes_it_more(house: House, enter: Enter) -> None:
    """Who logged in counts: a session cannot say that it is somebody else (S4)."""
    limited = enter("limited")
    for statement in (
        f"set role {house.role('worker')}",
        f"set role {house.role('owner')}",
        f"set session authorization {house.role('owner')}",
    ):
        assert code(limited, statement) == "42501"
    limited.execute("set perdure.role = 'owner'; set application_name = 'owner'")
    assert code(limited, "select claim('{c}', 'me')") == "PD115"


def test_a_member_of_a_limited_role_is_limited_as_that_is(house: House, enter: Enter) -> None:
    member = house.add_role("member")
    with psycopg.connect(house.url, autocommit=True) as admin:
        admin.execute(f"grant {house.role('limited')} to {member}".encode())
    for role in ("", f"set role {house.role('limited')}"):
        connection = enter("member")
        connection.execute(role.encode() or b"select")
        assert code(connection, "select claim('{b}', 'me')") is None
        assert code(connection, "select claim('{c}', 'me')") == "PD115"


def test_who_is_a_worker_twice_has_the_queues_of_both(
    house: House, owner: Connection, enter: Enter
) -> None:
    both = house.add_role("both")
    owner.execute("select grant_access(%s, 'worker', '{c}')", [both])
    connection = enter("both")
    assert code(connection, "select claim('{a,c}', 'me')") == "PD115"
    with psycopg.connect(house.url, autocommit=True) as admin:
        admin.execute(f"grant {house.role('limited')} to {both}".encode())
    assert code(connection, "select claim('{a,c}', 'me')") is None
    assert code(connection, "select claim('{d}', 'me')") == "PD115"
    with psycopg.connect(house.url, autocommit=True) as admin:
        admin.execute(f"grant {house.role('worker')} to {both}".encode())
    assert code(connection, "select claim('{d}', 'me')") is None


def test_a_verb_that_was_granted_by_hand_serves_no_queue(
    house: House, owner: Connection, enter: Enter
) -> None:
    """Only grant_access() makes a worker; without it there is no queue (deny by default)."""
    role = house.add_role("by_hand")
    owner.execute(f"grant usage on schema perdure to {role}".encode())
    owner.execute(f"grant execute on function claim to {role}".encode())
    assert code(enter("by_hand"), "select claim('{a}', 'me')") == "PD115"


def test_access_is_changed_and_taken_while_a_session_lasts(
    house: House, owner: Connection, enter: Enter
) -> None:
    role = house.add_role("changing")
    owner.execute("select grant_access(%s, 'worker', '{c}')", [role])
    connection = enter("changing")
    assert code(connection, "select claim('{c}', 'me')") is None
    owner.execute("select grant_access(%s, 'worker', '{d}')", [role])
    assert code(connection, "select claim('{c}', 'me')") == "PD115"
    owner.execute("select grant_access(%s, 'worker')", [role])
    assert code(connection, "select claim('{c}', 'me')") is None
    assert value(owner, "select revoke_access(%s)", role) is True
    assert code(connection, "select perdure.claim('{c}', 'me')") == "42501"
    assert value(owner, "select revoke_access(%s)", role) is False


def test_worker_of_foreign_queues_cannot_be_replaced_or_forgotten(
    owner: Connection, enter: Enter
) -> None:
    """Without it, its tasks would look abandoned to `register_worker()` and to people. [P6]"""
    limited = enter("limited")
    owner.execute("select register_worker('theirs', '{a,c}')")
    seen = owner.execute("select * from workers where worker = 'theirs'").fetchall()
    assert code(limited, "select forget_worker('theirs')") == "PD115"
    assert code(limited, "select register_worker('theirs', '{a}')") == "PD115"
    assert owner.execute("select * from workers where worker = 'theirs'").fetchall() == seen
    limited.execute("select register_worker('own', '{a}')")
    limited.execute("select forget_worker('own')")
    limited.execute("select forget_worker('nobody')")
    owner.execute("select forget_worker('theirs')")
    assert value(owner, "select count(*) from workers where worker in ('own', 'theirs')") == 0
