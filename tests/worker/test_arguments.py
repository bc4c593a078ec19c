"""Arguments of clients: one of a wrong type is rejected by its name, before anything is sent."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

import perdure
from perdure import database
from perdure.basics.arguments import BIGINT, INTEGER, KINDS, NEEDED_BUT_IN, NUMBERED, TEXT
from perdure.basics.names import check_name
from perdure.codecs import AesGcm
from perdure.testing import AsyncLab, Lab

CALLS = "".join(file.read_text() for file in sorted(Path(database.__path__[0]).glob("*_calls.py")))
NAMED = {*re.findall(r'_(?:call|repeatable|item)\(\s*"(\w+)"', CALLS), "entity_remove"}
MADE_HERE = {"advance", "claim", "register_worker", "index_name", "move_clock"}
"""Functions to which this package passes no argument of a caller unchanged."""

WRITTEN = {"path", "stream", "listener", "source", "worker", "protocol"}
"""Arguments that this package writes itself, in any function."""

OF_SQL = {"text": TEXT, "integer": INTEGER, "bigint": BIGINT}

Use = Callable[[perdure.Client], Any]

ID = UUID("00000000-0000-4000-8000-000000000001")


@dataclass(frozen=True)
class Case:
    """A call with a wrong argument, and the message of its error."""

    use: Use

    message: str


WRONG_CALLS: dict[str, Case] = {
    "a signal without a name": Case(
        lambda client: client.handle("note").signal(None),  # type: ignore[arg-type]
        "name=None is not a text",
    ),
    "a list for text": Case(
        lambda client: client.cancel_found([], {}),  # type: ignore[arg-type]
        "entity=[] is not a text",
    ),
    "a tuple for a key": Case(
        lambda client: client.handle("note").signal("go", key=("a", 1)),  # type: ignore[arg-type]
        "key=('a', 1) is not a text",
    ),
    "text for a version": Case(
        lambda client: client.entity("note").restore("1"),  # type: ignore[arg-type]
        "version='1' is not a whole number",
    ),
    "a number beyond its range": Case(
        lambda client: client.find("note", {}, limit=2**31),
        "max_rows=2147483648 is not a whole number",
    ),
    "a boolean for a number": Case(
        lambda client: client.entity("note").history(after=True), "after=True is not a whole number"
    ),
    "a number for a place": Case(
        lambda client: client.signal_found("note", {}, "go", after=3),  # type: ignore[arg-type]
        "after=3 is not a text",
    ),
    "text for a boolean": Case(
        lambda client: client.handle("note").resume(accept_changes="no"),  # type: ignore[arg-type]
        "accept_changes='no' is not a boolean",
    ),
    "text for a rate": Case(
        lambda client: client.set_queue("q", rate_per_second="fast"),  # type: ignore[arg-type]
        "rate_per_second='fast' is not a number",
    ),
    "a list for a duration": Case(
        lambda client: client.handle("note").result([1]),  # type: ignore[arg-type]
        "[1] is not a duration",
    ),
    "a number for a workflow": Case(
        lambda client: client.handle("note", 5),  # type: ignore[arg-type]
        "5 is not a registered coordinator",
    ),
    "a number for the workflow of a fork": Case(
        lambda client: client.fork("note", workflow=5),  # type: ignore[arg-type]
        "5 is not a registered coordinator",
    ),
    "a number for the hook of an answer": Case(
        lambda client: client.handle("note").hook_result("$hook/k", 5),  # type: ignore[arg-type]
        "5 is not a registered hook",
    ),
    "text for arguments": Case(
        lambda client: client.handle("note").retry("ab"), "args='ab' is not a list"
    ),
    "a number for arguments": Case(
        lambda client: client.create_schedule("w", every=60, args=5),  # type: ignore[arg-type]
        "args=5 is not a list",
    ),
    "a number for an order": Case(
        lambda client: client.find("note", {}, order_by=5),  # type: ignore[arg-type]
        "order_by=5 is not a list",
    ),
    "one start for many": Case(
        lambda client: client.start_many("w", {"id": "x"}),  # type: ignore[arg-type]
        "many={'id': 'x'} is not a list",
    ),
    "a start that is an id": Case(
        lambda client: client.start_many("w", ["x"]),  # type: ignore[list-item]
        "start 1 of 1 is not a mapping: 'x'",
    ),
    "one command for several": Case(
        lambda client: client.entity("note").apply({"op": "toggle"}),  # type: ignore[arg-type]
        "commands={'op': 'toggle'} is not a list",
    ),
    "text for a contract": Case(
        lambda client: client.define_contract("note", "{}"),  # type: ignore[arg-type]
        "'{}' is not a contract",
    ),
    "a number for a hook": Case(
        lambda client: client.drop_sql_hook(5),  # type: ignore[arg-type]
        "5 is not a hook in SQL",
    ),
    "a number of text for a place in a stream": Case(
        lambda client: list(client.handle("note").stream("s", after="3")),  # type: ignore[arg-type]
        "after='3' is not a place in a log or stream",
    ),
    "a stream without a name": Case(
        lambda client: list(client.handle("note").stream("")), "a log or stream must have a name"
    ),
    "a NUL where JSON is read": Case(
        lambda client: client.find("note", {}, order_by="a\0"),
        "PostgreSQL's text has no NUL character",
    ),
}


APP = perdure.App()
DSN = "postgresql:///nowhere"

WRONG_CONSTRUCTIONS: dict[str, tuple[Callable[[Any], Any], list[Any], str]] = {
    "a worker without an app": (perdure.Worker, [None, "app", 1, perdure.App], "is not an app"),
    "a lab without an app": (Lab, [None, "app"], "is not an app"),
    "an async lab without an app": (AsyncLab, [None, "app"], "is not an app"),
    "one queue for a list of queues": (
        lambda given: perdure.Worker(APP, given),
        [1, "q"],
        "is not a list",
    ),
    "a queue that is not a text": (lambda given: perdure.Worker(APP, given), [[1]], "a queue must"),
    "slots": (
        lambda given: perdure.Worker(APP, slots=given),
        [None, "4", 1.5],
        "not a whole number",
    ),
    "a cache": (lambda given: perdure.Worker(APP, cache=given), [None, "4"], "not a whole number"),
    "a lease": (
        lambda given: perdure.Worker(APP, lease=given),
        [0, 0.05, "99 ms", "25 h", -1, math.nan, math.inf],
        "a lease must last between|out of range",
    ),
    "an instance": (lambda given: perdure.Worker(APP, instance=given), [1, []], "is not a text"),
    "an instance of a wrong form": (
        lambda given: perdure.Worker(APP, instance=given),
        ["xx", "1"],
        "is not an instance",
    ),
    "a version": (lambda given: perdure.Worker(APP, version=given), [1, []], "must have a name"),
    "a schema": (lambda given: perdure.connect(DSN, given), [1, []], "is not a text"),
    "a threshold": (
        lambda given: perdure.connect(DSN, prepare_threshold=given),
        ["x"],
        "not a whole number",
    ),
    "a codec of an app": (
        lambda given: perdure.App(codec=given),
        [1, "key", b""],
        "is not a codec",
    ),
    "a codec of a client": (
        lambda given: perdure.connect(DSN, codec=given, provision=False),
        [1, "key"],
        "is not a codec",
    ),
    "a hook in SQL without a name": (perdure.sql_hook, [None, 1], "is not a text"),
}


@pytest.mark.parametrize("case", WRONG_CONSTRUCTIONS)
def test_constructors_reject_wrong_arguments(case: str) -> None:
    """Wrong arguments raise an error of perdure at once, not a TypeError from within."""
    make, wrong, message = WRONG_CONSTRUCTIONS[case]
    for given in wrong:
        with pytest.raises((perdure.InvalidArgument, perdure.InvalidName), match=message):
            make(given)


@pytest.mark.parametrize("what", WRONG_CALLS)
def test_argument_of_a_wrong_type_is_rejected_by_its_name(
    client: perdure.Client, what: str
) -> None:
    """The error is one of perdure with a hint, and nothing is written."""
    client.create_entity("note", "note")
    case = WRONG_CALLS[what]
    with pytest.raises(ValueError, match=re.escape(case.message)) as refused:
        case.use(client)
    assert isinstance(refused.value, perdure.PerdureError)
    assert refused.value.hint
    assert client.entity("note").get() == {}


def test_option_that_a_call_does_not_have_is_told_which_it_has(client: perdure.Client) -> None:
    """Python's own error names the function, whose arguments are mixed with these options."""
    app = perdure.App()
    ask = app.coordinator(lambda memory: None)
    note = app.hook(lambda memory: None)
    with pytest.raises(TypeError, match="'task_queue'") as refused:
        client.start(ask, task_queue="q")
    assert "due_at, entity, headers, id, if_exists" in refused.value.__notes__[0]
    with pytest.raises(TypeError, match="'task_queue'") as refused:
        client.handle("j").hook(note, task_queue="q")
    assert "due_at, key, limit_key" in refused.value.__notes__[0]


