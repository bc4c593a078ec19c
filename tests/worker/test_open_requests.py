"""Changed code is found out though what the old one had asked for has not answered yet. [P9]"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure.replaying import recording_of, replay_journal
from perdure.workers import coordinators
from tests.databases import UNHINTED
from tests.patience import wait_until

T = "40 s"
Serve = Callable[[perdure.App], perdure.Worker]


@pytest.fixture
def serve(dsn: str) -> Serve:
    """Give a function that makes a worker of some version of the code."""
    return lambda app: perdure.Worker(app, dsn=dsn, **UNHINTED)


def app_with(ask: Any) -> perdure.App:
    """Make a version of the code; what it asks for answers after a signal, or is resolved."""
    app = perdure.App()

    @app.hook
    async def slow(memory: perdure.AsyncEntity, who: str) -> str:
        await perdure.wait_for("go")
        return f"for {who}"

    @app.hook
    async def slower(memory: perdure.AsyncEntity, who: str) -> str:
        await perdure.wait_for("go")
        return f"slowly for {who}"

    @app.activity
    async def near(who: str) -> str:
        return f"for {who}"

    @app.coordinator
    async def kid(memory: perdure.AsyncEntity, who: str) -> str:
        await perdure.wait_for("go")
        return f"for {who}"

    @app.coordinator
    async def flow(memory: perdure.AsyncEntity) -> Any:
        return await ask(memory, {"slow": slow, "slower": slower, "near": near, "kid": kid})

    return app


def gathered(*people: str) -> Any:
    """Ask for all people at once, in an order that a set might have."""

    async def ask(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        answers = await asyncio.gather(*(work["slow"](memory, who) for who in people))
        return dict(zip(people, answers, strict=True))

    return ask


def child(who: str) -> Any:
    async def ask(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        return await perdure.child(work["kid"], who)

    return ask


def until(name: str) -> Any:
    async def ask(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        return [name, await memory.until(f"$.{name} == 1")]

    return ask


def item(payload: str) -> Any:
    async def ask(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        return [payload, await perdure.ask_people("sign", payload)]

    return ask


def go(handle: Any, client: perdure.Client) -> None:
    for _ in "ab":
        handle.signal("go")


def go_child(handle: Any, client: perdure.Client) -> None:
    client.handle(f"{handle.id}/kid#1").signal("go")


def write(handle: Any, client: perdure.Client) -> None:
    handle.memory.set(1, "a")


def resolve(handle: Any, client: perdure.Client) -> None:
    next(iter(client.items())).resolve("yes")


def is_parked(connection: Any, handle: Any) -> bool:
    """Tell whether the coordinator has asked, and waits for nothing but answers."""
    query = "select token is null and awaits is not null from tasks where (job_id, task) = (%s, %s)"
    return bool(connection.execute(query, [handle.id, "1/main"]).fetchone()[0])


@pytest.mark.parametrize(
    ("old", "new", "answer", "result"),
    [
        (gathered("a", "b"), gathered("b", "a"), go, {"a": "for a", "b": "for b"}),
        (child("a"), child("b"), go_child, "for a"),
        (until("a"), until("b"), write, ["a", 1]),
        (item("a"), item("b"), resolve, ["a", "yes"]),
    ],
    ids=["hooks", "child", "until", "item"],
)
def test_an_answer_goes_to_nobody_who_asks_for_something_else_now(
    client: perdure.Client,
    serve: Serve,
    connection: Any,
    old: Any,
    new: Any,
    answer: Any,
    result: Any,
) -> None:
    with serve(app_with(old)):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    assert differs(client, handle, old) == ""
    assert "but the code asks for answer" in differs(client, handle, new)
    answer(handle, client)
    with serve(app_with(new)):
        wait_until(lambda: handle.status().stuck)
        assert "other arguments" in (handle.status().waiting_for or "")
    with serve(app_with(old)):
        assert handle.result(T) == result


def test_changed_arguments_of_what_is_open_may_be_accepted(
    client: perdure.Client, serve: Serve, connection: Any
) -> None:
    with serve(app_with(item("a"))):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    resolve(handle, client)
    with serve(app_with(item("b"))):
        wait_until(lambda: handle.status().stuck)
        assert handle.resume(accept_changes=True) == 1
        assert handle.result(T) == ["b", "yes"]


def beside(*calls: str) -> Any:
    """Ask one after the other, and wait for a signal beside that."""

    async def ask(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        async def all_calls() -> Any:
            given = {"slow": (memory, "a"), "slower": (memory, "a"), "near": ("a",)}
            return [await work[name](*given[name]) for name in calls]

        return await asyncio.gather(all_calls(), perdure.wait_for("look"))

    return ask


def differs(client: perdure.Client, handle: Any, code: Any) -> str:
    """Tell what a replay of other code tells before it is deployed."""
    recording = recording_of(client, handle.id)
    difference = replay_journal(app_with(code), recording.row, recording.journal)
    return "" if difference is None else difference.detail or ""


def left(connection: Any) -> tuple[list[str], int]:
    """Give the tasks that there are, and how much the coordinator was told."""
    told = "select count(*)::integer from journal where task = '1/main'"
    tasks = "select array_agg(task order by task) from tasks"
    return tuple(connection.execute(query).fetchone()[0] for query in (tasks, told))


def asked(connection: Any) -> int:
    """Tell how much the coordinator's code has asked for."""
    return int(connection.execute("select asked from tasks where task = '1/main'").fetchone()[0])


