"""A worker limited to some queues cannot touch tasks of others, whatever tokens it knows. [P6]"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.patience import wait_until
from tests.security.secured import Connection, SecuredApp

ConnectAs = Callable[[str], Connection]


def value(connection: Connection, query: str, *values: Any) -> Any:
    """Return the one value that a query selects."""
    row = connection.execute(query.encode(), values).fetchone()
    assert row is not None
    return row[0]


def error_code(connection: Connection, query: str, *values: Any) -> str | None:
    """Run a query; return the SQLSTATE of its error, if any."""
    try:
        connection.execute(query.encode(), values)
    except psycopg.Error as error:
        return error.sqlstate
    return None


def started(owner: Connection, queue: str, version: str | None = None) -> str:
    """Start a job on a queue, and return its id."""
    start = "select id from start('w', id => %s, queue => %s, pinned_version => %s)"
    return str(value(owner, start, f"job {uuid4()}", queue, version))


def claimed(connection: Connection, queue: str, token: str) -> list[Any]:
    """Claim one task of a queue."""
    taken = value(connection, "select claim(array[%s], 'limited', %s::uuid, 1)", queue, token)
    return [(task["job"], task["task"]) for task in taken["tasks"]]


@pytest.fixture
def owner(connect_as: ConnectAs) -> Any:
    """Give the owner's connection; at the end, all running jobs are terminated."""
    owner = connect_as("owner")
    yield owner
    owner.execute("select terminate(j.id) from jobs as j where j.status = 'running'")


def test_limited_worker_can_run_tasks_of_its_queues(
    owner: Connection, connect_as: ConnectAs
) -> None:
    job, token = started(owner, "a"), str(uuid4())
    limited = connect_as("limited")
    hello = value(limited, "select register_worker('limited', '{a,b}')")
    assert hello["queues"] == ["a", "b"]
    assert claimed(limited, "a", token) == [(job, "1/main")]
    assert value(limited, "select read_journal(%s, '1/main')", job) == []
    held = {"job": job, "task": "1/main", "token": token}
    assert value(limited, "select extend(%s)", json.dumps([held]))[0]["state"] == "held"
    turn = held | {"position": 0, "state": "done", "value": 1, "facts": [], "requests": []}
    answer = value(limited, "select advance(%s)", json.dumps([turn]))
    assert answer["turns"][0]["state"] == "done"
    assert value(owner, "select result from result(%s)", job) == 1


def test_limited_worker_can_run_pinned_versions_of_its_queues(
    owner: Connection, connect_as: ConnectAs
) -> None:
    job = started(owner, "a", "2")
    limited = connect_as("limited")
    hello = value(limited, "select register_worker('limited', '{a}', version => '2')")
    assert hello["queues"] == ["a@2", "a"]
    assert claimed(limited, "a@2", str(uuid4())) == [(job, "1/main")]
    assert error_code(limited, "select claim('{c@2}', 'limited')") == "PD115"


@pytest.mark.parametrize("queues", ["{c}", "{a,c}", "{a,NULL}", "{$sql}", "{A}", '{"a "}', "{''}"])
def test_limited_worker_cannot_claim_from_other_queues(
    owner: Connection, connect_as: ConnectAs, queues: str
) -> None:
    job = started(owner, "c")
    limited = connect_as("limited")
    refusal = "PD107" if "NULL" in queues else "PD115"
    assert error_code(limited, "select claim(%s, 'limited')", queues) == refusal
    query = "select advance('[]', %s, 'limited', max_tasks => 1)"
    assert error_code(limited, query, queues) == refusal
    if queues != "{$sql}":
        assert error_code(limited, "select register_worker('limited', %s)", queues) == refusal
    assert value(owner, "select state from waiting where job_id = %s", job) == "ready"