AWAIT = r"the coroutine AsyncClient\.send was not awaited"


def test_call_that_was_not_awaited_is_rejected_as_a_value(dsn: str) -> None:
    """The error says that `await` is missing, rather than name the type of a coroutine."""

    async def test() -> None:
        async with perdure.connect_async(dsn) as client:
            note = await client.create_entity("note", "note", {"n": 1})
            for use in (
                lambda unawaited: note.set(unawaited, "m"),
                lambda unawaited: note.set({"m": [unawaited]}),
                lambda unawaited: note.increment("n", unawaited),
                lambda unawaited: client.start("w", unawaited),
                lambda unawaited: client.handle("note").signal("go", unawaited),
            ):
                unawaited = note.get("n")
                with pytest.raises(perdure.InvalidValue, match=AWAIT) as refused:
                    await use(unawaited)
                assert "forget `await`" in (refused.value.hint or "")
                await unawaited  # type: ignore[misc]

    asyncio.run(test())


def test_client_that_was_not_awaited_says_so(dsn: str) -> None:
    connecting: Any = perdure.connect_async(dsn)
    with pytest.raises(AttributeError, match="was not awaited: write `client = await"):
        connecting.start("w")
    assert not hasattr(connecting, "__wrapped__")
    assert not hasattr(connecting, "")
    connecting.close()


