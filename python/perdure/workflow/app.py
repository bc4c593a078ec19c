"""The app: a registry of activities, hooks and coordinators. It does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from traceback import walk_stack
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

import psycopg

from perdure.basics.durations import Duration
from perdure.basics.names import check_name
from perdure.basics.retry import Retry
from perdure.codecs import Codec, check_codec
from perdure.errors import InvalidArgument, InvalidName

from .context import runtime
from .work import Activity, Coordinator, Hook, Isolation, LimitKey, Transaction, Work

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from perdure.tracing import Tracing

P = ParamSpec("P")
T = TypeVar("T")
W = TypeVar("W", bound="Work[..., Any]")

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]


class ActivityDecorator(Protocol):
    """The decorator that `app.activity(...)` returns."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> Activity[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Activity[P, Any, T]: ...


class TransactionDecorator(Protocol):
    """The decorator that `app.transaction(...)` returns."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[AsyncConnection, P], Coroutine[Any, Any, T]], /
    ) -> Transaction[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Connection, P], T], /
    ) -> Transaction[P, Any, T]: ...


class HookDecorator(Protocol):
    """The decorator that `app.hook(...)` returns."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /
    ) -> Hook[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], T], /) -> Hook[P, Any, T]: ...


class CoordinatorDecorator(Protocol):
    """The decorator that `app.coordinator(...)` returns."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /
    ) -> Coordinator[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], T], /) -> Coordinator[P, T, T]: ...


def check_app(given: object) -> None:
    """Refuse what is not an App. Raises InvalidArgument."""
    if not isinstance(given, App):
        raise InvalidArgument(
            f"{given!r} is not an app"[:500],
            hint="Give the object that perdure.App() returned, not its name.",
        )


class App:
    """Register functions: `@app.coordinator`, `@app.hook`, `@app.activity`, `@app.transaction`.

    - `version`: the name of this version of the code. Pinned coordinators stay with it.
    - `codec`: encrypts what workers send to the database, such as `perdure.codecs.AesGcm`.
    - `tracer`: an OpenTelemetry tracer that makes spans of what workers run.
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

    def __repr__(self) -> str:
        version = "" if self.version is None else f" version {self.version}"
        return f"<App{version}: {', '.join(self.functions()) or 'no functions'}>"

    def tables(self) -> Mapping[str, Mapping[str, Work[..., Any]]]:
        """Return the registered functions by kind and name."""
        return {"activity": self.activities, "hook": self.hooks, "coordinator": self.coordinators}

    def queues(self) -> list[str]:
        """Return the queues on which these functions run, "default" among them."""
        return sorted({"default"} | {work.queue for work in self._works() if work.queue})

    def registers(self, work: Work[..., Any]) -> bool:
        """Tell whether a function is registered in this app."""
        return self.tables()[work.kind].get(work.name) is work

    def functions(self) -> list[str]:
        """Return the registered functions by kind and name: `hook perspective`."""
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

        - `retries`: attempts after the first (default 0). `retry`: a `Retry` policy, for more
          control.
        - `timeout`: for each attempt. `within`: for all attempts and pauses together, from the
          first on.
        - `queue`: runs it on the workers of that queue. Default: where its caller runs.
        - `limit_key`: its key on a queue with limits per key: a text, or a function of the
          arguments, `limit_key=lambda user, question: user`.
        - `name`: default the name of the function.
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

        Its first argument is a psycopg connection to the database of the app (an async one for
        `async def`) with an open transaction. When the function returns, its rows and its result
        are committed together, exactly once. It must not end the transaction itself. Options as for
        `activity()`, and `isolation`: "repeatable read" or "serializable".
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

        `queue` is where its workers look for it. The other options are those of `activity()`. A
        hook whose time is up is cancelled, may clean up, and fails with TimeoutError.
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
        again_for: str | Sequence[str] = (),
        pinned: bool = False,
    ) -> CoordinatorDecorator: ...
    def coordinator(
        self, *function: Any, retries: int = 0, pinned: bool = False, **options: Any
    ) -> Any:
        """Register a coordinator: `@app.coordinator(entity="research-agent", queue="agents")`.

        - `entity`: the type of its memory. `queue`: where its workers look for it.
        - `retries` or `retry`: a run that raises is followed by another, with the same memory and
          an empty journal.
        - `timeout`: for the job with all its runs. A start may give another.
        - `again_for`: names of signals. If nobody has taken one when the code returns, the job does
          not end: another run begins, with the same arguments.
        - `pinned`: only workers of the version of this app run its jobs.
        - `limit_key`, `name`: as for an activity.
        """
        if pinned and self.version is None:
            raise InvalidArgument(
                "a coordinator is pinned to the version of its app, but this app has none",
                hint='Give it one: perdure.App(version="2").',
            )
        options["pinned_version"] = self.version if pinned else None
        return self._register(Coordinator, self.coordinators, function, retries, options)

    def _register(
        self,
        make: type[W],
        table: dict[str, W],
        given: tuple[Any, ...],
        retries: Any,
        options: dict[str, Any],
    ) -> Any:
        _check_options(make, options)
        if retries and options.get("retry") is not None:
            raise InvalidArgument("retries and retry were both given", hint="Give one of them.")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InvalidArgument(
                f"retries={retries!r} is not a number of retries"[:500],
                hint="Write retries=3, or retry=perdure.Retry(attempts=4).",
            )
        if retries:
            options["retry"] = Retry(attempts=1 + retries)

        def enter(function: Callable[..., Any]) -> W:
            _check_function(function)
            work = make(function, **options)
            self._check_place(work)
            before = table.get(work.name)
            if before is not None and not work.comes_after(before):
                article = "an" if work.kind == "activity" else "a"
                raise InvalidName(
                    f"this app has {article} {work.kind} named {work.name} already",
                    hint=_ONCE if _is_made_again(work, before) else _OTHER_NAME,
                )
            table[work.name] = work
            return work

        return enter(*given) if given else enter

    def _check_place(self, work: Work[..., Any]) -> None:
        """Refuse what running code of this app defines. Raises InvalidArgument.

        Code that runs may be the first to import a module; what that registers is there everywhere.
        """
        serving = runtime()
        if serving is None or serving.app is not self:
            return
        if _is_local(work) and not _is_imported_now():
            raise InvalidArgument(
                f"{work.kind} {work.name} is defined inside of {serving.info.name}, which runs now",
                detail="A worker that has not run this code would not have it.",
                hint=_ONCE,
            )


