"""Jobs: what a client does to have them and their memories, and to be rid of them.

Written once for both kinds of clients: a verb gives its answer, or what is awaited for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar
from uuid import UUID

from . import resealing
from .durations import Duration
from .indexing import LOCK_TIMEOUT, create_index, drop_index
from .looks import Steps, condition_on, until_of
from .memory import Path
from .names import as_id
from .requests import BaseClient, Workflow, decoder_of, one_of_many, unfulfilled

_Handle = TypeVar("_Handle")
_Memory = TypeVar("_Memory")
_NewHandle = TypeVar("_NewHandle")
_NewHandles = TypeVar("_NewHandles")
_NewMemory = TypeVar("_NewMemory")
_Int = TypeVar("_Int")
_Bool = TypeVar("_Bool")
_Index = TypeVar("_Index")


class Jobs(
    BaseClient, Generic[_Handle, _Memory, _NewHandle, _NewHandles, _NewMemory, _Int, _Bool, _Index]
):
    """The verbs of a client that concern jobs and their memories."""

    _make_handle: Callable[..., Any]
    _make_memory: Callable[..., Any]

    def start(
        self, workflow: Workflow, *args: Any, connection: Any = None, **options: Any
    ) -> _NewHandle:
        """Start a job: `client.start(research, "subsidies", id="agent-jane-001")`.

        Options: id, entity, queue, priority, due_at, limit_key, context, key, timeout, if_exists
        ("error", "existing", or "new_run" of a job that has ended), connection (joins its
        transaction); other keywords are the workflow's own, and one that might be meant so is
        refused. Raises JobExists, InvalidArgument.
        """
        call = self.requests.start(workflow, args, options)
        return self._give(call.reading(self._handle_of(workflow)), connection)

    def signal_with_start(
        self,
        workflow: Workflow,
        id: str | UUID,
        signal: str,
        payload: Any = None,
        *args: Any,
        connection: Any = None,
        **options: Any,
    ) -> _NewHandle:
        """Send a signal to a job, which is started first where there is none; both or neither.

        `args` and options are those of start(). With `if_exists="new_run"` a job that has ended
        begins a new run, to which the signal goes; otherwise it raises JobFinished.
        """
        call = self.requests.signal_with_start(workflow, id, signal, payload, args, options)
        return self._give(call.reading(self._handle_of(workflow)), connection)

    def start_many(
        self, workflow: Workflow, many: Sequence[Mapping[str, Any]], *, connection: Any = None
    ) -> _NewHandles:
        """Start many jobs in one call, each given as start()'s options with `args`."""
        call = self.calls.start_many([one_of_many(workflow, each) for each in many])
        handle = self._handle_of(workflow)
        return self._give(call.reading(lambda rows: [handle(row) for row in rows]), connection)

    def fork(
        self,
        job: str,
        new_id: str | UUID | None = None,
        *,
        at: int | None = None,
        context: dict[str, Any] | None = None,
        workflow: Workflow | None = None,
        key: str | None = None,
        connection: Any = None,
    ) -> _NewHandle:
        """Start a job where another stands, or stood: `client.fork("agent-1", at=12)`.

        It has been told the first `at` facts of the other's coordinator (all, if not given) and has
        the memory that was there then, or `context`. What was asked for and not answered is asked
        for again. Raises JobNotFound, JobExists, InvalidArgument.
        """
        call = self.requests.fork(job, new_id, at, context, key)
        return self._give(call.reading(self._handle_of(workflow)), connection)

    def _handle_of(self, workflow: Workflow | None) -> Callable[[Sequence[Any]], Any]:
        """Give what makes a handle of an answer (id, is_new)."""
        return lambda row: self.handle(row[0], workflow)

    def handle(self, job: str | UUID, workflow: Workflow | None = None) -> _Handle:
        """Give a handle of a job; nothing is sent."""
        handle: _Handle = self._make_handle(self, as_id(job), decoder_of(workflow))
        return handle

    def entity(self, job: str | UUID, *, connection: Any = None) -> _Memory:
        """Give the memory of a job or entity; with `connection` inside its transaction."""
        memory: _Memory = self._make_memory(self, as_id(job), connection)
        return memory

    def create_entity(
        self, id: str | UUID, entity: str, context: Any = None, *, connection: Any = None
    ) -> _NewMemory:
        """Make a memory without a workflow, if it is not there; it joins a `connection`, too."""
        call = self.requests.create(id, entity, context)
        made = call.reading(lambda _: self.entity(id, connection=connection))
        return self._give(made, connection)

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

    def reseal(self, job: str) -> _Int:
        """Encrypt a memory anew, with the current key and as the codec says now; gives how many
        fields were not so.

        Its history keeps what it was. Raises InvalidArgument without a codec, and JobNotFound.
        """
        resealed: _Int = self.follow(resealing.steps(self.calls, job))
        return resealed

    def forget(self, job: str) -> _Bool:
        """Delete a finished job or an entity, with its whole history; false where there is none.

        Raises JobAtWork.
        """
        return self._give(self.calls.forget(job))

    def create_index(
        self, entity: str, path: Path, kind: str = "text", *, lock_timeout: Duration = LOCK_TIMEOUT
    ) -> _Index:
        """Make an index that find() uses, while others write; nothing happens where it is.

        Kinds: text, number, boolean, time, and contains for what is in arrays and objects. Raises
        InvalidName, InvalidPath, InvalidArgument, TooManyIndexes, and psycopg.errors.
        LockNotAvailable where a transaction stays open for longer than `lock_timeout`.
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
