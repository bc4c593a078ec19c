"""Registered functions: activities, hooks and coordinators, as user code sees and calls them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from functools import cached_property, update_wrapper
from operator import attrgetter
from typing import (
    Any,
    ClassVar,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    SupportsIndex,
    TypeVar,
    get_args,
)

from perdure.basics.durations import Duration, seconds
from perdure.basics.limits import limits_of
from perdure.basics.names import check_name, check_queue
from perdure.basics.retry import Retry, policy_of
from perdure.errors import InvalidArgument, InvalidName
from perdure.values.shapes import Shape, shape_of
from perdure.values.wire import Result, Result_co

from . import operations
from .context import Runtime, misplaced, required, runtime
from .functions import check_usable, execution_of, is_async
from .memory import Verbs

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Isolation = Literal["read committed", "repeatable read", "serializable"]

LimitKey = str | Callable[..., str]
"""The key under which work counts on a queue with limits per key: a text, or a function of the
arguments of each call."""


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Pending(Protocol[Result_co]):
    """What `start(...)` returns: await it in async code, or call `result()` in plain code."""

    def __await__(self) -> Generator[Any, Any, Result_co]:
        """Await the answer."""

    def result(self) -> Result_co:
        """Wait for the answer in plain code and return it."""

    def cancel(self) -> Any:
        """Withdraw the request; what was begun for it is asked to cancel."""


class Work(Generic[P, R, Result_co]):
    """A registered function. Outside of coordinators and hooks, a call simply runs the function."""

    kind: ClassVar[str] = "work"
    leading: ClassVar[int] = 0
    given: ClassVar[str] = "memory"
    """What the function is given first, if anything."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None,
        queue: str | None,
        limit_key: LimitKey | None = None,
    ):
        if isinstance(function, staticmethod | classmethod):  # the decorator stands above that
            function = function.__func__
        self.function = function
        own_name: Any = getattr(function, "__name__", "") if name is None else name
        self.queue = queue
        self.limit_key = limit_key
        self.entity: str | None = None
        self.pinned_version: str | None = None
        self.is_async = is_async(function, is_given=self.leading > 0)
        if not isinstance(own_name, str) or not 0 < len(own_name.encode()) <= 150:
            raise InvalidName(
                f"{own_name!r} is not a name for a function", hint="Give it another name: name=…."
            )
        self.name = own_name
        check_usable(function, own_name, self.kind, self.given if self.leading else None)
        if queue is not None:
            check_queue(queue)
        copied: Any = self
        update_wrapper(copied, function, updated=())  # without replacing our attributes
        self._execution = execution_of(self.__module__)

    def comes_after(self, other: Work[..., Any]) -> bool:
        """Tell whether this replaces another: a cell was run, or a module was loaded again."""
        return self.__module__ == other.__module__ and self._execution != other._execution

    @cached_property
    def shape(self) -> Shape:
        """Return how arguments and result are converted to and from JSON."""
        return shape_of(self.function, self.leading)

    def refuse_options(self, args: Any, given: Iterable[str]) -> None:
        """Refuse a keyword that could be an option of the call or an argument of the function.

        Such an argument must be given by position. Raises InvalidArgument.
        """
        own = list(self.shape.signature.parameters.values())[self.leading + len(args) :]
        names = {each.name for each in own if each.kind in _BY_NAME}
        for name in names.intersection(given):
            raise InvalidArgument(
                f"{name} is an option of this call and an argument of {self.name}()",
                detail="It would be used as the option, and the function would not get it.",
                hint="Give the argument by position, or rename it.",
            )

    def check_memory(self, memory: Any, detail: str | None = None, or_else: str = "") -> None:
        """Refuse a call whose first argument is not a memory. Raises InvalidArgument."""
        if not isinstance(memory, Verbs):
            raise InvalidArgument(
                f"the {self.kind} {self.name} was given {type(memory).__name__} for a memory",
                detail=detail,
                hint=f"Call {self.name}(memory, …){or_else}.",
            )

    def key_of(self, args: Any, kwargs: Any) -> str | None:
        """Return the limit key of a call. Raises InvalidArgument."""
        key = self.limit_key(*args, **kwargs) if callable(self.limit_key) else self.limit_key
        if not isinstance(key, str | None):
            raise InvalidArgument(
                f"the limit key of {self.name} is {key!r}, not a text"[:500],
                hint="Let limit_key return a str: limit_key=lambda user, question: user.",
            )
        return key

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Be pickled by name and copied as itself, as functions are, if the name leads here."""
        named: str = getattr(self, "__qualname__", self.name)
        with suppress(AttributeError):
            if attrgetter(named)(sys.modules.get(self.__module__)) is self:
                return named
        return super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out which execution of its module has made it: it means nothing elsewhere."""
        return self.__dict__ | {"_execution": None}


