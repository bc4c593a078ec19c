"""Clients, plain and async: connecting, starting once, waiting, signals, commands and options."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, get_args, get_type_hints
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import perdure
from perdure.clients.outcomes import unfinished
from perdure.clients.requests import START_OPTIONS, Status, all_of_many
from perdure.database.source import Source
from tests.patience import wait_until

T = "40 s"


@pytest.fixture
def echo(app: perdure.App) -> Any:
    @app.coordinator(entity="echo")
    async def echo(memory: perdure.AsyncEntity, what: Any = None) -> Any:
        return what

    return echo


def test_connect_provisions_an_empty_database_once(
    database: str, app: perdure.App, echo: Any
) -> None:
    with ThreadPoolExecutor(4) as pool:
        clients = list(pool.map(lambda _: perdure.connect(database, "my_app"), range(4)))
    with perdure.Worker(app, dsn=database, schema="my_app"):
        assert [c.start(echo, n).result(T) for n, c in enumerate(clients)] == [0, 1, 2, 3]
    for client in clients:
        client.close()


@pytest.mark.parametrize("kind", [perdure.Client, perdure.AsyncClient])
def test_client_class_called_with_a_dsn_points_to_connect(kind: Any) -> None:
    """The hint names `connect(dsn)`, and the error does not contain the password."""
    with pytest.raises(perdure.InvalidArgument) as refused:
        kind("postgresql://me:secret@server/app")
    assert "connect(dsn)" in refused.value.hint
    assert "secret" not in str(refused.value)


def test_closed_client_cannot_be_entered(dsn: str) -> None:
    async def entered() -> None:
        client = await perdure.connect_async(dsn)
        await client.close()
        async with client:
            pass

    closed = perdure.connect(dsn)
    closed.close()
    with pytest.raises(perdure.InvalidArgument, match="client is closed"), closed:
        pass
    with pytest.raises(perdure.InvalidArgument, match="client is closed"):
        asyncio.run(entered())


class Embedded:
    """A stand-in for the embedded server that counts its users."""

    def __init__(self, url: str):
        self.users = self.left = 0
        self._url = url

    def joined(self) -> Embedded:
        self.users += 1
        return self

    def url(self) -> str:
        return self._url

    def close(self) -> None:
        self.users -= 1
        self.left += 1


@pytest.mark.direct("its wait needs a notification")
def test_client_releases_everything_when_its_close_is_cancelled(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves the embedded server and closes the connection that listens."""
    server = Embedded(dsn)
    monkeypatch.delenv("PERDURE_DATABASE_URL", raising=False)
    monkeypatch.setattr("perdure.embedded.server.shared_server", server.joined)

    async def main() -> None:
        client = await perdure.connect_async()
        memory = await client.create_entity("note", "n")
        waiting = asyncio.create_task(memory.until("$.n == 1"))
        for _ in range(1000):
            if client._listener._is_listening.is_set():
                break
            await asyncio.sleep(0.02)
        waiting.cancel()
        await asyncio.wait([waiting])
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        assert not closing.done()
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert client._listener._link._cursor is None

    asyncio.run(main())
    assert (server.users, server.left) == (0, 1)


