"""Which functions of the database are hooks: what a client registers, drops and lists.

Written once for both kinds of clients: `send` gives the answer, or what is awaited for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from .durations import Duration, as_interval
from .errors import InvalidArgument
from .past import rows_of
from .requests import BaseClient
from .work import SqlHook

_None = TypeVar("_None")
_Bool = TypeVar("_Bool")
_Hooks = TypeVar("_Hooks")


@dataclass(frozen=True, slots=True)
class RegisteredSqlHook:
    """A function of the database that is a hook, and how often it is tried when it fails."""

    name: str
    schema: str
    function: str
    attempts: int
    retry_in: timedelta
    timeout: timedelta | None
    within: timedelta | None


class SqlRegistry(BaseClient, Generic[_None, _Bool, _Hooks]):
    """The verbs of a client that concern hooks in SQL."""

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
        """Let a function of the database be a hook: `client.register_sql_hook(recount, "my.fn")`.

        It is a function (text, jsonb) that returns jsonb or nothing, of the id of the job and the
        arguments. It runs as often as `attempts` when it fails, after `retry_in`, then twice that
        and so on. `timeout` is for each attempt, `within` for all of them and the pauses between,
        from the first one on. Raises InvalidName and InvalidArgument.
        """
        lengths = {"retry_in": retry_in, "timeout": timeout, "within": within}
        written = {name: as_interval(it) for name, it in lengths.items() if it is not None}
        call = self.calls.register_sql_hook(_name(hook), function, attempts=attempts, **written)
        return self._give(call.reading(lambda _: None), connection)

    def drop_sql_hook(self, hook: SqlHook[Any] | str, *, connection: Any = None) -> _Bool:
        """Let a function be a hook no more; false where it was none."""
        return self._give(self.calls.drop_sql_hook(_name(hook)), connection)

    def sql_hooks(self) -> _Hooks:
        """List the hooks in SQL by name."""
        return self._give(self.calls.sql_hooks().reading(rows_of(RegisteredSqlHook)))


def _name(hook: SqlHook[Any] | str) -> str:
    given: object = hook
    if not isinstance(given, str | SqlHook):
        raise InvalidArgument(
            f"{hook!r} is no hook in SQL"[:500], hint='Give perdure.sql_hook("name"), or its name.'
        )
    return given if isinstance(given, str) else given.name
