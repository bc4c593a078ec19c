"""Many writers, one document: no update is lost, and versions tell the order. [P2] [P3]"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest

from tests.races.linearizability import Event, violations
from tests.races.memory_model import Command, State
from tests.races.sessions import Session, Stage, Task, chances, command, together

WRITERS = 8
COMMANDS = int(os.environ.get("PERDURE_RACE_COMMANDS", "2400"))  # in the random history
EACH = 50  # commands of each writer elsewhere


def versions(session: Session, job: str) -> list[int]:
    """Read the versions of a job's history, in order of time."""
    query = "select version from history where job_id = %s order by version"
    return [row[0] for row in session.run(query, job)]


def test_four_hundred_increments_from_eight_sessions_are_all_counted(stage: Stage) -> None:
    """[P3] (C31) (C42): every number from 1 to 400 is the answer to one of them."""
    sessions = stage.sessions(WRITERS)
    sessions[0].call("entity_create", id="e", entity="counter")

    def write(session: Session) -> list[int]:
        return [session.call("entity_increment", id="e", path="a.b") for _ in range(EACH)]

    answers = together(*(partial(write, session) for session in sessions))

    assert sorted(number for each in answers for number in each) == list(range(1, 401))
    assert all(each == sorted(each) for each in answers)
    assert sessions[0].memory("e") == ({"a": {"b": 400}}, 400)
    assert versions(sessions[0], "e") == list(range(1, 401))


def test_merges_of_adjacent_subtrees_lose_nothing_to_each_other(stage: Stage) -> None:
    """[P3] (C27) (C62): from outside, in turns, and by an ordinary UPDATE; answers are versions."""
    holder, plain, *outside = stage.sessions(6)
    task = holder.held("j", context={"plain": 0})

    def merge(session: Session) -> list[int]:
        patches = ({"deep": {session.name: {str(n): n}}} for n in range(EACH))
        return [session.call("entity_merge", id="j", patch=patch) for patch in patches]

    def turns() -> list[int]:
        answers = []
        for n in range(EACH):
            turn = task.told(n).keep(command("merge", "deep.turns", {str(n): n}))
            answers += holder.advance(turn, waiting=True).values
        return answers

    def update() -> list[int]:
        query = """
            update jobs
               set context = jsonb_set(context, '{plain}', to_jsonb((context ->> 'plain')::int + 1))
             where id = 'j' returning version"""
        return [plain.one(query) for _ in range(EACH)]

    told = together(turns, update, *(partial(merge, session) for session in outside))

    total = 6 * EACH
    assert sorted(version for each in told for version in each) == list(range(2, total + 2))
    context, version = plain.memory("j")
    assert version == total + 1
    assert context.pop("plain") == EACH
    every = {str(n): n for n in range(EACH)}
    names = {"turns", *(session.name for session in outside)}
    assert context == {"deep": dict.fromkeys(names, every)}
    assert versions(plain, "j") == list(range(1, total + 2))


def test_appends_and_prepends_of_all_writers_stand_in_the_order_of_their_versions(
    stage: Stage,
) -> None:
    """[P3] (C28) (C29) (C66): each once; those of one writer in the order in which it wrote."""
    sessions = stage.sessions(WRITERS)
    sessions[0].call("entity_create", id="e", entity="list", context={"list": ["middle"]})

    def write(place: int, session: Session) -> list[int]:
        function = "entity_append" if place % 2 else "entity_prepend"
        return [
            session.call(function, id="e", path="list", items=[f"{place}/{n}"]) for n in range(EACH)
        ]

    lengths = together(*(partial(write, place, session) for place, session in enumerate(sessions)))

    assert sorted(length for each in lengths for length in each) == list(range(2, 402))
    items = sessions[0].memory("e")[0]["list"]
    middle = items.index("middle")
    for place in range(WRITERS):
        part = items[middle + 1 :] if place % 2 else items[:middle][::-1]
        own = [item for item in part if item.startswith(f"{place}/")]
        assert own == [f"{place}/{n}" for n in range(EACH)]


