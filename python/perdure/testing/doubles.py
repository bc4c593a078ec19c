"""Functions that stand in for activities and hooks until a lab ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, overload

from perdure.errors import InvalidArgument, UnknownFunction
from perdure.workflow.app import App
from perdure.workflow.functions import is_awaited
from perdure.workflow.sql_hook import SqlHook
from perdure.workflow.work import Activity, Hook, Transaction

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Mocked:
    """A function that stands in for an activity or hook; `calls` has the arguments of each call."""

    function: Callable[..., Any]
    calls: list[tuple[Any, ...]] = field(default_factory=list)


class Doubles:
    """What both kinds of labs have in common: replace functions of the app."""

    app: App
    _ending: ExitStack | AsyncExitStack

    @overload
    def mock(
        self,
        work: Hook[P, Any] | Transaction[P, Any],
        function: Callable[Concatenate[Any, P], Any],
    ) -> Mocked: ...
    @overload
    def mock(self, work: Activity[P, Any], function: Callable[P, Any]) -> Mocked: ...
    @overload
    def mock(self, work: str, function: Callable[..., Any]) -> Mocked: ...
    def mock(self, work: Any, function: Callable[..., Any]) -> Mocked:
        """Replace an activity or hook by a function until the lab ends.

        `lab.mock(search, lambda query: ["found"])`; `work` may be a name. A hook's function is
        given the memory first, a transaction's the connection. An `async def` runs on the loop of
        the lab's worker. Raises UnknownFunction, and InvalidArgument for a hook in SQL.
        """
        mocked, known = Mocked(function), self._known(work)
        if not callable(function):
            raise InvalidArgument(
                f"{function!r} is not a function that can replace {known.name}"[:500],
                hint="Give a function to call instead: lab.mock(search, lambda query: []).",
            )
        skipped, shape, before = known.leading, known.shape, (known.function, known.is_async)

        def call(*args: Any, **kwargs: Any) -> Any:
            mocked.calls.append((*args[skipped:], *kwargs.values()))
            return function(*args, **kwargs)

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            return await call(*args, **kwargs)

        def restore() -> None:
            known.function, known.is_async = before

        self._ending.callback(restore)
        is_async = is_awaited(function)
        known.function, known.is_async = call_async if is_async else call, is_async
        assert known.shape is shape  # arguments and results are converted as by the real one
        return mocked

    def _known(self, work: Any) -> Activity[..., Any] | Hook[..., Any]:
        if isinstance(work, SqlHook):
            raise InvalidArgument(
                "a hook in SQL cannot be mocked from Python",
                hint="Register another function under its name: lab.client.register_sql_hook().",
            )
        if isinstance(work, str):
            work = self.app.activities.get(work) or self.app.hooks.get(work) or work
        if not isinstance(work, Activity | Hook):
            raise UnknownFunction(
                f"this app has no activity or hook named {work!r}"[:500],
                hint="Register it first. Coordinators cannot be mocked; mock what they call.",
            )
        return work
