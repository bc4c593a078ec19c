"""Encrypted fields of memories: the commands that work on them, forks, and new keys."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure
from perdure.codecs import AesGcm
from perdure.testing import AsyncLab, Lab
from tests.amount import amount, seed
from tests.codec.programs import NEW, OLD, SECRET, secret
from tests.codec.test_keys import until
from tests.codec.test_secrets import rows_with, until_asked

T = "20 s"
ROOT = Path(__file__).parents[2]
RUN = """
import sys
import perdure
from tests.codec.programs import app_with, codec
perdure.Worker(app_with(codec()), dsn=sys.argv[1], lease=1, poll=0.1).run()
"""
Connection = psycopg.Connection[Any]
Connect = Callable[..., perdure.Client]


def test_commands_work_on_encrypted_fields(connection: Connection, client: perdure.Client) -> None:
    """[P3] set, merge, append, prepend, remove, set_if_not_exists, delete and restore work as
    usual."""
    memory = client.create_entity("jane", "patient", {"patient": {"name": secret("a"), "age": 7}})
    memory.merge({"patient": {"name": {"first": secret("b"), "last": secret("c")}}})
    memory.merge({"patient": {"name": {"last": secret("d")}}})
    name = {"first": secret("b"), "last": secret("d")}
    assert memory.get("patient") == {"age": 7, "name": name}
    memory.set(secret("e"), "patient.name")
    assert memory.set_if_not_exists("patient.name", "x") == secret("e")
    assert memory.append("notes", secret("1"), 2, 3.5, True, None, [], {}) == 7
    assert memory.prepend("notes", secret("0")) == 8
    assert memory.remove("notes", 1) == secret("1")
    assert memory.get("notes") == [secret("0"), 2, 3.5, True, None, [], {}]
    assert memory.get("notes.0") == memory.get("notes.-7") == secret("0")
    assert memory.delete("notes") == [secret("0"), 2, 3.5, True, None, [], {}]
    assert memory.append("visits", {"at": 1, "note": secret("f")}) == 1
    memory.set(secret("g"), "visits.0.note")
    assert memory.apply([{"op": "delete", "path": "visits"}]) == [[{"at": 1, "note": secret("g")}]]
    memory.restore(3)
    assert memory.get() == {"patient": {"age": 7, "name": name}}
    assert rows_with(connection, SECRET) == []
    row = connection.execute("select context #>> '{patient,age}' from jobs").fetchone()
    assert row == ("7",)


def test_commands_that_must_read_an_encrypted_field_are_refused(
    client: perdure.Client, app: perdure.App, work: Any
) -> None:
    """The refusal comes before the call is sent: increment would leave a plain number, and find()
    would find nothing."""

    @app.coordinator
    async def counts(memory: perdure.AsyncEntity) -> str:
        try:
            await memory.increment("notes.count")
        except perdure.WrongType as error:
            return error.message
        return "counted"

    @app.hook
    async def toggles(memory: perdure.AsyncEntity) -> str:
        try:
            await memory.toggle("notes.flag")
        except perdure.WrongType as error:
            return error.message
        return "toggled"

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        return await toggles(memory)

    work()
    memory = client.create_entity("jane", "patient", {"notes": {"count": 1, "flag": True}, "n": 1})
    for refused in (
        lambda: memory.increment("notes.count"),
        lambda: memory.toggle("notes.flag"),
        lambda: memory.apply([{"op": "increment", "path": "notes.count", "value": 1}]),
        lambda: memory.apply([{"op": "toggle", "path": "notes.flag"}]),
    ):
        with pytest.raises(perdure.WrongType, match="is encrypted"):
            refused()
    assert memory.increment("n") == 2
    assert client.start("counts").result(timeout=T) == (
        "increment does not work on notes.count, which is encrypted"
    )
    assert client.start("asks").result(timeout=T) == (
        "toggle does not work on notes.flag, which is encrypted"
    )
    for conditions in (
        {"notes.count": 1},
        {"$or": [{"n": 1}, {"patient.name": {"$exists": True}}]},
    ):
        with pytest.raises(perdure.InvalidArgument, match="is encrypted"):
            client.find("patient", conditions)
    orders: list[Any] = ["-notes.count", {"path": "patient.name", "search": "Jane"}]
    for order in orders:
        with pytest.raises(perdure.InvalidArgument, match="is encrypted"):
            client.find("patient", order_by=["$id", order])
    assert len(client.find("patient", order_by=["-$id", {"path": "n", "as": "number"}])) == 1
    assert len(client.find("patient", {"n": 2})) == 1


@pytest.mark.parametrize(
    "text", ["$c1:old:AAAAAAAAAAAAAAAAAAAAAAAA", "$c1:", "$c1:old:short", "$c1"]
)
def test_text_that_looks_like_an_envelope_is_read_as_written(
    connection: Connection, client: perdure.Client, client_with: Connect, text: str
) -> None:
    """This also holds for fields that are not encrypted; otherwise such a text would spoil a
    memory."""
    memory = client.create_entity("jane", "patient", {"free": text})
    memory.append("texts", text)
    assert memory.get() == {"free": text, "texts": [text]}
    plain = client_with(None).create_entity("john", "patient", {"free": text[:13]})
    assert plain.get("free") == text[:13]


def test_contract_applies_to_encrypted_fields(client: perdure.Client) -> None:
    """An encrypted text counts as a string, and rules for plain fields still apply."""
    schema = {"properties": {"notes": {"type": "string"}, "age": {"minimum": 0}}}
    client.define_contract("patient", schema)
    memory = client.create_entity("jane", "patient", {"notes": secret("a"), "age": 1})
    with pytest.raises(perdure.ContractBroken):
        memory.set([1], "notes")
    with pytest.raises(perdure.ContractBroken):
        memory.set(-1, "age")
    assert memory.get("notes") == secret("a")


def test_forks_of_forks_read_values_of_their_originals(
    connection: Connection, client: perdure.Client, app: perdure.App, work: Any
) -> None:
    """[P9] Forks read journal, arguments and memory of their originals, and their requests still
    match."""
    work(cache=0)
    client.start("everything", secret("q"), id="a", context={"notes": secret("first")})
    until_asked(client)
    client.fork("a", "b")
    b = client.entity("b")
    assert b.get("notes") == client.entity("a").get("notes")
    logged = [secret("logged"), {"text": secret("logged, too")}]
    assert b.get("log") == [each.item for each in b.items("log")] == logged
    assert [each.item for each in b.items("log", last=1)] == logged[-1:]
    b.set(secret("of b"), "notes")
    position = connection.execute("select position from tasks where job_id = 'b'").fetchone()
    assert position is not None
    client.fork("b", "c", at=0)
    assert client.entity("c").history()[0].argument["patient"]["name"] == secret("new name")
    client.fork("b", "d", context={"notes": secret("given")})
    assert client.entity("d").get() == {"notes": secret("given")}
    for job in ("a", "b", "d"):
        client.handle(job).signal("from outside", secret("out"))
    until(connection, "select count(distinct job_id) >= 3 from items where job_id in ('a','b','d')")
    for item in client.items():
        if item.job != "c":
            item.resolve(secret("in"))
    results = [client.handle(job).result(timeout=T) for job in ("a", "b", "d")]
    assert results[0]["look"] == results[1]["look"] == results[2]["look"]
    assert rows_with(connection, SECRET) == []
    assert "$c1:" not in str(client.entity("b").history())


def test_retried_job_has_its_encrypted_arguments(
    client: perdure.Client, app: perdure.App, work: Any
) -> None:
    """[P12] A retry runs with the last arguments, or with new ones."""

    @app.coordinator
    async def fails(memory: perdure.AsyncEntity, query: str) -> None:
        raise ValueError(query)

    work()
    job = client.start(fails, secret("one"), id="j")
    for given, told in ((None, "one"), ([secret("two")], "two"), (None, "two")):
        with pytest.raises(
            perdure.JobFailed, match=secret("one" if given or told == "one" else "two")
        ):
            job.result(timeout=T)
        assert job.retry(given)
        with pytest.raises(perdure.JobFailed, match=secret(told)):
            job.result(timeout=T)


def test_repeated_call_with_a_key_is_recognized(client: perdure.Client) -> None:
    """[P2] [P12] The value is encrypted twice, and still counts as the same; another value under
    the key is refused."""
    memory = client.create_entity("jane", "patient")
    assert memory.append("notes", secret("a"), key="k") == 1
    assert memory.append("notes", secret("a"), key="k") == 1
    with pytest.raises(perdure.KeyReused):
        memory.append("notes", secret("b"), key="k")
    assert memory.get("notes") == [secret("a")]
    batch = [{"op": "set", "path": "notes", "value": secret("c")}]
    assert memory.apply(batch, key="batch") == memory.apply(batch, key="batch")


def test_reseal_encrypts_a_memory_anew_while_others_write(
    connection: Connection, client: perdure.Client, client_with: Connect
) -> None:
    """Values get the new key, plain fields become encrypted, and no write of others is lost."""
    document = {
        "notes": [secret("a"), {"b": secret("b")}],
        "free": "plain",
        "n": 0,
        "p.q": {"r": 1},
    }
    old = client.create_entity("jane", "patient", document)
    both = AesGcm({"old": OLD, "new": NEW}, "new", memory=["notes", "free", '"p.q".r'])
    newer = client_with(both)
    assert newer.entity("jane").get() == document
    writing = threading.Thread(target=lambda: [old.increment("n") for _ in range(50)])
    writing.start()
    assert newer.reseal("jane") == 4
    writing.join()
    assert newer.reseal("jane") == 0
    only_new = client_with(AesGcm({"new": NEW}, "new"))
    assert only_new.entity("jane").get() == document | {"n": 50}
    row = connection.execute("select context::text from jobs").fetchone()
    assert row is not None
    assert "plain" not in row[0]
    assert "$c1:old:" not in row[0]
    with pytest.raises(perdure.ValueSealed):
        only_new.entity("jane").history()
    with pytest.raises(perdure.InvalidArgument):
        client_with(None).reseal("jane")


def test_crash_loses_no_encrypted_value(
    connection: Connection, client: perdure.Client, dsn: str, work: Any, app: perdure.App
) -> None:
    """[P2] [P4] [P6] A worker dies in the middle of a hook, and the next worker goes on with its
    values."""
    with codec_worker(dsn, "hook: before final flush:2"):
        handle = client.start("everything", secret("q"), id="all")
    work()
    handle.signal("from outside", secret("out"))
    until_asked(client).resolve(secret("in"))
    told = handle.result(timeout=T)
    assert (told["person"], told["outside"]) == (secret("in"), secret("out"))
    assert rows_with(connection, SECRET) == []


@contextmanager
def codec_worker(dsn: str, crash_at: str) -> Iterator[None]:
    """Run a worker in a process that dies at a crash point."""
    paths = os.pathsep.join([str(ROOT / "python"), str(ROOT)])
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": paths}
    environment["PERDURE_CRASH_AT"] = crash_at
    with subprocess.Popen([sys.executable, "-c", RUN, dsn], env=environment) as process:
        try:
            yield
            assert process.wait(timeout=20) != 0
        finally:
            process.kill()


def test_value_too_large_to_encrypt_fails_where_it_is_made(
    client: perdure.Client, app: perdure.App, work: Any
) -> None:
    """[P10] Encryption makes a value a third larger. The code that makes the value gets the error,
    and no task is stuck."""

    @app.activity
    async def makes(size: int) -> str:
        return "x" * size

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity, size: int) -> list[str]:
        told = []
        for ask in (
            lambda: makes(size),
            lambda: perdure.child("asks", "x" * size),
            lambda: perdure.ask_people("look", "x" * size),
        ):
            try:
                await ask()
            except (perdure.ActivityFailed, perdure.ValueTooLarge) as error:
                told.append(error.message)
        return told

    work()
    told = client.start(asks, 790_000).result(timeout=T)
    assert told == ["a value is too large to be encrypted"] * 3
    with pytest.raises(perdure.ValueTooLarge):
        client.start(asks, "x" * 790_000)


def test_async_client_reads_values_of_a_plain_client(
    dsn: str, client: perdure.Client, work: Any
) -> None:
    """An async client reads and reseals a fork of a job of the plain client."""
    work()
    client.start("waiter", secret("x"), id="w", context={"notes": secret("a note")})

    async def uses() -> None:
        both = AesGcm({"old": OLD, "new": NEW}, "new", memory=["notes"])
        async with await perdure.connect_async(dsn, codec=both) as other:
            await other.fork("w", "fork")
            memory = other.entity("fork")
            assert await memory.get("notes") == secret("a note")
            assert await other.reseal("fork") == 1
            assert await other.reseal("fork") == 0
            assert [each.argument for each in await memory.history("notes")] == [
                {"notes": secret("a note")},
                secret("a note"),
            ]

    asyncio.run(uses())
    client.handle("w").signal("go", secret("go"))
    assert client.handle("w").result(timeout=T) == [secret("x"), secret("go")]


def test_lab_has_the_codec_of_its_app(database: str, app: perdure.App) -> None:
    """Tests with a lab need no knowledge of the encryption."""
    with Lab(app, dsn=database) as lab:
        lab.client.create_entity("jane", "patient", {"notes": secret("a note")})
        job = lab.start("waiter", secret("x"))
        job.signal("go", secret("y"))
        assert lab.result(job) == [secret("x"), secret("y")]
        lab.check()
        assert lab.memory("jane").get("notes") == secret("a note")


def test_async_lab_has_the_codec_of_its_app(database: str, app: perdure.App) -> None:
    """[P9] The lab also checks that its jobs replay."""

    async def uses() -> None:
        async with AsyncLab(app, dsn=database) as lab:
            job = await lab.start("waiter", secret("x"))
            await job.signal("go", secret("y"))
            assert await lab.result(job) == [secret("x"), secret("y")]
            await lab.check()

    asyncio.run(uses())


@pytest.mark.stress
def test_encrypted_memories_behave_like_plain_ones(
    client: perdure.Client, client_with: Connect
) -> None:
    """[P3] Random commands give the same documents, answers, refusals and earlier versions."""
    chance = random.Random(seed())
    some = client_with(AesGcm({"old": OLD}, "old", memory=["a", "b.a", "c.b"]))
    memories = [
        opened.create_entity(name, "any", {"a": {"b": 1}, "c": [{"b": "x"}]})
        for name, opened in (("encrypted", some), ("plain", client_with(None)))
    ]
    for _ in range(amount(60)):
        path = [chance.choice(["a", "b", "c", 0, -1]) for _ in range(chance.randint(1, 3))]
        op, arguments = chance.choice(COMMANDS)(path, lambda: some_value(chance))
        told, wanted = (outcome(getattr(memory, op), arguments) for memory in memories)
        if told == "is encrypted":  # then the plain memory does not run the command either
            continue
        assert told == wanted, (op, arguments)
    ours, plain = memories
    assert ours.get() == plain.get()
    version = client.handle("plain").status().version
    assert [ours.at(n) for n in range(1, version + 1)] == [
        plain.at(n) for n in range(1, version + 1)
    ]
    assert ours.diff(1) == plain.diff(1)
    assert [(each.path, each.value) for each in ours.blame()] == [
        (each.path, each.value) for each in plain.blame()
    ]


COMMANDS: list[Callable[[Any, Callable[[], Any]], tuple[str, tuple[Any, ...]]]] = [
    lambda path, value: ("set", (value(), path)),
    lambda path, value: ("merge", ({"a": value(), "b": value()}, path)),
    lambda path, value: ("append", (path, value(), value())),
    lambda path, value: ("prepend", (path, value())),
    lambda path, _: ("remove", (path, 0)),
    lambda path, value: ("set_if_not_exists", (path, value())),
    lambda path, _: ("delete", (path,)),
    lambda path, _: ("get", (path,)),
]


def some_value(chance: random.Random, depth: int = 0) -> Any:
    """Draw a value."""
    kind = chance.randrange(8 if depth < 2 else 5)
    if kind < 5:
        return chance.choice(["", "text", "$c1:old:AAAA", 7, -1.5, True, False, None])
    if kind == 5:
        return [some_value(chance, depth + 1) for _ in range(chance.randrange(3))]
    return {key: some_value(chance, depth + 1) for key in chance.sample(["a", "b", "1"], 2)}


def outcome(command: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Return the answer to a command, or the kind of its refusal."""
    try:
        return command(*arguments)
    except perdure.PerdureError as error:
        return "is encrypted" if "is encrypted" in error.message else type(error)
