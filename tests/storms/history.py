"""The history of a storm: calls, answers and faults, written down outside of PostgreSQL.

Each line is written at once, with the monotonic clock of the machine: `ask` when a call begins,
`unknown` whenever its answer is lost and it is repeated, `answer` when it has one.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Operation:
    """One call of a client, with its outcome."""

    number: int
    client: str
    verb: str
    about: str
    began: float
    ended: float | None = None
    answer: Any = None
    unknown: int = 0
    """How often its answer was lost."""


@dataclass
class Asked:
    """A running operation, whose client reports its answers."""

    history: History
    number: int
    answer: Any = None

    def lost(self, error: BaseException) -> None:
        """Record that an answer was lost, so that the call may or may not have been executed."""
        self.history.write("unknown", self.number, error=f"{type(error).__name__}: {error}"[:200])


@dataclass
class History:
    """A file of operations and faults."""

    path: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def write(self, what: str, number: int, **more: Any) -> None:
        """Write a line."""
        line = {"what": what, "number": number, "at": time.monotonic(), **more}
        os.write(self._file, json.dumps(line, default=str).encode() + b"\n")

    @contextmanager
    def asked(self, client: str, verb: str, about: str) -> Iterator[Asked]:
        """Record a call while it is made; it counts as answered if the block ends well."""
        asked = Asked(self, next(self._numbers))
        self.write("ask", asked.number, client=client, verb=verb, about=about)
        yield asked
        self.write("answer", asked.number, answer=asked.answer)

    def fault(self, name: str) -> None:
        """Record a fault."""
        self.write("fault", next(self._numbers), name=name)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Read all lines."""
        with self.path.open() as file:
            yield from map(json.loads, file)

    def operations(self) -> list[Operation]:
        """Return the operations in the order in which they began."""
        found: dict[int, Operation] = {}
        for line in self.lines():
            number = line["number"]
            if line["what"] == "ask":
                names = ("client", "verb", "about")
                found[number] = Operation(number, *(line[name] for name in names), line["at"])
            elif line["what"] == "unknown":
                found[number].unknown += 1
            elif line["what"] == "answer":
                found[number].ended, found[number].answer = line["at"], line["answer"]
        return list(found.values())

    def faults(self) -> Counter[str]:
        """Count the faults by name."""
        return Counter(line["name"] for line in self.lines() if line["what"] == "fault")
