"""No encrypted value can be read in the database, and every value can be read with the key."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

import perdure
from perdure import replaying
from perdure.codecs import AesGcm
from perdure.embedded.server import Server
from tests.codec.programs import SECRET, app_with, codec, secret

T = "20 s"


def until_asked(client: perdure.Client) -> Any:
    """Wait for the item of the program."""
    until = time.monotonic() + 20
    while not (items := client.items()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return items[0]


def everything(client: perdure.Client, app: perdure.App, job: str = "all") -> dict[str, Any]:
    """Run the program to its end; return its result."""
    handle = client.start(
        app.coordinators["everything"],
        secret("query"),
        id=job,
        context={"notes": [secret("a note")], "status": "new"},
    )
    handle.signal("from outside", {"text": secret("from outside")})
    hook = app.hooks["plain"]
    task = handle.hook(hook, secret("of a hook from outside"))
    handle.signal("to the hook", secret("to the hook"))
    assert handle.hook_result(task, timeout=T) == secret("to the hook")
    item = until_asked(client)
    assert item.payload == {"what": secret("asked")}
    assert item.resolve({"by": secret("a person")}, by="jane").resolution["by"] == secret(
        "a person"
    )
    assert item.resolve({"by": secret("a person")}, by="jane").status == "resolved"
    result: dict[str, Any] = handle.result(timeout=T)
    return result


def rows_with(connection: psycopg.Connection[Any], text: str, schema: str = "perdure") -> list[str]:
    """Return the rows of all tables of an app that contain a text."""
    tables = connection.execute(
        "select tablename from pg_tables where schemaname = %s order by 1", [schema]
    ).fetchall()
    assert len(tables) > 10
    found = []
    for (table,) in tables:
        query = sql.SQL("select t::text from {} as t where strpos(t::text, %s) > 0").format(
            sql.Identifier(schema, table)
        )
        found += [f"{table}: {row}" for (row,) in connection.execute(query, [text])]
    return found


def test_tables_contain_no_plain_secret(
    connection: psycopg.Connection[Any], client: perdure.Client, app: perdure.App, work: Any
) -> None:
    """Every kind of value goes through the database, and no table shows any of them."""
    work()
    everything(client, app)
    others(client, app)
    assert rows_with(connection, SECRET) == []
    assert len(rows_with(connection, "$c1:old:")) > 50
    assert rows_with(connection, "open") != [], "values that are not encrypted can be read"
    reads_all(client)


def reads_all(client: perdure.Client) -> None:
    """Read the timeline, the history and the streams; only signals to other jobs stay sealed."""
    sealed = [
        (item.kind, item.body.get("name"))
        for job in ("all", *(each.id for each in client.handle("all").children()))
        for item in client.handle(job).timeline()
        if "$c1:" in json.dumps(item.body, default=str)
    ]
    assert sealed == [("fact", "send:from the child")]
    memory = client.entity("all")
    history = memory.history()
    assert "$c1:" not in str(history)
    assert SECRET in str(history)
    assert "$c1:" not in str([memory.at(each.version) for each in history])
    assert "$c1:" not in str(memory.diff(0)) + str(memory.blame()) + str(memory.items("log"))
    words = [item.item for item in client.handle("all").stream("words")]
    assert set(words) == {secret("published")}


def others(client: perdure.Client, app: perdure.App) -> None:
    """Use the calls that the program does not use."""
    waiter = app.coordinators["waiter"]
    client.start_many(waiter, [{"id": "w-1", "args": [secret("one")]}, {"id": "w-2"}])
    client.signal_with_start(waiter, "w-3", "go", secret("go"), secret("three"))
    client.create_schedule(waiter, "0 0 1 1 *", args=[secret("scheduled")], name="yearly")
    scheduled = client.trigger_schedule("yearly")
    assert client.signal_found("waiter", {}, "go", secret("to all")) != []
    assert scheduled.result(timeout=T) == [secret("scheduled"), secret("to all")]
    assert client.handle("w-1").result(timeout=T) == [secret("one"), secret("to all")]
    assert client.handle("w-3").result(timeout=T) == [secret("three"), secret("go")]
    ended(client, waiter)
    jane = client.create_entity("jane", "patient", {"patient": {"name": secret("jane")}})
    jane.apply([{"op": "merge", "path": "", "value": {"notes": secret("in a batch")}}])
    jane.log("told", secret("logged"))
    assert [each.context["notes"] for each in client.find("patient")] == [secret("in a batch")]


def ended(client: perdure.Client, waiter: Any) -> None:
    """Cancel and terminate jobs with a reason."""
    cancelled = client.start(waiter, secret("to cancel"), id="cancelled")
    cancelled.cancel(secret("the reason"))
    with pytest.raises(perdure.JobCancelled, match=secret("the reason")):
        cancelled.result(timeout=T)
    terminated = client.start(waiter, secret("to terminate"), id="terminated")
    terminated.terminate(secret("the other reason"))
    with pytest.raises(perdure.JobCancelled, match=secret("the other reason")):
        terminated.result(timeout=T)


def test_codec_does_not_change_what_the_program_gets(
    client: perdure.Client, app: perdure.App, work: Any, dsn: str, tmp_path: Path
) -> None:
    """[P9] Live or replayed, encrypted or not, the values are the same."""
    with perdure.connect(dsn, schema="plain") as plain:
        without = app_with(None)
        with perdure.Worker(without, ["default", "far"], dsn=dsn, schema="plain", poll=0.2):
            wanted = everything(plain, without)
    work(cache=0)
    told = everything(client, app)
    assert json.dumps(told) == json.dumps(wanted)
    recording = replaying.recording_of(client, "all")
    assert SECRET not in recording.to_line()
    replaying.write_recordings(tmp_path / "exported.jsonl", [recording])
    assert SECRET not in (tmp_path / "exported.jsonl").read_text()
    assert replaying.check_journals(app, tmp_path / "exported.jsonl") == 1


def test_server_log_shows_no_secret() -> None:
    """Statements and their parameters are logged, and contain no plain secret."""
    with Server(settings={"log_statement": "all"}) as server:
        app = app_with(codec())
        with (
            perdure.connect(server.url(), codec=codec()) as client,
            perdure.Worker(app, dsn=server.url(), poll=0.2),
        ):
            everything(client, app)
        files = [each for each in server.folder.rglob("*log*") if each.is_file()]
        logged = "".join(each.read_text(errors="replace") for each in files)
    assert "$c1:old:" in logged
    assert SECRET not in logged


def test_equal_values_have_different_envelopes_and_hashes(
    connection: psycopg.Connection[Any], client: perdure.Client, app: perdure.App, work: Any
) -> None:
    """Neither envelopes nor hashes of requests show that values are equal."""
    waiting = app.coordinators["waiter"]

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity, query: str) -> None:
        await memory.append("notes", query, query)
        await perdure.child(waiting, query)

    work()
    for job in ("a", "b"):
        client.start(asks, secret("same"), id=job).memory.until("exists($.notes)", timeout=T)
    found = connection.execute("select jsonb_path_query(context, '$.notes[*]') #>> '{}' from jobs")
    assert len({envelope for (envelope,) in found}) == 4
    asked = connection.execute("select fingerprint from journal where op = 'append'").fetchall()
    assert len(asked) == len(set(asked)) == 2


def test_stored_failure_shows_only_its_type(
    connection: psycopg.Connection[Any], client: perdure.Client, app: perdure.App, work: Any
) -> None:
    """[P10] The database and its operators see the class; the holder of the key sees the
    traceback."""
    work()
    handle = client.start("bad_child", secret("why"), id="bad")
    with pytest.raises(perdure.JobFailed, match=secret("why")) as failed:
        handle.result(timeout=T)
    assert isinstance(failed.value, perdure.Failure)
    assert "raise Broken(query)" in str(failed.value.traceback)
    row = connection.execute("select error from jobs where id = 'bad'").fetchone()
    assert row is not None
    assert set(row[0]) == {"type", "message", "sealed"}
    assert (row[0]["type"], row[0]["message"]) == ("Broken", "sealed")


@pytest.mark.parametrize("place", [b"a place", b"another place"])
def test_encryption_is_repeatable_for_equal_input(place: bytes) -> None:
    """[P12] The same value, place and salt give the same envelope; any difference gives another
    nonce."""
    given = codec()
    said = given.encode(b"value", place, b"salt")
    assert said == given.encode(b"value", place, b"salt")
    others = [
        given.encode(b"value", place, b"salt 2"),
        given.encode(b"value 2", place, b"salt"),
        given.encode(b"value", place + b"!", b"salt"),
        given.encode(b"value", place + b"s", b"alt"),
    ]
    nonces = {sealed[:12] for _, sealed in (said, *others)}
    assert len(nonces) == 5
    assert given.decode(*said, place) == b"value"


def test_repr_of_a_codec_does_not_show_its_keys() -> None:
    key = AesGcm.new_key()
    given = AesGcm({"a": key}, "a")
    assert re.sub(r"\W", "", key.hex()) not in repr(given) + repr(vars(given)).encode().hex()
    assert repr(given) == "AesGcm(keys=['a'], current='a')"


@pytest.mark.parametrize(
    ("keys", "current"),
    [({"a": b"short"}, "a"), ({"a": bytes(32)}, "b"), ({"a key": bytes(32)}, "a key")],
)
def test_invalid_keys_are_refused(keys: dict[str, bytes], current: str) -> None:
    """The error does not show the key."""
    with pytest.raises(perdure.InvalidArgument) as refused:
        AesGcm(keys, current)
    assert "short" not in str(refused.value)
