"""A refusal tells ids, names and places, and never a value: what it says goes to the server's log
(S18).

Every verb that takes values is refused for what they are and for whatever else there is, with one
among them that would be known again. Not tried is what PostgreSQL says itself of a text that is no
JSON, before any verb is called: it quotes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from perdure.embedded.server import Server
from tests.security.house import KINDS, Connection, House, built
from tests.security.payloads import VALUE, Place, places
from tests.security.test_hostile_arguments import stage
from tests.security.test_queues_of_workers import leases

SECRET = "Xantippe"
"""What must stand in no refusal."""

SHAPES = [
    SECRET,
    [SECRET],
    {"v": SECRET},
    json.loads("[" * 101 + f'"{SECRET}"' + "]" * 101),
    {"v": SECRET * 140_000},
    {"v": SECRET, "n": 10**310},
]
"""Values of which each is too deep, too large or of the wrong type for some verb."""

WRONG: dict[str, list[Any]] = {
    "conditions": [
        {"v": {"$gt": [SECRET]}}, {"v": {"$same": SECRET}}, {"v": {"$gt": 1, "v": SECRET}},
        {"v": {"$in": SECRET}}, {"v": {"$exists": SECRET}}, {"v": {"$gt": {"$time": SECRET}}},
        {"v": [{"$time": SECRET}]}, {"v": {"$match": [SECRET]}}, {"$or": SECRET},
        {"$version": SECRET}, {"$id": {"$contains": SECRET}}, {"v": {"$search": [SECRET]}},
        {"v": {"$search": SECRET * 200}}, {"v": {"$search": {"text": "x", "language": SECRET}}},
    ],
    "schema": [{"type": SECRET}, {"properties": SECRET}, {"required": [1, SECRET]}],
    "after": [[[SECRET]], [[SECRET], [SECRET]]],
}  # fmt: skip
"""What is wrong with an argument of this name beside."""

CONTRACT = {
    "properties": {
        "v": {
            "type": "object",
            "properties": {"v": {"anyOf": [{"type": "boolean"}, {"enum": ["a"]}]}},
        },
        "new": {"properties": {"v": {"pattern": "^$"}}},
        "list": {"items": {"const": 1}},
    },
}
"""What the memories of these tests keep to, as long as no value comes."""

OWN_WORDS = {
    ("broken_contracts", "schema"),
    ("define_contract", "schema"),
    ("find", "order_by"),
}
"""What is code of the caller's, as a query is: a refusal names the word that is not understood."""

EXPECTED = {
    "42501", "PD001", "PD101", "PD102", "PD103", "PD105", "PD106", "PD107", "PD109", "PD301",
    "PD302", "PD304", "PD401", "PD402", "PD403", "PD411",
}  # fmt: skip

Said = dict[str, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Give a server whose log can be read."""
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def house(server: Server) -> Iterator[House]:
    """Give an app on it."""
    with built(server) as house:
        yield house


@pytest.fixture
def sessions(house: House) -> Iterator[dict[str, Connection]]:
    """Give a session of each role."""
    with ExitStack() as stack:
        roles = ("owner", "nobody", *KINDS)
        yield {role: stack.enter_context(house.entered(role)) for role in roles}


def refusals(answer: Any) -> Iterator[dict[str, Any]]:
    """Give the refusals that stand in an answer."""
    if isinstance(answer, dict) and {"code", "message"} <= answer.keys():
        yield answer
    elif isinstance(answer, dict | list | tuple):
        for part in answer.values() if isinstance(answer, dict) else answer:
            yield from refusals(part)


def told(connection: Connection, query: str, values: list[Any]) -> list[tuple[str, str]]:
    """Run a call; give the code and all words of each refusal, be it raised or answered."""
    try:
        answers = connection.execute(query.encode(), values).fetchall()
    except psycopg.Error as error:
        words = [str(getattr(error.diag, name)) for name in dir(error.diag) if name[0] != "_"]
        return [(error.sqlstate or "", " ".join(words))]
    return [(str(each["code"]), json.dumps(each)) for each in refusals(answers)]


def beside(place: Place, made: Said) -> Iterator[Said]:
    """Give calls that are refused for what stands beside a value."""
    said, arguments = place.said(made, json.dumps({"v": SECRET})), place.verb.arguments
    wrong = {
        "expected_version": [99], "path": ["a..b", "v.n.x", "list.x"], "id": [made["job"]],
        "max_rows": [0], "queue": ["a@b"], "name": [""], "workflow": [""],
    }  # fmt: skip
    for name in arguments.keys() & wrong.keys():
        yield from (said | {name: each} for each in wrong[name])
    for other in ({"token": str(uuid4())}, dict.fromkeys(("id", "job", "item"), "nobody")):
        yield place.said(made | other, json.dumps({"v": SECRET}))
    if "key" in arguments:
        yield said | {"key": "k", place.argument: "[2]"}
        yield said | {"key": "k"}
    if place.template != VALUE:
        yield said | {place.argument: json.dumps([SECRET, {"v": SECRET}])}


def calls(place: Place, owner: Connection) -> Iterator[tuple[str, Said]]:
    """Give calls that are refused, each with the role that makes it."""
    role, made = place.verb.role, place.made(owner)
    value = json.dumps({"v": SECRET})
    for shape in [*SHAPES, *WRONG.get(place.argument, [])]:
        yield role, place.said(made, json.dumps(shape))
    made = place.made(owner)
    yield "nobody", place.said(made, value)
    for said in beside(place, made):
        yield role, said
    owner.execute("select terminate(%s)", [made["job"]])
    yield role, place.said(made, value)
    owner.execute("select define_contract('doc', %s)", [json.dumps(CONTRACT)])
    yield role, place.said(place.made(owner), value)
    owner.execute("select drop_contract('doc')")


def test_no_refusal_shows_the_value_that_came_with_it(
    server: Server, sessions: dict[str, Connection]
) -> None:
    codes, shown = set(), []
    for place in places(sessions["owner"]):
        if (place.verb.name, place.argument) in OWN_WORDS:
            continue
        for role, said in calls(place, sessions["owner"]):
            for code, words in told(sessions[role], place.query(said), list(said.values())):
                codes.add(code)
                shown += [f"{place}: {words}"] if SECRET in words else []
    assert shown == []
    assert EXPECTED - codes == set()
    log = (server.folder / "log").read_text(errors="replace")
    assert log.count("ERROR: ") > 300
    assert SECRET not in log


@pytest.mark.parametrize("field", ["priority", "due_at", "timeout"])
def test_a_start_that_cannot_be_read_shows_nothing_of_it(
    sessions: dict[str, Connection], field: str
) -> None:
    starts = json.dumps([{"workflow": "w", field: SECRET}])
    ((code, words),) = told(sessions["client"], "select perdure.start_many(%s)", [starts])
    assert code == "PD107"
    assert SECRET not in words


def test_no_log_shows_a_token(server: Server, sessions: dict[str, Connection]) -> None:
    """Neither that of who is refused nor that of who holds the task (S19)."""
    owner, worker, codes = sessions["owner"], sessions["worker"], set()
    tokens = []
    for verb in leases("", "", ""):
        held, own = stage(owner), stage(owner)
        tokens += [held["token"], own["token"]]
        query, values = leases(held["job"], held["task"], own["token"])[verb]
        codes |= {code for code, _ in told(worker, query, values)}
    assert codes == {"PD001"}
    log = (server.folder / "log").read_text(errors="replace")
    assert "is not held by this token" in log
    assert [token for token in tokens if token in log] == []