async def fails(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
    raise TypeError("new code, new bug")


async def asks_more(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
    return await asyncio.gather(*(work["slower"](memory, str(n)) for n in range(9)))


async def returns(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
    return "at once"


@pytest.mark.parametrize(
    "new",
    [beside("slower"), beside("near"), beside(), beside("near", "slow"), asks_more, fails, returns],
    ids=["renamed", "here", "removed", "later", "more", "fails", "returns"],
)
def test_other_code_has_no_effect_beside_what_is_under_way(
    client: perdure.Client, serve: Serve, connection: Any, new: Any
) -> None:
    """What it is told before it is found out is there for the code that comes after it."""
    with serve(app_with(beside("slow"))):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    assert differs(client, handle, beside("slow")) == ""
    assert ".1/slow#1" in differs(client, handle, new)
    before = asked(connection)
    handle.signal("look")
    with serve(app_with(new)):
        wait_until(lambda: handle.status().stuck)
    assert "It has asked for .1/slow#1" in (handle.status().waiting_for or "")
    assert left(connection) == (["1/main", "1/main/.1/slow#1"], 0)
    assert asked(connection) == before
    with serve(app_with(beside("slow"))):
        handle.signal("go")
        assert handle.result(T) == [["for a"], None]


@pytest.mark.parametrize("new", [beside("near"), returns, fails], ids=["here", "returns", "fails"])
def test_other_code_does_not_pass_over_an_answer(
    client: perdure.Client, serve: Serve, connection: Any, new: Any
) -> None:
    with serve(app_with(item("a"))):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    resolve(handle, client)
    assert differs(client, handle, item("a")) == ""
    assert "item:sign#1" in differs(client, handle, new)
    with serve(app_with(new)):
        wait_until(lambda: handle.status().stuck)
    assert left(connection) == (["1/main"], 0)
    with serve(app_with(item("a"))):
        assert handle.result(T) == ["a", "yes"]


def sent_to(queue: str | None) -> perdure.App:
    """Make a version of the code whose activity runs on a queue of its own, or beside the code."""
    app = perdure.App()

    @app.activity(queue=queue)
    async def work() -> str:
        return "done there" if queue else "done here"

    @app.coordinator
    async def flow(memory: perdure.AsyncEntity) -> str:
        return await work()

    return app


def test_an_activity_that_others_were_asked_for_does_not_begin_here(
    client: perdure.Client, dsn: str, connection: Any
) -> None:
    """Its answer was passed over, and it was done a second time."""
    answers = "select count(*) from inbox where key = 'work#1'"
    with perdure.Worker(sent_to("far"), ["default"], dsn=dsn, **UNHINTED):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    recorded = [recording_of(client, handle.id)]
    with perdure.Worker(sent_to("far"), ["far"], dsn=dsn, **UNHINTED):
        wait_until(lambda: connection.execute(answers).fetchone() == (1,))
    recorded.append(recording_of(client, handle.id))
    for each in recorded:
        assert replay_journal(sent_to("far"), each.row, each.journal) is None
        difference = replay_journal(sent_to(None), each.row, each.journal)
        assert difference is not None
        assert "the code asks for activity work#1" in (difference.detail or "")
    with perdure.Worker(sent_to(None), dsn=dsn, **UNHINTED):
        wait_until(lambda: handle.status().stuck)
    assert left(connection) == (["1/main"], 0)
    with perdure.Worker(sent_to("far"), dsn=dsn, **UNHINTED):
        assert handle.result(T) == "done there"


def test_a_job_whose_result_is_refused_fails_though_it_has_withdrawn_something(
    client: perdure.Client, serve: Serve, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has withdrawn was said in the turn that was refused, and not in the one after it, by
    which right code was taken for another."""

    async def gives_up(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        asked = asyncio.ensure_future(work["slow"](memory, "a"))
        await perdure.wait_for("look")
        asked.cancel()
        return "x"

    with serve(app_with(gives_up)):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    handle.signal("look")
    monkeypatch.setattr(coordinators, "stored", lambda value: value * 1_100_000)
    with serve(app_with(gives_up)), pytest.raises(perdure.JobFailed, match="too large"):
        handle.result(T)


def test_other_code_has_no_effect_where_its_worker_stops(
    client: perdure.Client, serve: Serve, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gave the task back with what it had written, and was told."""

    async def writes(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        return await asyncio.gather(memory.set("other", "code"), work["near"]("a"))

    with serve(app_with(beside("slow"))):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    handle.signal("look")
    settle = coordinators.CoordinatorTurn._settle

    def stops_first(turn: Any, run: Any) -> None:
        turn.engine.is_stopping = True
        settle(turn, run)

    with serve(app_with(writes)):
        monkeypatch.setattr(coordinators.CoordinatorTurn, "_settle", stops_first)
        wait_until(lambda: handle.status().stuck)
    assert handle.memory.get() == {}
    assert left(connection)[1] == 0


def test_other_code_that_is_refused_for_something_else_passes_over_no_answer(
    client: perdure.Client, serve: Serve, connection: Any
) -> None:
    """That it had withdrawn the request was recorded, and the right code waited for ever."""

    async def withdraws(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        asked = asyncio.ensure_future(perdure.ask_people("sign", "a"))
        await asyncio.sleep(0)
        asked.cancel()
        await memory.until("is refused")

    with serve(app_with(item("a"))):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    resolve(handle, client)
    with serve(app_with(withdraws)):
        wait_until(lambda: handle.status().stuck)
    assert "is refused" in (handle.status().waiting_for or "")
    assert left(connection) == (["1/main"], 0)
    with serve(app_with(item("a"))):
        assert handle.result(T) == ["a", "yes"]


def test_plain_code_that_cleans_up_withdraws_nothing_while_it_waits(
    client: perdure.Client, serve: Serve, connection: Any
) -> None:
    """It unwinds to wait, and its hook was withdrawn each time, before it had begun."""
    app = perdure.App()

    @app.hook
    async def slow(memory: perdure.AsyncEntity) -> str:
        await perdure.wait_for("go")
        return "done"

    @app.coordinator
    def flow(memory: perdure.Entity) -> str:
        pending = slow.start()
        try:
            perdure.wait_for("look")
            return pending.result()
        finally:
            pending.cancel()

    with serve(app):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    assert left(connection) == (["1/main", "1/main/slow#1"], 0)
    with serve(app):
        handle.signal("look")
        handle.signal("go")
        assert handle.result("10 s") == "done"
