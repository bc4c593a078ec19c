"""Hooks in SQL, run by workers: called by type and by name, killed midway, run concurrently."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

import perdure
from perdure.workers.engine import Engine
from perdure.workers.side_connections import MAX_SIDE_CONNECTIONS
from perdure.workers.sql_hooks import SqlConnections
from tests.patience import wait_until
from tests.worker.processes import worker_process

T = "40 s"
Connection = psycopg.Connection[Any]
Work = Callable[..., perdure.Worker]

FUNCTIONS = """
create function public.add_up(job text, args jsonb) returns jsonb language plpgsql as $$
begin
    return entity_increment(job, 'n', coalesce(args ->> 0, args ->> 'add')::numeric);
end $$;
create function public.echo(job text, args jsonb) returns jsonb language plpgsql as $$
begin
    return jsonb_build_object('job', job, 'args', args);
end $$;
create function public.take_time(job text, args jsonb) returns jsonb language plpgsql as $$
begin
    perform entity_increment(job, 'begun');
    perform pg_sleep((args ->> 0)::numeric);
    return entity_increment(job, 'ended');
end $$;
create function public.kill_yourself(job text, args jsonb) returns void language plpgsql as $$
begin
    perform entity_increment(job, 'begun');
    perform pg_terminate_backend(pg_backend_pid());
    perform pg_sleep(60);
