"""A worker and a database in one list: drives runs in tests, with seeded chance instead of a world.

The database's journal is what `take_facts()` gave. A run can be dropped at any moment and another
one loaded from that list, as after a crash.
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
    """Give the seeds of a random test; PERDURE_FUZZ_SEEDS=1000 asks for more."""
    return iter(range(int(os.environ.get("PERDURE_FUZZ_SEEDS", default))))


class StepFailed(Exception):
    """What a failing step raises in the code."""


def failed(failure: Any) -> BaseException:
    """Make the exception of a failure."""
    return StepFailed(failure)


def step(function: Callable[..., Any], *args: Any) -> Any:
    """Ask for an activity."""
    return _ask("activity", function.__name__, (function, args), fingerprint=repr(args))


def hook(function: Callable[..., Any], *args: Any) -> Any:
    """Ask for something that runs outside and may answer late."""
    return _ask("answer", function.__name__, (function, args), fingerprint=repr(args))


def command(op: str, value: Any = None) -> Any:
    """Ask for a command, which is sent together with others and then answered."""
    return _ask("command", op, (echo, (value,)), fingerprint=repr(value))


def signal(name: str) -> Any:
    """Wait for a signal."""
    return _ask("signal", name, (echo, (name,)))


def patched(name: str) -> bool:
    """Ask whether to take the new way."""
    return runtime().run.journal.patched(name)


def now() -> float:
    """Give workflow seconds since the start."""
    return (runtime().run.journal.now - STARTED_AT) / SECOND


def echo(value: Any) -> Any:
    """Give the value."""
    return value


@dataclass
class Runtime:
    """What the code finds in `current`."""

    run: Any = None


def runtime() -> Runtime:
    """Give the runtime of the code that runs now."""
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
    """Show what a run waits for, comparably."""
    return [
        (op.key, op.kind, op.name, op.serial, op.deadline, op.spec and op.spec[1])
        for op in run.journal.operations.values()
    ]


def shown(run: Run) -> tuple[Any, ...]:
    """Show all of a run that a replay has to come to again."""
    return waits(run), run.journal.now, run.journal.asked


@dataclass
class World:
    """The outside of one job, deciding by chance what happens next."""

    chance: random.Random
    cancels: int = 0
    """How many cancellations may come."""
    journal: list[Fact] = field(default_factory=list)
    asked: int = 0
    executed: list[tuple[Any, ...]] = field(default_factory=list)
    outside: dict[str, OpenOperation] = field(default_factory=dict)
    sent: list[OpenOperation] = field(default_factory=list)
    seen: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """What the run waited for, by the length of the journal."""

    def drive(self, run: Run) -> Any:
        """Drive a run to its end and give its outcome."""
        while not run.advance():
            self.flush(run)
            if not self.sent:
                self.seen[run.journal.position] = shown(run)
            self.happen(run)
        self.flush(run)
        return outcome(run)

    def flush(self, run: Run) -> None:
        """Write what the run has been told, and begin what it has asked for."""
        self.journal += run.journal.take_facts()
        self.asked = max(self.asked, run.journal.asked)
        for op in run.journal.take_requested():
            if op.kind == "answer":
                self.outside[op.key] = op
        for op in run.journal.take_withdrawn():
            assert op.key not in run.journal.operations

    def happen(self, run: Run) -> None:
        """Let one thing happen."""
        if self.sent:
            self.answer(run, self.sent.pop(0))
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
            self.tell(run, self.choose(run))

    def late(self, run: Run) -> list[str]:
        """Give the keys whose answers nobody waits for any more."""
        return [key for key in self.outside if key not in run.journal.operations]

    def send(self, run: Run, commands: list[OpenOperation]) -> None:
        """Send all open commands in one call; their answers come together, in order."""
        self.sent = commands
        at = self.later(run)
        self.journal += [self.told(op, at) for op in commands]

    def answer(self, run: Run, op: OpenOperation) -> None:
        """Tell the answer of a command that was sent; it stands in the journal already."""
        run.journal.append(self.journal[run.journal.position], recorded=True)
        assert self.journal[run.journal.position - 1].key == op.key

    def choose(self, run: Run) -> OpenOperation:
        """Choose which op is answered next; timers in order of their deadlines."""
        timers = sorted(
            (op for op in run.journal.operations.values() if op.deadline is not None),
            key=lambda op: op.deadline or 0,
        )
        others = [op for op in run.journal.operations.values() if op.deadline is None]
        if timers and (not others or self.chance.random() < 0.4):
            return timers[0]
        return self.chance.choice(others)

    def tell(self, run: Run, op: OpenOperation) -> None:
        """Answer an op."""
        if op.kind == "activity" and self.chance.random() < 0.1:
            run.journal.append(Fact("attempt", op.key, False, "not yet", self.later(run), op.name))
        self.outside.pop(op.key, None)
        run.journal.append(self.told(op, self.later(run)))

    def told(self, op: OpenOperation, at: int) -> Fact:
        """Do what an op asks for."""
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
        """Give a time after the last fact."""
        last = self.journal[-1].at if self.journal else run.journal.now
        return max(last, run.journal.now) + self.chance.randrange(6 * SECOND)


def outcome(run: Run) -> tuple[str, Any]:
    """Give what the run came to, comparably, and close it."""
    try:
        return "returned", run.outcome()
    except BaseException as error:  # noqa: BLE001
        return "raised", repr(error)
    finally:
        run.close()
