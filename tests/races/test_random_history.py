"""A random history of eight sessions is linearizable: the order of versions explains it.

It has every command, from clients and in turns, reads, plain updates, compare and set, and
repetitions of calls whose replies were lost, on a few shared memories. PERDURE_TEST_AMOUNT sets its
length.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest

from tests.amount import amount
from tests.races.linearizability import Event, violations
from tests.races.memory_model import Command, State
from tests.races.sessions import Session, Stage, Task, chances, command, together

WRITERS = 8
STEPS = 10_000
JOBS = ("hot 0", "hot 1", "hot 2")

LISTS = ("list", "a.list", '"a.b".list')
PATHS = (*LISTS, "n", "a.n", "a", "flag", "deep.er.est", "list.0", "list.-1", "a.x.y", "")
FITTING = {
    "append": LISTS,
    "prepend": LISTS,
    "remove": LISTS,
    "merge": ("a", "deep.er", ""),
    "increment": ("n", "a.n"),
    "toggle": ("flag",),
}
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
    """Make a random command; about every third does not fit its document and is refused."""
    (op,) = chance.choices(list(OPS), weights=list(OPS.values()))
    path = chance.choice(FITTING.get(op, PATHS) if chance.random() < 0.7 else PATHS)
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
    expected = seen if chance.random() < 0.1 else None
    return Command(op, path, value, expected)


class Writer:
    """A client that sends random commands, repeats some, reads, and records the answers."""

    def __init__(self, client: int, session: Session, chance: random.Random) -> None:
        self.client = client
        self.session = session
        self.chance = chance
        self.told: list[tuple[str, str | None, Event]] = []  # job, key in its journal, event
        self.seen = dict.fromkeys(JOBS, 0)
        self.repeats = 0

    def run(self, steps: int) -> None:
        """Take this many steps."""
        for number in range(steps):
            self.step(self.chance.choice(JOBS), f"{self.client}/{number}")

    def step(self, job: str, key: str) -> None:
        """Send one command, or read, or write with a plain UPDATE."""
        draw = self.chance.random()
        if draw < 0.1:
            self.read(job)
        elif draw < 0.15:
            self.update(job, key)
        else:
            self.write(job, any_command(self.chance, self.seen[job]), key)

    def note(self, job: str, key: str | None, *event: Any, **told: Any) -> None:
        """Record an event, and the key by which its version will be found."""
        self.told.append((job, key, Event(self.client, *event, **told)))

    def read(self, job: str) -> None:
        """Read document and version in one statement."""
        began = time.monotonic()
        context, version = self.session.memory(job)
        self.seen[job] = version
        self.note(job, None, None, began, time.monotonic(), context, version)

    def update(self, job: str, value: str) -> None:
        """Write with a plain UPDATE, which is a command like any other."""
        began = time.monotonic()
        query = """update jobs set context = jsonb_set(context, '{plain}', to_jsonb(%s::text))
                    where id = %s returning version"""
        version = self.seen[job] = self.session.one(query, value, job)
        sent = Command("set", "plain", value)
        self.note(job, None, sent, began, time.monotonic(), version, version)

    def write(self, job: str, it: Command, key: str) -> None:
        """Send a command; sometimes its reply is lost, and it is sent again."""
        began = time.monotonic()
        try:
            answer = self.call(job, it, key)
        except psycopg.Error as refused:
            self.note(job, None, it, began, time.monotonic(), refused=refused.sqlstate)
            return
        self.note(job, key, it, began, time.monotonic(), answer)
        if self.chance.random() < 0.1:
            self.repeats += 1
            assert self.call(job, it, key) == answer

    def call(self, job: str, it: Command, key: str) -> Any:
        """Call the verb of a command."""
        name = {"merge": "patch", "append": "items", "prepend": "items", "remove": "index"}
        argument = {name.get(it.op, "by" if it.op == "increment" else "value"): it.value}
        return self.session.call(
            f"entity_{it.op}",
            id=job,
            path=it.path,
            expected_version=it.expected_version,
            key=key,
            **({} if it.op in ("toggle", "delete") else argument),
        )


class Holder(Writer):
    """The holder of the jobs' tasks: it sends its commands in turns, up to three at a time."""

    def __init__(
        self, client: int, session: Session, chance: random.Random, tasks: dict[str, Task]
    ) -> None:
        super().__init__(client, session, chance)
        self.tasks = tasks

    def step(self, job: str, key: str) -> None:
        """Send one turn; sometimes its reply is lost, and it is sent again."""
        sent = [
            replace(any_command(self.chance, 0), expected_version=None)
            for _ in range(self.chance.randint(1, 3))
        ]
        turn = self.tasks[job].keep(*(command(it.op, it.path, it.value) for it in sent))
        began = time.monotonic()
        answer = self.session.advance(turn, waiting=True)
        ended = time.monotonic()
        if self.chance.random() < 0.1:
            self.repeats += 1
            assert self.session.advance(turn, waiting=True).answers == answer.answers
        for it, (seq, ok, value) in zip(sent, answer.answers, strict=True):
            if ok:
                self.note(job, f"turn {seq}", it, began, ended, value)
            else:
                self.note(job, None, it, began, ended, refused=value["code"])
        self.tasks[job] = self.tasks[job].told(len(sent))


