"""A Hypothesis machine that runs random commands on one memory and compares it with a model.

A command comes from a client, with or without an expected version and a key, or from a turn of the
job's task. Sometimes a plain SQL update writes instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import reduce
from itertools import count
from typing import Any

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from psycopg.types.json import Jsonb, set_json_dumps, set_json_loads

from tests.races.memory_model import (
    Command,
    Line,
    Memory,
    Refused,
    State,
    alike,
    as_json,
    found,
    from_json,
    join_path,
    merged,
)
from tests.races.sessions import Session

_jobs = count(1)

KEYS = ("a", "b", "a.b", "", "0", "1", "-1", "-2", "+0", " 1", "00", "1e0", 'say "hi"', "\\", "ü")
BAD_PATHS = (".", "a.", ".a", "a..b", '"a', 'a"b', ".".join("k" * 51))
BAD_KEYS = ("", "a\nb", "\x07", "ü" * 101)
SOMETHING = {
    "n": Decimal("1.50"),
    "on": True,
    "one": [0],
    "list": [{"a": ["x", "y"]}, 1, [[2]]],
    "deep": {"a": {"b": {"c": 1, "d": {}}, "e": None}},
}
OPS = (
    "set", "merge", "append", "prepend", "remove", "increment", "toggle", "set_if_not_exists",
    "delete",
)  # fmt: skip
ARGUMENTS = {
    "merge": "patch",
    "append": "items",
    "prepend": "items",
    "remove": "index",
    "increment": "by",
    "set": "value",
    "set_if_not_exists": "value",
}

keys = st.sampled_from(KEYS) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3
)
numbers = (
    st.integers(-3, 3)
    | st.integers(-(10**20), 10**20)
    | st.decimals(-1000, 1000, allow_nan=False, places=3)
    | st.sampled_from([10**308, -(10**308)])
)
scalars = st.none() | st.booleans() | numbers | keys


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Generate objects with such values."""
    return st.dictionaries(keys, values, max_size=4)


