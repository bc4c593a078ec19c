"""A run: one function against one journal, and what the code may ask.

The worker adds to the journal what happens, and takes from it what is asked. The two kinds of runs,
for `async def` and for plain functions, are in `replay.py`.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar
from typing import Any, Generic, NoReturn, TypeVar

from .facts import Evicted, Fact, Request
from .journal import Journal

current: ContextVar[Any] = ContextVar("perdure_current")
"""The runtime object of the code that runs now."""

W = TypeVar("W", bound=Request)


class Run(Generic[W]):
    """What both kinds of run share."""

    _rereads = False
    """Whether the journal is told again from the beginning."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        identity: str,
        journal: Sequence[Fact],
        started_at: int,
        asked: int = 0,
        accept_changes: bool = False,
        runtime: Any = None,
        past: Sequence[tuple[str, int]] = (),
    ):
        """Prepare a run; no code of the user runs before the first `advance()`.

        `identity` seeds `random()` and `uuid()`; `started_at` is where workflow time begins, in µs
        since the epoch; `asked` is what earlier holders had asked for (`journal.asked` at their
        last flush); `accept_changes` lets arguments differ from the journal's; `past` lists other
        identities, each with the position up to which the journal was theirs (a fork's).
        """
        self.runtime = runtime
        self._closed = False
        self.continuation: Any = None
        self._function = function

        self.journal = Journal(
            identity,
            journal,
            started_at=started_at,
            asked=asked,
            accept_changes=accept_changes,
            on_cancel=self._cancelled,
            rereads=self._rereads,
            past=past,
        )
        self._prepare()

    def _prepare(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Drop the run from memory: end all its code here, without any effect.

        Always call it, once the outcome is taken or the run is of no use. Otherwise the collector
        would run the code's `finally` blocks in the middle of another job.
        """
        if not self._closed:
            self._closed = True
            self.journal.close(Evicted)
            self._unwind()
            # References to this run are dropped, so that it leaves memory without the collector.
            self.journal.forget()
            self._function, self.runtime = _closed, None

    def unawaited_errors(self) -> list[BaseException]:
        """Return what was raised, and nobody has awaited: in plain code nothing."""
        return []

    def unawaited_waits(self) -> list[str]:
        """Name the waits that nobody has awaited: in plain code none."""
        return []

    def _unwind(self) -> None:
        pass

    def _check_open(self) -> None:
        if self._closed:
            _closed()

    # For the code, through the runtime.

    def request(self, kind: str, name: str, spec: Any, **more: Any) -> W:
        """Ask for something; its key is fixed now.

        Await the answer, now or later; in plain code `.result()` waits for it. The other
        arguments are those of `Journal.open_operation()`.
        """
        waiter = self._waiter(kind)
        return waiter.attach(
            self.journal.open_operation(self._place(), kind, name, spec, waiter, **more)
        )

    def _waiter(self, kind: str) -> W:
        raise NotImplementedError

    def continue_with(self, args: Any) -> NoReturn:
        """End this run, to be followed by one with these arguments (as stored).

        Nothing that the code does from here on has any effect, as when a run leaves memory.
        """
        self.journal.check_open()
        self.continuation = args
        self.journal.close(Evicted)
        raise Evicted

    def random(self) -> random.Random:
        """Return a random stream of its own, the same at every replay."""
        return random.Random(self._seed("$random"))

    def uuid(self) -> uuid.UUID:
        """Return a unique id, the same at every replay."""
        return uuid.uuid5(uuid.NAMESPACE_OID, self._seed("$uuid"))

    def _seed(self, stream: str) -> str:
        return f"{self.journal.seed()}|{self.journal.key(self._place(), stream)}"

    def _place(self) -> str:
        return ""

    def _cancelled(self, fact: Fact) -> None:
        raise NotImplementedError

    def _new_context(self) -> Context:
        context = Context()
        context.run(current.set, self.runtime)
        return context


def _closed(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("the run is closed")
