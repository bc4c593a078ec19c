"""Keys that are missing, wrong, changed or lost, and values that are moved: no value is lost, and
no reader gets a value that was not written there."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

import perdure
from perdure import replaying
from tests.codec.programs import NEW, OLD, SECRET, app_with, codec, secret
from tests.codec.test_secrets import until_asked
from tests.patience import wait_until

T = "20 s"
ROOT = Path(__file__).parents[2]
Connection = psycopg.Connection[Any]
Connect = Callable[..., perdure.Client]
WRONG = bytes(reversed(OLD))


def until(connection: Connection, query: str, *given: Any) -> None:
    """Wait until a query is true."""
    end = time.monotonic() + 20
    while not (row := connection.execute(query.encode(), given).fetchone()) or not row[0]:
        assert time.monotonic() < end, query
        time.sleep(0.02)


# Workers and clients without the key.


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (None, "there is no codec here"),
        (codec("new", new=NEW), "the key 'old', which this codec does not know"),
        (codec(old=WRONG), "cannot be decrypted"),
    ],
    ids=["no codec", "another key", "wrong key"],
)
def test_task_waits_for_a_worker_with_its_key(
    connection: Connection, client: perdure.Client, work: Any, other: Any, why: str, dsn: str
) -> None:
    """[P10] A worker without the key loses no attempt, delays no other job, and records what is
    wrong."""
    job = client.start("child", secret("query"), id="sealed", context={"notes": secret("known")})
    without = app_with(other)

    @without.coordinator
    async def plain(memory: perdure.AsyncEntity) -> str:
        return "done"

    given_back = "select failure ->> 'message', attempt, deliveries, stuck_reason from tasks"
    # If a worker stops before the answer to its claim arrives, the claim is kept until the lease
    # ends.
    with perdure.Worker(without, dsn=dsn, poll=0.1, lease=1):
        assert connection.execute("select start('plain', id => 'plain')").fetchone()
        until(connection, "select status = 'completed' from jobs where id = 'plain'")
        until(connection, "select failure is not null from tasks where job_id = 'sealed'")
        time.sleep(0.6)  # the task is claimed and given back again
        row = None
        while row is None:
            query = f"{given_back} where token is null"
            row = connection.execute(query.encode()).fetchone()
    assert why in row[0]
    assert row[1:] == (0, 0, None)
    assert SECRET not in str(job.status())
    work()  # a new worker wakes tasks that others could not decrypt
    assert job.result(timeout=T) == f"{secret('query')}, {secret('known')}"


def test_signal_that_cannot_be_decrypted_stops_only_its_task(
    connection: Connection, client: perdure.Client, client_with: Connect, work: Any
) -> None:
    """[P5] The task is given back, the signal stays in the inbox, and another job completes
    meanwhile."""
    wrong = client_with(codec(old=WRONG))
    job = client.start("waiter", secret("mine"), id="w")
    worker = work(lease=1)
    until(connection, "select token is null and due_at = 'infinity' from tasks")
    wrong.handle("w").signal("go", secret("sealed with another key"))
    given_back = "failure ->> 'code' = 'PD114' and token is null and attempt = 0 and deliveries = 0"
    until(connection, f"select {given_back} from tasks")
    assert connection.execute(
        "select count(*) from inbox where consumed_at is null"
    ).fetchone() == (1,)
    client.start("waiter", secret("other"), id="x").signal("go", 1)
    assert client.handle("x").result(timeout=T) == [secret("other"), 1]
    worker.stop()
    connection.execute("select move_clock('2 min')")
    with pytest.raises(perdure.SealBroken):
        list(wrong.handle("w").timeline())
    connection.execute("delete from inbox where job_id = 'w'")
    job.signal("go", secret("right"))
    work()
    assert job.result(timeout=T) == [secret("mine"), secret("right")]


READS: list[Callable[[perdure.Client], Any]] = [
    lambda client: client.entity("jane").get(),
    lambda client: client.entity("jane").get("notes"),
    lambda client: client.entity("jane").history(),
    lambda client: client.find("patient"),
    lambda client: client.handle("bad").result(timeout=0),
    lambda client: list(client.handle("bad").timeline()),
]


def test_client_without_the_key_gets_an_error_with_a_hint(
    client: perdure.Client, client_with: Connect, work: Any, app: perdure.App
) -> None:
    """A client without the key can still read values that are not encrypted."""
    work()
    document = {"notes": secret("a note"), "status": "open"}
    memory = client.create_entity("jane", "patient", document)
    job = client.start("bad_child", secret("why"), id="bad")
    with pytest.raises(perdure.JobFailed):
        job.result(timeout=T)
    for other, error, hint in (
        (None, perdure.ValueSealed, "connect(codec=…)"),
        (codec("new", new=NEW), perdure.ValueSealed, "Add the key"),
        (codec(old=WRONG), perdure.SealBroken, "right key"),
    ):
        stranger = client_with(other)
        for read in READS:
            with pytest.raises(error) as refused:
                read(stranger)
            assert hint in str(refused.value.hint)
        assert stranger.entity("jane").get("status") == "open"
    assert memory.get() == document


def test_replay_without_the_key_raises_value_sealed(
    client: perdure.Client, app: perdure.App, work: Any
) -> None:
    """[P9] A replay without the key does not report a difference."""
    work()
    client.start("waiter", secret("x"), id="w").signal("go", secret("y"))
    client.handle("w").result(timeout=T)
    recording = replaying.recording_of(client, "w")
    ((_, difference),) = replaying.replay(app, [recording])
    assert difference is None
    ((_, error),) = replaying.replay(app_with(None), [recording])
    assert isinstance(error, perdure.ValueSealed)


def test_encrypted_runs_replay_with_the_key(
    client: perdure.Client, app: perdure.App, work: Any
) -> None:
    """[P9] A later run of a job, its fork and its children replay without a difference."""
    work(cache=0)
    client.start("everything", secret("q"), id="all").signal("from outside", secret("out"))
    until_asked(client)
    client.fork("all", "fork").signal("from outside", secret("out"))
    while len(items := client.items()) < 2:
        time.sleep(0.02)
    for item in items:
        item.resolve(secret("in"))
    for job in ("all", "fork"):
        client.handle(job).result(timeout=T)
    children = [each.id for each in client.handle("all").children()]
    assert len(children) == 2
    recorded = [replaying.recording_of(client, job) for job in ("all", "fork", *children)]
    assert [wrong for _, wrong in replaying.replay(app, recorded)] == [None] * 4


def test_command_line_shows_envelopes_and_replays_with_the_apps_codec(
    client: perdure.Client, work: Any, dsn: str
) -> None:
    """[P9] The command line has no keys of its own."""
    work()
    client.start("waiter", secret("x"), id="w").signal("go", secret("y"))
    client.handle("w").result(timeout=T)
    paths = os.pathsep.join([str(ROOT / "python"), str(ROOT)])
    environment = os.environ | {"PERDURE_DATABASE_URL": dsn, "PYTHONPATH": paths}
    for arguments, told in (
        (["replay", "tests.codec.programs:app", "--job", "w"], "1 journals replayed, 0 different"),
        (["timeline", "w"], "$c1:old:"),
    ):
        command = [sys.executable, "-m", "perdure", *arguments]
        printed = subprocess.check_output(command, env=environment, text=True, timeout=60)
        assert told in printed
        assert SECRET not in printed


# A new key.


def test_key_can_be_changed_while_jobs_run(
    connection: Connection, client: perdure.Client, client_with: Connect, work: Any
) -> None:
    """Requests keep their hashes, and new values have the new key."""
    both = codec("new", old=OLD, new=NEW)
    job = client.start("waiter", secret("before"), id="w")
    app = app_with(codec())

    @app.coordinator
    async def long(memory: perdure.AsyncEntity, query: str) -> list[Any]:
        found = await app.activities["look"](query)
        hook = await app.hooks["gathers"](memory, query)
        return [found, hook, await perdure.wait_for("go"), await memory.get("found")]

    old = work(app)
    client.start("long", secret("q"), id="long")
    until(connection, "select awaits = '{go}' and token is null from tasks where job_id = 'long'")
    old.stop()
    later = app_with(both)
    later.coordinators["long"] = app.coordinators["long"]
    app.activities, app.hooks = later.activities, later.hooks
    work(later)
    newer = client_with(both)
    newer.handle("long").signal("go", secret("after"))
    newer.handle("w").signal("go", secret("after"))
    assert newer.handle("w").result(timeout=T) == [secret("before"), secret("after")]
    found = {"found": secret(secret("q")), "n": 1.5}
    told = newer.handle("long").result(timeout=T)
    assert told == [found, {"gathered": found}, secret("after"), {"by": found["found"]}]
    with pytest.raises(perdure.ValueSealed):  # its result has the new key
        job.result(timeout=T)


def test_hook_does_not_repeat_activities_after_a_change_of_keys(
    connection: Connection, client: perdure.Client, client_with: Connect, work: Any, dsn: str
) -> None:
    """[P4] A recorded activity of a hook does not run again under a new key."""
    done: list[str] = []

    def with_codec(given: Any) -> perdure.App:
        app = perdure.App(codec=given)

        @app.activity
        async def counted(what: str) -> int:
            done.append(what)
            return len(done)

        @app.hook
        async def waits(memory: perdure.AsyncEntity, what: str) -> list[Any]:
            return [await counted(what), await perdure.wait_for("go"), await counted(what + "!")]

        @app.coordinator
        async def asks(memory: perdure.AsyncEntity, what: str) -> Any:
            return await waits(memory, what)

        return app

    worker = work(with_codec(codec()), queues=["default"])
    client.start("asks", secret("x"), id="j")
    until(connection, "select token is null and awaits = '{go}' from tasks where kind = 'hook'")
    worker.stop()
    both = codec("new", old=OLD, new=NEW)
    work(with_codec(both), queues=["default"])
    newer = client_with(both).handle("j")
    newer.signal("go", 0)
    assert newer.result(timeout=T) == [1, 0, 2]
    assert done == [secret("x"), secret("x") + "!"]


def test_codec_can_be_added_while_jobs_run(
    connection: Connection, client: perdure.Client, client_with: Connect, work: Any
) -> None:
    """[P9] Plain values remain readable, and new values are encrypted."""
    plain = client_with(None)
    app = app_with(None)
    worker = work(app)
    plain.start("everything", "before", id="all")
    until(connection, "select exists (select from items)")
    worker.stop()
    work()
    client.handle("all").signal("from outside", secret("after"))
    client.items()[0].resolve(secret("after"))
    assert client.handle("all").result(timeout=T)["person"] == secret("after")
    row = connection.execute("select result #>> '{}' from jobs where id = 'all'").fetchone()
    assert row is not None
    assert row[0].startswith("$c1:old:")


# Values that were moved or changed.


def test_value_can_be_decrypted_only_at_its_place(
    connection: Connection, client: perdure.Client
) -> None:
    """A value that is copied to another memory or another field is refused."""
    fields = {"notes": secret("a"), "patient": {"name": secret("b")}}
    jane, john = (client.create_entity(name, "patient", fields) for name in ("jane", "john"))
    note = "(select context -> 'notes' from jobs where id = 'jane')"
    connection.execute(f"select entity_set('john', {note}, 'notes')".encode())
    connection.execute(f"select entity_set('jane', {note}, 'patient.name')".encode())
    connection.execute(f"select entity_set('jane', {note}, 'free')".encode())
    for broken in (
        lambda: john.get("notes"),
        lambda: jane.get("patient.name"),
        lambda: jane.get("free"),
        john.history,
    ):
        with pytest.raises(perdure.SealBroken, match="cannot be decrypted"):
            broken()
    assert jane.get("notes") == john.at(1, path="notes") == secret("a")


def test_binding_does_not_prevent_what_its_page_says(
    connection: Connection, client: perdure.Client
) -> None:
    """Somebody without the key can bring an older value back, write a plain one, and exchange
    values whose paths differ in numbers; no others."""
    numbered = {"1001": secret("a"), "2002": secret("b"), "a1": secret("c"), "a2": secret("d")}
    jane = client.create_entity("jane", "patient", {"notes": {**numbered, "last": secret("old")}})
    jane.set(secret("new"), "notes.last")
    older = "(select entity_at('jane', 1, path => %s))"

    def bring(source: str, target: str) -> Any:
        put = f"select entity_set('jane', {older}, %s)"
        connection.execute(put.encode(), [source, target])
        return jane.get(target)

    assert bring("notes.last", "notes.last") == secret("old")
    assert bring("notes.2002", "notes.1001") == secret("b")
    with pytest.raises(perdure.SealBroken):
        bring("notes.a2", "notes.a1")
    connection.execute("select entity_set('jane', '\"plain\"', 'notes.a1')")
    assert jane.get("notes.a1") == "plain"


def test_values_swapped_between_jobs_are_refused(
    connection: Connection, client: perdure.Client, work: Any
) -> None:
    """Swapped signals, arguments and results: no task runs with values of another."""
    for job in ("a", "b"):
        client.start("waiter", secret(job), id=job)
        client.handle(job).signal("go", secret(f"to {job}"))
    swap = """update {0} as t set {1} = o.{1} from {0} as o
               where (t.{2}, o.{2}) in (('a', 'b'), ('b', 'a'))"""
    connection.execute(swap.format("inbox", "payload", "job_id").encode())
    work()
    until(connection, "select bool_and(failure ->> 'code' = 'PD114') from tasks")
    connection.execute(swap.format("inbox", "payload", "job_id").encode())
    connection.execute(swap.format("jobs", "args", "id").encode())
    connection.execute("select move_clock('2 min')")
    time.sleep(0.5)
    assert connection.execute("select count(*) from tasks").fetchone() == (2,)
    connection.execute(swap.format("jobs", "args", "id").encode())
    connection.execute("select move_clock('2 min')")
    assert client.handle("a").result(timeout=T) == [secret("a"), secret("to a")]
    assert client.handle("b").result(timeout=T) == [secret("b"), secret("to b")]
    connection.execute(swap.format("jobs", "result", "id").encode())
    with pytest.raises(perdure.SealBroken):
        client.handle("a").result(timeout=T)


def test_task_with_an_unreadable_answer_is_given_back_at_once(
    connection: Connection, client: perdure.Client, client_with: Connect, dsn: str
) -> None:
    """[P10] What the turn has recorded counts, and what runs for it ends. Otherwise the lease would
    be kept until its end."""
    asked: list[str] = []
    held: list[str] = []
    other = client_with(codec("new", new=NEW))

    def app_of(keys: Any) -> perdure.App:
        app = perdure.App(codec=keys)

        @app.activity
        async def ask() -> str:
            asked.append("ask")
            other.handle("asks").signal("go", secret("to you"))  # at once: it blocks the loop
            return secret("asked")

        @app.activity
        async def hold() -> None:
            held.append("held")
            try:
                await asyncio.sleep(0 if "ended" in held else 60)
            finally:
                held.append("ended")

        @app.coordinator
        async def asks(memory: perdure.AsyncEntity) -> Any:
            return await asyncio.gather(ask(), perdure.wait_for("go"), hold())

        return app

    job = client.start("asks", id="asks")
    with perdure.Worker(app_of(codec()), dsn=dsn, lease=60):
        until(connection, "select failure ->> 'code' = 'PD113' from tasks")
        wait_until(lambda: "ended" in held)
    with perdure.Worker(app_of(codec("old", old=OLD, new=NEW)), dsn=dsn):
        assert job.result(timeout=T) == [secret("asked"), secret("to you"), None]
    assert asked == ["ask"]


def test_signal_named_like_the_answer_of_its_sender_is_read_by_its_target(
    dsn: str, client: perdure.Client
) -> None:
    app = perdure.App(codec=codec())

    @app.hook
    async def reviews(memory: perdure.AsyncEntity) -> None:
        await perdure.signal("listens", "done", secret("to you"))
        await memory.signal("done", secret("to my asker"))

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await perdure.exec_hook(reviews, signal="done")

    @app.coordinator
    async def listens(memory: perdure.AsyncEntity) -> Any:
        return await perdure.wait_for("done")

    listening = client.start("listens", id="listens")
    asking = client.start("asks")
    with perdure.Worker(app, dsn=dsn):
        assert asking.result(timeout=T) == secret("to my asker")
        assert listening.result(timeout=T) == secret("to you")


@pytest.mark.parametrize("change", ["flip", "cut", "another key", "no base64"])
def test_changed_envelope_is_refused(
    connection: Connection, client: perdure.Client, change: str
) -> None:
    """An envelope that was changed is never decrypted to a value that was not written."""
    memory = client.create_entity("jane", "patient", {"notes": secret("a note")})
    row = connection.execute("select context ->> 'notes' from jobs").fetchone()
    assert row is not None
    start, key, data = row[0].rsplit(":", 2)
    changed = {
        "flip": f"{start}:{key}:{data[:30]}{'B' if data[30] == 'A' else 'A'}{data[31:]}",
        "cut": f"{start}:{key}:{data[:-4]}",
        "another key": f"{start}:{key}er:{data}",
        "no base64": f"{start}:{key}:{data}*",
    }[change]
    connection.execute("select entity_set('jane', %s, 'notes')", [Jsonb(changed)])
    if change == "no base64":
        assert memory.get("notes") == changed, "this is a text, not an envelope"
    else:
        with pytest.raises((perdure.SealBroken, perdure.ValueSealed)):
            memory.get()