end $$;
"""


@dataclass
class Echo:
    """The answer of the hook `echo`."""

    job: str
    args: Any


add_up = perdure.sql_hook("add up", int)
echo = perdure.sql_hook("echo", Echo)
take_time = perdure.sql_hook("take time", int)
kill_yourself = perdure.sql_hook("kill yourself")


@pytest.fixture(autouse=True)
def functions(connection: Connection, client: perdure.Client) -> None:
    """Create the functions, and register them as hooks."""
    connection.execute(FUNCTIONS)
    for hook in (add_up, echo, take_time, kill_yourself):
        client.register_sql_hook(hook, f"public.{hook.name.replace(' ', '_')}", attempts=2)


def running(connection: Connection, count: int = 1) -> list[int]:
    """Wait until the database runs this many hooks, and give their processes."""
    query = """
        select pid from pg_stat_activity
         where query like '%run_task%' and wait_event = 'PgSleep'
           and datname = current_database()"""
    for _ in range(2000):
        found = [row[0] for row in connection.execute(query)]
        if len(found) == count:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{count} hooks never ran at a time")


# From Python.


def test_coordinator_calls_sql_hooks_by_type_and_by_name(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        await memory.set({"n": 0})
        added: int = await add_up(memory, 2)
        named = await perdure.exec_hook("add up", add=3, queue=perdure.SQL_QUEUE)
        echoed = await asyncio.gather(
            echo(memory), echo(memory, [1], None), echo(memory, a={"b": 1})
        )
        begun = add_up.start(5)
        perdure.start_hook(add_up, 100)
        return [added, named, [each.args for each in echoed], echoed[0].job, await begun]

    work()
    handle = client.start(asks, id="j")
    assert handle.result(T)[:4] == [2, 5, [[], [[1], None], {"a": {"b": 1}}], "j"]
    assert handle.memory.until("$.n == 110", timeout=T)


def test_plain_coordinator_and_hook_call_sql_hooks(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    @app.hook
    async def within(memory: perdure.AsyncEntity) -> int:
        return await add_up(memory, add=1)

    @app.coordinator
    def asks(memory: perdure.Entity) -> list[Any]:
        first: int = add_up(memory, 1)
        return [first, within(memory), add_up.start(1).result()]

    work()
    assert client.start(asks).result(T) == [1, 2, 3]


def test_a_failure_raises_where_it_is_awaited(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        try:
            await add_up(memory, "no number")
        except perdure.HookFailed as error:
            return [error.type, error.message]

    work()
    kind, message = client.start(asks).result(T)
    assert kind == "DatabaseError"
    assert "no number" in message


def test_client_requests_sql_hooks_through_a_handle(client: perdure.Client, work: Work) -> None:
    memory = client.create_entity("e", "note")
    client.handle("e").hook(add_up, 4, key="once")
    client.handle("e").hook(add_up, 4, key="once")
    work()
    assert memory.until("$.n == 4", timeout=T)
    with pytest.raises(perdure.InvalidArgument, match="outside of a coordinator"):
        add_up(memory, 1)


def test_hooks_are_registered_listed_and_dropped(
    client: perdure.Client, connection: Connection
) -> None:
    names = [hook.name for hook in client.sql_hooks()]
    assert names == ["add up", "echo", "kill yourself", "take time"]
    assert (client.sql_hooks()[0].schema, client.sql_hooks()[0].function) == ("public", "add_up")
    assert client.sql_hooks()[0].attempts == 2
    client.register_sql_hook(echo, "public.echo", timeout=2, within="1 h")
    assert client.sql_hooks()[1].timeout == timedelta(seconds=2)
    assert client.sql_hooks()[1].within == timedelta(hours=1)
    with pytest.raises(perdure.InvalidArgument):
        client.register_sql_hook(echo, "public.echo", within=0)
    assert client.drop_sql_hook(echo)
    assert not client.drop_sql_hook("echo")
    with pytest.raises(perdure.InvalidArgument):
        client.register_sql_hook("wrong", "perdure.clock")
    for nowhere in ("nowhere", "public.nowhere", "nowhere.nowhere"):
        with pytest.raises(perdure.InvalidArgument, match="no function for the hook 'nope'"):
            client.register_sql_hook("nope", nowhere)
    with connection.transaction(force_rollback=True):
        client.register_sql_hook("joins", "public.echo", connection=connection)
    assert "joins" not in [hook.name for hook in client.sql_hooks()]


async def listed(dsn: str) -> list[str]:
    async with await perdure.connect_async(dsn) as client:
        await client.register_sql_hook("again", "public.echo", retry_in="1 min")
        assert await client.drop_sql_hook("echo")
        return [hook.name for hook in await client.sql_hooks()]


def test_async_client_registers_lists_and_drops_hooks(dsn: str) -> None:
    assert asyncio.run(listed(dsn)) == ["add up", "again", "kill yourself", "take time"]


# Workers that are slow, killed or stopped.


def test_a_long_hook_outlives_its_lease(client: perdure.Client, work: Work) -> None:
    memory = client.create_entity("e", "note")
    client.handle("e").hook(take_time, 2.5)
    work(lease=0.6)
    work(lease=0.6)
    assert memory.until("$.ended > 0", timeout=T)
    assert memory.get() == {"begun": 1, "ended": 1}


def test_sql_hook_of_a_killed_worker_takes_effect_once(
    client: perdure.Client, connection: Connection, dsn: str
) -> None:
    """[P6] Its backend may run on. Whatever that does counts once."""
    memory = client.create_entity("e", "note")
    client.handle("e").hook(take_time, 1.5)
    with worker_process(dsn, lease=0.6) as process:
        running(connection)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with worker_process(dsn, lease=0.6):
        assert memory.until("$.ended > 0", timeout=T)
        client.handle("e").hook(add_up, 1)
        assert memory.until("$.n == 1", timeout=T)
    assert memory.get() == {"begun": 1, "ended": 1, "n": 1}


def test_sql_hook_whose_backend_is_killed_runs_again(
    client: perdure.Client, connection: Connection, work: Work
) -> None:
    memory = client.create_entity("e", "note")
    client.handle("e").hook(take_time, 1.0)
    work(lease=0.6)
    (pid,) = running(connection)
    connection.execute("select pg_terminate_backend(%s)", [pid])
    assert memory.until("$.ended > 0", timeout=T)
    assert memory.get() == {"begun": 1, "ended": 1}


def test_sql_hook_that_kills_its_backend_becomes_stuck(
    client: perdure.Client, connection: Connection, work: Work
) -> None:
    """[P10] Each delivery counts, since the claim commits before the hook runs. Others go on."""
    connection.execute("insert into settings (name, value) values ('max_deliveries', '2')")
    memory = client.create_entity("e", "note")
    other = client.create_entity("other", "note")
    client.handle("e").hook(kill_yourself, key="k")
    work(lease=0.6)
    query = "select stuck_reason ->> 'code' from tasks where job_id = 'e'"
    while connection.execute(query).fetchone() != ("PD305",):
        time.sleep(0.02)
    client.handle("other").hook(add_up, 1)
    assert other.until("$.n == 1", timeout=T)
    assert memory.get() == {}


def test_slow_sql_hooks_do_not_delay_hooks_of_other_jobs(
    client: perdure.Client, connection: Connection, work: Work
) -> None:
    for name in ("slow", "quick"):
        client.create_entity(name, "note")
    later = datetime.now(UTC) + timedelta(seconds=1)
    client.handle("slow").hook(take_time, 20)
    for _ in range(5):  # hooks of one job share one connection, even if they are due later
        client.handle("slow").hook(take_time, 20, due_at=later)
    work(grace=0)
    running(connection)
    held = "select count(*) from tasks where token is not null"
    while connection.execute(held).fetchone() != (6,):
        time.sleep(0.02)
    client.handle("quick").hook(add_up, 1)
    assert client.entity("quick").until("$.n == 1", timeout="10 s")
    for pid in running(connection):
        connection.execute("select pg_terminate_backend(%s)", [pid])


def test_worker_that_stops_during_an_sql_hook_gives_back_other_tasks(
    app: perdure.App, client: perdure.Client, connection: Connection, work: Work
) -> None:
    """The task of the hook itself is locked: the worker would have to wait to give it back."""

    @app.hook
    async def waits(memory: perdure.AsyncEntity) -> None:
        await asyncio.sleep(60)

    client.create_entity("e", "note")
    client.handle("e").hook(take_time, 20)
    client.create_entity("other", "note")
    client.handle("other").hook(waits)
    worker = work(grace=0, lease=60)
    running(connection)
    held = "select count(*) from tasks where job_id = 'other' and token is not null"
    while connection.execute(held).fetchone() != (1,):
        time.sleep(0.02)
    worker.stop()
    assert connection.execute(held).fetchone() == (0,)


def test_task_of_the_engine_that_arrives_when_its_worker_stops_is_carried_out(
    app: perdure.App, client: perdure.Client, connection: Connection, work: Work, monkeypatch: Any
) -> None:
    """Only the database can end it, so the worker cannot give it back in a turn of its own."""
    admit = Engine.admit

    def stops_first(engine: Engine, row: dict[str, Any]) -> None:
        if row["name"] == "$parent_end":
            engine.begin_stopping()
        admit(engine, row)

    @app.coordinator
    async def parent(memory: perdure.AsyncEntity) -> None:
        await perdure.child("nobody has it", id="child", queue="nowhere")

    monkeypatch.setattr(Engine, "admit", stops_first)
    worker = work(lease=60)
    client.start(parent, id="parent")
    wait_until(lambda: connection.execute("select 1 from jobs where id = 'child'").fetchone())
    client.handle("parent").terminate()
    ends = "select count(*) from tasks where name = '$parent_end'"
    wait_until(lambda: connection.execute(f"{ends} and token is null").fetchone() == (0,))
    worker.stop()
    assert connection.execute(ends).fetchone() == (0,)


def test_task_that_arrives_while_all_connections_end_gets_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection without further work has ended before anything else learns of it."""

    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        answered = loop.create_future()
        begun: list[str] = []

        async def run_one(connections: SqlConnections, link: Any, turn: Any) -> None:
            begun.append(turn.job)
            await answered

        monkeypatch.setattr(SqlConnections, "_run_one", run_one)
        engine: Any = SimpleNamespace(source=SimpleNamespace(), spawn=asyncio.ensure_future)
        connections = SqlConnections(engine)
        last: Any = SimpleNamespace(job="last")
        for number in range(MAX_SIDE_CONNECTIONS):
            turn: Any = SimpleNamespace(job=str(number))
            connections.run(turn)
        await asyncio.sleep(0.05)
        assert len(begun) == MAX_SIDE_CONNECTIONS
        answered.set_result(None)
        loop.call_soon(connections.run, last)
        await asyncio.sleep(0.05)
        await connections.close()
        return begun

    assert asyncio.run(scenario())[MAX_SIDE_CONNECTIONS:] == ["last"]