def test_limited_worker_runs_sql_hooks_only_if_granted_their_queue(
    secured: SecuredApp, owner: Connection, connect_as: ConnectAs
) -> None:
    """Every worker of the package asks for the queue `$sql`; a limited one works without it."""
    limited = connect_as("limited")
    assert value(limited, "select register_worker('limited', '{a,$sql}')")["queues"] == ["a"]
    assert error_code(limited, "select take_sql_task('limited', gen_random_uuid())") == "PD115"
    assert error_code(limited, "call run_sql_hooks()") == "PD115"
    role = secured.add_role("runs_sql")
    owner.execute("select grant_access(%s, 'worker', '{a,$sql}')", [role])
    runs_sql = connect_as("runs_sql")
    assert value(runs_sql, "select register_worker('other', '{a,$sql}')")["queues"] == ["a", "$sql"]
    assert error_code(runs_sql, "call run_sql_hooks()") is None
    owner.execute("select register_worker('of others', '{c}')")
    take = "select take_sql_task(%s, gen_random_uuid())"
    assert error_code(runs_sql, take, "of others") == "PD115"
    assert error_code(runs_sql, take, "other") is None


def leases(job: str, task: str, token: str) -> dict[str, tuple[str, list[Any]]]:
    """List every call by which the holder of a token can affect a lease."""
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
def test_leaked_token_is_useless_to_a_worker_of_other_queues(
    owner: Connection, connect_as: ConnectAs, verb: str
) -> None:
    desk, queue, token = f"desk of {verb}", f"c of {verb}", str(uuid4())
    owner.execute("select entity_create(%s, 'desk')", [desk])
    task = value(owner, "select hook(%s, 'h', queue => %s)", desk, queue)
    assert claimed(connect_as("worker"), queue, token) == [(desk, task)]
    before = owner.execute("select * from tasks where job_id = %s", [desk]).fetchall()
    query, values = leases(desk, task, token)[verb]
    assert error_code(connect_as("limited"), query, *values) == "PD115"
    assert owner.execute("select * from tasks where job_id = %s", [desk]).fetchall() == before
    runs_in_sql = verb in ("run_task", "time_out_task")
    assert error_code(connect_as("worker"), query, *values) == ("PD107" if runs_in_sql else None)


WITH_TOKENS = """
select p.proname::text
  from pg_proc as p
 where p.pronamespace = 'perdure'::regnamespace
   and has_function_privilege(%s::name, p.oid, 'execute')
   and p.proargnames && '{token,tasks,turns}'
   and p.proname <> 'take_sql_task'  -- it draws the token itself
"""


def test_list_of_calls_covers_every_verb_that_takes_a_token(
    secured: SecuredApp, owner: Connection
) -> None:
    found = owner.execute(WITH_TOKENS, [secured.role("worker")]).fetchall()
    assert {name for (name,) in found} == leases("", "", "").keys() - {"read_journal"}


@pytest.mark.parametrize("verb", sorted(leases("", "", "").keys() - {"read_journal"}))
def test_valid_token_is_rejected_for_another_held_task(
    owner: Connection, connect_as: ConnectAs, verb: str
) -> None:
    """[P6] (S7) The other task may belong to the same job or to another one."""
    worker, held = connect_as("worker"), []
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


def test_limited_worker_cannot_read_journals_of_ended_jobs(
    owner: Connection, connect_as: ConnectAs
) -> None:
    job = started(owner, "a")
    owner.execute("select terminate(%s)", [job])
    assert error_code(connect_as("limited"), "select read_journal(%s, '1/main')", job) == "PD001"
    assert error_code(connect_as("worker"), "select read_journal(%s, '1/main')", job) is None
    assert error_code(connect_as("reader"), "select read_journal(%s, '1/main')", job) is None


def test_limited_worker_cannot_switch_to_another_role(
    secured: SecuredApp, connect_as: ConnectAs
) -> None:
    """(S4) The role that logged in counts; neither SET ROLE nor settings help."""
    limited = connect_as("limited")
    for statement in (
        f"set role {secured.role('worker')}",
        f"set role {secured.role('owner')}",
        f"set session authorization {secured.role('owner')}",
    ):
        assert error_code(limited, statement) == "42501"
    limited.execute("set perdure.role = 'owner'; set application_name = 'owner'")
    assert error_code(limited, "select claim('{c}', 'limited')") == "PD115"


