"""A run: one function against one journal; what the worker adds and takes, what the code may ask.

The two kinds, for `async def` and for plain functions, are in `replay.py`.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, ContextVar
from typing import Any, Generic, NoReturn, TypeVar

from .facts import Evicted, Fact, Op, Request, as_error
from .journal import Journal, Refusal
from .typed_items import Decode, unchanged

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
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
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
        since the epoch; `asked` is what earlier holders had asked for (`run.asked` at their last
        flush); `accept_changes` lets arguments differ from the journal's; `past` lists other
        identities, each with the position up to which the journal was theirs (a fork's).
        """
        self.runtime = runtime
        self._closed = False
        self.continuation: Any = None
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._journal = Journal(
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

    # For the worker.

    @property
    def now(self) -> int:
        """Workflow time: the time of the last fact told, in µs since the epoch."""
        return self._journal.now

    @property
    def position(self) -> int:
        """The number of facts in the journal: loaded, appended and made (patches)."""
        return self._journal.position

    @property
    def asked(self) -> int:
        """What the code has asked for so far; give it back when the run is loaded again."""
        return self._journal.asked

    @property
    def has_news(self) -> bool:
        """Tell whether there is a fact that the code was not told yet."""
        return self._journal.has_news

    @property
    def ops(self) -> dict[str, Op]:
        """What the code waits for, by key, in order of asking. Do not change it."""
        return self._journal.ops

    @property
    def patches_made(self) -> list[Fact]:
        """The patch facts this run has made; `take_facts()` gives them among the others."""
        return self._journal.patches_made

    def has_withdrawn(self, key: str) -> bool:
        """Tell whether the code has asked for what has this key, and waits for it no more."""
        return self._journal.has_withdrawn(key)

    def refuse(self, error: Refusal) -> Refusal:
        """Take an error that `advance()` is to raise, whatever the code makes of it."""
        return self._journal.refuse(error)

    def append(self, fact: Fact, *, recorded: bool = False) -> None:
        """Add the next fact of the journal; `advance()` tells it to the code.

        It answers an op that is open now: append one, advance, look at `ops` again. The exception
        are commands, reads and sends that went to the database together: their answers are
        appended all, even those whose op the code has withdrawn meanwhile.

        `recorded`: it stands in the database already (an answered command). Everything from
        `take_facts()` must have been sent before it, so that both lists have one order.
        """
        self._journal.append(fact, recorded=recorded)

    def take_facts(self) -> list[Fact]:
        """Take the facts to flush: appended (not `recorded`) and made since the last call.

        A patch is a fact that the code makes, by asking `patched()`; it stands at its place among
        the appended ones. Flushed in this order, the database's journal equals the run's.
        """
        return self._journal.take_facts()

    def take_requested(self) -> list[Op]:
        """Take the ops asked for since the last call and still open, in order of asking."""
        return self._journal.take_requested()

    def take_withdrawn(self) -> list[Op]:
        """Take the ops the code has withdrawn since the last call: no longer open.

        Those only that were taken before, by this run or (ops of kind `answer`) maybe by an
        earlier holder of the task: what was asked for and withdrawn in between never existed.
        """
        return self._journal.take_withdrawn()

    def close(self) -> None:
        """Drop the run from memory: end all its code here, and let none of it have any effect.

        Always call it, once the outcome is taken or the run is of no use. Without it the collector
        would run the code's `finally` blocks, in the middle of another job.
        """
        if not self._closed:
            self._closed = True
            self._journal.close(Evicted)
            self._unwind()
            # What refers to this run is let go: it leaves memory now, not when the collector comes.
            self._journal.forget()
            self._function, self.runtime = _closed, None

    def _unwind(self) -> None:
        pass

    def _check_open(self) -> None:
        if self._closed:
            _closed()

    # For the code, through the runtime.

    def request(
        self,
        kind: str,
        name: str,
        spec: Any,
        *,
        fingerprint: str | None = None,
        decode: Decode = unchanged,
        failure: Callable[[Any], BaseException] = as_error,
        deadline: int | None = None,
    ) -> W:
        """Ask for something; its key is fixed now. Await the answer, at once or later; in plain
        code `.result()` waits for it."""
        waiter = self._waiter()
        op = self._journal.ask(
            self._place(),
            kind,
            name,
            spec,
            waiter,
            fingerprint=fingerprint,
            decode=decode,
            failure=failure,
            deadline=deadline,
        )
        return waiter.asked(op)

    def _waiter(self) -> W:
        raise NotImplementedError

    def time(self) -> int:
        """Give workflow time in µs since the epoch."""
        return self._journal.now

    def was_here(self) -> bool:
        """Tell whether what the code does now has no effect: it was done before, or is too late."""
        return self._journal.closed or self._journal.was_here()

    def patched(self, name: str) -> bool:
        """Tell whether to take the new way: always in new runs, never where old code has been."""
        return self._journal.patched(name)

    def continue_with(self, args: Any) -> NoReturn:
        """End this run, to be followed by one with these arguments (as stored).

        Nothing that the code does from here on has any effect, as when a run leaves memory.
        """
        self._journal.check_open()
        self.continuation = args
        self._journal.close(Evicted)
        raise Evicted

    def random(self) -> random.Random:
        """Give a random stream of its own, the same at every replay."""
        return random.Random(self._seed("$random"))

    def uuid(self) -> uuid.UUID:
        """Give a unique id, the same at every replay."""
        return uuid.uuid5(uuid.NAMESPACE_OID, self._seed("$uuid"))

    def _seed(self, stream: str) -> str:
        return f"{self._journal.seed()}|{self._journal.key(self._place(), stream)}"

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
