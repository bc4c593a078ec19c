"""Jobs: what a client does to list them, to have their memories, and to be rid of them. See
`starts`.

Written once for both kinds of clients: a verb gives its answer, or what is awaited for it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from . import resealing
from .durations import Duration, aware
from .indexing import LOCK_TIMEOUT, create_index, drop_index
from .looks import Steps, condition_on, until_of
from .names import as_id
from .paths import Path
from .requests import BaseClient, unfulfilled
from .work import Workflow

_Memory = TypeVar("_Memory")
_NewMemory = TypeVar("_NewMemory")
_Int = TypeVar("_Int")
_Bool = TypeVar("_Bool")
_Index = TypeVar("_Index")
_Page = TypeVar("_Page")


class Jobs(BaseClient, Generic[_Memory, _NewMemory, _Int, _Bool, _Index, _Page]):
    """The verbs of a client that concern jobs and their memories."""

    _make_memory: Callable[..., Any]

    def jobs(
        self,
        *,
        workflow: Workflow[Any] | str | None = None,
        status: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: str | UUID | None = None,
        limit: int = 100,
    ) -> _Page:
        """List jobs, the newest first: `client.jobs(workflow="research", status="failed")`.

        `status` is running, completed, failed or cancelled; `since` and `until` say when they were
        started. At most 1000; the next page is `until` the `created_at` and `after` the `id` of the
        last one. Raises InvalidArgument.
        """
        asked = self.requests.jobs(workflow, status, (since, until), after, limit)
        return self._give(asked)

    def entity(self, job: str | UUID, *, connection: Any = None) -> _Memory:
        """Give the memory of a job or entity; with `connection` inside its transaction."""
        memory: _Memory = self._make_memory(self, as_id(job), connection)
        return memory

    def create_entity(
        self, id: str | UUID, entity: str, context: Any = None, *, connection: Any = None
    ) -> _NewMemory:
        """Make a memory without a workflow, if it is not there; it joins a `connection`, too.

        `is_new` of what it gives tells: one that was there, of whatever entity, stays as it is.
        """
        call = self.requests.create(id, entity, context)

        def memory(is_new: bool) -> Any:
            made: Any = self.entity(id, connection=connection)
            made.is_new = is_new
            return made

        return self._give(call.reading(memory), connection)

    def until(self, job: str, condition: str, timeout: float | None) -> _Int:
        """Wait for a memory to fulfil a condition; gives the version. Raises TimeoutError."""
        version: _Int = self.follow(self._until(job, condition, timeout))
        return version

    def _until(self, job: str, condition: str, timeout: float | None) -> Steps[int]:
        limit, until = until_of(timeout)
        version: int | None = yield condition_on(self.calls, job, condition, until)
        if version is None:
            raise unfulfilled(job, condition, limit)
        return version

    def reseal(self, job: str | UUID) -> _Int:
        """Encrypt a memory anew, with the current key and as the codec says now; gives how many
        fields were not so.

        Its history keeps what it was. Raises InvalidArgument without a codec, and JobNotFound.
        """
        resealed: _Int = self.follow(resealing.steps(self.calls, as_id(job)))
        return resealed

    def forget(self, job: str | UUID) -> _Bool:
        """Delete a finished job or an entity, with its whole history; false where there is none.

        Raises JobAtWork.
        """
        return self._give(self.calls.forget(as_id(job)))

    def forget_finished(
        self, before: datetime, *, entity: str | None = None, limit: int = 1000
    ) -> _Int:
        """Delete jobs that finished before a time, the oldest first, with their histories; gives
        how many: call it again until that is 0. With ninety days kept:
        `client.forget_finished(datetime.now(UTC) - timedelta(days=90))`.

        At most `limit` in a transaction, up to 10,000. What is not over stays: a job of which a
        hook still runs, or a child; and what a foreign key of yours keeps. Raises InvalidArgument.
        """
        return self._give(self.calls.forget_finished(aware(before), entity, limit))

    def create_index(
        self, entity: str, path: Path, kind: str = "text", *, lock_timeout: Duration = LOCK_TIMEOUT
    ) -> _Index:
        """Make an index that find() uses, while others write; nothing happens where it is.

        Kinds: text, number, boolean, time; contains for what is in arrays and objects; search, or
        search(german), for words in texts; vector(1536) for what is near. Raises InvalidName,
        InvalidPath, InvalidArgument, TooManyIndexes, and psycopg.errors.LockNotAvailable where a
        transaction stays open for longer than `lock_timeout`.
        """
        index: _Index = self._block(
            create_index, self._source, self.calls, entity, path, kind, lock_timeout
        )
        return index

    def drop_index(
        self, entity: str, path: Path, kind: str = "text", *, lock_timeout: Duration = LOCK_TIMEOUT
    ) -> _Bool:
        """Drop an index of create_index(), while others write; false where it was not there."""
        dropped: _Bool = self._block(
            drop_index, self._source, self.calls, entity, path, kind, lock_timeout
        )
        return dropped

    def _block(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call what blocks, where it holds up nobody; each kind of client in its way."""
        raise NotImplementedError