def test_member_of_a_limited_role_has_the_same_limits(
    secured: SecuredApp, connect_as: ConnectAs
) -> None:
    member = secured.add_role("member")
    with psycopg.connect(secured.url, autocommit=True) as admin:
        admin.execute(f"grant {secured.role('limited')} to {member}".encode())
    for role in ("", f"set role {secured.role('limited')}"):
        connection = connect_as("member")
        connection.execute(role.encode() or b"select")
        assert error_code(connection, "select claim('{b}', 'limited')") is None
        assert error_code(connection, "select claim('{c}', 'limited')") == "PD115"


def test_member_of_two_worker_roles_has_the_queues_of_both(
    secured: SecuredApp, owner: Connection, connect_as: ConnectAs
) -> None:
    both = secured.add_role("both")
    owner.execute("select grant_access(%s, 'worker', '{c}')", [both])
    connection = connect_as("both")
    assert error_code(connection, "select claim('{a,c}', 'limited')") == "PD115"
    with psycopg.connect(secured.url, autocommit=True) as admin:
        admin.execute(f"grant {secured.role('limited')} to {both}".encode())
    assert error_code(connection, "select claim('{a,c}', 'limited')") is None
    assert error_code(connection, "select claim('{d}', 'limited')") == "PD115"
    with psycopg.connect(secured.url, autocommit=True) as admin:
        admin.execute(f"grant {secured.role('worker')} to {both}".encode())
    assert error_code(connection, "select claim('{d}', 'limited')") is None


def test_claim_granted_by_hand_gives_no_queue(
    secured: SecuredApp, owner: Connection, connect_as: ConnectAs
) -> None:
    """Only grant_access() makes a role a worker; without it, no queue is allowed."""
    role = secured.add_role("by_hand")
    owner.execute(f"grant usage on schema perdure to {role}".encode())
    owner.execute(f"grant execute on function claim to {role}".encode())
    assert error_code(connect_as("by_hand"), "select claim('{a}', 'by hand')") == "PD115"


def test_changed_access_applies_to_open_sessions(
    secured: SecuredApp, owner: Connection, connect_as: ConnectAs
) -> None:
    role = secured.add_role("changing")
    owner.execute("select grant_access(%s, 'worker', '{c}')", [role])
    connection = connect_as("changing")
    assert error_code(connection, "select claim('{c}', 'changing')") is None
    owner.execute("select grant_access(%s, 'worker', '{d}')", [role])
    assert error_code(connection, "select claim('{c}', 'changing')") == "PD115"
    owner.execute("select grant_access(%s, 'worker')", [role])
    assert error_code(connection, "select claim('{c}', 'changing')") is None
    assert value(owner, "select revoke_access(%s)", role) is True
    assert error_code(connection, "select perdure.claim('{c}', 'changing')") == "42501"
    assert value(owner, "select revoke_access(%s)", role) is False


def test_limited_worker_cannot_replace_or_forget_foreign_workers(
    owner: Connection, connect_as: ConnectAs
) -> None:
    """[P6] Otherwise `register_worker()` and people would take its tasks for abandoned."""
    limited = connect_as("limited")
    owner.execute("select register_worker('theirs', '{a,c}')")
    seen = owner.execute("select * from workers where worker = 'theirs'").fetchall()
    assert error_code(limited, "select forget_worker('theirs')") == "PD115"
    assert error_code(limited, "select register_worker('theirs', '{a}')") == "PD115"
    assert owner.execute("select * from workers where worker = 'theirs'").fetchall() == seen
    limited.execute("select register_worker('own', '{a}')")
    limited.execute("select forget_worker('own')")
    limited.execute("select forget_worker('nobody')")
    owner.execute("select forget_worker('theirs')")
    assert value(owner, "select count(*) from workers where worker in ('own', 'theirs')") == 0


def test_row_of_a_lost_worker_keeps_nobody_from_its_name(
    owner: Connection, connect_as: ConnectAs
) -> None:
    """A worker with a fixed name that has crashed may come back with fewer queues."""
    owner.execute("select register_worker('crashed', '{a,c}')")
    owner.execute("update workers set seen_at = seen_at - interval '1 h' where worker = 'crashed'")
    connect_as("limited").execute("select register_worker('crashed', '{a}')")
    owner.execute("select forget_worker('crashed')")


