"""Outcomes: what a client returns of a finished job, and raises if it fails or is late."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from perdure.errors import HookFailed, InvalidArgument, JobCancelled, JobFailed, ResultTimeout
from perdure.values.decoding import read_as
from perdure.values.items import Decode, unchanged
from perdure.workflow.work import Coordinator, Hook, Work, Workflow, check_kind

from .requests import Status

logger = logging.getLogger("perdure.client")


def decoder_of(
    work: Workflow | Hook[..., Any] | None, kind: type[Work[..., Any]] = Coordinator
) -> Decode:
    """Return what makes the result of a function from its stored form. Raises InvalidArgument."""
    if work is not None:
        check_kind(work, kind)
    return work.shape.result if isinstance(work, Work) else unchanged


def ending(job: str, row: Sequence[Any], decode: Decode) -> Any:
    """Return the result of a finished job.

    Raises JobFailed, JobCancelled, ValueMistyped, and InvalidArgument if it is not a job.
    """
    status, result, error, *_ = row
    if status is None:
        raise InvalidArgument("this is a plain entity without a workflow, so it has no result")
    if status == "completed":
        return read_as(decode, result, f"the result of job {job}")
    raise _ended(job, JobCancelled if status == "cancelled" else JobFailed, error)


def _ended(
    job: str, kind: type[JobCancelled | JobFailed], failure: Any
) -> JobCancelled | JobFailed:
    """Make the exception here, so that no frame of its traceback holds it.

    A printed error shows what was raised in the worker, and where. A job that was asked to cancel
    has no mistake to look for.
    """
    ended = kind(failure)
    ended.job = job
    way = " of ".join(step for step in ended.failure.get("through", ()) if " " in step)
    notes = [f"job {job}" + (f", raised in {way}" if way else "")]
    is_asked_for = kind is JobCancelled and ended.type == "CancelledError"
    if ended.traceback and not is_asked_for:  # it ends with message, detail and hint
        notes += ["", ended.traceback.rstrip("\n")]
    else:
        told = {"detail": ended.detail, "hint": ended.hint}
        notes += [f"{name}: {text}" for name, text in told.items() if text]
    ended.add_note("\n".join(notes))
    return ended


TO_BE_RESUMED = "somebody to resume it"
"""What a stuck or paused task waits for, in the words of `task_reason()`."""

UNSERVED = "(none has registered)"
"""How those words end for a task that no worker serves."""

RESUME = (
    "Fix the cause, then call handle.resume(). If code did not fit its journal, it is also retried"
    " when workers with fixed code have replaced the others."
)


def unfinished(job: str, timeout: float | None, status: Status) -> ResultTimeout:
    """Return the error that a job was not finished in time, and what helps."""
    hint = "Wait longer, or look at its status and whether a worker serves its queue."
    late = f"job {job} was not finished within {timeout} s"
    return _late(late, status.waiting_for, RESUME if status.stuck else hint)


def warn_if_stalled(job: str, status: Status) -> None:
    """Warn somebody who waits for a job that cannot end by itself."""
    waits_for = status.waiting_for or ""
    if TO_BE_RESUMED in waits_for or UNSERVED in waits_for:
        logger.warning("the result of job %s has to wait for %s", job, waits_for)


def _late(message: str, waits_for: str | None, hint: str) -> ResultTimeout:
    is_stuck = waits_for is not None and waits_for.startswith(TO_BE_RESUMED)
    return ResultTimeout(
        message,
        detail=f"It waits for {waits_for.rstrip('.')}." if waits_for else None,
        hint=RESUME if is_stuck else hint,
    )


def answered(job: str, task: str, row: Sequence[Any], decode: Decode) -> Any:
    """Return the answer of a hook from outside. Raises HookFailed and ValueMistyped."""
    status, result, error = row
    if status == "completed":
        return read_as(decode, result, f"the answer of {task} of job {job}")
    failed = HookFailed(error)
    failed.add_note(f"{task} of job {job}")
    raise failed


def unanswered(job: str, task: str, timeout: float | None, reason: str | None) -> ResultTimeout:
    """Return the error that a hook from outside had not answered in time, and what helps."""
    late = f"{task} of job {job} had not answered within {timeout} s"
    return _late(late, reason, "Wait longer, with hook_result(), or fix what it waits for.")


def unfulfilled(job: str, condition: str, timeout: float | None) -> TimeoutError:
    """Return the error that a memory did not meet a condition in time."""
    return TimeoutError(f"the memory of {job} did not fulfil {condition} within {timeout} s")
