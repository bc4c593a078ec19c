"""Handles: what a client does with one job.

Written once for both kinds of clients: a verb gives its answer, or what is awaited for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from .calls import Call
from .durations import Duration
from .looks import Steps, answer_of, end_of, until_of
from .memory import Awaited
from .paths import Path
from .requests import BaseClient, answered, decoder_of, ending, unanswered, unfinished
from .streams import After, stream_pages
from .timeline import steps_to_forget, timeline_pages
from .typed import Result
from .typed_items import Decode, unchanged
from .work import Hook

_Memory = TypeVar("_Memory")
_End_co = TypeVar("_End_co", covariant=True)
_Status = TypeVar("_Status")
_Bool = TypeVar("_Bool")
_Int = TypeVar("_Int")
_Text = TypeVar("_Text")
_Family = TypeVar("_Family")
_Children = TypeVar("_Children")
_Stream = TypeVar("_Stream")
_Timeline = TypeVar("_Timeline")

FAMILY = 10_000
"""How many jobs of a family are listed, where nothing else is said."""
ALL = 2**31 - 1
"""As many as SQL can count: behind the family of a first child may stand a second one."""


class BaseHandle(
    Generic[_Memory, _End_co, _Status, _Bool, _Int, _Text, _Family, _Children, _Stream, _Timeline]
):
    """A job, seen from outside."""

    def __init__(self, client: BaseClient, job: str, decode: Decode = unchanged):
        self._client = client
        self._decode = decode
        self.id = job

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.id}>"

    @property
    def memory(self) -> _Memory:
        """Give the job's memory."""
        memory: _Memory = self._client.entity(self.id)
        return memory

    def result(self, timeout: Duration | None = None) -> _End_co:
        """Wait until the job has ended and give its result.

        Raises JobFailed, JobCancelled, ResultTimeout, JobNotFound, and ValueMistyped where it is
        not of the type that the workflow returns.
        """
        result: _End_co = self._client.follow(self._awaited(timeout))
        return result

    def _awaited(self, timeout: Duration | None) -> Steps[Any]:
        limit, until = until_of(timeout)
        row = yield end_of(self._client.calls, self.id, until)
        if row is None:
            raise unfinished(self.id, limit, (yield self._client.requests.status(self.id)))
        return ending(self.id, row, self._decode)

    def status(self) -> _Status:
        """Tell where the job stands. Raises JobNotFound."""
        return self._client._give(self._client.requests.status(self.id))

    def signal(
        self, name: str, payload: Any = None, *, key: str | None = None, connection: Any = None
    ) -> _Bool:
        """Send a signal; false where its key was seen before. Raises JobNotFound, JobFinished."""
        call = self._client.requests.signal(self.id, name, payload, key)
        return self._client._give(call, connection)

    def stream(self, name: Path, *, after: After = 0, timeout: Duration | None = None) -> _Stream:
        """Follow a stream: `for item in handle.stream("tokens"): print(item.item)`.

        Begins with the first item; goes on with `after=item`, or with what you kept of it:
        `after=(item.version, item.place)`. Ends when somebody has said that nothing more comes,
        when the job has ended, or when nothing has come for `timeout`. Raises JobNotFound.
        """
        pages = stream_pages(self._client.calls, self.id, name, after, timeout)
        items: _Stream = self._client.each(pages)
        return items

    def cancel(self, reason: str | None = None, *, connection: Any = None) -> _Bool:
        """Ask the job to cancel; false where it is finished or was asked before."""
        call = self._client.calls.cancel(self.id, reason)
        return self._client._give(call, connection)

    def cancel_hook(self, task: str, reason: str | None = None, *, connection: Any = None) -> _Bool:
        """Ask a hook of the job to cancel, by what `hook()` gave; false where that is in vain."""
        call = self._client.calls.cancel_hook(self.id, task, reason)
        return self._client._give(call, connection)

    def family(self, max_rows: int = FAMILY) -> _Family:
        """List the job and all that descend from it, each after its parent. Raises JobNotFound."""
        return self._client._give(self._client.requests.family(self.id, max_rows))

    def children(self) -> _Children:
        """Give handles of the jobs that this one has asked for. Raises JobNotFound."""
        children: _Children = self._client.follow(self._begun())
        return children

    def _begun(self) -> Steps[list[Any]]:
        family = yield self._client.requests.family(self.id, ALL)
        return [self._client.handle(each.id) for each in family if each.depth == 1]

    def terminate(self, reason: str | None = None, *, connection: Any = None) -> _Bool:
        """End the job on the spot; none of its code runs any more."""
        call = self._client.calls.terminate(self.id, reason)
        return self._client._give(call, connection)

    def pause(self) -> _Bool:
        """Keep its tasks from workers until it is resumed; what is held ends its turn.

        False where it was paused before. Raises JobNotFound.
        """
        return self._client._give(self._client.calls.pause(self.id))

    def resume(
        self, task: str | None = None, *, accept_changes: bool = False, connection: Any = None
    ) -> _Int:
        """End a pause, and wake what is stuck; gives how many tasks go on.

        `task` names a stuck one alone. `accept_changes` lets arguments differ.
        """
        call = self._client.calls.resume(self.id, task, accept_changes)
        return self._client._give(call, connection)

    def repin(self, version: str | None) -> _Int:
        """Let the job keep to another version of the code, or to none; gives how many tasks."""
        return self._client._give(self._client.calls.repin(self.id, version))

    def retry(
        self,
        args: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        timeout: Duration | None = None,
        key: str | None = None,
        connection: Any = None,
    ) -> _Bool:
        """Run the job again, if it has failed or was cancelled: with its last arguments, or `args`.

        The new run has the memory as it is. False where the job runs or has completed. `timeout` is
        as that of the last start, unless given. Raises JobNotFound.
        """
        call = self._client.requests.retry(self.id, args, timeout, key)
        return self._client._give(call, connection)

    def timeline(self) -> _Timeline:
        """Give all that belongs to the job but its memory: itself, facts, tasks, open messages.

        `for item in handle.timeline(): print(item.at, item.task, item.body)`. Facts come in
        order of time. Raises JobNotFound.
        """
        items: _Timeline = self._client.each(timeline_pages(self._client.calls, self.id))
        return items

    def forget_old_runs(self) -> _Int:
        """Drop what the runs before the last one were told; gives how many facts.

        The changes they made of the memory stay in its history. Raises JobNotFound.
        """
        dropped: _Int = self._client.follow(steps_to_forget(self._client.calls, self.id))
        return dropped

    def hook(
        self, hook: Hook[..., Any] | str, *args: Any, connection: Any = None, **options: Any
    ) -> _Text:
        """Start a hook on the job's memory, and give the name of its task.

        Options: queue, priority, due_at, key (the same is the same hook, once), limit_key,
        pinned_version; other keywords are the hook's own. Raises JobNotFound.
        """
        call = self._client.requests.hook(self.id, hook, args, options)
        return self._client._give(call, connection)

    def _answer(self, task: str, timeout: Duration | None, decode: Decode) -> Steps[Any]:
        limit, until = until_of(timeout)
        row = yield answer_of(self._client.calls, self.id, task, until)
        if row is None:
            reason = yield self._client.calls.task_reason(self.id, task)
            raise unanswered(self.id, task, limit, reason)
        return answered(self.id, task, row, decode)

    def _ran(self, call: Call, timeout: Duration | None, decode: Decode) -> Steps[Any]:
        return (yield from self._answer((yield call), timeout, decode))