_ONCE = "Define it at the top level of a module: the code around it runs more than once."
_OTHER_NAME = (
    "Give one of them another name: name=…. A decorator beneath keeps the name of its function"
    " with functools.wraps."
)


def _is_local(work: Work[..., Any]) -> bool:
    return "<locals>" in getattr(work, "__qualname__", "")


def _is_imported_now() -> bool:
    """Tell whether a module is being imported, whose functions may define others."""
    names = (frame.f_globals.get("__name__") for frame, _ in walk_stack(None))
    return "importlib._bootstrap" in names


def _is_made_again(work: Work[..., Any], before: Work[..., Any]) -> bool:
    code = getattr(work.function, "__code__", None)
    return code is getattr(before.function, "__code__", work) and _is_local(work)


def _check_options(make: type[Work[..., Any]], given: Mapping[str, Any]) -> None:
    """Refuse an option that a decorator does not have. Raises TypeError, with those that it has."""
    known: set[str] = set()
    for kind in make.__mro__:
        known |= (getattr(vars(kind).get("__init__"), "__kwdefaults__", None) or {}).keys()
    if unknown := sorted(given.keys() - known):
        names = {"pinned" if name == "pinned_version" else name for name in known} | {"retries"}
        raise TypeError(
            f"{make.__name__.lower()}() has no option {unknown[0]!r}; it has"
            f" {', '.join(sorted(names))}"
        )


def _check_function(given: Any) -> None:
    """Refuse what cannot be registered. Raises InvalidArgument."""
    if not (callable(given) or isinstance(given, classmethod)):  # a Work refuses that one
        raise InvalidArgument(
            f"{given!r} is not a function to register"[:500],
            hint='Give options by name: @app.hook(name="charge", queue="payments").',
        )
    if isinstance(given, Work):
        raise InvalidArgument(
            f"{given.name} is already registered",
            hint=f"Give its function: {given.name}.function.",
        )


def _tracing(tracer: Tracer) -> Tracing:
    from perdure.tracing import Tracing

    return Tracing(tracer)