def test_async_client_cannot_be_closed_in_another_event_loop(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Embedded(dsn)
    monkeypatch.delenv("PERDURE_DATABASE_URL", raising=False)
    monkeypatch.setattr("perdure.embedded.server.shared_server", server.joined)

    async def main() -> None:
        client = await perdure.connect_async()
        memory = await client.create_entity("note", "n")
        with pytest.raises(perdure.InvalidArgument, match="another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(client.close()))
        assert server.users == 1
        assert await memory.get() == {}
        await client.close()

    asyncio.run(main())
    assert server.users == 0


@pytest.mark.parametrize("wrong", [{"schema": "pg_x"}, {"codec": 5}])
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_failed_connect_leaves_the_embedded_server(
    dsn: str, monkeypatch: pytest.MonkeyPatch, kind: str, wrong: dict[str, Any]
) -> None:
    """Otherwise the server stays up until the garbage collector finds the client."""
    server = Embedded(dsn)
    monkeypatch.delenv("PERDURE_DATABASE_URL", raising=False)
    monkeypatch.setattr("perdure.embedded.server.shared_server", server.joined)

    async def connected() -> None:
        await perdure.connect_async(**wrong)

    with pytest.raises(perdure.PerdureError):
        perdure.connect(**wrong) if kind == "plain" else asyncio.run(connected())
    assert server.users == 0


def test_cancelled_connect_leaves_the_embedded_server(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that starts the server goes on after the cancellation, and then leaves it."""
    server, is_up = Embedded(dsn), threading.Event()

    def joined() -> Embedded:
        is_up.wait(20)
        return server.joined()

    monkeypatch.delenv("PERDURE_DATABASE_URL", raising=False)
    monkeypatch.setattr("perdure.embedded.server.shared_server", joined)

    async def given_up() -> None:
        connecting = asyncio.create_task(perdure.connect_async())
        await asyncio.sleep(0.1)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        is_up.set()

    asyncio.run(given_up())
    wait_until(lambda: server.left == 1)


def test_client_exposes_its_dsn_and_schema(dsn: str, app: perdure.App, monkeypatch: Any) -> None:
    """A worker can connect with them, even if the client found its database in the environment."""

    @app.coordinator
    async def ends(memory: perdure.AsyncEntity) -> str:
        return "done"

    monkeypatch.setenv("PERDURE_DATABASE_URL", dsn)
    with perdure.connect(schema="elsewhere") as client:
        monkeypatch.delenv("PERDURE_DATABASE_URL")
        with perdure.Worker(app, dsn=client.dsn, schema=client.schema):
            assert client.start(ends).result(timeout=20) == "done"


def test_handle_tells_whether_its_call_has_started_the_job(dsn: str) -> None:
    """An existing job is returned as it is, with `is_new` false."""
    a_day = datetime(2026, 1, 1, tzinfo=UTC)
    begins: list[Callable[[Any], Any]] = [
        lambda client: client.start("order", id="order-1", if_exists="existing"),
        lambda client: client.signal_with_start("order", "order-2", "paid"),
        lambda client: client.start_many("order", [{"id": "order-3", "if_exists": "existing"}]),
        lambda client: client.fork("order-1", "order-4", key="once"),
        lambda client: client.trigger_schedule("nightly", key="once"),
        lambda client: client.backfill_schedule("nightly", a_day, a_day + timedelta(days=1)),
    ]
    with perdure.connect(dsn) as client:
        client.create_schedule("order", "@daily", name="nightly")
        for begin in begins:
            made = [begin(client) for _ in range(2)]
            first, second = (each[0] if isinstance(each, list) else each for each in made)
            assert (first.is_new, second.is_new) == (True, False)
        assert client.handle("order-1").is_new is None

    async def test() -> None:
        async with perdure.connect_async(dsn) as client:
            assert not (await client.start("order", id="order-1", if_exists="existing")).is_new
            assert (await client.start("order", id="order-5")).is_new
            assert client.handle("order-1").is_new is None

    asyncio.run(test())


def test_create_entity_reports_whether_the_memory_is_new(dsn: str) -> None:
    """A memory that exists already is returned as it is, with `is_new` false."""
    with perdure.connect(dsn) as client:
        first = client.create_entity("note-1", "note", {"n": 1})
        second = client.create_entity("note-1", "letter", {"n": 2})
        assert (first.is_new, second.is_new) == (True, False)
        assert client.entity("note-1").is_new is None
        assert second.get() == {"n": 1}

    async def test() -> None:
        async with perdure.connect_async(dsn) as client:
            assert not (await client.create_entity("note-1", "note")).is_new
            assert (await client.create_entity("note-2", "note")).is_new
            assert client.entity("note-1").is_new is None

    asyncio.run(test())


def test_connect_uses_the_database_of_the_environment(
    dsn: str, monkeypatch: Any, app: perdure.App
) -> None:
    monkeypatch.setenv("PERDURE_DATABASE_URL", dsn)
    with perdure.connect() as client:
        assert client.create_entity("e", "thing", {"n": 1}).get("n") == 1


@pytest.mark.parametrize(
    "source",
    [
        "PGCLIENTENCODING",
        pytest.param("PGOPTIONS", marks=pytest.mark.direct("a pooler takes no options")),
        "the DSN",
    ],
)
def test_text_is_sent_as_utf8_whatever_encoding_is_configured(
    dsn: str, app: perdure.App, echo: Any, monkeypatch: Any, source: str
) -> None:
    """(S20) In some other encodings, a letter has bytes that quote the character after it."""
    letters = "é\u0153\u8868'\\\U0001f426"
    if source == "the DSN":
        dsn = make_conninfo(dsn, client_encoding="latin1")
    else:
        option = "-c client_encoding=latin1" if source == "PGOPTIONS" else "latin1"
        monkeypatch.setenv(source, option)
    with perdure.connect(dsn) as client, perdure.Worker(app, dsn=dsn):
        handle = client.start(echo, letters, id=letters, context={"v": letters})
        assert handle.result(T) == letters
        assert client.entity(letters).get() == {"v": letters}
        assert [each.id for each in client.find("echo", {"v": letters})] == [letters]


def test_repeated_start_starts_a_job_once(client: perdure.Client, echo: Any, work: Any) -> None:
    handle = client.start(echo, 1, id="one", key="k")
    assert client.start(echo, 1, id="one", key="k").id == "one"
    with pytest.raises(perdure.JobExists) as raised:
        client.start(echo, 2, id="one")
    assert raised.value.code == "PD402"
    assert raised.value.hint
    assert client.start(echo, 2, id="one", if_exists="existing").id == "one"
    work()
    assert handle.result(T) == 1


def test_start_and_hook_reject_functions_of_another_kind(
    client: perdure.Client, app: perdure.App, echo: Any, work: Any
) -> None:
    """A task for a function of another kind would wait for ever."""

    @app.activity
    async def activity() -> None: ...

    @app.hook
    async def hook(memory: perdure.AsyncEntity) -> None: ...

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> list[str]:
        wrong: list[Any] = [
            lambda: perdure.exec_hook(activity),  # type: ignore[arg-type]
            lambda: perdure.start_hook(echo),
            lambda: perdure.child(hook),  # type: ignore[arg-type]
            lambda: perdure.start_child(len),  # type: ignore[arg-type]
        ]
        return [refusal(call) for call in wrong]

    handle = client.start(asks, id="asks")
    wrong: list[Any] = [
        lambda: client.start(activity),  # type: ignore[arg-type]
        lambda: client.start(hook),  # type: ignore[arg-type]
        lambda: client.start(lambda memory: None),  # type: ignore[arg-type, misc]
        lambda: client.start_many(hook, [{}]),  # type: ignore[arg-type]
        lambda: client.signal_with_start(hook, "j", "go"),  # type: ignore[arg-type]
    ]
    assert all("is not a registered coordinator\n" in refusal(call) for call in wrong)
    wrong = [lambda: handle.hook(activity), lambda: handle.hook(echo)]  # type: ignore[arg-type]
    assert all("is not a registered hook\n" in refusal(call) for call in wrong)
    work()
    refusals = handle.result(T)
    assert [text.split("\n")[0].rpartition(" ")[2] for text in refusals] == [
        "hook", "hook", "coordinator", "coordinator",
    ]  # fmt: skip


def refusal(call: Any) -> str:
    """Return the message of the error that a call raises, which has a hint."""
    with pytest.raises(perdure.InvalidArgument) as raised:
        call()
    assert raised.value.hint
    return str(raised.value)


def test_decorator_rejects_a_name_in_place_of_a_function(app: perdure.App) -> None:
    decorators: list[Any] = [app.activity, app.hook, app.coordinator]
    for decorator in decorators:
        assert "name=" in refusal(lambda decorator=decorator: decorator("charge"))


def test_id_may_be_text_or_a_uuid(client: perdure.Client, echo: Any, work: Any) -> None:
    one, two, three = uuid4(), uuid4(), uuid4()
    work()
    assert client.start(echo, 1, id=one).id == str(one)
    assert [made.id for made in client.start_many(echo, [{"id": two}])] == [str(two)]
    client.signal_with_start(echo, three, "go")
    for each in (one, two, three):
        client.handle(each).result(T)
    assert client.create_entity(uuid4(), "thing", {"n": 1}).get("n") == 1
    assert client.entity(one).get() == {}
    for wrong in (5, b"x"):
        assert "is not an id" in refusal(lambda wrong=wrong: client.start(echo, id=wrong))


def test_key_without_an_id_is_rejected(client: perdure.Client, echo: Any) -> None:
    """Each call would make a new id, so a repeated call would start a second job."""
    one = client.start(echo, id="one", key="k")
    again = [
        lambda: client.start(echo, key="k"),
        lambda: client.start(echo, id=None, key="k"),
        lambda: client.start_many(echo, [{"key": "k"}]),
        lambda: client.fork("one", key="k"),
    ]
    assert all("a key was given without " in refusal(call) for call in again)
    forks = [client.fork("one", "two", key="k").id for _ in range(2)]
    assert [one.id, *forks] == ["one", "two", "two"]


def test_start_without_a_key_of_its_own_is_given_one() -> None:
    """[P12] Else a call whose reply was lost could not be repeated. None is no key."""
    starts = all_of_many("echo", [{"id": "one"}, {"id": "two", "key": None}])
    assert all(start["key"] for start in starts)


def test_start_many_rejects_unknown_options(client: perdure.Client, echo: Any) -> None:
    """An unknown option is an error that starts no job; ignored, it might lose arguments."""
    for wrong in ({"arg": [1]}, {"args": [1], "connection": None}):
        assert "a start has no option" in refusal(
            lambda wrong=wrong: client.start_many(echo, [{"id": "one"}, wrong])
        )
    with pytest.raises(perdure.JobNotFound):
        client.handle("one").status()


@pytest.mark.parametrize(
    "wrong",
    [
        {"arg": [1]},
        {"args": [float("nan")]},
        {"priority": "high"},
        {"key": "k", "id": None},
        {"queue": "q@2"},
        {"priority": 10},
        {"id": ""},
        {"args": ["x" * 1_100_000]},
    ],
)
def test_start_many_names_the_start_that_is_rejected(
    client: perdure.Client, echo: Any, wrong: dict[str, Any]
) -> None:
    """[P1] Python and the database reject it in the same words, and no job starts."""
    bad = {"id": "bad"} | wrong
    with pytest.raises(perdure.PerdureError) as refused:
        client.start_many(echo, [{"id": "one"}, bad, {"id": "two"}])
    which = "2 of 3, 'bad'" if bad["id"] else "2 of 3"
    where = f"It is start {which}; none of them was carried out."
    assert (refused.value.detail or "").startswith(where), str(refused.value)
    with pytest.raises(perdure.JobNotFound):
        client.handle("one").status()


def test_apply_names_the_command_that_is_rejected(client: perdure.Client) -> None:
    memory = client.create_entity("e", "thing", {"t": "text"})
    good: dict[str, Any] = {"op": "toggle", "path": "on"}
    for wrong in (
        {"path": "t"},
        {"op": ["set"], "path": "t", "value": 1},
        {"op": "set", "path": "n", "value": float("nan")},
        {"op": "set", "path": "a..b", "value": 1},
        {"op": "increment", "path": "t", "value": 1},
        {"op": "set", "path": "t", "vaule": 1},
    ):
        with pytest.raises(perdure.PerdureError) as refused:
            memory.apply([good, wrong])
        where = "It is command 2 of 2; none of them was carried out."
        assert (refused.value.detail or "").startswith(where), str(refused.value)
    assert memory.get() == {"t": "text"}


@pytest.mark.parametrize("option", [{"priority": 1.5}, {"limit_key": 5}, {"queue": b"q"}])
def test_option_of_a_wrong_type_is_rejected_by_name(
    client: perdure.Client, echo: Any, option: dict[str, Any]
) -> None:
    """The error names the wrong option, not a missing function of the database."""
    handle = client.start(echo, id="one")
    for call in (
        lambda: client.start(echo, **option),
        lambda: client.start_many(echo, [option]),
        lambda: client.signal_with_start(echo, "two", "go", **option),
        lambda: handle.hook("hook", **option),
    ):
        assert f"{next(iter(option))}=" in refusal(call)


def test_empty_id_is_rejected_and_not_replaced(client: perdure.Client, echo: Any) -> None:
    for start in (
        lambda: client.start(echo, id=""),
        lambda: client.start_many(echo, [{"id": ""}]),
        lambda: client.fork(client.start(echo).id, ""),
    ):
        with pytest.raises(perdure.InvalidName, match="must not be empty"):
            start()


def test_wait_for_rejects_names_that_no_signal_can_have(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    @app.hook
    async def hook(memory: perdure.AsyncEntity) -> None:
        await perdure.wait_for("a\nb")

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity, name: str) -> None:
        if name == "hook":
            await hook(memory)
        await perdure.wait_for(name)

    work()
    for name in ("", "é" * 101, "hook"):
        with pytest.raises(perdure.JobFailed, match=r"InvalidName|a signal cannot have the name"):
            client.start(waits, name).result(T)


@pytest.mark.parametrize(
    ("reason", "needs", "hint"),
    [
        ("signal pay", None, "Wait longer"),
        ("somebody to resume it: it lost its lease.", "resume", "handle.resume()"),
        ("somebody to resume queue q: it is paused", "resume_queue", "resume_queue()"),
        ("a worker on queue q (none has registered)", "worker", "Start a worker"),
    ],
)
def test_result_timeout_says_in_a_sentence_what_the_job_waits_for(
    reason: str, needs: str | None, hint: str
) -> None:
    """Its hint fits what the job needs that does not come by itself."""
    now = datetime.now(UTC)
    status = Status("j", None, "w", "running", 1, 1, reason, needs, now, now, None)
    error = unfinished("j", 1, status)
    assert error.detail == f"It waits for {reason.rstrip('.')}."
    assert hint in str(error.hint)


def test_status_shows_whether_a_job_is_stuck(
    app: perdure.App, client: perdure.Client, work: Any
) -> None:
    """Code can tell a stuck job from one that waits, and `result()` hints at `handle.resume()`."""

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await memory.set(1, "seen")
        await perdure.wait_for("go")

    with perdure.Worker(app, dsn=client.dsn):
        handle = client.start(waits)
        wait_until(lambda: (handle.status().waiting_for or "").startswith("signal go"))
        assert handle.status().stuck is None
    changed = perdure.App()

    @changed.coordinator(name="waits")
    async def waits_differently(memory: perdure.AsyncEntity) -> None:
        await memory.increment("seen")

    handle.signal("go")
    work(changed)
    wait_until(lambda: handle.status().stuck is not None)
    with pytest.raises(perdure.ResultTimeout, match=r"handle\.resume\(\)"):
        handle.result(0)
    assert (handle.status().stuck or "").startswith("1/main: ")


@pytest.mark.parametrize("seed", [None, "random", "0"])
def test_worker_inside_a_process_logs_a_random_hash_seed(
    app: perdure.App, work: Any, caplog: Any, monkeypatch: Any, seed: str | None
) -> None:
    if seed is None:
        monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    else:
        monkeypatch.setenv("PYTHONHASHSEED", seed)
    caplog.set_level("INFO", "perdure.worker")
    work()
    levels = [each.levelname for each in caplog.records if "PYTHONHASHSEED" in each.message]
    assert levels == ([] if seed == "0" else ["INFO"])


@pytest.mark.parametrize("queue", ["", "a@b", "x" * 201, 5])
def test_invalid_queue_name_is_rejected_where_it_is_given(
    app: perdure.App, dsn: str, queue: Any
) -> None:
    with pytest.raises(perdure.InvalidName):
        perdure.Worker(app, [queue], dsn=dsn)
    decorators: list[Any] = [app.activity, app.hook, app.coordinator]
    for decorator in decorators:
        with pytest.raises(perdure.InvalidName):
            decorator(queue=queue, name="x")(lambda memory: None)


@pytest.mark.parametrize("option", sorted(START_OPTIONS))
def test_keyword_that_could_be_option_or_argument_is_rejected(
    client: perdure.Client, app: perdure.App, option: str
) -> None:
    """The argument can still be given by position, and the option by its name."""
    names: dict[str, Any] = {}
    exec(f"async def works(memory, what, {option}=None): return {option}", names)
    works = app.coordinator(names["works"])
    with pytest.raises(perdure.InvalidArgument, match=f"{option} is an option .* of works"):
        client.start(works, "x", **{option: "5"})
    value = {"priority": 5, "due_at": datetime.now(UTC), "timeout": "1 h", "context": {}}
    given = value.get(option, "error" if option == "if_exists" else None)
    handle = client.start(works, "x", "by position", **{option: given})
    assert handle.status().status == "running"


def test_argument_of_a_workflow_may_be_called_client(
    client: perdure.Client, app: perdure.App, work: Any
) -> None:
    @app.coordinator
    async def bill(memory: perdure.AsyncEntity, client: str) -> str:
        return client

    handle = client.start(bill, client="acme")
    other = client.signal_with_start(bill, "j", "go", client="zeus")
    work()
    assert [handle.result(T), other.result(T)] == ["acme", "zeus"]


NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001


@pytest.mark.parametrize("due_at", [NAIVE, "tomorrow", 5])
def test_due_at_must_be_a_time_with_a_time_zone(
    client: perdure.Client, app: perdure.App, echo: Any, work: Any, due_at: Any
) -> None:
    """The server would read it in its own zone: "in an hour" could mean at once."""

    @app.hook
    async def hook(memory: perdure.AsyncEntity) -> None: ...

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> int:
        refused = 0
        for ask in (perdure.start_hook, perdure.child, perdure.start_child):
            try:
                ask(hook if ask is perdure.start_hook else "echo", due_at=due_at)
            except perdure.InvalidArgument:
                refused += 1
        return refused

    handle = client.start(asks)
    refused: list[Any] = [
        lambda: client.start(echo, due_at=due_at),
        lambda: client.start("echo", due_at=due_at),
        lambda: client.start_many(echo, [{"due_at": due_at}]),
        lambda: handle.hook(hook, due_at=due_at),
        lambda: handle.hook("hook", due_at=due_at),
        lambda: client.create_schedule(echo, every="1 h", starts_at=due_at),
    ]
    for call in refused:
        with pytest.raises(perdure.InvalidArgument, match=r"no time zone|not an instant"):
            call()
    work()
    assert handle.result(T) == 3


def test_forget_finished_rejects_an_age(client: perdure.Client) -> None:
    """Its hint must not propose a time in the future, which would forget all finished jobs."""
    with pytest.raises(perdure.InvalidArgument, match="not an instant") as refused:
        client.forget_finished("90 days")  # type: ignore[arg-type]
    assert "+" not in (refused.value.hint or "")


def test_options_of_hooks_and_children_are_not_taken_for_arguments(
    client: perdure.Client, app: perdure.App, work: Any
) -> None:
    @app.hook
    async def hook(memory: perdure.AsyncEntity, what: str, queue: str = "none") -> str:
        return queue

    @app.coordinator
    async def child(memory: perdure.AsyncEntity, *, timeout: int = 0) -> int:  # noqa: ASYNC109
        return timeout

    @app.coordinator
    async def asks(memory: perdure.AsyncEntity) -> Any:
        refused = 0
        for call in (
            lambda: perdure.exec_hook(hook, "x", queue="q"),
            lambda: perdure.start_hook("hook", "x", queue="q"),
            lambda: perdure.child(child, timeout=5),
            lambda: perdure.start_child("child", timeout=5),
        ):
            try:
                call()
            except perdure.InvalidArgument:
                refused += 1
        named = await hook.start("x", queue="named"), await child.start(timeout=7)
        return [refused, *named, await perdure.exec_hook(hook, "x", "own", queue="default")]

    work()
    assert client.start(asks, id="j").result("30 s") == [4, "named", 7, "own"]
    with pytest.raises(perdure.InvalidArgument, match="queue is an option"):
        client.handle("j").hook(hook, "x", queue="q")


def test_generic_types_can_be_read_at_run_time() -> None:
    """Parameters with a default may be left out, also before Python 3.13."""

    def user_code(
        bare: perdure.Handle,
        one: perdure.AsyncHandle[int],
        two: perdure.Coordinator[..., Any],
        three: perdure.Hook[[str], int, int],
    ) -> perdure.Pending[str]: ...  # type: ignore[empty-body]

    hints = get_type_hints(user_code)
    assert hints["bare"] is perdure.Handle
    assert get_args(hints["one"]) == (int,)
    assert get_args(hints["two"]) == (..., Any, Any)
    assert get_args(hints["three"])[1:] == (int, int)


def test_results_can_be_read_later_and_by_other_clients(
    client: perdure.Client, echo: Any, work: Any, dsn: str
) -> None:
    work()
    client.start(echo, {"a": [1, None]}, id="late").result(T)
    with perdure.connect(dsn) as other:
        assert other.handle("late").result(T) == {"a": [1, None]}
        assert other.handle("late").status().status == "completed"
        with pytest.raises(perdure.JobNotFound):
            other.handle("nobody").result(T)


def test_result_timeout_names_the_awaited_signal(
    client: perdure.Client, app: perdure.App, work: Any
) -> None:
    """The error is also a `TimeoutError` of Python."""

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> None:
        await perdure.wait_for("approval")

    work()
    handle = client.start(waits)
    time.sleep(0.2)
    with pytest.raises(perdure.ResultTimeout) as raised:
        handle.result(0.1)
    assert isinstance(raised.value, TimeoutError)
    assert "approval" in (raised.value.detail or "")
    handle.terminate()


def test_start_joins_the_callers_transaction(client: perdure.Client, echo: Any, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        client.start(echo, id="undone", connection=connection)
        client.entity("undone", connection=connection).set({"a": 1})
        connection.rollback()
        client.start(echo, id="done", connection=connection)
        client.handle("done").memory  # noqa: B018 - sends nothing
        client.entity("done", connection=connection).set({"a": 1})
        client.handle("done").signal("hello", connection=connection)
        connection.commit()
    with pytest.raises(perdure.JobNotFound):
        client.handle("undone").status()
    assert client.handle("done").status().entity == "echo"
    assert client.entity("done").get("a") == 1
    client.handle("done").terminate()


def test_client_commands_change_a_memory(client: perdure.Client) -> None:
    entity = client.create_entity("user", "user", {"n": 1})
    assert entity.merge({"a": {"b": [1]}}) == 2
    assert entity.append("a.b", 2, 3) == 3
    assert entity.prepend(["a", "b"], 0) == 4
    assert entity.remove("a.b", 0) == 0
    assert entity.increment("n", 1.5) == 2.5
    assert entity.toggle("flag") is True
    assert entity.set_if_not_exists("flag", False) is True
    assert entity.set({"x": 1}, '"key.with.dots"') == 9
    assert entity.get('"key.with.dots".x') == 1
    assert entity.delete("flag") is True
    assert entity.set(5, "n", key="once") == 11
    assert entity.set(5, "n", key="once") == 11
    with pytest.raises(perdure.KeyReused):
        entity.set(6, "n", key="once")
    with pytest.raises(perdure.VersionConflict):
        entity.set(6, "n", expected_version=3)
    with pytest.raises(perdure.InvalidPath):
        entity.get("a..b")
    with pytest.raises(perdure.WrongType):
        entity.increment("a")
    with pytest.raises(perdure.JobNotFound):
        client.entity("nobody").set(1, "x")


def test_threads_can_share_a_client(client: perdure.Client, echo: Any, work: Any) -> None:
    work()
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda n: client.start(echo, n).result(T), range(40))
    assert list(results) == list(range(40))


def test_async_client_has_the_same_verbs(dsn: str, app: perdure.App, echo: Any, work: Any) -> None:
    work()

    async def main() -> None:
        async with await perdure.connect_async(dsn) as client:
            handles = [await client.start(echo, n) for n in range(20)]
            results = await asyncio.gather(*(handle.result(T) for handle in handles))
            assert results == list(range(20))
            entity = await client.create_entity("e", "thing")
            assert await entity.increment("n") == 1
            assert await entity.get() == {"n": 1}
            assert (await handles[0].status()).status == "completed"
            with pytest.raises(perdure.JobFinished):
                await handles[0].signal("late")
            with pytest.raises(perdure.JobNotFound):
                await client.handle("nobody").result(T)
            many = await client.start_many(echo, [{"args": [n]} for n in range(5)])
            assert [await handle.result(T) for handle in many] == list(range(5))

    asyncio.run(main())


def test_results_come_without_any_notification(
    app: perdure.App, client: perdure.Client, work: Any, connection: Any
) -> None:
    """[P11] Results arrive without hints, even if the idle worker has begun to poll seldom."""

    @app.coordinator
    async def echo(memory: perdure.AsyncEntity, what: Any) -> Any:
        return what

    connection.execute(
        "create or replace function notify_listeners(topics text[]) returns void"
        " language plpgsql as 'begin end'"
    )
    work(poll=0.2)
    time.sleep(0.5)
    began = time.monotonic()
    assert client.start(echo, 1).result(T) == 1
    assert time.monotonic() - began < 3


def test_jobs_are_listed_page_by_page(client: perdure.Client, echo: Any) -> None:
    """[P13] Each job is listed once, the newest first, although other jobs start meanwhile."""
    client.start_many(echo, [{"args": [n], "id": f"job-{n}"} for n in range(5)])
    last, listed = None, []
    while page := client.jobs(
        workflow=echo, until=last and last.created_at, after=last and last.id, limit=2
    ):
        listed += page
        last = page[-1]
        client.start(echo, 0)
    assert sorted(job.id for job in listed) == [f"job-{n}" for n in range(5)]
    assert [job.created_at for job in listed] == sorted(
        (job.created_at for job in listed), reverse=True
    )
    assert client.jobs(workflow="nobody's") == []
    for options in ({"status": "lost"}, {"limit": 1001}, {"after": "job-1"}, {"since": "now"}):
        with pytest.raises(perdure.InvalidArgument):
            client.jobs(**options)


@pytest.mark.direct("without hints, a worker queries at each poll")
def test_idle_worker_queries_seldom(work: Any, connection: Any) -> None:
    work()
    time.sleep(0.5)
    counts = []
    for _ in range(4):  # autovacuum may add to a count, but not each time
        before = _transactions(connection)
        time.sleep(1)
        counts.append(_transactions(connection) - before)
        if counts[-1] <= 4:  # including the two queries of this test and a poll
            return
    raise AssertionError(f"transactions of an idle worker each second: {counts}")


def _transactions(connection: Any) -> int:
    connection.execute("select pg_stat_force_next_flush()")
    (count,) = connection.execute(
        "select xact_commit from pg_stat_database where datname = current_database()"
    ).fetchone()
    return int(count)


@pytest.mark.direct("needs a hint to be quick")
def test_start_to_result_is_quick(client: perdure.Client, echo: Any, work: Any) -> None:
    work()
    times = []
    for n in range(20):
        began = time.monotonic()
        client.start(echo, n).result(T)
        times.append(time.monotonic() - began)
    assert sorted(times)[10] < 0.1


def test_dsn_can_set_the_timeouts_of_connections(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting in the DSN, or in a variable of libpq, replaces the default of perdure."""

    def timeouts(dsn: str) -> tuple[str, ...]:
        with Source(dsn, "perdure").connect("perdure test") as connection:
            parameters = connection.info.get_parameters()
        return tuple(parameters[name] for name in ("connect_timeout", "keepalives_idle"))

    assert timeouts(dsn) == ("10", "30")
    assert timeouts(make_conninfo(dsn, connect_timeout=3, keepalives_idle=7)) == ("3", "7")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    assert timeouts(dsn) == ("4", "30")


def test_dsn_can_set_the_application_name(dsn: str) -> None:
    """Without one in the DSN, the name says what the connection is for."""

    def shown(dsn: str) -> object:
        with Source(dsn, "perdure").connect("perdure test") as connection:
            return connection.execute("show application_name").fetchone()

    assert shown(dsn) == ("perdure test",)
    assert shown(make_conninfo(dsn, application_name="orders")) == ("orders",)


def test_client_cannot_be_pickled(client: perdure.Client, dsn: str) -> None:
    """Clients, handles and memories refuse to be pickled, with an error that says so."""

    async def connected() -> perdure.AsyncClient:
        async with perdure.connect_async(dsn) as opened:
            return opened

    for given in (client, client.handle("j"), client.entity("j"), asyncio.run(connected())):
        with pytest.raises(perdure.InvalidArgument, match="cannot be copied or pickled"):
            pickle.dumps(given)


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("limit", [None, 2])
def test_result_warns_about_a_job_without_workers(
    dsn: str, caplog: pytest.LogCaptureFixture, monkeypatch: Any, kind: str, limit: float | None
) -> None:
    """Its worker was not started, or serves another queue: the wait would never end, in silence."""
    monkeypatch.setattr("perdure.clients.handles.WARN_AFTER", 0.3)

    def ended() -> None:
        wait_until(lambda: bool(caplog.messages))
        with perdure.connect(dsn) as other:
            other.handle("j").terminate("enough")

    async def waits() -> None:
        async with perdure.connect_async(dsn) as client:
            await client.handle("j").result(limit)

    with perdure.connect(dsn) as client, ThreadPoolExecutor(1) as pool:
        handle = client.start("nobody's", id="j", queue="far")
        with pytest.raises(perdure.ResultTimeout):  # too short a wait for a warning
            handle.result(0.2)
        assert caplog.messages == []
        ending = pool.submit(ended)
        with pytest.raises(perdure.JobCancelled, match="enough"):
            handle.result(limit) if kind == "plain" else asyncio.run(waits())
        ending.result(20)
    (told,) = caplog.messages
    waited_for = "a worker on queue far (none has registered)"
    assert told == f"the result of job j has to wait for {waited_for}"


def test_result_does_not_warn_about_a_job_that_waits_for_a_signal(
    dsn: str, app: perdure.App, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    """It will end by itself: by a signal, a timer, or a worker that is busy."""
    monkeypatch.setattr("perdure.clients.handles.WARN_AFTER", 0.2)

    @app.coordinator
    async def waits(memory: perdure.AsyncEntity) -> Any:
        return await perdure.wait_for("go")

    with perdure.connect(dsn) as client, perdure.Worker(app, dsn=dsn):
        handle = client.start(waits)
        with pytest.raises(perdure.ResultTimeout):
            handle.result(0.5)
        handle.signal("go", 1)
        assert handle.result(T) == 1
    assert caplog.messages == []


def test_repr_says_what_an_object_is_for(dsn: str) -> None:
    """A client, worker and app show their app, queues and functions, and never a password."""
    app = perdure.App(version="7")
    assert repr(app) == "<App version 7: no functions>"

    @app.activity
    async def search() -> None: ...

    @app.coordinator(queue="desks")
    async def research(memory: perdure.AsyncEntity) -> None: ...

    assert repr(app) == "<App version 7: activity search, coordinator research>"
    worker = perdure.Worker(app, dsn=make_conninfo(dsn, password="secret"))
    assert repr(worker) == f"<Worker {worker.name} of default, desks>"
    with perdure.connect(make_conninfo(dsn, password="secret")) as client:
        assert repr(client) == "<Client of perdure>"