def test_compare_and_set_lets_one_of_eight_win_each_round(stage: Stage) -> None:
    """[P3] (E11): expected_version is compared under the lock; the others get PD105."""
    sessions = stage.sessions(WRITERS)
    sessions[0].call("entity_create", id="e", entity="race")

    def bid(session: Session, version: int) -> str | None:
        try:
            value = session.name
            session.call("entity_set", id="e", path="by", value=value, expected_version=version)
        except psycopg.Error as error:
            return error.sqlstate
        return session.name

    for version in range(10):
        bids = together(*(partial(bid, session, version) for session in sessions))
        (winner,) = set(bids) - {"PD105"}
        assert bids.count("PD105") == WRITERS - 1
        assert sessions[0].memory("e") == ({"by": winner}, version + 1)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_command_that_waited_is_applied_to_what_the_other_left(
    a: Session, b: Session, end: str
) -> None:
    """[P3] (C20): read after the lock, not in the statement that waits."""
    a.call("entity_create", id="e", entity="x", context={"list": [1]})
    a.begin()
    assert a.call("entity_append", id="e", path="list", items=[2]) == 2
    appending = b.later(b.call, "entity_append", id="e", path="list", items=[3])
    assert appending.waits()
    a.end(end)

    assert appending.get() == (3 if end == "commit" else 2)
    assert b.memory("e") == (({"list": [1, 2, 3]}, 3) if end == "commit" else ({"list": [1, 3]}, 2))


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_merge_that_waited_for_one_into_the_next_subtree_keeps_both(
    a: Session, b: Session, end: str
) -> None:
    """[P3] (C27) (C61): deep in the document, with parents that neither has made."""
    a.call("entity_create", id="e", entity="x")
    a.begin()
    a.call("entity_merge", id="e", patch={"deep": {"er": {"a": 1}}, "list": [1]})
    merging = b.later(b.call, "entity_merge", id="e", patch={"er": {"b": 2}}, path="deep")
    assert merging.waits()
    a.end(end)
    merging.get()

    both = {"deep": {"er": {"a": 1, "b": 2}}, "list": [1]}
    assert b.memory("e") == ((both, 2) if end == "commit" else ({"deep": {"er": {"b": 2}}}, 1))


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_key_that_is_used_by_two_at_once_is_one_command(a: Session, b: Session, end: str) -> None:
    """[P2] [P12]: the second gets the answer of the first, or makes it."""
    a.call("entity_create", id="e", entity="x")
    a.begin()
    assert a.call("entity_increment", id="e", path="n", by=5, key="k") == 5
    repeating = b.later(b.call, "entity_increment", id="e", path="n", by=5, key="k")
    assert repeating.waits()
    a.end(end)

    assert repeating.get() == 5
    assert b.memory("e") == ({"n": 5}, 1)


def test_keys_repeated_by_all_sessions_at_once_are_applied_once(stage: Stage) -> None:
    """[P2] [P12]: the same fifty commands from eight sessions, each in its own order."""
    sessions = stage.sessions(WRITERS)
    sessions[0].call("entity_create", id="e", entity="x")

    def write(place: int, session: Session) -> dict[int, int]:
        order = random.Random(place).sample(range(EACH), EACH)
        return {
            n: session.call("entity_append", id="e", path="l", items=[n], key=f"k{n}")
            for n in order
        }

    told = together(*(partial(write, place, session) for place, session in enumerate(sessions)))

    assert all(each == told[0] for each in told)
    context, version = sessions[0].memory("e")
    assert version == EACH
    assert context["l"] == sorted(range(EACH), key=lambda n: told[0][n])


# A random history, checked against a model


PATHS = ("n", "a.n", "a", "list", "a.list", "flag", "deep.er.est", "list.0", "list.-1", "a.x.y", "")
VALUES: tuple[Any, ...] = (0, 7, "text", None, True, [], [1, 2], {}, {"n": 1}, {"x": {"y": [1]}})
OPS = {
    "set": 3,
    "merge": 4,
    "append": 6,
    "prepend": 3,
    "remove": 5,
    "increment": 6,
    "toggle": 2,
    "set_if_not_exists": 2,
    "delete": 3,
}


def any_command(chance: random.Random, seen: int) -> Command:
    """Make up a command; about every third does not fit and is refused."""
    (op,) = chance.choices(list(OPS), weights=list(OPS.values()))
    path = chance.choice(PATHS)
    values: dict[str, Callable[[], Any]] = {
        "set": lambda: chance.choice(VALUES) if path else {"n": 0, "list": [0]},
        "set_if_not_exists": lambda: chance.choice(VALUES) if path else {},
        "merge": lambda: chance.choice(({"n": 1}, {"a": {"n": 1}}, {"x": {"y": {"z": 0}}}, {})),
        "append": lambda: chance.choices(range(9), k=chance.randint(0, 2)),
        "prepend": lambda: chance.choices(range(9), k=chance.randint(0, 2)),
        "remove": lambda: chance.choice((0, -1, 1, 5)),
        "increment": lambda: chance.choice((1, 2, -5)),
    }
    value = values[op]() if op in values else None
    expected = seen if chance.random() < 0.05 else None
    return Command(op, path, value, expected)