AnyHandle: TypeAlias = BaseHandle[Any, Any, Any, Any, Any, Any, Any, Any, Any, Any]

# What answers as a hook says: no type variable of a class stands for that, so these are functions,
# typed as an AsyncHandle has them. A Handle has the answer at once.


def run_hook(
    handle: AnyHandle,
    /,
    hook: Hook[..., Any, Result] | str,
    *args: Any,
    timeout: Duration | None = None,
    **options: Any,
) -> Awaited[Result]:
    """Start a hook on the job's memory, wait for it, and give its answer.

    `handle.run_hook(reply, "what is missing?", timeout="1 min")`. Options are those of hook();
    with a `key` whoever calls again gets the same answer. Raises HookFailed, ResultTimeout
    (the hook goes on) and JobNotFound.
    """
    client = handle._client
    call = client.requests.hook(handle.id, hook, args, options)
    answer: Awaited[Result] = client.follow(handle._ran(call, timeout, decoder_of(hook, Hook)))
    return answer


def hook_result(
    handle: AnyHandle,
    /,
    task: str,
    hook: Hook[..., Any, Result] | None = None,
    *,
    timeout: Duration | None = None,
) -> Awaited[Result]:
    """Wait for a hook from outside, by what `hook()` gave, and give its answer.

    It is of the type that `hook` returns, or as stored. Raises HookFailed, ResultTimeout,
    HookNotFound and JobNotFound.
    """
    steps = handle._answer(task, timeout, decoder_of(hook, Hook))
    answer: Awaited[Result] = handle._client.follow(steps)
    return answer
