"""Starts: what a client does to have jobs. It is given a handle of each.

Written once for both kinds of clients. What they are given depends on the kind and on the workflow
alike, and no type variable stands for a generic type such as `Handle`: so these are functions, and
each kind says what it gives where it makes verbs of them. The client stands before a `/`, so that a
workflow may have an argument of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from .memory import Awaited
from .requests import BaseClient, all_of_many, decoder_of
from .typed import Result
from .work import Workflow

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
    """Start a job: `client.start(research, "subsidies", id="agent-jane-001")`.

    Where a workflow is given by its name, what its decorator says (entity, queue, timeout …) is not
    known. Options: id, entity, queue, priority, due_at, limit_key, context, key, timeout, if_exists
    ("error", "existing", or "new_run" of a job that has ended), connection (joins its
    transaction); other keywords are the workflow's own, and one that might be meant so is
    refused. Raises JobExists, InvalidArgument.
    """
    call = client.requests.start(workflow, args, options)
    return client._give(call.reading(_handle_of(client, workflow)), connection)


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
    """Send a signal to a job, which is started first where there is none; both or neither.

    `args` and options are those of start(). With `if_exists="new_run"` a job that has ended
    begins a new run, to which the signal goes; otherwise it raises JobFinished.
    """
    call = client.requests.signal_with_start(workflow, id, signal, payload, args, options)
    return client._give(call.reading(_handle_of(client, workflow)), connection)


def start_many(
    client: BaseClient,
    /,
    workflow: Workflow[Result],
    many: Sequence[Mapping[str, Any]],
    *,
    connection: Any = None,
) -> Several[Result]:
    """Start many jobs in one call, each given as start()'s options with `args`."""
    call = client.calls.start_many(all_of_many(workflow, many))
    handle = _handle_of(client, workflow)
    return client._give(call.reading(lambda rows: [handle(row) for row in rows]), connection)


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
    """Start a job where another stands, or stood: `client.fork("agent-1", at=12)`.

    It has been told the first `at` facts of the other's coordinator (all, if not given) and has
    the memory that was there then, or `context`. What was asked for and not answered is asked
    for again. Raises JobNotFound, JobExists, InvalidArgument.
    """
    call = client.requests.fork(job, new_id, at, context, key)
    return client._give(call.reading(_handle_of(client, workflow)), connection)


def _handle_of(client: BaseClient, workflow: Workflow | None) -> Callable[[Sequence[Any]], Any]:
    """Give what makes a handle of an answer (id, is_new)."""
    decoder_of(workflow)  # what is no workflow is refused before anything is sent
    return lambda row: client.handle(row[0], workflow)
