"""How a client starts jobs. Each start returns a handle of the job.

These verbs are written once for both kinds of clients. Their result type depends on the client and
on the workflow at the same time, and no type variable can stand for a generic type such as
`Handle`. So they are functions, and each kind of client makes methods of them. `client` is
positional-only, so that a workflow may have an argument of that name.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from perdure.basics.names import as_id
from perdure.values.wire import Result
from perdure.workflow.memory import Awaited
from perdure.workflow.operations import as_memory
from perdure.workflow.work import Workflow

from .base_client import BaseClient
from .outcomes import decoder_of
from .requests import all_of_many, check_key, id_or_new

if TYPE_CHECKING:
    from .async_client import AsyncHandle
    from .client import Handle

    New: TypeAlias = Handle[Result] | Awaited[AsyncHandle[Result]]
    Several: TypeAlias = list[Handle[Result]] | Awaited[list[AsyncHandle[Result]]]


def start(
    client: BaseClient,
    /,
    workflow: Workflow[Result],
    *args: Any,
    connection: Any = None,
    **options: Any,
) -> New[Result]:
    """Start a job and return its handle: `client.start(research, "subsidies", id="agent-1")`.

    `workflow` is a coordinator or its name. By name, the options of its decorator (entity, queue,
    timeout ...) are not known. Options, all by keyword; the other arguments are passed to the
    workflow:

    - `id`: default a new UUID. `if_exists`: "error", "existing" or "new_run" (if the job has
      ended).
    - `entity`, `context`: the type of the memory, and its first content.
    - `queue`, `priority` (0 first, 9 last, default 5), `limit_key`: where and in which order it
      runs.
    - `due_at`, `timeout`: when it may begin, and how long the job may take.
    - `key`: needs an `id`; a repeated call with the same key starts nothing again.
    - `headers`: for traces. `pinned_version`: run only by this version of the code.
    - `connection`: join its transaction.

    `handle.is_new` tells whether the job or its run began with this call. Raises JobExists, and
    InvalidArgument, also if a keyword could be meant as an option or as an argument.
    """
    call = client.requests.start(workflow, args, options)
    return client.give(call.reading(_handle_of(client, workflow)), connection)


def signal_with_start(
    client: BaseClient,
    /,
    workflow: Workflow[Result],
    id: str | UUID,
    signal: str,
    payload: Any = None,
    *args: Any,
    connection: Any = None,
    **options: Any,
) -> New[Result]:
    """Send a signal to a job, and start the job first if it does not exist; both happen or neither.

    `args` and the options are those of `start()`, without `due_at`. If the job has ended, the call
    raises JobFinished, or with `if_exists="new_run"` begins a new run that gets the signal.
    """
    call = client.requests.signal_with_start(workflow, id, signal, payload, args, options)
    return client.give(call.reading(_handle_of(client, workflow)), connection)


def start_many(
    client: BaseClient,
    /,
    workflow: Workflow[Result],
    many: Sequence[Mapping[str, Any]],
    *,
    connection: Any = None,
) -> Several[Result]:
    """Start many jobs in one call and return their handles; all are started or none.

    Each element of `many` is a dict of `start()`'s options, and `args`: `[{"id": "a-1", "args": ["a
    question"]}]`.
    """
    call = client.calls.start_many(all_of_many(workflow, many))
    handle = _handle_of(client, workflow)
    return client.give(call.reading(lambda rows: [handle(row) for row in rows]), connection)


def fork(
    client: BaseClient,
    /,
    job: str | UUID,
    new_id: str | UUID | None = None,
    *,
    at: int | None = None,
    context: dict[str, Any] | None = None,
    workflow: Workflow[Result] | None = None,
    key: str | None = None,
    connection: Any = None,
) -> New[Result]:
    """Start a new job from a place in the journal of another: `client.fork("agent-1", at=12)`.

    The new job is told the first `at` facts of the other's coordinator (default: all), and gets the
    memory of that moment, or `context`. What was requested and not yet answered is requested again.
    `key` needs a `new_id`. Raises JobNotFound, JobExists, InvalidArgument.
    """
    memory = None if context is None else as_memory(context)
    check_key({"id": new_id, "key": key}, "new_id")
    call = client.calls.fork(as_id(job), id_or_new(new_id), at, memory, key or uuid.uuid4().hex)
    return client.give(call.reading(_handle_of(client, workflow)), connection)


def _handle_of(client: BaseClient, workflow: Workflow | None) -> Callable[[Sequence[Any]], Any]:
    """Return what makes a handle of an answer (id, is_new)."""
    decoder_of(workflow)  # anything but a workflow is refused before something is sent
    return partial(started, client, workflow)


def started(client: BaseClient, workflow: Workflow | None, row: Sequence[Any]) -> Any:
    """Return the handle of a job that a call has started, or found."""
    job, is_new, *_ = row  # a later version may say more
    handle = client.handle(job, workflow)
    handle.is_new = is_new
    return handle
