"""An error names ids, names and places, but never a value, because the server logs errors (S18).

Every verb that takes values is called wrongly in many ways, always with a recognizable value. Not
covered: text that is not JSON, which PostgreSQL quotes itself before any verb runs.
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
from tests.security.payloads import VALUE, Place, places
from tests.security.secured import KINDS, Connection, SecuredApp, secured_app
from tests.security.test_hostile_arguments import prepare_job
from tests.security.test_queues_of_workers import leases

SECRET = "Xantippe"
"""The value that no error may show."""

SHAPES = [
    SECRET,
    [SECRET],
    {"v": SECRET},
    json.loads("[" * 101 + f'"{SECRET}"' + "]" * 101),
    {"v": SECRET * 140_000},
    {"v": SECRET, "n": 10**310},
]
"""Values; each is too deep, too large or of the wrong type for some verb."""

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
"""More wrong values for arguments of these names."""

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
"""A contract that the memories of these tests meet until the value is written."""

OWN_WORDS = {
    ("broken_contracts", "schema"),
    ("define_contract", "schema"),
    ("find", "order_by"),
}
"""Arguments that are code of the caller, as a query is: an error names the unknown word."""

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
def secured(server: Server) -> Iterator[SecuredApp]:
    """Give an app on that server."""
    with secured_app(server) as secured:
        yield secured


@pytest.fixture
def sessions(secured: SecuredApp) -> Iterator[dict[str, Connection]]:
    """Give a connection for each role."""
    with ExitStack() as stack:
        roles = ("owner", "nobody", *KINDS)
        yield {role: stack.enter_context(secured.connected(role)) for role in roles}


def refusals(answer: Any) -> Iterator[dict[str, Any]]:
    """Yield the errors contained in an answer."""
    if isinstance(answer, dict) and {"code", "message"} <= answer.keys():
        yield answer
    elif isinstance(answer, dict | list | tuple):
        for part in answer.values() if isinstance(answer, dict) else answer:
            yield from refusals(part)


def errors_of(connection: Connection, query: str, values: list[Any]) -> list[tuple[str, str]]:
    """Run a call; return the code and full text of each error, raised or answered."""
    try:
        answers = connection.execute(query.encode(), values).fetchall()
    except psycopg.Error as error:
        words = [str(getattr(error.diag, name)) for name in dir(error.diag) if name[0] != "_"]
        return [(error.sqlstate or "", " ".join(words))]
    return [(str(each["code"]), json.dumps(each)) for each in refusals(answers)]


def calls_wrong_elsewhere(place: Place, made: Said) -> Iterator[Said]:
    """Yield calls that fail because of something else than the value."""
    call_arguments, arguments = (
        place.arguments_with(made, json.dumps({"v": SECRET})),
        place.verb.arguments,
    )
    wrong = {
        "expected_version": [99], "path": ["a..b", "v.n.x", "list.x"], "id": [made["job"]],
        "max_rows": [0], "queue": ["a@b"], "name": [""], "workflow": [""],
    }  # fmt: skip
    for name in arguments.keys() & wrong.keys():
        yield from (call_arguments | {name: each} for each in wrong[name])
    for other in ({"token": str(uuid4())}, dict.fromkeys(("id", "job", "item"), "nobody")):
        yield place.arguments_with(made | other, json.dumps({"v": SECRET}))
    if "key" in arguments:
        yield call_arguments | {"key": "k", place.argument: "[2]"}
        yield call_arguments | {"key": "k"}
    if place.template != VALUE:
        yield call_arguments | {place.argument: json.dumps([SECRET, {"v": SECRET}])}


def calls(place: Place, owner: Connection) -> Iterator[tuple[str, Said]]:
    """Yield calls that fail, each with the role that makes it."""
    role, made = place.verb.role, place.prepare(owner)
    value = json.dumps({"v": SECRET})
    for shape in [*SHAPES, *WRONG.get(place.argument, [])]:
        yield role, place.arguments_with(made, json.dumps(shape))
    made = place.prepare(owner)
    yield "nobody", place.arguments_with(made, value)
    for call_arguments in calls_wrong_elsewhere(place, made):
        yield role, call_arguments
    owner.execute("select terminate(%s)", [made["job"]])
    yield role, place.arguments_with(made, value)
    owner.execute("select define_contract('doc', %s)", [json.dumps(CONTRACT)])
    yield role, place.arguments_with(place.prepare(owner), value)
    owner.execute("select drop_contract('doc')")


def test_no_error_or_log_line_shows_the_value_of_a_call(
    server: Server, sessions: dict[str, Connection]
) -> None:
    codes, shown = set(), []
    for place in places(sessions["owner"]):
        if (place.verb.name, place.argument) in OWN_WORDS:
            continue
        for role, call_arguments in calls(place, sessions["owner"]):
            for code, words in errors_of(
                sessions[role], place.query(call_arguments), list(call_arguments.values())
            ):
                codes.add(code)
                shown += [f"{place}: {words}"] if SECRET in words else []
    assert shown == []
    assert EXPECTED - codes == set()
    log = (server.folder / "log").read_text(errors="replace")
    assert log.count("ERROR: ") > 300
    assert SECRET not in log


@pytest.mark.parametrize("field", ["priority", "due_at", "timeout"])
def test_error_about_an_invalid_start_shows_no_value(
    sessions: dict[str, Connection], field: str
) -> None:
    starts = json.dumps([{"workflow": "w", field: SECRET}])
    ((code, words),) = errors_of(sessions["client"], "select perdure.start_many(%s)", [starts])
    assert code == "PD107"
    assert SECRET not in words


def test_log_shows_no_token(server: Server, sessions: dict[str, Connection]) -> None:
    """(S19) Neither the token of the refused caller nor that of the task's holder is logged."""
    owner, worker, codes = sessions["owner"], sessions["worker"], set()
    tokens = []
    for verb in leases("", "", ""):
        held, own = prepare_job(owner), prepare_job(owner)
        tokens += [held["token"], own["token"]]
        query, values = leases(held["job"], held["task"], own["token"])[verb]
        codes |= {code for code, _ in errors_of(worker, query, values)}
    assert codes == {"PD001"}
    log = (server.folder / "log").read_text(errors="replace")
    assert "is not held by this token" in log
    assert [token for token in tokens if token in log] == []