@pytest.mark.parametrize("name", ["take time", "wait for a lock"])
def test_sql_hook_that_times_out_is_interrupted_and_retried(
    app: perdure.App, client: perdure.Client, connection: Connection, work: Work, name: str
) -> None:
    """[P10] (E4) It is interrupted whatever it waits for, and its effects are undone."""
    connection.execute("create table public.locked ()")
    connection.execute("""
        create function public.wait_for_a_lock(job text, args jsonb) returns void language plpgsql
        as 'begin perform entity_increment(job, ''begun''); lock table public.locked; end'""")
    limits: Any = {"attempts": 2, "retry_in": "10 ms", "timeout": "300 ms"}
    client.register_sql_hook(name, f"public.{name.replace(' ', '_')}", **limits)

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        try:
            await perdure.exec_hook(name, 30, queue=perdure.SQL_QUEUE)
        except perdure.HookFailed as error:
            return [error.type, await memory.get()]

    began = time.monotonic()
    with connection.transaction():
        connection.execute("lock table public.locked")
        work()
        assert client.start(asks).result(T) == ["TimeoutError", {}]
    assert 0.6 < time.monotonic() - began < 10


def test_sql_hook_is_not_retried_beyond_its_limit_of_all_attempts(
    app: perdure.App, client: perdure.Client, work: Work
) -> None:
    """[P10] (E4) The hook fails with a TimeoutError, although it has many attempts left."""
    client.register_sql_hook(
        add_up, "public.add_up", attempts=100, retry_in="20 ms", within="200 ms"
    )

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        try:
            await add_up(memory, "no number")
        except perdure.HookFailed as error:
            return [error.type, error.message]

    work()
    assert client.start(asks).result(T) == [
        "TimeoutError",
        "hook add up was not done within 00:00:00.2",
    ]


