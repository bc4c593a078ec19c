"""What a hook has been told, found again when it runs again: by what was asked, not by order.

Activities and other work are known by name, arguments and occurrence among equals; commands and
reads by verb, path and occurrence. So neither concurrency nor changed code before them matters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from hashlib import blake2b
from itertools import count

from perdure.basics.durations import from_iso
from perdure.basics.paths import write_path
from perdure.replay.replay import Fact
from perdure.workflow.operations import Operation

from .activities import NO_ATTEMPTS, PriorAttempts

MAX_PATH = 100
"""Number of letters of a path in a key; a longer one is hashed."""
OWN = "$hook"
"""The key of the hook itself, for its attempts and its progress."""


class HookJournal:
    """The journal of a hook, by key."""

    def __init__(self, facts: Iterable[Fact]):
        self._facts: dict[str, Fact] = {}
        self._attempts: dict[str, PriorAttempts] = {}
        self._deadlines: dict[str, int] = {}
        # Threads of the hook may count at the same time: neither may get the number of the other.
        self._counts: defaultdict[str, count[int]] = defaultdict(partial(count, 1))
        self.asked = 0
        self.is_cancelled = False
        for fact in facts:
            self.record(fact)

    def restart(self) -> None:
        """Count from the beginning: the code runs again from the top."""
        self._counts.clear()
        self.asked = 0

    def key(self, what: str) -> str:
        """Return the key of the next call of something: `search:1f…#2`."""
        self.asked += 1
        return f"{what}#{next(self._counts[what])}"

    def record(self, fact: Fact) -> None:
        """Note a fact."""
        key = fact.key or ""
        if fact.kind == "cancel":
            self.is_cancelled = True
        elif fact.kind == "attempt":
            self._attempts[key] = self._attempts.get(key, NO_ATTEMPTS).and_failed(fact.value)
        elif fact.kind == "note":
            self._deadlines[key] = from_iso(fact.value["until"])
        elif fact.kind != "dropped":
            self._facts.setdefault(key, fact)

    def fact(self, key: str) -> Fact | None:
        """Return what was told for a key."""
        return self._facts.get(key)

    def attempts(self, key: str) -> PriorAttempts:
        """Return what is known of the attempts that have failed."""
        return self._attempts.get(key, NO_ATTEMPTS)

    def deadline(self, key: str) -> int | None:
        """Return the deadline that the first call of a wait has set (µs)."""
        return self._deadlines.get(key)


def key_prefix(operation: Operation) -> str:
    """Name what is asked, without the occurrence."""
    if operation.kind in ("command", "read"):
        path = write_path(operation.spec["path"])
        if len(path) > MAX_PATH:
            path = blake2b(path.encode(), digest_size=8).hexdigest()
        return f"{operation.name}:{path}"
    if operation.kind == "send":
        target = operation.spec.get("target")
        return operation.name if target is None else f"{operation.name}@{target}"
    return f"{operation.name}:{operation.fingerprint}"
