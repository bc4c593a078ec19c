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
        raise InvalidArgument(
            "this is a plain entity without a workflow, so it has no result",
            hint="Read its memory: client.entity(id).get().",
        )
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


REMEDIES = {
    "resume": "Fix the cause, then call handle.resume() for the job that is stuck. If code did not"
    " fit its journal, it is also retried when workers with fixed code have replaced the others.",
    "resume_queue": "Call resume_queue() when tasks of this queue may run again.",
    "resume_schedule": "Call resume_schedule() when it may start jobs again.",
    "worker": "Start a worker that serves this queue and has this code.",
}
"""What helps a task that needs something that does not come by itself."""


def unfinished(job: str, timeout: float | None, status: Status) -> ResultTimeout:
    """Return the error that a job was not finished in time, and what helps."""
    late = f"job {job} was not finished within {timeout} s"
    return _late(late, status.waiting_for, status.needs, "Wait longer, or look at its status.")


def warn_if_stalled(job: str, status: Status) -> None:
    """Warn somebody who waits for a job that cannot end by itself."""
    if status.needs is not None:
        logger.warning("the result of job %s has to wait for %s", job, status.waiting_for)


def _late(message: str, waits_for: str | None, needs: str | None, hint: str) -> ResultTimeout:
    return ResultTimeout(
        message,
        detail=f"It waits for {waits_for.rstrip('.')}." if waits_for else None,
        hint=hint if needs is None else REMEDIES[needs],
    )


def answered(job: str, task: str, row: Sequence[Any], decode: Decode) -> Any:
    """Return the answer of a hook from outside. Raises HookFailed and ValueMistyped."""
    status, result, error = row
    if status == "completed":
        return read_as(decode, result, f"the answer of {task} of job {job}")
    failed = HookFailed(error)
    failed.add_note(f"{task} of job {job}")
    raise failed


def unanswered(
    job: str, task: str, timeout: float | None, reason: str | None, needs: str | None
) -> ResultTimeout:
    """Return the error that a hook from outside had not answered in time, and what helps."""
    late = f"{task} of job {job} had not answered within {timeout} s"
    return _late(late, reason, needs, "Wait longer, with hook_result().")


def unfulfilled(job: str, condition: str, timeout: float | None) -> TimeoutError:
    """Return the error that a memory did not meet a condition in time."""
    return TimeoutError(f"the memory of {job} did not fulfil {condition} within {timeout} s")
