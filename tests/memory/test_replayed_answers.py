"""Code that is replayed gets the same answers as live, to every command and get.

Workers die midway and after the last answer, in async and plain coordinators and hooks. Each time
the code runs again from its journal, and a list outside of it records what it sees, with types and
the order of keys. (C35)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

import perdure
from tests.engine.crashing import Faults, Stage, stage_on, with_settings
from tests.servers import AnyServer, adopt

DOCUMENT: dict[str, Any] = {
    "int": 1,
    "one": 1.0,
    "float": 0.1,
    "tiny": 1e-7,
    "zero": -0.0,
    "large": 1e300,
    "huge": 10**25,
    "yes": True,
    "no": False,
    "null": None,
    "text": "ü\u2028\U0001f642",
    "empty": {},
    "none": [],
    "bb": {"b": 1, "aa": [1, 1.5, True, None, {"": 0}], "a": 2.0},
    "a.b": {"": {"0": "key"}},
    "list": [0, 1.0, False, None, "x", {"a": None}, []],
}

# Each call, and the repr of its answer; None: the first answer that was seen is expected again.
CALLS: list[tuple[str, tuple[Any, ...], str | None]] = [
    ("set", (DOCUMENT,), "1"),
    ("get", (), None),
    *[("get", ([name],), None) for name in DOCUMENT],
    ("get", ("int",), "1"),
    ("get", ("one",), "1.0"),
    ("get", ("yes",), "True"),
    ("get", ("zero",), "0.0"),
    ("get", ("huge",), "10000000000000000000000000"),
    ("get", ("null",), "None"),
    ("get", ("missing",), "None"),
    ("get", ("missing.below",), "None"),
    ("get", ("text.below",), "None"),
    ("get", ("list.-1",), "[]"),
    ("get", ("list.7",), "None"),
    ("get", (["a.b", "", "0"],), "'key'"),
    ("get", ("bb",), "{'a': 2.0, 'b': 1, 'aa': [1, 1.5, True, None, {'': 0}]}"),
    ("set", (2.50, "new.float"), "2"),
    ("get", ("new",), "{'float': 2.5}"),
    ("merge", ({"bb": {"a": None, "c": {"d": 1e16}}},), "3"),
    ("get", ("bb.c.d",), "10000000000000000"),
    ("append", ("none", 1, 1.0, True, None, {"z": 1, "y": 2}), "5"),
    ("append", ("made.list",), "0"),
    ("prepend", ("none", [0], "first"), "7"),
    ("remove", ("none", 0), "[0]"),
    ("remove", ("none", -1), "{'y': 2, 'z': 1}"),
    ("remove", ("none", -1), "None"),
    ("remove", ("none", -1), "True"),
    ("remove", ("none", -1), "1.0"),
    ("increment", ("int",), "2"),
    ("increment", ("int", 0), "2"),
    ("increment", ("int", 1.5), "3.5"),
    ("increment", ("int", -0.5), "3.0"),
    ("increment", ("float", 0.2), "0.3"),
    ("increment", ("huge", 1), "10000000000000000000000001"),
    ("increment", ("counted.from.nothing", -3), "-3"),
    ("toggle", ("yes",), "False"),
    ("toggle", ("yes",), "True"),
    ("toggle", ("was.nothing",), "True"),
    ("set_if_not_exists", ("null", 1), "None"),
    ("set_if_not_exists", ("one", 2), "1.0"),
    ("set_if_not_exists", ("not.yet", {"b": 1.0, "a": [None]}), "{'a': [None], 'b': 1.0}"),
    ("set_if_not_exists", ("bb.aa.4", 0), "{'': 0}"),
    ("delete", ("null",), "None"),
    ("delete", ("null",), "None"),
    ("delete", ("no",), "False"),
    ("delete", ("list.1",), "1.0"),
    ("delete", ("new",), "{'float': 2.5}"),
    ("increment", ("text",), "WrongType PD102 text is a string, not a number"),
    ("append", ("one", 1), "WrongType PD102 one is a number, not an array"),
    ("remove", ("none", 9), None),
    ("toggle", ("int.below",), None),
    ("set", (1, "list.99"), None),
    ("merge", ({"a": 1}, "list"), None),
    ("set_if_not_exists", ("text.a", 1), None),
    ("delete", ("text.a",), None),
    ("get", (), None),
]

Seen = dict[int, list[str]]


def as_text(answer: Any) -> str:
    """Write an answer so that 1, 1.0, True and Decimal differ, and the order of keys shows."""
    if isinstance(answer, perdure.PerdureError):
        return f"{type(answer).__name__} {answer.code} {str(answer).splitlines()[0]}"
    return repr(answer)


async def make_calls(memory: perdure.AsyncEntity, seen: Seen) -> None:
    """Make all calls, and record the answer to each."""
    for place, (op, args, _) in enumerate(CALLS):
        try:
            answer = await getattr(memory, op)(*args)
        except perdure.PerdureError as error:
            answer = error
        seen[place].append(as_text(answer))
    await memory.set(True, "told")
    await perdure.wait_for("go")


def make_calls_plainly(memory: perdure.Entity, seen: Seen) -> None:
    """Make all calls from plain code."""
    for place, (op, args, _) in enumerate(CALLS):
        try:
            answer = getattr(memory, op)(*args)
        except perdure.PerdureError as error:
            answer = error
        seen[place].append(as_text(answer))
    memory.set(True, "told")
    perdure.wait_for("go")


def coordinator(app: perdure.App, seen: Seen) -> None:
    @app.coordinator
    async def main(memory: perdure.AsyncEntity) -> None:
        await make_calls(memory, seen)


def plain_coordinator(app: perdure.App, seen: Seen) -> None:
    @app.coordinator
    def main(memory: perdure.Entity) -> None:
        make_calls_plainly(memory, seen)


def hook(app: perdure.App, seen: Seen) -> None:
    @app.hook
    async def asks(memory: perdure.AsyncEntity) -> None:
        await make_calls(memory, seen)

    @app.coordinator
    async def main(memory: perdure.AsyncEntity) -> None:
        await asks(memory)


def plain_hook(app: perdure.App, seen: Seen) -> None:
    @app.hook
    def asks(memory: perdure.Entity) -> None:
        make_calls_plainly(memory, seen)

    @app.coordinator
    async def main(memory: perdure.AsyncEntity) -> None:
        await asks(memory)


@pytest.fixture(scope="module")
def stage(server: AnyServer, template: str) -> Iterator[Stage]:
    """Give a stage on which workers start and die."""
    name = sql.Identifier(f"{template}_answers")
    with psycopg.connect(server.url(), autocommit=True) as admin:
        create = sql.SQL("create database {} template {} strategy file_copy")
        admin.execute(create.format(name, sql.Identifier(template)))
        adopt(server.url(f"{template}_answers"))
        with stage_on(server.url(f"{template}_answers")) as stage:
            yield stage
        admin.execute(sql.SQL("drop database {} with (force)").format(name))


@pytest.fixture
def run_with_faults(stage: Stage) -> Callable[..., None]:
    """Give a function that runs a program with faults, empties its memory, and lets it finish."""

    def live(app: perdure.App, *lives: Faults) -> None:
        stage.clear()
        stage.job = "job"
        stage.start("main")
        for faults in lives:
            with with_settings(faults):
                assert not stage.live(app, faults, [])
        stage.many("update jobs set context = '{}'")
        stage.many("select signal('job', 'go')")
        assert stage.live(app, Faults(), [])
        status, _, error = stage.ending()
        assert status == "completed", error

    return live


ALL_ANSWERED = Faults(kill_when=lambda outside: outside.memory("told") is True)


@pytest.mark.parametrize("program", [coordinator, plain_coordinator, hook, plain_hook])
def test_replayed_code_gets_the_answers_of_the_first_run(
    run_with_faults: Callable[..., None], program: Callable[[perdure.App, Seen], None]
) -> None:
    """[P2] [P4] [P9] (C26) (C27) (C28) (C29) (C30) (C31) (C32) (C33) (C34) (C35) (C38): values,
    types, order of keys and errors are the same, though the memory has changed. Workers die midway,
    lose replies, and die after the last answer."""
    app, seen = perdure.App(), defaultdict(list)
    program(app, seen)

    run_with_faults(app, Faults(kill_at=40), Faults(kill_at=60, lose_every=3), ALL_ANSWERED)

    for place, (op, args, answer) in enumerate(CALLS):
        answers = seen[place]
        assert len(answers) >= 2, (op, args)
        assert set(answers) == {answer or answers[0]}, (op, args, answers)
