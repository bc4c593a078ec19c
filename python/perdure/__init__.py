"""Permanent memory and coordinated execution in PostgreSQL.

`app = perdure.App()` registers functions, `perdure.connect()` talks, `perdure.Worker(app)` runs.
"""

from .app import App
from .async_client import AsyncClient, AsyncHandle, AsyncMemory, connect_async
from .client import Client, Handle, Memory, connect
from .context import Info
from .contracts import BrokenContract
from .durable import (
    child,
    continue_as_new,
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
    ContractBroken,
    Failure,
    HookFailed,
    InvalidArgument,
    InvalidCondition,
    InvalidName,
    InvalidPath,
    InvalidSchedule,
    InvalidValue,
    IoInCoordinator,
    JobAtWork,
    JobCancelled,
    JobExists,
    JobFailed,
    JobFinished,
    JobNotFound,
    KeyReused,
    MemoryTooLarge,
    NonDeterminism,
    NumberOutOfRange,
    PerdureError,
    ResultTimeout,
    ScheduleNotFound,
    TaskNotHeld,
    TooManyIndexes,
    ValueTooDeep,
    ValueTooLarge,
    VersionConflict,
    VersionNotFound,
    WrongType,
)
from .finding import Found
from .indexing import Index
from .memory import AsyncEntity, Entity
from .past import Authorship, Change, Difference, LogItem
from .requests import Status
from .retry import Retry
from .schedules import Schedule
from .sqlregistry import RegisteredSqlHook
from .timeline import TimelineItem
from .typed_memory import TypedAsyncEntity, TypedEntity
from .work import SQL_QUEUE, Activity, Coordinator, Hook, Pending, SqlHook, sql_hook
from .worker import Worker

__version__ = "0.1.0"

__all__ = [
    "SQL_QUEUE",
    "Activity",
    "ActivityFailed",
    "App",
    "AsyncClient",
    "AsyncEntity",
    "AsyncHandle",
    "AsyncMemory",
    "Authorship",
    "BrokenContract",
    "Change",
    "ChildFailed",
    "Client",
    "ContractBroken",
    "Coordinator",
    "Difference",
    "Entity",
    "Failure",
    "Found",
    "Handle",
    "Hook",
    "HookFailed",
    "Index",
    "Info",
    "InvalidArgument",
    "InvalidCondition",
    "InvalidName",
    "InvalidPath",
    "InvalidSchedule",
    "InvalidValue",
    "IoInCoordinator",
    "JobAtWork",
    "JobCancelled",
    "JobExists",
    "JobFailed",
    "JobFinished",
    "JobNotFound",
    "KeyReused",
    "LogItem",
    "Memory",
    "MemoryTooLarge",
    "NonDeterminism",
    "NumberOutOfRange",
    "Pending",
    "PerdureError",
    "RegisteredSqlHook",
    "ResultTimeout",
    "Retry",
    "Schedule",
    "ScheduleNotFound",
    "SqlHook",
    "Status",
    "TaskNotHeld",
    "TimelineItem",
    "TooManyIndexes",
    "TypedAsyncEntity",
    "TypedEntity",
    "ValueTooDeep",
    "ValueTooLarge",
    "VersionConflict",
    "VersionNotFound",
    "Worker",
    "WrongType",
    "child",
    "connect",
    "connect_async",
    "continue_as_new",
    "exec_hook",
    "info",
    "memory",
    "now",
    "patched",
    "random",
    "signal",
    "sleep",
    "sleep_until",
    "sql_hook",
    "start_hook",
    "uuid",
    "wait_for",
]