def with_versions(session: Session, job: str, writers: list[Writer]) -> list[Event]:
    """Give the events of a job, with versions from the journal where the answer had none.

    Only lost commands have no version.
    """
    query = """
        select case when task = '$outside' then key else 'turn ' || seq end, version
          from journal where job_id = %s and (task <> '$outside' or key is not null)"""
    made = dict(session.run(query, job))
    return [
        replace(event, version=made.get(key)) if key else event
        for writer in writers
        for event_job, key, event in writer.told
        if event_job == job
    ]


def play(stage: Stage, steps: int) -> list[Event]:
    """Let eight sessions take steps, and check the history; give all events."""
    first, *others = stage.sessions(WRITERS)
    chance, *more = chances(WRITERS)
    for job in JOBS:
        first.start(job)
    tasks = {job: first.claim_one(job, lease_for="1 d") for job in JOBS}
    holder = Holder(0, first, chance, tasks)
    clients = enumerate(zip(others, more, strict=True), start=1)
    writers = [holder, *(Writer(client, *its) for client, its in clients)]
    began = time.monotonic()

    together(*(partial(writer.run, steps // WRITERS) for writer in writers), patience=steps / 10)

    seconds = time.monotonic() - began
    events, wrong = [], []
    for job in JOBS:
        its = with_versions(first, job, writers)
        events += its
        wrong += violations(its, State({}, 0), State(*first.memory(job)))
    report(events, sum(writer.repeats for writer in writers), seconds, wrong)
    assert wrong == []
    return events


def report(events: list[Event], repeats: int, seconds: float, wrong: list[str]) -> None:
    """Print what the history contains."""
    commands = [event for event in events if event.command]
    refusals = Counter(event.refused for event in commands if event.refused)
    print(
        f"{len(commands)} commands, {refusals.total()} refused {dict(refusals)}, "
        f"{len(events) - len(commands)} reads, {repeats} repeats, "
        f"{seconds:.1f} s, {len(wrong)} violations"
    )


@pytest.mark.stress
def test_a_random_history_of_eight_sessions_is_linearizable(stage: Stage) -> None:
    """[P2] [P3] (C20) (C21) (C25) (C26) (C27) (C28) (C29) (C30) (C31) (C32) (C33) (C34) One order,
    that of the versions, explains every answer, error and read.
    """
    events = play(stage, amount(STEPS))

    assert {event.refused for event in events} >= {None, "PD102", "PD105"}
    assert {event.command.op for event in events if event.command and event.version} == set(OPS)
