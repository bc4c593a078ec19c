"""The calls of an app, together: every SQL text that clients and workers send."""

from __future__ import annotations

from .job_calls import JobCalls
from .memory_calls import MemoryCalls
from .session_calls import SessionCalls
from .worker_calls import WorkerCalls


class Calls(JobCalls, MemoryCalls, WorkerCalls, SessionCalls):
    """The calls of one app: `Calls("my_app").claim(...)`."""
