"""The app: a registry of activities, hooks and coordinators. It does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

import psycopg

from .codecs import Codec, check_codec
from .durations import Duration
from .errors import InvalidArgument, InvalidName
from .names import check_name
from .retry import Retry
from .work import Activity, Coordinator, Hook, Isolation, LimitKey, Transaction, Work

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from .tracing import Tracing

P = ParamSpec("P")
T = TypeVar("T")
W = TypeVar("W", bound="Work[..., Any]")

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]


class ActivityDecorator(Protocol):
    """What `app.activity(…)` gives."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> Activity[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Activity[P, Any, T]: ...


class TransactionDecorator(Protocol):
    """What `app.transaction(…)` gives."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[AsyncConnection, P], Coroutine[Any, Any, T]], /
    ) -> Transaction[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Connection, P], T], /
    ) -> Transaction[P, Any, T]: ...


class HookDecorator(Protocol):
    """What `app.hook(…)` gives."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /
    ) -> Hook[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], T], /) -> Hook[P, Any, T]: ...


class CoordinatorDecorator(Protocol):
    """What `app.coordinator(…)` gives."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /
    ) -> Coordinator[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], T], /) -> Coordinator[P, T, T]: ...


def check_app(given: object) -> None:
    """Refuse what runs nothing. Raises InvalidArgument."""
    if not isinstance(given, App):
        raise InvalidArgument(
            f"{given!r} is no app"[:500], hint="Give what perdure.App() has made, not its name."
        )


class App:
    """A registry: `app = perdure.App()`, then `@app.coordinator`, `@app.hook`, `@app.activity`.

    `version` names this version of the code; pinned coordinators keep to it. `codec` encrypts what
    its workers tell the database, such as `perdure.codecs.AesGcm`. `tracer`, one of OpenTelemetry,
    makes spans of what they run.
    """

    def __init__(
        self,
        version: str | None = None,
        *,
        codec: Codec | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        if version is not None:
            check_name(version, "a version")
        self.version = version
        check_codec(codec)
        self.codec = codec
        self.tracing = None if tracer is None else _tracing(tracer)
        self.activities: dict[str, Activity[..., Any]] = {}
        self.hooks: dict[str, Hook[..., Any]] = {}
        self.coordinators: dict[str, Coordinator[..., Any]] = {}

    def tables(self) -> Mapping[str, Mapping[str, Work[..., Any]]]:
        """Give the registered functions by kind and name."""
        return {"activity": self.activities, "hook": self.hooks, "coordinator": self.coordinators}

    def queues(self) -> list[str]:
        """Name the queues on which these functions run."""
        return sorted({"default"} | {work.queue for work in self._works() if work.queue})

    def registers(self, work: Work[..., Any]) -> bool:
        """Tell whether a function is one of this app's."""
        return self.tables()[work.kind].get(work.name) is work

    def functions(self) -> list[str]:
        """Name the registered functions, each with its kind: `hook perspective`."""
        return sorted(f"{work.kind} {work.name}" for work in self._works())

    def _works(self) -> list[Work[..., Any]]:
        return [work for table in self.tables().values() for work in table.values()]

    @overload
    def activity(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> Activity[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def activity(self, function: Callable[P, T], /) -> Activity[P, Any, T]: ...
    @overload
    def activity(
        self,
        *,
        retries: int = 0,
        timeout: Duration | None = None,
        within: Duration | None = None,
        name: str | None = None,
        queue: str | None = None,
        limit_key: LimitKey | None = None,
        retry: Retry | None = None,
    ) -> ActivityDecorator: ...
    def activity(self, *function: Any, retries: int = 0, **options: Any) -> Any:
        """Register an activity: `@app.activity(retries=3, timeout="2 min")`.

        `retries=3` makes up to 1 + 3 attempts; `retry=Retry(…)` says more. `timeout` is for each
        attempt, `within` for all of them and the pauses between, from the first one on. With
        `queue` it runs on the workers of that queue, else where its caller runs; `limit_key` is its
        key where that queue limits keys: a text, or a function of the arguments,
        `limit_key=lambda user, question: user`.
        """
        return self._register(Activity, self.activities, function, retries, options)

    @overload
    def transaction(
        self, function: Callable[Concatenate[AsyncConnection, P], Coroutine[Any, Any, T]], /
    ) -> Transaction[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def transaction(
        self, function: Callable[Concatenate[Connection, P], T], /
    ) -> Transaction[P, Any, T]: ...
    @overload
    def transaction(
        self,
        *,
        retries: int = 0,
        timeout: Duration | None = None,
        within: Duration | None = None,
        name: str | None = None,
        queue: str | None = None,
        limit_key: LimitKey | None = None,
        retry: Retry | None = None,
        isolation: Isolation | None = None,
    ) -> TransactionDecorator: ...
    def transaction(self, *function: Any, retries: int = 0, **options: Any) -> Any:
        """Register an activity that is one transaction: `@app.transaction(retries=3)`.

        Its first argument is a connection of psycopg to the app's database (asynchronous for
        `async def`), in a transaction that is open: what it writes and its result are committed
        together, exactly once, when it has returned. It must not end the transaction itself.
        Options as for `activity()`, and `isolation`: "repeatable read" or "serializable".
        """
        return self._register(Transaction, self.activities, function, retries, options)

    @overload
    def hook(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /
    ) -> Hook[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def hook(self, function: Callable[Concatenate[Any, P], T], /) -> Hook[P, Any, T]: ...
    @overload
    def hook(
        self,
        *,
        queue: str = "default",
        retries: int = 0,
        timeout: Duration | None = None,
        within: Duration | None = None,
        name: str | None = None,
        limit_key: LimitKey | None = None,
        retry: Retry | None = None,
    ) -> HookDecorator: ...
    def hook(self, *function: Any, retries: int = 0, **options: Any) -> Any:
        """Register a hook, a function of the memory and its arguments: `@app.hook(queue="ai")`.

        `retries`, `retry`, `timeout`, `within` and `limit_key` as for an activity. A hook whose
        time is up is cancelled, may clean up, and has failed with TimeoutError.
        """
        return self._register(Hook, self.hooks, function, retries, options)

    @overload
    def coordinator(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /
    ) -> Coordinator[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def coordinator(
        self, function: Callable[Concatenate[Any, P], T], /
    ) -> Coordinator[P, T, T]: ...
    @overload
    def coordinator(
        self,
        *,
        entity: str | None = None,
        queue: str = "default",
        name: str | None = None,
        retries: int = 0,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        limit_key: LimitKey | None = None,
        pinned: bool = False,
    ) -> CoordinatorDecorator: ...
    def coordinator(
        self, *function: Any, retries: int = 0, pinned: bool = False, **options: Any
    ) -> Any:
        """Register a coordinator: `@app.coordinator(entity="research-agent", queue="agents")`.

        With `retries` or `retry` one that raises begins a new run, with its memory and an empty
        journal. `timeout` is for the job with all its runs, unless its start says another. A
        `pinned` one is started to keep to the version of this app: only its workers run it.
        `limit_key` as for an activity.
        """
        if pinned and self.version is None:
            raise InvalidArgument(
                "a coordinator is pinned to the version of its app, and this app has none",
                hint='Give it one: perdure.App(version="2").',
            )
        options["pinned_version"] = self.version if pinned else None
        return self._register(Coordinator, self.coordinators, function, retries, options)

    def _register(
        self,
        make: Callable[..., W],
        table: dict[str, W],
        given: tuple[Any, ...],
        retries: Any,
        options: dict[str, Any],
    ) -> Any:
        if retries and options.get("retry") is not None:
            raise InvalidArgument("retries and retry were both given", hint="Give one of them.")
        if not isinstance(retries, int) or retries < 0:
            raise InvalidArgument(
                f"retries={retries!r} is no number of retries"[:500],
                hint="Write retries=3, or retry=perdure.Retry(attempts=4).",
            )
        if retries:
            options["retry"] = Retry(attempts=1 + retries)

        def enter(function: Callable[..., Any]) -> W:
            _check_function(function)
            work = make(function, **options)
            before = table.get(work.name)
            if before is not None and not work.comes_after(before):
                article = "an" if work.kind == "activity" else "a"
                raise InvalidName(
                    f"this app has {article} {work.kind} named {work.name} already",
                    hint="Give one of them another name: name=…. A decorator beneath keeps the name"
                    " of its function with functools.wraps.",
                )
            table[work.name] = work
            return work

        return enter(*given) if given else enter


def _check_function(given: Any) -> None:
    """Refuse what cannot be registered. Raises InvalidArgument."""
    if not callable(given):
        raise InvalidArgument(
            f"{given!r} is no function to register"[:500],
            hint='A name is given as an option: @app.activity(name="charge").',
        )
    if isinstance(given, Work):
        raise InvalidArgument(
            f"{given.name} is registered already",
            hint=f"Give its function: {given.name}.function.",
        )


def _tracing(tracer: Tracer) -> Tracing:
    from .tracing import Tracing

    return Tracing(tracer)