def test_limited_worker_cannot_silence_foreign_workers(
    owner: Connection, connect_as: ConnectAs
) -> None:
    """[P11] A worker whose wish to be notified is withdrawn hears of no task, only finds it."""
    limited = connect_as("limited")
    owner.execute("select register_worker('theirs', '{c}')")
    owner.execute("select listen_for('c', 'theirs'), listen_for('$job/j', 'client')")
    assert error_code(limited, "select stop_listening('theirs')") == "PD115"
    assert error_code(limited, "select stop_listening('client')") is None
    listens = "select array_agg(l.listener) from listeners as l where l.listener in (%s, %s)"
    assert value(owner, listens, "theirs", "client") == ["theirs"]
    owner.execute("select stop_listening('theirs'), forget_worker('theirs')")
    assert value(owner, listens, "theirs", "client") is None


CLAIMS = (
    "select claim('{a}', 'theirs')",
    "select claim('{a}', 'theirs', idle => true)",
    "select advance('[]', '{a}', 'theirs', max_tasks => 1)",
)


@pytest.mark.parametrize("claim", CLAIMS)
def test_limited_worker_cannot_claim_under_the_name_of_a_foreign_worker(
    owner: Connection, connect_as: ConnectAs, claim: str
) -> None:
    """[P6] [P11] Tasks would seem to be held by that worker, which would seem to be alive; and a
    claim that finds a task withdraws the wish of its worker to be notified."""
    limited = connect_as("limited")
    owner.execute("select register_worker('theirs', '{c}'), claim('{c}', 'theirs', idle => true)")
    owner.execute("update workers set seen_at = seen_at - interval '1 h' where worker = 'theirs'")
    look = b"""select to_jsonb(w), array(select l::text from listeners as l
                                         where l.listener = w.worker)
                from workers as w where w.worker = 'theirs'"""
    before = owner.execute(look).fetchall()
    started(owner, "a")
    assert error_code(limited, claim) == "PD115"
    assert owner.execute(look).fetchall() == before
    value(limited, "select register_worker('own', '{a}')")
    assert error_code(limited, claim.replace("theirs", "own")) is None
    owner.execute("select forget_worker('theirs'), forget_worker('own')")


@pytest.mark.parametrize("role", ["limited", "client"])
def test_open_transaction_of_another_role_holds_up_no_worker(
    owner: Connection, connect_as: ConnectAs, role: str
) -> None:
    """A worker begins and ends to listen at each claim: nobody else may lock its rows."""
    other, worker = connect_as(role), connect_as("worker")
    worker.execute("set lock_timeout = '2 s'")
    value(worker, "select register_worker('theirs', '{c}')")
    value(worker, "select claim('{c}', 'theirs', idle => true)")
    listens = [
        "select listen_for('c', 'theirs')",
        "select listen_for('$messages/theirs', 'theirs')",
    ]
    if role == "client":
        value(owner, "select entity_create('watched', 'thing')")
        listens += ["select entity_watch('watched', 'theirs')"]
    for listen in listens:
        with other.transaction(force_rollback=True):
            assert error_code(other, listen) == "PD115"
    job = started(owner, "c")
    for listen in listens:
        other.execute("begin")
        error_code(other, listen)
        value(worker, "select claim('{c}', 'theirs', idle => true)")
        other.execute("rollback")
    assert error_code(other, "select listen_for('c', 'own')") is None
    value(owner, "select terminate(%s)", job)
    owner.execute("select stop_listening('own'), forget_worker('theirs')")


def test_limited_worker_cannot_take_the_name_of_a_worker_that_registers_at_the_same_time(
    owner: Connection, connect_as: ConnectAs
) -> None:
    """[P6] It waits for the other registration, and is refused once that is committed."""
    limited = connect_as("limited")
    with ThreadPoolExecutor(1) as pool:
        with owner.transaction():
            owner.execute("select register_worker('new', '{c}')")
            late = pool.submit(error_code, limited, "select register_worker('new', '{a}')")
            pid = limited.info.backend_pid
            wait_until(lambda: value(owner, "select cardinality(pg_blocking_pids(%s))", pid) > 0)
        assert late.result(20) == "PD115"
    assert value(owner, "select queues from workers where worker = 'new'") == ["c"]
    owner.execute("select forget_worker('new')")
