"""Register functions of the database as hooks, drop and list them.

Each method is written once for both kinds of clients: it returns its answer, or an awaitable of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from perdure.basics.durations import Duration, as_interval
from perdure.errors import InvalidArgument
from perdure.workflow.sql_hook import SqlHook

from .base_client import BaseClient
from .past import rows_of

_None = TypeVar("_None")
_Bool = TypeVar("_Bool")
_Hooks = TypeVar("_Hooks")


@dataclass(frozen=True, slots=True)
class RegisteredSqlHook:
    """A function of the database that is a hook, with its retry policy and time limits."""

    name: str
    schema: str
    function: str
    attempts: int
    retry_in: timedelta
    timeout: timedelta | None
    within: timedelta | None


class SqlRegistry(BaseClient, Generic[_None, _Bool, _Hooks]):
    """The methods of a client that concern hooks in SQL."""

    def register_sql_hook(
        self,
        hook: SqlHook[Any] | str,
        function: str,
        *,
        attempts: int = 1,
        retry_in: Duration = 1,
        timeout: Duration | None = None,
        within: Duration | None = None,
        connection: Any = None,
    ) -> _None:
        """Make a function of the database a hook: `client.register_sql_hook(recount, "my.fn")`.

        The function takes the id of the job (text) and the arguments (jsonb), and returns jsonb or
        nothing.

        - `attempts`: the first one included. `retry_in`: the first pause (default 1 s); each
          further pause is twice as long.
        - `timeout`: for each attempt. `within`: for all attempts and pauses together, from the
          first on.

        Raises InvalidName and InvalidArgument.
        """
        lengths = {"retry_in": retry_in, "timeout": timeout, "within": within}
        written = {name: as_interval(it) for name, it in lengths.items() if it is not None}
        call = self.calls.register_sql_hook(_name(hook), function, attempts=attempts, **written)
        return self.give(call.reading(lambda _: None), connection)

    def drop_sql_hook(self, hook: SqlHook[Any] | str, *, connection: Any = None) -> _Bool:
        """Stop using a function as a hook; return False if there was no such hook."""
        return self.give(self.calls.drop_sql_hook(_name(hook)), connection)

    def sql_hooks(self) -> _Hooks:
        """List the hooks in SQL by name."""
        return self.give(self.calls.sql_hooks().reading(rows_of(RegisteredSqlHook)))


def _name(hook: SqlHook[Any] | str) -> str:
    given: object = hook
    if not isinstance(given, str | SqlHook):
        raise InvalidArgument(
            f"{hook!r} is not a hook in SQL"[:500],
            hint='Give perdure.sql_hook("name"), or its name.',
        )
    return given if isinstance(given, str) else given.name
