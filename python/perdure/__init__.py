"""Permanent memory and coordinated execution in PostgreSQL.

Register functions with `app = perdure.App()`, talk to an app with `perdure.connect()`, and run its
code with `perdure.Worker(app)`.
"""

from perdure.basics.retry import Retry
from perdure.clients.async_client import AsyncClient, AsyncHandle, AsyncMemory, connect_async
from perdure.clients.client import Client, Handle, Memory, connect
from perdure.clients.contracts import BrokenContract
from perdure.clients.finding import Found
from perdure.clients.indexing import Index
from perdure.clients.items import AsyncItem, Item
from perdure.clients.past import Authorship, Change, Difference, LogItem
from perdure.clients.queues import QueueDepth
from perdure.clients.requests import Relative, Status
from perdure.clients.schedules import Schedule
from perdure.clients.sql_hooks import RegisteredSqlHook
from perdure.clients.streams import StreamItem
from perdure.clients.timeline import TimelineItem
from perdure.errors import (
    ActivityFailed,
    ChildFailed,
    ContractBroken,
    Failure,
    HookFailed,
    HookNotFound,
    InvalidArgument,
    InvalidCondition,
    InvalidName,
    InvalidPath,
    InvalidSchedule,
    InvalidValue,
    IoInCoordinator,
    ItemNotFound,
    ItemNotYours,
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
    QueueNotYours,
    ResultTimeout,
    ScheduleNotFound,
    SealBroken,
    TaskNotHeld,
    TooManyIndexes,
    ValueMistyped,
    ValueSealed,
    ValueTooDeep,
    ValueTooLarge,
    VersionConflict,
    VersionNotFound,
    WrongType,
)
from perdure.workers.worker import Worker
from perdure.workflow.app import App
from perdure.workflow.context import Info
from perdure.workflow.durable import (
    ask_people,
    child,
    continue_as_new,
    exec_hook,
    heartbeat,
    info,
    memory,
    now,
    patched,
    publish,
    random,
    signal,
    sleep,
    sleep_until,
    start_child,
    start_hook,
    uuid,
    wait_for,
)
from perdure.workflow.logs import logger
from perdure.workflow.memory import AsyncEntity, Entity
from perdure.workflow.shields import shielded
from perdure.workflow.sql_hook import SQL_QUEUE, SqlHook, sql_hook
from perdure.workflow.typed_memory import TypedAsyncEntity, TypedEntity
from perdure.workflow.work import Activity, Coordinator, Hook, Pending, Transaction

__version__ = "0.1.0"

__all__ = [
    "SQL_QUEUE",
    "Activity",
    "ActivityFailed",
    "App",
    "AsyncClient",
    "AsyncEntity",
    "AsyncHandle",
    "AsyncItem",
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
    "HookNotFound",
    "Index",
    "Info",
    "InvalidArgument",
    "InvalidCondition",
    "InvalidName",
    "InvalidPath",
    "InvalidSchedule",
    "InvalidValue",
    "IoInCoordinator",
    "Item",
    "ItemNotFound",
    "ItemNotYours",
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
    "QueueDepth",
    "QueueNotYours",
    "RegisteredSqlHook",
    "Relative",
    "ResultTimeout",
    "Retry",
    "Schedule",
    "ScheduleNotFound",
    "SealBroken",
    "SqlHook",
    "Status",
    "StreamItem",
    "TaskNotHeld",
    "TimelineItem",
    "TooManyIndexes",
    "Transaction",
    "TypedAsyncEntity",
    "TypedEntity",
    "ValueMistyped",
    "ValueSealed",
    "ValueTooDeep",
    "ValueTooLarge",
    "VersionConflict",
    "VersionNotFound",
    "Worker",
    "WrongType",
    "ask_people",
    "child",
    "connect",
    "connect_async",
    "continue_as_new",
    "exec_hook",
    "heartbeat",
    "info",
    "logger",
    "memory",
    "now",
    "patched",
    "publish",
    "random",
    "shielded",
    "signal",
    "sleep",
    "sleep_until",
    "sql_hook",
    "start_child",
    "start_hook",
    "uuid",
    "wait_for",
]
