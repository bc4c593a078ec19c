"""What a client does with jobs: list them, use their memories, delete them. See also `starts`.

Each method is written once for both kinds of clients: it returns its answer, or an awaitable of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from perdure.basics.durations import Duration, aware
from perdure.basics.names import as_id
from perdure.basics.paths import Path
from perdure.workflow.operations import stored
from perdure.workflow.work import Workflow

from . import resealing
from .base_client import BaseClient
from .indexing import LOCK_TIMEOUT, create_index, drop_index
from .outcomes import unfulfilled
from .past import rows_of
from .polling import Steps, condition_on, until_of
from .requests import Status

_Memory = TypeVar("_Memory")
_NewMemory = TypeVar("_NewMemory")
_Int = TypeVar("_Int")
_Bool = TypeVar("_Bool")
_Index = TypeVar("_Index")
_Page = TypeVar("_Page")


class Jobs(BaseClient, Generic[_Memory, _NewMemory, _Int, _Bool, _Index, _Page]):
    """The methods of a client that concern jobs and their memories."""

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
        """List jobs, newest first: `client.jobs(workflow="research", status="failed")`.

        - `workflow`, `status`: only jobs of this workflow, or in this state (running, completed,
          failed or cancelled).
        - `since`, `until`: only jobs that were started at or after the one time, and before the
          other.
        - `after`: for the next page, the `id` of the last job, with its `created_at` as `until`.
        - `limit`: 1000 at most.

        Returns a list of Status. Raises InvalidArgument.
        """
        name = workflow if workflow is None or isinstance(workflow, str) else workflow.name
        asked = self.calls.list_jobs(
            workflow=name,
            status=status,
            since=None if since is None else aware(since),
            until=None if until is None else aware(until),
            after=None if after is None else as_id(after),
            max_rows=limit,
        )
        return self.give(asked.reading(rows_of(Status)))

    def entity(self, job: str | UUID, *, connection: Any = None) -> _Memory:
        """Return a memory. With `connection`, what it does joins that transaction."""
        memory: _Memory = self._make_memory(self, as_id(job), connection)
        return memory

    def create_entity(
        self, id: str | UUID, entity: str, context: Any = None, *, connection: Any = None
    ) -> _NewMemory:
        """Create a memory without a workflow and return it.

        `client.create_entity("user-7", "user", {"name": "Jane"})`.

        If the id already exists, the memory is left unchanged, whatever its entity, and `is_new` of
        the result is False.
        """
        call = self.calls.create(
            as_id(id), entity, stored({} if context is None else context), uuid.uuid4().hex
        )

        def memory(is_new: bool) -> Any:
            made: Any = self.entity(id, connection=connection)
            made.is_new = is_new
            return made

        return self.give(call.reading(memory), connection)

    def until(self, job: str, condition: str, timeout: float | None) -> _Int:
        """Wait until a memory meets a condition and return its version. Raises TimeoutError."""
        version: _Int = self.follow(self._until(job, condition, timeout))
        return version

    def _until(self, job: str, condition: str, timeout: float | None) -> Steps[int]:
        limit, until = until_of(timeout)
        version: int | None = yield condition_on(self.calls, job, condition, until)
        if version is None:
            raise unfulfilled(job, condition, limit)
        return version

    def reseal(self, job: str | UUID) -> _Int:
        """Encrypt a memory again with the current key; return how many fields were changed.

        The history keeps what it was. Raises InvalidArgument without a codec, and JobNotFound.
        """
        resealed: _Int = self.follow(resealing.steps(self.calls, as_id(job)))
        return resealed

    def forget(self, job: str | UUID) -> _Bool:
        """Delete a finished job or an entity with its whole history; return False if there is none.

        Raises JobAtWork while one of its tasks or children is alive.
        """
        return self.give(self.calls.forget(as_id(job)))

    def forget_finished(
        self, before: datetime, *, entity: str | None = None, limit: int = 1000
    ) -> _Int:
        """Delete jobs that finished before a time, with their histories; return how many.

        Call it again until it returns 0: `client.forget_finished(datetime.now(UTC) -
        timedelta(days=90))`. One call deletes at most `limit` jobs (up to 10,000), oldest first, in
        one transaction. It keeps jobs with a live hook or child, and jobs that a foreign key of
        yours refers to. Raises InvalidArgument.
        """
        return self.give(self.calls.forget_finished(aware(before), entity, limit))

    def create_index(
        self, entity: str, path: Path, kind: str = "text", *, lock_timeout: Duration = LOCK_TIMEOUT
    ) -> _Index:
        """Create an index that `find()` uses, without blocking writers.

        An existing index is left as it is.

        `kind` is text, number, boolean or time; contains (for arrays and objects); search or
        search(german) (for words in texts); vector(1536) (for nearness). Raises InvalidName,
        InvalidPath, InvalidArgument, TooManyIndexes, and psycopg.errors.LockNotAvailable if a
        transaction stays open longer than `lock_timeout` (default "1 min").
        """
        index: _Index = self._block(
            create_index, self._source, self.calls, entity, path, kind, lock_timeout
        )
        return index

    def drop_index(
        self, entity: str, path: Path, kind: str = "text", *, lock_timeout: Duration = LOCK_TIMEOUT
    ) -> _Bool:
        """Drop an index, without blocking writers; return False if there is none."""
        dropped: _Bool = self._block(
            drop_index, self._source, self.calls, entity, path, kind, lock_timeout
        )
        return dropped

    def _block(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call what blocks without blocking anybody; each kind of client does it in its own way."""
        raise NotImplementedError
