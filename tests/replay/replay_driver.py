"""A fake worker and database for tests of replay; a seeded random generator decides what happens.

The journal of the database is a list of the facts from `take_facts()`. A run can be dropped at any
moment and another one loaded from that list, as after a crash.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from perdure.replay.replay import AsyncRun, Fact, OpenOperation, Run, SyncRun, current

STARTED_AT = 1_700_000_000_000_000
SECOND = 1_000_000


def seeds(default: int) -> Iterator[int]:
    """Return the seeds of a random test; PERDURE_FUZZ_SEEDS=1000 sets their number."""
    return iter(range(int(os.environ.get("PERDURE_FUZZ_SEEDS", default))))


class StepFailed(Exception):
    """A failing step raises this in the code."""


def failed(failure: Any) -> BaseException:
    """Make the exception for a failure."""
    return StepFailed(failure)


def step(function: Callable[..., Any], *args: Any) -> Any:
    """Request an activity."""
    return _ask("activity", function.__name__, (function, args), fingerprint=repr(args))


def hook(function: Callable[..., Any], *args: Any) -> Any:
    """Request something that runs outside and may be answered late."""
    return _ask("answer", function.__name__, (function, args), fingerprint=repr(args))


def command(op: str, value: Any = None) -> Any:
    """Request a command, which is sent together with others and then answered."""
    return _ask("command", op, (echo, (value,)), fingerprint=repr(value))


def signal(name: str) -> Any:
    """Wait for a signal."""
    return _ask("signal", name, (echo, (name,)))


def patched(name: str) -> bool:
    """Ask whether to run the new code."""
    return runtime().run.journal.patched(name)


def now() -> float:
    """Return workflow time, in seconds since the start."""
    return (runtime().run.journal.now - STARTED_AT) / SECOND


def echo(value: Any) -> Any:
    """Return the value."""
    return value


@dataclass
class Runtime:
    """The object that the code finds in `current`."""

    run: Any = None


def runtime() -> Runtime:
    """Return the runtime of the code that is running."""
    return current.get()


def _ask(kind: str, name: str, spec: Any, fingerprint: str | None = None) -> Any:
    asked = runtime().run.request(kind, name, spec, fingerprint=fingerprint, failure=failed)
    return asked.result() if isinstance(runtime().run, SyncRun) else asked


def load(
    function: Callable[..., Any],
    journal: list[Fact],
    *,
    args: Any = (),
    asked: int = 0,
    **options: Any,
) -> Any:
    """Load a run from a journal."""
    kind = AsyncRun if _is_async(function) else SyncRun
    runtime = Runtime()
    runtime.run = kind(
        partial(function, *args),
        identity="job/1/main",
        journal=journal,
        started_at=STARTED_AT,
        asked=asked,
        runtime=runtime,
        **options,
    )
    return runtime.run


def _is_async(function: Callable[..., Any]) -> bool:
    return bool(function.__code__.co_flags & 0x80)


def waits(run: Run) -> list[tuple[Any, ...]]:
    """List what a run waits for, in a form that can be compared."""
    return [
        (op.key, op.kind, op.name, op.serial, op.deadline, op.spec and op.spec[1])
        for op in run.journal.operations.values()
    ]


def state_of(run: Run) -> tuple[Any, ...]:
    """Return the state of a run that a replay must reach again."""
    return waits(run), run.journal.now, run.journal.asked


@dataclass
class World:
    """Everything outside of one job; a random generator decides what happens next."""

    chance: random.Random
    cancels: int = 0
    """How many requests to cancel may still arrive."""
    journal: list[Fact] = field(default_factory=list)
    asked: int = 0
    executed: list[tuple[Any, ...]] = field(default_factory=list)
    outside: dict[str, OpenOperation] = field(default_factory=dict)
    sent: list[OpenOperation] = field(default_factory=list)
    seen: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """The state of the run, by the length of the journal."""

    def drive(self, run: Run) -> Any:
        """Drive a run to its end, and return its outcome."""
        while not run.advance():
            self.flush(run)
            if not self.sent:
                self.seen[run.journal.position] = state_of(run)
            self.do_one_thing(run)
        self.flush(run)
        return outcome(run)

    def flush(self, run: Run) -> None:
        """Write the run's new facts, and begin what it has requested."""
        self.journal += run.journal.take_facts()
        self.asked = max(self.asked, run.journal.asked)
        for op in run.journal.take_requested():
            if op.kind == "answer":
                self.outside[op.key] = op
        for op in run.journal.take_withdrawn():
            assert op.key not in run.journal.operations

    def do_one_thing(self, run: Run) -> None:
        """Let one thing happen."""
        if self.sent:
            self.answer_command(run, self.sent.pop(0))
        elif self.cancels and self.chance.random() < 0.1:
            self.cancels -= 1
            run.journal.append(Fact("cancel", "$cancel", True, None, self.later(run)))
        elif (late := self.late(run)) and (
            not run.journal.operations or self.chance.random() < 0.5
        ):
            op = self.outside.pop(self.chance.choice(late))
            run.journal.append(Fact("dropped", op.key, True, None, self.later(run)))
        elif commands := [op for op in run.journal.operations.values() if op.kind == "command"]:
            self.send(run, commands)
        else:
            self.resolve(run, self.choose(run))

    def late(self, run: Run) -> list[str]:
        """Return the keys of running answers that the run no longer waits for."""
        return [key for key in self.outside if key not in run.journal.operations]

    def send(self, run: Run, commands: list[OpenOperation]) -> None:
        """Send all open commands in one call; their answers arrive together, in order."""
        self.sent = commands
        at = self.later(run)
        self.journal += [self.fact_for(op, at) for op in commands]

    def answer_command(self, run: Run, op: OpenOperation) -> None:
        """Give the run the answer of a sent command, which is already in the journal."""
        run.journal.append(self.journal[run.journal.position], recorded=True)
        assert self.journal[run.journal.position - 1].key == op.key

    def choose(self, run: Run) -> OpenOperation:
        """Choose the operation to resolve next; timers fire in the order of their deadlines."""
        timers = sorted(
            (op for op in run.journal.operations.values() if op.deadline is not None),
            key=lambda op: op.deadline or 0,
        )
        others = [op for op in run.journal.operations.values() if op.deadline is None]
        if timers and (not others or self.chance.random() < 0.4):
            return timers[0]
        return self.chance.choice(others)

    def resolve(self, run: Run, op: OpenOperation) -> None:
        """Resolve an operation, perhaps after a failed attempt."""
        if op.kind == "activity" and self.chance.random() < 0.1:
            run.journal.append(Fact("attempt", op.key, False, "not yet", self.later(run), op.name))
        self.outside.pop(op.key, None)
        run.journal.append(self.fact_for(op, self.later(run)))

    def fact_for(self, op: OpenOperation, at: int) -> Fact:
        """Do what an operation asks for, and return the resulting fact."""
        if op.kind == "timer":
            return Fact("timer", op.key, True, None, op.deadline or 0)
        function, args = op.spec
        self.executed.append((function.__name__, *args))
        try:
            ok, value = True, function(*args)
        except ValueError as error:
            ok, value = False, str(error)
        return Fact(op.kind, op.key, ok, value, at, op.name, op.fingerprint)

    def later(self, run: Run) -> int:
        """Return a time after the last fact."""
        last = self.journal[-1].at if self.journal else run.journal.now
        return max(last, run.journal.now) + self.chance.randrange(6 * SECOND)


def outcome(run: Run) -> tuple[str, Any]:
    """Return the outcome of the run, in a form that can be compared, and close the run."""
    try:
        return "returned", run.outcome()
    except BaseException as error:  # noqa: BLE001
        return "raised", repr(error)
    finally:
        run.close()
