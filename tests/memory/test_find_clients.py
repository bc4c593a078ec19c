"""find() and the indexes of memories, from Python and from the command line."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

import perdure
from perdure.cli.main import main
from perdure.clients.finding import on_the_wire
from perdure.errors import InvalidArgument

SEEN = datetime(2026, 1, 31, 12, tzinfo=UTC)
MEMORIES = {
    "jane": {"isPremium": True, "needsVerification": True, "score": 0.9, "seen_at": SEEN},
    "john": {"isPremium": True, "needsVerification": False, "score": 0.5, "tags": ["a", "b"]},
    "june": {"isPremium": False, "needsVerification": True, "user": {"email": "j@x.y"}},
}


@pytest.fixture
def client(dsn: str) -> Iterator[perdure.Client]:
    """Give a client of a database with three memories."""
    with perdure.connect(dsn) as client:
        for name, memory in MEMORIES.items():
            client.create_entity(name, "agent", memory)
        yield client


@pytest.fixture
def shell(
    dsn: str,
    client: perdure.Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """Give a function that runs `perdure …` and returns what it printed."""
    monkeypatch.setenv("PERDURE_DATABASE_URL", dsn)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["perdure", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_status:
            main()
        if exit_status.value.code:
            return f"failed: {exit_status.value.code} {capsys.readouterr().err}"
        return capsys.readouterr().out

    return run


def ids(found: list[perdure.Found]) -> list[str]:
    """List the ids of the jobs found."""
    return [row.id for row in found]


def test_find_returns_exactly_the_matching_memories(client: perdure.Client) -> None:
    """(C74) Two booleans combined match one memory of three; count() agrees."""
    (jane,) = client.find("agent", {"isPremium": True, "needsVerification": True})
    assert jane.id == "jane"
    assert (jane.entity, jane.status, jane.version) == ("agent", None, 1)
    assert jane.context["score"] == 0.9
    assert jane.created_at <= jane.updated_at
    assert client.count("agent", {"isPremium": True}) == 2
    assert client.count("agent") == 3
    assert client.find("nobody") == []


def test_times_are_compared_as_times(client: perdure.Client) -> None:
    """(E12) A datetime matches the same instant in any zone; a date means its first midnight in
    UTC."""
    elsewhere = SEEN.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert ids(client.find("agent", {"seen_at": elsewhere})) == ["jane"]
    assert ids(client.find("agent", {"seen_at": {"$gt": date(2026, 1, 31)}})) == ["jane"]
    assert client.find("agent", {"seen_at": {"$gt": date(2026, 2, 1)}}) == []
    assert ids(client.find("agent", {"seen_at": {"$in": [SEEN]}})) == ["jane"]
    with pytest.raises(InvalidArgument, match="zone"):
        client.find("agent", {"seen_at": SEEN.replace(tzinfo=None)})


def test_python_values_in_conditions_become_json() -> None:
    asked = {"a": (1, 2), "b": {"$in": {"x"}}, "c": SEEN, "d": None}
    assert on_the_wire(asked) == {
        "a": [1, 2],
        "b": {"$in": ["x"]},
        "c": {"$time": "2026-01-31T12:00:00+00:00"},
        "d": None,
    }


def test_next_page_begins_after_the_place_of_the_last_row(client: perdure.Client) -> None:
    """(E12) The pages join without a gap, for ascending and descending orders."""
    order = {"path": "score", "as": "number", "descending": True}
    first = client.find("agent", order_by=order, limit=1)
    rest = client.find("agent", order_by=order, after=first[-1].place)
    assert ids(first + rest) == ["jane", "john", "june"]
    assert ids(client.find("agent", order_by="-$id", limit=2)) == ["june", "john"]
    assert ids(client.find("agent", order_by=["isPremium", "-$id"])) == ["june", "john", "jane"]


@pytest.mark.direct("an index is built by a session")
def test_mistakes_raise_errors_of_the_package(client: perdure.Client) -> None:
    with pytest.raises(InvalidArgument, match="operator"):
        client.find("agent", {"score": {"$like": 1}})
    with pytest.raises(perdure.InvalidPath):
        client.find("agent", order_by="a..b")
    with pytest.raises(perdure.InvalidPath):
        client.create_index("agent", "a..b")
    with pytest.raises(InvalidArgument, match="kind"):
        client.create_index("agent", "a", "vector")
    with pytest.raises(perdure.InvalidValue):
        client.find("agent", {"score": object()})
    for number in range(64):
        client.send(client.calls.statements_to_create_index("many", f"v{number}", "text"))
    with pytest.raises(perdure.TooManyIndexes) as refused:
        client.create_index("many", "v64")
    assert refused.value.hint


@pytest.mark.direct("an index is built by a session")
def test_indexes_are_created_listed_and_dropped(client: perdure.Client) -> None:
    """(C73) Creating an index that exists returns the existing one."""
    made = client.create_index("agent", "user.email")
    assert made == client.create_index("agent", ["user", "email"], "text")
    assert (made.entity, made.path, made.kind, made.state) == (
        "agent",
        "user.email",
        "text",
        "valid",
    )
    assert client.create_index("agent", "", "contains").path == ""
    assert [index.kind for index in client.indexes()] == ["contains", "text"]
    assert ids(client.find("agent", {"user.email": "j@x.y"})) == ["june"]
    assert ids(client.find("agent", {"": {"$contains": {"tags": ["b"]}}})) == ["john"]
    assert client.drop_index("agent", "user.email") is True
    assert client.drop_index("agent", "user.email") is False
    assert len(client.indexes()) == 1


@pytest.mark.direct("an index is built by a session")
def test_async_client_gives_the_same_answers(client: perdure.Client, dsn: str) -> None:
    """(C73) (C74) find(), count() and the verbs of indexes answer as in the sync client."""

    async def scenario() -> None:
        async with await perdure.connect_async(dsn) as other:
            asked = {"isPremium": True, "seen_at": {"$lte": SEEN}}
            assert await other.find("agent", asked) == client.find("agent", asked)
            assert await other.count("agent", asked) == 1
            made = await other.create_index("agent", "score", "number")
            assert await other.indexes() == client.indexes()
            assert made == client.create_index("agent", "score", "number")
            assert await other.drop_index("agent", "score", "number") is True
            assert await other.indexes() == []

    asyncio.run(scenario())


def test_command_find_prints_matching_memories(shell: Callable[..., str]) -> None:
    lines = shell("find", "agent", "--where", '{"isPremium": true}', "--order", '["-$id"]')
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines.splitlines()]
    assert [row["id"] for row in rows] == ["john", "jane"]
    page = ("--order", '["-$id"]', "--limit", "1", "--after", json.dumps(rows[0]["place"]))
    assert json.loads(shell("find", "agent", *page))["id"] == "jane"
    assert "no operator" in shell("find", "agent", "--where", '{"a": {"$like": 1}}')


@pytest.mark.direct("an index is built by a session")
def test_command_index_creates_lists_and_drops(shell: Callable[..., str]) -> None:
    assert json.loads(shell("index", "create", "agent", "score", "number"))["state"] == "valid"
    assert json.loads(shell("index", "list"))["path"] == "score"
    assert json.loads(shell("index", "drop", "agent", "score", "number")) is True
    assert json.loads(shell("index", "drop", "agent", "score", "number")) is False
    assert shell("index", "list") == ""


def test_numbers_of_any_length_are_compared_exactly(client: perdure.Client) -> None:
    client.create_entity("long", "agent", {"score": 10**40 + 1})
    assert ids(client.find("agent", {"score": 10**40 + 1})) == ["long"]
    assert client.find("agent", {"score": 10**40}) == []
    assert Decimal(client.find("agent", {"score": {"$gt": 1}})[0].context["score"]) == 10**40 + 1