# Without a worker.


def test_procedure_runs_due_sql_hooks(client: perdure.Client, connection: Connection) -> None:
    memory = client.create_entity("e", "note")
    for _ in range(5):
        client.handle("e").hook(add_up, 1)
    assert connection.execute("call run_sql_hooks(max_tasks => 3)").fetchone() == (3,)
    assert connection.execute("call run_sql_hooks(0)").fetchone() == (0,)
    with pytest.raises(psycopg.DatabaseError, match="must not be negative"):
        connection.execute("call run_sql_hooks(-1)")
    assert connection.execute("call run_sql_hooks(null)").fetchone() == (2,)
    assert connection.execute("call run_sql_hooks()").fetchone() == (0,)
    assert memory.get("n") == 5
    with connection.transaction(), pytest.raises(psycopg.errors.InvalidTransactionTermination):
        connection.execute("call run_sql_hooks()")


def test_procedure_counts_deliveries_that_kill_its_session(
    client: perdure.Client, connection: Connection, dsn: str
) -> None:
    """[P10] It commits its claim before it runs the hook."""
    connection.execute("insert into settings (name, value) values ('max_deliveries', '2')")
    client.create_entity("e", "note")
    client.handle("e").hook(kill_yourself, key="k")
    for _ in range(2):
        victim = psycopg.connect(dsn, autocommit=True)
        with pytest.raises(psycopg.OperationalError):
            victim.execute("call perdure.run_sql_hooks()")
        connection.execute("update tasks set due_at = clock() where token is not null")
    assert connection.execute("call run_sql_hooks()").fetchone() == (0,)
    query = "select stuck_reason ->> 'code', deliveries from tasks where job_id = 'e'"
    assert connection.execute(query).fetchone() == ("PD305", 3)