BY_ID: dict[str, Use] = {
    "fork": lambda client: client.fork(ID),
    "forget": lambda client: client.forget(ID),
    "reseal": lambda client: client.reseal(ID),
    "item": lambda client: client.item(ID),
}


@pytest.mark.parametrize("verb", BY_ID)
def test_verbs_accept_a_uuid_as_an_id(dsn: str, verb: str) -> None:
    """Every verb that takes an id accepts a UUID, as `handle(id)` and `entity(id)` do."""
    with perdure.connect(dsn, codec=AesGcm({"k": AesGcm.new_key()}, "k")) as client:
        if verb == "item":
            with pytest.raises(LookupError, match=str(ID)):
                BY_ID[verb](client)
        else:
            client.start("w", id=ID).terminate()
            BY_ID[verb](client)


def test_lab_accepts_a_uuid_as_an_id(dsn: str) -> None:
    app = perdure.App()

    @app.coordinator
    async def notes(memory: perdure.AsyncEntity) -> int:
        return await memory.set({"n": 1})

    with Lab(app, dsn=dsn) as lab:
        lab.start(notes, id=ID)
        assert lab.result(ID) == 1
        assert lab.memory(ID).get("n") == 1

    async def test() -> None:
        async with AsyncLab(app, dsn=dsn) as lab:
            await lab.start(notes, id=ID)
            assert await lab.result(ID) == 1
            assert await lab.memory(ID).get("n") == 1

    asyncio.run(test())


def test_kinds_of_arguments_match_the_signatures_in_sql(
    connection: psycopg.Connection[Any],
) -> None:
    """Python knows which arguments are texts or numbers, and which are required."""
    rows = connection.execute(
        """
        select p.proname, a.name, format_type(a.type, null),
               a.place > p.pronargs - p.pronargdefaults
          from pg_proc as p
         cross join unnest(p.proargnames, p.proargtypes::oid[])
               with ordinality as a (name, type, place)
         where p.pronamespace = 'perdure'::regnamespace
           and p.proname = any(%s)
           and a.place <= p.pronargs
        """,
        [sorted(NAMED - MADE_HERE)],
    ).fetchall()
    assert len({function for function, *_ in rows}) > 50
    for function, name, type_name, is_optional in rows:
        where = f"{name} of {function}"
        if name == "after" or (name, type_name) == ("before", "bigint"):
            assert (function in NUMBERED) == (type_name == "bigint"), where
        elif name in KINDS and KINDS[name] in OF_SQL.values():
            assert KINDS[name] is OF_SQL.get("text" if type_name == "regproc" else type_name), where
        elif type_name in OF_SQL:
            assert name in WRITTEN, where
        if name in NEEDED_BUT_IN:
            assert is_optional == (function in NEEDED_BUT_IN[name]), where


def test_error_of_a_name_says_what_is_wrong_with_it(dsn: str) -> None:
    """A short name with a control character is not said to be too long."""
    with pytest.raises(perdure.InvalidName) as refused:
        check_name("f\n3", "a signal")
    assert refused.value.detail == "It holds a control character, or half of a surrogate pair."
    assert "shorter" not in (refused.value.hint or "")
    with pytest.raises(perdure.InvalidName) as refused:
        check_name("f" * 201, "a signal")
    assert refused.value.detail == "It has 201 bytes; at most 200 are allowed."
    with pytest.raises(perdure.PerdureError) as schema:
        perdure.connect(dsn, schema="a\0b")
    assert schema.value.detail == "It holds a NUL character."


def test_call_outside_of_jobs_hints_at_where_it_belongs() -> None:
    """The hint names code that a worker runs, and not a client, which has no such functions."""
    for call in (perdure.now, perdure.heartbeat):
        with pytest.raises(perdure.InvalidArgument) as refused:
            call()
        assert "Call it in code that a worker runs" in (refused.value.hint or "")
