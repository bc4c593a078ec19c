"""Registered functions: activities, hooks and coordinators, as user code sees and calls them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any, ClassVar, Generic, ParamSpec, Protocol, TypeVar

from . import asks
from .context import runtime
from .durations import Duration, seconds
from .errors import InvalidArgument, InvalidName
from .retry import Retry
from .typed import Shape, shape_of

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Pending(Protocol[R_co]):
    """What `start(…)` gives: to be awaited in async code; `result()` waits in plain code."""

    def __await__(self) -> Any:
        """Await the answer."""

    def result(self) -> R_co:
        """Give the answer, waiting for it in plain code."""


class Work(Generic[P, R]):
    """A registered function; called outside of coordinators and hooks it simply runs."""

    kind: ClassVar[str] = "work"
    leading: ClassVar[int] = 0

    def __init__(self, function: Callable[..., Any], name: str | None, queue: str | None):
        self.function = function
        self.name = name or function.__name__
        self.queue = queue
        self.entity: str | None = None
        self.is_async = inspect.iscoroutinefunction(function)
        if not self.name or len(self.name.encode()) > 150:
            raise InvalidName(f"{self.name!r} is no name for a function")
        copied: Any = self
        update_wrapper(copied, function)

    @cached_property
    def shape(self) -> Shape:
        """Tell how arguments and result pass the wire."""
        return shape_of(self.function, self.leading)

    def __repr__(self) -> str:
        """Show kind and name."""
        return f"<{self.kind} {self.name}>"


class Activity(Work[P, R]):
    """A function with side effects; its result is recorded once."""

    kind = "activity"

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        queue: str | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
    ):
        super().__init__(function, name, queue)
        self.retry = retry or Retry()
        self.timeout = None if timeout is None else seconds(timeout)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it durably in a coordinator or hook; elsewhere simply run the function."""
        serving = runtime()
        if serving is None:
            result: R = self.function(*args, **kwargs)
            return result
        pending = serving.ask(asks.activity_ask(self, self.shape.bind(args, kwargs)))
        given: R = serving.give(pending)
        return given

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Pending[Any]:
        """Begin it beside others: `found = search.start("q"); …; found.result()`."""
        serving = _needed(self)
        pending: Pending[Any] = serving.start(
            asks.activity_ask(self, self.shape.bind(args, kwargs))
        )
        return pending


class Hook(Work[P, R]):
    """Ordinary code that maintains a job's memory: re-entrant, idempotent, interruptible."""

    kind = "hook"
    leading = 1

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        queue: str = "default",
        retry: Retry | None = None,
    ):
        super().__init__(function, name, queue)
        self.retry = retry or Retry()

    def __call__(self, memory: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it on a worker; inside a coordinator or hook this resolves to what it returns."""
        serving = runtime()
        if serving is None:
            result: R = self.function(memory, *args, **kwargs)
            return result
        given: R = serving.give(serving.ask(asks.hook_ask(self, args, kwargs)))
        return given

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Pending[Any]:
        """Begin it beside others, without the memory: `perspective.start("s", "q").result()`."""
        pending: Pending[Any] = _needed(self).start(asks.hook_ask(self, args, kwargs))
        return pending


class Coordinator(Work[P, R]):
    """A thin deterministic function: seeds memory, fans out hooks, waits, returns."""

    kind = "coordinator"
    leading = 1

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        queue: str = "default",
        entity: str | None = None,
    ):
        super().__init__(function, name, queue)
        self.entity = entity

    def __call__(self, memory: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, as a part of whoever calls it; `child()` makes it a job."""
        result: R = self.function(memory, *args, **kwargs)
        return result


def _needed(work: Work[..., Any]) -> Any:
    serving = runtime()
    if serving is None:
        raise InvalidArgument(
            f"{work.name}.start() was called outside of a coordinator or hook",
            hint="Call the function itself there, or start a job with a client.",
        )
    return serving
