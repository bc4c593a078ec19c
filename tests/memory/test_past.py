"""The past of a memory: each version of a random history can be read, compared and restored.

PERDURE_PAST_SEED repeats the histories of a failed run.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

import perdure
from perdure.basics.paths import parse_path
from perdure.clients.past import Difference
from perdure.embedded.server import Server
from perdure.errors import InvalidArgument
from perdure.installation.install import install

T = "40 s"
KEYS = ("a", "b", "c.d", "0", "-1", "")


def chances(count: int) -> list[random.Random]:
    seed = os.environ.get("PERDURE_PAST_SEED") or str(random.randrange(1_000_000))
    print(f"PERDURE_PAST_SEED={seed}")  # pytest shows it when the test fails
    return [random.Random(f"{seed} {number}") for number in range(count)]


# Random histories


def random_value(chance: random.Random, depth: int = 3) -> Any:
    kind = chance.randrange(8 if depth else 5)
    if kind < 2:
        return chance.randrange(5)
    if kind < 5:
        return chance.choice([None, True, "text", "", 1.5])
    if kind == 5:
        return [random_value(chance, depth - 1) for _ in range(chance.randrange(4))]
    return {
        chance.choice(KEYS): random_value(chance, depth - 1) for _ in range(chance.randrange(4))
    }


def random_object(chance: random.Random) -> dict[str, Any]:
    return {chance.choice(KEYS): random_value(chance) for _ in range(chance.randrange(5))}


def random_path(chance: random.Random, document: Any) -> list[str]:
    """Choose a path in a document, or one just outside."""
    place: list[str] = []
    while document and isinstance(document, dict | list) and chance.random() < 0.75:
        key: Any = chance.choice(
            list(document) if isinstance(document, dict) else range(len(document))
        )
        if isinstance(document, list) and chance.random() < 0.3:
            key -= len(document)
        document = document[key]
        place.append(str(key))
    return [*place, chance.choice(KEYS)] if chance.random() < 0.3 or not place else place


def change(chance: random.Random, memory: Any, connection: psycopg.Connection[Any]) -> None:
    """Change a memory by a random command; it may be refused."""
    document = memory.get()
    place = random_path(chance, document)
    if chance.random() < 0.05:
        text = Jsonb(random_object(chance))
        connection.execute("update jobs set context = %s where id = %s", [text, memory.id])
        return
    verb, arguments = chance.choice(
        [
            ("set", (random_value(chance), place)),
            ("set", (random_object(chance), "")),
            ("merge", (random_object(chance), place)),
            ("merge", (random_object(chance), "")),
            ("merge", (random_object(chance), "")),
            ("append", (place, random_value(chance), random_value(chance))),
            ("prepend", (place, random_value(chance))),
            ("remove", (place, chance.choice([0, 1, -1]))),
            ("increment", (place, chance.choice([1, -2, 0.5]))),
            ("toggle", (place,)),
            ("set_if_not_exists", (place, random_value(chance))),
            ("delete", (place,)),
            ("delete", (place,)),
            ("log", (place, random_value(chance))),
        ]
    )
    getattr(memory, verb)(*arguments)


def make_versions(
    chance: random.Random, memory: Any, connection: psycopg.Connection[Any], upto: int
) -> list[Any]:
    """Change a memory until it has a version; return the document of each version."""
    versions = [memory.get()]
    while len(versions) <= upto:
        try:
            change(chance, memory, connection)
        except (perdure.WrongType, perdure.InvalidValue):
            continue
        version, document = row_of(connection, memory.id)
        if version == len(versions):  # a plain UPDATE may change nothing
            versions.append(document)
    return versions


def row_of(connection: psycopg.Connection[Any], job: str) -> tuple[int, Any]:
    row = connection.execute("select version, context from jobs where id = %s", [job]).fetchone()
    assert row is not None
    return row[0], row[1]


def patched(old: Any, differences: list[Difference]) -> Any:
    """Apply differences to the old document."""
    whole = copy.deepcopy({"": old})
    for difference in sorted(differences, key=in_order):
        *way, last = ["", *parse_path(difference.path)]
        parent: Any = whole
        for key in way:
            parent = parent[int(key)] if isinstance(parent, list) else parent[key]
        if isinstance(parent, dict):
            assert (last in parent) == (difference.change != "added")
            parent[last] = difference.new
            if difference.change == "removed":
                del parent[last]
        elif difference.change == "removed":
            assert parent.pop() == difference.old
        elif difference.change == "added":
            assert len(parent) == int(last)
            parent.append(difference.new)
        else:
            assert parent[int(last)] == difference.old
            parent[int(last)] = difference.new
    return whole[""]


def in_order(difference: Difference) -> tuple[bool, int]:
    """Sort removals last and from the end, so that arrays grow and shrink at their ends."""
    last = parse_path(difference.path)[-1]
    index = int(last) if last.lstrip("-").isdigit() else 0
    is_removed = difference.change == "removed"
    return is_removed, -index if is_removed else index


@pytest.mark.parametrize("chance", chances(4))
def test_every_version_can_be_read_compared_and_restored(
    client: perdure.Client, connection: psycopg.Connection[Any], chance: random.Random
) -> None:
    """(C21) [P3] at(), diff() and restore() give back every version of a random history."""
    memory = client.create_entity("random", "note")
    versions = make_versions(chance, memory, connection, 230)
    for version, document in enumerate(versions):
        assert memory.at(version) == document, version

    for _ in range(30):
        old, new = chance.randrange(len(versions)), chance.randrange(len(versions))
        assert patched(versions[old], memory.diff(old, new)) == versions[new], (old, new)
    assert patched(versions[7], memory.diff(7)) == versions[-1]

    for _ in range(10):
        version = chance.randrange(len(versions))
        restored = memory.restore(version)
        assert memory.get() == versions[version] == memory.at(restored), version
        versions.append(versions[version])
    assert [c.version for c in memory.history(limit=2000)] == list(range(1, len(versions)))


@pytest.mark.parametrize("chance", chances(2))
def test_blame_names_the_last_change_in_history(
    client: perdure.Client, connection: psycopg.Connection[Any], chance: random.Random
) -> None:
    """(E9) The version that blame() names is in the history; later commands may have kept the
    value."""
    memory = client.create_entity("random", "note")
    make_versions(chance, memory, connection, 60)
    document = memory.get()
    for author in memory.blame():
        found: Any = document
        for key in parse_path(author.path):
            found = found[key]
        assert found == author.value
        changes = [c for c in memory.history(author.path) if c.op != "log"]
        assert author.version in [c.version for c in changes]
        # history() also lists commands with an index from the end, and commands that left the value
        # as it was.
        later = [
            c for c in changes if c.version > author.version and "-" not in c.path + author.path
        ]
        assert {c.op for c in later} <= {"set_if_not_exists", "merge"}


# The verbs in Python


@pytest.fixture
def plain(client: perdure.Client) -> Any:
    """Give a memory of six versions."""
    memory = client.create_entity("plain", "note", {"n": 1})
    memory.merge({"a": {"b": [1]}})
    assert memory.apply(
        [
            {"op": "increment", "path": "n", "value": 2},
            {"op": "append", "path": ["a", "b"], "value": (2, 3)},
            {"op": "delete", "path": "missing"},
        ],
        expected_version=2,
    ) == [3, 3, None]
    assert memory.log("events", {"x": 1}, 2) == 6
    return memory


def test_history_lists_changes(plain: Any) -> None:
    changes = plain.history()
    assert [(c.version, c.op, c.path, c.answer) for c in changes] == [
        (1, "set", "", 1),
        (2, "merge", "", 2),
        (3, "increment", "n", 3),
        (4, "append", "a.b", 3),
        (5, "delete", "missing", None),
        (6, "log", "events", 6),
    ]
    assert {c.task for c in changes} == {"$outside"}
    assert [c.version for c in plain.history(["a", "b"], after=2, limit=1)] == [4]


def test_at_diff_and_blame_read_versions(plain: Any) -> None:
    first, second, *_ = plain.history()
    assert plain.at(2) == {"n": 1, "a": {"b": [1]}}
    assert plain.at(2, path="a.b.0") == 1
    assert first.at < second.at
    assert plain.at(time=first.at) == {"n": 1}
    assert [(d.path, d.change, d.old, d.new) for d in plain.diff(2, 3)] == [("n", "changed", 1, 3)]
    assert [(b.path, b.value, b.version, b.op) for b in plain.blame("a")] == [
        ("a.b", [1, 2, 3], 4, "append")
    ]


def test_items_reads_a_log(plain: Any) -> None:
    assert [(i.version, i.place, i.item) for i in plain.items("events")] == [
        (6, 1, {"x": 1}),
        (6, 2, 2),
    ]
    assert plain.items("events", after=6) == []
    assert plain.get("events") == [{"x": 1}, 2]


def test_items_reads_a_log_from_its_end(plain: Any) -> None:
    """Page by page towards its beginning, and in the order of the log."""
    plain.log("events", *range(5))
    newest = plain.items("events", last=3)
    assert [(i.version, i.place, i.item) for i in newest] == [(7, 3, 2), (7, 4, 3), (7, 5, 4)]
    earlier = plain.items("events", last=3, before=newest[0])
    assert [i.item for i in earlier] == [2, 0, 1]
    first = plain.items("events", last=3, before=earlier[0])
    assert [i.item for i in first] == [{"x": 1}]
    assert plain.items("events", last=3, before=first[0]) == []
    assert plain.items("events", last=7) == plain.items("events")
    assert plain.items("events", last=2, before=(7, 2)) == earlier[:2]
    assert plain.items("events", last=1, before=7) == earlier[:1]
    assert plain.items("events", before=newest[0]) == first + earlier
    assert plain.items("events", last=9, after=6) == earlier[1:] + newest
    for wrong in ({"last": -1}, {"last": "3"}, {"last": 1, "before": "7"}, {"before": (7, 1, 2)}):
        with pytest.raises(InvalidArgument):
            plain.items("events", **wrong)


def test_restore_with_a_key_is_done_once(plain: Any) -> None:
    assert plain.restore(2, key="back") == 7
    assert plain.restore(2, key="back") == 7
    assert plain.get() == {"n": 1, "a": {"b": [1]}}


def test_mistakes_about_the_past_raise_specific_errors(plain: Any) -> None:
    with pytest.raises(perdure.VersionNotFound):
        plain.at(7)
    with pytest.raises(perdure.VersionNotFound):
        plain.restore(7)
    with pytest.raises(perdure.VersionConflict):
        plain.restore(1, expected_version=5)
    with pytest.raises(InvalidArgument):
        plain.at()
    with pytest.raises(InvalidArgument):
        plain.apply([{"path": "n"}])
    with pytest.raises(perdure.WrongType):
        plain.apply([{"op": "toggle", "path": "t"}, {"op": "toggle", "path": "n"}])
    assert plain.get("t") is None
    with pytest.raises(perdure.InvalidPath):
        plain.history("a..b")


def test_forgotten_memory_has_no_history(client: perdure.Client, plain: Any) -> None:
    assert client.forget("plain") is True
    assert client.forget("plain") is False
    with pytest.raises(perdure.JobNotFound):
        plain.history()


def test_async_client_has_the_verbs_about_the_past(dsn: str) -> None:
    async def run() -> None:
        async with await perdure.connect_async(dsn) as client:
            memory = await client.create_entity("async", "note", {"n": 1})
            assert await memory.apply([{"op": "increment", "path": "n", "value": 1}]) == [2]
            assert await memory.log("l", 1) == 3
            assert [c.version for c in await memory.history()] == [1, 2, 3]
            assert await memory.at(1) == {"n": 1}
            assert [d.path for d in await memory.diff(1)] == ["n"]
            assert [b.version for b in await memory.blame()] == [2]
            assert [i.item for i in await memory.items("l")] == [1]
            assert [i.item for i in await memory.items("l", last=1, before=(3, 2))] == [1]
            assert await memory.restore(1) == 4
            assert await client.forget("async") is True

    asyncio.run(run())


def test_verbs_about_the_past_join_the_callers_transaction(
    client: perdure.Client, dsn: str
) -> None:
    client.create_entity("open", "note", {"n": 1})
    with psycopg.connect(dsn) as connection:
        memory = client.entity("open", connection=connection)
        memory.apply([{"op": "increment", "path": "n", "value": 1}])
        memory.restore(1)
        assert [c.version for c in memory.history()] == [1, 2, 3]
        connection.rollback()
    assert [c.version for c in client.entity("open").history()] == [1]


def test_running_job_cannot_be_forgotten(client: perdure.Client) -> None:
    handle = client.start("nobody-runs-this", id="alive")
    with pytest.raises(perdure.JobAtWork):
        client.forget("alive")
    handle.terminate()
    assert client.forget("alive") is True


def test_forget_finished_removes_old_jobs_in_batches(
    client: perdure.Client, connection: psycopg.Connection[Any]
) -> None:
    now = datetime.now(UTC)
    for job, days in (("oldest", 9), ("older", 8), ("young", 1), ("running", None)):
        client.start("nobody-runs-this", id=job, entity="agent")
        if days is not None:
            client.handle(job).terminate()
            at = now - timedelta(days=days)
            connection.execute(
                "update jobs set created_at = %s, finished_at = %s where id = %s", (at, at, job)
            )
    week_ago = now - timedelta(days=7)
    assert client.forget_finished(week_ago, entity="note") == 0
    assert client.forget_finished(week_ago, entity="agent", limit=1) == 1
    assert {job.id for job in client.jobs()} == {"older", "young", "running"}
    assert client.forget_finished(week_ago) == 1
    assert client.forget_finished(week_ago) == 0
    assert {job.id for job in client.jobs()} == {"young", "running"}
    with pytest.raises(perdure.InvalidArgument):
        client.forget_finished(week_ago.replace(tzinfo=None))


# Large reads and replay


def wait_until_parked(handle: perdure.Handle) -> None:
    deadline = time.monotonic() + 15
    while "go" not in (handle.status().waiting_for or ""):
        assert time.monotonic() < deadline, handle.status()
        time.sleep(0.02)


def test_large_memory_read_by_a_job_is_the_same_on_replay(
    client: perdure.Client, connection: psycopg.Connection[Any], dsn: str
) -> None:
    """[P4] [P9] (C35) The journal holds the version that was read, not the document, and replay
    reads it again."""
    app = perdure.App()
    seen: list[tuple[str, Any]] = []

    @app.coordinator
    async def reader(memory: perdure.AsyncEntity) -> list[int]:
        first = await memory.get()
        seen.append(("first", first))
        await memory.log("log", "x" * 3000)
        log = await memory.get("log")
        seen.append(("log", log))
        await perdure.wait_for("go")
        second = await memory.get()
        seen.append(("second", second))
        await perdure.wait_for("go")
        return [len(str(first)), len(str(log)), len(str(second))]

    context: dict[str, Any] = {"texts": [str(n) * 100 for n in range(100)], "n": 0}
    handle = client.start(reader, id="large", context=context)
    with perdure.Worker(app, dsn=dsn):
        wait_until_parked(handle)
    for number in range(150):
        handle.memory.increment("n", number)
    handle.memory.delete("texts.0")
    handle.memory.log("log", "later")
    handle.signal("go")
    with perdure.Worker(app, dsn=dsn):
        deadline = time.monotonic() + 15
        while not any(name == "second" for name, _ in seen) and time.monotonic() < deadline:
            time.sleep(0.02)
        wait_until_parked(handle)
    handle.memory.set({"all": "gone"})
    handle.signal("go")
    with perdure.Worker(app, dsn=dsn):
        result = handle.result(T)

    assert [name for name, _ in seen] == ["first", "log"] * 2 + ["second"] + [
        "first",
        "log",
        "second",
    ]
    first_seen = dict([*seen[:2], seen[4]])
    assert first_seen["first"] == context
    assert first_seen["log"] == ["x" * 3000]
    assert first_seen["second"] == {"texts": context["texts"][1:], "n": sum(range(150))}
    assert all(first_seen[name] == value for name, value in seen)
    assert result == [len(str(first_seen[name])) for name in ("first", "log", "second")]
    rows = connection.execute(
        "select value, pg_column_size(journal) from journal where job_id = 'large' and op = 'get'"
    ).fetchall()
    assert len(rows) == 3
    assert all(value is None and size < 300 for value, size in rows)


def test_journal_of_many_pages_is_replayed_to_its_end(client: perdure.Client, dsn: str) -> None:
    """[P4] [P9] A page of a journal ends after about 8 MB, which includes documents read by
    version."""
    app = perdure.App()

    @app.coordinator
    async def reader(memory: perdure.AsyncEntity) -> list[int]:
        read = [len((await memory.get())["text"]) for _ in range(12)]
        await perdure.wait_for("go")
        return read

    handle = client.start(reader, context={"text": "x" * 900_000})
    with perdure.Worker(app, dsn=dsn):
        wait_until_parked(handle)
    handle.memory.set("gone", "text")
    handle.signal("go")
    with perdure.Worker(app, dsn=dsn):
        assert handle.result(T) == [900_000] * 12


def test_version_is_rebuilt_from_at_most_99_commands(
    connection: psycopg.Connection[Any],
) -> None:
    """entity_at() applies at most 99 commands to a snapshot; PostgreSQL counts the calls."""
    connection.execute("select entity_create('long', 'note', '{\"n\": 0}')")
    batch = "select entity_apply('long', (select jsonb_agg(jsonb_build_object('op', 'increment',"
    batch += " 'path', 'k' || n % 7, 'value', 1)) from generate_series(1, 1000) as n))"
    for _ in range(10):
        connection.execute(batch.encode())
    connection.execute("set track_functions = 'all'")

    def applied(query: str) -> int:
        with connection.transaction():
            calls = "select coalesce(sum(calls), 0) from pg_stat_xact_user_functions"
            calls += " where funcname = 'apply_command'"
            before = connection.execute(calls.encode()).fetchone()
            connection.execute(query.encode())
            after = connection.execute(calls.encode()).fetchone()
        assert before is not None
        assert after is not None
        return int(after[0] - before[0])

    assert applied("select entity_at('long', 5099)") == 99
    assert applied("select entity_at('long', 5100)") == 0
    for version in (0, 1, 99, 101, 4242, 9999, 10001):
        assert applied(f"select entity_at('long', {version})") == version % 100
    assert applied("select entity_at('long', at => clock())") == 1
    assert applied("select from entity_diff('long', 1099)") == 99
    assert applied("select entity_restore('long', 1099)") == 100


def test_log_item_writes_at_most_five_times_the_wal_of_a_row(wal_of: Callable[[str], int]) -> None:
    """Adding to a log does not rewrite the document of 100 kB beside it."""
    rows = wal_of("insert into public.plain (item) values (%s)")
    items = wal_of("select entity_log('large', 'events', %s)")
    keyed = wal_of("select entity_log('large', 'events', %s, key => gen_random_uuid()::text)")
    print(f"WAL of 1000 rows {rows}, items {items}, with keys {keyed} bytes")
    assert items <= 5 * rows
    assert keyed <= 5 * rows


@pytest.fixture
def wal_of(schema: str) -> Iterator[Callable[[str], int]]:
    """Give a function that measures the WAL of 1000 executions of a statement, each committed."""
    settings = {"full_page_writes": "on", "autovacuum": "off", "log_min_messages": "fatal"}
    with (
        Server(settings=settings) as server,
        psycopg.connect(server.url(), autocommit=True) as connection,
    ):
        install(connection, schema)
        connection.execute(f"set search_path = pg_catalog, {schema}".encode())
        connection.execute(
            "create table public.plain"
            " (id bigint generated always as identity primary key, item jsonb)"
        )
        connection.execute(
            "select entity_create('large', 'note', (select jsonb_object_agg(n, md5(n::text)"
            " || md5((n + 1)::text)) from generate_series(1, 1350) as n))"
        )

        def wal_of(statement: str) -> int:
            item = json.dumps({"text": "x" * 138})
            connection.execute("checkpoint")
            start = connection.execute("select pg_current_wal_insert_lsn()").fetchone()
            for _ in range(1000):
                connection.execute(statement.encode(), [item])
            used = "select pg_current_wal_insert_lsn() - %s::pg_lsn"
            row = connection.execute(used, start).fetchone()
            assert row is not None
            return int(row[0])

        yield wal_of
