"""What a client does with one job.

Each method is written once for both kinds of clients: it returns its answer, or an awaitable of it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from perdure.basics.arguments import listed
from perdure.basics.durations import Duration, as_interval
from perdure.basics.paths import Path
from perdure.database.call import Call
from perdure.values.items import Decode, unchanged
from perdure.values.wire import Result
from perdure.workflow.memory import Awaited
from perdure.workflow.operations import stored
from perdure.workflow.work import Hook

from .base_client import BaseClient
from .outcomes import answered, decoder_of, ending, unanswered, unfinished, warn_if_stalled
from .past import Place
from .polling import Steps, answer_of, end_of, until_of
from .streams import Reading
from .timeline import steps_to_forget, timeline_pages

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

WARN_AFTER = 10.0
"""Seconds after which a wait for a result looks whether somebody can end the job at all."""

FAMILY = 10_000
"""How many jobs of a family are listed by default."""
ALL = 2**31 - 1
"""As many as SQL can count: behind the family of a first child there may be a second child."""


class BaseHandle(
    Generic[_Memory, _End_co, _Status, _Bool, _Int, _Text, _Family, _Children, _Stream, _Timeline]
):
    """A job, used from outside."""

    is_new: bool | None = None
    """Whether the call that returned this handle began the job or its run; None for `handle()`.

    False also if that call had to be repeated because its reply was lost.
    """

    _streams: ClassVar[type[Any]]
    """The kind of its streams."""

    def __init__(self, client: BaseClient, job: str, decode: Decode = unchanged):
        self._client = client
        self._decode = decode
        self.id = job

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.id}>"

    @property
    def memory(self) -> _Memory:
        """Return the memory of the job."""
        memory: _Memory = self._client.entity(self.id)
        return memory

    def result(self, timeout: Duration | None = None) -> _End_co:
        """Wait until the job has ended and return its result: `handle.result(timeout="10 min")`.

        Without a `timeout` it waits for ever. After ten seconds, the logger `perdure.client` warns
        if the job is stuck, or if no worker has registered for its work. Raises JobFailed,
        JobCancelled, ResultTimeout (the job continues), JobNotFound, and ValueMistyped if the
        stored result is not of the type that the workflow returns.
        """
        result: _End_co = self._client.follow(self._awaited(timeout))
        return result

    def _awaited(self, timeout: Duration | None) -> Steps[Any]:
        limit, until = until_of(timeout)
        requests, poll = self._client.requests, end_of(self._client.calls, self.id, until)
        row = yield replace(poll, pauses_at=time.monotonic() + WARN_AFTER)
        if row is None and not poll.is_over():
            warn_if_stalled(self.id, (yield poll.once(requests.status(self.id))))
            row = yield poll
        if row is None:
            raise unfinished(self.id, limit, (yield requests.status(self.id)))
        return ending(self.id, row, self._decode)

    def status(self) -> _Status:
        """Return the state of the job, and in words what it waits for. Raises JobNotFound."""
        return self._client.give(self._client.requests.status(self.id))

    def signal(
        self, name: str, payload: Any = None, *, key: str | None = None, connection: Any = None
    ) -> _Bool:
        """Send a signal to the job; return False if its `key` was used before.

        Raises JobNotFound and JobFinished.
        """
        call = self._client.requests.signal(self.id, name, payload, key)
        return self._client.give(call, connection)

    def stream(self, name: Path, *, after: Place = 0, timeout: Duration | None = None) -> _Stream:
        """Follow a stream of the job: `for item in handle.stream("tokens"): print(item.item)`.

        It begins with the first item, or behind `after`: an item, or its `(version, place)`. It
        ends when the publisher says that nothing more comes, when the job has ended, or when
        nothing has come for `timeout`. In the last case, the `ended` of the stream is False. Raises
        JobNotFound.
        """
        reading = Reading(self._client.calls, self.id, name, after, timeout)
        items: _Stream = self._streams(self._client.each(reading.pages()), reading)
        return items

    def cancel(self, reason: str | None = None, *, connection: Any = None) -> _Bool:
        """Ask the job to cancel, so that its code may clean up.

        Returns False if the job is finished or was asked before.
        """
        call = self._client.calls.cancel(self.id, reason)
        return self._client.give(call, connection)

    def cancel_hook(self, task: str, reason: str | None = None, *, connection: Any = None) -> _Bool:
        """Ask one hook of the job to cancel; `task` is what `hook()` returned.

        Returns False if it has ended, was asked before, or does not exist.
        """
        call = self._client.calls.cancel_hook(self.id, task, reason)
        return self._client.give(call, connection)

    def family(self, max_rows: int = FAMILY) -> _Family:
        """List the job and all its descendants, each after its parent. Raises JobNotFound."""
        return self._client.give(self._client.requests.family(self.id, max_rows))

    def children(self) -> _Children:
        """Return handles of the child jobs of this job. Raises JobNotFound."""
        children: _Children = self._client.follow(self._begun())
        return children

    def _begun(self) -> Steps[list[Any]]:
        family = yield self._client.requests.family(self.id, ALL)
        return [self._client.handle(each.id) for each in family if each.depth == 1]

    def terminate(self, reason: str | None = None, *, connection: Any = None) -> _Bool:
        """End the job at once: none of its code runs any more. Returns False if it is finished."""
        call = self._client.calls.terminate(self.id, reason)
        return self._client.give(call, connection)

    def pause(self) -> _Bool:
        """Keep the tasks of the job from workers until it is resumed. What runs now ends its turn.

        Returns False if it was paused before. Raises JobNotFound.
        """
        return self._client.give(self._client.calls.pause(self.id))

    def resume(
        self, task: str | None = None, *, accept_changes: bool = False, connection: Any = None
    ) -> _Int:
        """End a pause and wake stuck tasks; return how many tasks continue.

        `task` limits this to one stuck task. `accept_changes=True` lets the arguments that the code
        gives differ from those in its journal.
        """
        call = self._client.calls.resume(self.id, task, accept_changes)
        return self._client.give(call, connection)

    def repin(self, version: str | None) -> _Int:
        """Pin the job to another version of the code, or to none; return how many tasks moved."""
        return self._client.give(self._client.calls.repin(self.id, version))

    def retry(
        self,
        args: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        timeout: Duration | None = None,
        key: str | None = None,
        connection: Any = None,
    ) -> _Bool:
        """Run the job again if it has failed or was cancelled.

        The new run has the last arguments, or `args`, and the memory as it is. Returns False if the
        job runs or has completed. `timeout` defaults to that of the last start. Raises JobNotFound.
        """
        limit = None if timeout is None else as_interval(timeout)
        bound = args if args is None or isinstance(args, Mapping) else listed("args", args)
        call = self._client.calls.retry(self.id, stored(bound), limit, key or uuid.uuid4().hex)
        return self._client.give(call, connection)

    def timeline(self) -> _Timeline:
        """Yield all that belongs to the job but its memory.

        `for item in handle.timeline(): print(item.at, item.body)`. First the job itself, then its
        facts by time, its live tasks, its open messages and items. Raises JobNotFound.
        """
        items: _Timeline = self._client.each(timeline_pages(self._client.calls, self.id))
        return items

    def forget_old_runs(self) -> _Int:
        """Delete the journals of all runs but the last; return how many rows were deleted.

        Keys of signals that were taken more than a day ago are deleted, too. The changes that those
        runs made to the memory stay in its history. Raises JobNotFound.
        """
        dropped: _Int = self._client.follow(steps_to_forget(self._client.calls, self.id))
        return dropped

    def hook(
        self, hook: Hook[..., Any] | str, *args: Any, connection: Any = None, **options: Any
    ) -> _Text:
        """Start a hook on the memory of the job and return the name of its task.

        Options: `queue`, `priority` (0 to 9, default 5), `due_at`, `limit_key`, `pinned_version`,
        and `key` (the same key is the same hook, once). Other arguments are passed to the hook.
        Raises JobNotFound.
        """
        call = self._client.requests.hook(self.id, hook, args, options)
        return self._client.give(call, connection)

    def _answer(self, task: str, timeout: Duration | None, decode: Decode) -> Steps[Any]:
        limit, until = until_of(timeout)
        row = yield answer_of(self._client.calls, self.id, task, until)
        if row is None:
            reason = yield self._client.calls.task_reason(self.id, task)
            needs = yield self._client.calls.task_needs(self.id, task)
            raise unanswered(self.id, task, limit, reason, needs)
        return answered(self.id, task, row, decode)

    def _ran(self, call: Call, timeout: Duration | None, decode: Decode) -> Steps[Any]:
        return (yield from self._answer((yield call), timeout, decode))


AnyHandle: TypeAlias = BaseHandle[Any, Any, Any, Any, Any, Any, Any, Any, Any, Any]

# Their result type is that of the hook, for which no type variable of a class can stand. So these
# are functions, typed as methods of an AsyncHandle. A Handle has the answer at once.


def run_hook(
    handle: AnyHandle,
    /,
    hook: Hook[..., Any, Result] | str,
    *args: Any,
    timeout: Duration | None = None,
    **options: Any,
) -> Awaited[Result]:
    """Start a hook on the memory of the job, wait for it and return its answer.

    `handle.run_hook(reply, "what is missing?", timeout="1 min")`. The options are those of
    `hook()`; with a `key`, a repeated call gets the same answer. Raises HookFailed, ResultTimeout
    (the hook continues) and JobNotFound.
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
    """Wait for a hook that `hook()` started, and return its answer.

    `task` is what `hook()` returned. With `hook` the answer has the type that the hook returns,
    else it is plain JSON. Raises HookFailed, ResultTimeout, HookNotFound and JobNotFound.
    """
    steps = handle._answer(task, timeout, decoder_of(hook, Hook))
    answer: Awaited[Result] = handle._client.follow(steps)
    return answer
