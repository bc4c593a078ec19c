"""Permanent memory and coordinated execution in PostgreSQL.

`app = perdure.App()` registers functions, `perdure.connect()` talks, `perdure.Worker(app)` runs.
"""

from .app import App
from .async_client import AsyncClient, AsyncHandle, connect_async
from .client import Client, Handle, connect
from .context import Info
from .durable import (
    child,
    exec_hook,
    info,
    memory,
    now,
    patched,
    random,
    signal,
    sleep,
    sleep_until,
    start_hook,
    uuid,
    wait_for,
)
from .errors import (
    ActivityFailed,
    ChildFailed,
    Failure,
    HookFailed,
    InvalidPath,
    InvalidValue,
    IoInCoordinator,
    JobCancelled,
    JobExists,
    JobFailed,
    JobFinished,
    JobNotFound,
    KeyReused,
    NonDeterminism,
    PerdureError,
    ResultTimeout,
    TaskNotHeld,
    VersionConflict,
    WrongType,
)
from .memory import AsyncEntity, Entity
from .requests import Status
from .retry import Retry
from .work import Activity, Coordinator, Hook, Pending
from .worker import Worker

__version__ = "0.1.0"

__all__ = [
    "Activity",
    "ActivityFailed",
    "App",
    "AsyncClient",
    "AsyncEntity",
    "AsyncHandle",
    "ChildFailed",
    "Client",
    "Coordinator",
    "Entity",
    "Failure",
    "Handle",
    "Hook",
    "HookFailed",
    "Info",
    "InvalidPath",
    "InvalidValue",
    "IoInCoordinator",
    "JobCancelled",
    "JobExists",
    "JobFailed",
    "JobFinished",
    "JobNotFound",
    "KeyReused",
    "NonDeterminism",
    "Pending",
    "PerdureError",
    "ResultTimeout",
    "Retry",
    "Status",
    "TaskNotHeld",
    "VersionConflict",
    "Worker",
    "WrongType",
    "child",
    "connect",
    "connect_async",
    "exec_hook",
    "info",
    "memory",
    "now",
    "patched",
    "random",
    "signal",
    "sleep",
    "sleep_until",
    "start_hook",
    "uuid",
    "wait_for",
]