class Writer:
    """A client that sends random commands, repeats some, reads, and remembers what it was told."""

    def __init__(self, client: int, session: Session, chance: random.Random) -> None:
        self.client = client
        self.session = session
        self.chance = chance
        self.events: list[Event] = []
        self.keys: list[str | None] = []
        self.seen = 0

    def run(self, amount: int) -> list[Event]:
        """Send this many commands."""
        for number in range(amount):
            self.step(f"{self.client}/{number}")
        query = """
            select case when task = '$outside' then key else 'turn ' || seq end, version
              from journal where job_id = 'e' and (task <> '$outside' or key is not null)"""
        made = dict(self.session.run(query))
        return [
            event if key is None or event.refused else with_version(event, made[key])
            for key, event in zip(self.keys, self.events, strict=True)
        ]

    def step(self, key: str) -> None:
        """Send one command, or read, or write with ordinary SQL."""
        draw = self.chance.random()
        if draw < 0.1:
            self.read()
        elif draw < 0.15:
            self.update(key)
        else:
            self.write(any_command(self.chance, self.seen), key)

    def note(self, key: str | None, *event: Any, **told: Any) -> None:
        """Remember an event, and the key by which its version will be found."""
        self.keys.append(key)
        self.events.append(Event(self.client, *event, **told))

    def read(self) -> None:
        """Read document and version at one moment."""
        began = time.monotonic()
        context, self.seen = self.session.memory("e")
        self.note(None, None, began, time.monotonic(), context, self.seen)

    def update(self, value: str) -> None:
        """Write with an ordinary UPDATE, which is a command like any other."""
        began = time.monotonic()
        query = """update jobs set context = jsonb_set(context, '{plain}', to_jsonb(%s::text))
                    where id = 'e' returning version"""
        self.seen = self.session.one(query, value)
        self.note(
            None, Command("set", "plain", value), began, time.monotonic(), self.seen, self.seen
        )

    def write(self, it: Command, key: str) -> None:
        """Send a command; now and then its reply is lost, and it is sent again."""
        began = time.monotonic()
        try:
            answer = self.call(it, key)
        except psycopg.Error as refused:
            self.note(None, it, began, time.monotonic(), refused=refused.sqlstate)
            return
        self.note(key, it, began, time.monotonic(), answer)
        if self.chance.random() < 0.1:
            assert self.call(it, key) == answer

    def call(self, it: Command, key: str) -> Any:
        """Call the verb of a command."""
        name = {"merge": "patch", "append": "items", "prepend": "items", "remove": "index"}
        argument = {name.get(it.op, "by" if it.op == "increment" else "value"): it.value}
        return self.session.call(
            f"entity_{it.op}",
            id="e",
            path=it.path,
            expected_version=it.expected_version,
            key=key,
            **({} if it.op in ("toggle", "delete") else argument),
        )


class Holder(Writer):
    """The holder of the job's task: its commands come in turns, up to three at a time."""

    def __init__(self, client: int, session: Session, chance: random.Random, task: Task) -> None:
        super().__init__(client, session, chance)
        self.task = task

    def step(self, key: str) -> None:
        """Send one turn; now and then its reply is lost, and it is sent again."""
        asked = [
            replace(any_command(self.chance, 0), expected_version=None)
            for _ in range(self.chance.randint(1, 3))
        ]
        turn = self.task.keep(*(command(it.op, it.path, it.value) for it in asked))
        began = time.monotonic()
        told = self.session.advance(turn, waiting=True)
        ended = time.monotonic()
        if self.chance.random() < 0.1:
            assert self.session.advance(turn, waiting=True).answers == told.answers
        for it, (seq, ok, value) in zip(asked, told.answers, strict=True):
            if ok:
                self.note(f"turn {seq}", it, began, ended, value)
            else:
                self.note(None, it, began, ended, refused=value["code"])
        self.task = self.task.told(len(asked))


def with_version(event: Event, version: int) -> Event:
    """Add the version that the journal has for a key."""
    return replace(event, version=version)


def test_a_random_history_of_eight_sessions_is_linearizable(stage: Stage) -> None:
    """[P2] [P3] (C20) (C21) (C25): one order, that of the versions, explains every answer, refusal
    and read. PERDURE_RACE_COMMANDS asks for more.
    """
    first, *others = stage.sessions(WRITERS)
    chance, *more = chances(WRITERS)
    holder = Holder(0, first, chance, first.held("e"))
    clients = enumerate(zip(others, more, strict=True), start=1)
    writers = [holder, *(Writer(client, *its) for client, its in clients)]

    told = together(*(partial(writer.run, COMMANDS // WRITERS) for writer in writers))

    events = [event for each in told for event in each]
    assert violations(events, State({}, 0), State(*first.memory("e"))) == []
    assert {event.refused for event in events} >= {None, "PD102", "PD105"}
    assert {event.command.op for event in events if event.command and event.version} == set(OPS)
