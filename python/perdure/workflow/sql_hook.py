"""Hooks that are functions of the database, as user code sees and calls them."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, overload

from perdure.basics.names import check_text
from perdure.errors import InvalidArgument
from perdure.values.shapes import Shape, shape_of
from perdure.values.wire import decoder

from .work import Hook

if TYPE_CHECKING:
    from .memory import AsyncEntity, Entity

T = TypeVar("T")

SQL_QUEUE = "$sql"
"""The queue of tasks that the database runs itself; every worker serves it."""


class SqlHook(Hook[..., Any, T]):
    """A hook that is a function of the database, registered by `register_sql_hook()`."""

    def __init__(self, name: str, returns: Any = Any):
        super().__init__(_in_the_database, name=check_text(name), queue=SQL_QUEUE)
        self.returns = returns

    @cached_property
    def shape(self) -> Shape:
        """Return how arguments and result are converted to and from JSON."""
        return replace(shape_of(self.function, self.leading), result=decoder(self.returns))

    @overload
    def __call__(
        self, memory: AsyncEntity, *args: Any, **kwargs: Any
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def __call__(self, memory: Entity, *args: Any, **kwargs: Any) -> T: ...
    def __call__(self, memory: Any, *args: Any, **kwargs: Any) -> Any:
        """Let the database run it. Inside a coordinator or hook the call resolves to its answer.

        The function is given `["a", 1]` for `hook(memory, "a", 1)`, `{"n": 1}` for `hook(memory,
        n=1)`.
        """
        return super().__call__(memory, *args, **kwargs)


def _in_the_database(memory: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG001
    raise InvalidArgument(
        "a hook in SQL was called outside of a coordinator or hook",
        hint="Use a handle there: client.handle(id).hook(recount, …).",
    )


@overload
def sql_hook(name: str) -> SqlHook[Any]: ...
@overload
def sql_hook(name: str, returns: type[T]) -> SqlHook[T]: ...
def sql_hook(name: str, returns: Any = Any) -> SqlHook[Any]:
    """Name a function of the database as a hook: `recount = perdure.sql_hook("count", int)`.

    Call it by `await recount(memory, "a", 1)` in coordinators and hooks, or by
    `handle.hook(recount, "a", 1)` outside. `returns` is the type of its answer. Nothing is looked
    up here: `client.register_sql_hook()` says which function of the database it is.
    """
    return SqlHook(name, returns)
