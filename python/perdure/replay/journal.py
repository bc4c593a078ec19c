"""The journal of one task beside what its code has asked for: the core of every replay.

A journal is the ordered list of what the code was told (facts). An open operation is something the
code asked for and has no answer of yet. Replay means applying the facts again, in order, and each
only when the code has nothing left to run. The same code then asks for the same operations under
the same keys. Whatever does not fit is other code, and is refused before it has any effect.

Pure: no I/O, no clock, no database.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from perdure.errors import NonDeterminism, PerdureError
from perdure.values.items import Decode, unchanged

from .differences import other_answer, other_arguments, other_end
from .facts import SENT_AHEAD, SILENT, Fact, OpenOperation, Suspend, Waiter, as_error

MAX_REFUSED_CALLS = 1000

Refusal = TypeVar("Refusal", bound=PerdureError)


class Journal:
    """Match facts with operations, in order; count keys; keep workflow time.

    Facts wait in `_pending`. `position` counts the whole journal: loaded, appended and made.
    `operations` is what the code waits for, in order of asking, `asked` how much it has asked for
    so far, `now` the time of the last applied fact (µs).
    """

    def __init__(
        self,
        identity: str,
        facts: Iterable[Fact],
        *,
        started_at: int,
        asked: int,
        accept_changes: bool,
        on_cancel: Callable[[Fact], None],
        rereads: bool,
        past: Sequence[tuple[str, int]],
    ):
        self.identity = identity
        self._past = past
        self.started_at = started_at
        self._pending = untold = deque(facts)
        self._kept = list(untold) if rereads else None
        self.position = len(untold)
        self._last_at = untold[-1].at if untold else started_at
        self._loaded, self._patches = _read_ahead(untold)
        self._asked_before = asked
        self._seen_applied, self._seen_asked = self._loaded, asked
        self._accept_changes = accept_changes
        self._on_cancel = on_cancel
        self._unflushed: list[Fact] = []

        self._withdrawn: list[OpenOperation] = []
        self._taken: set[str] = set()
        self._settled = {fact.key for fact in untold if fact.kind == "dropped"}
        self.broken: PerdureError | None = None
        self._begin()

    def _begin(self) -> None:
        self.now = self.started_at
        self.asked = 0
        self.operations: dict[str, OpenOperation] = {}
        self._requested: dict[str, OpenOperation] = {}
        self._counts: dict[str, int] = {}
        self._sent_ahead: dict[str, OpenOperation] = {}
        self._applied = 0
        self._refused_calls = 0
        self._closed_by: type[BaseException] | None = None

    def rewind(self) -> None:
        """Begin again from the first fact, with all that was appended since (plain functions)."""
        if self._kept is None:
            raise RuntimeError("this journal forgets what it has told")
        self._detach_operations()
        self._pending = deque(self._kept)
        self._seen_applied = max(self._seen_applied, self._applied)
        self._seen_asked = max(self._seen_asked, self.asked)
        self._begin()

    def close(self, by: type[BaseException]) -> None:
        """Accept no more: whatever the code asks for now raises `by` and records nothing."""
        self._closed_by = by

    def forget(self) -> None:
        """Release facts, operations and the run; the numbers stay."""
        self._detach_operations()
        self.operations, self._requested, self._sent_ahead, self._withdrawn = {}, {}, {}, []
        self._on_cancel = NULL_WAITER.cancelled
        self._pending.clear()
        if self._kept is not None:
            self._kept.clear()

    def _detach_operations(self) -> None:
        """Release open operations: they and their waiters refer to each other."""
        for operation in self.operations.values():
            operation.waiter = NULL_WAITER

    @property
    def closed(self) -> bool:
        """Tell whether everything that the code asks for is refused."""
        return self._closed_by is not None

    @property
    def is_suspended(self) -> bool:
        """Tell whether the code has unwound only to run again from the first fact."""
        return self._closed_by is Suspend

    def seed(self) -> str:
        """Return whose journal this was first: that of a fork begins as another's."""
        return next((name for name, upto in self._past if self._applied < upto), self.identity)

    def refuse(self, error: Refusal) -> Refusal:
        """Note an error that `Run.advance()` is to raise, whatever the code makes of it."""
        if self.broken is None:
            self.broken = error
        return error

    # What the code asks for.

    def key(self, place: str, name: str) -> str:
        """Return the next key of a name at a place: `search#1`, in a task `.1/search#1`.

        Keys count by the whole text before `#`, so they are unique whatever names contain.
        """
        prefix = f"{place}/{name}" if place else name
        number = self._counts.get(prefix, 0) + 1
        self._counts[prefix] = number
        return f"{prefix}#{number}"

    def open_operation(
        self,
        place: str,
        kind: str,
        name: str,
        spec: Any,
        waiter: Waiter,
        *,
        fingerprint: str | None = None,
        decode: Decode = unchanged,
        failure: Callable[[Any], BaseException] = as_error,
        deadline: int | None = None,
    ) -> OpenOperation:
        """Open an operation. Its key is fixed here, when the code calls, not when it awaits."""
        self.check_open()
        key = self.key(place, name)
        self.asked += 1
        operation = OpenOperation(
            key, kind, name, fingerprint, spec, decode, failure, deadline, self.asked, waiter
        )
        self.operations[key] = operation
        if key not in self._taken and self._closed_by is None:
            self._requested[key] = operation
        return operation

    def check_open(self) -> None:
        """Raise in code that is being closed. Code that never gives up is left waiting instead."""
        if self._closed_by is not None:
            self._refused_calls += 1
            if self._refused_calls <= MAX_REFUSED_CALLS:
                raise self._closed_by

    def withdraw(self, operation: OpenOperation) -> None:
        """Close an operation that the code no longer waits for, unless it was answered already."""
        key = operation.key
        if self.operations.get(key) is not operation:
            return
        del self.operations[key]
        self._taken.discard(key)
        if operation.kind in SENT_AHEAD:
            self._sent_ahead[key] = operation
        taken = self._requested.pop(key, None) is None
        # Work that an earlier holder of the task has begun may still be under way elsewhere.
        taken_earlier = operation.kind == "answer" and operation.serial <= self._asked_before
        if (taken or taken_earlier) and key not in self._settled:
            self._settled.add(key)
            self._withdrawn.append(operation)

    def patched(self, name: str) -> bool:
        """Tell whether to take the new way; the first answer holds for the whole run.

        It is true if it was recorded, or if nobody has been beyond this place. Older code may have
        passed the place without being told anything since, so the end of the journal is not enough:
        it must also not have asked for anything beyond.
        """
        answer = self._patches.get(name)
        if answer is None:
            self.check_open()
            answer = self._applied >= self._loaded and self.asked >= self._asked_before
            self._patches[name] = answer
            if answer:
                at = max(self.now, self._last_at)
                self.append(Fact("patch", f"$patch/{name}", True, None, at, name))
        return answer

    def is_replaying(self) -> bool:
        """Tell whether the code has been at this place before, or is too late to have any effect.

        It may have been here itself, or with an earlier holder. Between a request and the wait for
        it, the answer may be no a second time.
        """
        was_told, has_asked = self._applied < self._seen_applied, self.asked < self._seen_asked
        return self.closed or was_told or has_asked

    def has_withdrawn(self, key: str) -> bool:
        """Tell whether the code has asked for this key and no longer waits for it."""
        prefix, _, number = key.rpartition("#")
        was_asked = number.isdecimal() and int(number) <= self._counts.get(prefix, 0)
        return was_asked and key not in self.operations

    # What the runtime adds and takes.

    def append(self, fact: Fact, *, recorded: bool = False) -> None:
        """Add the next fact; `Run.advance()` applies it.

        It answers an operation that is open now: append one, advance, look at `operations` again.
        The exception are commands, reads and sends that went to the database together: their
        answers are all appended, even those that the code has withdrawn meanwhile.

        `recorded`: it is already in the database (an answered command). Everything from
        `take_facts()` must have been sent before it, so that both lists have one order.
        """
        if not recorded:
            self._unflushed.append(fact)
        elif self._unflushed:
            raise ValueError("facts that are not flushed yet would come after a recorded one")
        self.position += 1
        self._last_at = fact.at
        self._pending.append(fact)
        if self._kept is not None:
            self._kept.append(fact)

    def take_facts(self) -> list[Fact]:
        """Return the facts to flush: appended (not `recorded`) and made since the last call.

        A patch is a fact that the code makes by asking `patched()`; it has its place among the
        appended ones. Flushed in this order, the journal in the database equals this one.
        """
        facts, self._unflushed = self._unflushed, []
        return facts

    def take_requested(self) -> list[OpenOperation]:
        """Return the open operations asked for since the last call, in order of asking."""
        if not self._requested:
            return []
        requested = list(self._requested.values())
        self._taken.update(self._requested)
        self._requested.clear()
        return requested

    def take_withdrawn(self) -> list[OpenOperation]:
        """Return the operations withdrawn since the last call: no longer open.

        Only those that were taken before, by this run or (those of kind `answer`) perhaps by an
        earlier holder of the task. What was asked for and withdrawn in between never existed.
        """
        withdrawn, self._withdrawn = self._withdrawn, []
        return withdrawn

    # Applying.

    @property
    def has_pending(self) -> bool:
        """Tell whether there is a fact that the code was not told yet, or an error to end with."""
        return bool(self._pending) or self.broken is not None

    def apply_next(self) -> bool:
        """Apply the next fact to the code; return False if there is none.

        The code must be quiescent.
        """
        if not self._pending:
            return False
        fact = self._pending.popleft()
        self._applied += 1
        self.now = max(self.now, fact.at)
        operation = self._answered_by(fact)
        if operation is not None:
            key = operation.key
            del self.operations[key]
            self._requested.pop(key, None)
            self._taken.discard(key)
            operation.waiter.answer(operation, fact)
        elif fact.kind == "cancel":
            self._on_cancel(fact)
        elif not self._may_be_skipped(fact):
            raise self.refuse(self._difference(fact))
        return True

    def finish(self, raised: BaseException | None) -> None:
        """Check that nothing is left to tell to code that has returned, or raised this."""
        for fact in self._pending:
            self._applied += 1
            late = fact.kind in SENT_AHEAD and self._answered_by(fact) is not None
            if not (late or self._may_be_skipped(fact)):
                refused = self.refuse(other_end(self.identity, self._applied, fact, raised))
                raise refused from raised
        self._pending.clear()

    def _answered_by(self, fact: Fact) -> OpenOperation | None:
        operation = self.operations.get(fact.key or "")
        return operation if operation is not None and self._is_answer(operation, fact) else None

    def _is_answer(self, operation: OpenOperation, fact: Fact) -> bool:
        is_named_so = operation.kind == fact.kind and fact.name in (None, operation.name)
        return is_named_so and self._same_arguments(operation, fact)

    def _same_arguments(self, operation: OpenOperation, fact: Fact) -> bool:
        known = fact.fingerprint
        asked = operation.fingerprint
        return known in (None, asked) or asked is None or self._accept_changes

    def _may_be_skipped(self, fact: Fact) -> bool:
        if fact.kind in SILENT:
            return True
        # Commands are sent together; the answer of the first may withdraw the others.
        withdrawn = self._sent_ahead.get(fact.key or "")
        return withdrawn is not None and self._is_answer(withdrawn, fact)

    def _difference(self, fact: Fact) -> NonDeterminism:
        operation = self.operations.get(fact.key or "")
        if (
            operation is not None
            and operation.kind == fact.kind
            and not self._same_arguments(operation, fact)
        ):
            return other_arguments(self.identity, self._applied, fact, operation)
        return other_answer(self.identity, self._applied, fact, self.operations.values())


class _NullWaiter:
    """A waiter that is gone."""

    def answer(self, operation: OpenOperation, fact: Fact, /) -> None:
        """Take an answer that comes too late."""

    def cancelled(self, fact: Fact) -> None:
        """Take a cancel that comes too late."""


NULL_WAITER = _NullWaiter()


def _read_ahead(facts: Iterable[Fact]) -> tuple[int, dict[str, bool]]:
    """Return the place of the last fact that tells the code anything, and the recorded patches."""
    last, patches = 0, {}
    for place, fact in enumerate(facts, 1):
        if fact.kind == "patch" and fact.name is not None:
            patches[fact.name] = True
        elif fact.kind not in SILENT:
            last = place
    return last, patches
