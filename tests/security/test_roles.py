"""Workers, clients and readers can do all their work with roles that have no right on any table."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest

import perdure
from perdure.installation.install import install, reload_functions
from tests.security.secured import KINDS, Connection, SecuredApp
from tests.security.test_queues_of_workers import claimed, error_code, started, value

ConnectAs = Callable[[str], Connection]
T = "20 s"


def program() -> perdure.App:
    """Return an app that uses everything that coordinators, hooks and activities can do."""
    app = perdure.App()

    @app.activity
    async def double(number: int) -> int:
        await perdure.publish("numbers", number)
        return number * 2

    @app.transaction
    async def note(connection: Any, number: int) -> int:
        await connection.execute("select 1")
        return number

    @app.hook
    async def reads(memory: perdure.AsyncEntity, key: str) -> Any:
        await memory.log([key], "read")
        return await memory.get(key)

    @app.coordinator
    async def child(memory: perdure.AsyncEntity, number: int) -> int:
        return number + await double(number)

    @app.coordinator
    async def flow(memory: perdure.AsyncEntity) -> Any:
        await memory.set(await double(2), "doubled")
        await perdure.sleep("10 ms")
        await memory.set(await perdure.child(child, 3), "child")
        signal = await perdure.wait_for("go")
        until = await memory.until("$.open == true")
        return [await reads(memory, "doubled"), await note(5), signal, until > 0]

    return app


def state_of(secured: SecuredApp, handle: perdure.Handle, seconds: float) -> str:
    """Describe the state of a job for which a wait has failed."""
    looks = (
        "select t::text from perdure.timeline(%(job)s) as t",
        "select i::text from perdure.stream_items(%(job)s, 'numbers') as i",
        "select t::text from perdure.tasks as t where t.due_at < now() or t.job_id = %(job)s",
        "select s::text from pg_stat_activity as s where s.datname = current_database()",
    )
    with psycopg.connect(secured.url) as connection:
        rows = [connection.execute(look.encode(), {"job": handle.id}).fetchall() for look in looks]
    return f"after {seconds:.1f} s: {handle.status()}\n" + "\n".join(
        f"{look}:\n" + "\n".join(text for (text,) in found)
        for look, found in zip(looks, rows, strict=True)
    )


def test_program_runs_without_any_right_on_a_table(
    secured: SecuredApp, connect_as: ConnectAs
) -> None:
    owner = connect_as("owner")
    owner.execute("""
        create function perdure.count_up(job text, args jsonb) returns jsonb language plpgsql as $$
        begin return to_jsonb(perdure.entity_increment(job, 'n')); end $$""")
    owner.execute("select register_sql_hook('count up', 'count_up', timeout => '5 s')")
    with (
        perdure.Worker(program(), dsn=secured.dsn("worker")),
        perdure.connect(secured.dsn("client")) as client,
    ):
        handle = client.start("flow", id="whole", entity="flow")
        handle.signal("go", {"by": "client"})
        handle.memory.set(True, "open")
        began = time.monotonic()
        published = [item.item for item in handle.stream("numbers", timeout=T)]
        assert published == [2], state_of(secured, handle, time.monotonic() - began)
        assert handle.result(T) == [4, 5, {"by": "client"}, True]
        assert handle.memory.get() == {"doubled": 4, "child": 9, "open": True}
        assert [found.id for found in client.find("flow", {"doubled": 4})] == ["whole"]
        client.create_entity("note-1", "note", {"n": 1})
        assert client.entity("note-1").increment("n") == 2
        client.handle("note-1").hook("count up", queue="$sql")
        assert client.entity("note-1").until("$.n == 3", timeout=T) > 0
        child = client.send(client.calls.family("whole", 10))[1][0]
        assert client.send(client.calls.origins([child]))[child].parent == "whole"
        for refused in (handle.terminate, handle.pause, lambda: client.set_queue("default")):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                refused()
    with perdure.connect(secured.dsn("reader")) as reader:
        handle = reader.handle("whole")
        assert handle.status().status == "completed"
        assert handle.memory.get("child") == 9
        assert [change.version for change in handle.memory.history()][:1] == [1]
        for refused in (handle.cancel, lambda: handle.memory.set(1, "n")):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                refused()


def wait_in_every_way(handle: perdure.Handle[Any], gate: Callable[[], object]) -> list[Any]:
    """Wait in every way, before there is anything to wait for, and return what arrives."""
    waits: list[Callable[[], Any]] = [
        lambda: handle.memory.until("$.n == 1", timeout=T),
        lambda: [item.item for item in handle.stream("words", timeout=T)],
        lambda: [change.op for change in handle.memory.watch(after=1, timeout="1 s")],
        lambda: handle.result(T),
    ]
    with ThreadPoolExecutor() as threads:
        running = [threads.submit(wait) for wait in waits]
        time.sleep(0.3)  # until each has looked once and begun to wait
        gate()
        *outcomes, end = running
        return [*(wait.result() for wait in outcomes), type(end.exception()).__name__]


async def wait_in_every_way_async(
    handle: perdure.AsyncHandle[Any], gate: Callable[[], object]
) -> list[Any]:
    """Wait in every way with an async client."""

    async def words() -> list[Any]:
        return [item.item async for item in handle.stream("words", timeout=T)]

    async def changes() -> list[str]:
        return [change.op async for change in handle.memory.watch(after=1, timeout="1 s")]

    waits = [handle.memory.until("$.n == 1", timeout=T), words(), changes(), handle.result(T)]
    running = asyncio.gather(*waits, return_exceptions=True)
    await asyncio.sleep(0.3)
    await asyncio.to_thread(gate)
    *outcomes, end = await running
    return [*outcomes, type(end).__name__]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("role", ["client", "reader", "reader without a channel"])
def test_every_role_that_may_read_may_wait(
    secured: SecuredApp, connect_as: ConnectAs, role: str, is_async: bool
) -> None:
    """A reader cannot register as a listener, since that writes a row. It polls, as does a role
    that may not know the channel."""
    owner, (kind, *without) = connect_as("owner"), role.split(maxsplit=1)
    job = str(uuid4())
    owner.execute("select start('reads aloud', id => %s, context => '{\"n\": 0}')", [job])
    right = f"execute on function channel() {{}} {secured.role(kind)}"

    def gate() -> None:
        owner.execute("select entity_log(%s, 'words', '\"hello\"')", [job])
        owner.execute("select entity_set(%s, '1', 'n')", [job])
        owner.execute("select terminate(%s)", [job])

    async def main() -> list[Any]:
        async with perdure.connect_async(secured.dsn(kind)) as client:
            return await wait_in_every_way_async(client.handle(job), gate)

    if without:
        owner.execute(f"revoke {right.format('from')}".encode())
    try:
        if is_async:
            outcomes = asyncio.run(main())
        else:
            with perdure.connect(secured.dsn(kind)) as client:
                outcomes = wait_in_every_way(client.handle(job), gate)
    finally:
        if without:
            owner.execute(f"grant {right.format('to')}".encode())
    assert outcomes == [3, ["hello"], ["log", "set"], "JobCancelled"]
    listeners_left = owner.execute("select * from listeners where topic like %s", [f"%{job}"])
    assert listeners_left.fetchall() == []


def test_limited_worker_runs_only_jobs_of_its_queue(secured: SecuredApp) -> None:
    app = perdure.App()

    @app.activity
    async def double(number: int) -> int:
        return number * 2

    @app.coordinator(queue="a")
    async def own(memory: perdure.AsyncEntity) -> int:
        await memory.set(await double(2), "doubled")
        return await perdure.wait_for("go", type=int)

    with (
        perdure.connect(secured.dsn("client")) as client,
        perdure.Worker(app, dsn=secured.dsn("limited"), queues=["a"]),
    ):
        other = client.start(own, id="other", queue="c")
        handle = client.start(own, id="own")
        handle.signal("go", 1)
        assert handle.result(T) == 1
        assert handle.memory.get("doubled") == 4
        assert "queue c" in (other.status().waiting_for or "")
        other.cancel()


def test_worker_with_a_forbidden_queue_fails_to_start(secured: SecuredApp) -> None:
    refused = perdure.Worker(perdure.App(), dsn=secured.dsn("limited"), queues=["a", "c"])
    with pytest.raises(perdure.QueueNotYours), refused:
        pass


# Queries for everything that a reader may read.
READ = [
    "select w::text from waiting as w",
    "select h::text from history as h",
    "select s::text from schedules as s",
    "select i::text from indexes as i",
    "select t::text from timeline(%(job)s) as t",
    "select s::text from status(%(job)s) as s",
    "select f::text from family(%(job)s) as f",
    "select r::text from recording_of(%(job)s) as r",
    "select r::text from running_coordinators('', 100) as r",
    "select read_journal(%(job)s, '1/main')::text",
    "select q::text from queue_depths() as q",
    "select task_reason(%(job)s, '1/main')",
    "select a::text from assert_invariants() as a",
]


def test_token_is_shown_only_to_the_worker_that_claims(
    secured: SecuredApp, connect_as: ConnectAs
) -> None:
    """(S19) Views, journals, notifications and errors do not contain it."""
    owner, worker, client, reader = map(connect_as, ("owner", "worker", "client", "reader"))
    job, token = started(owner, "secret"), str(uuid4())
    listener = connect_as("nobody")
    channel = value(owner, "select channel()")
    listener.execute(f'listen "{channel}"'.encode())
    client.execute("select entity_watch(%s, 'my ear')", [job])
    client.execute("select listen_for('$job/' || %s, 'my ear')", [job])
    worker.execute("select claim('{secret,other}', 'idler', idle => true, max_tasks => 0)")
    assert claimed(worker, "secret", token) == [(job, "1/main")]
    client.execute("select entity_set(%s, '1', 'n')", [job])
    client.execute("select start('w', queue => 'other')")
    outcomes = [row[0] for query in READ for row in reader.execute(query.encode(), {"job": job})]
    assert len(outcomes) > len(READ) / 2
    assert [text for text in outcomes if text and token in text] == []
    with pytest.raises(psycopg.Error) as refused:
        worker.execute("select publish(%s, '1/main', %s, 's', '[1]')", [job, str(uuid4())])
    assert refused.value.sqlstate == "PD001"
    assert token not in str(refused.value) + (refused.value.diag.message_detail or "")
    owner.execute("select terminate(j.id) from jobs as j where j.status = 'running'")
    heard = {note.payload for note in listener.notifies(timeout=0.5, stop_after=None)}
    assert {f"$memory/{job}", f"$job/{job}"} <= heard
    assert heard <= {f"$memory/{job}", f"$job/{job}", "secret", "other"}


def test_monitor_can_read_states_but_no_payload(connect_as: ConnectAs) -> None:
    owner, monitor = connect_as("owner"), connect_as("monitor")
    job = value(owner, "select id from start('w', '[\"secret\"]', queue => 'm', context => %s)",
                json.dumps({"secret": "secret"}))  # fmt: skip
    assert value(monitor, "select state from waiting where job_id = %s", job) == "ready"
    assert value(monitor, "select ready from queue_depths('m')") == 1
    for query in (
        "select * from waiting",
        "select progress from waiting",
        "select waits_for from waiting",
        "select * from history",
        "select waits_for from schedules",
    ):
        assert error_code(monitor, query) == "42501"
    owner.execute("select terminate(%s)", [job])


PLANTED = """
create temporary table jobs (id text, status text, context jsonb, version bigint);
create temporary table tasks (like jobs);
create temporary table access (role text, kind text, queues text[]);
create temporary table queues (like jobs);
insert into access values (session_user, 'worker', null);
create temporary table pg_roles (rolname name, oid oid);
create function pg_temp.clock() returns timestamptz language sql as 'select null::timestamptz';
create function pg_temp.raise_failure(f jsonb) returns void language sql as 'select null::void';
create function pg_temp.has_access(k text[]) returns boolean language sql as 'select true';
set search_path = pg_temp, perdure, pg_catalog;
"""


def test_objects_planted_in_the_search_path_are_ignored(
    secured: SecuredApp, connect_as: ConnectAs
) -> None:
    """(S1) (S2) Verbs ignore temporary tables and functions, even if the search path has them
    first."""
    owner, limited, client = connect_as("owner"), connect_as("limited"), connect_as("client")
    with psycopg.connect(secured.url, autocommit=True) as admin:
        admin.execute(f'grant temporary on database "{secured.prefix}" to public'.encode())
    for connection in (limited, client):
        connection.execute(PLANTED.encode())
    assert error_code(limited, "select perdure.claim('{c}', 'planter')") == "PD115"
    assert error_code(client, "select perdure.entity_set('not there', '1')") == "PD401"
    assert value(client, "select perdure.entity_create('real', 'thing', '{\"a\": 1}')")
    assert value(client, "select count(*) from pg_temp.jobs") == 0
    assert value(owner, "select context from jobs where id = 'real'") == {"a": 1}


def test_access_survives_reload_install_and_migrate(
    secured: SecuredApp, connect_as: ConnectAs
) -> None:
    owner, client = connect_as("owner"), connect_as("client")
    by_hand = secured.role("reader")
    owner.execute(f"grant execute on function pause to {by_hand}".encode())
    assert reload_functions(owner, "perdure") > 300
    assert install(owner, "perdure") == value(owner, "select migrate()")
    assert value(client, "select id from start('w', id => 'outlives', queue => 'x')") == "outlives"
    assert value(connect_as("reader"), "select pause('outlives')") is True
    assert value(connect_as("operator"), "select terminate('outlives')") is True
    owner.execute(f"revoke execute on function pause from {by_hand}".encode())


def test_upgrade_grants_new_verbs_to_existing_roles(
    secured: SecuredApp, connect_as: ConnectAs
) -> None:
    """The verb `signal` is made to look new, and the tables old; migrate() grants it."""
    owner, client = connect_as("owner"), connect_as("client")
    owner.execute(f"revoke execute on function signal from {secured.role('client')}".encode())
    assert error_code(client, "select signal('x', 'go')") == "42501"
    owner.execute("update migrations set version = '0.0.1'")
    owner.execute("select migrate()")
    assert error_code(client, "select signal('x', 'go')") == "PD401"


def test_new_role_with_the_name_of_a_dropped_one_has_no_access(
    secured: SecuredApp, connect_as: ConnectAs
) -> None:
    owner = connect_as("owner")
    role = secured.add_role("passing")
    owner.execute("select grant_access(%s, 'client')", [role])
    secured.drop_role("passing")
    secured.stack.push(lambda *_: None)
    with psycopg.connect(secured.url, autocommit=True) as admin:
        admin.execute(f"create role {role} login password '{secured.prefix}'".encode())
    owner.execute("select restore_access()")
    assert error_code(connect_as("passing"), "select perdure.result('x')") == "42501"
    assert value(owner, "select revoke_access(%s)", role) is True


@pytest.mark.parametrize(("name", "queues"), [("heir", ["secret"]), ("heir_of_all", None)])
def test_new_role_with_the_name_of_a_dropped_one_has_no_queues(
    secured: SecuredApp, connect_as: ConnectAs, name: str, queues: list[str] | None
) -> None:
    """It gets the old queues neither through membership in another worker role nor with another
    kind, even if these were all queues."""
    owner = connect_as("owner")
    team, role = secured.add_role(f"team_of_{name}"), secured.add_role(name)
    owner.execute("select grant_access(%s, 'worker', '{shared}')", [team])
    owner.execute("select grant_access(%s, 'worker', %s)", [role, queues])
    with psycopg.connect(secured.url, autocommit=True) as admin:
        admin.execute(f"drop owned by {role}; drop role {role}".encode())
        admin.execute(
            f"create role {role} login password '{secured.prefix}' in role {team}".encode()
        )
    heir = connect_as(name)
    assert error_code(heir, "select claim('{shared}', 'heir')") is None
    assert error_code(heir, "select claim('{secret}', 'heir')") == "PD115"
    owner.execute("select grant_access(%s, 'client')", [role])
    assert error_code(heir, "select claim('{secret}', 'heir')") == "PD115"
    owner.execute("select grant_access(%s, 'worker', '{secret}')", [role])
    assert error_code(heir, "select claim('{shared,secret}', 'heir')") is None
    assert value(owner, "select revoke_access(%s)", role) is True
    assert value(owner, "select revoke_access(%s)", team) is True


@pytest.mark.parametrize("role", ["nobody", *KINDS])
def test_only_the_owner_can_grant_access(
    secured: SecuredApp, connect_as: ConnectAs, role: str
) -> None:
    """Even a role that was granted the verb itself cannot: the verb has no rights of its own."""
    owner, connection = connect_as("owner"), connect_as(role)
    target = secured.role(role)
    owner.execute(f"grant usage on schema perdure to {target}".encode())
    owner.execute(f"grant execute on function grant_access, refuse_argument to {target}".encode())
    assert error_code(connection, "select perdure.grant_access(%s, 'worker')", target) == "42501"
    owner.execute(f"revoke all on function grant_access, refuse_argument from {target}".encode())
    if role == "nobody":
        owner.execute("select revoke_access(%s)", [target])


@pytest.mark.parametrize(
    ("call", "refusal"),
    [
        ("start('$deadline')", "PD104"),
        ("entity_create('$schedule/mine', '$schedule')", "PD104"),
        ("hook(%(id)s, '$schedule', key => '$schedule', queue => '$sql')", "PD104"),
        ("entity_set(%(id)s, repeat('9', 400)::jsonb, 'n')", "PD304"),
        ("""entity_apply(%(id)s, '[{"op": "remove", "path": "n", "value": "0"}]')""", "PD103"),
        ("""entity_get(%(id)s, '"a"b')""", "PD101"),
        ("entity_meets(%(id)s, '$.n == $n')", "PD108"),
        ("""(list_items(after => '["1", 2, "x"]')).id""", "PD107"),
    ],
)
def test_rules_hold_however_a_session_reads_backslashes(
    connect_as: ConnectAs, call: str, refusal: str
) -> None:
    """Functions must have no plain literal with a backslash, whose meaning the caller's settings
    decide."""
    client = connect_as("client")
    client.execute("set escape_string_warning = off")
    for setting in ("on", "off"):
        client.execute(f"set standard_conforming_strings = {setting}".encode())
        job = str(uuid4())
        client.execute("select entity_create(%s, 'plain')", [job])
        with pytest.raises(psycopg.Error) as refused:
            client.execute(f"select {call}".encode(), {"id": job})
        assert refused.value.sqlstate == refusal, setting


def test_path_is_read_alike_however_a_session_reads_backslashes(connect_as: ConnectAs) -> None:
    client = connect_as("client")
    for setting in ("on", "off"):
        client.execute(f"set standard_conforming_strings = {setting}".encode())
        job = str(uuid4())
        client.execute("select entity_create(%s, 'plain')", [job])
        client.execute("select entity_set(%s, '1', %s)", [job, '"a\\\\b.\\"c".d'])
        history = "select path from entity_history(%s) where op = 'set'"
        assert value(client, history, job) == '"a\\\\b.\\"c".d'
        assert value(client, "select entity_get(%s)", job) == {'a\\b."c': {"d": 1}}