def written(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Generate values as they look after a round trip through JSON."""
    return values.map(lambda value: from_json(as_json(value)))


documents = written(
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | objects(inner), max_leaves=8)
)
memories = written(objects(documents))
beginnings = memories | memories.map(lambda more: SOMETHING | more)
arguments: dict[str, st.SearchStrategy[Any]] = {
    "set": documents,
    "set_if_not_exists": documents,
    "merge": memories,
    "append": st.lists(documents, max_size=3),
    "prepend": st.lists(documents, max_size=3),
    "remove": st.sampled_from([0, -1, 0, -1, 0, -1, 1, -2, 3, -4, 10**9, -(10**9)]),
    "increment": written(numbers),
    "toggle": st.none(),
    "delete": st.none(),
}


def places(value: Any, depth: int = 0) -> list[list[str]]:
    """List all paths in a document, with list indexes spelled in every allowed way."""
    inner: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        for place, one in enumerate(value):
            ways = (str(place), str(place - len(value)), f"+{place}", f"0{place}")
            inner.append((ways[(place + depth) % 4], one))
    return [[], *([key, *rest] for key, one in inner for rest in places(one, depth + 1))]


def paths(document: Any) -> st.SearchStrategy[list[str]]:
    """Generate paths, most of which lead to a value in a document or just beyond it."""
    there = st.sampled_from(places(document))
    beyond = st.tuples(there, st.lists(keys, min_size=1, max_size=2)).map(
        lambda pair: pair[0] + pair[1]
    )
    return there | there | beyond | st.lists(keys, max_size=3)


def patches(document: Any, path: list[str]) -> st.SearchStrategy[Any]:
    """Generate patches, most of which change something deep in the value at a path."""
    inner = st.sampled_from(sorted(places(found(document, path)), key=len, reverse=True)[:20])
    nested = st.tuples(inner, documents).map(
        lambda pair: reduce(lambda value, key: {key: value}, reversed(pair[0]), pair[1])
    )
    several = st.lists(nested, min_size=2, max_size=3).map(lambda several: reduce(merged, several))
    return memories | nested | several | several


def arguments_for(document: Any, op: str, path: list[str]) -> st.SearchStrategy[Any]:
    """Generate arguments for a command at a path."""
    if op == "merge":
        return patches(document, path)
    if op == "set" and not path:
        return beginnings
    return arguments.get(op, st.none())


def fitting_paths(document: Any, op: str) -> st.SearchStrategy[list[str]]:
    """Generate paths, most of which lead to a value on which the command can succeed."""
    if op == "merge" and len(document) > 1:
        return st.just([]) | paths(document)
    memory = Memory(State(document, 0))
    samples = {"remove": 0, "append": [], "prepend": [], "merge": {}, "increment": 1}
    fit = []
    for place in places(document):
        try:
            if op != "get":
                memory.state.after(Command(op, join_path(place), samples.get(op, {})))
        except Refused:
            continue
        fit.append(place)
    return paths(document) | st.sampled_from(fit) | st.sampled_from(fit) if fit else paths(document)


class MemoryMachine(RuleBasedStateMachine):
    """One memory in the database, and its model."""

    def __init__(self, session: Session, seen: Counter[str]) -> None:
        super().__init__()
        self.session = session
        self.job = f"memory {next(_jobs)}"
        self.seen = seen
        set_json_loads(from_json, session.connection)
        set_json_dumps(as_json, session.connection)

    @initialize(document=beginnings)
    def begin(self, document: Any) -> None:
        """Start a job with a document, and hold its task."""
        self.task = self.session.held(self.job, context=document)
        self.memory = Memory(State({}, 0))
        if document:
            self.memory.run(Command("set", "", document))

    def agree(self, op: str, in_database: Callable[[], Any], in_model: Callable[[], Any]) -> None:
        """Run an operation in the database and in the model; compare answers, codes and states."""
        answer, code = outcome(in_database, psycopg.Error, "sqlstate")
        expected = outcome(in_model, Refused, "code")
        assert code == expected[1], (code, answer, expected)
        assert alike(answer, expected[0]), (answer, expected)
        self.seen[code or op] += 1
        self.compare()

    def compare(self) -> None:
        """Compare document, version and last history entry with the model."""
        query = """
            select j.context, j.version,
                   (select count(*) from history as h where h.job_id = j.id),
                   (select jsonb_build_array(h.version, h.op, h.path, h.argument, h.value)
                      from history as h where h.job_id = j.id order by h.version desc limit 1)
              from jobs as j where j.id = %s"""
        ((context, version, lines, last),) = self.session.run(query, self.job)
        state, history = self.memory.state, self.memory.history
        assert version == state.version == lines
        assert alike(context, state.context), (context, state.context)
        assert alike(last, as_row(history[-1]) if history else None), (last, history[-1:])

    def teardown(self) -> None:
        """Compare the whole history: it has no gap, and each entry is the model's."""
        if not hasattr(self, "memory"):
            return
        query = """select jsonb_build_array(version, op, path, argument, value)
                     from history where job_id = %s order by version"""
        lines = [line for (line,) in self.session.run(query, self.job)]
        assert alike(lines, [as_row(line) for line in self.memory.history])
        assert [line[0] for line in lines] == list(range(1, self.memory.state.version + 1))

    def call(self, command: Command, key: str | None) -> Any:
        """Call the SQL function of a command."""
        name = ARGUMENTS.get(command.op)
        return self.session.call(
            f"entity_{command.op}",
            id=self.job,
            path=command.path,
            expected_version=command.expected_version,
            key=key,
            **({name: command.value} if name else {}),
        )

    @rule(data=st.data(), ops=st.lists(st.sampled_from((*OPS, "remove")), min_size=2, max_size=5))
    def commands(self, data: st.DataObject, ops: list[str]) -> None:
        """Send commands one after the other."""
        for op in ops:
            self.command(data, op)

    def command(self, data: st.DataObject, op: str) -> None:
        """Send a command; it may expect a version and have a new, used or bad key."""
        context = self.memory.state.context
        place = data.draw(fitting_paths(context, op), "path")
        value = data.draw(arguments_for(context, op, place), "value")
        path, version, key = join_path(place), None, None
        match data.draw(st.integers(0, 15), "special"):
            case 1 | 2 | 3 | 4:
                key = data.draw(st.integers(0, 10**9).map(str), "new key")
            case 5:
                key = data.draw(st.sampled_from([*self.memory.told, "k"]), "used key")
            case 6:
                key = data.draw(st.sampled_from(BAD_KEYS), "bad key")
            case 7:
                path = data.draw(st.sampled_from(BAD_PATHS), "bad path")
            case 8 | 9:
                version = self.memory.state.version + data.draw(st.integers(-1, 1), "version")
        command = Command(op, path, value, version)
        self.agree(
            command.op, lambda: self.call(command, key), lambda: self.memory.run(command, key)
        )

    @precondition(lambda self: self.memory.told)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Send a command again, as after a lost reply; the version may have changed since."""
        key = data.draw(st.sampled_from(list(self.memory.told)), "key")
        line = self.memory.told[key]
        version = data.draw(st.none() | st.just(line.version - 1), "version")
        command = Command(line.op, join_path(line.keys), line.argument, version)
        self.agree("repeat", lambda: self.call(command, key), lambda: self.memory.run(command, key))

    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        """Read a path, which may be invalid."""
        written = paths(self.memory.state.context).map(join_path)
        path = data.draw(written | written | st.sampled_from(BAD_PATHS), "path")
        self.agree(
            "get",
            lambda: self.session.call("entity_get", id=self.job, path=path),
            lambda: self.memory.state.get(path),
        )

    @rule(data=st.data(), ops=st.lists(st.sampled_from((*OPS, "get")), min_size=1, max_size=3))
    def turn(self, data: st.DataObject, ops: list[str]) -> None:
        """Send commands, good or bad, in one turn; a refused one does not undo the others."""
        asked = []
        for op in ops:
            path = data.draw(fitting_paths(self.memory.state.context, op), "path")
            fitting = arguments_for(self.memory.state.context, op, path)
            asked.append((op, path, data.draw(fitting | fitting | documents, "value")))
        facts = [
            {"kind": "command", "op": op, "path": path, "value": value} for op, path, value in asked
        ]
        outcome_of_turn = self.session.advance(self.task.keep(*facts))
        self.task = self.task.told(len(facts))
        assert outcome_of_turn.state == "keep"
        for (op, path, value), (_, ok, answer) in zip(asked, outcome_of_turn.answers, strict=True):
            expected, code = outcome(lambda: self.apply_to_model(op, path, value), Refused, "code")  # noqa: B023
            assert (answer["code"] if not ok else None) == code, (op, path, value, answer, code)
            assert code or alike(answer, expected), (op, path, value, answer, expected)
            self.seen[code or op] += 1
        self.compare()

    def apply_to_model(self, op: str, path: list[str], value: Any) -> Any:
        """Apply a command of a turn to the model."""
        if op == "get":
            return self.memory.state.get(join_path(path))
        return self.memory.run(Command(op, join_path(path), value))

    @rule(data=st.data(), document=beginnings)
    def update(self, data: st.DataObject, document: Any) -> None:
        """Write the memory with a plain SQL update; it counts as a command if it changes
        anything."""
        document = data.draw(st.just(document) | st.just(self.memory.state.context), "document")
        query = "update jobs set context = %s where id = %s"
        self.session.run(query, Jsonb(document), self.job)
        if not alike(document, self.memory.state.context):
            self.memory.run(Command("set", "", document))
        self.compare()


def as_row(line: Line) -> list[Any]:
    """Write a history entry in the form that the query returns."""
    return [line.version, line.op, line.keys, line.argument, line.answer]


def outcome(call: Callable[[], Any], refusal: type[Exception], name: str) -> tuple[Any, str | None]:
    """Make a call; return its answer, or the code with which it was refused."""
    try:
        return call(), None
    except refusal as refused:
        return None, getattr(refused, name)