class Activity(Work[P, R, Result_co]):
    """A function with side effects, whose result is recorded once."""

    kind = "activity"

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        queue: str | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        within: Duration | None = None,
        limit_key: LimitKey | None = None,
    ):
        super().__init__(function, name, queue, limit_key)
        self.retry = policy_of(retry)
        self.limits = limits_of(timeout, within)
        if limit_key is not None and queue is None:
            raise InvalidArgument(
                f"the activity {self.name} has a limit_key but no queue",
                detail="It runs where its caller runs, so no queue can limit it.",
                hint='Give it a queue: @app.activity(queue="llm", limit_key=…).',
            )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it durably in a coordinator or hook; elsewhere, simply run the function."""
        serving = runtime()
        if serving is None:
            result: R = self.function(*args, **kwargs)
            return result
        pending = serving.request(self._operation(serving, args, kwargs))
        given: R = serving.give(pending)
        return given

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Pending[Result_co]:
        """Start it beside others: `found = search.start("q"); ...; found.result()`."""
        serving = _needed(self)
        return serving.start(self._operation(serving, args, kwargs))

    def _operation(self, serving: Runtime, args: Any, kwargs: Any) -> operations.Operation:
        bound = self.shape.bind(args, kwargs)
        return operations.activity_operation(
            self, bound, serving.pin_of(self), self.key_of(args, kwargs)
        )


class Transaction(Activity[P, R, Result_co]):
    """An activity in the database: its rows and its recorded result are committed together."""

    leading = 1
    given = "connection"

    def __init__(
        self, function: Callable[..., Any], *, isolation: Isolation | None = None, **options: Any
    ):
        super().__init__(function, **options)
        if isolation not in (None, *get_args(Isolation)):
            raise InvalidArgument(
                f"{isolation!r} is not an isolation level",
                hint=f"Known levels: {', '.join(get_args(Isolation))}.",
            )
        self.isolation = isolation

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it durably. Its connection is added before these arguments."""
        if runtime() is None:
            hint = f"Give it a transaction of yours: {self.name}.function(connection, …)."
            raise misplaced(self.name, hint)
        return super().__call__(*args, **kwargs)


class Hook(Work[P, R, Result_co]):
    """Code that maintains the memory of a job. It may run again, so it must be idempotent."""

    kind = "hook"
    leading = 1

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        queue: str = "default",
        retry: Retry | None = None,
        timeout: Duration | None = None,
        within: Duration | None = None,
        limit_key: LimitKey | None = None,
    ):
        super().__init__(function, name, queue, limit_key)
        self.retry = policy_of(retry)
        self.limits = limits_of(timeout, within)

    def __call__(self, memory: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it on a worker and return its answer. Outside of jobs, simply run the function."""
        serving = runtime()
        if serving is None:
            result: R = self.function(memory, *args, **kwargs)
            return result
        self.check_memory(memory, "What it is called with first is not sent.")
        given: R = serving.give(serving.request(self._operation(serving, args, kwargs)))
        return given

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Pending[Result_co]:
        """Start it beside others, without the memory: `perspective.start("s", "q").result()`."""
        serving = _needed(self)
        return serving.start(self._operation(serving, args, kwargs))

    def own_options(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """Return the queue and limit key that the hook gives a call with these arguments."""
        return {"queue": self.queue, "limit_key": self.key_of(args, kwargs)}

    def _operation(self, serving: Runtime, args: Any, kwargs: Any) -> operations.Operation:
        return operations.hook_operation(self, args, kwargs, pinned_version=serving.pin_of(self))


class Coordinator(Work[P, R, Result_co]):
    """A thin deterministic function: it seeds the memory, starts hooks, waits and returns."""

    kind = "coordinator"
    leading = 1

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        queue: str = "default",
        entity: str | None = None,
        pinned_version: str | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        limit_key: LimitKey | None = None,
        again_for: str | Sequence[str] = (),
    ):
        super().__init__(function, name, queue, limit_key)
        self.entity = entity
        self.pinned_version = pinned_version
        self.again_for = [again_for] if isinstance(again_for, str) else list(again_for)
        for signal in self.again_for:
            check_name(signal, "a signal")
        self.retry = policy_of(retry)
        self.timeout = None if timeout is None else seconds(timeout)

    def own_options(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """Return the options that the coordinator itself gives a start with these arguments.

        They are queue, entity, timeout (in seconds), version and limit key.
        """
        own: dict[str, Any] = {"queue": self.queue, "entity": self.entity, "timeout": self.timeout}
        own["pinned_version"] = self.pinned_version
        own["limit_key"] = self.key_of(args, kwargs)
        return {name: value for name, value in own.items() if value is not None}

    def __call__(self, memory: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, as a part of its caller. `perdure.child()` makes it a job."""
        if runtime() is not None:
            child = f", or perdure.child({self.name}, …) to make it a job"
            self.check_memory(memory, or_else=child)
        result: R = self.function(memory, *args, **kwargs)
        return result

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Pending[Result_co]:
        """Start it as a child job beside others: `research.start("q")`.

        See `perdure.start_child()`. If the caller ends without having awaited the child, the child
        is asked to cancel.
        """
        serving = _needed(self)
        operation = operations.child_operation(
            self, args, kwargs, pinned_version=serving.pin_of(self)
        )
        return serving.start(operation)


Workflow = Coordinator[..., Any, Result] | str
"""A coordinator or its name, as callers that start a job give it."""


def check_kind(given: object, kind: type[Work[..., Any]]) -> None:
    """Refuse what is neither a name nor registered as this kind. Raises InvalidArgument."""
    if not isinstance(given, str | kind):
        raise InvalidArgument(
            f"{given!r} is not a registered {kind.kind}"[:500],
            hint=f"Give a function that @app.{kind.kind} has registered, or its name.",
        )


def _needed(work: Work[..., Any]) -> Runtime:
    hint = "Call the function itself there, or start a job with a client."
    return required(f"{work.name}.start", hint)
