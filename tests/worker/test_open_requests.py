"""Changed code is detected even if the requests of the old code are not answered yet. [P9]"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure
from perdure.replaying import recording_of, replay_journal
from perdure.workers import coordinators
from tests.databases import UNHINTED
from tests.patience import wait_until

T = "40 s"


def app_with(ask: Any) -> perdure.App:
    """Make a version of the code. Its hooks and children answer after a signal."""
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
    """Request a hook for each of these people at once, in this order."""

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
    """Tell whether the coordinator has made its requests and waits only for answers."""
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
def test_answer_is_not_given_to_code_that_requests_something_else(
    client: perdure.Client,
    serve: Any,
    connection: Any,
    old: Any,
    new: Any,
    answer: Any,
    result: Any,
) -> None:
    """The changed code is stuck, and the old code still gets the answer."""
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


def test_changed_arguments_of_an_open_request_may_be_accepted(
    client: perdure.Client, serve: Any, connection: Any
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
    """Make these requests one after the other, and wait for a signal beside them."""

    async def ask(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        async def all_calls() -> Any:
            given = {"slow": (memory, "a"), "slower": (memory, "a"), "near": ("a",)}
            return [await work[name](*given[name]) for name in calls]

        return await asyncio.gather(all_calls(), perdure.wait_for("look"))

    return ask


def differs(client: perdure.Client, handle: Any, code: Any) -> str:
    """Give the difference that a replay of this code finds, as before its deployment."""
    recording = recording_of(client, handle.id)
    difference = replay_journal(app_with(code), recording.row, recording.journal)
    return "" if difference is None else difference.detail or ""


def tasks_and_facts(connection: Any) -> tuple[list[str], int]:
    """Give the existing tasks, and the number of facts of the coordinator."""
    facts = "select count(*)::integer from journal where task = '1/main'"
    tasks = "select array_agg(task order by task) from tasks"
    return tuple(connection.execute(query).fetchone()[0] for query in (tasks, facts))


def count_requests(connection: Any) -> int:
    """Give the number of requests that the coordinator has made."""
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
def test_changed_code_has_no_effect_while_a_request_is_open(
    client: perdure.Client, serve: Any, connection: Any, new: Any
) -> None:
    """The right code later gets the signal that arrived while the changed code ran."""
    with serve(app_with(beside("slow"))):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    assert differs(client, handle, beside("slow")) == ""
    assert ".1/slow#1" in differs(client, handle, new)
    before = count_requests(connection)
    handle.signal("look")
    with serve(app_with(new)):
        wait_until(lambda: handle.status().stuck)
    assert "It has asked for .1/slow#1" in (handle.status().waiting_for or "")
    assert tasks_and_facts(connection) == (["1/main", "1/main/.1/slow#1"], 0)
    assert count_requests(connection) == before
    with serve(app_with(beside("slow"))):
        handle.signal("go")
        assert handle.result(T) == [["for a"], None]


@pytest.mark.parametrize("new", [beside("near"), returns, fails], ids=["here", "returns", "fails"])
def test_changed_code_does_not_skip_an_answer(
    client: perdure.Client, serve: Any, connection: Any, new: Any
) -> None:
    with serve(app_with(item("a"))):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    resolve(handle, client)
    assert differs(client, handle, item("a")) == ""
    assert "item:sign#1" in differs(client, handle, new)
    with serve(app_with(new)):
        wait_until(lambda: handle.status().stuck)
    assert tasks_and_facts(connection) == (["1/main"], 0)
    with serve(app_with(item("a"))):
        assert handle.result(T) == ["a", "yes"]


def sent_to(queue: str | None) -> perdure.App:
    """Make a version of the code whose activity is dispatched, or runs in its caller's worker."""
    app = perdure.App()

    @app.activity(queue=queue)
    async def work() -> str:
        return "done there" if queue else "done here"

    @app.coordinator
    async def flow(memory: perdure.AsyncEntity) -> str:
        return await work()

    return app


def test_dispatched_activity_is_not_run_again_by_its_caller(
    client: perdure.Client, dsn: str, connection: Any
) -> None:
    """Code that no longer dispatches it must not skip its answer and run it a second time."""
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
    assert tasks_and_facts(connection) == (["1/main"], 0)
    with perdure.Worker(sent_to("far"), dsn=dsn, **UNHINTED):
        assert handle.result(T) == "done there"


def test_refused_result_fails_a_job_that_has_withdrawn_a_request(
    client: perdure.Client, serve: Any, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn after the refused one must repeat the withdrawal. Otherwise the same code would
    count as changed."""

    async def gives_up(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        request = asyncio.ensure_future(work["slow"](memory, "a"))
        await perdure.wait_for("look")
        request.cancel()
        return "x"

    with serve(app_with(gives_up)):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    handle.signal("look")
    monkeypatch.setattr(coordinators, "stored_result", lambda _, value: value * 1_100_000)
    with serve(app_with(gives_up)), pytest.raises(perdure.JobFailed, match="too large"):
        handle.result(T)


def test_changed_code_has_no_effect_when_its_worker_stops(
    client: perdure.Client, serve: Any, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker gives the task back without recording what the changed code has done."""

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
    assert tasks_and_facts(connection)[1] == 0


def test_changed_code_that_is_refused_withdraws_no_request(
    client: perdure.Client, serve: Any, connection: Any
) -> None:
    """Otherwise the right code would wait for ever for the answer."""

    async def withdraws(memory: perdure.AsyncEntity, work: dict[str, Any]) -> Any:
        request = asyncio.ensure_future(perdure.ask_people("sign", "a"))
        await asyncio.sleep(0)
        request.cancel()
        await memory.until("is refused")

    with serve(app_with(item("a"))):
        handle = client.start("flow")
        wait_until(lambda: is_parked(connection, handle))
    resolve(handle, client)
    with serve(app_with(withdraws)):
        wait_until(lambda: handle.status().stuck)
    assert "is refused" in (handle.status().waiting_for or "")
    assert tasks_and_facts(connection) == (["1/main"], 0)
    with serve(app_with(item("a"))):
        assert handle.result(T) == ["a", "yes"]


def test_plain_code_that_unwinds_to_wait_withdraws_no_request(
    client: perdure.Client, serve: Any, connection: Any
) -> None:
    """Plain code unwinds whenever it waits. Its `finally` block must not cancel its hook then."""
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
    assert tasks_and_facts(connection) == (["1/main", "1/main/slow#1"], 0)
    with serve(app):
        handle.signal("look")
        handle.signal("go")
        assert handle.result("10 s") == "done"
